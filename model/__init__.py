"""The network in torch: configuration, U-Net, preconditioning, checkpoint import, and the small model that ships."""

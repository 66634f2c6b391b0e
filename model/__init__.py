"""The network in torch: configuration, U-Net, preconditioning, weights files, and the models that ship."""

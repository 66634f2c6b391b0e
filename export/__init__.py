"""Export: from a checkpoint to a verified bundle, and from a bundle to engines and Triton repositories."""

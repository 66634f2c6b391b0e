"""From a bundle to a repository that Triton Inference Server loads."""

"""What cuda-core stands on."""

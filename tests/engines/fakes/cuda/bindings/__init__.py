"""What cuda-core stands on; only looked for."""

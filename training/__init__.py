"""Training: data sets, the bidirectional objective, and the trainer."""

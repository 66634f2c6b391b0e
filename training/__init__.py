"""Training: data sets, the bidirectional objective, EDM's objective for the baseline, and the trainer."""

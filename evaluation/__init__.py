"""Evaluation: how good a model is, and the command that makes the one that ships."""

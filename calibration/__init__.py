"""Calibration: what samplers and low precision need to learn from data."""

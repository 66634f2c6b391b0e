"""Calibration: activation ranges for 8-bit graphs, and noise levels for schedules, both measured on data."""

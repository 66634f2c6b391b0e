"""Checks of a bundle and of this machine: parity with the recording, speed, and what can run here."""

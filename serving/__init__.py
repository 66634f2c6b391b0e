"""The models that a Triton server runs in its Python backend: tasks and moves.

Every model repository contains a zip of this package.
"""

"""What a Triton server runs in its Python backend: the tasks and moves as models.

Every model repository contains a zip of this package.
"""

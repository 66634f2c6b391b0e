"""The tasks of BCM as short programs of moves. A task uses the chain, never a backend. See
docs/tasks.md for the algorithms.

basic.py          generate, invert, reconstruct
latents.py        between two latents and near a latent: interpolation, variations
constrained.py    partly known images: inpainting, colorization, upscaling
restoration.py    damaged images: restoration, purification
classes.py        the class of an image, as the model sees it
trace.py          the states along a schedule
"""

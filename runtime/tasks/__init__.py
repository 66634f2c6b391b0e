"""What users ask for, as short programs of moves. A task knows the chain and no backend; docs/tasks.md has them as algorithms.

basic.py          generate, invert, reconstruct
latents.py        between two latents, and near one: interpolation, variations
constrained.py    images of which something is known: inpainting, colourisation, upscaling
restoration.py    images that something was done to: restoration, purification
classes.py        which class an image is of, as the model sees it
trace.py          the states on the way
"""

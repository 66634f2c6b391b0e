"""Compare the npz files that the same commands wrote on two machines: compare.py HOST OTHER BOUND.

HOST and OTHER are folders, each with images.npz and latents.npz. The exit code is 1 if a value differs by
more than BOUND, or if the files cannot be compared.
"""

import sys
from pathlib import Path

import numpy as np

bound = float(sys.argv[3])
for name in ("images", "latents"):
    host, other = (np.load(Path(folder) / f"{name}.npz") for folder in sys.argv[1:3])
    a, b = host[name], other[name]
    for array in ("seeds", "labels"):  # where they differ, so do the images that they belong to
        if not np.array_equal(host[array], other[array]):
            sys.exit(f"{name}: the {array} differ: {host[array]} and {other[array]}")
    if a.shape != b.shape or a.dtype != b.dtype:
        sys.exit(f"{name}: {a.dtype} {a.shape} and {b.dtype} {b.shape} cannot be compared")
    if not a.std() > 0.1:  # two commands that fail alike could both write constants
        sys.exit(f"{name}: the values of the host are nearly constant, or not numbers")
    worst = np.abs(a - b).max()
    shape = " × ".join(map(str, a.shape))
    print(f"largest difference of {name}, {shape}: {worst:.1e} (bound {bound:.0e})", flush=True)
    if not worst <= bound:  # written so that NaN fails too
        sys.exit(f"{name}: {worst:.1e} exceeds the bound {bound:.0e}")

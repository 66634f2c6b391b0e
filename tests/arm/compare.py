"""npz files of the same commands on two machines: compare.py HOST OTHER BOUND (two folders). Exit code 1 if a value differs by more."""

import sys
from pathlib import Path

import numpy as np

bound = float(sys.argv[3])
for name in ("images", "latents"):
    host, other = (np.load(Path(folder) / f"{name}.npz") for folder in sys.argv[1:3])
    a, b = host[name], other[name]
    for facts in ("seeds", "labels"):  # unequal, two different things would be compared
        if not np.array_equal(host[facts], other[facts]):
            sys.exit(f"{name}: the {facts} differ: {host[facts]} and {other[facts]}")
    if a.shape != b.shape or a.dtype != b.dtype:
        sys.exit(f"{name}: {a.dtype} {a.shape} and {b.dtype} {b.shape} cannot be compared")
    if not a.std() > 0.1:  # constants agree with all that fails alike
        sys.exit(f"{name}: the host's are nearly constant, or not numbers")
    worst = np.abs(a - b).max()
    print(
        f"largest difference of {name}, {' × '.join(map(str, a.shape))}: {worst:.1e} (bound {bound:.0e})",
        flush=True,
    )
    if not worst <= bound:  # NaN breaks every bound
        sys.exit(f"{name}: {worst:.1e} is over the bound {bound:.0e}")

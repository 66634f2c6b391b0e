"""Use an installed bcm-edge: python tests/smoke.py

It needs the package with its extra [run], and no test package. The shipped model generates and inverts
images, in Python and by commands, which write to a temporary folder.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import bcm_edge

BIN = Path(sys.executable).parent


def command(folder: str, *arguments: str) -> str:
    """Run bcm-edge in a folder, and return what it prints on standard output."""
    completed = subprocess.run(
        [str(BIN / "bcm-edge"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def main() -> None:
    """Check that Python and the commands give the same images, and that an inversion comes back to them."""
    checkout = Path(__file__).resolve().parent.parent
    assert Path(bcm_edge.__file__).resolve().parent != checkout, "the checkout is imported, not the package"
    with bcm_edge.load("digits") as bcm:
        images = bcm.generate(4, labels=[0, 3, 5, 8], seed=7)
        latents = bcm.invert(images, labels=[0, 3, 5, 8])
        again = bcm.generate(latents=latents, labels=[0, 3, 5, 8])
    assert images.shape == latents.shape == (4, 1, 8, 8)
    assert 0.7 < latents.std() < 1.3
    assert float(np.mean((again - images) ** 2)) < 0.02
    with tempfile.TemporaryDirectory() as folder:
        command(
            folder, "generate", "digits", "-n", "4", "--label", "0,3,5,8", "--seed", "7", "-o", "images.npz"
        )
        command(folder, "invert", "digits", "images.npz", "-o", "latents.npz")
        command(folder, "generate", "digits", "--latents", "latents.npz", "-o", "again.png")
        with np.load(Path(folder) / "images.npz") as file:
            np.testing.assert_allclose(file["images"], images, atol=1e-4)
        assert (Path(folder) / "again.png").read_bytes().startswith(b"\x89PNG")
    assert command(".", "--version") == f"bcm-edge, version {bcm_edge.__version__}\n"
    print(f"Python {platform.python_version()}, numpy {np.__version__}: the wheel generates and inverts")


if __name__ == "__main__":
    main()

"""Print the lowest versions that pyproject.toml allows for the runtime: python tests/lowest.py [PYPROJECT].

One line for each dependency of the package and of its extra [run], as pip takes it: "numpy>=1.24" becomes
"numpy==1.24".
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib


def lowest(project: dict[str, Any]) -> list[str]:
    """Return one pin per dependency of the table [project].

    Raises ValueError for a dependency that is not written NAME>=VERSION.
    """
    pins = []
    for dependency in [*project["dependencies"], *project["optional-dependencies"]["run"]]:
        name, sign, version = dependency.partition(">=")
        if not sign or not all(part.isdecimal() for part in version.split(".")):
            raise ValueError(f"{dependency!r} has no lowest version in the form NAME>=VERSION")
        pins.append(f"{name}=={version}")
    return pins


if __name__ == "__main__":
    own = Path(__file__).resolve().parent.parent / "pyproject.toml"
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else own
    print("\n".join(lowest(tomllib.loads(file.read_text())["project"])))

"""The lowest versions that tests/on_python.sh installs."""

from __future__ import annotations

import pytest
from fixture_types import ROOT
from lowest import lowest, tomllib

PYPROJECT = ROOT / "pyproject.toml"


def test_every_dependency_of_the_runtime_is_pinned_at_its_lower_bound():
    project = {
        "dependencies": ["numpy>=1.24", "click>=8.2"],
        "optional-dependencies": {"run": ["onnxruntime>=1.21"], "dev": ["ruff"]},
    }
    assert lowest(project) == ["numpy==1.24", "click==8.2", "onnxruntime==1.21"]


def test_package_has_a_lower_bound_for_every_dependency():
    pins = lowest(tomllib.loads(PYPROJECT.read_text())["project"])
    assert [pin.partition("==")[0] for pin in pins] == ["numpy", "click", "rich", "pillow", "onnxruntime"]


@pytest.mark.parametrize("dependency", ["numpy", "numpy==1.24", "numpy>=1.24,<3", "numpy<3"])
def test_dependency_without_a_plain_lower_bound_is_refused(dependency: str):
    with pytest.raises(ValueError, match="has no lowest version in the form NAME>=VERSION"):
        lowest({"dependencies": [dependency], "optional-dependencies": {"run": []}})

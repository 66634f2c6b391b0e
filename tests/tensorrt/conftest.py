"""Fixtures of the tests with the TensorRT-RTX library."""

from __future__ import annotations

import pytest
from contract import environment


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a test find the library."""
    for name, value in environment("builder").items():
        monkeypatch.setenv(name, value)

"""Classes from which a program derives its own."""

from __future__ import annotations

import enum
from typing import Any


class ILogger:
    """Receives messages."""

    Severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    def log(self, severity: Any, msg: str) -> None: ...


class IErrorRecorder:
    """Receives errors."""


class IProgressMonitor:
    """Receives the progress of a build."""

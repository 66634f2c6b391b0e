"""The errors that TensorRT reports to its loggers and error recorders."""

from __future__ import annotations

from collections.abc import Sequence

import tensorrt as trt

from ...errors import BackendError


class Messages:
    """The errors that TensorRT reports.

    Pass `logger` to the constructors of TensorRT, and set `recorder` as their error_recorder. Both must exist
    longer than the objects that use them.
    """

    def __init__(self) -> None:
        self._errors: list[str] = []
        self.logger = _Logger(self._errors)
        self.recorder = _Recorder(self._errors)

    def check_recorder(self, context: str) -> None:
        """Raise BackendError if an error was recorded, although every call succeeded.

        context: the beginning of the message.
        """
        if self.recorder.num_errors():
            self.recorder.clear()
            raise BackendError(f"{context}: {self.explain()}")

    def explain(self) -> str:
        """Return the errors since the last call in one line, in their order."""
        return one_line(self.take())

    def take(self) -> list[str]:
        """Return the errors since the last call in their order, each once."""
        errors = list(dict.fromkeys(self._errors))
        self._errors.clear()
        self.recorder.clear()
        return errors


def one_line(errors: Sequence[str]) -> str:
    """Return errors in one line."""
    lines = [" ".join(error.splitlines()) for error in errors]
    return "; ".join(lines) or "TensorRT reports no reason"


class _Logger(trt.ILogger):
    """A logger for TensorRT that keeps errors, and drops all other messages."""

    def __init__(self, errors: list[str]) -> None:
        trt.ILogger.__init__(self)
        self._errors = errors

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
            self._errors.append(msg)


class _Recorder(trt.IErrorRecorder):
    """An error recorder that keeps every error. TensorRT reads their codes and descriptions by index."""

    def __init__(self, errors: list[str]) -> None:
        trt.IErrorRecorder.__init__(self)
        self._errors = errors
        self._recorded: list[tuple[trt.ErrorCodeTRT, str]] = []

    # TensorRT calls all methods below. Its documentation of IErrorRecorder describes them.

    def num_errors(self) -> int:
        return len(self._recorded)

    def get_num_errors(self) -> int:  # C++ calls num_errors by this name
        return self.num_errors()

    def get_error_code(self, arg0: int) -> trt.ErrorCodeTRT:
        return self._recorded[arg0][0]

    def get_error_desc(self, arg0: int) -> str:
        return self._recorded[arg0][1]

    def has_overflowed(self) -> bool:
        return False

    def clear(self) -> None:
        self._recorded.clear()

    def report_error(self, arg0: trt.ErrorCodeTRT, arg1: str) -> bool:
        self._recorded.append((arg0, arg1))
        self._errors.append(arg1)
        return False

"""The errors that this package raises on purpose, and the exit codes that the command line returns for them.

    BcmError
    ├── InputError            2   an input cannot be used
    │   ├── CheckpointError       a weights file
    │   ├── BundleError           a bundle
    │   ├── ScheduleError         a schedule
    │   ├── ImageError            images, latents or a data set
    │   ├── CalibrationError      a calibration file, or the data to make one
    │   ├── LabelError            a class label
    │   ├── OutputError           an output file or folder
    │   ├── BackendError          a backend or a device
    │   ├── JobError              a job of `map`
    │   ├── BuildError            an engine that cannot be built
    │   └── MissingExtraError     optional packages that are not installed
    └── CheckFailed           1   a check failed
        ├── ParityError           two implementations of one model disagree
        ├── DowngradeError        an engine computes in another precision than its graph asks for
        ├── ShardError            shards of a job failed
        └── NonFiniteError        the model produced NaN or infinity

A message names what happened, where, and what to do. Interrupted is a KeyboardInterrupt. Any other exception
that reaches the command line is a bug in this package.
"""

from collections.abc import Sequence
from typing import Any


class BcmError(Exception):
    """Base class of all errors that this package raises on purpose."""

    # What the command line returns.
    exit_code = 2


class InputError(BcmError):
    """An input cannot be used: an argument, a file, a setting."""


class CheckpointError(InputError):
    """A weights file is not a checkpoint, is damaged or incomplete, or contradicts its configuration."""


class BundleError(InputError):
    """A bundle is missing, damaged, newer than this package, or refers to files outside itself."""


class ScheduleError(InputError):
    """A schedule cannot be parsed, its name is unknown, or one of its noise levels is out of range."""


class ImageError(InputError):
    """An image, a latent or a data set cannot be read, is empty, or has an unknown shape, type or range."""


class CalibrationError(InputError):
    """A calibration file is invalid or belongs to another model, or there are too few images."""


class LabelError(InputError):
    """A class label is missing, unknown or out of range, or the model has no classes."""


class OutputError(InputError):
    """An output exists already or cannot be written, or the disk is full."""


class BackendError(InputError):
    """A backend is unknown, its library is not installed, or it cannot run on this machine."""


class JobError(InputError):
    """A job has other arguments or data than before, another process runs it, or its cluster fails."""


class BuildError(InputError):
    """An engine cannot be built: TensorRT rejects the graph, or memory does not suffice."""


class MissingExtraError(InputError):
    """A command needs optional packages that are not installed. The message contains the pip command."""


class CheckFailed(BcmError):
    """Something that was checked does not hold."""

    exit_code = 1


class ParityError(CheckFailed):
    """Two implementations of one model differ by more than the bound.

    errors: the measured error of each move (`MoveError`); empty where no move could be compared.
    """

    def __init__(self, message: str, errors: Sequence[Any]) -> None:
        super().__init__(message)
        self.errors = errors


class DowngradeError(CheckFailed):
    """An engine computes in more bits than its graph asks for, which `build --strict-types` refuses."""


class ShardError(CheckFailed):
    """Some shards of a job failed. The message names them; all other shards are done."""


class NonFiniteError(CheckFailed):
    """The model produced NaN or infinity. The message names the move and its noise levels."""


class Interrupted(KeyboardInterrupt):
    """SIGINT (Ctrl-C) or SIGTERM stopped a training run, which can be resumed.

    exit_code: 128 + the number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = 128 + signal

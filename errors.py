"""Every error this package raises on purpose, and the exit code the command line gives it.

    BcmError
    ├── InputError            2   something the caller gave cannot be used
    │   ├── CheckpointError       a weights file: not one, damaged, incomplete, contradicting its configuration
    │   ├── BundleError           a bundle: missing, changed, newer than this package, pointing outside itself
    │   ├── ScheduleError         a schedule: cannot be parsed, unknown name, level out of range
    │   ├── ImageError            an image, latent or data set: unreadable, empty, of a size or kind not understood
    │   ├── CalibrationError      a calibration: not one, of another model, naming layers or tensors that do not exist, too little data
    │   ├── LabelError            a class label: missing, out of range, given to an unconditional model
    │   ├── OutputError           a place to write to: exists already, cannot be written, disk full
    │   ├── BackendError          a backend: unknown, its library missing, cannot run here
    │   ├── JobError              a job over many images: begun otherwise, in other hands, its cluster out of reach
    │   ├── BuildError            an engine: its graph cannot be parsed or built, or memory does not suffice
    │   └── MissingExtraError     a command: its optional packages are not installed
    └── CheckFailed           1   the thing that was checked does not hold
        ├── ParityError           two implementations of one model disagree
        ├── DowngradeError        an engine computes in another precision than its graph asks for
        ├── ShardError            a job over many images ended with some that could not be done
        └── NonFiniteError        the model produced NaN or infinity

A message says what is wrong, where, and what to do. Anything else that escapes is a bug in this package.
"""

from collections.abc import Sequence
from typing import Any


class BcmError(Exception):
    """Base of all deliberate errors."""

    exit_code = 2


class InputError(BcmError):
    """Something the caller gave cannot be used."""


class CheckpointError(InputError):
    """A weights file is not a checkpoint, is damaged, or does not fit its configuration."""


class BundleError(InputError):
    """A bundle is missing, damaged, newer than this package, or points outside itself."""


class ScheduleError(InputError):
    """A schedule cannot be parsed, is not known, or names a level the model does not have."""


class ImageError(InputError):
    """An image, latent or data set cannot be read or has the wrong shape."""


class CalibrationError(InputError):
    """A calibration is none, belongs to another model, does not fit the network's layers, or would rest on too little data."""


class LabelError(InputError):
    """A class label is missing, out of range, or given to a model without classes."""


class OutputError(InputError):
    """An output exists already or cannot be written."""


class BackendError(InputError):
    """A backend is not known, its library is not installed, or it cannot run here."""


class JobError(InputError):
    """A job was begun with other arguments or data, another process is at it, or its cluster cannot be reached or is too small."""


class BuildError(InputError):
    """An engine cannot be compiled: the graph does not parse or build, or there is too little memory."""


class MissingExtraError(InputError):
    """A command needs packages of an extra that is not installed; the message has the pip line."""


class CheckFailed(BcmError):
    """The thing that was checked does not hold."""

    exit_code = 1


class ParityError(CheckFailed):
    """Two implementations of one model disagree by more than the bound. errors: what was measured, move by move."""

    def __init__(self, message: str, errors: Sequence[Any]) -> None:
        super().__init__(message)
        self.errors = errors


class DowngradeError(CheckFailed):
    """An engine computes in more bits than its graph asks for."""


class ShardError(CheckFailed):
    """Some shards of a job could not be done; the message names them. The others are."""


class NonFiniteError(CheckFailed):
    """The model produced NaN or infinity; the message names the move and its levels."""

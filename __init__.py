"""bcm-edge: Bidirectional Consistency Models on the device.

    import bcm_edge
    bcm = bcm_edge.load("digits")  # or the path of a bundle
    images = bcm.generate(16, schedule="mixture-4", labels=3)   # float32 [16, C, H, W] in [-1, 1]
    latents = bcm.invert(images, labels=3)                      # and back to the noise

The import needs numpy only. A backend imports its library when a bundle is opened. The import also disables
the telemetry of these libraries (runtime/machine/privacy.py).
"""

from .errors import (
    BackendError,
    BcmError,
    BuildError,
    BundleError,
    CalibrationError,
    CheckFailed,
    CheckpointError,
    DowngradeError,
    ImageError,
    InputError,
    JobError,
    LabelError,
    MissingExtraError,
    NonFiniteError,
    OutputError,
    ParityError,
    ScheduleError,
    ShardError,
)
from .runtime.arguments import Labels, Seeds
from .runtime.calls import NetworkCall, OnMove
from .runtime.loading import load
from .runtime.machine.privacy import switch_off_telemetry
from .runtime.pictures.inputs import Holes, Images, Latents, PillowImage, Tensor
from .runtime.pictures.outputs import OutputType
from .runtime.pictures.reading import Paths, read_images
from .runtime.pipeline import BCM
from .runtime.pixels import ValueRange
from .runtime.schedule import Inject, Move, Schedule, parse_schedule
from .runtime.tasks.trace import Trace

switch_off_telemetry()

__version__ = "0.2.0"
__all__ = [
    "BCM",
    "BackendError",
    "BcmError",
    "BuildError",
    "BundleError",
    "CalibrationError",
    "CheckFailed",
    "CheckpointError",
    "DowngradeError",
    "Holes",
    "ImageError",
    "Images",
    "Inject",
    "InputError",
    "JobError",
    "LabelError",
    "Labels",
    "Latents",
    "MissingExtraError",
    "Move",
    "NetworkCall",
    "NonFiniteError",
    "OnMove",
    "OutputError",
    "OutputType",
    "ParityError",
    "Paths",
    "PillowImage",
    "Schedule",
    "ScheduleError",
    "Seeds",
    "ShardError",
    "Tensor",
    "Trace",
    "ValueRange",
    "__version__",
    "load",
    "parse_schedule",
    "read_images",
]

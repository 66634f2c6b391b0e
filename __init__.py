"""bcm-edge: Bidirectional Consistency Models on the device.

    import bcm_edge
    bcm = bcm_edge.load("digits")  # or the path of a bundle
    images = bcm.generate(16, schedule="mixture-4", labels=3)   # float32 [16, C, H, W] in [-1, 1]
    latents = bcm.invert(images, labels=3)                      # and back to the noise

The import needs numpy only. A backend imports its library when a bundle is opened. The import also disables
the telemetry of these libraries (runtime/machine/privacy.py).
"""

from .errors import BcmError
from .runtime.calls import NetworkCall
from .runtime.loading import load
from .runtime.machine.privacy import switch_off_telemetry
from .runtime.pictures.reading import read_images
from .runtime.pipeline import BCM
from .runtime.schedule import Schedule, parse_schedule

switch_off_telemetry()

__version__ = "0.2.0"
__all__ = [
    "BCM",
    "BcmError",
    "NetworkCall",
    "Schedule",
    "__version__",
    "load",
    "parse_schedule",
    "read_images",
]

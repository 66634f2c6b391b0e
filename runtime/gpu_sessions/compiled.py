"""What providers need that compile a graph at the first start: options, and a folder for the results."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

from ...errors import OutputError
from ..engines.store import system
from ..log import log
from ..machine.cache_folder import cache_directory
from ..machine.gpu import Gpu
from ..storage.bundle import Bundle


def profile_options(bundle: Bundle, batch: int, prefix: str) -> dict[str, str]:
    """Return the options of a provider for batches of 1 to `batch` images. Kernels are chosen for `batch`.

    prefix: the beginning of the names of the options, "trt" or "nv".
    """
    batches = {"min": 1, "opt": batch, "max": batch}
    return {f"{prefix}_profile_{end}_shapes": profile_shapes(bundle, n) for end, n in batches.items()}


def profile_shapes(bundle: Bundle, batch: int) -> str:
    """Return the shapes of all inputs of the inverse graph at a batch size, as ONNX Runtime reads them.

    For example "x:4x1x8x8,noise:4x1x8x8,t:4,u:4,label:4".
    """
    model = bundle.manifest.model
    image = "x".join(map(str, (batch, *model.sample_shape)))
    shapes = {"x": image, "noise": image, "t": batch, "u": batch}
    if model.num_classes is not None:
        shapes["label"] = batch
    return ",".join(f"{name}:{shape}" for name, shape in shapes.items())


def compiled_key(bundle: Bundle, precision: str, gpu: Gpu, library: str, options: dict[str, str]) -> str:
    """Return the name of a folder of compiled kernels: precision, GPU and library, then a hash of all facts.

    library: the library that compiles and its version, as a part of a file name, such as "trt10.13.3".
    options: those that change what is compiled, such as the shapes.
    """
    import onnxruntime

    facts = [
        gpu.name,
        gpu.capability,
        gpu.multiprocessors,
        library,
        onnxruntime.__version__,
        system(),
        bundle.hashes(precision),
        options,
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
    return f"{precision}-sm{gpu.capability.replace('.', '')}-{library}-{digest}"


def private_cache(kind: str, key: str) -> Path | None:
    """Return a folder of the cache that only this user can read and write; it is created if it is missing.

    kind: a folder of the cache folder. Compiled kernels and engines are code, which is executed without a
    check. A folder that belongs to another user is not used.

    None if there is no such folder. Everything is compiled at each start then.
    """
    try:
        folder = cache_directory() / kind / key
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            log.info("%s: not used, because it is not a folder of this user", folder)
            return None
        folder.chmod(0o700)
    except (OSError, OutputError) as error:
        log.info("no cache for compiled kernels: %s", error)
        return None
    return folder

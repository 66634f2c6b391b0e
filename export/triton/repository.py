"""Write a model repository.

    REPO/README.md                             how to use it
    REPO/Dockerfile                            a server for it
    REPO/client.py                             a first client
    REPO/triton.json                           what the repository was made from
    REPO/bcm_generate/config.pbtxt             a task; so are bcm_invert, bcm_reconstruct, bcm_interpolate
                                               and bcm_inpaint
                      1/model.py bcm_edge.zip  the runtime of this package
                      1/bundle/                the whole bundle
    REPO/bcm_forward/  bcm_inverse/            a single move: model.onnx with its weights, plans, or code as
                                               above
    REPO/bcm_mixture-4/1/model.onnx            a schedule as one graph

Triton takes every folder for a model, so only files are stored beside the models. Each model's folder
contains all that it needs, because a server fetches one model at a time from a bucket. On a disk, equal
files of a repository are hard links.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ... import __version__
from ...runtime.storage.files import replacing
from ...serving.answers import TASKS
from ..fused import check_fused
from . import contents
from .configs import WARM, Model, config_text
from .container import dockerfile
from .lint import lint
from .models import models
from .plan import RepositoryPlan
from .readme import readme

MARKER = "triton.json"  # a folder with this file is a repository, which --force may replace
CLIENT = "client.py"
VERSION = "1"


def write_repository(plan: RepositoryPlan) -> list[Model]:
    """Write a repository, check it, publish it, and return its models.

    Nothing is left behind after an error. Raises OutputError if it cannot be written, CheckFailed if it
    does not fit the bundle, and ParityError if the graph of a schedule computes other images than the
    chain.
    """
    with replacing(plan.output, plan.force, marker=MARKER) as root:
        root.mkdir()
        archive = root / contents.ARCHIVE
        contents.archive_runtime(archive)
        written = []
        for model, write in models(plan, contents.VersionWriter(plan.bundle, archive)):
            _write_config(model, root / model.name)
            write(root / model.name / VERSION)
            written.append(model)
        archive.unlink()
        (root / MARKER).write_text(json.dumps(_facts(plan, written), indent=1) + "\n")
        (root / "README.md").write_text(readme(plan, written), encoding="utf-8")
        (root / "Dockerfile").write_text(dockerfile(plan), encoding="utf-8")
        shutil.copyfile(Path(__file__).with_name(CLIENT), root / CLIENT)
        lint(root, plan.bundle, plan.precision, plan.engines)
        for name, schedule in plan.fused.items():
            graph = root / f"bcm_{name}" / VERSION / contents.GRAPH
            check_fused(graph, plan.bundle, plan.precision, schedule)
    return written


def _write_config(model: Model, folder: Path) -> None:
    """Write config.pbtxt and the files of the warm-up request, and make the version folder."""
    (folder / VERSION).mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config_text(model.config), encoding="utf-8")
    for name, sample in model.warm.items():
        (folder / WARM).mkdir(exist_ok=True)
        (folder / WARM / name).write_bytes(sample.tobytes())


def _facts(plan: RepositoryPlan, written: Sequence[Model]) -> dict[str, object]:
    """The contents of triton.json."""
    return {
        "bcm_edge": __version__,
        "platform": plan.platform,
        "precision": plan.precision,
        "serving": asdict(plan.serving),
        "models": [model.name for model in written],
        "tasks": [f"bcm_{task}" for task in TASKS],
        "bundle": {name: file.sha256 for name, file in plan.bundle.manifest.files.items()},
    }

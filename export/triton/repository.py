"""Writing a model repository: what is in it, and where it comes from.

    REPO/README.md  client.py  triton.json     for people; a first client; what the repository was made from
    REPO/bcm_generate/config.pbtxt             a task; so are bcm_invert, bcm_reconstruct, bcm_interpolate, bcm_inpaint
                      1/model.py bcm_edge.zip  the package's runtime
                      1/bundle/                the whole bundle
    REPO/bcm_forward/  bcm_inverse/            model.onnx with its weights; or plans; or as a task
    REPO/bcm_mixture-4/1/model.onnx            a schedule as one graph

Only files lie beside the models, since to Triton every folder there is a model. Each has all that it needs in its own folder, because from
a bucket a server fetches one model at a time; on a disk, equal files of a repository are one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from ... import __version__
from ...errors import BackendError, InputError, ScheduleError
from ...runtime.backends import onnxruntime
from ...runtime.engines.store import Engine, check_plans, engines
from ...runtime.schedule import Schedule
from ...runtime.storage.bundle import Bundle
from ...runtime.storage.files import replacing
from ...runtime.storage.manifest import DIRECTIONS, ModelFacts
from ...serving.answers import TASKS
from ...serving.signatures import Signature, Tensor, move_signatures, stream_signature, task_signatures
from ..fused import check_fused, check_fuses, fused_inputs, fused_output
from . import contents
from .configs import WARM, Model, Serving, config_text, engine_model, graph_model, python_model, stream_model
from .lint import lint
from .readme import readme

PLATFORMS = ("tensorrt", "onnxruntime", "python")
MARKER = "triton.json"
CLIENT = "client.py"
VERSION = "1"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
WARM_LEVELS = {
    "forward": {"t": 80.0, "u": 0.002},
    "inverse": {"t": 0.07, "u": 80.0},
}  # zeros are levels that no model has

Write = Callable[[Path], None]  # is given the version's folder


@dataclass(frozen=True)
class RepositoryPlan:
    """platform: of the single moves, one of PLATFORMS; fused: name → schedule that becomes one graph; engines: the newest for every
    compute capability, for tensorrt; stream: whether a model answers after every network call."""

    bundle: Bundle
    output: Path
    platform: str
    precision: str
    engines: tuple[Engine, ...]
    serving: Serving
    fused: dict[str, Schedule]
    stream: bool
    force: bool

    @property
    def backend(self) -> str:
        """What plays inside the Python models."""
        return "tensorrt" if self.platform == "tensorrt" else "onnxruntime"


def plan_repository(
    bundle: Bundle,
    output: Path,
    platform: str | None,
    precision: str | None,
    serving: Serving,
    fused: Sequence[str],
    stream: bool,
    force: bool,
) -> RepositoryPlan:
    """platform: None takes tensorrt where the bundle holds engines; precision: None takes that of the newest of them, else the most exact.

    Raises BackendError for tensorrt without engines that Triton can load, ScheduleError for names that are not schedules of the bundle's or
    do not fit into a graph, BundleError for a precision that it does not hold.
    """
    built = [engine.facts.options.precision for engine in engines(bundle)]
    platform = platform or ("tensorrt" if built else "onnxruntime")
    precision = precision or (built[0] if built and platform == "tensorrt" else bundle.precisions[0])
    facts = {
        "bcm_edge": __version__,
        **{f"sha256 of {name}": digest for name, digest in bundle.hashes(precision).items()},
    }
    if unknown := [name for name in fused if name not in bundle.manifest.schedules]:
        raise ScheduleError(
            f"no schedule {unknown[0]!r} in this bundle; it has {', '.join(bundle.manifest.schedules)}"
        )
    if odd := [name for name in fused if not NAME.fullmatch(name) or name in (*TASKS, *DIRECTIONS)]:
        raise ScheduleError(
            f"schedule {odd[0]!r} cannot name a model: its name has other signs than letters, digits, . _ -, or is taken"
        )
    if fused and platform == "python":
        raise InputError(
            "graphs of whole schedules are played by Triton's ONNX Runtime backend; leave --schedules out, or take another --platform"
        )
    schedules = {name: bundle.schedule(name) for name in fused}
    for schedule in schedules.values():
        check_fuses(schedule)
    plans = _engines(bundle, precision) if platform == "tensorrt" else ()
    if not plans and (reason := onnxruntime.unavailable(precision)):
        raise BackendError(f"a server without engines cannot play {precision}: {reason}")
    return RepositoryPlan(
        bundle, output, platform, precision, plans, replace(serving, facts=facts), schedules, stream, force
    )


def _engines(bundle: Bundle, precision: str) -> tuple[Engine, ...]:
    """Those that Triton can load, their plans' hashes checked. Raises BackendError."""
    found: dict[str, Engine] = {}
    for engine in engines(bundle):
        if engine.facts.options.precision == precision and engine.facts.graphs == bundle.hashes(precision):
            found.setdefault(engine.facts.capability, engine)
    if not found:
        raise BackendError(
            f"{bundle.path}: has no engines of its {precision} graphs; bcm-edge build makes them on the GPU, and --platform onnxruntime "
            "or python do without"
        )
    for engine in found.values():
        check_plans(engine)
        if engine.facts.options.batch[0] > 1:
            raise BackendError(
                f"{engine.name}: takes no fewer than {engine.facts.options.batch[0]} samples, and requests have any number"
            )
        if engine.facts.options.stripped:
            raise BackendError(
                f"{engine.name}: its plans lack their weights, and Triton has none to give; build it without --strip"
            )
    return tuple(found.values())


def write_repository(plan: RepositoryPlan) -> list[Model]:
    """Write it whole, or nothing. Raises OutputError; CheckFailed where what was written does not fit the bundle, or where a graph of a
    schedule makes other images than the chain."""
    with replacing(plan.output, plan.force, marker=MARKER) as root:
        root.mkdir()
        archive = root / contents.ARCHIVE
        contents.archive_runtime(archive)
        made = []
        for model, write in _models(plan, contents.Versions(plan.bundle, archive)):
            _write_config(model, root / model.name)
            write(root / model.name / VERSION)
            made.append(model)
        archive.unlink()
        (root / MARKER).write_text(json.dumps(_facts(plan, made), indent=1) + "\n")
        (root / "README.md").write_text(
            readme(plan.bundle.manifest.model, made, plan.platform), encoding="utf-8"
        )
        shutil.copyfile(Path(__file__).with_name(CLIENT), root / CLIENT)
        lint(root, plan.bundle, plan.precision, plan.engines)
        for name, schedule in plan.fused.items():
            check_fused(
                root / f"bcm_{name}" / VERSION / contents.GRAPH, plan.bundle, plan.precision, schedule
            )
    return made


def _models(plan: RepositoryPlan, versions: contents.Versions) -> Iterator[tuple[Model, Write]]:
    """Every model, and what writes its version."""
    facts, serving = plan.bundle.manifest.model, plan.serving

    def code(kind: str, says: str) -> Write:
        return partial(versions.write_code, kind=kind, says=says)

    for task, signature in task_signatures(facts).items():
        model = python_model(
            f"bcm_{task}", task, signature, serving, plan.backend, plan.precision, _warm_images(signature)
        )
        yield model, code("TaskModel", signature.says)
    if plan.stream:
        signature = stream_signature(facts)
        yield (
            stream_model("bcm_generate_stream", signature, serving, plan.backend, plan.precision),
            code("StreamModel", signature.says),
        )
    for direction, signature in move_signatures(facts).items():
        name, warm = f"bcm_{direction}", _warm_levels(direction)
        if plan.platform == "tensorrt":
            yield (
                engine_model(name, signature, serving, plan.engines, warm),
                partial(versions.write_plans, engines=plan.engines, direction=direction),
            )
        elif plan.platform == "onnxruntime":
            write = partial(versions.write_graph, precision=plan.precision, direction=direction)
            yield graph_model(name, signature, serving, warm), write
        else:
            yield (
                python_model(name, direction, signature, serving, plan.backend, plan.precision, warm),
                code("MoveModel", signature.says),
            )
    for name, schedule in plan.fused.items():
        write = partial(versions.write_fused, precision=plan.precision, schedule=schedule)
        yield graph_model(f"bcm_{name}", fused_signature(schedule, facts), serving, {}), write


def fused_signature(schedule: Schedule, model: ModelFacts) -> Signature:
    """What the graph of a schedule takes and gives."""
    image = model.sample_shape
    says = {"image": "in [-1, 1]", "label": f"class, from 0 to {(model.num_classes or 0) - 1}"}
    tensors = [
        Tensor(name, "INT64", (1,), says[name])
        if name == "label"
        else Tensor(name, "FP32", image, says.get(name, "noise of std 1"))
        for name in fused_inputs(schedule, model.num_classes)
    ]
    given = Tensor(
        fused_output(schedule), "FP32", image, "near unit variance" if schedule.from_image else "in [-1, 1]"
    )
    return Signature(f"`{schedule}` as one graph", tuple(tensors), (given,))


def _warm_images(signature: Signature) -> dict[str, np.ndarray]:
    """Black images, and a hole of one pixel: zeros would be refused, as images of an unclear range and as no hole."""
    samples = {"image": np.float32(-1), "image_b": np.float32(-1)}
    black = {t.name: np.full(t.dims, samples[t.name]) for t in signature.inputs if t.name in samples}
    holes = {
        t.name: np.arange(prod(t.dims)).reshape(t.dims) == 0 for t in signature.inputs if t.name == "mask"
    }
    return {**black, **holes}


def _warm_levels(direction: str) -> dict[str, np.ndarray]:
    return {name: np.full(1, level, np.float32) for name, level in WARM_LEVELS[direction].items()}


def _write_config(model: Model, folder: Path) -> None:
    (folder / VERSION).mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config_text(model.config), encoding="utf-8")
    for name, sample in model.warm.items():
        (folder / WARM).mkdir(exist_ok=True)
        (folder / WARM / name).write_bytes(sample.tobytes())


def _facts(plan: RepositoryPlan, made: Sequence[Model]) -> dict[str, object]:
    bundle = {name: facts.sha256 for name, facts in plan.bundle.manifest.files.items()}
    told = {
        "bcm_edge": __version__,
        "platform": plan.platform,
        "precision": plan.precision,
        "serving": asdict(plan.serving),
    }
    return {
        **told,
        "models": [model.name for model in made],
        "tasks": [f"bcm_{task}" for task in TASKS],
        "bundle": bundle,
    }

"""The repository's README.md."""

from __future__ import annotations

from collections.abc import Sequence

from ...runtime.storage.manifest import ModelFacts
from ...serving.signatures import Tensor
from .configs import QUEUE_LENGTH, QUEUE_SECONDS, TASK_DELAY, Model

NEEDS = {
    "tensorrt": "its TensorRT and Python backends (and ONNX Runtime's for schedules as one graph), and in Python numpy, cuda-core and "
    "TensorRT of the version that built the engines",
    "onnxruntime": "its ONNX Runtime and Python backends, and in Python numpy and onnxruntime",
    "python": "its Python backend, and in Python numpy and onnxruntime",
}


def readme(model: ModelFacts, models: Sequence[Model], platform: str) -> str:
    """Markdown: how to start a server on it, what every model takes and gives, what stands in the configs and why."""
    image = "×".join(map(str, model.sample_shape))
    lines = [
        f"# {model.name}: a model repository for Triton Inference Server",
        "",
        "Written by bcm-edge. A server that loads it needs " + NEEDS[platform] + ".",
        "",
        "    export ORT_DISABLE_TELEMETRY=1     # for the server's own ONNX Runtime; the Python models set it themselves",
        "    tritonserver --model-repository=REPO --disable-auto-complete-config --exit-on-error=true",
        f"    python client.py --seed 7{'' if model.num_classes is None else ' --label 3'} -o image.png     # with Pillow",
        "",
        f"Images are {image}, channels first. Every tensor has a first dimension N, the samples of a request, at most "
        f"{min(m.config['max_batch_size'] for m in models)}. A result depends on its own row of the inputs and on nothing else.",
        "",
    ]
    for m in models:
        lines += [
            f"## {m.name}",
            "",
            f"{m.signature.says[0].upper()}{m.signature.says[1:]}.",
            "",
            *_table(m),
            "",
        ]
    return "\n".join([*lines, *_notes(models)])


def _table(model: Model) -> list[str]:
    rows = [("in", tensor) for tensor in model.signature.inputs] + [
        ("out", tensor) for tensor in model.signature.outputs
    ]
    head = ["| | tensor | type | shape | |", "|---|---|---|---|---|"]
    return head + [
        f"| {way} | `{t.name}` | {t.datatype} | {_shape(t)} | {t.says}{'; need not be given' if t.optional else ''} |"
        for way, t in rows
    ]


def _shape(tensor: Tensor) -> str:
    return "[" + ", ".join(["N", *("frames" if n < 0 else str(n) for n in tensor.dims)]) + "]"


def _notes(models: Sequence[Model]) -> list[str]:
    batching = any("dynamic_batching" in m.config for m in models)
    gpu = "- The tasks play on processors."
    if any(m.config["backend"] == "tensorrt" for m in models):
        gpu = "- The tasks play on the first GPU: on a machine with several, start a server per GPU (CUDA_VISIBLE_DEVICES)."
    lines = [
        "## What stands in the configs",
        "",
        "- Inputs that a Python model cannot use (levels, labels, schedules, NaN, …) are INVALID_ARGUMENT with a sentence that says why.",
    ]
    if any(m.config["backend"] != "python" for m in models):
        lines += [
            "- Graphs and plans check nothing but types and shapes: levels from 0.002 to 80 and labels of the model are the client's to "
            "see to, and a label that is none may fail the requests it is merged with.",
        ]
    if batching:
        lines += [
            f"- Requests of tasks wait up to {TASK_DELAY / 1000:g} ms for company; single moves wait for none. At most {QUEUE_LENGTH} "
            f"wait, for at most {QUEUE_SECONDS} s or what the request's `timeout` says (µs); more are refused (UNAVAILABLE). Streams "
            "wait as long as it takes.",
            "- At least two instances per model: with one, a client that waits for every answer may wait 0.5 s for nothing.",
        ]
    else:
        lines += [
            "- One instance per model and no dynamic batching: together they make clients wait. Requests queue without limit."
        ]
    return [
        *lines,
        "- No response cache: Triton 2.51 keeps errors in it, and answers an equal request with success and no outputs.",
        "- A process of a Python model that dies is not started again by Triton (2.51), though the server calls itself ready. A probe that "
        "asks every task, as client.py --check does, sees it; with --model-control-mode=explicit, unloading and loading replaces it.",
        "- Every model is warmed before it counts as ready, but those that stream.",
        gpu,
        "- The parameters of each config hold the sha256 of what computes. triton.json tells what the repository was made from.",
        "",
    ]

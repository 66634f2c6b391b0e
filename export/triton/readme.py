"""Write the README.md of a repository."""

from __future__ import annotations

from collections.abc import Sequence

from ...runtime.backends import info
from ...serving.signatures import Tensor
from .configs import QUEUE_LENGTH, QUEUE_SECONDS, TASK_DELAY, Model
from .container import client_command, docker_commands, needs_gpu, server_command, tensorrt_version
from .plan import RepositoryPlan

# What a server needs, by the platform of the single moves.
REQUIREMENTS = {
    "tensorrt": (
        "the TensorRT and Python backends of Triton, "
        "and the ONNX Runtime backend for schedules as one graph. "
        "Its Python needs numpy, cuda-core and TensorRT in the version that built the engines"
    ),
    "onnxruntime": "the ONNX Runtime and Python backends of Triton. Its Python needs numpy and onnxruntime",
    "python": "the Python backend of Triton. Its Python needs numpy and onnxruntime",
}


def readme(plan: RepositoryPlan, models: Sequence[Model]) -> str:
    """Return Markdown: how to start a server, the inputs and outputs of every model, and the settings."""
    model = plan.bundle.manifest.model
    image = "×".join(map(str, model.sample_shape))
    most_samples = min(each.config["max_batch_size"] for each in models)
    needs = REQUIREMENTS[plan.platform]
    if plan.backend == "onnxruntime-cuda":
        needs = needs.replace("numpy and onnxruntime", "numpy, onnxruntime-gpu and cuda-core")
    lines = [
        f"# {model.name}: a model repository for Triton Inference Server",
        "",
        f"Written by bcm-edge. The server needs {needs}.",
        "",
        *_start(plan),
        "",
        f"Images are {image}, channels first. The first dimension N of every tensor is the number of samples "
        f"in a request, at most {most_samples}. "
        "The result of a sample depends only on its own row of the inputs.",
        "",
    ]
    for each in models:
        lines += [f"## {each.name}", "", _sentence(each.signature.description), "", *_table(each), ""]
    return "\n".join([*lines, *_settings(models, info(plan.backend).device == "gpu")])


def _start(plan: RepositoryPlan) -> list[str]:
    """The section about starting a server."""
    lines = ["## Start a server", "", "In this folder, with Docker:", ""]
    lines += [f"    {command}" for command in docker_commands(plan, "Dockerfile", '"$PWD"')]
    lines.append(f"    {client_command(plan, 'client.py')}     # needs Pillow")
    if plan.platform == "onnxruntime" and not needs_gpu(plan):
        lines += ["", "With `--gpus all` after `--rm`, single moves run on the GPUs."]
    version = tensorrt_version(plan)
    if version:
        lines += [
            "",
            f"The TensorRT of the image must be {version}, which built the engines. NVIDIA's support matrix "
            "lists the TensorRT of every release of Triton. Choose one with "
            "`docker build --build-arg BASE_IMAGE=nvcr.io/nvidia/tritonserver:YY.MM-py3`.",
        ]
    return [*lines, "", "With an installed Triton:", "", f"    {server_command('.')}"]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _table(model: Model) -> list[str]:
    lines = ["| | tensor | type | shape | |", "|---|---|---|---|---|"]
    for direction, tensors in (("in", model.signature.inputs), ("out", model.signature.outputs)):
        for tensor in tensors:
            text = f"{tensor.description}; optional" if tensor.optional else tensor.description
            lines.append(f"| {direction} | `{tensor.name}` | {tensor.datatype} | {_shape(tensor)} | {text} |")
    return lines


def _shape(tensor: Tensor) -> str:
    dims = ["frames" if size < 0 else str(size) for size in tensor.dims]
    return f"[{', '.join(['N', *dims])}]"


def _settings(models: Sequence[Model], on_gpu: bool) -> list[str]:
    """The section about the settings in the configs. on_gpu: whether the tasks run on a GPU."""
    backends = {model.config["backend"] for model in models}
    lines = [
        "## Settings in the configs",
        "",
        "- A Python model refuses invalid inputs (levels, labels, schedules, NaN, …) with INVALID_ARGUMENT "
        "and a message that gives the reason.",
    ]
    if backends != {"python"}:
        lines.append(
            "- Graphs and plans check only types and shapes. The client must make sure that levels lie "
            "between 0.002 and 80 and that the model has the label. An unknown label may make the other "
            "requests of its batch fail."
        )
    if any("dynamic_batching" in model.config for model in models):
        lines += [
            f"- Requests for tasks wait up to {TASK_DELAY / 1000:g} ms to be batched with others; "
            f"single moves do not wait. At most {QUEUE_LENGTH} requests wait, for at most {QUEUE_SECONDS} s "
            "or for the `timeout` of the request (µs). Others are refused with UNAVAILABLE. "
            "Streams wait without a limit.",
            "- Every model has at least two instances. With one, a client that waits for each answer "
            "may wait 0.5 s for nothing.",
        ]
    else:
        lines.append(
            "- One instance per model and no dynamic batching: together they make clients wait. "
            "The queue has no limit."
        )
    gpu = "- The tasks run on the processor."
    if on_gpu:
        gpu = (
            "- The tasks run on the first GPU. On a machine with several, start one server per GPU "
            "(CUDA_VISIBLE_DEVICES)."
        )
    return [
        *lines,
        "- There is no response cache. Triton 2.51 caches errors, and answers an equal request with success "
        "and no outputs.",
        "- Triton 2.51 does not restart a process of a Python model that died, and still reports that it is "
        "ready. A probe that sends requests to every task, such as client.py --check, detects this. With "
        "--model-control-mode=explicit, unloading and loading the model starts a new process.",
        "- Every model is warmed up before it is ready, except those that stream.",
        gpu,
        "- The parameters of each config contain the sha256 of the files that compute. "
        "triton.json lists what the repository was made from.",
        "",
    ]

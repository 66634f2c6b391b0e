"""A container with Triton: the Dockerfile of a repository, and the commands that build and run it.

Nothing in NVIDIA's image is replaced. The Python packages of the task models are added.
"""

from __future__ import annotations

import shlex

from ...runtime.backends import info
from .plan import RepositoryPlan

# The release of Triton that the tests run (2.51.0), and the Python packages that they run it with. It needs
# numpy below 2: with a newer numpy, tensors between models arrive empty.
BASE_IMAGE = "nvcr.io/nvidia/tritonserver:24.10-py3"
NUMPY = "numpy==1.26.4"
ONNXRUNTIME = "onnxruntime==1.23.2"  # the last version for Python 3.10, which this image has
ONNXRUNTIME_GPU = "onnxruntime-gpu[cuda,cudnn]==1.23.2"  # for CUDA 12, like the image
CUDA_CORE_12 = ("cuda-core>=1.2", "cuda-bindings>=12.9,<13")

IMAGE = "bcm-edge-server"  # the name of the image that is built
PORTS = "8000-8002"  # HTTP, gRPC and metrics
SHARED_MEMORY = "1g"  # for the tensors between the server and its Python processes; Docker's default is 64 MB
SERVER = (
    "tritonserver",
    "--model-repository=/models",
    "--disable-auto-complete-config",
    "--exit-on-error=true",
)
DOCKERFILE = """\
# The server of this repository. Its models are mounted at /models, and not copied into the image.
ARG BASE_IMAGE={base}
FROM $BASE_IMAGE
RUN pip install --no-cache-dir {packages}
# The task models disable telemetry themselves. Triton's own ONNX Runtime backend reads this variable.
# The last variable disables TF32 on a GPU. An engine runs only with the value with which it was built.
ENV BCM_EDGE_CACHE_DIR=/tmp/bcm-edge ORT_DISABLE_TELEMETRY=1 NVIDIA_TF32_OVERRIDE=0
CMD [{server}]
"""


def dockerfile(plan: RepositoryPlan) -> str:
    """Return the Dockerfile of a server for a repository."""
    packages = " ".join(f'"{package}"' for package in _packages(plan))
    server = ", ".join(f'"{word}"' for word in SERVER)
    return DOCKERFILE.format(base=BASE_IMAGE, packages=packages, server=server)


def docker_commands(plan: RepositoryPlan, file: str, source: str) -> list[str]:
    """Return the lines of two shell commands: build the image, and run the server until Ctrl-C.

    file: the Dockerfile. source: the absolute path of the repository. Both are quoted for the shell.
    """
    options = [f"-p 127.0.0.1:{PORTS}:{PORTS}", f"--shm-size={SHARED_MEMORY}"]
    options += ["--gpus all"] if needs_gpu(plan) else []
    mounts = [f"-v {source}:/models:ro"]
    if plan.serving.trt_cache:
        mounts.append(f"-v bcm-edge-trt:{shlex.quote(plan.serving.trt_cache)}")
    return [
        f"docker build -t {IMAGE} - < {file}",  # without a context: the models are not sent to the engine
        " ".join(["docker run --rm", *options, "\\"]),
        " ".join(["   ", *mounts, IMAGE]),
    ]


def server_command(repository: str) -> str:
    """Return the shell command that runs an installed Triton. repository: its path, quoted."""
    program, _, *options = SERVER
    variables = ["ORT_DISABLE_TELEMETRY=1", "NVIDIA_TF32_OVERRIDE=0"]
    return " ".join([*variables, program, f"--model-repository={repository}", *options])


def client_command(plan: RepositoryPlan, client: str) -> str:
    """Return the shell command that requests an image. client: the path of client.py, quoted."""
    label = "" if plan.bundle.manifest.model.num_classes is None else " --label 3"
    return f"python3 {client} --seed 7{label} -o image.png"


def needs_gpu(plan: RepositoryPlan) -> bool:
    """Whether the server needs a GPU."""
    return info(plan.backend).device == "gpu" or plan.serving.trt_cache is not None


def tensorrt_version(plan: RepositoryPlan) -> str | None:
    """Return the version of TensorRT that built the engines, or None without engines."""
    return plan.engines[0].facts.tensorrt if plan.engines else None


def _packages(plan: RepositoryPlan) -> list[str]:
    """Return the Python packages of the task models, as pip takes them."""
    version = tensorrt_version(plan)
    if plan.backend == "onnxruntime-cuda":
        return [NUMPY, ONNXRUNTIME_GPU, *CUDA_CORE_12]
    if version is None:
        return [NUMPY, ONNXRUNTIME]
    if version.startswith("10."):
        return [NUMPY, f"tensorrt-cu12=={version}.*", *CUDA_CORE_12]
    return [NUMPY, f"tensorrt-cu13=={version}.*", "cuda-core>=1.2", "cuda-bindings>=13.0,<14"]

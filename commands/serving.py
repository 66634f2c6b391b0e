"""bcm-edge triton: from a bundle to a model repository for Triton Inference Server."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import OutputError
from ..export.triton import BACKENDS, PLATFORMS
from ..runtime.checks.doctor import require_extra
from ..runtime.storage.bundle import open_bundle
from ..runtime.storage.files import check_free
from ..runtime.storage.manifest import PRECISIONS
from ..runtime.storage.shipped import located
from .console import progress, result
from .options import bundle_argument, force_option, json_option, output_option

if TYPE_CHECKING:
    from ..export.triton.plan import RepositoryPlan


@click.command(
    short_help="Make a Triton model repository from a bundle.",
    epilog="Example:  bcm-edge triton digits -o models --platform onnxruntime",
)
@bundle_argument
@output_option("The repository to write (a folder).", "folder")
@click.option(
    "--platform",
    type=click.Choice(PLATFORMS),
    help="What computes single moves (default: tensorrt if the bundle has engines, else onnxruntime).",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="What the Python models compute with (default: onnxruntime; the engines with --platform tensorrt).",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Precision of the models (default: that of the newest engine, else the most exact).",
)
@click.option(
    "--max-batch",
    metavar="N",
    default=16,
    show_default=True,
    type=click.IntRange(1),
    help="Maximum number of samples in a request.",
)
@click.option(
    "--instances",
    metavar="N",
    default=2,
    show_default=True,
    type=click.IntRange(1),
    help="Number of instances of every model. With 1, requests are not merged into batches.",
)
@click.option(
    "--schedules",
    metavar="LIST",
    help="Schedules that become one graph each, for servers without Python: one-step,mixture-4.",
)
@click.option(
    "--stream",
    is_flag=True,
    help="Add bcm_generate_stream, which answers after every network call (gRPC).",
)
@click.option(
    "--trt-cache",
    metavar="FOLDER",
    help="Let Triton's ONNX Runtime compile the graphs with TensorRT, and keep the engines in this folder "
    "of the server (an absolute path).",
)
@force_option
@json_option
def triton(
    bundle: Path,
    output: Path,
    platform: str | None,
    backend: str | None,
    precision: str | None,
    max_batch: int,
    instances: int,
    schedules: str | None,
    stream: bool,
    trt_cache: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make a model repository for Triton Inference Server from BUNDLE.

    It contains the two graphs or engines, and the tasks: bcm_forward, bcm_inverse, bcm_generate, bcm_invert,
    bcm_reconstruct, bcm_interpolate, bcm_inpaint. Its README describes how to start a server with it, and
    the inputs and outputs of every model. --force replaces a repository and everything in it.
    """
    require_extra("serve")
    from ..export.triton.configs import Serving
    from ..export.triton.plan import plan_repository
    from ..export.triton.repository import MARKER, write_repository

    if trt_cache:
        _check_cache(trt_cache, platform)
    if output.resolve().is_relative_to(located(bundle).resolve()):
        raise OutputError(f"{output} is inside the bundle that it is made from; choose another output")
    check_free(output, force, MARKER)
    names = [name.strip() for name in schedules.split(",")] if schedules else []
    serving = Serving(max_batch, instances, trt_cache)
    opened = open_bundle(bundle)
    plan = plan_repository(opened, output, platform, precision, serving, names, stream, force, backend)
    models = write_repository(plan)
    progress(f"{len(models)} models of {bundle} in {plan.precision}; single moves run on {plan.platform}")
    progress(_next_steps(plan))
    values = {
        "repository": str(output),
        "platform": plan.platform,
        "backend": plan.backend,
        "precision": plan.precision,
        "models": [model.name for model in models],
    }
    result(as_json, values, str(output))


def _next_steps(plan: RepositoryPlan) -> str:
    """Return the commands that start a server with what this machine has, and that request an image."""
    from ..export.triton.container import client_command, docker_commands, server_command

    folder = shlex.quote(str(plan.output))
    if shutil.which("tritonserver"):
        title, commands = "next:", [server_command(folder)]
    else:
        has_docker = "next, with Docker:"
        elsewhere = "neither tritonserver nor docker is installed here; on a machine with Docker:"
        title = has_docker if shutil.which("docker") else elsewhere
        dockerfile = shlex.quote(str(plan.output / "Dockerfile"))
        commands = docker_commands(plan, dockerfile, shlex.quote(str(plan.output.resolve())))
    client = client_command(plan, shlex.quote(str(plan.output / "client.py")))
    return "\n  ".join([title, *commands, f"{client}   # in another terminal"])


def _check_cache(folder: str, platform: str | None) -> None:
    """Raise click.UsageError if --trt-cache is not an absolute path, or the platform has no use for it."""
    if not folder.startswith("/"):
        raise click.UsageError(
            f"--trt-cache: {folder!r} is not an absolute path on the server; give one such as /var/cache/bcm"
        )
    if platform == "python":
        raise click.UsageError(
            "--trt-cache needs graphs that ONNX Runtime runs; it cannot be used with python"
        )

"""bcm-edge triton: from a bundle to a model repository for Triton Inference Server."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import OutputError
from ..runtime.storage.bundle import open_bundle
from ..runtime.storage.files import check_free
from ..runtime.storage.manifest import PRECISIONS
from .console import (
    bundle_argument,
    force_option,
    json_option,
    output_option,
    progress,
    require_extra,
    result,
)

PLATFORMS = ("tensorrt", "onnxruntime", "python")


@click.command(
    short_help="A bundle to a Triton model repository.",
    epilog="Example:  bcm-edge triton digits.bundle -o models --platform onnxruntime --schedules mixture-4",
)
@bundle_argument
@output_option("The repository to write (a folder).", "folder")
@click.option(
    "--platform",
    type=click.Choice(PLATFORMS),
    help="What plays single moves (default: tensorrt if engines are held, else onnxruntime).",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of what is served (default: that of the newest engine, else the most exact).",
)
@click.option(
    "--max-batch", default=16, show_default=True, type=click.IntRange(1), help="Most samples of a request."
)
@click.option(
    "--instances",
    default=2,
    show_default=True,
    type=click.IntRange(1),
    help="Of every model; with 1, requests are not merged.",
)
@click.option(
    "--schedules",
    metavar="LIST",
    help="Schedules that become one graph each, for servers without Python: one-step,mixture-4.",
)
@click.option(
    "--stream", is_flag=True, help="Add bcm_generate_stream, which answers after every network call (gRPC)."
)
@click.option(
    "--trt-cache",
    metavar="FOLDER",
    help="Let Triton's ONNX Runtime compile with TensorRT, and keep engines in this folder of the server (a whole path).",
)
@force_option
@json_option
def triton(
    bundle: Path,
    output: Path,
    platform: str | None,
    precision: str | None,
    max_batch: int,
    instances: int,
    schedules: str | None,
    stream: bool,
    trt_cache: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a repository with the two graphs or engines and the tasks: bcm_forward, bcm_inverse, bcm_generate, bcm_invert,
    bcm_reconstruct, bcm_interpolate, bcm_inpaint. Its README says how to start a server on it, and what each takes and gives. --force
    replaces a repository with all that lies in it.
    """
    require_extra("serve")
    from ..export.triton.configs import Serving
    from ..export.triton.repository import MARKER, plan_repository, write_repository

    if trt_cache and (platform == "python" or not trt_cache.startswith("/")):
        raise click.UsageError(
            "--trt-cache is a whole path on the server, /var/cache/bcm, for graphs that Triton's ONNX Runtime plays"
        )
    if output.resolve().is_relative_to(bundle.resolve()):
        raise OutputError(f"{output}: lies in the bundle that it is made from; choose another place")
    check_free(output, force, MARKER)
    names = [name.strip() for name in schedules.split(",")] if schedules else []
    plan = plan_repository(
        open_bundle(bundle),
        output,
        platform,
        precision,
        Serving(max_batch, instances, trt_cache),
        names,
        stream,
        force,
    )
    models = write_repository(plan)
    progress(f"{len(models)} models of {bundle} in {plan.precision}, single moves by {plan.platform}")
    progress(
        f"next:\n  tritonserver --model-repository={output} --disable-auto-complete-config --exit-on-error=true"
    )
    told = {
        "repository": str(output),
        "platform": plan.platform,
        "precision": plan.precision,
        "models": [model.name for model in models],
    }
    result(as_json, told, str(output))

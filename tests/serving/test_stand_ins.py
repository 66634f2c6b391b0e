"""Repositories for servers with ONNX Runtime's and TensorRT's backends load under their own configs. What plays in the place of those
backends here is tests/serving/stand_in.py, so this shows names, shapes and files, and nothing of how the backends themselves behave."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from agreement import ROUNDING, assert_images_agree, relative_l2
from asking import Client
from plans import with_engine
from server import running

from bcm_edge import BCM
from bcm_edge.export.fused import fused_noises
from bcm_edge.export.triton.configs import Serving
from bcm_edge.export.triton.plan import plan_repository
from bcm_edge.export.triton.repository import write_repository
from bcm_edge.runtime.schedule import Move

LABELS = np.array([3, 1, 4, 1])


def assert_same_move(client: Client, bcm: BCM, digits: np.ndarray) -> None:
    """The server's move from 0.07 to 15 is that of the local runtime."""
    levels = {"t": np.full(4, 0.07, np.float32), "u": np.full(4, 15, np.float32)}
    given = {"x": digits, "noise": np.zeros_like(digits), **levels, "label": LABELS}
    moved = client.ask("bcm_inverse", ["x_u"], given)["x_u"]
    assert relative_l2(moved, bcm.backend.play_move(digits, None, Move(0.07, 15), LABELS)) < ROUNDING


def test_graphs_and_fused_schedules(triton: None, bcm: BCM, digits: np.ndarray, tmp_path: Path):
    plan = plan_repository(
        bcm.bundle,
        tmp_path / "r",
        "onnxruntime",
        None,
        Serving(trt_cache="/cache"),
        ("mixture-4",),
        False,
        False,
    )
    write_repository(plan)
    with running(tmp_path / "r", tmp_path / "log") as server:
        client = Client(server)
        assert_same_move(client, bcm, digits)
        seeds = [5, 6, 7, 8]
        given = {**fused_noises(bcm.schedule("mixture-4"), seeds, (1, 8, 8)), "label": LABELS}
        wanted = bcm.generate(4, schedule="mixture-4", seed=seeds, labels=LABELS)
        assert_images_agree(client.ask("bcm_mixture-4", ["image"], given)["image"], wanted)
        chained = client.ask(
            "bcm_generate",
            ["result"],
            {"seed": np.array(seeds, np.uint64), "label": LABELS, "schedule": ["mixture-4"] * 4},
        )
        assert_images_agree(chained["result"], wanted)
        client.close()


def test_plans(triton: None, bcm: BCM, digits: np.ndarray, tmp_path: Path):
    """In the server's copy graphs lie beside the plans for the stand-in, and the chains play on the processor."""
    held = with_engine(bcm.bundle, tmp_path / "b", "8.7", (1, 4, 16))
    write_repository(plan_repository(held, tmp_path / "r", "tensorrt", None, Serving(), (), False, False))
    for direction in ("forward", "inverse"):
        for name in (f"{direction}.onnx", "weights.bin"):
            shutil.copyfile(
                bcm.bundle.path / name,
                tmp_path / "r" / f"bcm_{direction}" / "1" / name.replace(direction, "model"),
            )
    for file in (tmp_path / "r").glob("*/config.pbtxt"):
        file.write_text(file.read_text().replace('string_value: "tensorrt"', 'string_value: "onnxruntime"'))
    with running(tmp_path / "r", tmp_path / "log") as server:
        client = Client(server)
        assert_same_move(client, bcm, digits)
        client.close()

"""Repositories for servers with the ONNX Runtime and TensorRT backends load with their own configurations.

tests/serving/stand_in.py takes the place of those backends. So this tests names, shapes and files, but not
how the backends behave.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from agreement import ROUNDING, assert_images_agree, relative_l2
from asking import Client
from plans import with_engine
from repositories import written
from sample_requests import LABELS
from server import running, start, wait

from bcm_edge import BCM
from bcm_edge.export.fused import fused_noises
from bcm_edge.export.triton.configs import Serving
from bcm_edge.export.triton.plan import plan_repository
from bcm_edge.export.triton.repository import write_repository
from bcm_edge.runtime.schedule import Move
from bcm_edge.runtime.storage.bundle import Bundle


def assert_same_move(client: Client, bcm: BCM, digits: np.ndarray) -> None:
    """Check that the move from 0.07 to 15 on the server is that of the local runtime."""
    levels = {"t": np.full(4, 0.07, np.float32), "u": np.full(4, 15, np.float32)}
    inputs = {"x": digits, "noise": np.zeros_like(digits), **levels, "label": LABELS}
    moved = client.ask("bcm_inverse", ["x_u"], inputs)["x_u"]
    assert relative_l2(moved, bcm.backend.play_move(digits, None, Move(0.07, 15), LABELS)) < ROUNDING


def test_repository_of_graphs_and_fused_schedules(triton: None, bcm: BCM, digits: np.ndarray, tmp_path: Path):
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
        fused = {**fused_noises(bcm.schedule("mixture-4"), seeds, (1, 8, 8)), "label": LABELS}
        expected = bcm.generate(4, schedule="mixture-4", seed=seeds, labels=LABELS)
        assert_images_agree(client.ask("bcm_mixture-4", ["image"], fused)["image"], expected)
        inputs = {"seed": np.array(seeds, np.uint64), "label": LABELS, "schedule": ["mixture-4"] * 4}
        chained = client.ask("bcm_generate", ["result"], inputs)
        assert_images_agree(chained["result"], expected)
        client.close()


def test_repository_of_plans(triton: None, bcm: BCM, digits: np.ndarray, tmp_path: Path):
    """The stand-in reads graphs that are copied beside the plans, and the chains run on the processor."""
    with_plans = with_engine(bcm.bundle, tmp_path / "b", "8.7", (1, 4, 16))
    write_repository(
        plan_repository(with_plans, tmp_path / "r", "tensorrt", None, Serving(), (), False, False)
    )
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


def test_repository_of_a_single_engine_with_profiles(
    triton: None, bcm: BCM, digits: np.ndarray, tmp_path: Path
):
    """The model bcm_inverse alone plays moves in both directions."""
    profiles = [(1, 1, 1), (2, 4, 16)]
    with_plans = with_engine(bcm.bundle, tmp_path / "b", "8.7", *profiles, single=True)
    write_repository(
        plan_repository(with_plans, tmp_path / "r", "tensorrt", None, Serving(), (), False, False)
    )
    assert not (tmp_path / "r" / "bcm_forward").exists()
    for name in ("inverse.onnx", "weights.bin"):
        copied = tmp_path / "r" / "bcm_inverse" / "1" / name.replace("inverse", "model")
        shutil.copyfile(bcm.bundle.path / name, copied)
    for file in (tmp_path / "r").glob("*/config.pbtxt"):
        file.write_text(file.read_text().replace('string_value: "tensorrt"', 'string_value: "onnxruntime"'))
    with running(tmp_path / "r", tmp_path / "log") as server:
        client = Client(server)
        assert_same_move(client, bcm, digits)
        inputs = {
            "x": digits,
            "noise": np.zeros_like(digits),
            "t": np.full(4, 2.4, np.float32),
            "u": np.full(4, 0.002, np.float32),
            "label": LABELS,
        }
        moved = client.ask("bcm_inverse", ["x_u"], inputs)["x_u"]
        expected = bcm.backend.play_move(digits, None, Move(2.4, 0.002), LABELS)
        assert relative_l2(moved, expected) < ROUNDING
        client.close()


def test_tasks_on_a_gpu_are_not_served_by_a_machine_without_one(triton: None, bundle: Bundle, tmp_path: Path):
    """The server refuses to start, and its log contains the reason."""
    root = written(bundle, tmp_path / "models", "python", backend="onnxruntime-cuda")
    with pytest.raises(AssertionError, match="failed to load all models"):
        wait(start(root, tmp_path / "triton.log"))
    log = (tmp_path / "triton.log").read_text()
    assert "onnxruntime-cuda: no NVIDIA driver on this machine (libcuda.so.1 cannot be loaded)" in log

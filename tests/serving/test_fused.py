"""A schedule as one graph: its results are those of the chain, and its weights are shared."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from agreement import assert_images_agree

from bcm_edge import BCM, BcmError
from bcm_edge.errors import ParityError
from bcm_edge.export.fused import check_fused, fused_graph, fused_inputs, fused_noises
from bcm_edge.runtime.schedule import parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle

SEEDS, LABELS = [3, 4, 5], np.array([1, 2, 3])


def saved(bcm: BCM, schedule: str, folder: Path) -> Path:
    """Write the graph of a schedule, with a copy of the weights beside it. Return its path."""
    shutil.copyfile(bcm.bundle.path / "weights.bin", folder / "weights.bin")
    onnx.save(fused_graph(bcm.bundle, "fp32", bcm.schedule(schedule)), folder / "model.onnx")
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    return folder / "model.onnx"


@pytest.mark.parametrize(
    "schedule",
    ["one-step", "ancestral-2", "zigzag-3", "mixture-4", "80>0.002 +0.5 0.5>1>0.002 +0.2 0.2>0.002"],
)
def test_graph_of_a_generation_agrees_with_the_chain(bcm: BCM, tmp_path: Path, schedule: str):
    session = onnxruntime.InferenceSession(saved(bcm, schedule, tmp_path))
    inputs = {**fused_noises(bcm.schedule(schedule), SEEDS, (1, 8, 8)), "label": LABELS}
    generated = bcm.generate(3, schedule=schedule, seed=SEEDS, labels=LABELS)
    assert_images_agree(session.run(["image"], inputs)[0], generated)


@pytest.mark.parametrize("schedule", ["invert-1", "invert-2", "+0.07 0.07>0.3 +0.5 0.5>2>80"])
def test_graph_of_an_inversion_agrees_with_the_chain(
    bcm: BCM, digits: np.ndarray, tmp_path: Path, schedule: str
):
    session = onnxruntime.InferenceSession(saved(bcm, schedule, tmp_path))
    inputs = {"image": digits[:3], **fused_noises(bcm.schedule(schedule), SEEDS, (1, 8, 8)), "label": LABELS}
    inverted = bcm.invert(digits[:3], inversion=schedule, seed=SEEDS, labels=LABELS)
    assert_images_agree(session.run(["latent"], inputs)[0], inverted)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("schedule", ["mixture-4", "invert-2"])
def test_graphs_in_other_precisions_agree_with_the_chain(
    typed_bundle: Path, tmp_path: Path, precision: str, schedule: str
):
    bundle = open_bundle(typed_bundle)
    shutil.copyfile(bundle.path / f"weights.{precision}.bin", tmp_path / f"weights.{precision}.bin")
    onnx.save(fused_graph(bundle, precision, bundle.schedule(schedule)), tmp_path / "model.onnx")
    check_fused(tmp_path / "model.onnx", bundle, precision, bundle.schedule(schedule))


def test_inputs_are_named_in_order():
    assert fused_inputs(parse_schedule("80>2>0.002"), None) == ["noise_0"]
    assert fused_inputs(parse_schedule("80>0.002 +0.1 0.1>1.2>0.002"), 10) == ["noise_0", "noise_1", "label"]
    assert fused_inputs(parse_schedule("+0.07 0.07>15>80"), 10) == ["image", "noise_0", "label"]


def test_weights_are_stored_once(bcm: BCM):
    one, four = (fused_graph(bcm.bundle, "fp32", bcm.schedule(name)) for name in ("one-step", "mixture-4"))
    external = [{t.name for t in graph.graph.initializer if t.external_data} for graph in (one, four)]
    assert external[0] == external[1]
    assert len(four.SerializeToString()) < 300_000


def test_graph_of_another_schedule_is_detected(bcm: BCM, tmp_path: Path):
    file = saved(bcm, "80>2.4>0.002", tmp_path)
    check_fused(file, bcm.bundle, "fp32", parse_schedule("80>2.4>0.002"))
    with pytest.raises(
        ParityError, match=r"the graph of '80>2.3>0.002' differs from the chain by a relative L2 of \d"
    ):
        check_fused(file, bcm.bundle, "fp32", parse_schedule("80>2.3>0.002"))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("80" + ">2>80" * 4 + ">0.002", "has 9 moves; one graph can have up to 8"),
        ("80>2", "neither generates .* nor inverts"),
        ("40>0.002", "neither generates"),
        ("+0.2 0.2>5>0.002", "neither generates"),
    ],
)
def test_schedules_that_cannot_be_one_graph_are_refused(bcm: BCM, schedule: str, message: str):
    with pytest.raises(BcmError, match=message):
        fused_graph(bcm.bundle, "fp32", parse_schedule(schedule))

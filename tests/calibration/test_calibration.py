"""Calibration: what is drawn and measured, which layers keep float32, what an 8-bit graph looks like, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import Result
from networks import tiny_checkpoint
from onnx import TensorProto, numpy_helper

from bcm_edge.calibration.headroom import Activation, activations, overflowing
from bcm_edge.calibration.ranges import measure_ranges, read_calibration
from bcm_edge.calibration.trajectories import draw_samples, generate_samples, play_all
from bcm_edge.errors import CalibrationError, ImageError, LabelError, OutputError
from bcm_edge.evaluation.quality import Judge
from bcm_edge.export.exporter import ExportPlan, export
from bcm_edge.export.int8 import choose_layers, layers, write_int8_graphs
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.backends.null import NullBackend
from bcm_edge.runtime.schedule import Move, parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.runtime.storage.rewriting import amending, update_manifest
from bcm_edge.training.data import load_digits

Cli = Callable[..., Result]

SHAPE = (1, 4, 4)


def pictures(n: int) -> np.ndarray:
    return np.linspace(-1, 1, n * 16, dtype=np.float32).reshape(n, *SHAPE)


# ---- samples and trajectories


def test_samples_are_spread_evenly_over_classes():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    drawn = draw_samples(pictures(100), labels, 45, "x", SHAPE, 3)
    assert drawn.labels is not None
    assert np.bincount(drawn.labels).tolist() == [
        18,
        17,
        10,
    ]  # all ten of the smallest class, the rest shared
    assert len(np.unique(drawn.images, axis=0)) == 45
    assert drawn.digest == draw_samples(pictures(100), labels, 45, "x", SHAPE, 3).digest
    assert drawn.digest != draw_samples(pictures(100), labels, 46, "x", SHAPE, 3).digest


@pytest.mark.parametrize(
    ("images", "labels", "n", "error", "message"),
    [
        (
            pictures(40),
            None,
            31,
            CalibrationError,
            "31 images are too few to calibrate on; at least 32 are needed",
        ),
        (
            pictures(33),
            np.zeros(33, int),
            34,
            CalibrationError,
            "x: has 33 images, but calibration is to use 34",
        ),
        (
            pictures(40).reshape(40, 1, 2, 8),
            np.zeros(40, int),
            32,
            ImageError,
            "images of 1 × 2 × 8; the model takes 1 × 4 × 4",
        ),
        (pictures(40) * 2, np.zeros(40, int), 32, ImageError, r"must be finite and lie in \[-1, 1\]"),
        (pictures(40) * np.nan, np.zeros(40, int), 32, ImageError, r"must be finite and lie in \[-1, 1\]"),
        (pictures(40), None, 32, LabelError, "has no labels, and the model has 3 classes"),
        (pictures(40), np.full(40, 3), 32, LabelError, "has labels 3 to 3; the model has classes 0 to 2"),
    ],
)
def test_samples_that_do_not_fit(
    images: np.ndarray, labels: np.ndarray | None, n: int, error: type, message: str
):
    with pytest.raises(error, match=message):
        draw_samples(images, labels, n, "x", SHAPE, 3)


class Counting(NullBackend):
    def __init__(self) -> None:
        super().__init__(SHAPE, 40)
        self.calls: list[tuple[Move, np.ndarray]] = []

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        assert labels is not None
        self.calls.append((move, labels))
        return super().play_move(x, noise, move, labels)


def test_every_schedule_is_played_on_every_sample():
    backend = Counting()
    samples = generate_samples(NullBackend(SHAPE, 40), 36)
    told: list[tuple[int, int]] = []
    play_all(
        backend,
        [parse_schedule("80>2>0.002"), parse_schedule("+0.07 0.07>80")],
        samples,
        lambda *at: told.append(at),
    )
    seen = {
        str(move): np.concatenate([labels for m, labels in backend.calls if m == move])
        for move, _ in backend.calls
    }
    assert {move: len(labels) for move, labels in seen.items()} == {"80>2": 36, "2>0.002": 36, "0.07>80": 36}
    assert all(len(np.unique(labels)) == 36 for labels in seen.values())
    assert told == [(i, 15) for i in range(1, 16)]


# ---- ranges


@pytest.mark.slow
def test_ranges_are_the_extremes_of_what_was_played(digits_bundle: Path):
    bundle = open_bundle(digits_bundle)
    backend = open_backend("auto", bundle)
    samples = draw_samples(*digits(), 32, "digits", (1, 8, 8), 10)
    calibration = measure_ranges(
        bundle, [parse_schedule("80>0.002"), parse_schedule("+0.07 0.07>80")], samples
    )
    states = []

    class Watching(NullBackend):
        def play_move(self, x, noise, move, labels):
            states.append(
                (move.graph, x if noise is None else x + noise, backend.play_move(x, noise, move, labels))
            )
            return states[-1][2]

    play_all(Watching((1, 8, 8), 10), [parse_schedule("80>0.002"), parse_schedule("+0.07 0.07>80")], samples)
    for direction, taken in (("forward", "x"), ("inverse", "noise/Add")):
        for name, index in ((taken, 1), ("x_u", 2)):
            played = np.concatenate([state[index] for state in states if state[0] == direction])
            assert calibration.ranges[direction][name] == pytest.approx(
                (played.min(), played.max()), rel=1e-4
            )
    assert calibration.images == 32 and calibration.schedules == ["80>0.002", "+0.07 0.07>80"]
    order = list(calibration.ranges["forward"])
    assert (
        order.index("input_blocks.0.0/Conv")
        < order.index("middle_block.0.in_layers.2/Conv")
        < order.index("out.2/Conv")
    )


def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits("train")
    assert data.labels is not None
    return data.images.numpy(), data.labels.numpy()


@pytest.mark.slow
def test_a_direction_that_is_never_played_is_refused(digits_bundle: Path):
    samples = draw_samples(*digits(), 32, "digits", (1, 8, 8), 10)
    with pytest.raises(CalibrationError, match="no schedule plays the inverse graph"):
        measure_ranges(open_bundle(digits_bundle), [parse_schedule("80>0.002")], samples)


def test_headroom_names_types_and_reasons(typed_bundle: Path):
    bundle = open_bundle(typed_bundle)
    measured = {a.tensor: a for a in activations(bundle, read_calibration(typed_bundle / "calibration.json"))}
    assert measured["time_embed/Mul"].bits == 32 and "250 log t" in measured["time_embed/Mul"].why
    assert 1000 < measured["time_embed/Mul"].largest < 1600  # 250 |log 0.002| = 1554, 250 log 80 = 1096
    assert (
        measured["middle_block.1/Softmax"].bits == 32 and "softmax" in measured["middle_block.1/Softmax"].why
    )
    convolution = measured["input_blocks.1.0.in_layers.2/Conv"]
    assert convolution.bits == 16 and convolution.headroom == pytest.approx(65504 / convolution.largest)
    assert measured["middle_block.1/Softmax"].largest <= 1.0001


def test_overflowing_are_narrow_tensors_beyond_the_end():
    measured = [
        Activation("a", 7e4, 16, ""),
        Activation("b", 9e4, 32, "norm"),
        Activation("c", 6e4, 16, ""),
        Activation("d", 8e4, 16, ""),
    ]
    assert [a.tensor for a in overflowing(measured)] == ["d", "a"]


# ---- layers


def test_as_few_layers_keep_float32_as_the_bound_allows():
    """Independent errors: squares add up. Without the two worst, √(0.02² + 0.01²) = 0.0224 remains."""
    alone = {"a": 0.02, "b": 0.3, "c": 0.01, "d": 0.1}
    asked: list[list[str]] = []

    def error(kept: Collection[str]) -> float:
        asked.append(sorted(kept))
        return float(np.sqrt(sum(e**2 for name, e in alone.items() if name not in kept)))

    kept, remaining = choose_layers(alone, error, error, 0.05, lambda line: None)
    assert (kept, remaining) == (["b", "d"], pytest.approx(0.02236, abs=1e-5))
    assert choose_layers(alone, error, error, 0.5, lambda line: None)[0] == []
    assert choose_layers(alone, error, error, 0.001, lambda line: None) == (["b", "d", "a", "c"], 0.0)


def test_layers_are_added_until_the_measured_error_holds():
    """Errors that add up worse than squares do: the prediction is only where the search starts."""
    alone = {"a": 0.02, "b": 0.03, "c": 0.04}

    def error(kept: Collection[str]) -> float:
        return sum(e for name, e in alone.items() if name not in kept)

    kept, remaining = choose_layers(alone, error, error, 0.036, lambda line: None)
    assert kept == ["c", "b"] and remaining == pytest.approx(0.02)


# ---- the graphs


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_the_8_bit_graph_is_the_form_that_every_runtime_takes(typed_bundle: Path, direction: str):
    kept = read_calibration(typed_bundle / "calibration.json").kept
    graph = onnx.load(typed_bundle / f"{direction}.int8.onnx").graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    source = {node.output[0]: node for node in graph.node}
    assert kept
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 27
    for node in convolutions:
        layer = node.name.removesuffix("/Conv")
        pairs = [
            source[name]
            for name in node.input[:2]
            if name in source and source[name].op_type == "DequantizeLinear"
        ]
        if layer in kept:
            assert tensors[node.input[1]].data_type == TensorProto.FLOAT, layer
            continue
        activation, weight = pairs
        assert tensors[weight.input[0]].data_type == TensorProto.INT8
        channels = tensors[weight.input[0]].dims[0]
        assert (
            list(tensors[weight.input[1]].dims) == [channels]
            and {a.name: a.i for a in weight.attribute}["axis"] == 0
        )
        assert list(tensors[activation.input[1]].dims) == []
        assert source[activation.input[0]].op_type == "QuantizeLinear"
        assert (
            tensors[node.input[2]].data_type == TensorProto.FLOAT
        )  # the bias: int32 is what TensorRT rejects
    zeros = [
        numpy_helper.to_array(tensors[n.input[2]])
        for n in graph.node
        if n.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]
    assert len(zeros) >= 3 * (27 - len(kept))
    assert all((zero == 0).all() and zero.dtype == np.int8 for zero in zeros)


def test_only_convolutions_read_8_bit_activations_of_other_layers(typed_bundle: Path):
    """The norm beside a skip convolution reads what it always read."""
    graph = onnx.load(typed_bundle / "forward.int8.onnx", load_external_data=False).graph
    source = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        for name in node.input:
            if name in source and source[name].op_type == "DequantizeLinear" and node.op_type != "Conv":
                origin = source[source[source[name].input[0]].input[0]]
                assert origin.op_type == "Conv", (node.name, origin.name)


def test_8_bit_weights_are_on_disk_once_and_small(typed_bundle: Path):
    sizes = {
        name: (typed_bundle / name).stat().st_size
        for name in ("weights.bin", "weights.int8.bin", "forward.int8.onnx")
    }
    kept = read_calibration(typed_bundle / "calibration.json").kept or []
    graph = onnx.load(typed_bundle / "forward.onnx").graph
    weights = {
        t.name: numpy_helper.to_array(t).nbytes
        for t in graph.initializer
        if t.name.endswith(".weight") and len(t.dims) == 4
    }
    quantised = sum(size for name, size in weights.items() if name.removesuffix(".weight") not in kept)
    assert sizes["weights.bin"] - sizes["weights.int8.bin"] == pytest.approx(quantised * 3 / 4, rel=0.02)
    assert sizes["forward.int8.onnx"] < 250_000


def test_the_same_calibration_gives_the_same_graphs(typed_bundle: Path, tmp_path: Path):
    bundle, calibration = open_bundle(typed_bundle), read_calibration(typed_bundle / "calibration.json")
    write_int8_graphs(bundle, calibration, calibration.kept or [], tmp_path)
    for name in ("forward.int8.onnx", "inverse.int8.onnx", "weights.int8.bin"):
        assert (tmp_path / name).read_bytes() == (typed_bundle / name).read_bytes(), name


def test_a_calibration_of_another_model_is_refused(typed_bundle: Path, tmp_path: Path):
    export(ExportPlan(tiny_checkpoint(), tmp_path / "b", verify="none"), "0" * 64)
    calibration = read_calibration(typed_bundle / "calibration.json")
    with pytest.raises(CalibrationError, match="was measured on another model's graphs"):
        write_int8_graphs(open_bundle(tmp_path / "b"), calibration, [], tmp_path)


def test_kept_layers_must_exist_and_leave_some(typed_bundle: Path, tmp_path: Path):
    bundle, calibration = open_bundle(typed_bundle), read_calibration(typed_bundle / "calibration.json")
    with pytest.raises(
        CalibrationError, match=r"cannot keep input_blocks\.1\.0 in float32: it is not a convolution"
    ):
        write_int8_graphs(bundle, calibration, ["input_blocks.1.0"], tmp_path)
    with pytest.raises(CalibrationError, match="all convolutions are to stay in float32"):
        write_int8_graphs(bundle, calibration, layers(bundle), tmp_path)


def test_every_quantised_layer_needs_its_ranges(typed_bundle: Path, tmp_path: Path):
    calibration = read_calibration(typed_bundle / "calibration.json")
    del calibration.ranges["inverse"]["middle_block.0.in_layers.2/Conv"]
    with pytest.raises(
        CalibrationError, match=r"no range for middle_block\.0\.in_layers\.2/Conv of the inverse graph"
    ):
        write_int8_graphs(open_bundle(typed_bundle), calibration, [], tmp_path)


def test_layers_of_a_bundle(digits_bundle: Path):
    names = layers(open_bundle(digits_bundle))
    assert len(names) == 27 and names[0] == "input_blocks.0.0" and names[-1] == "out.2"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"schema": 1', '"schema": 2'),
        lambda text: text.replace('"ranges"', '"rages"'),
        lambda text: json.dumps({**json.loads(text), "ranges": {"forward": {"x": [1, -1]}, "inverse": {}}}),
        lambda text: json.dumps(
            {**json.loads(text), "ranges": {"forward": {"x": [float("nan"), 1]}, "inverse": {}}}
        ),
    ],
)
def test_a_damaged_calibration_file_is_refused(
    typed_bundle: Path, tmp_path: Path, damage: Callable[[str], str]
):
    file = tmp_path / "calibration.json"
    file.write_text(damage((typed_bundle / "calibration.json").read_text()))
    with pytest.raises(CalibrationError, match="not a calibration file"):
        read_calibration(file)


# ---- quality


@pytest.mark.parametrize(
    ("precision", "backend", "bound"),
    [
        ("fp16", "typed", 0.05),
        ("bf16", "typed", 0.05),
        ("int8", "onnxruntime", 0.15),
        ("int8", "openvino", 0.15),
    ],
)
def test_samples_and_reconstructions_stay_as_good(
    typed_bundle: Path,
    judge: Judge,
    precision: str,
    backend: str,
    bound: float,
):
    bundle = open_bundle(typed_bundle)
    if backend == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed; pip install '.[openvino]'")
    exact, lower = open_backend("onnxruntime", bundle, "fp32"), open_backend(backend, bundle, precision)
    for name in ("one-step", "mixture-4", "invert-2"):
        before, after = (judge.score(bundle.schedule(name), played, 77) for played in (exact, lower))
        assert after == pytest.approx(before, rel=bound), name


# ---- the command


@pytest.mark.slow
def test_calibrate_adds_int8_to_a_bundle(bundle_copy: Path, tmp_path: Path, cli: Cli):
    untouched = {p.name: p.read_bytes() for p in bundle_copy.iterdir() if p.name != "manifest.json"}
    ended = cli(
        "calibrate",
        bundle_copy,
        "--data",
        "digits",
        "--size",
        32,
        "--picture",
        tmp_path / "ranges.png",
        "--json",
    )
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert (told["source"], told["images"]) == ("digits (train)", 32)
    bundle = open_bundle(bundle_copy)
    assert bundle.precisions == ["fp32", "int8"]
    assert {(v.precision, v.ok) for v in bundle.verdicts()} == {("fp32", True), ("int8", True)}
    assert read_calibration(bundle_copy / "calibration.json").kept == told["kept"]
    assert {name: (bundle_copy / name).read_bytes() for name in untouched} == untouched
    assert (tmp_path / "ranges.png").read_bytes().startswith(b"\x89PNG")
    assert not list(bundle_copy.parent.glob(".*"))  # nothing half-made is left

    again = cli("calibrate", bundle_copy, "--calibration", bundle_copy / "calibration.json", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["kept"] == told["kept"]


def test_int8_beyond_the_bound_is_refused_and_kept_only_when_allowed(
    bundle_copy: Path, typed_bundle: Path, cli: Cli, tmp_path: Path
):
    before = {p.name: p.read_bytes() for p in bundle_copy.iterdir()}
    everything = replace(read_calibration(typed_bundle / "calibration.json"), kept=[])
    (tmp_path / "all.json").write_text(everything.to_json())
    ended = cli("calibrate", bundle_copy, "--calibration", tmp_path / "all.json")
    assert ended.exit_code == 1
    assert "error: int8 on" in ended.stderr and "the bound of 6e-02." in ended.stderr
    assert {p.name: p.read_bytes() for p in bundle_copy.iterdir()} == before

    assert (
        cli("calibrate", bundle_copy, "--calibration", tmp_path / "all.json", "--allow-inaccurate").exit_code
        == 0
    )
    (verdict,) = [v for v in open_bundle(bundle_copy).verdicts() if v.precision == "int8"]
    assert not verdict.ok and verdict.needed is not None and 0.06 < verdict.needed < 0.5
    assert "FAILED" in cli("inspect", bundle_copy).stdout


@pytest.mark.slow
def test_a_bound_that_no_layer_meets_is_refused_with_the_numbers(bundle_copy: Path, cli: Cli):
    ended = cli("calibrate", bundle_copy, "--data", "digits", "--size", 32, "--bound", 1e-6)
    assert ended.exit_code == 1
    assert "int8 everywhere: relative L2 " in ended.stderr and "27 of 27): relative L2 " in ended.stderr
    assert "no layer can be computed in 8 bits within the bound of 1.0e-06 relative L2" in ended.stderr
    assert open_bundle(bundle_copy).precisions == ["fp32"]


def test_a_bundle_that_changed_meanwhile_is_left_alone(bundle_copy: Path, typed_bundle: Path):
    opened = open_bundle(bundle_copy)
    manifest = (typed_bundle / "manifest.json").read_text()
    (bundle_copy / "manifest.json").write_text(manifest)  # as another command would have left it
    with pytest.raises(OutputError, match="another command changed the files"):
        update_manifest(opened, lambda m: m)
    with (
        pytest.raises(OutputError, match="another command changed the files"),
        amending(opened) as folder,
    ):
        (folder / "manifest.json").write_text("{}")
    assert (bundle_copy / "manifest.json").read_text() == manifest


def test_a_link_to_a_bundle_is_followed(bundle_copy: Path, tmp_path: Path):
    link = tmp_path / "link.bundle"
    link.symlink_to(bundle_copy)
    with amending(open_bundle(link)) as folder:
        (folder / "manifest.json").write_text((bundle_copy / "manifest.json").read_text())
        (folder / "note.txt").write_text("new")
    assert link.is_symlink() and (bundle_copy / "note.txt").read_text() == "new"
    assert open_bundle(link).precisions == ["fp32"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "digits", "--calibration", "x.json"), "give --data or --calibration, not both"),
        (
            ("--search-schedule", 2, "--data", "digits", "--allow-inaccurate"),
            "are for int8, not for --search-schedule",
        ),
        (("--data", "digits", "--size", 31), "31 images are too few"),
        (("--data", "digits", "--size", 5000), "has 1257 images, but calibration is to use 5000"),
        (("--data", "nowhere.npz"), "nowhere.npz"),
        (("--calibration", "nowhere.json"), "nowhere.json: not a calibration file"),
        (("--search-schedule", 2), "--search-schedule needs --data"),
        (("--search-schedule", 5, "--data", "digits"), "5 is not in the range"),
    ],
)
def test_what_calibrate_refuses(digits_bundle: Path, cli: Cli, options: tuple[object, ...], message: str):
    ended = cli("calibrate", digits_bundle, *options)
    assert ended.exit_code == 2
    assert message in ended.output


def test_calibration_data_of_another_size(digits_bundle: Path, tmp_path: Path, cli: Cli):
    np.savez(tmp_path / "x.npz", images=np.zeros((40, 1, 16, 16), np.uint8), labels=np.arange(40) % 10)
    ended = cli("calibrate", digits_bundle, "--data", tmp_path / "x.npz")
    assert ended.exit_code == 2
    assert (
        "x.npz: 16 pixels wide, not 8" in ended.output
        or "images of 1 × 16 × 16; the model takes 1 × 8 × 8" in ended.output
    )


def test_a_schedule_search_wants_enough_to_measure_against(bundle_copy: Path, tmp_path: Path, cli: Cli):
    np.savez(tmp_path / "few.npz", images=np.zeros((100, 1, 8, 8), np.uint8), labels=np.arange(100) % 10)
    before = (bundle_copy / "manifest.json").read_bytes()
    ended = cli("calibrate", bundle_copy, "--search-schedule", 2, "--data", tmp_path / "few.npz")
    assert ended.exit_code == 2
    assert "only 20 images are held out; schedules are measured on at least 32" in ended.stderr
    assert (bundle_copy / "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_a_schedule_search_leaves_its_schedule_and_score_in_the_bundle(
    bundle_copy: Path, tmp_path: Path, cli: Cli
):
    ended = cli(
        "calibrate",
        bundle_copy,
        "--search-schedule",
        1,
        "--data",
        "digits",
        "--picture",
        tmp_path / "p.png",
        "--json",
    )
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert told["schedules"] == {"invert-1": "+0.07 0.07>80"}
    assert told["quality"]["invert-1"]["reconstruction_mse"] == pytest.approx(0.00436, abs=1e-4)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    bundle = open_bundle(bundle_copy)
    assert bundle.manifest.quality == told["quality"]
    assert "MSE 0.0043" in cli("inspect", bundle_copy).stdout
    assert len(bundle.verdicts()) == 1  # of graphs, which a search does not touch

"""benchmarks/gpu.py without a GPU: its choices, figures, verdicts and tables on fixed numbers, its players for real on the processor, and
one batch size from end to end with stand-ins for CUDA's clock and for TensorRT."""

from __future__ import annotations

import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from gpu_figures import BENCHMARKS, GPU, engine_beside_torch, load, measured, reports, row
from networks import random_model
from torch._dynamo.testing import CompileCounter

from bcm_edge.errors import BackendError
from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint
from bcm_edge.model.player import TorchBackend
from bcm_edge.runtime import benchmark
from bcm_edge.runtime.backends.null import NullBackend
from bcm_edge.runtime.bundle import open_bundle
from bcm_edge.runtime.chain import play
from bcm_edge.runtime.engines.gpu import probe
from bcm_edge.runtime.schedule import DEFAULT_SCHEDULES, parse_schedule

RENOISED = parse_schedule("80>2.4 +1 1>0.002")  # noise before a move towards the image, whose graph adds none


players = load(BENCHMARKS / "networks.py")
with patch.dict(sys.modules, networks=players, gpu_report=reports):
    gpu = load(BENCHMARKS / "gpu.py")
stand_ins = load(Path(__file__).parent / "engines" / "conftest.py")
driver, surroundings, record = stand_ins.driver, stand_ins.surroundings, stand_ins.record  # a GPU that is not there


def no_gpu() -> str | None:
    try:
        probe()
    except BackendError as error:
        return str(error)
    return None


without_gpu = pytest.mark.skipif(no_gpu() is None, reason="there is a GPU here")


# Choosing


def test_tensorrt_is_played_where_it_is() -> None:
    variants, absent = gpu.choose(None, ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert variants == ["torch eager fp16", "TensorRT fp16", "torch.compile fp16"]
    assert absent == dict.fromkeys(("ONNX Runtime CUDA fp16", "ONNX Runtime TensorRT-RTX fp16"), "TensorRT is here")


def test_providers_of_onnxruntime_are_played_without_tensorrt() -> None:
    variants, absent = gpu.choose("tensorrt is not installed", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert variants == ["torch eager fp16", "ONNX Runtime CUDA fp16", "torch.compile fp16"]
    missing = "this onnxruntime has no NvTensorRTRTXExecutionProvider"
    assert absent == {"TensorRT fp16": "tensorrt is not installed", "ONNX Runtime TensorRT-RTX fp16": missing}


def test_torch_alone_is_played_without_either() -> None:
    variants, absent = gpu.choose("tensorrt is not installed", ["CPUExecutionProvider"])
    assert variants == ["torch eager fp16", "torch.compile fp16"]
    assert set(absent) == {"TensorRT fp16", "ONNX Runtime CUDA fp16", "ONNX Runtime TensorRT-RTX fp16"}


# Figures


def test_row_of_known_times() -> None:
    turns = [[0.002, 0.002, 0.004], [0.002, 0.002], [0.002, 0.012]]
    found = gpu.row("TensorRT fp16", "mixture-4", 16, 4, turns, 200_000_000_000, 1.466, 1e-3)
    assert (found.runs, found.p50_ms, found.p90_ms) == (7, pytest.approx(2.0), pytest.approx(7.2))
    assert found.p99_ms == pytest.approx(11.52)
    assert found.images_per_s == pytest.approx(8000)
    assert found.tflops == pytest.approx(16 * 4 * 200e9 / 0.002 / 1e12)  # 6400
    assert found.of_matmul == pytest.approx(6400 / 750, rel=1e-3)


def test_matrix_product_in_tflops() -> None:
    assert gpu.product_tflops(1.0) == pytest.approx(2 * 8192**3 / 1e-3 / 1e12)


def test_chain_is_held_against_the_sum_of_its_engines() -> None:
    assert gpu.Chain(4.4, 4.1, [1.0, 1.5, 0.5, 1.0]).ratio == pytest.approx(1.1)


def test_relative_distance() -> None:
    assert gpu.distance(np.float32([[3, 0]]), np.float32([[3, 4]])) == pytest.approx(0.8)


def test_figures_survive_their_file(tmp_path: Path) -> None:
    found = engine_beside_torch(16, 2.0, 3.6)
    (tmp_path / "results.json").write_text(json.dumps({"network": "imagenet64", "batches": [asdict(found)]}))
    assert gpu.earlier(tmp_path / "results.json", "imagenet64") == {16: found}
    assert gpu.earlier(tmp_path / "results.json", "digits") == {}
    assert gpu.earlier(tmp_path / "other.json", "digits") == gpu.earlier(None, "digits") == {}


# Running


@without_gpu
def test_without_a_gpu_one_line_says_what_is_needed() -> None:
    ended = subprocess.run([sys.executable, BENCHMARKS / "gpu.py"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"benchmarks/gpu.py needs an NVIDIA GPU: {no_gpu()}\n"


def test_what_takes_too_long_is_broken_off() -> None:
    with pytest.raises(gpu.TooLong, match=r"not ready within 0\.05 s"), gpu.within(0.05):
        time.sleep(5)
    with gpu.within(0.05):
        pass
    time.sleep(0.1)  # nothing rings any more


def test_batches_of_several_calls_come_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = {gpu.TENSORRT: "no engine in fp16 for this GPU"}
    ends = {1: (0, measured(1, [row(gpu.EAGER, "one-step", 9.0)], None, absent)), 16: (1, None)}

    def run(command: list[str], **_: Any) -> Any:
        code, found = ends[int(command[command.index("--batch") + 1])]
        return SimpleNamespace(returncode=code, stdout="" if code else f"AUTOTUNE\n{json.dumps(asdict(found))}\n")

    output = tmp_path / "results.json"
    output.write_text(json.dumps({"network": "imagenet64", "batches": [asdict(engine_beside_torch(256, 100.0, 130.0))]}))
    monkeypatch.setattr(gpu, "missing", lambda: None)
    monkeypatch.setattr(gpu, "made", lambda folder, network: folder / "bundle")
    monkeypatch.setattr(gpu, "build_engine", lambda path, largest: "the build ran out of memory")
    monkeypatch.setattr(gpu.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--batch", "1,16", "--folder", str(tmp_path), "-o", str(output)])
    gpu.main()
    said = capsys.readouterr()
    assert set(gpu.earlier(output, "imagenet64")) == {1, 256}
    assert "not run: TensorRT fp16 at batch 1: the build ran out of memory" in said.out
    assert "not run: batch 16: not asked for, or its process failed" in said.out
    assert "met: TensorRT fp16 ≥ 1.1× torch.compile at batch 256: one-step 1.30×" in said.out
    assert "not run: batch 16: its process ended with 1" in said.err


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as the benchmark exports them."""
    return gpu.made(tmp_path_factory.mktemp("work") / "digits", "digits")


def test_bundle_of_an_earlier_call_is_taken(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "prepare", None)
    assert gpu.made(bundle.parent, "digits") == bundle
    assert open_bundle(bundle).precisions == ["fp32", "fp16"]


@without_gpu
def test_engine_that_cannot_be_built_says_why(bundle: Path) -> None:
    assert gpu.build_engine(bundle, 256) == no_gpu()


class Recorder(NullBackend):
    """A device that keeps what it is handed."""

    files, max_batch = {}, 64
    given: tuple[Any, ...] = ()

    def play_moves(self, x: np.ndarray, moves: Any, noises: Any, labels: Any, every: bool) -> np.ndarray:
        self.given = (x, moves, noises, labels)
        return np.zeros((1, *x.shape), np.float32)

    def play_to_pixels(self, *_: Any) -> Any: ...


@pytest.mark.parametrize("name", ["one-step", "mixture-4", "invert-2"])
def test_variants_get_what_the_chain_hands_a_device(name: str) -> None:
    program, device = parse_schedule(DEFAULT_SCHEDULES[name]), Recorder((3, 8, 8), 10)
    benchmark.player(device, program, 3)()
    x, moves, noises, labels = gpu.handed(program, 3, (3, 8, 8), 10)
    np.testing.assert_array_equal(x, device.given[0])
    assert moves == device.given[1]
    for noise, expected in zip(noises, device.given[2], strict=True):
        assert noise is expected is None or np.array_equal(noise, expected)
    np.testing.assert_array_equal(labels, device.given[3])


def test_truth_in_parts_is_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    player, given = players.TorchPlayer(random_model(), "cpu"), gpu.handed(RENOISED, 5, (3, 16, 16), None)
    whole = player.play_moves(*given, every=False)[-1]
    monkeypatch.setattr(gpu, "PART", 2)
    assert gpu.distance(gpu.in_parts(player, *given), whole) < 1e-6


# The players


def truth_and_given(program: Any, n: int) -> tuple[Any, np.ndarray, tuple[Any, ...]]:
    """(the digits model, the chain's last state on torch, what a player gets for the same)."""
    model = load_checkpoint(shipped_checkpoint()).model()
    x, moves, noises, labels = gpu.handed(program, n, (1, 8, 8), 10)
    image = x if program.from_image else None
    return model, play(program, TorchBackend(model), list(range(n)), labels, image), (x, moves, noises, labels)


PROGRAMS = [*(parse_schedule(DEFAULT_SCHEDULES[name]) for name in ("one-step", "mixture-4", "invert-2")), RENOISED]


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_torch_player_plays_what_the_chain_plays(program: Any) -> None:
    model, truth, given = truth_and_given(program, 3)
    assert gpu.distance(players.TorchPlayer(model, "cpu").play_moves(*given, every=False)[-1], truth) < 1e-6
    half = players.TorchPlayer(players.rounded(model, torch.float16), "cpu").play_moves(*given, every=False)
    assert (half.shape, half.dtype) == ((1, 3, 1, 8, 8), np.float32)
    assert 1e-5 < gpu.distance(half[-1], truth) < 5e-3


def test_rounded_network_keeps_its_sinusoids_and_the_model_it_came_from() -> None:
    model = random_model()
    half = players.rounded(model, torch.float16)
    assert {p.dtype for p in half.network.parameters()} == {torch.float16}
    assert half.network.embedding.frequencies.dtype == torch.float32
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    assert half.network.out[2].weight.is_contiguous(memory_format=torch.channels_last)


def test_compiled_network_is_one_graph_for_all_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    counter, asked, real = CompileCounter(), [], torch.compile
    torch._dynamo.reset()

    def compile_with(model: Any, **options: Any) -> Any:
        asked.append(options)
        return real(model, backend=counter, fullgraph=options["fullgraph"], dynamic=options["dynamic"])

    monkeypatch.setattr(torch, "compile", compile_with)
    model, truth, given = truth_and_given(PROGRAMS[1], 2)
    player = players.TorchPlayer(players.rounded(model, torch.float16), "cpu", compiled=True)
    for _ in range(2):
        assert gpu.distance(player.play_moves(*given, every=False)[-1], truth) < 5e-3
    assert asked == [{"mode": "max-autotune", "fullgraph": True, "dynamic": False}]
    assert counter.frame_count == 1


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_session_player_plays_what_the_chain_plays(bundle: Path, program: Any) -> None:
    _, truth, given = truth_and_given(program, 3)
    player = players.SessionPlayer(open_bundle(bundle), "fp32", "CPUExecutionProvider")
    assert gpu.distance(player.play_moves(*given, every=False)[-1], truth) < 1e-5


def test_provider_that_onnxruntime_would_replace_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)
    with pytest.raises(RuntimeError, match="cannot use its CUDAExecutionProvider here"):
        players.SessionPlayer(open_bundle(bundle), "fp16", "CUDAExecutionProvider")


def test_providers_are_those_of_onnxruntime() -> None:
    assert "CPUExecutionProvider" in players.providers()


# From end to end


class OnTheProcessor:
    """Timed without CUDA."""

    finish = staticmethod(lambda stream: None)

    def __init__(self, work: Any, stream: Any = None) -> None:
        self.work, self.stream, self.ms = work, stream, []

    def __call__(self) -> None:
        started = time.perf_counter()
        self.work()
        self.finish(self.stream)
        self.ms.append(1e3 * (time.perf_counter() - started))


@pytest.fixture
def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = torch.compile
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "MATRIX", 64)
    monkeypatch.setattr(gpu, "Timed", OnTheProcessor)
    monkeypatch.setattr(gpu, "environment", lambda: {"gpu": GPU, "versions": {"torch": torch.__version__}})
    monkeypatch.setattr(torch, "compile", lambda model, mode, **options: real(model, backend="eager", **options))
    monkeypatch.setattr(benchmark, "TURN", 0.005)
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = kept


@without_gpu
@pytest.mark.usefixtures("on_the_processor")
def test_one_batch_size_of_torch_alone(bundle: Path) -> None:
    found = gpu.measure(bundle, 2, ["one-step", "mixture-4"], 0.01)
    assert gpu.Measured.from_json(json.loads(json.dumps(asdict(found)))) == found
    variants = [gpu.EAGER, gpu.COMPILED]
    assert [(r.variant, r.schedule) for r in found.rows] == [(v, s) for s in ("one-step", "mixture-4") for v in variants]
    assert all(r.relative_l2 < 5e-3 and 0 < r.low_ms <= r.high_ms and r.runs >= 5 for r in found.rows)
    assert (found.chain, found.not_run[gpu.TENSORRT]) == (None, no_gpu())
    assert list(found.ready_s) == list(found.played) == variants
    one, four = (next(r.p50_ms for r in found.rows if r.schedule == s) for s in ("one-step", "mixture-4"))
    assert one < four
    assert reports.report("digits", [found])


@pytest.fixture
def engine(bundle: Path, tmp_path: Path, record: ModuleType) -> Path:
    """The bundle with an engine for the GPU that is not there, as the benchmark builds it."""
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    assert gpu.build_engine(copy, 256) is None
    return copy


@pytest.mark.usefixtures("on_the_processor")
def test_one_batch_size_with_engines(engine: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gpu.opened

    def opened(name: str, bundle: Any, model: Any) -> Any:
        if name == gpu.COMPILED:
            raise MemoryError("no memory\nfor all of it")
        return real(name, bundle, model)

    cuda = importlib.import_module("cuda.core")
    monkeypatch.setattr(gpu, "opened", opened)
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle: handle)
    monkeypatch.setattr(OnTheProcessor, "finish", staticmethod(lambda handle: cuda.stream_of(handle).sync() if handle else None))
    found = gpu.measure(engine, 2, ["one-step", "mixture-4"], 0.01)
    assert list(found.of(gpu.TENSORRT)) == ["one-step", "mixture-4"]
    assert all(r.relative_l2 < 5e-3 for r in found.rows)
    assert found.played[gpu.TENSORRT] == "Fake Orin, TensorRT 10.3.0, one CUDA graph per schedule"
    assert found.not_run == {**dict.fromkeys(gpu.SESSIONS, "TensorRT is here"), gpu.COMPILED: "MemoryError: no memory"}
    assert found.chain and len(found.chain.engines_ms) == 4
    assert found.chain.device_ms > max(found.chain.engines_ms)  # which it launches in turn
    assert found.chain.wall_ms == found.of(gpu.TENSORRT)["mixture-4"].p50_ms


def test_engine_of_an_earlier_call_is_taken(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bcm_edge.export.engines.build", None)
    assert gpu.build_engine(engine, 256) is None
    (folder,) = (engine / "engines").iterdir()
    assert json.loads((folder / "engine.json").read_text())["options"]["batch"] == [1, 16, 256]


def test_build_that_runs_out_of_memory_says_so(bundle: Path, tmp_path: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_BUILD", "memory")
    assert (gpu.build_engine(shutil.copytree(bundle, tmp_path / "bundle"), 256) or "").startswith("the build ran out of memory")

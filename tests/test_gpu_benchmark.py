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
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
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

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
GPU = "NVIDIA H100 80GB HBM3 (compute capability 9.0, 85.0 GB, driver for CUDA 13.0)"
RENOISED = parse_schedule("80>2.4 +1 1>0.002")  # noise before a move towards the image, whose graph adds none


def load(path: Path) -> ModuleType:
    """A file under a name of its own: there is a networks.py in benchmarks and in tests."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


players = load(BENCHMARKS / "networks.py")
reports = load(BENCHMARKS / "gpu_report.py")
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


def row(variant: str, schedule: str, p50: float, of_matmul: float = 0.4, error: float = 1e-3, spread: float = 0.1) -> Any:
    return gpu.Row(variant, schedule, 30, p50 - spread, p50 + spread, p50, p50 + 1, p50 + 2, 1e3 / p50, 300.0, of_matmul, error)


def measured(batch: int, rows: Sequence[Any], chain: Any = None, not_run: dict[str, str] | None = None) -> Any:
    names = list(dict.fromkeys(r.variant for r in rows))
    environment = {"gpu": GPU, "versions": {"torch": "2.11.0", "openvino": None}}
    ready, played = dict.fromkeys(names, 12.3), {name: f"{name} played" for name in names}
    return gpu.Measured(batch, list(rows), chain, 750.0, not_run or {}, ready, {"one-step": 0.5}, played, environment)


def engine_beside_torch(batch: int, engine: float, compiled: float, of_matmul: float = 0.6) -> Any:
    rows = [
        row(gpu.EAGER, "one-step", 3 * compiled),
        row(gpu.TENSORRT, "one-step", engine, of_matmul),
        row(gpu.COMPILED, "one-step", compiled),
    ]
    return measured(batch, rows, gpu.Chain(4.1, 4.02, [1.0, 1.0, 1.0, 1.0]))


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


# Targets


def test_targets_that_are_met() -> None:
    found = [engine_beside_torch(1, 2.0, 3.6), engine_beside_torch(256, 100.0, 130.0, 0.55)]
    assert reports.targets(found) == [
        "met: a chain of 4 moves costs ≤ 1.03× the sum of its engine times: batch 1 1.025×, batch 256 1.025×",
        "met: TensorRT fp16 ≥ 1.5× torch.compile at batch 1: one-step 1.80×",
        "met: TensorRT fp16 ≥ 1.1× torch.compile at batch 256: one-step 1.30×",
        "met: TensorRT fp16 ≥ 50% of the fp16 matrix product at batch 256: one-step 55%",
        "met: after all moves within 5e-03 of torch in float32: TensorRT fp16 1.0e-03",
    ]


def test_target_is_missed_where_one_schedule_misses_it() -> None:
    rows = [row(gpu.TENSORRT, "one-step", 100.0, 0.51), row(gpu.COMPILED, "one-step", 120.0)]
    rows += [row(gpu.TENSORRT, "mixture-4", 400.0, 0.49, 6e-3), row(gpu.COMPILED, "mixture-4", 420.0)]
    chain, *_, compiled, share, parity = reports.targets([measured(256, rows, gpu.Chain(412.5, 401.0, [100.0] * 4))])
    assert chain == "missed: a chain of 4 moves costs ≤ 1.03× the sum of its engine times: batch 256 1.031×"
    assert compiled == "missed: TensorRT fp16 ≥ 1.1× torch.compile at batch 256: one-step 1.20×, mixture-4 1.05×"
    assert share == "missed: TensorRT fp16 ≥ 50% of the fp16 matrix product at batch 256: one-step 51%, mixture-4 49%"
    assert parity == "missed: after all moves within 5e-03 of torch in float32: TensorRT fp16 6.0e-03"


def test_targets_that_nothing_was_run_for_say_why() -> None:
    absent = {gpu.TENSORRT: "tensorrt is not installed", gpu.COMPILED: "TooLong: not ready within 450 s"}
    assert reports.targets([measured(1, [row(gpu.EAGER, "one-step", 9.0)], None, absent)]) == [
        "not run: a chain of 4 moves costs ≤ 1.03× the sum of its engine times: TensorRT fp16: tensorrt is not installed",
        "not run: TensorRT fp16 ≥ 1.5× torch.compile at batch 1: TensorRT fp16: tensorrt is not installed; "
        "torch.compile fp16: TooLong: not ready within 450 s",
        "not run: TensorRT fp16 ≥ 1.1× torch.compile at batch 256: batch 256 was not measured",
        "not run: TensorRT fp16 ≥ 50% of the fp16 matrix product at batch 256: batch 256 was not measured",
        "not run: after all moves within 5e-03 of torch in float32: TensorRT fp16: tensorrt is not installed",
    ]


def test_chain_without_a_schedule_of_four_moves_was_not_run() -> None:
    rows = [row(gpu.TENSORRT, "one-step", 2.0), row(gpu.COMPILED, "one-step", 4.0)]
    assert reports.targets([measured(1, rows)])[0].endswith("engine times: no schedule of 4 moves was measured")


# The report


def test_table() -> None:
    rows = [row(gpu.EAGER, "one-step", 9.0), row(gpu.TENSORRT, "one-step", 2.0, 0.5), row(gpu.COMPILED, "one-step", 3.0)]
    assert reports.table([measured(1, rows)]) == [
        "| batch | schedule | variant | p50 ms | p90 | p99 | images/s | × torch.compile | TFLOP/s | of matmul | rel. L2 |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        "| 1 | one-step | torch eager fp16 | 9.00 | 10.00 | 11.00 | 111.1 | 0.33 | 300.0 | 40% | 1.0e-03 |",
        "| 1 | one-step | TensorRT fp16 | 2.00 | 3.00 | 4.00 | 500.0 | 1.50 | 300.0 | 50% | 1.0e-03 |",
        "| 1 | one-step | torch.compile fp16 | 3.00 | 4.00 | 5.00 | 333.3 | 1.00 | 300.0 | 40% | 1.0e-03 |",
    ]


def test_table_claims_no_difference_within_noise() -> None:
    rows = [row(gpu.TENSORRT, "one-step", 2.9, spread=0.3), row(gpu.COMPILED, "one-step", 3.0, spread=0.3), row(gpu.EAGER, "invert-2", 9.0)]
    engine, compiled, eager = (line.split(" | ")[7] for line in reports.table([measured(1, rows)])[2:])
    assert (engine, compiled, eager) == ("=", "1.00", "–")


def test_report_of_torch_alone_says_so() -> None:
    found = measured(1, [row(gpu.EAGER, "one-step", 9.0)], None, {gpu.TENSORRT: "tensorrt is not installed"})
    said = reports.report("imagenet64", [found])
    assert said[0] == f"imagenet64 on {GPU}"
    assert "batch 1: torch 2.11.0" in said
    assert "batch 1: torch eager fp16: torch eager fp16 played; ready after 12 s" in said
    assert "batch 1: fp16 matrix product 750 TFLOP/s" in said
    assert "batch 1: noise, in no time above: one-step 0.5 ms" in said
    assert "torch alone was measured: neither TensorRT nor a GPU provider of ONNX Runtime could play here" in said


def test_report_of_an_engine_has_its_chain() -> None:
    said = reports.report("imagenet64", [engine_beside_torch(1, 2.0, 3.6)])
    assert "batch 1: chain 4.100 ms, 4.020 without copies; engines 1.000 + 1.000 + 1.000 + 1.000 ms" in said
    assert not any(line.startswith("torch alone") for line in said)


def test_digits_have_no_targets() -> None:
    said = reports.report("digits", [engine_beside_torch(1, 2.0, 3.6)])
    assert "no targets: they are set for imagenet64" in said
    assert not any(line.startswith(("met", "missed")) for line in said)


def test_what_was_not_run_is_listed() -> None:
    absent = {gpu.TENSORRT: "tensorrt is not installed"}
    found = [measured(1, [], None, absent), measured(16, [], None, {**absent, gpu.COMPILED: "TooLong: not ready within 450 s"})]
    assert reports.not_run(found) == [
        "not run: TensorRT fp16 at batch 1, 16: tensorrt is not installed",
        "not run: torch.compile fp16 at batch 16: TooLong: not ready within 450 s",
        "not run: batch 256: not asked for, or its process failed",
        "not run: TensorRT in fp32, bf16 and int8: make test-gpu builds and checks them on the digits",
    ]


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

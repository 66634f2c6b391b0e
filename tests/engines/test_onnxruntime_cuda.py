"""The onnxruntime-cuda backend on a simulated GPU: the same images as on the CPU, and states stay on it."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from agreement import assert_images_agree, assert_pixels_show
from device_schedules import MIXTURE, RENOISING
from fixture_types import Cli
from shared_use import assert_closing_is_safe, assert_threads_agree

import bcm_edge
from bcm_edge.errors import BackendError
from bcm_edge.runtime.backends.base import on_device
from bcm_edge.runtime.backends.onnxruntime_gpu import batch_size
from bcm_edge.runtime.checks.parity import compare
from bcm_edge.runtime.checks.recording import load_recording
from bcm_edge.runtime.schedule import parse_schedule
from bcm_edge.runtime.storage.bundle import open_bundle

NAME = "onnxruntime-cuda"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("schedule", ["80>0.002", MIXTURE, RENOISING])
def test_images_agree_with_the_cpu(
    typed_bundle: Path, onnxruntime_gpu: ModuleType, precision: str, schedule: str
):
    with (
        bcm_edge.load(typed_bundle, NAME, precision=precision) as gpu,
        bcm_edge.load(typed_bundle, "onnxruntime", precision=precision) as cpu,
    ):
        for n in (1, 5, 16):
            labels = np.arange(n) % 10
            actual, expected = (
                each.generate(n, schedule=schedule, seed=7, labels=labels) for each in (gpu, cpu)
            )
            assert_images_agree(actual, expected, precision)


def test_tasks_agree_with_the_cpu(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    hole = np.zeros((8, 8), bool)
    hole[4:] = True
    with (
        bcm_edge.load(typed_bundle, NAME, precision="fp32") as gpu,
        bcm_edge.load(typed_bundle, "onnxruntime", precision="fp32") as cpu,
    ):
        images = cpu.generate(6, labels=3)
        assert_images_agree(gpu.invert(images, labels=3), cpu.invert(images, labels=3))
        assert_images_agree(gpu.reconstruct(images, labels=3), cpu.reconstruct(images, labels=3))
        assert_images_agree(gpu.inpaint(images, hole, labels=3), cpu.inpaint(images, hole, labels=3))
        assert (gpu.guess_labels(images) == cpu.guess_labels(images)).all()
        states, expected = (each.trace(MIXTURE, labels=3).states for each in (gpu, cpu))
        assert len(states) == len(expected) == 5  # the start, and the state after every move
        assert_images_agree(states[1:], expected[1:])


def test_colour_model_without_classes(cli: Cli, tmp_path: Path, onnxruntime_gpu: ModuleType):
    pytest.importorskip("torch")
    from networks import TINY, random_model

    from bcm_edge.model.checkpoint import save_checkpoint

    plain, bundle = replace(TINY, num_classes=None), tmp_path / "rgb.bundle"
    save_checkpoint(tmp_path / "rgb.safetensors", random_model(plain).network.state_dict(), plain, {}, {})
    assert cli("export", tmp_path / "rgb.safetensors", "-o", bundle, "--no-verify").exit_code == 0
    with bcm_edge.load(bundle, NAME) as gpu, bcm_edge.load(bundle, "onnxruntime") as cpu:
        actual, expected = (each.generate(3, schedule=MIXTURE, seed=1) for each in (gpu, cpu))
        assert actual.shape == (3, 3, 16, 16)
        assert_images_agree(actual, expected)
        assert gpu.backend.device.endswith(", one CUDA graph per move")


def test_schedules_are_within_the_bound(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    bcm = bcm_edge.load(typed_bundle, NAME, precision="fp16")
    errors = compare(bcm.backend, load_recording(open_bundle(typed_bundle)), [1, 7, 16], 5e-3)
    assert len(errors) == 48 and all(error.ok for error in errors)


def test_session_gets_these_options(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    with bcm_edge.load(typed_bundle, NAME) as bcm:
        assert (bcm.backend.name, bcm.backend.precision) == ("onnxruntime-cuda", "fp32")
        assert on_device(bcm.backend)
        assert bcm.backend.device.startswith("Fake Orin, ONNX Runtime 1.")
        assert bcm.backend.device.endswith(", CUDA provider, one CUDA graph per move")
    ((provider, options, entries),) = onnxruntime_gpu.sessions
    assert provider == "CUDAExecutionProvider"
    assert int(options.pop("user_compute_stream")) > 0
    assert options == {
        "device_id": "0",
        "use_tf32": "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1",
    }
    assert entries == {
        "session.disable_cpu_ep_fallback": "1",
        "session.record_ep_graph_assignment_info": "1",
    }


def test_states_stay_on_the_device(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    with bcm_edge.load(typed_bundle, NAME, precision="fp32") as bcm:
        bcm.generate(2, schedule="80>3>0.4>0.002", labels=3)
        onnxruntime_gpu.calls.clear()
        bcm.generate(2, schedule="80>3>0.4>0.002", labels=3)
        calls = [call for call in onnxruntime_gpu.calls if call.split()[0] in ("replay", "run", "download")]
    # Two images of 256 bytes are copied to the host once; the two buffers of states are used in turns.
    assert calls == ["replay 0", "replay 1", "replay 0", "download 512"]


def test_gpu_draws_noise_from_seeds(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    with bcm_edge.load(typed_bundle, NAME, precision="fp32") as bcm:
        bcm.generate(2, schedule=MIXTURE, labels=3)
        onnxruntime_gpu.calls.clear()
        bcm.generate(2, schedule=MIXTURE, labels=3)
        uploads = [call for call in onnxruntime_gpu.calls if call.startswith("upload")]
        assert "noise" not in bcm.backend.device
    # the seeds of two images and their labels, then the seeds again for the injection
    assert uploads == ["upload 16", "upload 16", "upload 16"]


def test_host_draws_noise_if_the_gpu_cannot(
    typed_bundle: Path, onnxruntime_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_CAPABILITY", "75")
    with (
        bcm_edge.load(typed_bundle, NAME, precision="fp32") as gpu,
        bcm_edge.load(typed_bundle, "onnxruntime", precision="fp32") as cpu,
    ):
        actual, expected = (each.generate(2, schedule=MIXTURE, seed=5, labels=3) for each in (gpu, cpu))
        assert_images_agree(actual, expected)
        assert gpu.backend.device.endswith(
            "one CUDA graph per move, noise from the processor: "
            "the kernel needs compute capability 8.0, and this GPU has 7.5"
        )


def test_every_state_is_copied_to_the_host_when_it_is_asked_for(
    typed_bundle: Path, onnxruntime_gpu: ModuleType
):
    with bcm_edge.load(typed_bundle, NAME, precision="fp32") as bcm:
        assert on_device(bcm.backend)
        moves = bcm.schedule("80>3>0.4>0.002").moves
        x = np.full((3, 1, 8, 8), 40, np.float32)
        arguments = (x, moves, [None] * 3, np.array([1, 2, 3]))
        every = bcm.backend.play_moves(*arguments, every=True)
        (last,) = bcm.backend.play_moves(*arguments, every=False)
        assert every.shape == (3, 3, 1, 8, 8)
        assert_images_agree(every[-1], last)
        for index, move in enumerate(moves):
            before = x if index == 0 else every[index - 1]
            assert_images_agree(bcm.backend.play_move(before, None, move, np.array([1, 2, 3])), every[index])


def test_batches_are_filled_up_to_a_power_of_two():
    sizes = [batch_size(n) for n in (1, 2, 3, 4, 5, 9, 100, 129, 256)]
    assert sizes == [1, 2, 4, 4, 8, 16, 128, 256, 256]
    with pytest.raises(BackendError, match="a batch of 257 is too large; play at most 256 images at once"):
        batch_size(257)


def test_each_batch_size_has_graphs_of_its_own(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    with bcm_edge.load(typed_bundle, NAME, precision="fp32") as bcm:
        for n in (3, 1, 4):  # 3 and 4 are played at batch 4
            bcm.generate(n, schedule="80>3>0.002", labels=3)
        captured = [call for call in onnxruntime_gpu.calls if call.startswith("capture")]
    assert captured == ["capture 0", "capture 1", "capture 2", "capture 3"]


def test_versions_whose_graphs_break_each_other_run_without_them(
    typed_bundle: Path, record: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_ORT_VERSION", "1.29.0")
    import onnxruntime
    import onnxruntime_cuda

    uninstall = onnxruntime_cuda.install(onnxruntime)
    try:
        with (
            bcm_edge.load(typed_bundle, NAME, precision="fp32") as gpu,
            bcm_edge.load(typed_bundle, "onnxruntime", precision="fp32") as cpu,
        ):
            for n in (2, 8, 2):
                assert_images_agree(gpu.generate(n, seed=1, labels=3), cpu.generate(n, seed=1, labels=3))
            reason = "without CUDA graphs: replays are wrong before ONNX Runtime 1.30"
            assert gpu.backend.device.endswith(reason)
    finally:
        uninstall()


def test_threads_that_take_turns_use_the_same_graphs(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    """ONNX Runtime keeps CUDA graphs for the thread that recorded them."""
    with bcm_edge.load(typed_bundle, NAME, precision="fp32") as bcm:
        bcm.generate(2, labels=3)  # in this thread, which stays alive
        thread = threading.Thread(target=bcm.generate, args=(2,), kwargs={"labels": 3})
        thread.start()
        thread.join()
        captured = [call for call in onnxruntime_gpu.calls if call.startswith("capture")]
    assert captured == ["capture 0"]


def test_pixels_are_those_of_the_images(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    with bcm_edge.load(typed_bundle, NAME, precision="fp32") as bcm:
        floats = bcm.generate(3, schedule=MIXTURE, labels=3)
        pixels = bcm.generate(3, schedule=MIXTURE, labels=3, output_type="uint8")
    assert_pixels_show(pixels, floats)


def test_auto_prefers_an_engine_to_a_session_on_a_gpu_and_that_to_the_cpu(
    built_bundle: Path, typed_bundle: Path, onnxruntime_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    def chosen(bundle: Path, precision: str | None, device: str | None = None) -> tuple[str, str]:
        with bcm_edge.load(bundle, precision=precision, device=device) as bcm:
            return bcm.backend.name, bcm.backend.precision

    assert chosen(built_bundle, None) == ("tensorrt", "fp16")
    assert chosen(typed_bundle, None) == (NAME, "fp32")
    assert chosen(typed_bundle, "fp16", "gpu") == (NAME, "fp16")
    assert chosen(typed_bundle, "int8") in [("onnxruntime", "int8"), ("openvino", "int8")]  # by processor
    assert chosen(typed_bundle, None, "cpu") == ("onnxruntime", "fp32")
    monkeypatch.setenv("FAKE_ORT_PROVIDERS", "CPUExecutionProvider")
    assert chosen(typed_bundle, None) == ("onnxruntime", "fp32")


def test_device_is_the_gpu_that_computes(
    typed_bundle: Path, onnxruntime_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_GPUS", "2")
    with bcm_edge.load(typed_bundle, NAME, precision="fp32", device="cuda:1") as bcm:
        assert np.isfinite(bcm.generate(2, labels=3)).all()
    assert onnxruntime_gpu.devices == {1}
    assert onnxruntime_gpu.sessions[0][1]["device_id"] == "1"


def test_closing_frees_all_memory(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    backend = bcm_edge.load(typed_bundle, NAME, precision="fp32").backend
    x, (move,) = np.zeros((3, 1, 8, 8), np.float32), parse_schedule("80>0.002").moves
    backend.play_move(x, None, move, np.array([3, 3, 3]))
    assert onnxruntime_gpu.pinned
    backend.close()
    backend.close()
    gc.collect()  # the graphs of the fake refer to their session
    assert (onnxruntime_gpu.allocated, onnxruntime_gpu.pinned) == (0, set())
    assert onnxruntime_gpu.calls[-1] == "close pool"
    with pytest.raises(BackendError, match="this model has been closed; load the bundle again"):
        backend.play_move(x, None, move, np.array([3, 3, 3]))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bcm-edge-gpu")]


def test_threads_share_the_backend(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    assert_threads_agree(typed_bundle, NAME, "fp32")


def test_model_can_be_closed_while_other_threads_play(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    assert_closing_is_safe(typed_bundle, NAME, "fp32")


def test_largest_batch_is_that_of_the_caller(typed_bundle: Path, onnxruntime_gpu: ModuleType):
    for batch, largest in ((None, 16), (20, 32), (256, 256)):
        with bcm_edge.load(typed_bundle, NAME, batch, precision="fp32") as bcm:
            assert on_device(bcm.backend)
            assert (bcm.batch, bcm.backend.max_batch) == (batch or 16, largest)
    with bcm_edge.load(typed_bundle, NAME, 300, precision="fp32") as bcm:
        assert np.isfinite(bcm.generate(20, labels=3)).all()
        with pytest.raises(BackendError, match="a batch of 257 is too large; play at most 256 images"):
            bcm.generate(257, labels=3)

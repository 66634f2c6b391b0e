"""The fake of onnxruntime's GPU providers: CUDA graphs, streams, memory and refusals as in the real ones."""

from __future__ import annotations

import gc
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

CUDA, TENSORRT, RTX = "CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
GRAPHS = {"enable_cuda_graph": "1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the inputs x [N, 2] and u [N], which computes y = 2 x and y + u."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    def tensor(name: str, *shape: Any) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("Add", ["x", "x"], ["double"]),
        helper.make_node("Add", ["t", "u"], ["level"]),
        helper.make_node("Unsqueeze", ["level", "one"], ["column"]),
        helper.make_node("Add", ["double", "column"], ["y"]),
    ]
    inputs = [tensor("x", "N", 2), tensor("t", "N"), tensor("u", "N")]
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "double", inputs, [tensor("y", "N", 2)], [one])
    path = tmp_path_factory.mktemp("model") / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def options(**entries: str) -> Any:
    import onnxruntime

    made = onnxruntime.SessionOptions()
    made.log_severity_level = 4
    made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    for name, value in entries.items():
        made.add_session_config_entry(f"session.{name}", value)
    return made


def session_on(model: Path, provider: str = CUDA, own: dict[str, str] | None = None, **entries: str) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(model, options(**entries), providers=[(provider, own or {})])


def run_options(**entries: str) -> Any:
    import onnxruntime

    made = onnxruntime.RunOptions()
    for name, value in entries.items():
        made.add_run_config_entry(name, value)
    return made


class Bound:
    """Device tensors x, t, u and y of n rows, bound to a session. x has the value 1, t and u are 0."""

    def __init__(self, session: Any, n: int = 2) -> None:
        import onnxruntime

        values = {
            "x": np.ones((n, 2), np.float32),
            "t": np.zeros(n, np.float32),
            "u": np.zeros(n, np.float32),
        }
        make = onnxruntime.OrtValue.ortvalue_from_numpy
        self.session, self.binding = session, session.io_binding()
        self.inputs = {name: make(value, "cuda", 0) for name, value in values.items()}
        self.y = onnxruntime.OrtValue.ortvalue_from_shape_and_type((n, 2), np.float32, "cuda", 0)
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        self.binding.bind_ortvalue_output("y", self.y)

    def put(self, name: str, value: float) -> None:
        """Fill an input in place."""
        self.inputs[name].update_inplace(np.full(self.inputs[name].shape(), value, np.float32))

    def run(self, graph: int | None = None, name: str = "gpu_graph_id", waits: bool = True) -> np.ndarray:
        """Run, and return y. waits: whether the run waits for the stream."""
        entries = {} if graph is None else {name: str(graph)}
        if not waits:
            entries["disable_synchronize_execution_providers"] = "1"
        self.session.run_with_iobinding(self.binding, run_options(**entries))
        return self.y.numpy()


def runs(record: ModuleType) -> list[str]:
    return [call for call in record.calls if call.split()[0] in ("run", "capture", "replay")]


def test_results_are_written_to_the_memory_that_is_bound(onnxruntime_gpu: ModuleType, model: Path) -> None:
    bound = Bound(session_on(model))
    assert np.isnan(bound.y.numpy()).all() and bound.y.device_name() == "cuda"
    bound.put("u", 5)
    assert (bound.run() == 7).all()
    assert bound.session.get_providers() == [CUDA, "CPUExecutionProvider"]
    assert onnxruntime_gpu.sessions[0][:2] == (CUDA, {})


def test_memory_of_the_host_is_not_memory_of_the_device(onnxruntime_gpu: ModuleType, model: Path) -> None:
    bound = Bound(session_on(model))
    host = np.ones((2, 2), np.float32)
    bound.binding.bind_input("x", "cuda", 0, np.float32, (2, 2), host.ctypes.data)
    with pytest.raises(RuntimeError, match="ILLEGAL_ADDRESS"):
        bound.run()


def test_graph_is_recorded_after_a_run_and_then_replayed(onnxruntime_gpu: ModuleType, model: Path) -> None:
    bound = Bound(session_on(model, own=GRAPHS))
    assert (bound.run(3) == 2).all()
    bound.put("x", 4)
    bound.put("u", 1)
    assert (bound.run(3) == 9).all()
    assert (bound.run(-1) == 9).all()
    assert runs(onnxruntime_gpu) == ["run 3", "capture 3", "replay 3", "run eager"]


def test_replay_ignores_what_is_bound_later(onnxruntime_gpu: ModuleType, model: Path) -> None:
    import onnxruntime

    bound = Bound(session_on(model, own=GRAPHS))
    bound.run(0)
    other = onnxruntime.OrtValue.ortvalue_from_numpy(np.full((2, 2), 9, np.float32), "cuda", 0)
    bound.binding.bind_ortvalue_input("x", other)
    assert (bound.run(0) == 2).all()
    assert (bound.run(1) == 18).all()  # another graph
    bound.binding.bind_cpu_input("u", np.full(2, 5, np.float32))
    assert (bound.run(1) == 18).all()


def test_graph_belongs_to_its_thread(onnxruntime_gpu: ModuleType, model: Path) -> None:
    bound = Bound(session_on(model, own=GRAPHS))
    bound.run(0)
    thread = threading.Thread(target=bound.run, args=(0,))
    thread.start()
    thread.join()
    assert runs(onnxruntime_gpu) == ["run 0", "capture 0"] * 2


def test_tensorrt_has_one_graph_for_all_ids(onnxruntime_gpu: ModuleType, model: Path) -> None:
    session = session_on(model, TENSORRT, {"trt_cuda_graph_enable": "1"})
    Bound(session).run(0)
    assert np.isnan(Bound(session, 3).run(1)).all()  # the replay wrote to the memory of the first run
    assert runs(onnxruntime_gpu) == ["run 0", "capture 0", "replay 0"]


def test_concurrent_runs_are_an_error(onnxruntime_gpu: ModuleType, model: Path) -> None:
    bound = Bound(session_on(model, own=GRAPHS))
    with bound.session._gpu.running, pytest.raises(RuntimeError, match="already running"):
        bound.run(0)


@pytest.mark.parametrize(("fault", "result"), [("empty", 2), ("stale", 8), ("wrong", 9.1)])
def test_faults_of_graphs(
    onnxruntime_gpu: ModuleType, model: Path, monkeypatch: pytest.MonkeyPatch, fault: str, result: float
) -> None:
    monkeypatch.setenv("FAKE_ORT_GRAPH", fault)
    bound = Bound(session_on(model, own=GRAPHS))
    bound.run(0)
    if fault == "empty":
        bound.put("x", np.nan)  # y keeps the result of the run before the recording
    else:
        bound.put("x", 4)
        bound.put("u", 1)
    np.testing.assert_allclose(bound.run(0), result)


def test_work_is_done_when_the_stream_is_synchronized(onnxruntime_gpu: ModuleType, model: Path) -> None:
    from cuda.core import Device

    stream = Device(0).create_stream()
    bound = Bound(session_on(model, own={"user_compute_stream": str(int(stream.handle))}))
    assert np.isnan(bound.run(waits=False)).all()
    stream.sync()
    assert (bound.y.numpy() == 2).all()
    builder = stream.create_graph_builder().begin_building("thread_local")
    with pytest.raises(RuntimeError, match="CAPTURE_UNSUPPORTED"):
        bound.run()  # it synchronizes
    bound.run(waits=False)
    builder.end_building()
    bound.put("x", 3)
    builder.complete().launch(stream)
    stream.sync()
    assert (bound.y.numpy() == 6).all()
    stream.close()


def test_memory_is_freed_with_its_owner(onnxruntime_gpu: ModuleType, model: Path) -> None:
    bound = Bound(session_on(model, own=GRAPHS))
    bound.run(0)
    assert onnxruntime_gpu.allocated > 0
    del bound
    gc.collect()
    assert onnxruntime_gpu.allocated == 0


def test_too_little_memory(onnxruntime_gpu: ModuleType, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_gpu.faults, "memory", 100)
    with pytest.raises(RuntimeError, match="Failed to allocate memory for requested buffer of size"):
        session_on(model)


def test_missing_library_is_a_session_on_the_cpu_unless_that_is_refused(
    onnxruntime_gpu: ModuleType, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setenv("FAKE_CUDA_PROVIDER", "absent")
    silent = onnxruntime.InferenceSession(model, providers=[CUDA])
    assert silent.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(Fail, match="fallback to CPU EP has been explicitly disabled"):
        session_on(model)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda model: session_on(model, own={"use_tf23": "0"}), "Unknown provider option"),
        (lambda model: session_on(model, TENSORRT, {"trt_profile_min_shapes": "x:1x2"}), "the same inputs"),
        (lambda model: session_on(model).get_provider_graph_assignment_info(), "must be set to"),
    ],
)
def test_refusals(onnxruntime_gpu: ModuleType, model: Path, make: Callable[[Path], Any], reason: str) -> None:
    with pytest.raises((RuntimeError, Fail), match=reason):
        make(model)


def test_node_on_the_cpu(onnxruntime_gpu: ModuleType, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def providers() -> set[str]:
        session = session_on(model, record_ep_graph_assignment_info="1")
        return {group.ep_name for group in session.get_provider_graph_assignment_info()}

    assert providers() == {CUDA}
    monkeypatch.setenv("FAKE_NODE_ON_CPU", "reported")
    assert providers() == {CUDA, "CPUExecutionProvider"}
    monkeypatch.setenv("FAKE_NODE_ON_CPU", "1")
    with pytest.raises(Fail, match="explicitly disabled"):
        providers()


def test_shapes_outside_of_the_profiles(onnxruntime_gpu: ModuleType, model: Path) -> None:
    ends = {"min": "x:1x2,t:1,u:1", "opt": "x:2x2,t:2,u:2", "max": "x:4x2,t:4,u:4"}
    own = {f"trt_profile_{end}_shapes": text for end, text in ends.items()}
    session = session_on(model, TENSORRT, own)
    assert (Bound(session, 4).run() == 2).all()
    with pytest.raises(RuntimeError, match="setInputShape"):
        Bound(session, 5).run()


def test_caches_are_used_again(onnxruntime_gpu: ModuleType, model: Path, tmp_path: Path) -> None:
    own = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(tmp_path / "engines")}
    for _ in range(2):
        session_on(model, TENSORRT, own)
    assert onnxruntime_gpu.calls.count(f"compile {TENSORRT}") == 1


def test_plugin(onnxruntime_gpu: ModuleType, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime
    import onnxruntime_ep_nv_tensorrt_rtx as plugin

    onnxruntime.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
    with pytest.raises(RuntimeError, match="already registered"):
        onnxruntime.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
    devices = [each for each in onnxruntime.get_ep_devices() if each.ep_name == RTX]
    made = options()
    made.add_provider_for_devices(devices, {"nv_multi_profile_enable": "0"})
    bound = Bound(onnxruntime.InferenceSession(model, made))
    bound.run(2, "cuda_graph_annotation_id")  # CUDA graphs are on unless they are turned off
    assert runs(onnxruntime_gpu) == ["run 2", "capture 2"]
    monkeypatch.setenv("FAKE_RTX_PLUGIN", "no-device")
    assert [each.ep_name for each in onnxruntime.get_ep_devices()] == ["CPUExecutionProvider"]


def test_methods_have_the_parameters_of_the_real_ones(onnxruntime_gpu: ModuleType, model: Path) -> None:
    session = session_on(model)
    bound = Bound(session)
    for fake in (session, bound.binding, bound.y):
        real = next(kind for kind in type(fake).__mro__ if kind.__module__.startswith("onnxruntime."))
        for name, method in vars(type(fake)).items():
            if name.startswith("_") or not inspect.isfunction(method) or not hasattr(real, name):
                continue
            expected = list(inspect.signature(getattr(real, name)).parameters)
            assert list(inspect.signature(method).parameters) == expected, name

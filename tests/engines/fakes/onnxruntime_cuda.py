"""A fake of the GPU providers of onnxruntime: CUDA, TensorRT, and TensorRT-RTX as a plugin.

As in the real one, a session whose provider lacks a library runs on the CPU without an error, unless
session.disable_cpu_ep_fallback is set. Environment variables simulate faults:

    FAKE_ORT_PROVIDERS         the available providers, separated by commas
    FAKE_CUDA_PROVIDER=absent  the libraries of CUDA are missing
    FAKE_TENSORRT_PROVIDER=absent   the library of TensorRT is missing
    FAKE_RTX_PLUGIN=broken     the plugin cannot be loaded; =no-device: it supports no GPU of this machine
    FAKE_NODE_ON_CPU=1         one node is placed on the CPU; =reported: only the assignment says so
    FAKE_ORT_VERSION           the version, 1.31.1 if it is not set
    FAKE_ORT_GRAPH             CUDA graphs are "refused", "empty", "stale" or "wrong"
    FAKE_GPU_MEMORY            bytes of device memory (gpu_record.py)
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import gpu_record as record
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument
from onnxruntime_binding import Place, binding_class
from onnxruntime_options import CPU, CUDA, KINDS, RTX, TENSORRT
from onnxruntime_session import FALLBACK_DISABLED, OnGpu, assigned, computable
from onnxruntime_values import ON_GPU, device_value_class, value_factories

NO_FALLBACK = "session.disable_cpu_ep_fallback"
CONFLICT = (
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Conflicting session configuration: explicitly added the CPU "
    "EP to the session, but also disabled fallback to the CPU EP via session configuration options."
)

_plugins: dict[str, str] = {}  # registered plugins: name → library


def install(onnxruntime: ModuleType) -> Callable[[], None]:
    """Give onnxruntime a GPU. Returns a function that takes it away."""
    OrtValue = onnxruntime.OrtValue
    DeviceValue = device_value_class(OrtValue)
    Binding = binding_class(onnxruntime.IOBinding, DeviceValue)
    changes: list[tuple[Any, str, Any]] = [
        (onnxruntime, "__version__", record.environment("ORT_VERSION", "1.31.1")),
        (onnxruntime, "get_available_providers", available_providers),
        (onnxruntime, "register_execution_provider_library", _register),
        (onnxruntime, "unregister_execution_provider_library", _plugins.pop),
        (onnxruntime, "get_ep_devices", _devices),
        (onnxruntime, "preload_dlls", lambda *_, **__: record.calls.append("preload")),
        (onnxruntime, "SessionOptions", _session_options(onnxruntime.SessionOptions)),
        (onnxruntime, "InferenceSession", _session(onnxruntime.InferenceSession, Binding, DeviceValue)),
    ]
    changes += [(OrtValue, name, make) for name, make in value_factories(OrtValue, DeviceValue).items()]
    originals = [(owner, name, vars(owner)[name]) for owner, name, _ in changes]
    for owner, name, value in changes:
        setattr(owner, name, value)

    def uninstall() -> None:
        for owner, name, value in originals:
            setattr(owner, name, value)
        _plugins.clear()

    return uninstall


def available_providers() -> list[str]:
    """The providers that this onnxruntime was built with, and the registered plugins."""
    built = record.environment("ORT_PROVIDERS", f"{TENSORRT},{CUDA},{CPU}").split(",")
    return [*(name for name in _plugins if name not in built), *built]


def _register(registration_name: str, library_path: str) -> None:
    if record.environment("RTX_PLUGIN", "") == "broken":
        raise RuntimeError(
            f"Failed to load {library_path}: libnvidia-ml.so.1: cannot open shared object file"
        )
    if registration_name in _plugins:
        raise RuntimeError(f"library is already registered under {registration_name}")
    _plugins[registration_name] = library_path


def _devices() -> list[SimpleNamespace]:
    plugins = [] if record.environment("RTX_PLUGIN", "") == "no-device" else list(_plugins)
    return [SimpleNamespace(ep_name=name, ep_metadata={}, ep_options={}) for name in (CPU, *plugins)]


def _session_options(original: type) -> type:
    """SessionOptions that remember the plugin and all entries."""

    class SessionOptions(original):
        def __init__(self) -> None:
            super().__init__()
            self.plugin: tuple[str, dict[str, str]] | None = None
            self.entries: dict[str, str] = {}

        def add_session_config_entry(self, key: str, value: str) -> None:
            self.entries[key] = value
            if key != NO_FALLBACK:  # not passed to the real session, which runs on the CPU
                super().add_session_config_entry(key, value)

        def add_provider_for_devices(self, ep_devices: list[Any], provider_options: dict[str, str]) -> None:
            names = {device.ep_name for device in ep_devices}
            if len(names) != 1:
                raise RuntimeError("Must provide at least one device, all of one execution provider")
            self.plugin = names.pop(), dict(provider_options)

    return SessionOptions


def _session(original: type, Binding: type, DeviceValue: type) -> type:
    """InferenceSession on the requested provider, which computes on the CPU."""

    class InferenceSession(original):
        def __init__(
            self,
            path_or_bytes: Any,
            sess_options: Any = None,
            providers: Any = None,
            provider_options: Any = None,
            **keywords: Any,
        ) -> None:
            entries = getattr(sess_options, "entries", {})
            requested = _requested(providers, provider_options)
            if not requested and getattr(sess_options, "plugin", None):
                requested = dict([sess_options.plugin])
            falls_back = entries.get(NO_FALLBACK) != "1"
            if not falls_back and CPU in requested:
                raise InvalidArgument(CONFLICT)
            runs = [name for name in requested if name in KINDS and _loads(name)]
            if not falls_back and not runs:
                raise Fail(FALLBACK_DISABLED)
            self._gpu: OnGpu | None = None
            if runs:
                record.calls.append(f"session {runs[0]}")
                record.sessions.append((runs[0], dict(requested[runs[0]]), dict(entries)))
                self._gpu = OnGpu(runs[0], requested[runs[0]], entries, path_or_bytes)
            self._on = [*runs, CPU]
            self._given = requested
            if runs:
                path_or_bytes = computable(path_or_bytes, sess_options)
            super().__init__(path_or_bytes, sess_options, providers=[CPU], **keywords)

        def get_providers(self) -> list[str]:
            return list(self._on)

        def get_provider_options(self) -> dict[str, dict[str, str]]:
            return {name: dict(self._given.get(name, {})) for name in self._on}

        def get_provider_graph_assignment_info(self) -> Any:
            real = super().get_provider_graph_assignment_info()
            return real if self._gpu is None else assigned(self._gpu.provider, real)

        def io_binding(self) -> Any:
            return super().io_binding() if self._gpu is None else Binding(self)

        def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
            if self._gpu is None:
                super().run_with_iobinding(iobinding, run_options)
            elif iobinding._session is not self._sess:
                raise ValueError("IOBinding must be used with the session that created it.")
            else:
                self._gpu.run(self, iobinding, run_options)

        def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
            results = []
            if self._gpu is None:
                return super().run(output_names, input_feed, run_options)
            self._gpu.run_on_host(lambda: results.extend(self._compute(output_names, input_feed)))
            return results

        def _compute(self, output_names: Any, feeds: Any) -> Any:
            return original.run(self, output_names, feeds)

        def _value_at(self, place: Place, where: str) -> Any:
            """The output of a run: on the device, or on the host if it was bound there."""
            value = DeviceValue(place.address, place.shape, place.dtype, place.owner)
            if where == "given" or where in ON_GPU:
                return value
            from onnxruntime import OrtValue

            return OrtValue.ortvalue_from_numpy(value.numpy())

    return InferenceSession


def _requested(providers: Any, provider_options: Any) -> dict[str, dict[str, str]]:
    """Provider → its options. A provider that is not available is left out, as in the real one."""
    pairs = [entry if isinstance(entry, tuple) else (entry, {}) for entry in providers or []]
    if provider_options is not None:
        pairs = [(name, own) for (name, _), own in zip(pairs, provider_options, strict=True)]
    known = available_providers()
    return {
        name: {str(key): str(value) for key, value in own.items()} for name, own in pairs if name in known
    }


def _loads(provider: str) -> bool:
    """Whether the libraries of a provider are there."""
    switch = {CUDA: "CUDA_PROVIDER", TENSORRT: "TENSORRT_PROVIDER"}.get(provider)
    if provider == RTX:
        return provider in _plugins
    cuda = record.environment("CUDA_PROVIDER", "") != "absent"
    return cuda and record.environment(switch or "", "") != "absent"

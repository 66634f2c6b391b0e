"""A fake of the GPU providers of onnxruntime: CUDA, and TensorRT-RTX as a plugin. Sessions run on the CPU.

As in the real one, a session whose provider is not available runs on the CPU without an error, unless
session.disable_cpu_ep_fallback is set. FAKE_CUDA_PROVIDER=absent simulates a GPU without the CUDA libraries.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import gpu_record as record

CUDA, RTX, CPU = "CUDAExecutionProvider", "NvTensorRTRTXExecutionProvider", "CPUExecutionProvider"
NO_FALLBACK = "session.disable_cpu_ep_fallback"

_plugins: dict[str, str] = {}  # registered plugins: name → library


def install(onnxruntime: ModuleType) -> None:
    """Give onnxruntime a GPU."""
    onnxruntime.get_available_providers = lambda: [CUDA, CPU]
    onnxruntime.register_execution_provider_library = _register
    onnxruntime.get_ep_devices = _devices
    onnxruntime.SessionOptions = _session_options(onnxruntime.SessionOptions)
    onnxruntime.InferenceSession = _session(onnxruntime.InferenceSession)
    onnxruntime.OrtValue.ortvalue_from_numpy = _on_the_processor(onnxruntime.OrtValue.ortvalue_from_numpy)


def _register(registration_name: str, library_path: str) -> None:
    if record.environment("RTX_PLUGIN", "") == "broken":
        raise RuntimeError(
            f"Failed to load {library_path}: libnvidia-ml.so.1: cannot open shared object file"
        )
    if registration_name in _plugins:
        raise RuntimeError(f"library is already registered under {registration_name}")
    _plugins[registration_name] = library_path


def _devices() -> list[SimpleNamespace]:
    return [SimpleNamespace(ep_name=name) for name in (CPU, *_plugins)]


def _session_options(original: type) -> type:
    """SessionOptions that remember a plugin and the fallback."""

    class SessionOptions(original):
        def __init__(self) -> None:
            super().__init__()
            self.plugin, self.falls_back = "", True

        def add_session_config_entry(self, key: str, value: str) -> None:
            if key == NO_FALLBACK:  # not passed to the real session, which runs on the CPU
                self.falls_back = value != "1"
            else:
                super().add_session_config_entry(key, value)

        def add_provider_for_devices(self, ep_devices: list[Any], provider_options: dict[str, str]) -> None:
            names = {device.ep_name for device in ep_devices}
            if len(names) != 1:
                raise RuntimeError("Must provide at least one device, all of one execution provider")
            self.plugin = names.pop()

    return SessionOptions


def _session(original: type) -> type:
    """InferenceSession that reports the requested provider and runs on the CPU."""

    class InferenceSession(original):
        def __init__(
            self, path_or_bytes: Any, sess_options: Any = None, providers: Any = None, **keywords: Any
        ) -> None:
            requested = [entry if isinstance(entry, str) else entry[0] for entry in providers or []]
            plugin = getattr(sess_options, "plugin", "")
            self._provider = plugin or next(iter(requested), CPU)
            if self._provider == CUDA and record.environment("CUDA_PROVIDER", "") == "absent":
                if not getattr(sess_options, "falls_back", True):
                    raise RuntimeError(
                        "This session contains graph nodes that are assigned to the default CPU EP, "
                        "but fallback is disabled"
                    )
                self._provider = CPU
            super().__init__(path_or_bytes, sess_options, providers=[CPU], **keywords)

        def get_providers(self) -> list[str]:
            return list(dict.fromkeys([self._provider, CPU]))

        def io_binding(self) -> Any:
            binding = super().io_binding()
            binding.bind_output = _on_the_processor(binding.bind_output)
            return binding

    return InferenceSession


def _on_the_processor(original: Any) -> Any:
    """The function with the device "cuda" replaced."""
    return lambda value, device="cpu", *more, **keywords: original(value, "cpu", *more, **keywords)

"""A fake of the names of TensorRT 10.3 that this project uses. Its engines compute with ONNX Runtime.

A plan is JSON that names its ONNX graph. tests/tensorrt/test_contract.py compares the signatures with
those of the real bindings. Environment variables change its behaviour:

- FAKE_TENSORRT: the version that it reports
- FAKE_LABELS=int32: labels are int32, as in TensorRT 8.6
- FAKE_BUILD: a fault of the builder: "memory", "killed", "refused", "driver", "wider" (every convolution
  computes in float32) or "one wider" (one convolution does)
"""

from .builder import VERSION as __version__
from .builder import Builder, IBuilderConfig, IOptimizationProfile, ITimingCache
from .context import IExecutionContext
from .engine import EngineInspector, ICudaEngine, OnnxParserRefitter, Refitter, Runtime
from .enums import (
    BuilderFlag,
    DataType,
    DeviceType,
    ErrorCodeTRT,
    ExecutionContextAllocationStrategy,
    LayerInformationFormat,
    LayerType,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParserFlag,
    ProfilingVerbosity,
    TensorIOMode,
    bfloat16,
    float16,
    float32,
    int32,
)
from .interfaces import IErrorRecorder, ILogger, IProgressMonitor
from .network import INetworkDefinition, Layer, OnnxParser, ParserError, Tensor

__all__ = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "DeviceType",
    "EngineInspector",
    "ErrorCodeTRT",
    "ExecutionContextAllocationStrategy",
    "IBuilderConfig",
    "ICudaEngine",
    "IErrorRecorder",
    "IExecutionContext",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITimingCache",
    "Layer",
    "LayerInformationFormat",
    "LayerType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "OnnxParserFlag",
    "OnnxParserRefitter",
    "ParserError",
    "ProfilingVerbosity",
    "Refitter",
    "Runtime",
    "Tensor",
    "TensorIOMode",
    "__version__",
    "bfloat16",
    "float16",
    "float32",
    "int32",
]

"""Enumerations, and the types of tensors in ONNX, numpy and the information of an engine."""

from __future__ import annotations

import enum

import numpy as np

NetworkDefinitionCreationFlag = enum.IntEnum(
    "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
)
BuilderFlag = enum.IntEnum(
    "BuilderFlag", "TF32 GPU_FALLBACK FP16 INT8 OBEY_PRECISION_CONSTRAINTS STRIP_PLAN REFIT_IDENTICAL"
)
MemoryPoolType = enum.IntEnum("MemoryPoolType", ["WORKSPACE"])
ProfilingVerbosity = enum.IntEnum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
LayerInformationFormat = enum.IntEnum("LayerInformationFormat", ["ONELINE", "JSON"])
LayerType = enum.IntEnum("LayerType", ["CONVOLUTION", "DEQUANTIZE", "OTHER"])
TensorIOMode = enum.IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
DeviceType = enum.IntEnum("DeviceType", ["GPU", "DLA"])
OnnxParserFlag = enum.IntEnum("OnnxParserFlag", ["NATIVE_INSTANCENORM"])
ExecutionContextAllocationStrategy = enum.IntEnum(
    "ExecutionContextAllocationStrategy", ["STATIC", "USER_MANAGED"]
)
DataType = enum.IntEnum("DataType", ["FLOAT", "HALF", "BF16", "INT8", "INT64", "INT32", "UINT8", "FP8"])
ErrorCodeTRT = enum.IntEnum("ErrorCodeTRT", ["SUCCESS", "INTERNAL_ERROR"])
float32, float16, bfloat16, int32 = DataType.FLOAT, DataType.HALF, DataType.BF16, DataType.INT32

ONNX_TYPES = {  # of ONNX
    1: DataType.FLOAT,
    10: DataType.HALF,
    16: DataType.BF16,
    3: DataType.INT8,
    7: DataType.INT64,
    2: DataType.UINT8,
    17: DataType.FP8,
}
ARRAY_TYPES = {
    DataType.FLOAT: np.float32,
    DataType.INT64: np.int64,
    DataType.INT32: np.int32,
    DataType.UINT8: np.uint8,
}
TYPE_NAMES = {  # in the information of an engine
    DataType.FLOAT: "Float",
    DataType.HALF: "Half",
    DataType.BF16: "BFloat16",
    DataType.INT8: "Int8",
    DataType.FP8: "FP8",
}

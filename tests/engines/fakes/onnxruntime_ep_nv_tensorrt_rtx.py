"""A stand-in for the package with onnxruntime's plugin for TensorRT-RTX."""


def get_ep_name() -> str:
    return "NvTensorRTRTXExecutionProvider"


def get_library_path() -> str:
    return "libonnxruntime_providers_nv_tensorrt_rtx.so"

"""A fake of the package that contains the plugin of onnxruntime for TensorRT-RTX."""


def get_ep_name() -> str:
    """The name of the provider."""
    return "NvTensorRTRTXExecutionProvider"


def get_library_path() -> str:
    """The file of the plugin."""
    return "libonnxruntime_providers_nv_tensorrt_rtx.so"

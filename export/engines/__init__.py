"""From a bundle to TensorRT engines, on the device: needs TensorRT, and neither torch nor onnx.

`build` is the way through; `compiler` is the process that it starts, `plans` what that does, `realised` what it reads back.
"""

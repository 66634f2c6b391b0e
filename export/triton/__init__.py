"""Make a model repository for Triton Inference Server from a bundle."""

PLATFORMS = ("tensorrt", "onnxruntime", "python")  # what can run the single moves of a repository
# What the Python models may compute with, unless the platform is tensorrt; the first is the default.
BACKENDS = ("onnxruntime", "onnxruntime-cuda")

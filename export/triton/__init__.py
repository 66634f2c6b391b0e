"""Make a model repository for Triton Inference Server from a bundle."""

PLATFORMS = ("tensorrt", "onnxruntime", "python")  # what can run the single moves of a repository

"""From a bundle to a model repository for Triton Inference Server."""

PLATFORMS = ("tensorrt", "onnxruntime", "python")  # what can run the single moves of a repository

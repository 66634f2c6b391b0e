"""Sessions of ONNX Runtime on a GPU, and the memory in which they play schedules."""

"""This machine: processors, memory, GPU, Jetson boards, installed libraries, cache and temporary files."""

"""The machine that this process runs on: processors, memory, GPU, Jetson, installed libraries, folders of its own."""

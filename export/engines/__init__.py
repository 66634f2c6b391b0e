"""Build TensorRT engines from a bundle, on the device that runs them. Needs neither torch nor onnx.

plan.py          decides what a build will do
build.py         runs a build: compile, verify, publish
child.py         starts the compiling process and reads its events
compiler.py      is the compiling process
plan_writer.py   writes plans with TensorRT's builder
realised.py      reads back the types in which convolutions compute
"""

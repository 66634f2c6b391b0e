"""A fake of cuda-bindings, on which cuda-core is built."""

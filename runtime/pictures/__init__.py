"""Read and write image files. Pillow is imported only when an image is decoded or encoded."""

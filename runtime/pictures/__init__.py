"""Picture files in and out. Pillow is imported where a picture is decoded or encoded."""

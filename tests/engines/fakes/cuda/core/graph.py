from . import Graph, GraphBuilder

__all__ = ["Graph", "GraphBuilder"]

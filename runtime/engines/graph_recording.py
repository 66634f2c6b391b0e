"""Record calls of engines as a CUDA graph."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cuda.core import Stream
from cuda.core.graph import Graph


def record_graph(stream: Stream, enqueue: Callable[[Stream], None]) -> Graph:
    """Return the work of a call as a CUDA graph.

    enqueue: puts work on a stream. The work is recorded, and not executed. Raises the exceptions of cuda-core
    and of `enqueue`.
    """
    builder = stream.create_graph_builder()
    try:
        with no_garbage_collection():
            builder.begin_building("thread_local")
            enqueue(builder.stream)
            graph = builder.end_building().complete()
    except BaseException:
        with suppress(Exception):  # this ends the recording, and reports the failure again
            builder.close()
        raise
    builder.close()
    return graph


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage now, and not in the block: no GPU memory may be freed during a recording."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

"""Which files an ONNX graph takes weights from, read off its protobuf without the onnx package.

ONNX Runtime 1.23, the last for Python 3.10, follows any path that a graph names, so no bundle is opened before this has looked. Tensors are
expected where this project's graphs have them, among the initializers; functions, subgraphs and tensor attributes are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

# field numbers of onnx.proto
_MODEL_GRAPH, _MODEL_REFUSED = 7, {20, 25}  # training_info, functions
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_REFUSED = 1, 5, {15}  # sparse_initializer
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_REFUSED = {5, 6, 10, 11, 22, 23}  # t, g, tensors, graphs, sparse_tensor, sparse_tensors
_TENSOR_EXTERNAL_DATA = 13


def external_files(model: bytes) -> set[str]:
    """Every location that an initializer names. Raises ValueError if the bytes are not such a model."""
    places = set()
    for graph in _messages(model, _MODEL_GRAPH, _MODEL_REFUSED):
        for node in _messages(graph, _GRAPH_NODE, set()):
            for attribute in _messages(node, _NODE_ATTRIBUTE, set()):
                list(_messages(attribute, 0, _ATTRIBUTE_REFUSED))
        for tensor in _messages(graph, _GRAPH_INITIALIZER, _GRAPH_REFUSED):
            for entry in _messages(tensor, _TENSOR_EXTERNAL_DATA, set()):
                pairs = dict(_fields(entry))  # protobuf: the last value of a field counts
                if pairs.get(1) == b"location":
                    places.add(bytes(pairs.get(2, b"")).decode())
    return places


def _messages(data: bytes, wanted: int, refused: set[int]) -> Iterator[bytes]:
    for number, value in _fields(data):
        if number in refused:
            raise ValueError(f"field {number} holds tensors outside the initializers")
        if number == wanted:
            yield value


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(field number, bytes) of a protobuf message; numbers come with empty bytes, as nothing here asks for them."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            _, at = _varint(data, at)
            yield key >> 3, b""
            continue
        length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), at)
        if not 0 <= length <= len(data) - at:
            raise ValueError("not a protobuf message")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("not a protobuf message")

"""List the files from which an ONNX graph loads weights. The protobuf is read without the onnx package.

ONNX Runtime 1.23, the last version for Python 3.10, follows any path that a graph contains. So every graph
of a bundle is checked here before it is opened. Only initializers may hold tensors, as in the graphs that
this project writes; functions, subgraphs and tensor attributes are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

# Field numbers of onnx.proto. A message with a "refused" field is not accepted.
_MODEL_GRAPH = 7
_MODEL_REFUSED = {20, 25}  # training_info, functions
_GRAPH_NODE = 1
_GRAPH_INITIALIZER = 5
_GRAPH_REFUSED = {15}  # sparse_initializer
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_REFUSED = {5, 6, 10, 11, 22, 23}  # t, g, tensors, graphs, sparse_tensor, sparse_tensors
_TENSOR_EXTERNAL_DATA = 13
_ENTRY_KEY = 1
_ENTRY_VALUE = 2

# Wire types of protobuf.
_VARINT = 0
_LENGTH_DELIMITED = 2
_FIXED_SIZES = {1: 8, 5: 4}  # wire type → bytes

_MALFORMED = "not a protobuf message"


def external_files(model: bytes) -> set[str]:
    """Return the location of every initializer that is stored outside the model.

    Raises ValueError if the bytes are not an ONNX model, or if tensors lie outside the initializers.
    """
    locations = set()
    for graph in _messages(model, _MODEL_GRAPH, _MODEL_REFUSED):
        for node in _messages(graph, _GRAPH_NODE, set()):
            for attribute in _messages(node, _NODE_ATTRIBUTE, set()):
                list(_messages(attribute, 0, _ATTRIBUTE_REFUSED))  # raises for refused fields
        for tensor in _messages(graph, _GRAPH_INITIALIZER, _GRAPH_REFUSED):
            for entry in _messages(tensor, _TENSOR_EXTERNAL_DATA, set()):
                fields = dict(_fields(entry))  # as in protobuf, the last value of a field counts
                if fields.get(_ENTRY_KEY) == b"location":
                    locations.add(bytes(fields.get(_ENTRY_VALUE, b"")).decode())
    return locations


def _messages(data: bytes, field: int, refused: set[int]) -> Iterator[bytes]:
    """Yield the values of the field `field`. Raises ValueError if a refused field is present."""
    for number, value in _fields(data):
        if number in refused:
            raise ValueError(f"field {number} contains tensors outside the initializers")
        if number == field:
            yield value


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (field number, bytes) of a protobuf message. Values of integer fields are not read: b""."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            _, position = _varint(data, position)
            yield number, b""
            continue
        if wire_type == _LENGTH_DELIMITED:
            length, position = _varint(data, position)
        else:
            length = _FIXED_SIZES.get(wire_type, -1)
        if not 0 <= length <= len(data) - position:
            raise ValueError(_MALFORMED)
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the integer that begins at a position, and the position behind it."""
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError(_MALFORMED)

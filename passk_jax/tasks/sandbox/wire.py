"""The messages between a test and the program that it tests: JSON frames with plain data.

The reader rebuilds values as Python's own types and never unpickles: whatever a program sends, the
test sees numbers, text and containers of them with their usual equality. Any other value stays with
the program, and the test gets a handle to it. Both sides import this file, one of them in a bare
interpreter, so it imports only the standard library and nothing from this package.
"""

import collections
import json
import struct

MAX_FRAME_BYTES = 4 * 2**20
_SAFE_INTEGER = 2**53
_SEQUENCES = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
_SEQUENCES[collections.deque] = "deque"
_BUILD = {name: kind for kind, name in _SEQUENCES.items()}
_TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
}
_MAPPINGS = (collections.Counter, collections.OrderedDict, collections.defaultdict)


class WireError(Exception):
    """A frame or a value cannot be sent or read."""


def encode(value, hold, depth=0):
    """Converts a value to a form that JSON can hold.

    Args:
      value: Any value.
      hold: A function that keeps a value that is not plain data and returns its handle's number.
      depth: The depth of nesting so far.

    Raises:
      WireError: The value is nested too deeply.
    """
    if depth > 200:
        raise WireError("a value is nested more than 200 deep")
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        return value if -_SAFE_INTEGER < value < _SAFE_INTEGER else {"int": hex(value)}
    if kind in _SEQUENCES:
        return {_SEQUENCES[kind]: [encode(item, hold, depth + 1) for item in value]}
    if kind is dict or kind in _MAPPINGS:
        return {
            "dict": [
                [encode(key, hold, depth + 1), encode(item, hold, depth + 1)]
                for key, item in value.items()
            ]
        }
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    if kind in (bytes, bytearray):
        return {"bytes": value.hex()}
    if kind is range:
        return {"range": [value.start, value.stop, value.step]}
    if kind is type and value in _TYPES.values():
        return {"type": value.__name__}
    if isinstance(value, tuple) and hasattr(kind, "_fields"):  # a named tuple equals a plain one
        return {"tuple": [encode(item, hold, depth + 1) for item in tuple.__iter__(value)]}
    return {"handle": hold(value)}


def decode(data, handle):
    """Converts the output of `encode` back to the value.

    Args:
      data: The parsed JSON.
      handle: A function that takes a handle's number and returns the value that stands for it.

    Raises:
      WireError: The data is not an output of `encode`.
    """
    if data is None or isinstance(data, (bool, str, float, int)):
        return data
    if not isinstance(data, dict) or len(data) != 1:
        raise WireError("not a value")
    ((kind, content),) = data.items()
    try:
        if kind == "int":
            return int(content, 16)
        if kind in _BUILD:
            return _BUILD[kind]([decode(item, handle) for item in content])
        if kind == "dict":
            return {decode(key, handle): decode(item, handle) for key, item in content}
        if kind == "complex":
            return complex(*content)
        if kind == "bytes":
            return bytes.fromhex(content)
        if kind == "range":
            return range(*content)
        if kind == "type":
            return _TYPES[content]
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise WireError(f"not a {kind}: {error}") from None
    if kind == "handle" and isinstance(content, int):
        return handle(content)
    raise WireError(f"unknown kind {kind!r:.40}")


def pack(message):
    """Returns a message as a frame: its length in four bytes, then its JSON.

    Raises:
      WireError: The message is too long, or cannot be written as JSON.
    """
    try:
        body = json.dumps(message).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"cannot be sent: {error}") from None
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"longer than {MAX_FRAME_BYTES} bytes")
    return struct.pack(">I", len(body)) + body


def read(read_exactly):
    """Returns the next message.

    Args:
      read_exactly: A function that takes a number of bytes and returns as many bytes.

    Raises:
      WireError: The data is not a valid frame.
    """
    (length,) = struct.unpack(">I", read_exactly(4))
    if length > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {length} bytes, more than {MAX_FRAME_BYTES}")
    try:
        return json.loads(read_exactly(length))
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame that is not JSON: {error}") from None

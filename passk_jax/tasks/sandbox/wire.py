"""The messages between a test and the program that it tests: JSON frames with plain data.

The reader rebuilds values as Python's own types and never unpickles: whatever a program sends, the
test sees numbers, text and containers of them with their usual equality. Any other value stays with
the program, and the test gets a handle to it. The program chooses its values, so a value that would
cost the reader more time than its size is refused. Both sides run this file, one of them in a bare
interpreter, so it imports only the standard library and nothing from this package.
"""

import collections
import decimal
import fractions
import json
import numbers
import struct
import time

MAX_FRAME_BYTES = 4 * 2**20
MAX_DEPTH = 200
MAX_PARTS = 2**16  # plain numbers and text do not count: they cost little
MAX_BITS = 2**20
MAX_RANGE = 2**20
# Reducing a fraction takes quadratic time, and a decimal's exponent is as long as its digits.
MAX_FRACTION_BITS = 2**13
MAX_DECIMAL = 10_000
# Python's sets and dicts take quadratic time for values that a program chose to collide.
_EACH_S = 2e-6  # what an item may take
_HASHING_S = 0.1  # what all items of a message may take beyond that
_FEW = 256
_SAFE_INTEGER = 2**53
_SEQUENCES = {list: "list", tuple: "tuple", set: "set", frozenset: "frozenset"}
_SEQUENCES[collections.deque] = "deque"
_BUILD = {name: kind for kind, name in _SEQUENCES.items()}
_TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
}
# What reads a value of a subclass as its base does, whatever the subclass redefines.
_PLAIN = {
    int: int.__pos__,
    float: float.__pos__,
    str: str.__str__,
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
}


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
    if depth > MAX_DEPTH:
        raise WireError(f"a value is nested more than {MAX_DEPTH} deep")
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        return value if -_SAFE_INTEGER < value < _SAFE_INTEGER else {"int": hex(value)}
    if kind in _SEQUENCES:
        return {_SEQUENCES[kind]: [encode(item, hold, depth + 1) for item in value]}
    if kind is dict:
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
    if kind is decimal.Decimal:
        return {"decimal": str(value)}
    if kind is fractions.Fraction:
        return {"fraction": [hex(value.numerator), hex(value.denominator)]}
    if kind is type and value in _TYPES.values():
        return {"type": value.__name__}
    plain = _plain(value, kind)
    return {"handle": hold(value)} if plain is None else encode(plain, hold, depth)


def _plain(value, kind):
    """Returns the value that compares as this one does, of Python's own type, or None."""
    for base, read in _PLAIN.items():
        if issubclass(kind, base):
            return read(value)
    if kind.__module__.partition(".")[0] not in ("numpy", "sympy"):
        return None
    if kind.__name__ in ("bool_", "bool", "BooleanTrue", "BooleanFalse"):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Rational):
        return fractions.Fraction(int(value.numerator), int(value.denominator))
    return float(value) if isinstance(value, numbers.Real) else None


def decode(data, handle):
    """Converts the output of `encode` back to the value.

    Args:
      data: The parsed JSON.
      handle: A function that takes a handle's number and returns the value that stands for it.

    Raises:
      WireError: The data is not an output of `encode`, or the value is too deep or too large, or
        its items were chosen to collide.
    """
    hashing = _Hashing()
    parts = 0

    def value(data, depth=0):
        nonlocal parts
        if data is None or isinstance(data, (bool, str, float, int)):
            return data
        if depth > MAX_DEPTH:
            raise WireError(f"a value is nested more than {MAX_DEPTH} deep")
        if not isinstance(data, dict) or len(data) != 1:
            raise WireError("not a value")
        parts += 1
        if parts > MAX_PARTS:
            raise WireError(f"a value of more than {MAX_PARTS} lists and other parts")
        ((kind, content),) = data.items()
        try:
            if kind in _BUILD:
                items = [value(item, depth + 1) for item in content]
                hashing.check(items)
                return _BUILD[kind](items)
            if kind == "dict":
                pairs = [(value(key, depth + 1), value(item, depth + 1)) for key, item in content]
                for items in zip(*pairs, strict=True):  # the test may look the values up, too
                    hashing.check(items)
                return dict(pairs)
            if kind in _READ:
                return _READ[kind](content)
        except (TypeError, ValueError, KeyError, ArithmeticError) as error:
            raise WireError(f"not a {kind}: {error}") from None
        if kind == "handle" and type(content) is int:
            return handle(content)
        raise WireError(f"unknown kind {kind!r:.40}")

    return value(data)


def _integer(text):
    if len(text) > MAX_BITS // 4:
        raise WireError(f"an integer of more than {MAX_BITS} bits")
    return int(text, 16)


def _complex(parts):
    real, imaginary = map(float.__pos__, parts)  # floats only: text could be long
    return complex(real, imaginary)


def _range(numbers):
    value = range(*numbers)
    if value[MAX_RANGE:]:
        raise WireError(f"a range of more than {MAX_RANGE} numbers")
    return value


def _decimal(text):
    value = decimal.Decimal(text) if type(text) is str and len(text) <= MAX_DECIMAL else None
    if value is None or (value.is_finite() and abs(value.adjusted()) > MAX_DECIMAL):
        raise WireError(f"a decimal of more than {MAX_DECIMAL} digits")
    return value


def _fraction(parts):
    numerator, denominator = map(_integer, parts)
    if max(abs(numerator), denominator) >> MAX_FRACTION_BITS or denominator < 1:
        raise WireError(f"a fraction of more than {MAX_FRACTION_BITS} bits")
    return fractions.Fraction(numerator, denominator)


_READ = {
    "decimal": _decimal,
    "fraction": _fraction,
    "int": _integer,
    "complex": _complex,
    "bytes": bytes.fromhex,
    "range": _range,
    "type": _TYPES.__getitem__,
}


class _Hashing:
    """Refuses items of which sets and dicts are not made in a time in proportion to their number.

    It makes a set and a dict of them piece by piece, within a time for all items of one message.
    """

    def __init__(self):
        self.left_s = _HASHING_S

    def check(self, items):
        """Raises `WireError` if the items take too long."""
        if len(items) <= _FEW:
            return
        start = time.thread_time()
        seen, keys = set(), {}
        for first in range(0, len(items), _FEW):
            some = items[first : first + _FEW]
            try:
                seen.update(some)
                keys.update(dict.fromkeys(some))
            except TypeError:  # lists have no hash
                pass
            extra_s = time.thread_time() - start - _EACH_S * (first + len(some))
            if extra_s > self.left_s:
                raise WireError("values that were chosen to have the same hash")
        self.left_s -= max(extra_s, 0)


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
    body = read_exactly(length)
    try:
        return json.loads(body, parse_int=_short_number(int), parse_float=_short_number(float))
    except (ValueError, RecursionError) as error:
        raise WireError(f"a frame that is not JSON: {error}") from None


def _short_number(kind):
    def parse(text):
        if len(text) > 40:
            raise ValueError(f"a number of {len(text)} characters")
        return kind(text)

    return parse

"""Pickled dictionaries of NumPy arrays, read by operation: nothing in a file is called, and NumPy unpickles nothing.

Even where only NumPy's own functions may be called, a crafted file crashes them: they believe the state that they are
given. So this reader knows the few forms in which NumPy 1 and 2 and Python 2 and 3 write arrays, types and numbers
(protocols 0 to 5), and makes each array anew from bytes, type and shape that fit each other.
"""

from __future__ import annotations

import math
import pickletools
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pseudolabel.data.pickled_tensors import read_storage, view
from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import read_regular, stands

_HEADER = re.compile(
    r"\s*\{'descr': '(?P<type>[|<>=]?[A-Za-z]\d*)', 'fortran_order': (?:True|False), "
    r"'shape': \((?P<shape>[\d, ]*)\),? *\}"
)
_CORES = ("numpy.core", "numpy._core")  # NumPy 1 and 2
_GLOBALS = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    **{(f"{core}.multiarray", "_reconstruct"): "empty" for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): "scalar" for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): "buffer" for core in _CORES},
    ("collections", "OrderedDict"): "dictionary",
    ("_codecs", "encode"): "encode",  # how protocol 2 carries an array's bytes ...
    ("__builtin__", "bytes"): "nothing",  # ... and those of an empty one
    ("torch._utils", "_rebuild_tensor_v2"): "tensor",
    ("torch.storage", "_load_from_bytes"): "storage",
}
_NUMBER = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248])")
_PUSHED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_TEXT = re.compile(r"(?P<order>[<>|=]?)U\d+")
_OPERATIONS = 1_000_000  # some 60 an array are usual; each takes up to a hundred times its size in memory
_HINT = "wanted a dictionary of NumPy arrays: save it with numpy.save(path, {name: numpy.asarray(value), ...})"


class _NotPlainError(Exception):
    """The file holds something else than arrays and plain data."""


@dataclass(frozen=True)
class _Global:
    what: str


@dataclass
class _Type:
    """A dtype: its letter and size, with the byte order once it is known."""

    code: str


@dataclass(frozen=True)
class _Storage:
    """The numbers of a tensor of PyTorch, in one row."""

    values: np.ndarray


@dataclass
class _Array:
    """An array: its numbers, or the Python objects of an array of objects; neither where it is of anything else."""

    values: np.ndarray | None = None
    objects: list[Any] | None = None
    shape: tuple[int, ...] = ()


_Mark = object()


def read_arrays(path: Path) -> dict[Any, Any]:
    """The dictionary in an ``.npy`` file, without running any code of the file.

    Returns:
        By key (a word or a number) an array of truth values, integers or floats, a word, a number, or a list of these;
        None for anything else.

    Raises:
        DatasetError: No such file, not an .npy file, or it pickles something other than arrays.
    """
    if not stands(path):
        raise DatasetError(f"{path} does not exist; one .npy file is wanted for every image of the split")
    try:
        content = read_regular(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        kind, shape, start = _npy_header(content)
        if kind != "O" or shape:
            raise DatasetError(f"{path} holds an array {shape} of {np.dtype(kind)}, not a dictionary of arrays")
        found = _Reader(content[start:]).read()
    except _NotPlainError as error:
        raise DatasetError(f"{path} is not an .npy dictionary of arrays: {error}; {_HINT}") from error
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error) as error:
        raise DatasetError(f"{path} is not an .npy dictionary of arrays: it is cut or damaged; {_HINT}") from error
    if not isinstance(found, dict):
        raise DatasetError(f"{path} holds {_named(found)}, not a dictionary of arrays; {_HINT}")
    return {key: _value(value, len(content)) for key, value in found.items()}


def read_array(path: Path) -> np.ndarray:
    """The one array of numbers in an ``.npy`` file; nothing is unpickled.

    Raises:
        DatasetError: It cannot be read, is no .npy file, or holds something else; the message names it.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        kind, shape, start = _npy_header(content)
        if not _NUMBER.fullmatch(kind):
            raise _NotPlainError(f"it holds {np.dtype(kind)}")
        found = np.frombuffer(content, dtype=np.dtype(kind), offset=start)
        order: Literal["C", "F"] = "F" if b"'fortran_order': True" in content[:start] else "C"
        return found.reshape(shape, order=order)
    except _NotPlainError as error:
        raise DatasetError(f"{path} is not an .npy file of numbers: {error}") from error
    except (ValueError, TypeError, OverflowError, struct.error) as error:
        raise DatasetError(f"{path} is not an .npy file of numbers: it is cut or damaged") from error


def _npy_header(content: bytes) -> tuple[str, tuple[int, ...], int]:
    """Type, shape, and where the data begins."""
    if content[:6] != b"\x93NUMPY" or len(content) < 12 or content[6] not in (1, 2, 3):
        raise _NotPlainError("it does not begin as an .npy file does")
    layout, start = ("<H", 10) if content[6] == 1 else ("<I", 12)
    (size,) = struct.unpack_from(layout, content, 8)
    found = _HEADER.fullmatch(content[start : start + min(size, 10_000)].decode("latin1").rstrip())
    if found is None:
        raise _NotPlainError("its header states no plain type and shape")
    kind = found["type"].lstrip("|")
    return kind, tuple(int(word) for word in found["shape"].replace(",", " ").split()), start + size


class _Reader:
    """A machine of the pickle opcodes that arrays and plain data need."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        """What the pickle holds; an array of one object counts as that object."""
        for opcode, argument, _ in islice(pickletools.genops(self._content), _OPERATIONS):
            self._take(opcode.name, argument)
            if opcode.name == "STOP":
                (found,) = self._stack
                return found.objects[0] if isinstance(found, _Array) and found.objects and not found.shape else found
        raise _NotPlainError(f"it takes more than {_OPERATIONS} operations")

    def _take(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUSHED:
            stack.append(_number(argument))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("SHORT_BINSTRING", "BINSTRING", "STRING"):  # Python 2: a word, or bytes
            stack.append(argument.encode("latin1"))
        elif name in _TUPLES:
            stack.append(tuple(self._popped(_TUPLES[name])))
        elif name in _ACTIONS:
            _ACTIONS[name](self)
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "GLOBAL":
            stack.append(_global(*argument.split(" ", 1)))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise _NotPlainError(f"it uses the pickle operation {name}, and only arrays and plain data are read")

    def _popped(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise IndexError
        found = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return found

    def _marked(self) -> list[Any]:
        """What was pushed since the last mark, without it."""
        place = next((at for at in range(len(self._stack) - 1, -1, -1) if self._stack[at] is _Mark), None)
        if place is None:
            raise IndexError
        return self._popped(len(self._stack) - place)[1:]

    def _append(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise _NotPlainError(f"it appends to {_named(self._stack[-1])}")
        self._stack[-1].extend(items)

    def _enter(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict):
            raise _NotPlainError(f"it sets a key of {_named(self._stack[-1])}")
        self._stack[-1].update(_pairs(items))

    def _reduce(self) -> None:
        function, arguments = self._popped(2)
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise _NotPlainError(f"it calls {_named(function)}")
        self._stack.append(_made(function.what, arguments))

    def _build(self) -> None:
        state = self._popped(1)[0]
        target = self._stack[-1]
        if not isinstance(state, tuple) or not isinstance(target, _Type | _Array):
            raise _NotPlainError(f"it gives {_named(target)} a state of its own")
        if isinstance(target, _Type):
            if state[1] not in ("<", ">", "|", "=", b"<", b">", b"|", b"="):
                raise _NotPlainError("it states no byte order of an array")
            target.code = _word(state[1]) + target.code.lstrip("<>|=")
            return
        shape, kind, fortran, data = state[-4:]
        target.shape, code = _shape(shape), _code(kind)
        if _NUMBER.fullmatch(code):
            target.values = _numbers(data, kind, target.shape, "F" if fortran else "C")
        elif code.lstrip("<>|=").startswith("O"):
            if not isinstance(data, list) or len(data) != math.prod(target.shape):
                raise _NotPlainError(f"it states the shape {target.shape} for {_named(data)}")
            target.objects = data


_ACTIONS: dict[str, Callable[[_Reader], None]] = {
    "MARK": lambda reader: reader._stack.append(_Mark),
    "EMPTY_LIST": lambda reader: reader._stack.append([]),
    "EMPTY_DICT": lambda reader: reader._stack.append({}),
    "TUPLE": lambda reader: reader._stack.append(tuple(reader._marked())),
    "LIST": lambda reader: reader._stack.append(reader._marked()),
    "DICT": lambda reader: reader._stack.append(_pairs(reader._marked())),
    "APPEND": lambda reader: reader._append(reader._popped(1)),
    "APPENDS": lambda reader: reader._append(reader._marked()),
    "SETITEM": lambda reader: reader._enter(reader._popped(2)),
    "SETITEMS": lambda reader: reader._enter(reader._marked()),
    "STACK_GLOBAL": lambda reader: reader._stack.append(_global(*reader._popped(2))),
    "REDUCE": _Reader._reduce,
    "BUILD": _Reader._build,
}


def _global(module: Any, name: Any) -> _Global:
    if not isinstance(module, str) or not isinstance(name, str):  # nested tuples without end would have no hash either
        raise _NotPlainError("it names no function by words")
    if (module, name) not in _GLOBALS:
        raise _NotPlainError(f"it names {f'{module}.{name}'[:80]}, and only NumPy arrays are read")
    return _Global(_GLOBALS[module, name])


def _made(what: str, arguments: tuple[Any, ...]) -> Any:
    """What a call of one of the known functions stands for."""
    if what == "dtype":
        return _Type(_word(arguments[0]))
    if what == "empty":
        if arguments[0] != _Global("ndarray"):
            raise _NotPlainError("it makes an array of another class than NumPy's")
        return _Array()
    if what == "scalar":
        kind, data = arguments
        return _text(data, found) if (found := _TEXT.fullmatch(_code(kind))) else _numbers(data, kind, (), "C").item()
    if what == "buffer":
        data, kind, shape, order = arguments[:4]
        axes = arguments[4] if len(arguments) > 4 else None
        if not _NUMBER.fullmatch(_code(kind)):
            return _Array()
        values = _numbers(data, kind, _shape(shape), "F" if order == "F" else "C")
        values = values if axes is None else values.transpose(_shape(axes))
        return _Array(values, shape=values.shape)
    if what == "dictionary":
        return _pairs([item for pair in (arguments[0] if arguments else ()) for item in pair])
    if what == "encode" and len(arguments) == 2 and arguments[1] == "latin1":
        return _word(arguments[0]).encode("latin1")
    if what in ("storage", "tensor"):
        return _of_torch(what, arguments)
    if what == "nothing" and not arguments:
        return b""
    raise _NotPlainError("it makes a value in a way that is not NumPy's")


def _of_torch(what: str, arguments: tuple[Any, ...]) -> _Storage | _Array:
    """A tensor of PyTorch, or the storage of one."""
    try:
        if what == "storage":
            return _Storage(read_storage(arguments[0]))
        values = view(arguments[0].values if isinstance(arguments[0], _Storage) else None, *arguments[1:4])
    except ValueError as error:
        raise _NotPlainError(f"it holds {error}") from error
    return _Array(values, shape=values.shape)


def _numbers(data: Any, kind: Any, shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    """An array from its bytes, which must be as many as type and shape ask for."""
    code = _code(kind)
    if not _NUMBER.fullmatch(code) or not isinstance(data, bytes | bytearray):
        raise _NotPlainError(f"it holds a {code[:10]!r} without its bytes, or one that is no number")
    dtype = np.dtype(code)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise _NotPlainError(f"it has {len(data)} bytes for an array {shape} of {dtype}")
    if dtype.kind == "b":  # any byte but 0 and 1 is no truth value that NumPy knows
        return np.not_equal(np.frombuffer(data, dtype=np.uint8), 0).reshape(shape, order=order)
    return np.frombuffer(data, dtype=dtype).reshape(shape, order=order)


def _text(data: Any, kind: re.Match[str]) -> str:
    """A NumPy string."""
    if not isinstance(data, bytes | bytearray):
        raise _NotPlainError("it holds a text without its bytes")
    return data.decode("utf-32-be" if kind["order"] == ">" else "utf-32-le").rstrip("\0")


def _code(kind: Any) -> str:
    if not isinstance(kind, _Type):
        raise _NotPlainError("it states no type of an array")
    return kind.code


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > 32 or any(type(n) is not int or n < 0 for n in shape):
        raise _NotPlainError("it states no shape of an array")
    return shape


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Keys and values, one after the other, as a dictionary; words of Python 2 become those of Python 3."""
    if len(items) % 2:
        raise IndexError
    keys = [_word(key) if isinstance(key, bytes) else key for key in items[::2]]
    for key in keys:
        if not isinstance(key, str | int | float | None):
            raise _NotPlainError(f"it has {_named(key)} as a key")
    return dict(zip(keys, items[1::2], strict=True))


def _word(value: Any) -> str:
    found = value.decode("ascii") if isinstance(value, bytes) else value
    if not isinstance(found, str):
        raise _NotPlainError(f"it has {_named(value)} where a word belongs")
    return found


def _number(value: Any) -> Any:
    if type(value) is int and not -(2**63) <= value < 2**64:
        raise _NotPlainError("it holds a number of more than 64 bits")
    return value


def _value(value: Any, size: int) -> Any:
    """An entry of the dictionary as arrays and plain data, at most one list deep and no larger than the file."""
    if isinstance(value, _Array) and value.values is None:
        value = value.objects[0] if value.objects and not value.shape else value.objects
    if isinstance(value, list | tuple):
        found = [item.values if isinstance(item, _Array) else _plain(item) for item in value]
        return found if sum(_bytes(found)) <= size else None  # one array listed a million times is no data
    return value.values if isinstance(value, _Array) else _plain(value)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bytes | None) else None


def _bytes(items: Iterable[Any]) -> Iterable[int]:
    return (item.nbytes for item in items if isinstance(item, np.ndarray))


def _named(value: Any) -> str:
    """What a value is, in words; never its contents, which may be without end."""
    if isinstance(value, _Array):
        return f"an array {value.shape}"
    if isinstance(value, int):
        return "a number"
    return "a function" if isinstance(value, _Global) else f"a {type(value).__name__.lstrip('_').lower()}"

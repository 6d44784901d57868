"""Tensors of PyTorch inside pickles, as IRN's own code leaves them, as arrays: without PyTorch and its unpickling.

A pickled tensor names its storage, an offset, a size and strides. The storage is a file of ``torch.save`` in the form
before that of zip archives: four pickles and a list of one key, of which the type and the length count here, and behind
them the length again and the numbers.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
from itertools import islice
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
"""The number that such a file begins with."""

_TYPES = {
    "torch DoubleStorage": "<f8", "torch FloatStorage": "<f4", "torch HalfStorage": "<f2", "torch LongStorage": "<i8",
    "torch IntStorage": "<i4", "torch ShortStorage": "<i2", "torch CharStorage": "|i1", "torch ByteStorage": "|u1",
}  # fmt: skip
_LONGEST = 200  # operations of one of the pickles; 60 are usual


def read_storage(content: bytes) -> np.ndarray:
    """The numbers of a storage.

    Args:
        content: As ``torch.save`` wrote it.

    Returns:
        A read-only array (N,).

    Raises:
        ValueError: It is none, or of another type or length than it says.
    """
    file = io.BytesIO(content)
    magic, _, _, about, _ = (list(islice(pickletools.genops(file), _LONGEST)) for _ in range(5))
    counts = ("BININT", "BININT1", "BININT2", "LONG1")
    numbers = [value for operation, value, _ in about if operation.name in counts and value is not None]
    names = [str(argument) for operation, argument, _ in about if operation.name == "GLOBAL"]
    code = _TYPES.get(names[0] if len(names) == 1 else "")
    if MAGIC not in [argument for _, argument, _ in magic] or code is None or len(numbers) != 1:
        raise ValueError(f"no storage of numbers that are read ({', '.join(names)[:40]})")
    (length,), begin = numbers, file.tell()
    dtype = np.dtype(code)
    if struct.unpack_from("<q", content, begin) != (length,) or len(content) - begin - 8 != length * dtype.itemsize:
        raise ValueError("a storage of another length than it says")
    return np.frombuffer(content, dtype=dtype, offset=begin + 8)


def view(storage: Any, offset: Any, size: Any, strides: Any) -> np.ndarray:
    """A tensor as a read-only array over its storage, since many tensors may share one.

    Args:
        storage: From ``read_storage``.
        offset: Of its first number in the storage.
        size: Its shape.
        strides: In numbers, one for each dimension.

    Raises:
        ValueError: These do not fit each other, or the tensor is larger than its storage.
    """
    counts = (*size, *strides, offset) if isinstance(size, tuple) and isinstance(strides, tuple) else (None,)
    if not isinstance(storage, np.ndarray) or any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("a tensor without a storage, a size or strides")
    if len(size) != len(strides) or len(size) > 32 or math.prod(size) > len(storage):
        raise ValueError("a tensor that is larger than its storage")
    last = offset + sum((extent - 1) * stride for extent, stride in zip(size, strides, strict=True))
    if math.prod(size) and last >= len(storage):
        raise ValueError("a tensor that leaves its storage")
    if not math.prod(size):
        return np.zeros(size, dtype=storage.dtype)
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)

"""Pickled dictionaries of arrays, as NumPy 1 and 2 and Python 2 and 3 write them, and crafted ones."""

from __future__ import annotations

import os
import pickle
import random
import struct
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pseudolabel.data.pickled_arrays import read_arrays
from pseudolabel.errors import DatasetError

HINT = "wanted a dictionary of NumPy arrays: save it with numpy.save(path, {name: numpy.asarray(value), ...})"


def npy(path: Path, pickled: bytes) -> Path:
    """An .npy file of one object with this pickle."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickled)
    return path


def boxed(value: Any) -> np.ndarray:
    """What numpy.save pickles of a dictionary: an array of one object."""
    return np.array(value, dtype=object)


def of_numpy_1(pickled: bytes) -> bytes:
    """The same pickle with the module names of NumPy 1, whose lengths stand before them."""
    for module in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        old = module.replace(b"_core", b"core")
        pickled = pickled.replace(bytes([len(module)]) + module, bytes([len(old)]) + old).replace(module, old)
    frame = pickled.find(b"\x95", 0, 3)
    return (
        pickled if frame < 0 else pickled[:frame] + pickled[frame + 9 :]
    )  # of another length now; a frame is optional


VALUES = {
    "maps": np.random.default_rng(0).random((2, 3, 4), dtype=np.float32),
    "half": np.arange(12, dtype=np.float16).reshape(1, 3, 4),
    "mask": np.array([[True, False, True]]),
    "fortran": np.asfortranarray(np.arange(24, dtype=np.float64).reshape(2, 3, 4)),
    "turned": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
    "swapped": np.arange(3, dtype=">i4"),
    "keys": np.array([14, 3]),
    "none": np.zeros((0, 3, 4), dtype=np.float32),
    "objects": np.array([1, "x", None], dtype=object),
    "number": np.float32(0.5),
    "word": np.str_("cat"),
    "list": [np.arange(2), np.arange(3)],
    "plain": [1, 2.5, "x", None, True],
    3: np.ones((2, 2), dtype=np.uint8),
    np.int64(14): np.zeros(2),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("numpy", [1, 2])
@pytest.mark.parametrize("box", [True, False])
def test_what_numpy_writes_is_read(protocol: int, numpy: int, box: bool, tmp_path: Path) -> None:
    pickled = pickle.dumps(boxed(VALUES) if box else VALUES, protocol=protocol)
    found = read_arrays(npy(tmp_path / "x.npy", of_numpy_1(pickled) if numpy == 1 else pickled))
    assert list(found) == list(VALUES)
    for key, wanted in VALUES.items():
        value = found[key]
        if isinstance(wanted, np.ndarray) and wanted.dtype != object:
            assert value.dtype == wanted.dtype
            np.testing.assert_array_equal(value, wanted)
    assert found["objects"] == [1, "x", None]
    assert (found["number"], found["word"]) == (0.5, "cat")
    assert [item.tolist() for item in found["list"]] == [[0, 1], [0, 1, 2]]
    assert found["plain"] == [1, 2.5, "x", None, True]


def test_what_numpy_save_writes_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", OrderedDict(VALUES), allow_pickle=True)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_arrays(tmp_path / "x.npy")["turned"], VALUES["turned"])


def test_python_2_wrote_bytes_where_words_are_now(tmp_path: Path) -> None:
    raw = struct.pack("<2f", 0.5, 200.0)
    pickled = (
        b"\x80\x02}(U\x04camscnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U\x08" + raw + b"tbU\x04keys]K\x07au."
    )
    found = read_arrays(npy(tmp_path / "x.npy", pickled))
    assert found["cams"].tolist() == [0.5, 200.0]
    assert found["keys"] == [7]


def refusal(path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        read_arrays(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("created-by-a-pickle",)


ARRAY = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
TYPE = "cnumpy\ndtype\n(V{}\nI00\nI01\ntR"


@pytest.mark.parametrize(
    ("pickled", "said"),
    [
        (pickle.dumps({"keys": Evil()}), "it names posix.mkdir, and only NumPy arrays are read"),
        (
            f"{ARRAY}(I1\n(I100\nt{TYPE.format('O8')}I00\n(lI1\natb.".encode(),
            "it states the shape (100,) for a list",
        ),
        (
            f"{ARRAY}(I1\n(I100\nt{TYPE.format('f4')}I00\nVabc\ntb.".encode(),
            "it holds a 'f4' without its bytes, or one that is no number",
        ),
        (
            b"\x80\x03(dX\x01\x00\x00\x00a"
            + f"{ARRAY}(I1\n(I3\nt{TYPE.format('f4')}I00\n".encode()
            + b"C\x05abcdetbs.",
            "it has 5 bytes for an array (3,) of float32",
        ),
        (f"{ARRAY}(I1\n(I-1\nt{TYPE.format('f4')}I00\nVabc\ntb.".encode(), "it states no shape of an array"),
        (f"{ARRAY}(I1\n(I1\ntI4\nI00\nVabc\ntb.".encode(), "it states no type of an array"),
        (f"{TYPE.format('f4')}(I3\nVx\nNNNI-1\nI-1\nI0\ntb.".encode(), "it states no byte order of an array"),
        (b"(d(I1\ntb.", "it gives a dict a state of its own"),
        (b"(d(I1\nI2\ntI3\ns.", "it has a tuple as a key"),
        (b"(lI1\nI2\ns.", "it sets a key of a list"),
        (b"(dI1\na.", "it appends to a dict"),
        (b"(dQ.", "it uses the pickle operation BINPERSID, and only arrays and plain data are read"),
        (b")" + b"\x85" * 100_000 + b"V_\n\x93.", "it names no function by words"),
        (b"\x8a\x09" + b"\xff" * 8 + b"\x7f.", "it holds a number of more than 64 bits"),
        (b"]" * 1_000_001 + b".", "it takes more than 1000000 operations"),
        (b"(d", "it is cut or damaged"),
        (b"h\x05.", "it is cut or damaged"),
        (b"a.", "it is cut or damaged"),
        (b"", "it is cut or damaged"),
    ],
)
def test_what_is_no_plain_dictionary_is_one_line(pickled: bytes, said: str, tmp_path: Path) -> None:
    path = npy(tmp_path / "x.npy", pickled)
    assert refusal(path) == f"{path} is not an .npy dictionary of arrays: {said}; {HINT}"


def test_other_values_have_their_names(tmp_path: Path) -> None:
    path = npy(tmp_path / "x.npy", pickle.dumps([1]))
    assert refusal(path) == f"{path} holds a list, not a dictionary of arrays; {HINT}"


def test_what_nests_or_repeats_without_end_is_left_out(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    large = np.zeros(10_000)
    value = {"endless": endless, "deep": [[[1]]], "often": [large] * 100, "complex": np.zeros(2, dtype=complex)}
    found = read_arrays(npy(tmp_path / "x.npy", pickle.dumps(value)))
    assert found == {"endless": [None], "deep": [None], "often": None, "complex": None}


def test_damage_never_ends_otherwise_than_in_one_line(tmp_path: Path) -> None:
    numbers = random.Random(0)
    for protocol in (0, 2, 4, 5):
        whole = pickle.dumps(boxed(VALUES), protocol=protocol)
        for _ in range(200):
            damaged = bytearray(whole)
            for _ in range(numbers.randint(1, 4)):
                damaged[numbers.randrange(len(damaged))] = numbers.randrange(256)
            path = npy(tmp_path / "x.npy", bytes(damaged[: numbers.choice([None, numbers.randrange(len(damaged))])]))
            with suppress(DatasetError):
                read_arrays(path)


def test_tensors_of_pytorch_are_read_as_arrays(tmp_path: Path) -> None:
    """As IRN's make_cam.py writes them: keys and cam are tensors, high_res is an array."""
    whole = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    given: Any = {
        "keys": torch.nonzero(torch.tensor([0, 1, 0, 1]))[:, 0],
        "cam": whole,
        "high_res": whole.numpy(),
        "turned": whole.transpose(1, 2)[:, 1:],  # a view with an offset and strides
        "half": whole.half(),
        "repeated": torch.ones(3)[1:2].expand(3),
        "none": torch.zeros((0, 3)),
        "number": torch.tensor(7, dtype=torch.uint8),
    }
    np.save(tmp_path / "a.npy", given, allow_pickle=True)
    found = read_arrays(tmp_path / "a.npy")
    assert found.keys() == given.keys()
    for name, value in given.items():
        assert found[name].dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(found[name], np.asarray(value), err_msg=name)


@pytest.mark.parametrize("value", [torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2).requires_grad_(), nn.ReLU()])
def test_what_is_no_plain_tensor_is_one_line(value: Any, tmp_path: Path) -> None:
    given: Any = {"cam": nn.Parameter(torch.zeros(2)) if getattr(value, "requires_grad", False) else value}
    np.save(tmp_path / "a.npy", given, allow_pickle=True)
    assert refusal(tmp_path / "a.npy").endswith(HINT)


def test_a_damaged_tensor_is_read_or_one_line(tmp_path: Path) -> None:
    given: Any = {"cam": torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)}
    np.save(tmp_path / "a.npy", given, allow_pickle=True)
    whole, rng = (tmp_path / "a.npy").read_bytes(), random.Random(0)
    for _ in range(2000):
        content = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            content[rng.randrange(len(content))] = rng.choice((0, 1, 2, 127, 255, rng.randrange(256)))
        (tmp_path / "a.npy").write_bytes(content)
        with suppress(DatasetError):
            found = read_arrays(tmp_path / "a.npy")
            assert sum(value.nbytes for value in found.values() if isinstance(value, np.ndarray)) <= len(whole)

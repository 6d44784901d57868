"""Files that hold what cannot be, with digest and seal right: each is refused in one line that names file and key."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from pseudolabel.artefacts import MapsReader, open_artefact, probe
from pseudolabel.cli.app import main
from pseudolabel.errors import ArtefactError
from tests.helpers import kinds

NAN, INF = float("nan"), float("inf")
IDS = "images/id"

IMPOSSIBLE: list[tuple[str, str, object, str]] = [
    ("cams", "classes/name", ["background", "cat", "cat"], "'classes/name' has 'cat' twice"),
    ("cams", "classes/name", ["background", "", "cat"], "'classes/name' has an empty name"),
    ("cams", "classes/name", np.arange(3), "'classes/name' holds int64, wanted strings"),
    ("cams", IDS, ["a", "b", "a"], "'images/id' has 'a' twice"),
    ("cams", IDS, ["a", "b", "A"], "'images/id' has 'a' and 'A', which are alike"),
    ("cams", IDS, ["\u00e4", "b", "a\u0308"], "'images/id' has 'ä' and 'a\u0308', which are alike"),
    ("cams", IDS, ["a", "b", "../c"], "'images/id' has '../c', which is no name of an image in a folder"),
    ("cams", IDS, ["a", "b", ""], "'images/id' has '', which is no name of an image in a folder"),
    ("cams", IDS, ["a", "b"], "'images/height' has 3 entries for 2 images, wanted 2"),
    ("cams", "images/height", [4, -5, 6], "'images/height' holds -5, wanted 0 to 1.78957e+08"),
    ("cams", "images/height", [4.0, 5.0, 6.0], "'images/height' holds float64, wanted integers"),
    (
        "cams",
        "images/width",
        [8, 7, 100_000_000],
        "'images/height' has image 2 of 6 x 100000000 pixels, wanted at most ",
    ),
    (
        "cams",
        "images/width",
        [8, 7, 6000],
        "'maps/height' does not fit 'images/height': map 1 is 3 x 2, its image 6 x ",
    ),
    ("cams", "maps/image", [0, 2, 3], "'maps/image' holds 3 for 3 images"),
    ("cams", "maps/image", [0, -1, 2], "'maps/image' holds -1, wanted at least 0"),
    ("cams", "maps/class", [1, 3, 1], "'maps/class' holds 3 for 3 classes"),
    ("cams", "maps/class", [0, 2, 1], "'maps/class' holds 0 for 3 classes"),
    ("cams", "maps/class", [1, 2, 2], "'maps/class' has class 2 twice for image 2"),
    ("cams", "maps/height", [2, 0, 3], "'maps/height' holds 0, wanted 1 to 1.78957e+08"),
    ("cams", "maps/width", [2, 3, 3], "'maps/offset' gives map 1 6 values but it is 3 x 3"),
    ("cams", "maps/values", np.zeros(19, np.int64), "'maps/values' holds int64, wanted float16 or float32 or uint8"),
    ("masks", "maps/values", np.zeros(103, np.float16), "'maps/values' holds float16, wanted uint8"),
    ("masks", "maps/image", [0, 1, 1], "'maps/image' has image 1 twice; masks have one map an image"),
    (
        "masks",
        "images/height",
        [5, 5, 6],
        "'maps/height' does not fit 'images/height': map 0 is 4 x 8, its image 5 x 8",
    ),
    ("regions", "regions/image", [0, 2, 0], "'regions/image' does not ascend"),
    ("regions", "regions/image", [0, 0, 3], "'regions/image' holds 3 for 3 images"),
    ("regions", "regions/area", [8, 0, 6], "'regions/area' holds 0, wanted 1 to 1.78957e+08"),
    ("regions", "regions/score", [0.5, 0.5], "'regions/score' has 2 entries for 3 regions, wanted 3"),
    ("regions", "regions/score", [0.5, -0.5, 1.0], "'regions/score' holds -0.5, wanted at least 0"),
    ("regions", "regions/class", [3, 255, 255], "'regions/class' holds 3 for 3 classes"),
    ("regions", "regions/box", np.ones((3, 3)), "'regions/box' has 3 entries, wanted 4"),
    ("regions", "regions/box", np.ones((3, 4)), "'regions/box' has no extent for region 0"),
    ("regions", "regions/prompt", [1, 2, 3], "'regions/prompt' holds int64, wanted strings"),
    ("regions", "runs/offset", [0, 3, 7, 8], "'runs/offset' does not go from 0 to the 9 values of 'runs/length'"),
    ("regions", "runs/offset", [0, 3, 2, 9], "'runs/offset' gives region 1 fewer than two runs"),
    ("regions", "runs/length", np.zeros(9), "'runs/length' holds float64, wanted integers"),
    ("regions", "images/width", [8, 7, 100_000_000], "'images/height' has image 2 of 6 x 100000000 pixels, wanted at"),
    ("thresholds", "thresholds/value", [0, 0.4, NAN], "'thresholds/value' holds NaN for an object class"),
    ("thresholds", "thresholds/value", [0, 0.4, 1.5], "'thresholds/value' holds 1.5, wanted 0 to 1"),
    ("thresholds", "thresholds/value", [0, 0.4], "'thresholds/value' has 2 entries for 3 classes, wanted 3"),
    ("thresholds", "thresholds/high", [0, 0.4, INF], "'thresholds/high' holds infinity"),
    (
        "thresholds",
        "thresholds/low",
        [0, 0.5, 0.5],
        "'thresholds/low' 'thresholds/value' and 'thresholds/high' do not ",
    ),
    (
        "thresholds",
        "thresholds/low",
        [0, 0.1, NAN],
        "'thresholds/low' holds NaN for some of the object classes and not",
    ),
    ("thresholds", "thresholds/low", ["a", "b", "c"], "'thresholds/low' holds |S1, wanted floats"),
    ("crf-search", "trials/criterion", [0.5, 2.0], "'trials/criterion' holds 2.0, wanted 0 to 1"),
    ("crf-search", "trials/criterion", [0.5], "'trials/criterion' has 1 entries, wanted 2"),
    ("scores", "confusion", np.eye(2), "'confusion' has 2 entries for 3 classes, wanted 3"),
    ("scores", "confusion", -np.eye(3), "'confusion' holds -1.0, wanted at least 0"),
    ("scores", "images/miou", [0.5], "'images/miou' has 1 entries for 2 images, wanted 2"),
    ("checkpoint", "weights/head.weight", ["a"], "'weights/head.weight' holds |S1, wanted numbers"),
    ("checkpoint", "threshold/low", [0.1], "'threshold/low' has shape (1,), wanted one value"),
    ("training-state", "step", -1, "'step' holds -1, wanted at least 0"),
    ("training-state", "step", 0.5, "'step' holds float64, wanted integers"),
]


def put(file: h5py.File, name: str, values: object) -> None:
    if name in file:
        del file[name]
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.dtype.kind == "U":
        raw = [text.encode() for text in values]  # type: ignore[attr-defined]
        array = np.array(raw, dtype=h5py.string_dtype("utf-8", max(1, *map(len, raw), 1)))
    file[name] = array


@pytest.mark.parametrize(("kind", "name", "values", "said"), IMPOSSIBLE)
def test_what_cannot_be_is_refused(
    kind: str, name: str, values: object, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = kinds.make(kind, tmp_path / "x.h5")
    with kinds.edited(path) as file:
        if name == "images/miou":
            put(file, "images/id", ["a", "b"])
        put(file, name, values)
    assert main(["inspect", str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {path}: {said}")
    assert shown.err.endswith("; make it again\n")
    assert len(shown.err.splitlines()) == 1


@pytest.mark.parametrize("wrong", [NAN, INF, -0.5, 1.5])
def test_values_out_of_range_are_refused_where_they_are_read(wrong: float, tmp_path: Path) -> None:
    path = kinds.make("cams", tmp_path / "x.h5")
    with kinds.edited(path) as file:
        file["maps/values"][5] = wrong
    with open_artefact(path) as artefact, pytest.raises(ArtefactError) as caught:
        MapsReader(artefact).maps(2)
    assert str(caught.value) == f"{path}: map 1 in 'maps/values' holds {wrong}, wanted 0 to 1; make it again"


def test_labels_of_no_class_are_refused_where_they_are_read(tmp_path: Path) -> None:
    path = kinds.make("masks", tmp_path / "x.h5")
    with kinds.edited(path) as file:
        file["maps/values"][0] = 3
    with open_artefact(path) as artefact, pytest.raises(ArtefactError) as caught:
        MapsReader(artefact).labels(0)
    said = "map 0 in 'maps/values' holds 3, wanted a class below 3 or 255; make it again"
    assert str(caught.value) == f"{path}: {said}"


def test_zero_with_a_sign_is_a_share(tmp_path: Path) -> None:
    path = kinds.make("cams", tmp_path / "x.h5")
    with kinds.edited(path) as file:
        file["maps/values"][0] = -0.0
    with open_artefact(path) as artefact:
        assert MapsReader(artefact).maps(0)[1][0, 0] == 0


# Small files that declare much


def declare(path: Path, name: str, length: int, **how: object) -> None:
    with kinds.edited(path) as file:
        kind = file[name].dtype
        del file[name]
        file.create_dataset(name, shape=(3,), maxshape=(None,), dtype=kind, chunks=(65536,), **how)
        file[name][:] = [b"a", b"b", b"c"] if kind.kind == "S" else 1
    with h5py.File(path, "r+") as file:
        file[name].resize((length,))


@pytest.mark.parametrize("name", ["images/id", "maps/offset", "classes/name"])
@pytest.mark.parametrize("how", [{}, {"compression": "gzip"}])
def test_what_is_declared_must_be_stored(name: str, how: dict[str, object], tmp_path: Path) -> None:
    path = kinds.make("cams", tmp_path / "x.h5")
    declare(path, name, 1 << 28, **how)
    start = time.perf_counter()
    with pytest.raises(ArtefactError) as caught, open_artefact(path):
        pass
    assert time.perf_counter() - start < 2
    said = str(caught.value)
    assert said == f"{path}: {name!r} declares 4096 chunks but 1 are stored; make it again" or "wanted" in said


def test_much_that_was_compressed_to_little_is_refused(tmp_path: Path) -> None:
    path = kinds.make("checkpoint", tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        zeros = np.zeros(1 << 27, np.uint8)
        file.create_dataset("images/id", data=zeros.view("S128"), chunks=(1 << 16,), compression="gzip")
    said = r"'images/id' declares 134217728 bytes, which [0-9]+ stored ones cannot hold"
    with pytest.raises(ArtefactError, match=said), open_artefact(path):
        pass


# Damage


def heap_of(path: Path) -> int:
    return path.read_bytes().index(b"GCOL")


def damaged_heap(path: Path) -> Path:
    """Version 1 with a free space of no length in the heap of its attributes, on which HDF5 runs for ever."""
    shutil.copy(Path(__file__).parent / "version_1" / "thresholds.h5", path)
    data = bytearray(path.read_bytes())
    place = heap_of(path) + 16
    data[place : place + 16] = bytes(16)
    path.write_bytes(data)
    return path


def test_a_heap_on_which_hdf5_never_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SECONDS", 3)
    path = damaged_heap(tmp_path / "loop.h5")
    start = time.perf_counter()
    assert main(["inspect", str(path)]) == 2
    assert time.perf_counter() - start < 10
    assert capsys.readouterr().err == (f"error: {path} is damaged (HDF5 cannot read its attributes); make it again\n")


def test_a_file_of_older_hdf5_opens(tmp_path: Path) -> None:
    """As programs write by default whose metadata have no checksums: it is tried in another process first."""
    new, old = kinds.make("cams", tmp_path / "new.h5"), tmp_path / "old.h5"
    with h5py.File(new) as source, h5py.File(old, "w", libver=("earliest", "v108")) as target:
        target.attrs.update(source.attrs)
        source.visititems(lambda name, item: put(target, name, item[()]) if isinstance(item, h5py.Dataset) else None)
    assert old.read_bytes()[8] == 0
    with open_artefact(old, "cams") as artefact:
        assert len(MapsReader(artefact)) == 3


@pytest.mark.parametrize("kind", list(kinds.STAGES))
def test_every_dataset_lies_under_a_checksum(kind: str, tmp_path: Path) -> None:
    path = kinds.make(kind, tmp_path / "x.h5")
    found: dict[str, bool] = {}

    def look(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            compact = item.id.get_create_plist().get_layout() == h5py.h5d.COMPACT
            found[name] = compact or item.fletcher32 or item.compression == "gzip"

    with h5py.File(path) as file:
        file.visititems(look)
        loose = [name for name in file.attrs if file.attrs.get_id(name).dtype.kind == "O"]
    assert all(found.values())
    assert loose == []
    assert b"GCOL" not in path.read_bytes()


def test_weights_that_were_overwritten_on_disk_are_found(tmp_path: Path) -> None:
    arrays = kinds.ARRAYS["checkpoint"] | {"weights/large": np.random.default_rng(0).random(1 << 19)}
    path = kinds.make("checkpoint", tmp_path / "x.h5", arrays=arrays)
    with h5py.File(path) as file:
        assert file["weights/large"].fletcher32
        place = file["weights/large"].id.get_chunk_info(0).byte_offset
    with path.open("rb+") as handle:
        handle.seek(place + 1000)
        handle.write(b"\0\1")
    with open_artefact(path) as artefact, pytest.raises(OSError, match="filter returned failure"):
        artefact.file["weights/large"][:]
    assert main(["inspect", str(path), "--verify"]) == 2


def test_what_a_reader_needs_and_does_not_find_is_named(tmp_path: Path) -> None:
    path = kinds.make("training-state", tmp_path / "x.h5")
    with pytest.raises(ArtefactError) as caught, open_artefact(path) as artefact:
        artefact.file["random/cpu"][:]
    assert (
        str(caught.value)
        == f"{path} is damaged ('Unable to synchronously open object (component not found)'); make it again"
    )


def test_headers_may_be_long(tmp_path: Path) -> None:
    names = [f"image {index}" for index in range(100_000)]
    path = kinds.make("checkpoint", tmp_path / "x.h5", facts=kinds.FACTS["checkpoint"] | {"held_out": names})
    with open_artefact(path) as artefact:
        assert artefact.header.facts["held_out"] == names

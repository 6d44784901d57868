"""The artefact format: every kind round, every broken file refused in one line, kills and full disks survived."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import h5py
import kinds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pseudolabel.artefacts import (
    Header,
    Images,
    Input,
    MapsReader,
    MapsWriter,
    StalePartialError,
    check_output,
    child_header,
    data_digest,
    open_artefact,
    partial_path,
    read_header,
    write_artefact,
)
from pseudolabel.artefacts.checks import REQUIRED
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.journal import Journal
from pseudolabel.artefacts.maps import enlarge
from pseudolabel.errors import ArtefactError, DatasetError, InputError
from pseudolabel.options import build_options


def complaint(path: Path, *wanted: str) -> str:
    """What opening a file says, without its folder."""
    with pytest.raises(ArtefactError) as caught, open_artefact(path, *wanted):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.fixture
def cams(tmp_path: Path) -> Path:
    return kinds.make("cams", tmp_path / "cams.h5")


# Round trips


@pytest.mark.parametrize("kind", list(REQUIRED))
def test_every_kind_survives_the_round_trip(kind: str, tmp_path: Path) -> None:
    path = kinds.make(kind, tmp_path / "x.h5")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.h5"]
    with open_artefact(path, kind) as artefact:
        written, found = kinds.header(kind), artefact.header
        stamped = ("environment", "cost", "digest", "created", "version")
        for field in fields(Header):
            if field.name not in stamped:
                assert getattr(found, field.name) == getattr(written, field.name), field.name
        assert all(getattr(found, name) for name in stamped)
        assert found.cost["images"] == 3
        assert data_digest(artefact.file) == found.digest
        for name in REQUIRED[kind]:
            assert name in artefact.file
        for name, array in kinds.ARRAYS.get(kind, {}).items():
            stored = artefact.file[name][()]
            np.testing.assert_array_equal(stored, array)
            assert stored.dtype == array.dtype
        if kind in kinds.MAPS:
            reader = MapsReader(artefact)
            assert reader.images.ids == kinds.IMAGES.ids
            np.testing.assert_array_equal(reader.images.heights, kinds.IMAGES.heights)
            np.testing.assert_array_equal(reader.images.widths, kinds.IMAGES.widths)
            for index, maps in enumerate(kinds.MAPS[kind]):
                read = reader.maps(index)
                assert read.keys() == maps.keys()
                for label, array in maps.items():
                    np.testing.assert_array_equal(read[label], array)
                    assert read[label].dtype == array.dtype


ragged = st.lists(
    st.dictionaries(
        st.integers(1, 20),
        arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9)),
        max_size=4,
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=25)
@given(maps=ragged)
def test_ragged_maps_of_any_shape_survive(
    maps: list[dict[int, np.ndarray]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ragged") / "x.h5"
    sizes = np.full(len(maps), 9, np.int32)
    images = Images(tuple(map(str, range(len(maps)))), sizes, sizes)
    with MapsWriter(path, kinds.header("soft-labels"), images, dtype="uint8") as writer:
        for index in reversed(range(len(maps))):  # the order of adding is the caller's business
            writer.add(index, maps[index])
    with open_artefact(path) as artefact:
        reader = MapsReader(artefact)
        assert len(reader) == len(maps)
        for index, wanted in enumerate(maps):
            found = reader.maps(index)
            assert found.keys() == wanted.keys()
            for label, array in wanted.items():
                np.testing.assert_array_equal(found[label], array)


def test_values_cross_chunks_and_commits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 255, (int(h), int(w)), dtype=np.uint8) for h, w in rng.integers(100, 400, (12, 2))]
    sizes = np.array([array.shape for array in maps], np.int32)
    images = Images(tuple(map(str, range(12))), sizes[:, 0], sizes[:, 1])
    with MapsWriter(tmp_path / "x.h5", kinds.header("masks"), images, dtype="uint8") as writer:
        for index, array in enumerate(maps):
            writer.add(index, array)
            writer.commit()
    with open_artefact(tmp_path / "x.h5", "masks") as artefact:
        assert artefact.file["maps/values"].chunks == (65536,)
        assert artefact.file["maps/values"].shape == (sum(array.size for array in maps),)
        reader = MapsReader(artefact)
        for index, array in enumerate(maps):
            np.testing.assert_array_equal(reader.labels(index), array)


def test_skipped_images_and_their_reasons_are_kept(tmp_path: Path) -> None:
    with MapsWriter(tmp_path / "x.h5", kinds.header("masks"), kinds.IMAGES, dtype="uint8") as writer:
        writer.skip(0, "a.jpg is truncated")
        writer.add(1, np.zeros((5, 7)))
        writer.skip(2, "ü.jpg is empty")
        assert [name for name, _ in writer.skipped] == ["a", "ü"]
    with open_artefact(tmp_path / "x.h5") as artefact:
        reader = MapsReader(artefact)
        assert reader.skipped == {"a": "a.jpg is truncated", "ü": "ü.jpg is empty"}
        with pytest.raises(ArtefactError, match="image 'a' has no mask; make it again"):
            reader.labels(0)


def test_an_artefact_of_which_every_image_was_skipped_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    writer = MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16")
    for index, name in enumerate("abc"):
        writer.skip(index, f"{name}.jpg is empty")
    with pytest.raises(DatasetError) as caught, writer:
        pass
    assert str(caught.value) == f"none of the 3 images could be used, so {out} is not made; the first: a.jpg is empty"
    assert list(tmp_path.iterdir()) == []  # the next run looks at all of them again


def test_full_size_maps_are_shares_at_image_size(cams: Path, tmp_path: Path) -> None:
    with open_artefact(cams) as artefact:
        reader = MapsReader(artefact)
        labels, maps = reader.full_size(2)
        assert labels.tolist() == [1, 2]
        assert maps.shape == (2, 6, 6)
        assert maps.dtype == np.float32
        np.testing.assert_allclose(maps[1], 0.75)
        labels, maps = reader.full_size(1)
        assert labels.shape == (0,)
        assert maps.shape == (0, 5, 7)
    with open_artefact(kinds.make("soft-labels", tmp_path / "soft.h5")) as artefact:
        labels, maps = MapsReader(artefact).full_size(0)
        np.testing.assert_allclose(maps[:, 0, 0], [200 / 255, 55 / 255], rtol=1e-6)


def test_enlarging_aligns_pixel_centres() -> None:
    # Centres of the small row lie at 0.5 and 1.5 of 2, thus at 1 and 3 of 4; beyond them the edge value holds.
    found = enlarge(np.array([[0.0, 1.0]], np.float32), (1, 4))
    np.testing.assert_allclose(found, [[0, 0.25, 0.75, 1]])


# The digest


def test_the_digest_does_not_see_chunks_or_compression(cams: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    with h5py.File(cams) as source, h5py.File(other, "w") as target:
        target.attrs.update(source.attrs)
        for name in ("images", "maps", "classes"):
            for key, dataset in source[name].items():
                chunks = (1,) if len(dataset) else None
                target.create_dataset(f"{name}/{key}", data=dataset[:], dtype=dataset.dtype, chunks=chunks)
        assert data_digest(source) == data_digest(target) == source.attrs["digest"]


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file["maps/values"].__setitem__(0, 0.125),
        lambda file: file["images/id"].__setitem__(0, b"z"),
        lambda file: file.attrs.__setitem__("ignore-value", 254),
        lambda file: file.attrs.__setitem__("facts", "{}"),
        lambda file: file.create_dataset("extra", data=[1]),
        lambda file: file.move("maps/class", "maps/label"),
    ],
)
def test_the_digest_sees_every_change_of_the_data(change, cams: Path) -> None:
    with h5py.File(cams, "r+") as file:
        before = data_digest(file)
        change(file)
        assert data_digest(file) != before


def test_the_digest_does_not_see_when_or_where_it_was_made(tmp_path: Path) -> None:
    first = kinds.make("cams", tmp_path / "first.h5")
    second = kinds.make("cams", tmp_path / "second.h5", options={"out": "elsewhere"}, environment={"python": "4"})
    assert read_header(first).digest == read_header(second).digest


# Files that are not what they should be


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert complaint(tmp_path / "no.h5", "cams") == "no.h5 does not exist; wanted cams artefact"
    (tmp_path / "folder").mkdir()
    assert complaint(tmp_path / "folder") == "folder is a folder, not an artefact; wanted a pseudolabel artefact"


@pytest.mark.parametrize("content", [b"", b"just text\n", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_a_file_of_another_format(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    assert complaint(path, "cams", "masks") == "x.h5 is not an HDF5 file; wanted cams or masks artefact"


def test_an_hdf5_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["data"] = [1, 2]
    wanted = "x.h5 is an HDF5 file of another program (no encoding-type); wanted a pseudolabel artefact"
    assert complaint(path) == wanted
    with h5py.File(path, "r+") as file:
        file.attrs["encoding-type"] = "anndata"
    assert complaint(path) == wanted


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_truncated_file(share: float, cams: Path) -> None:
    os.truncate(cams, int(cams.stat().st_size * share))
    assert complaint(cams) == "cams.h5 is truncated (make it again); wanted a pseudolabel artefact"


def edit(path: Path, attribute: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = value


def test_a_newer_and_an_older_version(cams: Path) -> None:
    edit(cams, "encoding-version", 2)
    newer = "cams.h5 has format version 2, newer than this pseudolabel reads: upgrade it (supported: 1)"
    assert complaint(cams) == newer
    edit(cams, "encoding-version", 0)
    assert complaint(cams) == "cams.h5 has format version 0, not supported (supported: 1)"


def test_another_kind(cams: Path) -> None:
    wanted = "cams.h5 holds cams (made by make-cams); wanted masks artefact"
    assert complaint(cams, "masks") == wanted
    edit(cams, "encoding-type", "pseudolabel/scribbles")
    assert complaint(cams).startswith("cams.h5 holds 'scribbles', which is no known kind; known: cams, soft-labels, ")


def test_a_file_without_a_digest_was_never_finished(cams: Path) -> None:
    with h5py.File(cams, "r+") as file:
        del file.attrs["digest"]
    assert complaint(cams) == "cams.h5 was never finished (it has no digest); run 'make-cams' again"


def test_a_half_finished_file_says_so(tmp_path: Path) -> None:
    out = tmp_path / "cams.h5"
    with pytest.raises(KeyboardInterrupt), MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16"):
        raise KeyboardInterrupt
    said = "cams.h5.partial is half-finished (run its stage again); wanted a pseudolabel artefact"
    assert complaint(partial_path(out)) == said


@pytest.mark.parametrize("attribute", ["options", "inputs", "protocol", "facts", "cost"])
def test_an_attribute_that_is_missing_or_no_json(attribute: str, cams: Path) -> None:
    edit(cams, attribute, "{")
    assert complaint(cams) == f"cams.h5: attribute {attribute!r} is missing or not JSON; make it again"
    with h5py.File(cams, "r+") as file:
        del file.attrs[attribute]
    assert complaint(cams) == f"cams.h5: attribute {attribute!r} is missing or not JSON; make it again"


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("seed", "three"), ("encoding-version", "one"), ("inputs", "[3]"), ("inputs", '[{"a": 1}]')],
)
def test_an_attribute_of_the_wrong_type(attribute: str, value: str, cams: Path) -> None:
    edit(cams, attribute, value)
    assert complaint(cams).startswith("cams.h5 is damaged (")


@pytest.mark.parametrize("kind", list(REQUIRED))
def test_a_missing_dataset_is_named(kind: str, tmp_path: Path) -> None:
    for name in (*REQUIRED[kind], "classes/name"):
        path = kinds.make(kind, tmp_path / f"{name.replace('/', '-')}.h5")
        with h5py.File(path, "r+") as file:
            del file[name]
        assert complaint(path) == f"{path.name}: {name!r} is missing from this {kind} artefact; make it again"


def broken_links(file: h5py.File, outside: Path) -> dict[str, tuple[object, str]]:
    return {
        "external link": (
            h5py.ExternalLink(outside, "/maps/values"),
            "is an external link; files with links are refused",
        ),
        "soft link": (h5py.SoftLink("/maps/offset"), "is a soft link; files with links are refused"),
    }


@pytest.mark.parametrize("which", ["external link", "soft link"])
@pytest.mark.parametrize("name", ["maps/values", "classes/name", "elsewhere"])
def test_links_are_refused_before_they_are_followed(which: str, name: str, cams: Path, tmp_path: Path) -> None:
    outside = kinds.make("cams", tmp_path / "outside.h5")
    with h5py.File(cams, "r+") as file:
        link, said = broken_links(file, outside)[which]
        if name in file:
            del file[name]
        file[name] = link
    outside.unlink()  # following the link would now fail in another way
    assert complaint(cams) == f"cams.h5: {name!r} {said}"


def replace(path: Path, name: str, **how: object) -> None:
    with h5py.File(path, "r+") as file:
        data = file[name][:]
        del file[name]
        file.create_dataset(name, data=data, **how)


def test_data_in_another_file_is_refused(cams: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.raw"
    replace(cams, "maps/values", external=[(str(values), 0, h5py.h5f.UNLIMITED)])
    said = "cams.h5: the data of 'maps/values' lie in another file; such files are refused"
    assert complaint(cams) == said
    with h5py.File(cams, "r+") as file:
        shape, dtype = file["maps/values"].shape, file["maps/values"].dtype
        del file["maps/values"]
        layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
        layout[:] = h5py.VirtualSource("outside.h5", "maps/values", shape=shape)
        file.create_virtual_dataset("maps/values", layout)
    assert complaint(cams) == said


def test_a_filter_that_not_every_build_has_is_refused(cams: Path) -> None:
    replace(cams, "maps/values", compression="lzf")
    said = "cams.h5: 'maps/values' uses HDF5 filter 32000; only gzip, shuffle, fletcher32 are read"
    assert complaint(cams) == said


def test_groups_that_contain_themselves_are_refused(cams: Path) -> None:
    with h5py.File(cams, "r+") as file:
        file["maps/loop"] = file["maps"]
    assert "lies more than 16 groups deep; such files are refused" in complaint(cams)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("maps/offset", [0, 4, 13], "'maps/offset' has 3 entries for 3 maps, wanted 4"),
        ("maps/height", [2, 3], "'maps/height' has 2 entries for 3 maps, wanted 3"),
        ("maps/class", [[1, 2, 1]], "'maps/class' has shape (1, 3), wanted one dimension"),
        ("maps/offset", [0, 4, 10, 18], "'maps/values' has 19 values, 'maps/offset' says 18"),
    ],
)
def test_inconsistent_maps_are_refused_at_opening(name: str, values: list[int], said: str, cams: Path) -> None:
    with h5py.File(cams, "r+") as file:
        del file[name]
        file[name] = np.array(values)
    assert complaint(cams) == f"cams.h5: {said}; make it again"


@pytest.mark.parametrize("offset", [[0, 5, 10, 19], [1, 4, 10, 19], [0, -2, 10, 19]])
def test_offsets_that_do_not_fit_the_sizes_are_refused_at_reading(offset: list[int], cams: Path) -> None:
    with h5py.File(cams, "r+") as file:
        file["maps/offset"][:] = offset
    with (
        open_artefact(cams) as artefact,
        pytest.raises(ArtefactError, match=r"map 0 has .* values by 'maps/offset' but is 2 x 2"),
    ):
        MapsReader(artefact).maps(0)


def test_values_that_were_overwritten_on_disk_are_named(tmp_path: Path) -> None:
    sizes = np.array([300], np.int32)
    path, noise = tmp_path / "x.h5", np.random.default_rng(0).integers(0, 255, (300, 300), dtype=np.uint8)
    with MapsWriter(path, kinds.header("masks"), Images(("a",), sizes, sizes), dtype="uint8") as writer:
        writer.add(0, noise)
    with h5py.File(path) as file:
        place = file["maps/values"].id.get_chunk_info(0).byte_offset
    with path.open("rb+") as handle:
        handle.seek(place)
        handle.write(bytes(1000))
    with open_artefact(path) as artefact, pytest.raises(ArtefactError, match="map 0 in 'maps/values' is damaged"):
        MapsReader(artefact).labels(0)


def test_any_damaged_byte_is_an_artefact_error_or_harmless(cams: Path) -> None:
    """No damage of the file may look like a bug of the program."""
    good, rng = cams.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(rng.choice((1, 8, 200))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        cams.write_bytes(damaged)
        try:
            with open_artefact(cams) as artefact:
                reader = MapsReader(artefact)
                for index in range(len(reader)):
                    reader.maps(index)
        except ArtefactError:
            refused += 1
    assert refused > 100


# Writing


def test_a_finished_artefact_is_only_replaced_when_asked(cams: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        check_output(cams, overwrite=False)
    assert str(caught.value) == f"{cams} exists already; pass --overwrite to replace it, or another --out"
    check_output(tmp_path / "new" / "folder" / "x.h5", overwrite=False)
    assert (tmp_path / "new" / "folder").is_dir()


def begin(out: Path, count: int, *, seed: int = 0, **changes: object) -> MapsWriter:
    """A writer that has added the first images' maps and committed them."""
    options = build_options("make-cams", {"checkpoint": "cam.h5", "out": out, "seed": seed}).resolved()
    writer = MapsWriter(out, kinds.header("cams", options=options, **changes), kinds.IMAGES, dtype="float16")
    for index in range(count):
        writer.add(index, kinds.MAPS["cams"][index])
    writer.commit()
    writer._journal.close()
    return writer


def test_work_begun_with_other_options_is_refused_and_the_option_named(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    begin(out, 1)
    hint = "pass --overwrite to start anew, or another --out"
    with pytest.raises(StalePartialError) as caught:
        begin(out, 1, seed=4)
    assert str(caught.value) == f"{out}.partial was begun with another --seed (0, now 4); {hint}"
    with pytest.raises(StalePartialError) as caught:
        begin(out, 1, inputs=(Input("dataset", "/data/voc", "cd" * 32),))
    assert str(caught.value) == f"{out}.partial was begun with another input (dataset differ by digest); {hint}"
    assert begin(out, 0).done == 1


def test_work_begun_on_other_images_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    begin(out, 1)
    options = build_options("make-cams", {"checkpoint": "cam.h5", "out": out}).resolved()
    images = Images(kinds.IMAGES.ids[:2], kinds.IMAGES.heights[:2], kinds.IMAGES.widths[:2])
    with pytest.raises(StalePartialError, match="was begun with another list of images"):
        MapsWriter(out, kinds.header("cams", options=options), images, dtype="float16")


def test_a_moved_input_is_no_change(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    begin(out, 2)
    assert begin(out, 0, inputs=(Input("dataset", "/moved/voc", "ab" * 32),)).done == 2


def test_overwriting_forgets_the_half_finished_work(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    begin(out, 2)
    writer = MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16", overwrite=True)
    assert writer.done == 0


def test_two_runs_cannot_write_the_same_artefact(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    first = MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16")
    with pytest.raises(InputError) as caught:
        MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16")
    assert str(caught.value) == f"{out}.partial is being written by another run; wait for it, or choose another --out"
    assert first.done == 0


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_record_that_was_cut_short_is_dropped(cut: int, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "x.partial")
    for number in range(3):
        journal.append({"number": number}, [b"some bytes", b""])
    journal.close()
    os.truncate(tmp_path / "x.partial", (tmp_path / "x.partial").stat().st_size - cut)
    journal = Journal(tmp_path / "x.partial")
    assert list(journal.records()) == [({"number": n}, [b"some bytes", b""]) for n in range(2)]
    journal.append({"number": "again"})
    assert journal.record(2) == ({"number": "again"}, [])


def test_a_damaged_last_record_is_dropped_and_an_earlier_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    journal = Journal(path)
    ends = []
    for number in range(3):
        journal.append({"number": number}, [b"0123456789"])
        ends.append(path.stat().st_size)
    journal.close()
    with path.open("rb+") as handle:
        for end in (ends[0], ends[2]):
            handle.seek(end - 4)
            handle.write(b"?")
    journal = Journal(path)
    assert len(journal) == 2
    with pytest.raises(InputError, match="is damaged at byte 22; pass --overwrite to start anew"):
        journal.record(0)


def test_a_partial_file_that_is_no_journal_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "x.h5.partial").write_bytes(b"something else")
    with MapsWriter(tmp_path / "x.h5", kinds.header("cams"), kinds.IMAGES, dtype="float16") as writer:
        assert writer.done == 0


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from pseudolabel.artefacts import Images, MapsWriter
sys.path.insert(0, {tests!r})
import kinds

sizes = np.full(3000, 60, np.int32)
images = Images(tuple(map(str, range(3000))), sizes, sizes)
options = dict(checkpoint="cam.h5", seed=0)
with MapsWriter(Path(sys.argv[1]), kinds.header("cams", options=options), images, dtype="float16") as writer:
    print(writer.done, flush=True)
    for index in range(writer.done, 3000):
        rng = np.random.default_rng(index)
        writer.add(index, {{1: rng.random((30, 30)), 2: rng.random((20, 40)) > 0.5}})
"""


def write_in_process(out: Path, **how: object) -> subprocess.Popen[str]:
    code = WRITER.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("uninterrupted") / "x.h5"
    assert write_in_process(out).wait(60) == 0
    return read_header(out).digest


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_and_ends_with_the_same_digest(
    kill: signal.Signals, uninterrupted: str, tmp_path: Path
) -> None:
    """Kills at any moment: while values are made, while a record is written, while the HDF5 file is finished."""
    out, begun, rng = tmp_path / "x.h5", [], random.Random(int(kill))
    while not out.exists():
        process = write_in_process(out)
        begun.append(int(process.stdout.readline()))  # type: ignore[union-attr]
        longer = 1 + len(begun) / 10  # a busy machine may take long to finish the file
        time.sleep(rng.uniform(0.02, 0.1) if len(begun) < 4 else longer * rng.uniform(0.1, 0.5))
        process.send_signal(kill)
        process.communicate(timeout=60)
        assert len(begun) < 100
    assert begun == sorted(begun)  # nothing that was committed is lost
    assert len(begun) >= 2  # it was killed at least once; how often depends on the machine
    assert read_header(out).digest == uninterrupted
    assert [file.name for file in tmp_path.iterdir() if not file.name.endswith(".new.partial")] == ["x.h5"]


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(uninterrupted: str, tmp_path: Path) -> None:
    """The limit on a file's size stands for a disk that fills up while the artefact grows."""
    out = kinds.make("cams", tmp_path / "x.h5")
    out.rename(tmp_path / "earlier.h5")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    process = write_in_process(out, preexec_fn=limit)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    last = said.strip().splitlines()[-1]
    assert last == (
        f"pseudolabel.errors.PseudolabelError: cannot write {out}.partial: File too large; "
        "free some space or choose another --out, and run again"
    )
    assert not out.exists()
    read_header(tmp_path / "earlier.h5")
    assert write_in_process(out).wait(60) == 0
    assert read_header(out).digest == uninterrupted


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from pseudolabel.artefacts import write_artefact
from pseudolabel.artefacts.header import CostMeter
sys.path.insert(0, {tests!r})
import kinds

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
weights = np.random.default_rng(0).random(1_000_000)
write_artefact(Path(sys.argv[1]), kinds.header("checkpoint"), {{"weights/w": weights}}, CostMeter())
"""


def test_a_full_disk_leaves_the_earlier_artefact_untouched(tmp_path: Path) -> None:
    out = kinds.make("checkpoint", tmp_path / "x.h5")
    before = out.read_bytes()
    code = FULL_DISK.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"PseudolabelError: cannot write {out}: File too large; free some space" in done.stderr
    assert out.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.h5"]


def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="File exists"):
        check_output(tmp_path / "file" / "x.h5", overwrite=False)


def test_an_error_inside_the_block_leaves_no_artefact(tmp_path: Path) -> None:
    out = tmp_path / "x.h5"
    with pytest.raises(ZeroDivisionError), MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16"):
        raise ZeroDivisionError
    assert [file.name for file in tmp_path.iterdir()] == ["x.h5.partial"]
    with partial_path(out).open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and the journal is free for the next run


# Headers


def test_a_child_takes_over_what_its_parents_know(tmp_path: Path) -> None:
    options = build_options("refine-crf", {"cams": "cams.h5", "out": tmp_path / "later" / "soft.h5"})
    cams = kinds.header("cams", digest="1" * 64)
    thresholds = kinds.header(
        "thresholds",
        digest="2" * 64,
        protocol={"threshold": 0.4, "flip": "ignored"},
        oracle=("sweep on masks",),
        dataset={},
    )
    child = child_header(
        "soft-labels",
        "refine-crf",
        options,
        {tmp_path / "cams.h5": cams, tmp_path / "threshold.h5": thresholds},
        protocol={"crf": "irn"},
    )
    assert child.inputs == (
        Input("cams", "../cams.h5", "1" * 64),
        Input("thresholds", "../threshold.h5", "2" * 64),
    )
    assert child.protocol == {"tag_filter": "image tags", "flip": True, "threshold": 0.4, "crf": "irn"}
    assert child.oracle == ("image tags read from pixel masks", "sweep on masks")
    assert child.dataset == cams.dataset
    assert child.options == options.resolved()


def test_paths_in_a_folder_of_masks_are_relative_to_that_folder(tmp_path: Path) -> None:
    options = build_options("export-masks", {"labels": "soft.h5", "out": tmp_path / "masks"})
    child = child_header("masks", "export-masks", options, {tmp_path / "soft.h5": kinds.header("soft-labels")})
    assert child.inputs[0].path == "../soft.h5"


def test_cost_adds_to_what_an_interrupted_run_has_spent() -> None:
    cost = CostMeter({"wall_seconds": 100.0, "cpu_seconds": 50.0, "peak_memory_bytes": 1 << 60}).read(10)
    assert 100 <= cost["wall_seconds"] < 110
    assert 50 <= cost["cpu_seconds"] < 60
    assert cost["peak_memory_bytes"] == 1 << 60
    assert cost["images_per_second"] == pytest.approx(10 / cost["wall_seconds"], rel=0.01)


def test_the_file_states_itself_in_plain_attributes(cams: Path) -> None:
    with h5py.File(cams) as file:
        attributes = dict(file.attrs)
        assert attributes["encoding-type"] == "pseudolabel/cams"
        assert attributes["encoding-version"] == 1
        assert attributes["stage"] == "make-cams"
        assert json.loads(attributes["inputs"]) == [{"digest": "ab" * 32, "kind": "dataset", "path": "/data/voc"}]
        assert file["classes/name"].asstr()[:].tolist() == list(kinds.CLASSES)
        assert file["maps/values"].dtype == np.float16
        assert file["maps/values"].compression == "gzip"


def test_strings_of_any_length_and_script_are_kept(tmp_path: Path) -> None:
    names = np.array(["", "naïve", "日本", "x" * 300], dtype=object)
    path = write_artefact(
        tmp_path / "x.h5", kinds.header("scores"), {"confusion": np.eye(2), "names": names}, CostMeter()
    )
    with open_artefact(path) as artefact:
        assert artefact.file["names"].asstr()[:].tolist() == names.tolist()


# The specification


FORMAT = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")


def shown_in_document(kind: str) -> str:
    found = re.search(rf"<!-- dump: {kind}(?: of [a-z-]+)? -->\n```\n(.*?)\n```\n<!-- /dump -->", FORMAT, re.DOTALL)
    assert found is not None, f"docs/format.md shows no {kind}; run docs/make_format_dumps.py"
    return found[1]


@pytest.mark.parametrize("kind", list(REQUIRED))
def test_the_document_shows_every_kind_as_it_is_written_today(kind: str, tmp_path: Path) -> None:
    shown = shown_in_document(kind)
    with h5py.File(kinds.make(kind, tmp_path / "x.h5")) as file:
        assert sorted(re.findall(r"^  ([a-z-]+) = ", shown, re.MULTILINE)) == sorted(file.attrs)
    assert f"encoding-type = pseudolabel/{kind}" in shown
    assert "/classes/name" in shown
    for name in REQUIRED[kind]:
        assert f"/{name}" in shown
        assert f"/{name}" in FORMAT.replace(shown, "")
    assert not re.search(r"(?<![.\w])/(home|root|tmp|work|Users)/", shown)


def test_the_document_describes_every_attribute(cams: Path) -> None:
    with h5py.File(cams) as file:
        assert re.findall(r"^\| `([a-z-]+)` \| (?:string|integer|JSON)", FORMAT, re.MULTILINE) == [
            "encoding-type", "encoding-version", "pseudolabel-version", "stage", "seed", "ignore-value", "options",
            "inputs", "dataset", "network", "protocol", "oracle", "facts", "environment", "cost", "created", "digest",
        ]  # fmt: skip
        assert len(file.attrs) == 17


def test_the_digest_is_what_the_document_says(cams: Path) -> None:
    """Computed here from the document's words alone."""
    digest = hashlib.sha256()
    with h5py.File(cams) as file:
        for name in ("encoding-type", "encoding-version", "ignore-value", "facts"):
            digest.update(f"{name}={file.attrs[name]}\n".encode())
        found = {}
        file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        for name in sorted(found):
            values = found[name][()]
            digest.update(
                f"{name}:{values.dtype.str}:{values.shape}\n".encode() + np.ascontiguousarray(values).tobytes()
            )
        assert digest.hexdigest() == file.attrs["digest"]


def test_the_dumps_are_made_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("dumps", Path(__file__).parents[1] / "docs" / "make_format_dumps.py")
    assert spec is not None
    assert spec.loader is not None
    dumps = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dumps)
    dumps.FORMAT = tmp_path / "format.md"
    other = "<!-- dump: cams of import-cams -->\nnot of this stage\n<!-- /dump -->\n"
    dumps.FORMAT.write_text(f"before\n<!-- dump: cams -->\nstale\n<!-- /dump -->\n{other}after\n")
    kinds.make("cams", tmp_path / "artefacts" / "cams.h5")
    assert dumps.main([str(tmp_path / "artefacts")]) == 0
    text = dumps.FORMAT.read_text()
    assert text.startswith("before\n<!-- dump: cams -->\n```\ncams.h5\n")
    assert "/maps/values  float16  19  chunks of 65536, shuffle, gzip\n" in text
    assert "stale" not in text
    assert text.endswith(f"```\n<!-- /dump -->\n{other}after\n")
    assert "not found: soft-labels, masks, " in capsys.readouterr().out

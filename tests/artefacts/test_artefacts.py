"""The artefact format: every kind round, the digest, and what a header holds."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import h5py
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
    child_header,
    data_digest,
    open_artefact,
    read_header,
    write_artefact,
)
from pseudolabel.artefacts.attributes import attribute
from pseudolabel.artefacts.checks import REQUIRED
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.maps import enlarge
from pseudolabel.errors import ArtefactError, DatasetError
from pseudolabel.options import build_options
from tests.helpers import kinds as kinds


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
            stored = artefact.file[name].asstr()[()] if array.dtype == object else artefact.file[name][()]
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
        arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)),
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
    header = kinds.header("cams", stage="import-cams", classes=tuple(map(str, range(21))))
    with MapsWriter(path, header, images, dtype="uint8") as writer:  # CAMs of an image may be none
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
    maps = [rng.integers(0, 3, (int(h), int(w)), dtype=np.uint8) for h, w in rng.integers(100, 400, (12, 2))]
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
        assert data_digest(source) == data_digest(target) == attribute(source, "digest")


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
        assert attributes["encoding-type"] == b"pseudolabel/cams"
        assert attributes["encoding-version"] == 2
        assert attributes["stage"] == b"make-cams"
        assert json.loads(attributes["inputs"]) == [{"digest": "ab" * 32, "kind": "dataset", "path": "/data/voc"}]
        assert file["classes/name"].asstr()[:].tolist() == list(kinds.CLASSES)
        assert file["maps/values"].dtype == np.float16
        assert file["maps/values"].compression == "gzip"


def test_strings_of_any_length_and_script_are_kept(tmp_path: Path) -> None:
    names = np.array(["", "naïve", "日本", "x" * 300], dtype=object)
    path = write_artefact(
        tmp_path / "x.h5", kinds.header("scores"), {"confusion": np.eye(3), "names": names}, CostMeter()
    )
    with open_artefact(path) as artefact:
        assert artefact.file["names"].asstr()[:].tolist() == names.tolist()

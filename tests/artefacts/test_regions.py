"""Run lengths by hand and against slow references; the artefact of regions: written, read, resumed, refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from pseudolabel.artefacts import Images, RegionsReader, RegionsWriter, child_header, open_artefact, read_header
from pseudolabel.artefacts.run_lengths import NO_CLASS, Regions, label_runs, make_regions, mask_runs
from pseudolabel.cli.app import main
from pseudolabel.errors import ArtefactError, DatasetError
from pseudolabel.options import build_options
from tests.helpers import kinds

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6)))


def of_masks(masks: np.ndarray) -> Regions:
    return make_regions(masks.shape[1:], [mask_runs(mask) for mask in masks])


def test_runs_go_down_the_columns_by_hand() -> None:
    mask = np.array([[0, 1, 1], [0, 1, 0]], dtype=bool)
    assert mask_runs(mask).tolist() == [2, 3, 1]
    assert mask_runs(~mask).tolist() == [0, 2, 3, 1]  # begins inside: the first run is empty
    assert mask_runs(np.ones((2, 2), bool)).tolist() == [0, 4]
    assert [runs.tolist() for runs in label_runs(np.array([[0, 1, 1], [0, 1, 7]]), [0, 1, 7])] == [
        [0, 2, 4],
        [2, 3, 1],
        [5, 1],
    ]


def test_what_is_counted_in_runs_by_hand() -> None:
    regions = of_masks(np.array([[[0, 1, 1], [0, 1, 0]], [[1, 0, 0], [0, 0, 0]]], dtype=bool))
    assert [part.tolist() for part in regions.spans] == [[0, 1], [2, 0], [5, 1]]
    assert regions.area.tolist() == [3, 1]
    assert regions.bounds.tolist() == [[1, 0, 3, 2], [0, 0, 1, 1]]
    assert regions.sums(np.array([[[1, 2, 4], [8, 16, 32]]])).tolist() == [[22], [1]]
    assert regions.spread(np.array([[0.5], [2.0]])).tolist() == [[[2, 0.5, 0.5], [0, 0.5, 0]]]
    assert regions.covered().tolist() == [[True, True, True], [False, True, False]]
    canvas = np.full((2, 3), 9, np.uint8)
    assert regions.painted(canvas, np.array([1, 0]), np.array([5, 6], np.uint8)).tolist() == [[5, 6, 6], [9, 6, 9]]
    assert (canvas == 9).all()


@given(MASKS)
def test_everything_agrees_with_the_masks_themselves(masks: np.ndarray) -> None:
    masks = masks[masks.any(axis=(1, 2))]
    regions = of_masks(masks)
    values = np.arange(2 * masks.shape[1] * masks.shape[2], dtype=float).reshape(2, *masks.shape[1:])
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(regions.mask(index), mask)
        rows, columns = mask.nonzero()
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert regions.bounds[index].tolist() == edges
        np.testing.assert_allclose(regions.sums(values)[index], [value[mask].sum() for value in values])
        runs = regions.runs[regions.offset[index] : regions.offset[index + 1]]
        packed = coco_mask.frPyObjects({"size": list(mask.shape), "counts": runs.tolist()}, *mask.shape)
        np.testing.assert_array_equal(coco_mask.decode(packed), mask)
    assert regions.area.tolist() == masks.sum(axis=(1, 2)).tolist()
    weight = np.arange(len(masks) * 2, dtype=float).reshape(len(masks), 2)
    wanted = np.einsum("rk,rhw->khw", weight, masks.astype(float))
    np.testing.assert_allclose(regions.spread(weight), wanted, atol=1e-9)


@given(arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(0, 3)))
def test_a_label_map_is_its_values_masks(labels: np.ndarray) -> None:
    values = np.unique(labels).tolist()
    found = label_runs(labels, values)
    for value, runs in zip(values, found, strict=True):
        assert runs.tolist() == mask_runs(labels == value).tolist()


def test_no_regions_at_all() -> None:
    none = make_regions((2, 3), [])
    assert (len(none), none.area.tolist(), none.bounds.shape, none.covered().any()) == (0, [], (0, 4), False)
    assert none.sums(np.ones((2, 2, 3))).shape == (0, 2)


# The artefact


def test_regions_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = kinds.make("regions", tmp_path / "x.h5")
    with open_artefact(path, "regions") as artefact:
        reader = RegionsReader(artefact)
        assert (len(reader), reader.images.ids, reader.classed) == (3, ("a", "b/c", "ü"), True)
        first, none, last = (reader.regions(index) for index in range(3))
    assert [mask.astype(int).tolist() for mask in first.masks()] == [
        [[1, 1, 0, 0, 0, 0, 0, 0]] * 4,
        [[0, 1, 0, 0, 0, 0, 0, 1]] * 4,
    ]
    assert first.label.tolist() == [2, NO_CLASS]
    assert np.isnan(first.score).tolist() == [False, True]
    assert first.box[0].tolist() == [0, 0, 2, 4]
    assert np.isnan(first.box[1]).all()
    assert first.prompt == ("box", "")
    assert len(none) == 0
    assert (last.score.tolist(), last.bounds.tolist()) == ([1.0625], [[5, 0, 6, 6]])


def begin(out: Path, count: int) -> RegionsWriter:
    options = build_options("make-regions", {"root": "/data", "out": out}).resolved()
    writer = RegionsWriter(out, kinds.header("regions", stage="make-regions", options=options), kinds.IMAGES)
    for index in range(writer.done, count):
        writer.add(index, kinds.REGIONS[index])
    return writer


def test_a_killed_writing_goes_on_and_ends_with_the_same_data(tmp_path: Path) -> None:
    begin(tmp_path / "whole.h5", 3).finish()
    writer = begin(tmp_path / "cut.h5", 2)
    writer.commit()
    writer._journal.close()
    again = begin(tmp_path / "cut.h5", 3)
    assert again.done == 2
    again.finish()
    assert read_header(tmp_path / "cut.h5").digest == read_header(tmp_path / "whole.h5").digest


def test_images_without_regions_and_skipped_ones(tmp_path: Path) -> None:
    writer = begin(tmp_path / "x.h5", 0)
    writer.add(0, make_regions((4, 8), []))
    writer.skip(1, "no file")
    writer.add(2, make_regions((6, 6), []))
    writer.finish()
    with open_artefact(tmp_path / "x.h5", "regions") as artefact:
        reader = RegionsReader(artefact)
        assert [len(reader.regions(index)) for index in range(3)] == [0, 0, 0]
        assert reader.skipped == {"b/c": "no file"}
        assert not reader.classed
    writer = begin(tmp_path / "none.h5", 0)
    for index in range(3):
        writer.skip(index, "no file")
    with pytest.raises(DatasetError, match=r"^none of the 3 images could be used, .*; the first: no file$"):
        writer.finish()


def test_regions_of_another_size_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"regions of \(2, 2\) for an image of \(4, 8\)"):
        begin(tmp_path / "x.h5", 0).add(0, make_regions((2, 2), []))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, 8, 23, 4, 4, 20, 4, 30, 6], "region 0 in 'runs/length' does not fill its image"),
        ([1, 7, 24, 4, 4, 20, 4, 30, 6], "region 0 in 'runs/length' is not of the area in 'regions/area'"),
        ([0, 8, 24, 4, 4, 20, 4, 36, 0], "region 2 in 'runs/length' has an empty run"),
    ],
)
def test_runs_that_cannot_be_are_refused_where_they_are_read(values: list[int], said: str, tmp_path: Path) -> None:
    path = kinds.make("regions", tmp_path / "x.h5")
    with kinds.edited(path) as file:
        file["runs/length"][:] = values
    with open_artefact(path) as artefact, pytest.raises(ArtefactError) as caught:
        list(map(RegionsReader(artefact).regions, range(3)))
    assert str(caught.value) == f"{path}: {said}; make it again"


def test_more_regions_than_are_allowed(tmp_path: Path) -> None:
    images = Images(("a",), np.array([200], np.int32), np.array([100], np.int32))
    many = label_runs(np.arange(20000).reshape(200, 100), range(10_001))
    with RegionsWriter(tmp_path / "x.h5", kinds.header("regions"), images) as writer:
        writer.add(0, make_regions((200, 100), many))
    with pytest.raises(ArtefactError) as caught, open_artefact(tmp_path / "x.h5"):
        pass
    said = "'regions/image' has more than 10000 regions for image 0; make it again"
    assert str(caught.value) == f"{tmp_path / 'x.h5'}: {said}"


@pytest.mark.parametrize(
    ("facts", "protocol", "said"),
    [
        ({"licence": None}, None, "'licence' in attribute 'facts' is null beside a model"),
        ({"model_trained_on": None}, None, "'model_trained_on' in attribute 'facts' is null beside a model"),
        ({"model": 3}, None, "'model' in attribute 'facts' is 3, wanted string or null"),
        ({}, {}, "'external_models' is missing from attribute 'protocol'"),
        ({}, {"external_models": "SAM"}, "'external_models' in attribute 'protocol' is \"SAM\", wanted strings"),
    ],
)
def test_a_model_is_described_or_the_file_refused(
    facts: dict[str, object], protocol: dict[str, object] | None, said: str, tmp_path: Path
) -> None:
    about = kinds.header("regions")
    changes = {"facts": {**about.facts, **facts}, "protocol": about.protocol if protocol is None else protocol}
    path = kinds.make("regions", tmp_path / "x.h5", **changes)
    with pytest.raises(ArtefactError) as caught:
        read_header(path)
    assert str(caught.value) == f"{path}: {said}; make it again"


def test_external_models_of_all_parents_are_kept(tmp_path: Path) -> None:
    clip = kinds.header("cams", protocol={"external_models": ["CLIP (MIT), trained on WIT"], "scales": [1.0]})
    options = build_options("make-regions", {"out": tmp_path / "x.h5"})
    parents = {Path("c.h5"): clip, Path("r.h5"): kinds.header("regions")}
    sam, dino = kinds.header("regions").protocol["external_models"][0], "DINO (Apache-2.0), trained on LVD"
    found = child_header("soft-labels", "make-regions", options, parents, protocol={"external_models": [sam, dino]})
    assert found.protocol == {"external_models": ["CLIP (MIT), trained on WIT", sam, dino], "scales": [1.0]}
    assert "external_models" not in child_header("cams", "make-regions", options, {}).protocol


def test_inspect_counts_regions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(kinds.make("regions", tmp_path / "x.h5"))]) == 0
    shown = capsys.readouterr().out
    assert "regions: 3\n" in shown
    assert "licence: Apache-2.0" in shown

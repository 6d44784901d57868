"""refine-crf: confidence rules by hand, quantisation, resuming, and each error's words."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pseudolabel.artefacts import MapsReader, StalePartialError, open_artefact, partial_path, read_header
from pseudolabel.data import Dataset, read_image
from pseudolabel.errors import ArtefactError, DatasetError, InputError, MissingExtraError
from pseudolabel.labels.assignment import from_soft, probabilities, quantise
from pseudolabel.options import RefineCrfOptions
from pseudolabel.pairwise import PRESETS, CrfSettings, dense_crf
from pseudolabel.stages.refine_crf import refine_crf
from tests.helpers.artefacts import (
    Interrupting,
    blurred_truth,
    interrupted,
    read_maps,
    refiner_inputs,
    synthetic,
    write_maps,
    write_thresholds,
)

COUNT = 5


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


@pytest.fixture(scope="module")
def inputs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return refiner_inputs(tmp_path_factory.mktemp("inputs"), dataset, COUNT)


def options(inputs: dict[str, Path], out: Path, **values: Any) -> RefineCrfOptions:
    return RefineCrfOptions(**({**inputs, "out": out, "workers": 1, "iterations": 2} | values))


def test_quantise_by_hand() -> None:
    pixels = [[1, 0, 0], [0.5, 0.25, 0.25], [0.334, 0.333, 0.333], [0.333, 0.334, 0.333], [1 / 3, 1 / 3, 1 / 3]]
    found = quantise(np.array(pixels, dtype=np.float32).T[:, None])
    assert found.dtype == np.uint8
    assert found[:, 0].T.tolist() == [[255, 0, 0], [128, 64, 64], [86, 85, 85], [85, 86, 85], [86, 85, 85]]


@given(st.lists(st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(sum), min_size=1, max_size=8))
def test_quantising_changes_no_label_and_little_else(counts: list[list[int]]) -> None:
    scores = np.array(counts, dtype=np.float32).T[:, None]
    exact = scores / scores.sum(axis=0)
    found = quantise(exact)
    np.testing.assert_array_equal(found.argmax(axis=0), exact.argmax(axis=0))
    np.testing.assert_allclose(found / 255, exact, atol=1.5 / 255 + 1e-6)


def test_from_soft_by_hand() -> None:
    labels = np.array([0, 4, 7, 255])
    maps = np.array([[[200, 80, 90, 90]], [[30, 90, 90, 90]], [[25, 85, 75, 90]], [[0, 0, 255, 0]]], dtype=np.uint8)
    assert from_soft(labels, maps).tolist() == [[0, 4, 255, 0]]  # equal probabilities: the lowest index
    assert from_soft(labels, maps.astype(np.float32) / 255).tolist() == [[0, 4, 255, 0]]
    assert from_soft(labels[:1], maps[:1]).tolist() == [[0, 0, 0, 0]]


def test_soft_labels_hold_background_and_the_classes_present(
    inputs: dict[str, Path], dataset: Dataset, tmp_path: Path
) -> None:
    result = refine_crf(options(inputs, tmp_path / "soft.h5"))
    assert result.pop("images_per_second") > 0
    assert result == {
        "out": str(tmp_path / "soft.h5"),
        "images": COUNT,
        "skipped": 0,
        "crf": "irn, iterations 2",
        "confidence": "none",
        "mean_field_steps": 2.0,
    }
    for record, maps in zip(dataset.records, read_maps(tmp_path / "soft.h5"), strict=False):
        assert sorted(maps) == [0, *(record.tags or ())]
        assert {array.dtype.str for array in maps.values()} == {"|u1"}
        assert {array.shape for array in maps.values()} == {read_image(record.image).shape[:2]}
        total = np.sum(list(maps.values()), axis=0, dtype=int)
        assert np.abs(total - 255).max() <= len(maps)  # what rounding does


def test_stored_labels_are_those_of_the_crf(inputs: dict[str, Path], dataset: Dataset, tmp_path: Path) -> None:
    """8 bits lose no label at all: the same mIoU, not only one within 0.05."""
    refine_crf(options(inputs, tmp_path / "soft.h5"))
    settings = CrfSettings(2, *list(vars(PRESETS["irn"]).values())[1:])
    with open_artefact(inputs["cams"]) as cams, open_artefact(tmp_path / "soft.h5") as soft:
        for index, record in enumerate(dataset.records[:COUNT]):
            labels, maps = MapsReader(cams).full_size(index)
            start = probabilities(labels, maps, np.full(len(dataset.classes), 0.4))
            exact = dense_crf(read_image(record.image), start, settings).probabilities.argmax(axis=0)
            found = from_soft(*MapsReader(soft).full_size(index))
            np.testing.assert_array_equal(found, np.concatenate([[0], labels])[exact])


def test_what_the_header_says(inputs: dict[str, Path], dataset: Dataset, tmp_path: Path) -> None:
    refine_crf(options(inputs, tmp_path / "soft.h5", preset="psa", confidence="irn"))
    header = read_header(tmp_path / "soft.h5", "soft-labels")
    assert header.protocol == {
        "split": "train",
        "scales": [1.0],
        "threshold": 0.4,
        "crf": "psa, iterations 2",
        "confidence": "irn, low 0.2, high 0.7",
    }
    assert header.classes == dataset.classes
    assert [item.kind for item in header.inputs] == ["cams", "thresholds", "dataset"]
    assert header.facts["crf"] == vars(PRESETS["psa"]) | {"iterations": 2}


@pytest.mark.parametrize("rule", ["irn", "cosa"])
def test_unlabelled_pixels_are_a_map_of_their_own(rule: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    refine_crf(options(inputs, tmp_path / "soft.h5", confidence=rule))
    maps = read_maps(tmp_path / "soft.h5")
    assert all(set(np.unique(found[255])) <= {0, 255} for found in maps)
    assert any(found[255].any() for found in maps)


def test_two_workers_write_the_same_as_one(inputs: dict[str, Path], tmp_path: Path) -> None:
    digests = set()
    for workers in (1, 2):
        out = tmp_path / f"{workers}.h5"
        refine_crf(options(inputs, out, workers=workers, confidence="irn"))
        digests.add(read_header(out).digest)
    assert len(digests) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_and_ends_the_same(workers: int, inputs: dict[str, Path], tmp_path: Path) -> None:
    refine_crf(options(inputs, tmp_path / "whole.h5"))
    broken = options(inputs, tmp_path / "broken.h5", workers=workers)
    interrupted(refine_crf, broken, after=3)
    assert not broken.out.exists()
    again = Interrupting()
    refine_crf(broken, again)
    assert again.began == 3
    assert read_header(broken.out).digest == read_header(tmp_path / "whole.h5").digest


def test_a_half_finished_run_with_other_settings_is_not_gone_on_with(inputs: dict[str, Path], tmp_path: Path) -> None:
    interrupted(refine_crf, options(inputs, tmp_path / "soft.h5"), after=3)
    with pytest.raises(StalePartialError, match=r"was begun with another --preset \('irn', now 'psa'\)"):
        refine_crf(options(inputs, tmp_path / "soft.h5", preset="psa"))


def test_an_image_without_classes_is_all_background(dataset: Dataset, inputs: dict[str, Path], tmp_path: Path) -> None:
    cams = write_maps(tmp_path / "cams.h5", "cams", dataset, [{}, {1: np.zeros((2, 2))}])
    refine_crf(options(inputs, tmp_path / "soft.h5", cams=cams, confidence="cosa"))
    first, second = read_maps(tmp_path / "soft.h5")
    assert sorted(first) == [0, 255]
    assert (first[0] == 255).all()
    assert not first[255].any()
    assert (second[0] > second[1]).all()


def test_soft_labels_are_refined_without_thresholds(dataset: Dataset, tmp_path: Path) -> None:
    """Predictions at the network's grid become maps at image size; unlabelled pixels stay unlabelled."""
    record = dataset.records[0]
    height, width = read_image(record.image).shape[:2]
    object_ = np.zeros((height, width), dtype=np.uint8)
    object_[:, : width // 2] = 204
    ignored = np.zeros((height, width), dtype=np.uint8)
    ignored[:3] = 255
    maps = {0: 255 - object_, 2: object_, 255: ignored}
    soft = write_maps(
        tmp_path / "in.h5", "soft-labels", dataset, [maps, {0: np.full((4, 4), 51), 1: np.full((4, 4), 204)}]
    )
    refine_crf(RefineCrfOptions(cams=soft, out=tmp_path / "out.h5", workers=1, preset="deeplab"))
    first, second = read_maps(tmp_path / "out.h5")
    assert sorted(first) == [0, 2, 255]
    np.testing.assert_array_equal(first[255], ignored)
    assert second[0].shape == read_image(dataset.records[1].image).shape[:2]
    assert (second[1] > second[0]).all()


def test_images_that_were_skipped_before_stay_skipped(
    dataset: Dataset, inputs: dict[str, Path], tmp_path: Path
) -> None:
    maps = [blurred_truth(dataset, 1)[0], "is truncated", {}]
    cams = write_maps(tmp_path / "cams.h5", "cams", dataset, maps)
    result = refine_crf(options(inputs, tmp_path / "soft.h5", cams=cams))
    assert (result["images"], result["skipped"]) == (2, 1)
    with open_artefact(tmp_path / "soft.h5") as artefact:
        assert MapsReader(artefact).skipped == {dataset.records[1].id: "is truncated"}
    assert read_maps(tmp_path / "soft.h5")[1] == {}


@pytest.fixture
def moved(synthetic_root: Path, tmp_path: Path) -> Path:
    """A copy of the data set that a test may damage."""
    return Path(shutil.copytree(synthetic_root, tmp_path / "moved"))


def test_a_photograph_of_another_size(inputs: dict[str, Path], dataset: Dataset, moved: Path, tmp_path: Path) -> None:
    height, width = read_image(dataset.records[1].image).shape[:2]
    photograph = moved / dataset.records[1].image.relative_to(dataset.root)
    Image.new("RGB", (9, 5)).save(photograph)
    message = (
        f"{photograph} is 9 x 5 pixels, but its maps were made for {width} x {height}; "
        "pass --root with the folder that they were made from, or make them again"
    )
    with pytest.raises(DatasetError) as caught:
        refine_crf(options(inputs, tmp_path / "soft.h5", root=moved))
    assert str(caught.value) == message
    assert not (tmp_path / "soft.h5").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreadable_photograph_stops_or_is_recorded(
    workers: int, inputs: dict[str, Path], dataset: Dataset, moved: Path, tmp_path: Path
) -> None:
    photograph = moved / dataset.records[1].image.relative_to(dataset.root)
    photograph.write_bytes(b"")
    message = f"{photograph} is empty (0 bytes); replace or remove it"
    with pytest.raises(DatasetError) as caught:
        refine_crf(options(inputs, tmp_path / "soft.h5", root=moved, workers=workers))
    assert str(caught.value) == message
    skipping = options(inputs, tmp_path / "other.h5", root=moved, workers=workers, on_error="skip")
    assert refine_crf(skipping)["skipped"] == 1
    with open_artefact(skipping.out) as artefact:
        reader = MapsReader(artefact)
        assert reader.skipped == {dataset.records[1].id: message}
        assert artefact.header.dataset["root"] == str(moved)


def refused(settings: RefineCrfOptions) -> str:
    with pytest.raises(InputError) as caught:
        refine_crf(settings)
    assert not settings.out.exists()
    assert not partial_path(settings.out).exists()
    return str(caught.value)


def test_cams_need_thresholds_of_their_classes(inputs: dict[str, Path], tmp_path: Path) -> None:
    cams, out = inputs["cams"], tmp_path / "soft.h5"
    assert refused(options(inputs, out, threshold=None)) == (
        f"{cams} holds CAMs, which need --threshold; run 'pseudolabel search-threshold {cams} --out threshold.h5'"
    )
    other = write_thresholds(tmp_path / "other.h5", ("background", "unicorn"), 0.4)
    assert refused(options(inputs, out, threshold=other)).startswith(
        f"{other} has thresholds for other classes (1 of them) than {cams} ("
    )


def test_soft_labels_take_neither_thresholds_nor_a_rule(
    inputs: dict[str, Path], dataset: Dataset, tmp_path: Path
) -> None:
    soft = write_maps(tmp_path / "in.h5", "soft-labels", dataset, [{0: np.full((2, 2), 255)}])
    out = tmp_path / "soft.h5"
    assert refused(options(inputs, out, cams=soft)) == (
        f"{soft} holds soft-labels, which --threshold cannot cut; leave it out"
    )
    assert refused(options(inputs, out, cams=soft, threshold=None, confidence="irn")) == (
        f"--confidence irn compares CAMs with thresholds; {soft} holds soft-labels"
    )


@pytest.mark.parametrize(
    ("low", "high", "lacks", "flags"),
    [(None, None, "low and high", "--low and --high"), (0.2, None, "high", "--high"), (None, 0.7, "low", "--low")],
)
def test_a_rule_needs_both_thresholds(
    low: float | None,
    high: float | None,
    lacks: str,
    flags: str,
    inputs: dict[str, Path],
    dataset: Dataset,
    tmp_path: Path,
) -> None:
    plain = write_thresholds(tmp_path / "t.h5", dataset.classes, 0.4, low, high)
    assert refused(options(inputs, tmp_path / "soft.h5", threshold=plain, confidence="cosa")) == (
        f"--confidence cosa needs a low and a high threshold; {plain} lacks {lacks}: pass {flags} to search-threshold"
    )


def test_cams_of_images_that_the_data_set_lacks(inputs: dict[str, Path], dataset: Dataset, tmp_path: Path) -> None:
    cams = write_maps(tmp_path / "cams.h5", "cams", dataset, [{}, {}], names=["gone", dataset.records[1].id])
    assert refused(options(inputs, tmp_path / "soft.h5", cams=cams)) == (
        f"1 images of {cams} are not in split train of {dataset.root} (first: 'gone'); "
        "pass --root with the folder that it was made from"
    )


def test_an_absent_engine_is_found_out_before_anything_begins(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(MissingExtraError, match=r'or run: pip install "pseudolabel\[pydensecrf\]"$'):
        refine_crf(options(inputs, tmp_path / "soft.h5", engine="pydensecrf"))
    assert list(tmp_path.iterdir()) == []


def test_the_result_says_how_many_steps_the_labels_took(inputs: dict[str, Path], tmp_path: Path) -> None:
    found = refine_crf(options(inputs, tmp_path / "soft.h5", iterations=50))
    assert 1 <= found["mean_field_steps"] < 50
    again = refine_crf(options(inputs, tmp_path / "two.h5", iterations=50, workers=2))
    assert again["mean_field_steps"] == found["mean_field_steps"]


def test_maps_that_are_no_numbers_stop_it(dataset: Dataset, inputs: dict[str, Path], tmp_path: Path) -> None:
    maps = blurred_truth(dataset, 2)
    maps[1] = {label: np.full_like(array, np.nan) for label, array in maps[1].items()}
    cams = write_maps(tmp_path / "nan.h5", "cams", dataset, maps, protocol={"split": "train", "scales": [1.0]})
    words = f"{cams}: map {len(maps[0])} in 'maps/values' holds nan, wanted 0 to 1; make it again"
    for on_error in ("stop", "skip"):
        with pytest.raises(ArtefactError, match=re.escape(words)):
            refine_crf(options(inputs, tmp_path / f"{on_error}.h5", cams=cams, on_error=on_error))


def test_an_existing_output_is_kept(inputs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "soft.h5"
    out.write_text("precious")
    with pytest.raises(InputError, match=r"exists already; pass --overwrite"):
        refine_crf(options(inputs, out))
    assert out.read_text() == "precious"
    refine_crf(options(inputs, out, overwrite=True))
    assert json.loads(json.dumps(read_header(out).options))["preset"] == "irn"

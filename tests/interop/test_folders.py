"""Formats that are folders of photographs and index PNGs: Hugging Face's image folder, mmsegmentation's layout."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.data import Dataset
from pseudolabel.data.images import read_label_png
from pseudolabel.errors import InputError
from pseudolabel.interop.mmseg import check
from tests.helpers.artefacts import synthetic
from tests.helpers.interop import exported, hard_masks


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


def test_datasets_reads_photographs_and_masks(dataset: Dataset, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    masks = hard_masks(dataset)
    folder = exported(tmp_path, dataset, masks, as_="hf") / "hf"
    found = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.column_names == ["image", "mask", "id"]
    rows = {row["id"]: row for row in found}
    assert len(rows) == 3
    for record, mask in zip(dataset.records, masks, strict=False):
        np.testing.assert_array_equal(np.asarray(rows[record.id]["mask"]), mask)
        assert rows[record.id]["image"].size == mask.shape[::-1]


def test_the_table_names_every_file(dataset: Dataset, tmp_path: Path) -> None:
    folder = exported(tmp_path, dataset, hard_masks(dataset), as_="hf") / "hf"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for record, row, mask in zip(dataset.records, rows, hard_masks(dataset), strict=False):
        assert row == {
            "file_name": f"images/{record.image.name}",
            "mask_file_name": f"masks/{record.id}.png",
            "id": record.id,
        }
        assert (folder / row["file_name"]).read_bytes() == record.image.read_bytes()
        np.testing.assert_array_equal(read_label_png(folder / row["mask_file_name"]), mask)
    assert (folder / "classes.txt").read_text().splitlines() == list(dataset.classes)


def test_mmsegmentations_layout(dataset: Dataset, tmp_path: Path) -> None:
    folder = exported(tmp_path, dataset, hard_masks(dataset), as_="mmseg") / "mmseg"
    about = runpy.run_path(str(folder / "dataset.py"))["dataset"]
    assert about["metainfo"]["classes"] == dataset.classes
    assert about["metainfo"]["palette"][:3] == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert (about["ignore_index"], about["reduce_zero_label"]) == (255, False)
    for record, mask in zip(dataset.records, hard_masks(dataset), strict=False):
        photograph = folder / about["data_prefix"]["img_path"] / f"{record.id}{about['img_suffix']}"
        assert photograph.read_bytes() == record.image.read_bytes()
        found = folder / about["data_prefix"]["seg_map_path"] / f"{record.id}{about['seg_map_suffix']}"
        np.testing.assert_array_equal(read_label_png(found), mask)


def test_mmsegmentation_takes_photographs_of_one_ending() -> None:
    with pytest.raises(InputError) as caught:
        check(("background", "cat"), [Path("a.jpg"), Path("b.png"), Path("c.jpg")])
    assert str(caught.value) == (
        "the photographs end in .jpg and .png: mmsegmentation reads one img_suffix; convert them to one format"
    )


@pytest.mark.parametrize("name", [None, "hf", "mmseg"])
def test_formats_without_objects_have_no_instances(name: str | None, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        exported(tmp_path, dataset, hard_masks(dataset), as_=name, instances=True)
    said = "--instances is for --as with a format of objects, such as coco; add it, or leave this out"
    assert str(caught.value) == said
    assert not (tmp_path / "out").exists()

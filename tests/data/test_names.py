"""One name in two Unicode normal forms: photographs, lists, annotations, masks and weak labels find each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data import Dataset, load_dataset
from pseudolabel.data.check import check_dataset
from pseudolabel.data.names import file_named, nfc
from pseudolabel.errors import DatasetError
from pseudolabel.options import DataCheckOptions

NFC, NFD = "caf\u00e9", "cafe\u0301"
FORMS = pytest.mark.parametrize(("on_disk", "written"), [(NFC, NFD), (NFD, NFC), (NFC, NFC), (NFD, NFD)])


def picture(path: Path, label: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5) if label is not None else (4, 5, 3), label or 0, dtype=np.uint8)).save(path)


def problems(root: Path, **changes: object) -> list[str]:
    options = DataCheckOptions(**{"dataset": "folder", "root": root, "split": "all", "workers": 0} | changes)
    problems: list[str] = check_dataset(options)["problems"]
    return problems


def opened(root: Path, **changes: object) -> Dataset:
    return load_dataset({"dataset": "folder", "root": root, "split": "all"} | changes)


@FORMS
def test_a_folder_with_its_table_list_masks_and_weak_labels(tmp_path: Path, on_disk: str, written: str) -> None:
    picture(tmp_path / "images" / f"{on_disk}.png")
    picture(tmp_path / "masks" / f"{written}.png", 1)
    (tmp_path / "tags.csv").write_text(f"{written},{written}\n", encoding="utf-8")
    (tmp_path / "classes.txt").write_text(f"{on_disk}\n", encoding="utf-8")
    (tmp_path / "mine.txt").write_text(f"{written}\n", encoding="utf-8")
    (tmp_path / "points.csv").write_text(f"{written},{written},1,1\n", encoding="utf-8")
    places = {"points": tmp_path / "points.csv"}
    assert problems(tmp_path, split="mine", **places) == []
    dataset = opened(tmp_path, split="mine", **places)
    (record,) = dataset.records
    assert (record.id, record.tags, dataset.classes) == (NFC, (1,), ("background", NFC))
    assert record.image == tmp_path / "images" / f"{on_disk}.png"
    assert record.mask is not None
    assert len(record.points) == 1
    assert dataset.find([written], tmp_path) == [record]
    dataset.require_classes(("background", on_disk), tmp_path)


@FORMS
def test_voc(tmp_path: Path, on_disk: str, written: str) -> None:
    picture(tmp_path / "JPEGImages" / f"{on_disk}.png")
    picture(tmp_path / "SegmentationClass" / f"{written}.png", 1)
    (tmp_path / "classes.txt").write_text(f"{on_disk}\n", encoding="utf-8")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text(f"{written}\n", encoding="utf-8")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / f"{written}.xml").write_text(
        f"<annotation><object><name>{written}</name></object></annotation>", encoding="utf-8"
    )
    assert problems(tmp_path, dataset="voc", split="train") == []
    (record,) = opened(tmp_path, dataset="voc", split="train").records
    assert (record.id, record.tags, record.mask is not None) == (NFC, (1,), True)


@FORMS
@pytest.mark.parametrize("escaped", [False, True])
def test_coco(tmp_path: Path, on_disk: str, written: str, *, escaped: bool) -> None:
    picture(tmp_path / "images" / f"{on_disk}.png")
    content = {
        "images": [{"id": 1, "file_name": f"{written}.png", "height": 4, "width": 5}],
        "categories": [{"id": 1, "name": written}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 2, 0, 2, 2]]}
        ],
    }
    (tmp_path / "annotations").mkdir()
    file = tmp_path / "annotations/instances_train.json"
    file.write_text(json.dumps(content, ensure_ascii=escaped), encoding="utf-8")
    assert problems(tmp_path, dataset="coco", split="train") == []
    (tmp_path / "classes.txt").write_text(f"{on_disk}\n", encoding="utf-8")
    assert [len(record.boxes) for record in opened(tmp_path, boxes=file).records] == [1]
    clicks = tmp_path / "clicks.json"
    clicks.write_text(json.dumps({written: [{"x": 1, "y": 1, "cls": 1}]}, ensure_ascii=escaped), encoding="utf-8")
    assert [len(record.points) for record in opened(tmp_path, points=clicks).records] == [1]


def test_two_photographs_whose_names_differ_by_form_alone(tmp_path: Path) -> None:
    picture(tmp_path / f"{NFC}.png")
    picture(tmp_path / f"{NFD}.png")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system takes them for one")
    with pytest.raises(DatasetError, match=f"have the same id '{NFC}'; keep one of them"):
        opened(tmp_path)


def test_files_are_found_by_either_form(tmp_path: Path) -> None:
    (tmp_path / NFD).touch()
    assert file_named(tmp_path, NFC).exists()
    assert file_named(tmp_path, NFD).exists()
    assert file_named(tmp_path, "plain") == tmp_path / "plain"
    assert nfc(NFD) == NFC


def test_ids_that_differ_by_case_only_are_refused(tmp_path: Path) -> None:
    for name in ("images/cat/a.png", "images/cat/A.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    if len(list((tmp_path / "images/cat").iterdir())) == 1:
        pytest.skip("this file system takes them for one")
    with pytest.raises(DatasetError) as caught:
        load_dataset({"dataset": "folder", "root": str(tmp_path), "split": "all"})
    assert str(caught.value) == (
        f"ids 'cat/A' and 'cat/a' of split all of {tmp_path} differ by case or Unicode form only, and would be one "
        "file in some places; rename one of the photographs"
    )

"""What the folders among photographs mean: classes, splits, places of photographs and of label maps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from pseudolabel.data import Dataset, load_dataset
from pseudolabel.data.check import check_dataset
from pseudolabel.errors import InputError
from pseudolabel.options import DataCheckOptions


def write(root: Path, names: Iterable[str]) -> Path:
    """Pictures: those called ``labels`` or ``mask`` anywhere are indexed, the others colours."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L" if "label" in name or "mask" in name else "RGB", (3, 2)).save(path)
    return root


def load(root: Path, split: str = "train") -> Dataset:
    return load_dataset({"dataset": "folder", "root": root, "split": split})


def refusal(root: Path, split: str = "train") -> str:
    with pytest.raises(InputError) as caught:
        load(root, split)
    return str(caught.value).replace(f"{root}/", "").replace(str(root), "ROOT")


def tags(dataset: Dataset) -> dict[str, tuple[str, ...] | None]:
    names = dataset.classes
    return {r.id: None if r.tags is None else tuple(names[tag] for tag in r.tags) for r in dataset.records}


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "Valid", "test"), ("train2017", "val2017")])
def test_folders_called_as_splits_are_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = write(tmp_path, [f"{part}/{kind}/1.jpg" for part in names for kind in ("cat", "dog")])
    dataset = load(root, names[1])
    assert dataset.classes == ("background", "cat", "dog")
    assert tags(dataset) == {f"{names[1]}/{kind}/1": (kind,) for kind in ("cat", "dog")}
    assert load_dataset(dataset.spec()).records == dataset.records
    assert len(load(root, "all").records) == 2 * len(names)


def test_splits_are_offered_by_their_names(tmp_path: Path) -> None:
    root = write(tmp_path, ["images/training/a.jpg", "images/validation/b.jpg"])
    assert refusal(root) == (
        "--split train: no such list in ROOT, and no file of that name; known here: training, validation, all"
    )
    assert tags(load(root, "training")) == {"training/a": None}
    (root / "tags.csv").write_text("training/a,cat\nvalidation/b,dog\n")
    assert tags(load(root, "validation")) == {"validation/b": ("dog",)}


def test_folders_of_which_only_some_are_splits_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path, ["train/a.jpg", "val/b.jpg", "cat/c.jpg"])
    wanted = (
        "ROOT: folders train and val look like splits, but stand beside cat; put every image into one of them, or name "
        "all folders in classes.txt if they are classes"
    )
    assert refusal(root) == wanted
    (root / "classes.txt").write_text("cat\ntrain\nval\n")
    assert tags(load(root)) == {"cat/c": ("cat",), "train/a": ("train",), "val/b": ("val",)}


def test_a_table_of_tags_does_not_make_splits_one(tmp_path: Path) -> None:
    """``train`` would be every image, also those of val, where they stand beside another folder or image."""
    root = write(tmp_path, ["images/train/a.jpg", "images/val/b.jpg", "images/c.jpg"])
    (root / "tags.csv").write_text("train/a,cat\nval/b,dog\nc,cat\n")
    assert refusal(root) == (
        "images: folders train and val look like splits, but stand beside images; put every image into one of them, or "
        "name all folders in classes.txt if they are classes"
    )
    assert len(load(root, "all").records) == 3
    (root / "train.txt").write_text("train/a\nc\n")
    assert list(tags(load(root))) == ["train/a", "c"]
    (root / "train.txt").write_text("train/a\nval/b\nc\n")
    assert len(load(root).records) == 3


def test_a_class_called_train_does_not_turn_splits_off(tmp_path: Path) -> None:
    root = write(tmp_path, ["images/train/a.jpg", "images/val/b.jpg"])
    (root / "classes.txt").write_text("cat\ntrain\n")
    (root / "tags.csv").write_text("train/a,cat\nval/b,train\n")
    assert tags(load(root)) == {"train/a": ("cat",)}
    assert tags(load(root, "val")) == {"val/b": ("train",)}


def test_a_class_that_is_called_as_label_maps_are_has_photographs(tmp_path: Path) -> None:
    root = write(tmp_path, ["images/mask/1.jpg", "images/photo/2.jpg"])
    (root / "classes.txt").write_text("mask\nphoto\n")
    assert tags(load(root)) == {"mask/1": ("mask",), "photo/2": ("photo",)}


def test_a_vehicle_called_train_is_a_class(tmp_path: Path) -> None:
    root = write(tmp_path, ["car/1.jpg", "train/1.jpg"])
    assert tags(load(root)) == {"car/1": ("car",), "train/1": ("train",)}


def test_a_folder_that_holds_everything_is_told(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, ["mydata/a.jpg", "mydata/b.jpg"]))
    assert dataset.classes == ("background", "mydata")
    assert dataset.notes == (f"{tmp_path}: folder mydata, which holds every image, is taken for the only class",)


def test_splits_inside_of_classes_are_told(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, ["cat/train/a.jpg", "cat/val/b.jpg"]))
    assert tags(dataset) == {"cat/train/a": ("cat",), "cat/val/b": ("cat",)}
    assert dataset.notes == (f"{tmp_path}: folders train and val inside those of the classes are not read as splits",)


def test_folders_may_be_called_what_no_tag_of_a_table_may(tmp_path: Path) -> None:
    root = write(tmp_path, ["0/a.jpg", "1/b.jpg", "tench, Tinca tinca/c.jpg", "cafe\u0301/d.jpg"])
    assert load(root).classes == ("background", "0", "1", "caf\u00e9", "tench, Tinca tinca")
    assert [record.tags for record in load(root).records] == [(1,), (2,), (3,), (4,)]


def test_a_folder_called_background_has_images_without_a_class(tmp_path: Path) -> None:
    root = write(tmp_path, ["cat/1.jpg", "background/1.jpg"])
    assert (load(root).classes, tags(load(root))) == (("background", "cat"), {"background/1": (), "cat/1": ("cat",)})


@pytest.mark.parametrize(
    ("names", "count", "first"),
    [
        (["train/images/a.png", "train/labels/a.png", "val/images/c.png", "val/labels/c.png"], 2, "train/labels/a.png"),
        (["img/a.jpg", "labels/a.png"], 1, "labels/a.png"),
        (["a.jpg", "labels/a.png"], 1, "labels/a.png"),
        (["train/a.jpg", "train_labels/a.png", "val/b.jpg", "val_labels/b.png"], 2, "train_labels/a.png"),
        (["a.jpg", "a_mask.png", "b.jpg", "b_mask.png"], 2, "a_mask.png"),
        (["images/a.jpg", "images/a_labelIds.png"], 1, "a_labelIds.png"),
        (["cat/a.jpg", "cat/a_mask.png"], 1, "cat/a_mask.png"),
        (["train_images/a.jpg", "train_masks/a.png"], 1, "train_masks/a.png"),
        (["img/a.jpg", "masks_machine/a.png"], 1, "masks_machine/a.png"),
    ],
)
def test_label_maps_among_photographs_are_refused(tmp_path: Path, names: list[str], count: int, first: str) -> None:
    root = write(tmp_path, names)
    folder = "images" if (root / "images").is_dir() else "ROOT"
    assert refusal(root, "all") == (
        f"{folder}: {count} label maps lie among the photographs (first: {first}); put photographs below images and "
        "label maps below masks, under the same names, such as images/train/a.jpg and masks/train/a.png"
    )
    found = check_dataset(DataCheckOptions(dataset="folder", root=root, split="all", workers=0))
    assert (len(found["problems"]), found["images"]) == (1, len(names) - count)
    assert set(found["images_of"]) <= {"cat"}


def test_what_the_refusal_advises_is_read(tmp_path: Path) -> None:
    root = write(tmp_path, ["images/train/a.jpg", "images/val/c.jpg", "masks/train/a.png", "masks/val/c.png"])
    assert [record.mask for record in load(root, "val").records] == [root / "masks/val/c.png"]


def test_voc_is_offered(tmp_path: Path) -> None:
    root = write(tmp_path, ["JPEGImages/a.jpg", "SegmentationClass/a.png"])
    assert refusal(root).endswith("such as images/train/a.jpg and masks/train/a.png; or is it --dataset voc?")


@pytest.mark.parametrize(
    "names",
    [
        ["cat/1.jpg", "dog/1.jpg", "label/1.jpg"],  # labels on bottles, say
        ["1.jpg", "1_mask.jpg"],  # a face with and without a mask
        ["cat_mask.png", "dog.png"],
        ["mask_on/1.png", "mask_off/1.png"],
        ["with_mask/1.png", "without_mask/1.png"],
    ],
)
def test_photographs_stay_photographs(tmp_path: Path, names: list[str]) -> None:
    assert len(load(write(tmp_path, names)).records) == len(names)


def test_folders_of_photographs_are_no_classes(tmp_path: Path) -> None:
    root = write(tmp_path, ["img/a.jpg", "img/b.jpg"])
    dataset = load(root)
    assert (dataset.classes, tags(dataset)) == (("background",), {"img/a": None, "img/b": None})
    assert dataset.notes == (f"{root}: folders img are not taken for classes; to make them some, name them in a list",)
    (root / "classes.txt").write_text("img\n")
    assert tags(load(root)) == {"img/a": ("img",), "img/b": ("img",)}

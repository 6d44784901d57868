"""New photographs: folders and files of which nothing is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.artefacts import read_header
from pseudolabel.data import Dataset, load_dataset
from pseudolabel.data.image_files import NAMES
from pseudolabel.data.opening import open_photographs
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import PredictMasksOptions
from tests.helpers.artefacts import write_maps

CLASSES = ("background", "shirt", "shoe")


def picture(path: Path, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (3, 2)).save(path)
    return path


def opened(*paths: Path) -> Dataset:
    return open_photographs(paths, CLASSES, {})


def ids(dataset: Dataset) -> list[str]:
    return [record.id for record in dataset.records]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Names as cameras and people give them."""
    for name in ("IMG 1.JPG", "b.png", "my shoes/c (2).webp", "my shoes/old/d.tif", ".hidden.png"):
        picture(tmp_path / "in" / name)
    return tmp_path / "in"


def test_a_folder_with_all_below_it(folder: Path) -> None:
    dataset = opened(folder)
    assert ids(dataset) == ["IMG 1", "b", "my shoes/c (2)", "my shoes/old/d"]
    assert (dataset.classes, dataset.split, dataset.tag_source, dataset.notes) == (CLASSES, "all", "none", ())
    assert {record.tags for record in dataset.records} == {None}
    assert dataset.spec() == {
        "dataset": "photographs",
        "root": folder.as_posix(),
        "split": "all",
        "tag_source": "none",
        "tags_file": None,
        "classes": list(CLASSES),
    }


def test_files_and_folders_together(folder: Path, tmp_path: Path) -> None:
    other = picture(tmp_path / "other" / "e.jpg")
    dataset = opened(folder / "b.png", folder / "my shoes", other, folder / "b.png")
    assert ids(dataset) == ["in/b", "in/my shoes/c (2)", "in/my shoes/old/d", "other/e"]
    assert dataset.root == tmp_path
    assert dataset.spec()["files"] == ["in/b.png", "in/my shoes/c (2).webp", "in/my shoes/old/d.tif", "other/e.jpg"]


def test_one_file_is_called_as_it_is(folder: Path) -> None:
    assert ids(opened(folder / "my shoes" / "c (2).webp")) == ["c (2)"]


@pytest.mark.parametrize("named", [[""], ["b.png", "my shoes/old/d.tif"]])
def test_they_are_found_again(folder: Path, tmp_path: Path, named: list[str]) -> None:
    dataset = opened(*(folder / name for name in named))
    again = load_dataset(dataset.spec())
    assert (ids(again), again.classes, again.spec()) == (ids(dataset), CLASSES, dataset.spec())
    assert again.as_input() == dataset.as_input()
    moved = folder.rename(tmp_path / "moved")
    assert load_dataset(dataset.spec(), root=moved).records[-1].image == moved / "my shoes/old/d.tif"


def test_photographs_are_decoded_as_those_of_the_training(folder: Path) -> None:
    dataset = open_photographs([folder], CLASSES, {"alpha": "drop", "photo_range": 4095})
    assert {(r.decoding.alpha, r.decoding.largest) for r in dataset.records} == {("drop", 4095)}
    assert load_dataset(dataset.spec()).records == dataset.records


@pytest.mark.parametrize("made", ["masks.h5", "masks.h5.partial", "soft.h5"])
def test_masks_that_were_written_among_them_are_none(folder: Path, made: str) -> None:
    picture(folder / "masks" / "b.png", "P")
    picture(folder / "masks" / "my shoes" / "c.png", "P")
    (folder / "masks" / made).touch()
    assert ids(opened(folder)) == ["IMG 1", "b", "my shoes/c (2)", "my shoes/old/d"]


def test_label_maps_among_them_are_left_out_with_a_word(tmp_path: Path) -> None:
    for name in ("images/a.jpg", "images/b.jpg"):
        picture(tmp_path / name)
    picture(tmp_path / "masks" / "a.png", "P")
    dataset = opened(tmp_path)
    assert ids(dataset) == ["images/a", "images/b"]
    assert dataset.notes == (
        f"1 label maps among the photographs of {tmp_path} are left out (first: {tmp_path}/masks/a.png)",
    )


def refusal(*paths: Path) -> str:
    with pytest.raises(InputError) as caught:
        opened(*paths)
    return str(caught.value)


def test_nothing_to_be_found(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refusal(empty) == f"{empty} holds no photograph; wanted {NAMES} files"
    assert refusal(empty, picture(tmp_path / "a.jpg")) == f"{empty} holds no photograph; wanted {NAMES} files"
    (empty / "phone.heic").touch()
    assert refusal(empty) == (
        f"{empty} holds no photograph; wanted {NAMES} files; 1 files of {empty} are pictures in formats that are not "
        f"read (first: {empty}/phone.heic), and are left out; convert them to one of {NAMES}"
    )
    gone = tmp_path / "gone"
    assert refusal(gone) == f"--images {gone} does not exist; pass a folder of photographs, or a file"


def test_two_of_one_name(tmp_path: Path) -> None:
    first, second = picture(tmp_path / "a.jpg"), picture(tmp_path / "a.png")
    assert refusal(tmp_path) == f"{second} and a.jpg have the same id 'a'; keep one of them"
    assert refusal(first, second) == f"{second} and a.jpg have the same id 'a'; keep one of them"
    other = picture(tmp_path / "B" / "x.png"), picture(tmp_path / "b" / "x.png")
    assert refusal(*other).startswith(f"ids 'B/x' and 'b/x' of split all of {tmp_path} differ by case or Unicode")


def test_a_file_that_is_gone_since(folder: Path) -> None:
    spec = opened(folder / "b.png", folder / "IMG 1.JPG").spec()
    (folder / "b.png").unlink()
    with pytest.raises(DatasetError) as caught:
        load_dataset(spec)
    assert str(caught.value) == (
        f"{folder}/b.png does not exist; pass --root with the folder where the photographs are now"
    )


def test_a_stored_file_that_leads_out_of_the_folder(folder: Path) -> None:
    spec = opened(folder / "b.png", folder / "IMG 1.JPG").spec()
    with pytest.raises(DatasetError, match=r"id '\.\./b' could lead out of the data set; wanted a plain name"):
        load_dataset(spec | {"files": ["../b.png"]})


def test_there_is_no_ground_truth(folder: Path) -> None:
    dataset = opened(folder)
    with pytest.raises(DatasetError) as caught:
        dataset.read_mask(dataset.records[1])
    assert str(caught.value) == f"{folder}/b.png is a new photograph, of which there is no ground truth"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tags": "dataset"}, "--tags dataset is for images of a data set; --images has no tags, leave one out"),
        ({"split": "val"}, "--split is for images of a data set; leave it or --images out"),
        ({"root": Path("x")}, "--root is for images of a data set; leave it or --images out"),
    ],
)
def test_what_does_not_go_with_them(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PredictMasksOptions.model_validate({"checkpoint": "net.h5", "out": "out", "images": "photos", **values})


def test_one_path_stands_for_several() -> None:
    options = PredictMasksOptions.model_validate({"checkpoint": "net.h5", "out": "out", "images": "a, b"})
    assert options.resolved()["images"] == ["a, b"]


def test_thousands_of_files_are_a_data_set(tmp_path: Path) -> None:
    content = picture(tmp_path / "f.png").read_bytes()
    paths = [tmp_path / f"photograph of a long name {number:05}.png" for number in range(3000)]
    for path in paths:
        path.write_bytes(content)
    dataset = opened(*paths)
    maps = [np.zeros((2, 3), np.uint8)] * 2
    made = write_maps(tmp_path / "masks.h5", "masks", dataset, maps)
    assert len(load_dataset(read_header(made).dataset).records) == 3000

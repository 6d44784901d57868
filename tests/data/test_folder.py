"""Folders of images: tags from a table or from the folders, masks if there are any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from pseudolabel.data import Dataset, load_dataset, read_image, reopen_dataset
from pseudolabel.data.check import check_dataset
from pseudolabel.data.decoding import Decoding
from pseudolabel.data.image_files import NAMES, SUFFIXES
from pseudolabel.errors import InputError
from pseudolabel.options import DataCheckOptions


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2)).save(path)


def load(root: Path, **changes: object) -> Dataset:
    return load_dataset({"dataset": "folder", "root": root, "split": "train"} | changes)


def refusal(root: Path, **changes: object) -> str:
    with pytest.raises(InputError) as caught:
        load(root, **changes)
    return str(caught.value).replace(f"{root}/", "").replace(str(root), "ROOT")


def tags(dataset: Dataset) -> dict[str, tuple[str, ...] | None]:
    names = dataset.classes
    return {r.id: None if r.tags is None else tuple(names[tag] for tag in r.tags) for r in dataset.records}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three images and a table that names two of them."""
    for name in ("b.png", "a.jpg", "deep/c.webp"):
        picture(tmp_path / name)
    (tmp_path / "tags.csv").write_text("id,tags\na,dog;cat\ndeep/c,\n")
    return tmp_path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """One folder a class, below ``images``."""
    for name in ("dog/1.png", "cat/1.png", "cat/more/2.png", "loose.png"):
        picture(tmp_path / "images" / name)
    return tmp_path


def test_a_table(table: Path) -> None:
    dataset = load(table)
    assert dataset.classes == ("background", "cat", "dog")
    assert tags(dataset) == {"a": ("cat", "dog"), "b": None, "deep/c": ()}
    assert (dataset.tag_source, dataset.tags_file, dataset.split) == ("csv", None, "train")
    assert load_dataset(dataset.spec()).records == dataset.records


def test_a_table_that_names_no_image_is_refused(table: Path) -> None:
    (table / "tags.csv").write_text("id,tags\na,dog\nd,cat\n")
    looked = f"(looked for {', '.join(SUFFIXES)})"
    assert refusal(table) == f"tags.csv, line 3: id 'd' has no image in ROOT {looked}"


def test_classes_are_named_by_their_file(table: Path) -> None:
    (table / "classes.txt").write_text("dog\nhorse\ncat\n")
    dataset = load(table)
    assert dataset.classes == ("background", "dog", "horse", "cat")
    assert dataset.records[0].tags == (1, 3)
    (table / "classes.txt").write_text("dog\ncta\n")
    assert refusal(table) == "tags.csv, line 2: unknown class 'cat' (did you mean 'cta'?)"


def test_one_folder_a_class(folders: Path) -> None:
    dataset = load(folders)
    assert tags(dataset) == {"cat/1": ("cat",), "cat/more/2": ("cat",), "dog/1": ("dog",), "loose": None}
    assert (dataset.classes, dataset.tag_source) == (("background", "cat", "dog"), "folders")
    (folders / "classes.txt").write_text("cat\nhog\n")
    assert refusal(folders) == "images/dog: unknown class 'dog' (did you mean 'hog'?)"


def test_masks(folders: Path) -> None:
    (folders / "masks/cat").mkdir(parents=True)
    Image.fromarray(np.array([[0, 1, 255]], dtype=np.uint8)).save(folders / "masks/cat/1.png")
    dataset = load(folders)
    np.testing.assert_array_equal(dataset.read_mask(dataset.records[0]), [[0, 1, 255]])
    assert [record.mask is not None for record in dataset.records] == [True, False, False, False]
    wanted = "--tag-source masks needs classes.txt, which names the labels in the masks"
    assert refusal(folders, tag_source="masks") == wanted
    (folders / "classes.txt").write_text("cat\ndog\n")
    oracle = load(folders, tag_source="masks")
    assert [record.tags for record in oracle.records] == [(1,), None, None, None]
    assert oracle.oracle


def test_masks_beside_the_images_are_no_images(table: Path) -> None:
    picture(table / "masks/a.png")
    assert [record.id for record in load(table).records] == ["a", "b", "deep/c"]


def test_images_that_nobody_described(tmp_path: Path) -> None:
    picture(tmp_path / "x.png")
    dataset = load(tmp_path)
    assert (dataset.classes, dataset.records[0].tags) == (("background",), None)


def test_splits(table: Path) -> None:
    assert len(load(table, split="all").records) == 3
    (table / "val.txt").write_text("b\n")
    assert [record.id for record in load(table, split="val").records] == ["b"]
    assert len(load(table, split="all").records) == 3
    assert refusal(table) == "--split train: no such list in ROOT, and no file of that name; known here: val, all"
    assert (
        refusal(table, split="classes")
        == "--split classes: no such list in ROOT, and no file of that name; known here: val, all"
    )
    (table / "val.txt").write_text("b\nbb\n")
    looked = f"(looked for {', '.join(SUFFIXES)})"
    assert refusal(table, split="val") == f"id 'bb' has no image in ROOT {looked}"


def test_a_text_that_is_no_list_leaves_train_all_images(table: Path) -> None:
    (table / "README.txt").write_text("Photographs of cats.\nTaken in 2019.\n")
    (table / "empty.txt").touch()
    (table / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    assert len(load(table).records) == 3
    (table / "mine.txt").write_text("b  1\n")
    assert refusal(table) == "--split train: no such list in ROOT, and no file of that name; known here: mine, all"
    (table / "mine.txt").unlink()
    (table / "val.txt").write_text("ghost\n")
    assert refusal(table) == "--split train: no such list in ROOT, and no file of that name; known here: val, all"


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert refusal(tmp_path) == f"ROOT holds no image; wanted {NAMES} files"
    picture(tmp_path / "a.png")
    assert (
        refusal(tmp_path, tag_source="xml")
        == "--tag-source xml is not for --dataset folder; wanted auto, folders, csv, masks"
    )
    assert refusal(tmp_path, tag_source="csv") == "--tag-source csv needs --tags-file, or a tags.csv in ROOT"


def test_classes_in_another_order_than_an_artefact_has_are_refused(table: Path) -> None:
    before = load(table)
    before.require_classes(("background", "cat", "dog"), Path("net.h5"))
    (table / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(InputError) as caught:
        load(table).require_classes(before.classes, Path("net.h5"))
    assert str(caught.value) == (
        f"net.h5 was made with other classes than {table} has: class 1 was 'cat', is 'dog'; "
        f"name the former in {table}/classes.txt (cat, dog), or train anew with these"
    )
    (table / "classes.txt").unlink()
    (table / "tags.csv").unlink()
    (table / "deep/c.webp").unlink()
    untagged = load(table, tag_source="none")
    assert untagged.classes == ("background",)
    untagged.require_classes(before.classes, Path("net.h5"))
    with pytest.raises(InputError, match=r"class 1 was 'cat', is 'none'"):
        untagged.require_classes(before.classes, Path("net.h5"), masks=True)


def test_every_format_of_photographs_is_found(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 3), (200, 100, 50), dtype=np.uint8)
    known = [ending for ending in SUFFIXES if ending != ".avif" or features.check("avif")]
    for number, ending in enumerate(known):
        image = Image.fromarray(pixels).convert("L" if ending == ".pgm" else "RGB")
        image.save(tmp_path / f"{number:02}{ending.upper() if number % 2 else ending}")
    dataset = load(tmp_path, split="all")
    assert [record.id for record in dataset.records] == [f"{number:02}" for number in range(len(known))]
    for record in dataset.records:
        grey = record.image.suffix.lower() == ".pgm"
        wanted = np.asarray(Image.fromarray(pixels).convert("L").convert("RGB")) if grey else pixels
        assert np.abs(read_image(record.image).astype(int) - wanted).max() <= 3, record.image  # some are lossy


def test_masks_that_are_no_png_are_refused_and_not_passed_over(table: Path) -> None:
    (table / "masks/deep").mkdir(parents=True)
    labels = Image.fromarray(np.ones((2, 3), dtype=np.uint8))
    labels.save(table / "masks/a.jpg")
    labels.save(table / "masks/b.jpeg")
    labels.save(table / "masks/deep/c.tif")
    (table / "classes.txt").write_text("cat\ndog\n")
    options = DataCheckOptions(dataset="folder", root=table, split="all", workers=0)
    masks = table / "masks"
    lossy = "lossy compression alters class indices: make them anew as 8-bit palette or grey PNG"
    assert [line for line in check_dataset(options)["problems"] if "masks/" in line] == [
        f"1 mask with the ending .jpeg (first: {masks}/b.jpeg); {lossy}",
        f"1 mask with the ending .jpg (first: {masks}/a.jpg); {lossy}",
        f"1 mask with the ending .tif (first: {masks}/deep/c.tif); convert to 8-bit palette or grey PNG",
    ]
    dataset = load(table, split="all")
    for record, said in zip(
        dataset.records,
        (
            "is a JPEG, whose lossy compression alters class indices; make the labels anew as 8-bit PNG, since "
            "converting this file does not bring them back",
            "is a JPEG, whose lossy compression alters class indices; make the labels anew as 8-bit PNG, since "
            "converting this file does not bring them back",
            "is a TIFF image; convert it to an 8-bit palette or grey PNG of class indices",
        ),
        strict=True,
    ):
        with pytest.raises(InputError) as caught:
            dataset.read_mask(record)
        assert str(caught.value) == f"{record.mask} {said}"
    labels.save(table / "masks/a.png")
    assert load(table, split="all").records[0].mask == masks / "a.png"


def test_masks_in_a_linked_folder_are_found(table: Path) -> None:
    (table / "elsewhere").mkdir()
    Image.fromarray(np.ones((2, 3), dtype=np.uint8)).save(table / "elsewhere/c.png")
    (table / "masks").mkdir()
    (table / "masks/deep").symlink_to("../elsewhere")
    found = {record.id: record.mask for record in load(table, split="all").records}
    assert found["deep/c"] == table / "masks/deep/c.png"


def test_the_decoding_is_stored_with_the_data_set(table: Path) -> None:
    usual = load(table, split="all")
    assert not {"alpha", "photo_range"} & usual.spec().keys()
    dataset = load(table, split="all", alpha="drop", photo_range=4095)
    assert {record.decoding for record in dataset.records} == {Decoding("drop", 4095)}
    again = reopen_dataset(dataset.spec())
    assert (again.records, again.spec()) == (dataset.records, dataset.spec())
    assert again.as_input() == dataset.as_input() != usual.as_input()

"""What ``data check`` counts of labels, what it says of classes and masks that do not fit, and its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pseudolabel.cli.app import main
from pseudolabel.data.check import check_dataset
from pseudolabel.options import DataCheckOptions
from pseudolabel.runtime.progress import Progress
from tests.helpers.voc import array, save


class Noticing(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def data(root: Path, tags: Mapping[str, str | None], masks: Mapping[str, list[int]], classes: str = "") -> Path:
    """A folder of images of 3 x 1 pixels, a table of tags, and masks."""
    (root / "images").mkdir()
    for name in tags:
        Image.new("RGB", (3, 1)).save(root / f"images/{name}.png")
    (root / "tags.csv").write_text("".join(f"{name},{tag}\n" for name, tag in tags.items() if tag is not None))
    for name, row in masks.items():
        save(root / f"masks/{name}.png", array([row]))
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


def check(root: Path, **changes: Any) -> tuple[dict[str, Any], list[str]]:
    """The result, and the warnings."""
    progress = Noticing()
    options = DataCheckOptions(**{"dataset": "folder", "root": root, "workers": 0} | changes)
    return check_dataset(options, progress), [line.replace(str(root), "ROOT") for line in progress.warnings]


def problems(root: Path, **changes: Any) -> list[str]:
    return [line.replace(str(root), "ROOT") for line in check(root, **changes)[0]["problems"]]


def test_one_class_saved_as_255(tmp_path: Path) -> None:
    root = data(tmp_path, {"a": "lesion", "b": "lesion", "c": ""}, {"a": [0, 255, 255], "b": [0, 0, 255], "c": [0] * 3})
    found, warnings = check(root)
    assert problems(root) == [
        "the ground truth of split train of ROOT holds background and ignored pixels and no class in 3 images; "
        "if 255 stands for a class in its masks, pass --mask-values 255=lesion (by their tags, 2 of them have one)"
    ]
    assert (found["images_of"], found["masks_of"], warnings) == ({"lesion": 2}, {"background": 3, "lesion": 0}, [])
    assert found["mask_values"] == {
        "0": {"means": "background", "images": 3},
        "255": {"means": "ignored", "images": 2},
    }
    found, warnings = check(root, mask_values=("255=lesion",))
    assert (found["problems"], warnings) == ([], [])
    assert found["masks_of"] == {"background": 3, "lesion": 2}
    assert found["mask_values"]["255"] == {"means": "lesion", "images": 2}


def test_masks_without_a_class_are_no_problem_where_the_tags_say_so(tmp_path: Path) -> None:
    root = data(tmp_path, {"a": "", "b": "", "c": "cat"}, {"a": [0, 0, 255], "b": [0, 0, 0]})
    assert (check(root)[0]["problems"], check(root)[1]) == ([], [])


def test_some_masks_saved_with_255(tmp_path: Path) -> None:
    root = data(tmp_path, {"a": "cat", "b": "cat", "c": "cat"}, {"a": [0, 1, 255], "b": [0, 0, 255], "c": [0, 0, 1]})
    found, warnings = check(root)
    assert found["problems"] == []
    assert warnings == [
        "1 masks hold ignored pixels and no class, though their images are tagged with some (b); "
        "does the ignored value stand for a class there?"
    ]


def test_classes_in_tags_that_no_mask_holds(tmp_path: Path) -> None:
    root = data(tmp_path, {"a": "cat;dog", "b": "dog", "c": "fox"}, {"a": [0, 1, 1], "b": [0, 1, 0]}, "cat\ndog\nfox\n")
    assert check(root)[1][1:] == [
        "classes that are tags of images with masks, but in none of these masks: dog (tag of 2)"
    ]


def test_class_names_that_look_wrong(tmp_path: Path) -> None:
    root = data(tmp_path, {"a": "3;5"}, {})
    assert check(root)[1] == ["all class names are numbers (3, 5); if they are indices or counts, write names instead"]
    (root / "classes.txt").write_text("cat dog\nfox\ndog bird\n3\n5\n")
    assert check(root)[1] == ["classes cat dog, dog bird share words; names are separated by ';', not by blanks"]
    (root / "classes.txt").write_text("void\n3\n5\n")
    assert check(root)[1] == [
        "class 'void' (index 1) counts as an object; if it stands for background or no object, "
        "leave it out of tags and call it background in lists; for pixels to be ignored, use --ignore-value"
    ]
    (root / "classes.txt").write_text("cat\nCat\n3\n5\n")
    assert check(root)[1] == ["classes 'cat' and 'Cat' differ by case or blanks only; are they two classes?"]


def test_masks_by_other_names(tmp_path: Path) -> None:
    root = data(tmp_path, {"a": "cat"}, {"a_mask": [0, 1, 1]})
    save(root / "labels/a.png", array([[0, 0, 1]]))
    found, warnings = check(root)
    assert warnings == [
        "ROOT/masks holds 1 files, none of them the mask of an image (first: a_mask.png); wanted ID.png, such as a.png",
        "ROOT/labels holds 1 PNG files with the names of images, which are not read; masks belong into ROOT/masks",
    ]
    assert found["left_out"] == {"masks": {"of no image": 1}}


def test_label_files_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    root = data(tmp_path, dict.fromkeys("abcd", "cat"), {"a": [0, 1, 9], "b": [0, 1], "c": [0, 0, 1], "e": [0]})
    (root / "train.txt").write_text("a\nb\nc\n")
    (root / "masks/c.jpg").write_text("")
    save(root / "masks/d.png", array([[0, 0, 1]]))
    save(root / "strokes/a.png", array([[255, 255, 1]]))
    save(root / "strokes/d.png", array([[255, 255, 1]]))
    found, _ = check(root, scribbles=root / "strokes")
    assert found["left_out"] == {
        "masks": {
            "a value without a meaning": 1,
            "another size than the image": 1,
            "no PNG": 1,
            "of images outside the list": 1,
            "of no image": 1,
        },
        "scribbles": {"of images outside the list": 1},
    }
    assert (found["masks"], found["scribbles"]) == (3, 1)


def test_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = data(tmp_path, {"a": "cat", "b": "dog"}, {"a": [0, 1, 255], "b": [0, 7, 1], "e": [0, 0, 0]})
    words = ["data", "check", "--dataset", "folder", "--root", str(root), "--workers", "0"]
    assert main(words) == 2
    assert rows(capsys.readouterr().out)[-9:] == [
        ["class", "index", "images in tags", "images in masks"],
        ["background", "0", "-", "2"],
        ["cat", "1", "1", "2"],
        ["dog", "2", "1", "0"],
        ["(ignored)", "255", "-", "1"],
        ["(no class)", "7", "-", "1"],
        ["labels", "not used", "files"],
        ["masks", "a value without a meaning", "1"],
        ["masks", "of no image", "1"],
    ]
    assert main([*words, "--mask-values", "1=cat,7=dog"]) == 0
    assert rows(capsys.readouterr().out)[-7:-2] == [
        ["class", "index", "value in masks", "images in tags", "images in masks"],
        ["background", "0", "0", "-", "2"],
        ["cat", "1", "1", "1", "2"],
        ["dog", "2", "7", "1", "1"],
        ["(ignored)", "-", "255", "-", "1"],
    ]


def rows(text: str) -> list[list[str]]:
    """The cells of printed tables."""
    lines = (line.replace("┃", "│") for line in text.splitlines() if line[:1] in ("┃", "│"))
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]

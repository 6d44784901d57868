"""``data check``, ``data tags`` and ``data synth``: every fault of a data set at once, and the commands' exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel.cli.app import main
from pseudolabel.data import load_dataset
from pseudolabel.data.check import check_dataset
from pseudolabel.data.image_files import NAMES, SUFFIXES
from pseudolabel.errors import InputError
from pseudolabel.options import DataCheckOptions


@pytest.fixture
def root(synthetic_root: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic data set, to be spoilt."""
    return Path(shutil.copytree(synthetic_root, tmp_path / "set"))


def check(root: Path, **changes: Any) -> dict[str, Any]:
    return check_dataset(DataCheckOptions(**{"root": root, "workers": 0} | changes))


def problems(root: Path, **changes: Any) -> list[str]:
    return [
        problem.replace(f"{root}/", "").replace(str(root), "ROOT") for problem in check(root, **changes)["problems"]
    ]


def spoil(root: Path) -> list[str]:
    """Spoil a synthetic data set in every way; what ``data check`` must say about it, in its order."""
    (root / "ImageSets/Segmentation/train.txt").write_text(
        "".join(f"scene_0000{number}\n" for number in range(8)) + "../secret\nscene_00000\nabsent\nscene_00008\n"
    )
    shutil.copy(root / "JPEGImages/scene_00000.jpg", root / "JPEGImages/scene_00000.png")
    (root / "Annotations/scene_00001.xml").write_text("<!DOCTYPE a [<!ENTITY x 'y'>]><annotation>&x;</annotation>")
    (root / "Annotations/scene_00002.xml").write_text(
        "<annotation><object><name>fihs</name></object><object><name>ball</name></object></annotation>"
    )
    (root / "Annotations/scene_00003.xml").unlink()
    (root / "JPEGImages/scene_00004.jpg").write_bytes((root / "JPEGImages/scene_00004.jpg").read_bytes()[:-200])
    (root / "JPEGImages/scene_00005.jpg").write_text("a text")
    Image.fromarray(np.zeros((5, 7), dtype=np.uint8)).save(root / "SegmentationClass/scene_00006.png")
    mask = np.asarray(Image.open(root / "SegmentationClass/scene_00007.png")).copy()
    mask[0, 0] = 77
    Image.fromarray(mask).save(root / "SegmentationClass/scene_00007.png")
    Image.fromarray(np.zeros((5, 7, 3), dtype=np.uint8)).save(root / "SegmentationClass/scene_00008.png")
    with Image.open(root / "JPEGImages/scene_00006.jpg") as image:
        size = f"{image.width} x {image.height}"
    path = "ImageSets/Segmentation/train.txt"
    return [
        "JPEGImages/scene_00000.png and scene_00000.jpg have the same id 'scene_00000'; keep one of them",
        f"{path}, line 9: id '../secret' could lead out of the data set; wanted a plain name",
        f"{path}, line 10: id 'scene_00000' stands already on line 1; remove one of them",
        f"id 'absent' has no image in JPEGImages (looked for {', '.join(SUFFIXES)})",
        "Annotations/scene_00001.xml declares XML entities, which are refused as unsafe; remove its DOCTYPE",
        "Annotations/scene_00002.xml: unknown class 'fihs' (did you mean 'fish'?)",
        "ROOT: id 'scene_00001' has no tags in xml, but others have",
        "ROOT: id 'scene_00003' has no tags in xml, but others have",
        "JPEGImages/scene_00004.jpg is truncated; replace or remove it",
        f"JPEGImages/scene_00005.jpg is no {NAMES} image (it begins with b'a text'); replace or remove it",
        f"SegmentationClass/scene_00006.png is 7 x 5 pixels, its image {size}",
        "SegmentationClass/scene_00007.png holds label 77; wanted 0 to 5, or 255 for ignore; "
        "--mask-values and --ignore-value say what other values mean",
        "SegmentationClass/scene_00008.png is an RGB picture; wanted class indices: an 8-bit palette or grey PNG",
    ]


def test_a_sound_data_set(root: Path) -> None:
    dataset = load_dataset({"dataset": "voc", "root": root, "split": "train"})
    names, tagged = dataset.classes[1:], [record.tags or () for record in dataset.records]
    assert sum(map(len, tagged)) >= 8
    images_of = {name: sum(label in tags for tags in tagged) for label, name in enumerate(names, start=1)}
    values = {label: count for label, count in enumerate(images_of.values(), start=1) if count}
    assert check(root) == {
        "root": str(root),
        "split": "train",
        "classes": 5,
        "images": 8,
        "tagged": 8,
        "images_of": images_of,
        "masks": 8,
        "masks_of": {"background": 8} | images_of,
        "mask_values": {
            str(label): {"means": dataset.classes[label], "images": count} for label, count in ({0: 8} | values).items()
        }
        | {"255": {"means": "ignored", "images": 8}},
        "left_out": {"masks": {"of images outside the list": 4}},
        "tag_source": "xml",
        "oracle": [],
        "problems": [],
    }


def test_every_problem_is_listed_at_once_and_in_the_same_order_by_processes(root: Path) -> None:
    wanted = spoil(root)
    assert problems(root) == wanted
    assert problems(root, workers=2) == wanted


def test_a_mask_that_tags_are_read_from_is_named_once(root: Path) -> None:
    wanted = spoil(root)
    found = problems(root, tag_source="masks")
    assert len(found) == len(set(found))
    assert set(wanted[-2:]) < set(found)


def test_masks_with_classes_that_the_tags_exclude_are_counted_in_a_warning(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tags of scene_00001 that leave out class 2 of its mask, and of scene_00003 that leave out classes 1 and 4."""
    names = load_dataset({"dataset": "voc", "root": root, "split": "train"}).classes
    assert check(root)["problems"] == []
    assert capsys.readouterr().err == ""
    for name, stripes, tag in (("scene_00001", (2,), 1), ("scene_00003", (1, 4), 2)):
        mask = np.full_like(np.asarray(Image.open(root / f"SegmentationClass/{name}.png")), 255)
        mask[0] = (0, tag, *stripes)[-1]
        mask[1] = (0, tag, *stripes)[-len(stripes)]
        mask[2] = tag
        Image.fromarray(mask).save(root / f"SegmentationClass/{name}.png")
        (root / f"Annotations/{name}.xml").write_text(
            f"<annotation><object><name>{names[tag]}</name></object></annotation>"
        )
    for workers in (0, 2):
        assert check(root, workers=workers)["problems"] == []
        assert capsys.readouterr().err == (
            f"warning: the masks of 2 images have classes that their tags exclude (first: 'scene_00001': {names[2]}); "
            "tags (xml) and masks may be of different images, or their classes in another order\n"
        )


def test_what_stops_everything_is_a_problem_too(root: Path) -> None:
    (root / "classes.txt").write_text("ball\nball\n")
    assert problems(root) == ["classes.txt: class 'ball' stands twice; every class needs a name of its own"]
    assert problems(root / "nowhere") == [
        "data set folder ROOT does not exist; pass --root with the folder's place now"
    ]


def test_wrong_usage_is_an_error(root: Path) -> None:
    with pytest.raises(InputError, match=r"^--split none: no such list"):
        check(root, split="none")


def test_coco_annotations_are_checked_against_the_images(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "height": 4, "width": 4},
            {"id": 2, "file_name": "b.png", "height": 4, "width": 4},
            {"id": 3},
        ],
        "categories": [{"id": 5, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 6, "segmentation": []},
            {"id": 2, "image_id": 1, "category_id": 5, "segmentation": [[1]]},
            {"id": 3, "image_id": 1, "category_id": 5, "segmentation": [[0, 0, 2, 0, 2, 2]]},
            {"id": 4, "category_id": 5},
        ],
    }
    (tmp_path / "annotations/instances_val.json").write_text(json.dumps(content))
    Image.new("RGB", (4, 5)).save(tmp_path / "a.png")
    json_file = "annotations/instances_val.json"
    assert problems(tmp_path, dataset="coco", split="val") == [
        f"{json_file}: image 'b.png' is in none of ROOT",
        f"{json_file}: images[2] lacks the key 'file_name'",
        f"{json_file}: an annotation of image 1 has category_id 6, which no category has",
        f"{json_file}: annotation 2 of image 1: a polygon has a coordinate too many, or one that lies in no image",
        f"{json_file}: annotations[3] lacks the key 'image_id'",
        "the ground truth of a.png is for 4 x 4 pixels, its image has 4 x 5; use the photographs that were annotated",
    ]


def test_the_check_command_exits_with_2_where_there_is_a_problem(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data", "check", "--dataset", "voc", "--root", str(root), "--workers", "0"]
    assert main(words) == 0
    assert capsys.readouterr().err == ""
    wanted = spoil(root)
    assert main([*words, "--json"]) == 2
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["problems"]) == len(wanted)
    assert captured.err == ""
    assert main(words) == 2
    assert capsys.readouterr().out.splitlines()[: len(wanted)] == check(root)["problems"]


def test_the_check_command_explains_wrong_usage(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--dataset", "vco", "--root", str(root)]) == 2
    assert capsys.readouterr().err.startswith(
        "error: data check: --dataset: should be 'voc', 'coco', 'folder' or 'synthetic'"
    )
    assert main(["data", "check"]) == 2
    assert (
        capsys.readouterr().err == "error: --root is required for --dataset voc: the folder that holds the data set\n"
    )


def test_the_tags_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "tags", "--root", str(root), "--split", "val"]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0] == "id,tags"
    assert len(table.splitlines()) == 5
    assert main([*words, "--out", str(tmp_path / "tags.csv"), "--json"]) == 0
    out = str(tmp_path / "tags.csv")
    assert json.loads(capsys.readouterr().out) == {"out": out, "images": 4, "tag_source": "xml", "oracle": []}
    assert (tmp_path / "tags.csv").read_text() == table
    assert main([*words, "--tags-file", out]) == 0
    assert capsys.readouterr().out == table
    assert main([*words, "--tag-source", "masks"]) == 0
    captured = capsys.readouterr()
    assert captured.out == table
    assert captured.err == "warning: oracle: image tags read from pixel masks\n"


def test_the_synth_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "synth", "--out", str(tmp_path / "s"), "--train", "2", "--val", "1", "--size", "32", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["train"] == 2
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/s is not empty; choose another --out, or remove it first\n"
    assert main(["data", "synth"]) == 2
    assert capsys.readouterr().err == "error: data synth: --out is required\n"

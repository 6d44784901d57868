"""The synthetic data set: the same bytes for the same seed, tags and boxes that agree with its masks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from defusedxml import ElementTree
from PIL import Image
from pydantic import ValidationError

from pseudolabel.data import load_dataset, read_image
from pseudolabel.data.layouts.synthetic import synth
from pseudolabel.data.layouts.synthetic_scenes import CLASSES, draw_scene
from pseudolabel.errors import InputError
from pseudolabel.options import SynthOptions


def digests(root: Path) -> dict[str, str]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes(synthetic_root: Path, tmp_path: Path) -> None:
    synth(SynthOptions(out=tmp_path / "same", train=8, val=4, size=64))
    synth(SynthOptions(out=tmp_path / "other", train=8, val=4, size=64, seed=1))
    first, same, other = (digests(root) for root in (synthetic_root, tmp_path / "same", tmp_path / "other"))
    assert len(first) == 3 * 12 + 3
    assert first == same
    unchanged = {name for name in first if first[name] == other[name]}
    assert unchanged == {"classes.txt", "ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "same"]  # nothing half-made is left


def test_tags_are_those_of_the_masks(synthetic_root: Path) -> None:
    for split, count in (("train", 8), ("val", 4)):
        spec = {"dataset": "synthetic", "root": synthetic_root, "split": split}
        weak, oracle = load_dataset(spec), load_dataset(spec | {"tag_source": "masks"})
        assert weak.name == "synthetic"
        assert weak.classes == CLASSES
        assert len(weak.records) == count
        assert weak.records == oracle.records
        for record in weak.records:
            assert read_image(record.image).shape[:2] == weak.read_mask(record).shape
            assert max(weak.read_mask(record).shape) == 64


def test_boxes_hold_their_objects(synthetic_root: Path) -> None:
    for path in sorted((synthetic_root / "Annotations").glob("*.xml")):
        mask = np.asarray(Image.open(synthetic_root / "SegmentationClass" / f"{path.stem}.png"))
        inside = np.zeros(mask.shape, dtype=bool)
        for item in ElementTree.parse(path).getroot().findall("object"):
            x1, y1, x2, y2 = (int(item.find("bndbox").findtext(key)) for key in ("xmin", "ymin", "xmax", "ymax"))
            inside[y1 - 1 : y2, x1 - 1 : x2] = True
            part = mask[y1 - 1 : y2, x1 - 1 : x2]
            label = CLASSES.index(item.findtext("name"))
            assert (part[[0, -1]] != 0).any(axis=1).all()  # the box is tight
            assert (part == label).any()
        assert not (~inside & (mask > 0) & (mask < 255)).any()


def test_every_class_occurs_and_fish_like_water() -> None:
    scenes = [draw_scene(48, 64, np.random.default_rng([0, number])) for number in range(150)]
    labels = [{box.label for box in boxes} for _, _, boxes in scenes]
    assert {len(boxes) for _, _, boxes in scenes} == {1, 2, 3}
    assert all(sum(label in present for present in labels) > 20 for label in range(1, len(CLASSES)))
    corner = np.array([image[:2, -2:].mean(axis=(0, 1)) for image, _, _ in scenes])
    water = (corner[:, 2] > corner[:, 0] + 45) & (corner[:, 1] > corner[:, 0] + 25)  # blue-green
    fish = np.array([CLASSES.index("fish") in present for present in labels])
    assert water[fish].mean() > 0.6  # an object may hide the corner, and the sky is blue too
    assert water[~fish].mean() < 0.4
    for image, mask, _ in scenes:
        assert (image.dtype, mask.dtype) == (np.uint8, np.uint8)
        assert set(np.unique(mask)) <= {0, 1, 2, 3, 4, 5, 255}


def test_loading_makes_a_missing_one_with_default_settings(tmp_path: Path) -> None:
    spec = {"dataset": "synthetic", "root": tmp_path / "new/set", "split": "train"}
    defaults = SynthOptions(out=tmp_path)
    assert len(load_dataset(spec).records) == defaults.train
    made = (tmp_path / "new/set/classes.txt").stat().st_mtime_ns
    assert len(load_dataset(spec | {"split": "val"}).records) == defaults.val
    assert (tmp_path / "new/set/classes.txt").stat().st_mtime_ns == made


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    result = synth(SynthOptions(out=tmp_path, train=1, val=1, size=32))
    assert result == {"out": str(tmp_path), "train": 1, "val": 1, "classes": ["ball", "house", "kite", "star", "fish"]}
    assert len(load_dataset({"dataset": "synthetic", "root": tmp_path, "split": "val"}).records) == 1


def test_a_full_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InputError) as caught:
        synth(SynthOptions(out=tmp_path))
    assert str(caught.value) == f"{tmp_path} is not empty; choose another --out, or remove it first"
    with pytest.raises(InputError, match="has no folder JPEGImages"):
        load_dataset({"dataset": "synthetic", "root": tmp_path, "split": "train"})
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_sizes_have_bounds(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        SynthOptions(out=tmp_path / "x", size=8)

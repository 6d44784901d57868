"""Real masks through every format that is read, and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from pseudolabel.data import load_dataset
from tests.helpers.interop import assert_same, exported, imported, labels_of
from tests.interop.test_label_studio import annotated

COUNT = 20


@pytest.mark.parametrize(
    ("name", "back", "place", "package"),
    [
        ("coco", "coco", "coco.json", "pycocotools"),
        ("coco-polygons", "coco", "coco.json", "pycocotools"),
        ("cvat", "cvat", "cvat.zip", "PIL"),
        ("label-studio", "label-studio", "project.json", "label_studio_sdk"),
        ("labelme", "labelme", "labelme", "supervision"),
        ("yolo", "yolo", "yolo", "supervision"),
    ],
)
@pytest.mark.parametrize("instances", [False, True])
def test_real_masks_come_back_as_they_were(
    name: str, back: str, place: str, package: str, instances: bool, voc_mini: Path, tmp_path: Path
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    dataset = load_dataset({"dataset": "voc", "root": str(voc_mini), "split": "val"})
    masks = [dataset.read_mask(record) for record in dataset.records[:COUNT]]
    assert any((mask == 255).any() for mask in masks)
    out = exported(tmp_path, dataset, masks, as_=name, instances=instances)
    path = annotated(out, out / place) if name == "label-studio" else out / place
    result = imported(path, out, tmp_path / "back.h5", back)
    assert_same(labels_of(tmp_path / "back.h5"), masks)
    assert (result["corrected"], result["changed_pixels"]) == (COUNT, 0)

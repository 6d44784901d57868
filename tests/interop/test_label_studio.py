"""Label Studio: brush predictions with a score that its own converter decodes, and annotations back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pseudolabel.data import Dataset
from pseudolabel.errors import DatasetError, MissingExtraError
from pseudolabel.interop.label_studio import label_config
from pseudolabel.options import ExportMasksOptions
from pseudolabel.stages.export_masks import export_masks
from tests.helpers.artefacts import synthetic, write_maps
from tests.helpers.interop import assert_same, exported, hard_masks, imported, labels_of

BRUSH = "label_studio_sdk.converter.brush"


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


@pytest.fixture(scope="module")
def out(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export. Read it, but change nothing in it."""
    pytest.importorskip(BRUSH, reason="label-studio-sdk is not installed")
    return exported(tmp_path_factory.mktemp("label-studio"), dataset, hard_masks(dataset), as_="label-studio")


def tasks_of(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "label-studio" / "tasks.json").read_text())
    return found


def annotated(out: Path, place: Path) -> Path:
    """The predictions as somebody submitted them, in the form of an export."""
    tasks = [
        {"id": number, "data": task["data"], "annotations": [{"result": task["predictions"][0]["result"]}]}
        for number, task in enumerate(tasks_of(out), 1)
    ]
    place.write_text(json.dumps(tasks))
    return place


def test_the_sdk_decodes_every_pixel(out: Path, dataset: Dataset) -> None:
    brush = pytest.importorskip(BRUSH, reason="label-studio-sdk is not installed")
    tasks = tasks_of(out)
    assert [task["data"]["id"] for task in tasks] == [record.id for record in dataset.records[:3]]
    assert tasks[0]["data"]["image"] == f"/data/local-files/?d=JPEGImages/{dataset.records[0].image.name}"
    for task, mask in zip(tasks, hard_masks(dataset), strict=True):
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "pseudolabel"
        drawn = np.zeros_like(mask)
        for result in prediction["result"]:
            (name,) = result["value"]["brushlabels"]
            assert (result["original_height"], result["original_width"]) == mask.shape
            inside = brush.decode_rle(result["value"]["rle"]).reshape(*mask.shape, 4)[:, :, 3] == 255
            drawn[inside] = dataset.classes.index(name)
        np.testing.assert_array_equal(drawn, np.where(mask == 255, 0, mask))


def test_what_nobody_touched_comes_back_as_it_was(out: Path, dataset: Dataset, tmp_path: Path) -> None:
    path = annotated(out, tmp_path / "project.json")
    result = imported(path, out, tmp_path / "back.h5", "label-studio")
    assert_same(labels_of(tmp_path / "back.h5"), hard_masks(dataset))
    assert (result["corrected"], result["changed"]) == (3, 0)


def test_the_score_is_the_mean_of_the_largest_probability(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip(BRUSH, reason="label-studio-sdk is not installed")
    maps = {0: np.array([[255, 102], [51, 0]]), 1: np.array([[0, 153], [204, 255]]), 255: np.array([[255, 0], [0, 0]])}
    soft = write_maps(tmp_path / "soft.h5", "soft-labels", dataset, [maps])
    export_masks(ExportMasksOptions(labels=soft, out=tmp_path / "out", workers=1, as_="label-studio"))
    (task,) = tasks_of(tmp_path / "out")
    assert task["predictions"][0]["score"] == 0.85  # (1 + 0.6 + 0.8 + 1) / 4
    plain = exported(tmp_path / "masks", dataset, hard_masks(dataset)[:2])
    export_masks(ExportMasksOptions(labels=plain / "masks.h5", out=tmp_path / "plain", workers=1, as_="label-studio"))
    assert "score" not in tasks_of(tmp_path / "plain")[0]["predictions"][0]


def test_the_interface_names_every_class_in_its_colour() -> None:
    found = ElementTree.fromstring(label_config(("background", 'a "b" & <c>', "dog")))
    assert [dict(label.attrib) for label in found.iter("Label")] == [
        {"value": 'a "b" & <c>', "background": "#800000"},
        {"value": "dog", "background": "#008000"},
    ]


def region(kind: str, value: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    return {"type": kind, "original_height": size[0], "original_width": size[1], "value": value}


def test_the_last_annotation_counts_and_polygons_are_read(out: Path, dataset: Dataset, tmp_path: Path) -> None:
    masks = hard_masks(dataset)
    tall, wide = masks[0].shape
    corners = [[4, 2], [12, 2], [12, 8], [4, 8]]
    points = [[100 * x / wide, 100 * y / tall] for x, y in corners]
    polygon = region("polygonlabels", {"points": points, "polygonlabels": [dataset.classes[2]]}, (tall, wide))
    name = dataset.records[0].image.name
    task = {
        "id": 5,
        "data": {"image": f"/data/upload/3/0a1b2c3d-{name}"},
        "annotations": [
            {"updated_at": "2026-02-01", "result": [polygon, {"type": "choices", "value": {"choices": ["bad"]}}]},
            {"updated_at": "2026-01-01", "result": []},
            {"updated_at": "2026-03-01", "result": [], "was_cancelled": True},
        ],
    }
    path = tmp_path / "project.json"
    path.write_text(json.dumps([task, {"id": 6, "data": task["data"], "annotations": []}]))
    assert imported(path, out, tmp_path / "back.h5", "label-studio", unlabelled="background")["corrected"] == 1
    wanted = np.zeros_like(masks[0])
    wanted[2:8, 4:12] = 2
    assert_same(labels_of(tmp_path / "back.h5"), [wanted, *masks[1:]])


def test_what_a_file_cannot_be(out: Path, dataset: Dataset, tmp_path: Path) -> None:
    path, masks = tmp_path / "project.json", out / "masks.h5"
    image, (tall, wide) = dataset.records[0], hard_masks(dataset)[0].shape
    data = {"image": f"/data/local-files/?d=JPEGImages/{image.image.name}"}
    wanted = "wanted Label Studio's list of tasks (export as JSON, not as JSON-MIN)"
    brush = {"rle": [0, 0, 0, 1], "brushlabels": [dataset.classes[1]]}

    def task(*regions: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
        return [{"id": 5, "data": data, "annotations": [{"result": list(regions)}]} | changes]

    box = region("rectanglelabels", {"rectanglelabels": ["x"]}, (tall, wide))
    small = region("brushlabels", brush, (tall, wide + 1))
    for content, said in (
        ({}, f"{path} holds no list of objects; {wanted}"),
        (
            task(annotations=[]),
            f"{path} holds no corrected image; export the annotations from the other tool first",
        ),
        (
            task(data={"image": "elsewhere.jpg"}),
            f"{path}: image 'elsewhere.jpg' is none of the 3 images of {masks}; pass the masks that were corrected as "
            "--masks",
        ),
        (
            task(data={}),
            f"{path}: task 5 names no image in data.image; keep the field of the tasks that were imported",
        ),
        (
            task(small),
            f"{path}: image {image.id!r} is {wide + 1} x {tall} pixels there and {wide} x {tall} in {masks}; correct "
            "the masks at the size of the photographs",
        ),
        (
            task(box),
            f"{path}: task 5 has a region of type 'rectanglelabels'; wanted brushlabels or polygonlabels: draw it anew",
        ),
        (
            task(region("brushlabels", brush | {"brushlabels": []}, (tall, wide))),
            f"{path}: task 5 has a region with labels []; give each region one label",
        ),
        (
            task(region("brushlabels", brush, (tall, wide))),
            f"{path}: task 5 has run lengths that do not fill its image; export the project anew",
        ),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(DatasetError) as caught:
            imported(path, out, tmp_path / "back.h5", "label-studio")
        assert str(caught.value) == said
        assert [item.name for item in tmp_path.iterdir()] == ["project.json"]


def test_without_the_package_the_extra_is_named(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, BRUSH, None)
    with pytest.raises(MissingExtraError) as caught:
        exported(tmp_path, dataset, hard_masks(dataset), as_="label-studio")
    assert str(caught.value) == (
        "--as label-studio needs the package label-studio-sdk, which is not installed; run: pip install "
        '"pseudolabel[interop]"'
    )
    assert not (tmp_path / "out").exists()

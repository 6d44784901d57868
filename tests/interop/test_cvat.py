"""CVAT's mask zip: datumaro, with which CVAT reads it, opens it; and every pixel back again."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data import Dataset
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.interop.cvat import check
from pseudolabel.interop.outgoing import object_regions
from tests.helpers.artefacts import synthetic
from tests.helpers.interop import assert_same, exported, hard_masks, imported, labels_of, round_trip


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


@pytest.mark.parametrize("instances", [False, True])
def test_datumaro_finds_every_pixel(instances: bool, dataset: Dataset, tmp_path: Path) -> None:
    components = pytest.importorskip("datumaro.components.dataset", reason="datumaro is not installed")
    masks = hard_masks(dataset)
    out = exported(tmp_path, dataset, masks, as_="cvat", instances=instances)
    with zipfile.ZipFile(out / "cvat.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    found = components.Dataset.import_from(str(tmp_path / "unpacked"), "voc_segmentation")
    items = {item.id: item for item in found}
    assert sorted(items) == sorted(record.id for record in dataset.records[:3])
    categories = next(iter(found.categories().values()))
    for record, mask in zip(dataset.records, masks, strict=False):
        drawn, objects = np.zeros_like(mask), 0
        for annotation in items[record.id].annotations:
            label = dataset.classes.index(categories[annotation.label].name)
            drawn[np.asarray(annotation.image, dtype=bool)] = label
            objects += label > 0
        np.testing.assert_array_equal(drawn, np.where(mask == 255, 0, mask))
        assert objects == len(object_regions(mask, instances=instances))


@pytest.mark.parametrize("instances", [False, True])
def test_what_nobody_touched_comes_back_as_it_was(instances: bool, dataset: Dataset, tmp_path: Path) -> None:
    round_trip(tmp_path, dataset, "cvat", "cvat.zip", instances=instances)


def test_equal_masks_make_equal_files(dataset: Dataset, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        out = exported(tmp_path / name, dataset, hard_masks(dataset), as_="cvat")
        found.append((out / "cvat.zip").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["cat: black", "# cat", "cat "])
def test_a_class_name_that_a_labelmap_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        check(("background", name), [])
    assert str(caught.value) == (
        f"class {name!r} cannot be written: CVAT's labelmap.txt holds no colon, no line break, no # at the beginning; "
        "rename it in the data set, or use --as coco"
    )


def zipped(path: Path, files: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def picture(colours: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, format="PNG")
    return buffer.getvalue()


def test_cvats_own_colours_and_its_unlabelled_are_read(dataset: Dataset, tmp_path: Path) -> None:
    masks = hard_masks(dataset)
    out = exported(tmp_path, dataset, masks)
    colours = np.zeros((*masks[0].shape, 3), dtype=np.uint8)
    colours[:5], colours[5:9] = (250, 50, 83), (1, 2, 3)
    labelmap = f"# label:color_rgb:parts:actions\nbackground:0,0,0::\n{dataset.classes[3]}:250,50,83::\n"
    labelmap += "unlabelled:1,2,3::\n"
    files: dict[str, bytes | str] = {
        "labelmap.txt": labelmap,
        f"SegmentationClass/JPEGImages/{dataset.records[0].id}.png": picture(colours),
    }
    imported(zipped(tmp_path / "task.zip", files), out, tmp_path / "back.h5", "cvat", unlabelled="background")
    wanted = np.zeros_like(masks[0])
    wanted[:5], wanted[5:9] = 3, 255
    assert_same(labels_of(tmp_path / "back.h5"), [wanted, *masks[1:]])


def test_what_a_file_cannot_be(dataset: Dataset, tmp_path: Path) -> None:
    masks = hard_masks(dataset)
    out = exported(tmp_path, dataset, masks)
    path, name = tmp_path / "task.zip", dataset.records[0].id
    tall, wide = masks[0].shape
    plain = "background:0,0,0::\n"
    black = np.zeros((tall, wide, 3), dtype=np.uint8)
    red = np.where(np.ones((tall, wide, 1), dtype=bool), np.array([9, 8, 7], dtype=np.uint8), 0).astype(np.uint8)
    place = f"SegmentationClass/{name}.png"
    for files, said in (
        ({"a.txt": "b"}, f"{path} holds no labelmap.txt; export the task from CVAT as Segmentation mask 1.1"),
        (
            {"labelmap.txt": "cat:1,2::\n"},
            f"{path}: line 1 of labelmap.txt is 'cat:1,2::'; wanted LABEL:RED,GREEN,BLUE::",
        ),
        (
            {"labelmap.txt": plain, "SegmentationClass/other.png": picture(black)},
            f"{path}: image 'other.png' is none of the 3 images of {out / 'masks.h5'}; pass the masks that were "
            "corrected as --masks",
        ),
        (
            {"labelmap.txt": plain, place: picture(black[:4, :5])},
            f"{path}: image {name!r} is 5 x 4 pixels there and {wide} x {tall} in {out / 'masks.h5'}; correct the "
            "masks at the size of the photographs",
        ),
        (
            {"labelmap.txt": plain, place: picture(red)},
            f"{path}: {place} has colour 9,8,7, which no label of labelmap.txt has; export it anew",
        ),
        (
            {"labelmap.txt": plain + "zebra:9,8,7::\n", place: picture(red)},
            f"{path}: label 'zebra' is no class of {out / 'masks.h5'} ({', '.join(dataset.classes[1:])}); rename it, "
            "or remove its objects",
        ),
        (
            {"labelmap.txt": plain, place: b"no picture"},
            f"{path}: {place} cannot be read as a PNG; export the task from CVAT anew",
        ),
    ):
        zipped(path, files)
        with pytest.raises(DatasetError) as caught:
            imported(path, out, tmp_path / "back.h5", "cvat")
        assert str(caught.value) == said
        assert not (tmp_path / "back.h5").exists()
    path.write_bytes(b"no zip")
    with pytest.raises(DatasetError, match=r"is no zip file; wanted CVAT's export as Segmentation mask 1\.1$"):
        imported(path, out, tmp_path / "back.h5", "cvat")

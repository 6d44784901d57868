"""export-masks: the same labels in PNG, masks.h5 and COCO's JSON; nothing half-written; no way out of the folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pseudolabel.artefacts import MapsReader, open_artefact, read_header
from pseudolabel.data import Dataset, load_dataset, read_image
from pseudolabel.data.image_files import NAMES
from pseudolabel.data.images import read_label_png
from pseudolabel.errors import ArtefactError, DatasetError, InputError
from pseudolabel.labels.assignment import assign, from_soft
from pseudolabel.options import ExportMasksOptions
from pseudolabel.stages.export_masks import export_masks
from tests.helpers.artefacts import (
    Interrupting,
    Meanwhile,
    blurred_truth,
    interrupted,
    read_maps,
    synthetic,
    write_maps,
    write_thresholds,
)
from tests.helpers.training import Listening

COUNT = 5


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


@pytest.fixture(scope="module")
def soft(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Soft labels whose label maps are ground truth with its first rows unlabelled."""
    found = []
    for record in dataset.records[:COUNT]:
        mask = dataset.read_mask(record)
        ignored = np.where(mask == 255, 255, 0)
        ignored[:4] = 255
        maps = {label: np.where(mask == label, 200, 20) for label in (0, *(record.tags or ()))}
        found.append(maps | {255: ignored})
    path = tmp_path_factory.mktemp("soft") / "soft.h5"
    return write_maps(path, "soft-labels", dataset, found, protocol={"split": "train", "crf": "irn"})


def options(labels: Path, out: Path, **values: Any) -> ExportMasksOptions:
    return ExportMasksOptions(**({"labels": labels, "out": out, "workers": 1} | values))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def digest(folder: Path) -> str:
    return read_header(folder / "masks.h5", "masks").digest


def test_png_and_artefact_hold_the_same_labels(soft: Path, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    result = export_masks(options(soft, out))
    assert result.pop("images_per_second") > 0
    assert result == {"out": str(out), "masks": str(out / "masks.h5"), "images": COUNT, "skipped": 0, "also": []}
    names = [record.id for record in dataset.records[:COUNT]]
    assert sorted(files(out)) == sorted(["masks.h5", *(f"{name}.png" for name in names)])
    with open_artefact(soft) as source, open_artefact(out / "masks.h5", "masks") as artefact:
        reader = MapsReader(artefact)
        assert reader.images.ids == tuple(names)
        for index, name in enumerate(names):
            expected = dataset.read_mask(dataset.records[index]).copy()
            expected[:4] = 255
            np.testing.assert_array_equal(from_soft(*MapsReader(source).full_size(index)), expected)
            np.testing.assert_array_equal(reader.labels(index), expected)
            assert reader.labels(index).dtype == np.uint8
            np.testing.assert_array_equal(read_label_png(out / f"{name}.png"), expected)
            with Image.open(out / f"{name}.png") as image:
                assert image.mode == "P"


def test_an_artefact_that_is_replaced_meanwhile_is_read_to_its_end(
    soft: Path, dataset: Dataset, tmp_path: Path
) -> None:
    labels, whole = Path(shutil.copy(soft, tmp_path / "soft.h5")), tmp_path / "whole"
    export_masks(options(soft, whole))
    other = [{0: np.full(dataset.read_mask(record).shape, 255)} for record in dataset.records[:COUNT]]
    made = write_maps(tmp_path / "other.h5", "soft-labels", dataset, other)
    export_masks(options(labels, tmp_path / "masks"), Meanwhile(lambda: made.replace(labels)))
    assert digest(tmp_path / "masks") == digest(whole)
    used, before = (read_header(folder / "masks.h5").inputs[0].digest for folder in (tmp_path / "masks", whole))
    assert used == before != read_header(labels).digest


def test_the_header_carries_the_protocol_on(soft: Path, dataset: Dataset, tmp_path: Path) -> None:
    export_masks(options(soft, tmp_path / "masks"))
    header = read_header(tmp_path / "masks" / "masks.h5", "masks")
    assert header.protocol == {"split": "train", "crf": "irn"}
    assert (header.stage, header.classes, header.dataset) == ("export-masks", dataset.classes, dataset.spec())
    assert [(item.kind, item.path) for item in header.inputs] == [
        ("soft-labels", os.path.relpath(soft, tmp_path / "masks"))
    ]


def test_cams_are_cut_by_their_thresholds(dataset: Dataset, tmp_path: Path) -> None:
    cams = write_maps(tmp_path / "cams.h5", "cams", dataset, blurred_truth(dataset, 3), protocol={"scales": [1.0]})
    threshold = write_thresholds(tmp_path / "t.h5", dataset.classes, 0.4)
    export_masks(options(cams, tmp_path / "masks", threshold=threshold))
    with open_artefact(cams) as artefact:
        for index, record in enumerate(dataset.records[:3]):
            labels, maps = MapsReader(artefact).full_size(index)
            expected = assign(labels, maps, np.full(len(dataset.classes), 0.4))
            np.testing.assert_array_equal(read_label_png(tmp_path / "masks" / f"{record.id}.png"), expected)
    header = read_header(tmp_path / "masks" / "masks.h5")
    assert header.protocol == {"scales": [1.0], "threshold": 0.4}
    assert [item.kind for item in header.inputs] == ["cams", "thresholds"]


def test_masks_come_out_as_they_went_in(soft: Path, tmp_path: Path) -> None:
    export_masks(options(soft, tmp_path / "once"))
    export_masks(options(tmp_path / "once" / "masks.h5", tmp_path / "twice"))
    assert digest(tmp_path / "twice") == digest(tmp_path / "once")
    once, twice = files(tmp_path / "once"), files(tmp_path / "twice")
    assert once.pop("masks.h5") != twice.pop("masks.h5")  # made at another time, from something else
    assert once == twice


def test_two_workers_write_the_same_as_one(soft: Path, tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        export_masks(options(soft, out, workers=workers, overlays=3, contact_sheet=4, as_="coco"))
        found.append((digest(out), {name: data for name, data in files(out).items() if name != "masks.h5"}))
    assert found[0] == found[1]


def test_a_killed_run_shows_nothing_and_goes_on(soft: Path, dataset: Dataset, tmp_path: Path) -> None:
    export_masks(options(soft, tmp_path / "whole"))
    broken = options(soft, tmp_path / "broken")
    interrupted(export_masks, broken, after=3)
    assert sorted(path.name for path in broken.out.iterdir()) == ["masks.h5.partial", "pictures.partial"]
    again = Interrupting()
    export_masks(broken, again)
    assert again.began == 3
    assert digest(broken.out) == digest(tmp_path / "whole")
    assert sorted(files(broken.out)) == sorted(files(tmp_path / "whole"))


def test_a_run_killed_while_files_take_their_places_goes_on(soft: Path, dataset: Dataset, tmp_path: Path) -> None:
    broken = options(soft, tmp_path / "broken", as_="coco")
    interrupted(export_masks, broken, after=COUNT)
    first = f"{dataset.records[0].id}.png"
    (broken.out / "pictures.partial" / first).rename(broken.out / first)
    export_masks(broken)
    export_masks(options(soft, tmp_path / "whole", as_="coco"))
    assert digest(broken.out) == digest(tmp_path / "whole")
    for name, data in files(tmp_path / "whole").items():
        assert name == "masks.h5" or (broken.out / name).read_bytes() == data


def test_an_error_leaves_an_earlier_export_as_it_was(
    soft: Path, dataset: Dataset, synthetic_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "masks"
    export_masks(options(soft, out, contact_sheet=4))
    before = files(out)
    moved = Path(shutil.copytree(synthetic_root, tmp_path / "moved"))
    for record in dataset.records:
        (moved / record.image.relative_to(dataset.root)).write_bytes(b"no image")
    with pytest.raises(DatasetError, match=f"is no {NAMES} image"):
        export_masks(options(soft, out, overwrite=True, overlays=2, root=moved))
    after = files(out)
    assert {name: data for name, data in after.items() if ".partial" not in name} == before


def test_overwriting_removes_what_the_earlier_export_had_beyond(soft: Path, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "masks"
    export_masks(options(soft, out, overlays=COUNT, contact_sheet=2, as_="coco"))
    (out / "notes.txt").write_text("mine")
    fewer = write_maps(tmp_path / "fewer.h5", "masks", dataset, [dataset.read_mask(dataset.records[0])])
    export_masks(options(fewer, out, overwrite=True))
    assert sorted(files(out)) == sorted(["masks.h5", "notes.txt", f"{dataset.records[0].id}.png"])


def test_files_in_the_way_are_kept(soft: Path, dataset: Dataset, tmp_path: Path) -> None:
    there = tmp_path / f"{dataset.records[2].id}.png"
    there.write_text("ground truth")
    with pytest.raises(InputError) as caught:
        export_masks(options(soft, tmp_path))
    assert str(caught.value) == f"{there} exists already; pass --overwrite to replace it, or another --out"
    assert files(tmp_path) == {there.name: b"ground truth"}


def test_ids_with_folders_make_folders(dataset: Dataset, tmp_path: Path) -> None:
    mask = dataset.read_mask(dataset.records[0])
    masks = write_maps(tmp_path / "in.h5", "masks", dataset, [mask], names=["cats/first one"])
    export_masks(options(masks, tmp_path / "out"))
    np.testing.assert_array_equal(read_label_png(tmp_path / "out" / "cats" / "first one.png"), mask)


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../escaped", "..\\escaped"])
def test_ids_never_lead_out_of_the_folder(name: str, dataset: Dataset, tmp_path: Path) -> None:
    mask = dataset.read_mask(dataset.records[0])
    masks = write_maps(tmp_path / "in.h5", "masks", dataset, [mask], names=[name])
    with pytest.raises(InputError, match=r"no file of that name is written|is no name of an image in a folder"):
        export_masks(options(masks, tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5"]


@pytest.mark.parametrize("name", ["contact-sheet", "overlays/a", "pictures.partial/a"])
def test_ids_never_take_the_name_of_something_else(name: str, dataset: Dataset, tmp_path: Path) -> None:
    mask = dataset.read_mask(dataset.records[0])
    masks = write_maps(tmp_path / "in.h5", "masks", dataset, [mask], names=[name])
    with pytest.raises(InputError) as caught:
        export_masks(options(masks, tmp_path / "out"))
    assert str(caught.value) == (
        f"image id {name!r} is the name of something else in {tmp_path / 'out'}; rename the image"
    )


def test_overlays_and_contact_sheet_show_images_drawn_by_the_seed(soft: Path, dataset: Dataset, tmp_path: Path) -> None:
    chosen = []
    for seed in (0, 0, 1):
        out = tmp_path / f"{len(chosen)}"
        result = export_masks(options(soft, out, overlays=2, contact_sheet=100, seed=seed))
        assert result["also"] == [str(out / "contact-sheet.png"), str(out / "overlays")]
        chosen.append(files(out / "overlays"))
        assert len(chosen[-1]) == 2
        with Image.open(out / "contact-sheet.png") as sheet:
            assert sheet.width == 10 + 3 * 210  # all five images
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]
    with Image.open(out / "overlays" / next(iter(chosen[2]))) as picture:
        assert picture.width > 4 * 300  # photograph, heat map, mask, ground truth


def test_images_that_were_skipped_stay_skipped(dataset: Dataset, tmp_path: Path) -> None:
    masks = write_maps(tmp_path / "in.h5", "masks", dataset, ["is empty", dataset.read_mask(dataset.records[1])])
    result = export_masks(options(masks, tmp_path / "out", overlays=5, contact_sheet=5, as_="coco"))
    assert (result["images"], result["skipped"]) == (1, 1)
    assert not (tmp_path / "out" / f"{dataset.records[0].id}.png").exists()
    with open_artefact(tmp_path / "out" / "masks.h5") as artefact:
        assert MapsReader(artefact).skipped == {dataset.records[0].id: "is empty"}
    assert len(json.loads((tmp_path / "out" / "coco.json").read_text())["images"]) == 1


@pytest.mark.parametrize("maps", [{}, {255: np.full((4, 4), 255)}], ids=["no map", "ignored alone"])
def test_soft_labels_of_no_class_are_refused(maps: dict[int, np.ndarray], dataset: Dataset, tmp_path: Path) -> None:
    path = write_maps(tmp_path / "in.h5", "soft-labels", dataset, [{0: np.full((4, 4), 255)}, maps, "is empty"])
    with pytest.raises(ArtefactError) as error:
        export_masks(options(path, tmp_path / "out"))
    said = f"{path}: image {dataset.records[1].id!r} has no soft label of any class; make it again"
    assert str(error.value) == said


def test_run_lengths_decode_to_the_masks(soft: Path, dataset: Dataset, tmp_path: Path) -> None:
    export_masks(options(soft, tmp_path, as_="coco"))
    found = json.loads((tmp_path / "coco.json").read_text())
    assert found["categories"] == [{"id": index, "name": name} for index, name in enumerate(dataset.classes) if index]
    for number, (record, row) in enumerate(zip(dataset.records, found["images"], strict=False), 1):
        height, width = read_image(record.image).shape[:2]
        assert row == {"id": number, "file_name": record.image.name, "height": height, "width": width}
        labels = read_label_png(tmp_path / f"{record.id}.png")
        rows = [row for row in found["annotations"] if row["image_id"] == number]
        assert [row["category_id"] for row in rows] == [label for label in np.unique(labels) if label not in (0, 255)]
        for annotation in rows:
            wanted = labels == annotation["category_id"]
            np.testing.assert_array_equal(coco_mask.decode(annotation["segmentation"]), wanted)
            assert (annotation["area"], annotation["iscrowd"]) == (wanted.sum(), 0)
            rows_of, columns_of = np.nonzero(wanted)
            x, y = columns_of.min(), rows_of.min()
            assert annotation["bbox"] == [x, y, columns_of.max() - x + 1, rows_of.max() - y + 1]
    assert [row["id"] for row in found["annotations"]] == list(range(1, len(found["annotations"]) + 1))


def test_coco_keeps_its_own_numbers(tmp_path: Path) -> None:
    root = tmp_path / "coco"
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    Image.new("RGB", (6, 4)).save(root / "images" / "first.jpg")
    square = [1, 1, 3, 1, 3, 3, 1, 3]
    instances = {
        "images": [{"id": 724, "file_name": "first.jpg", "height": 4, "width": 6}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 724, "category_id": 90, "segmentation": [square], "iscrowd": 0}],
    }
    (root / "annotations" / "instances_train.json").write_text(json.dumps(instances))
    dataset = load_dataset({"dataset": "coco", "root": str(root), "split": "train"})
    labels = np.zeros((4, 6), dtype=np.uint8)
    labels[:2], labels[3, 2:] = 2, 1
    masks = write_maps(tmp_path / "in.h5", "masks", dataset, [labels])
    export_masks(options(masks, tmp_path / "out", as_="coco", dataset="coco"))
    coco = COCO(tmp_path / "out" / "coco.json")  # their own reader takes it
    assert coco.loadCats(coco.getCatIds()) == instances["categories"]
    assert coco.loadImgs([724])[0]["file_name"] == "first.jpg"
    for category, label in ((7, 1), (90, 2)):
        (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[724], catIds=[category]))
        np.testing.assert_array_equal(coco.annToMask(annotation), labels == label)


def test_another_data_set_is_refused(soft: Path, tmp_path: Path) -> None:
    export_masks(options(soft, tmp_path / "right", dataset="voc"))
    with pytest.raises(InputError) as caught:
        export_masks(options(soft, tmp_path / "wrong", dataset="coco"))
    assert (
        str(caught.value) == f"--dataset coco: {soft} has labels of a voc data set; pass --dataset voc or leave it out"
    )
    assert not (tmp_path / "wrong").exists()


def test_other_classes_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    mask = dataset.read_mask(dataset.records[0])
    masks = write_maps(tmp_path / "in.h5", "masks", dataset, [mask], classes=("background", "unicorn"))
    with pytest.raises(InputError) as caught:
        export_masks(options(masks, tmp_path / "out", as_="coco"))
    assert str(caught.value) == (
        f"{masks} was made with other classes than {dataset.root} has: class 1 was 'unicorn', is "
        f"{dataset.classes[1]!r}; pass --root with the folder that it was made from"
    )


def test_masks_without_any_object_are_warned_about(dataset: Dataset, tmp_path: Path) -> None:
    threshold = write_thresholds(tmp_path / "t.h5", dataset.classes, 0.4)
    nothing = [{1: np.zeros((3, 4))}, {}, {2: np.full((3, 4), 0.39)}]
    warning = "none of the 3 masks has a pixel of an object: nothing can be learnt from them"
    for name, maps, wanted in (("none", nothing, [warning]), ("some", blurred_truth(dataset, 3), [])):
        cams = write_maps(tmp_path / f"{name}.h5", "cams", dataset, maps)
        progress = Listening()
        export_masks(options(cams, tmp_path / name, threshold=threshold), progress)
        assert progress.warnings == wanted


def test_thresholds_go_with_cams_only(soft: Path, dataset: Dataset, tmp_path: Path) -> None:
    threshold = write_thresholds(tmp_path / "t.h5", dataset.classes, 0.4)
    with pytest.raises(InputError) as caught:
        export_masks(options(soft, tmp_path / "out", threshold=threshold))
    assert str(caught.value) == f"{soft} holds soft-labels, which --threshold cannot cut; leave it out"
    cams = write_maps(tmp_path / "cams.h5", "cams", dataset, [{}])
    with pytest.raises(InputError, match=rf"^{cams} holds CAMs, which need --threshold; run 'pseudolabel search-thres"):
        export_masks(options(cams, tmp_path / "out"))


def test_an_existing_export_is_kept(soft: Path, tmp_path: Path) -> None:
    export_masks(options(soft, tmp_path / "out"))
    before = files(tmp_path / "out")
    with pytest.raises(InputError, match=r"masks\.h5 exists already; pass --overwrite"):
        export_masks(options(soft, tmp_path / "out"))
    assert files(tmp_path / "out") == before
    assert read_maps(tmp_path / "out" / "masks.h5")


def test_photographs_are_read_only_for_pictures(soft: Path, tmp_path: Path) -> None:
    export_masks(options(soft, tmp_path / "plain", root=tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="nowhere does not exist; pass --root"):
        export_masks(options(soft, tmp_path / "drawn", root=tmp_path / "nowhere", overlays=1))

"""import-masks: what is recorded of corrections, who reads them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pseudolabel.artefacts import MapsReader, open_artefact, read_header
from pseudolabel.data import Dataset
from pseudolabel.errors import ArtefactError, DatasetError, InputError
from pseudolabel.options import EvaluateMasksOptions, ExportMasksOptions, ImportMasksOptions, TrainSegmenterOptions
from pseudolabel.stages.evaluate_masks import evaluate_masks
from pseudolabel.stages.export_masks import export_masks
from pseudolabel.stages.import_masks import import_masks
from pseudolabel.stages.train_segmenter import train_segmenter
from tests.helpers.artefacts import synthetic, write_maps
from tests.helpers.interop import assert_same, exported, hard_masks, imported, labels_of
from tests.helpers.training import Listening


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


def corrected(out: Path, place: Path, removed: int) -> Path:
    """The export less the annotations of one image."""
    content = json.loads((out / "coco.json").read_text())
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] != removed]
    place.write_text(json.dumps(content))
    return place


def test_corrections_are_counted_and_marked(dataset: Dataset, tmp_path: Path) -> None:
    masks = hard_masks(dataset)
    out = exported(tmp_path, dataset, masks, as_="coco")
    path = corrected(out, tmp_path / "corrected.json", 1)
    result = imported(path, out, tmp_path / "back.h5", "coco")
    objects = int(((masks[0] != 0) & (masks[0] != 255)).sum())
    assert (result["changed"], result["changed_pixels"]) == (1, objects / sum(mask.size for mask in masks))
    assert_same(labels_of(tmp_path / "back.h5"), [np.where(masks[0] == 255, 255, 0).astype(np.uint8), *masks[1:]])
    header, before = read_header(tmp_path / "back.h5", "masks"), read_header(out / "masks.h5")
    assert header.facts == {"corrected_by_people": {"images": 3, "changed": 1, "pixels": objects}}
    assert header.oracle == ("1 of 3 masks corrected by people",)
    assert header.protocol == {"split": "train", "corrected_by_people": "1 of 3 masks"}
    assert (header.classes, header.dataset) == (before.classes, before.dataset)
    assert [(item.kind, item.path) for item in header.inputs] == [
        ("masks", "out/masks.h5"),
        ("annotations", path.as_posix()),
    ]


def test_evaluation_and_training_read_them(dataset: Dataset, tmp_path: Path) -> None:
    masks = [dataset.read_mask(record) for record in dataset.records]
    out = exported(tmp_path, dataset, masks, as_="coco")
    back = tmp_path / "back.h5"
    imported(corrected(out, tmp_path / "corrected.json", 1), out, back, "coco")
    scores = evaluate_masks(EvaluateMasksOptions(masks=back, workers=1))
    assert scores["protocol"]["corrected_by_people"] == "1 of 8 masks"
    assert "1 of 8 masks corrected by people" in scores["oracle"]
    assert 0 < scores["miou"] < 1
    options = {"backbone": "test_vit", "pretrained": False, "crop": 32, "epochs": 1, "batch_size": 4, "workers": 0}
    train_segmenter(TrainSegmenterOptions(masks=back, out=tmp_path / "net.h5", **options))
    header = read_header(tmp_path / "net.h5", "checkpoint")
    assert "corrected by people 1 of 8 masks" in header.protocol["trained_on"]
    assert header.oracle == ("1 of 8 masks corrected by people",)


def test_images_without_a_mask_stay_without(dataset: Dataset, tmp_path: Path) -> None:
    path = write_maps(tmp_path / "in.h5", "masks", dataset, ["is empty", hard_masks(dataset)[1]])
    export_masks(ExportMasksOptions(labels=path, out=tmp_path / "out", workers=1, as_="coco"))
    with pytest.raises(ArtefactError, match="has no mask"), open_artefact(tmp_path / "out" / "masks.h5") as artefact:
        MapsReader(artefact).labels(0)
    result = imported(tmp_path / "out" / "coco.json", tmp_path / "out", tmp_path / "back.h5", "coco")
    assert (result["images"], result["skipped"]) == (1, 1)


def test_nothing_corrected_is_warned_about(dataset: Dataset, tmp_path: Path) -> None:
    out = exported(tmp_path, dataset, hard_masks(dataset), as_="coco")
    progress = Listening()
    path = out / "coco.json"
    import_masks(ImportMasksOptions(corrected=path, masks=out, out=tmp_path / "back.h5", from_="coco"), progress)
    assert progress.warnings == [f"no pixel of {path} differs from {out / 'masks.h5'}: nothing was corrected"]


def test_what_is_not_there_or_in_the_way(dataset: Dataset, tmp_path: Path) -> None:
    out = exported(tmp_path, dataset, hard_masks(dataset), as_="coco")
    with pytest.raises(InputError) as caught:
        imported(tmp_path / "no.json", out, tmp_path / "back.h5", "coco")
    assert str(caught.value) == (
        f"{tmp_path / 'no.json'} does not exist; pass the file or folder that the other tool exported"
    )
    path = out / "coco.json"
    imported(path, out / "masks.h5", tmp_path / "back.h5", "coco")
    with pytest.raises(InputError, match=r"back\.h5 exists already; pass --overwrite"):
        imported(path, out, tmp_path / "back.h5", "coco")
    imported(path, out, tmp_path / "back.h5", "coco", overwrite=True)
    twice = json.loads(path.read_text())
    twice["images"].append(twice["images"][0] | {"id": 77})
    (tmp_path / "twice.json").write_text(json.dumps(twice))
    with pytest.raises(DatasetError) as caught:
        imported(tmp_path / "twice.json", out, tmp_path / "other.h5", "coco")
    name = dataset.records[0].id
    assert str(caught.value) == f"{tmp_path / 'twice.json'} holds image {name!r} twice; keep one of them"


def test_an_export_that_is_replaced_loses_the_earlier_format(dataset: Dataset, tmp_path: Path) -> None:
    masks = hard_masks(dataset)
    out = exported(tmp_path, dataset, masks, as_="hf")
    export_masks(ExportMasksOptions(labels=tmp_path / "in.h5", out=out, workers=1, as_="coco", overwrite=True))
    assert (out / "coco.json").is_file()
    assert not list((out / "hf").rglob("*.png"))

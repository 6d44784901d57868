"""train-scribble: what each image is supervised by, and what the views of it show."""

import json
import shutil

import numpy as np
import pytest

from pseudolabel.artefacts import StalePartialError, read_header
from pseudolabel.data import Record, load_weak_labels, open_dataset
from pseudolabel.data.images import read_label_png
from pseudolabel.data.palette import write_mask
from pseudolabel.data.shapes import Box, Point
from pseudolabel.data.weak.supervision import (
    annotation_hours,
    count_kinds,
    describe_supervision,
    masked_ids,
    supervision_arrays,
)
from pseudolabel.options import (
    PredictMasksOptions,
    TrainSegmenterOptions,
)
from pseudolabel.runs.pipeline import read_pipeline
from pseudolabel.runs.runner import Freshness
from pseudolabel.scribble.training_data import LabelledCrops, open_cams
from pseudolabel.stages.predict_masks import predict_masks
from pseudolabel.stages.train_scribble import train_scribble
from pseudolabel.stages.train_segmenter import train_segmenter
from tests.helpers.artefacts import blurred_truth, synthetic, write_maps
from tests.helpers.scribble import SMALL, mixture
from tests.helpers.training import KilledError, Listening, curves_of

# Supervision


def test_all_kinds_of_labels_train_in_one_run(scribble_options, tmp_path):
    listener = Listening()
    result = train_scribble(scribble_options(**mixture(scribble_options, tmp_path)), listener)
    header = read_header(scribble_options().out)
    counts = {"tags only": 3, "scribbles": 2, "points": 1, "boxes": 1, "pixel masks": 1}
    assert result["supervision"] == header.facts["supervision"] == counts
    seconds = 3 * 20 + 2 * 34.9 + 22.1 + 38.1 + 239.7
    assert result["annotation_hours"] == pytest.approx(seconds / 3600, abs=1e-3)
    assert header.oracle == ("1 pixel masks used in training",)  # copies do not say that they were simulated
    words = "tags only 3, scribbles 2, points 1, boxes 1, pixel masks 1"
    assert header.protocol["trained_on"] == (
        f"8 images ({words}); regulariser dfr 1; consistency 0.1; exclusion 0.1; presence 0.1"
    )
    assert [item.kind for item in header.inputs] == ["dataset", "truth", "list"]
    assert np.isfinite(curves_of(scribble_options().out)["loss"]).all()
    assert listener.warnings == []


def test_tags_that_cannot_teach_are_warned_about(scribble_options, tmp_path):
    mixed = mixture(scribble_options, tmp_path) | {"exclusion": None, "presence": None}
    listener = Listening()
    train_scribble(scribble_options(steps=1, **mixed), listener)
    assert listener.warnings == ["3 images have tags only, and --exclusion, --presence and --objectness are off"]


def test_full_masks_are_an_upper_bound_and_an_oracle(scribble_options):
    result = train_scribble(scribble_options(supervision="masks", scribbles=None, regulariser="none", holdout=0.25))
    header = read_header(scribble_options().out)
    assert header.protocol["trained_on"] == "6 images (pixel masks 6); regulariser none"
    assert result["oracle"] == ["6 pixel masks used in training"]
    assert curves_of(scribble_options().out)["labelled"].min() > 0.8
    assert 0 <= result["agreement"] <= 1


def test_points_and_boxes_alone_train(scribble_options, weak_folders):
    train_scribble(scribble_options("points.h5", scribbles=None, points=weak_folders["points"], steps=2))
    assert (curves_of(scribble_options("points.h5").out)["labelled"] < 0.1).all()
    train_scribble(
        scribble_options("boxes.h5", scribbles=None, boxes=weak_folders["boxes"], steps=2, exclusion=1.0, presence=1.0)
    )
    found = curves_of(scribble_options("boxes.h5").out)
    assert (found["exclusion"] > 0).all()
    assert (found["presence"] > 0).all()


def test_cams_say_where_objects_are_and_fill_boxes(scribble_options, weak_folders, synthetic_root, tmp_path):
    dataset = synthetic(synthetic_root)
    maps = [*blurred_truth(dataset, 7), "no such image"]
    cams = write_maps(tmp_path / "cams.h5", "cams", dataset, maps, oracle=("drawn from masks",))
    boxes = {"scribbles": None, "boxes": weak_folders["boxes"], "steps": 2}
    train_scribble(scribble_options(**boxes, cams=cams, objectness=0.5, fill=(0.3, 0.6)))
    train_scribble(scribble_options("bare.h5", **boxes))
    header, found = read_header(scribble_options().out), curves_of(scribble_options().out)
    assert "drawn from masks" in header.oracle
    assert [item.kind for item in header.inputs] == ["dataset", "cams"]
    assert (found["objectness"] > 0).all()
    assert (found["labelled"] > curves_of(scribble_options("bare.h5").out)["labelled"]).all()


def test_held_out_labels_and_a_split_with_masks_measure(scribble_options):
    result = train_scribble(scribble_options("last.h5", holdout=0.25, validate_on="val"))
    header, curves = read_header(scribble_options("last.h5").out), curves_of(scribble_options("last.h5").out)
    assert {"epoch/agreement", "epoch/miou", "epoch/miou_tags"} <= curves.keys()
    assert result["held_out"] == len(header.facts["held_out"]) == 2
    assert result["miou"] == pytest.approx(curves["epoch/miou"][-1])
    assert header.oracle == ("scribbles simulated from pixel masks",)
    train_scribble(scribble_options("best.h5", validate_on="val", keep="best"))
    header = read_header(scribble_options("best.h5").out)
    assert header.oracle[-1] == "state of training chosen by pixel masks of val"
    assert header.protocol["state"] == "best on val (pixel masks)"


# Views


def views(scribble_options, source=None, **values):
    given = scribble_options(**values)
    dataset = open_dataset(given)
    found = LabelledCrops(dataset, masked_ids(given, dataset), source, given)
    found.grid = 2
    return found, dataset


def test_views_show_labels_where_the_photograph_does(scribble_options):
    found, dataset = views(scribble_options, jitter=0.0)
    sample, again = found[0, 1], found[0, 1]
    assert all(np.array_equal(sample[name], again[name]) for name in sample)
    assert sample["labels"].shape == (32, 32)
    assert sample["allowed"].shape == (6, 2, 2)
    record = dataset.records[1]
    allowed = sample["allowed"].numpy()
    assert allowed[[0, *record.tags]].all()
    assert allowed.sum() == 4 * (1 + len(record.tags))
    strokes = load_weak_labels(record, found.read(record).photograph.shape[:2], dataset.classes).labels
    assert set(np.unique(found.whole(record))) == set(np.unique(strokes))
    assert not sample["present"].any()  # every class has a scribble


def test_boxes_bound_their_classes_and_what_is_outside_is_background(scribble_options, weak_folders):
    found, dataset = views(scribble_options, scribbles=None, boxes=weak_folders["boxes"])
    record = next(record for record in dataset.records if len(record.boxes) == 1)
    image, box = found.read(record), record.boxes[0]
    inside = np.zeros(image.areas.shape, bool)
    inside[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = True
    assert (image.areas[inside] == 255).all()
    assert (image.areas[~inside] == 0).all()
    assert not image.anywhere.any()
    assert image.hidden.nonzero()[0].tolist() == [box.label - 1]
    index = dataset.records.index(record)
    for epoch in range(5):
        sample = found[epoch, index]
        assert not sample["allowed"][[k for k in range(1, 6) if k != box.label]].any()
        assert sample["present"][box.label - 1] == sample["allowed"][box.label].any()


def test_every_view_allows_what_its_mask_shows(scribble_options, weak_folders):
    """The same view of boxes and of masks: whatever is in it lies in its box, mirrored or not."""
    bound, dataset = views(scribble_options, scribbles=None, boxes=weak_folders["boxes"])
    true, _ = views(scribble_options, scribbles=None, supervision="masks")
    bound.grid = true.grid = 8
    for epoch, index in np.ndindex(3, len(dataset.records)):
        boxed, masked = bound[epoch, index], true[epoch, index]
        assert np.array_equal(boxed["image"], masked["image"])
        allowed, mask = boxed["allowed"].numpy(), masked["labels"]
        for y, x in np.argwhere((mask != 0) & (mask != 255)):
            assert allowed[mask[y, x], y // 4, x // 4]
        assert masked["allowed"].all()
        outside = boxed["labels"] == 0
        assert np.isin(mask[outside], (0, 255)).all()
        assert not allowed[1:].all(axis=0).any()


def test_a_class_without_a_box_may_be_anywhere(scribble_options, tmp_path):
    """A photograph with tags of two classes and a box of one: outside the box nothing is known."""
    given = scribble_options(scribbles=None, supervision="masks")
    dataset = open_dataset(given)
    record = Record("x", dataset.records[0].image, (1, 2), boxes=(Box(1, 4, 4, 20, 20),), points=(Point(2, 30, 30),))
    found = LabelledCrops(dataset, frozenset(), None, given)
    image = found.read(record)
    assert (image.areas == 255).all()
    assert image.anywhere.tolist() == [False, True, False, False, False]
    assert image.hidden.tolist() == [True, False, False, False, False]
    assert image.strokes[30, 30] == 2


def test_boxes_are_filled_by_the_maps_of_their_classes(scribble_options, weak_folders, synthetic_root, tmp_path):
    dataset = synthetic(synthetic_root)
    path = write_maps(tmp_path / "cams.h5", "cams", dataset, blurred_truth(dataset, 8))
    found, opened = views(
        scribble_options,
        open_cams(path, dataset),
        scribbles=None,
        boxes=weak_folders["boxes"],
        cams=path,
        fill=(0.3, 0.6),
    )
    right, total, unsure = 0, 0, 0
    for record in opened.records:
        image, truth = found.read(record), dataset.read_mask(record)
        sure = image.areas != 255
        right, total = right + (image.areas == truth)[sure].sum(), total + sure.sum()
        unsure += (~sure).sum()
        assert set(np.unique(image.areas)) - {0, 255} == set(record.tags)
        assert not image.hidden.any()
    assert right / total > 0.95
    assert unsure > 0


def test_a_pipeline_trains_again_when_a_label_or_the_list_has_changed(
    scribble_options, weak_folders, synthetic_root, tmp_path
):
    strokes, listed = tmp_path / "strokes", tmp_path / "masks.txt"
    shutil.copytree(weak_folders["scribbles"], strokes)
    names = sorted(path.stem for path in strokes.glob("*.png"))
    listed.write_text(names[0])
    entry = {"stage": "train-scribble", "root": str(synthetic_root), "scribbles": str(strokes)}
    entry |= {"mask_list": str(listed), "steps": 1, **SMALL}
    (tmp_path / "run.yaml").write_text(json.dumps({"out": str(tmp_path / "run"), "stages": {"net": entry}}))
    (step,) = read_pipeline(tmp_path / "run.yaml", {}, None).steps
    train_scribble(step.options)
    assert Freshness().reason_to_run(step) is None
    listed.write_text(names[1])
    assert Freshness().reason_to_run(step) == f"its input {listed} has changed"
    listed.write_text(names[0])
    (strokes / f"{names[2]}.png").unlink()
    assert Freshness().reason_to_run(step) == "its data set has changed"


def test_masks_that_taught_count_as_what_was_read(scribble_options, synthetic_root, tmp_path):
    """A pipeline trains again, and an interrupted training does not go on, when one of them has changed."""
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    entry = {"stage": "train-scribble", "root": str(root), "supervision": "masks", "steps": 2, **SMALL}
    (tmp_path / "run.yaml").write_text(json.dumps({"out": str(tmp_path / "run"), "stages": {"net": entry}}))
    (step,) = read_pipeline(tmp_path / "run.yaml", {}, None).steps
    train_scribble(step.options)
    assert Freshness().reason_to_run(step) is None
    path = next(record.mask for record in open_dataset(step.options).records)
    before = path.read_bytes()
    write_mask(path, np.zeros_like(read_label_png(path)))
    assert Freshness().reason_to_run(step) == "its pixel masks have changed"
    stopped = step.options.model_copy(update={"out": tmp_path / "stopped.h5", "save_every": 1})
    with pytest.raises(KilledError):
        train_scribble(stopped, Listening(2))
    path.write_bytes(before)
    with pytest.raises(
        StalePartialError, match=r"stopped.h5.training was begun with another input \(dataset, truth differ"
    ):
        train_scribble(stopped)


def test_what_starts_from_an_oracle_is_one(scribble_options, tmp_path):
    """From whichever stage, and also after the chain's next ones."""
    train_scribble(scribble_options("full.h5", supervision="masks", scribbles=None, steps=1))
    weights = scribble_options("full.h5").out
    both = ["scribbles simulated from pixel masks", "8 pixel masks used in training"]
    assert train_scribble(scribble_options("child.h5", weights=weights, steps=1))["oracle"] == both
    quick = {"precision": "float32", "device": "cpu", "workers": 0}
    plain = scribble_options("plain.h5", steps=1)
    train_scribble(plain)
    predict_masks(PredictMasksOptions(checkpoint=plain.out, split="train", out=tmp_path / "p", size=32, **quick))
    masks = tmp_path / "p/masks.h5"
    assert list(read_header(masks).oracle) == both[:1]
    start = TrainSegmenterOptions(masks=masks, weights=weights, out=tmp_path / "seg.h5", steps=1, crop=32, **quick)
    train_segmenter(start)
    assert list(read_header(start.out).oracle) == both


def test_objectness_is_cut_like_the_photograph(scribble_options, synthetic_root, tmp_path):
    dataset = synthetic(synthetic_root)
    maps = [{label: np.full((4, 4), label / 8) for label in record.tags} for record in dataset.records]
    sloped = np.tile(np.linspace(0, 1, 8), (8, 1))
    maps[0] = {label: sloped for label in dataset.records[0].tags}
    path = write_maps(tmp_path / "cams.h5", "cams", dataset, [*maps[:7], "missing"])
    given = {"cams": path, "objectness": 1.0}
    found, opened = views(scribble_options, open_cams(path, dataset), **given)
    assert found[0, 1]["objectness"] == pytest.approx(np.full((2, 2), max(opened.records[1].tags) / 8), abs=1e-3)
    assert np.isnan(found[0, 7]["objectness"]).all()
    rising = [np.diff(found[epoch, 0]["objectness"], axis=1) for epoch in range(6)]
    assert {bool((slope > 0).all()) for slope in rising} == {True, False}  # mirrored or not
    assert all((slope > 0).all() or (slope < 0).all() for slope in rising)


def test_counts_and_hours_by_hand():
    box, point = Box(1, 0, 0, 2, 2), Point(1, 1, 1)
    records = [
        Record("a", None, (1,)),
        Record("b", None, (1,), points=(point,), boxes=(box,)),
        Record("c", None, (1,), boxes=(box,)),
        Record("d", None, (1,), boxes=(box,)),
    ]
    counts = count_kinds(records, {"d"})
    assert counts == {"tags only": 1, "points and boxes": 1, "boxes": 1, "pixel masks": 1}
    assert describe_supervision({"boxes": 2, "tags only": 1}) == "3 images (boxes 2, tags only 1)"
    arrays = supervision_arrays(records, {"d"}, (10, 12, 20, 30, 100))
    assert arrays["supervision/id"].tolist() == ["a", "b", "c", "d"]
    assert arrays["supervision/kind"].tolist() == ["tags only", "points and boxes", "boxes", "pixel masks"]
    assert arrays["supervision/seconds"].tolist() == [10, 10 + 2 + 20, 30, 100]
    assert annotation_hours(arrays) == 0.048  # 172 seconds

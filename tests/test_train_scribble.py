"""train-scribble on the synthetic set, with timm's tiny test models."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from small_artefacts import blurred_truth, synthetic, write_maps

from pseudolabel.artefacts import StalePartialError, open_artefact, read_header
from pseudolabel.cli.app import main
from pseudolabel.curves import log_folder
from pseudolabel.data import Record, image_size, load_weak_labels, open_dataset
from pseudolabel.data.images import read_label_png
from pseudolabel.data.shapes import Box, Point
from pseudolabel.data.simulate import simulate_boxes, simulate_points, simulate_scribbles
from pseudolabel.errors import DatasetError, InputError, PseudolabelError
from pseudolabel.labelled import LabelledViews, open_cams
from pseudolabel.models.checkpoint import load_network, read_weights
from pseudolabel.options import (
    PredictMasksOptions,
    SimulateBoxesOptions,
    SimulatePointsOptions,
    SimulateScribblesOptions,
    TrainScribbleOptions,
    TrainSegmenterOptions,
    build_options,
)
from pseudolabel.pictures import write_mask
from pseudolabel.pipeline import read_pipeline
from pseudolabel.progress import Progress
from pseudolabel.running import Freshness
from pseudolabel.stages.predict_masks import predict_masks
from pseudolabel.stages.train_scribble import train_scribble
from pseudolabel.stages.train_segmenter import train_segmenter
from pseudolabel.supervision import (
    annotation_hours,
    count_kinds,
    describe_averages,
    describe_supervision,
    masked_ids,
    supervision_arrays,
)
from pseudolabel.training import state_path

SMALL = {
    "backbone": "test_vit",
    "pretrained": False,
    "crop": 32,
    "epochs": 2,
    "batch_size": 2,
    "start": 0.26,  # of eight steps the first two
    "ramp": 0.25,
    "precision": "float32",
    "device": "cpu",
    "workers": 0,
}
REGULARISERS = ("densecrf", "normalised-cut", "kernel-cut", "gated-crf", "dfr")


@pytest.fixture(scope="module")
def weak(synthetic_root, tmp_path_factory):
    """Folders of simulated scribbles, points and boxes of the training images."""
    folder = tmp_path_factory.mktemp("weak")
    about = {"dataset": "voc", "root": synthetic_root, "split": "train", "from_": "masks", "workers": 0}
    simulate_scribbles(SimulateScribblesOptions(out=folder / "scribbles", **about))
    simulate_points(SimulatePointsOptions(out=folder / "points", **about))
    simulate_boxes(SimulateBoxesOptions(out=folder / "boxes", **about))
    return {kind: folder / kind for kind in ("scribbles", "points", "boxes")}


@pytest.fixture
def options(synthetic_root, weak, tmp_path):
    """Makes options; scribbles unless told otherwise."""

    def make(name="net.h5", **values):
        given = {"dataset": "voc", "root": synthetic_root, "out": tmp_path / name, "scribbles": weak["scribbles"]}
        return TrainScribbleOptions(**{**given, **SMALL, **values})

    return make


@pytest.fixture(scope="module")
def checkpoint(synthetic_root, weak, tmp_path_factory):
    """DFR after two steps on labels alone and six with its regulariser."""
    path = tmp_path_factory.mktemp("net") / "net.h5"
    train_scribble(
        TrainScribbleOptions(dataset="voc", root=synthetic_root, out=path, scribbles=weak["scribbles"], **SMALL)
    )
    return path


class Listening(Progress):
    """Keeps the warnings, and ends a training in the middle if told so."""

    def __init__(self, step=None):
        self.step, self.warnings = step, []

    def warn(self, message):
        self.warnings.append(message)

    @contextmanager
    def track(self, total, what, *, done=0):
        count = [done]

        def advance(number):
            count[0] += number
            if count[0] == self.step:
                raise KilledError

        yield advance


class KilledError(Exception):
    """What ends a training in the middle."""


def curves_of(path):
    with open_artefact(path, "checkpoint") as artefact:
        found = {name: item[:] for name, item in artefact.file["curves"].items() if name != "epoch"}
        return found | {f"epoch/{name}": item[:] for name, item in artefact.file.get("curves/epoch", {}).items()}


def weights_of(path):
    with open_artefact(path, "checkpoint") as artefact:
        return read_weights(artefact)


# What is written


def test_a_checkpoint_says_what_it_learnt_from(checkpoint, synthetic_root, weak):
    header = read_header(checkpoint, "checkpoint")
    assert header.stage == "train-scribble"
    assert header.facts["architecture"] == {
        "type": "scribble",
        "backbone": "test_vit",
        "output_stride": None,
        "embedding": 8,
        "classes": 6,
    }
    assert header.facts["supervision"] == {"scribbles": 8}
    assert header.facts["annotation_hours"] == pytest.approx(8 * 34.9 / 3600, abs=1e-3)
    assert header.protocol == {
        "trained_on": "8 images (scribbles 8); regulariser dfr 1; consistency 0.1",
        "annotation_hours": header.facts["annotation_hours"],
        "annotation_averages": describe_averages(TrainScribbleOptions.model_fields["annotation_seconds"].default),
    }
    with open_artefact(checkpoint) as artefact:
        assert artefact.file["supervision/kind"].asstr()[:].tolist() == ["scribbles"] * 8
        assert artefact.file["supervision/seconds"][:].tolist() == [34.9] * 8
    assert header.oracle == ("scribbles simulated from pixel masks",)
    assert header.dataset["scribbles"] == str(weak["scribbles"])
    assert header.dataset["root"] == str(synthetic_root)
    assert not state_path(checkpoint).exists()
    network, _ = load_network(checkpoint, "segmenter")
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 6, 2, 2)


def test_the_regulariser_begins_after_the_labels(checkpoint):
    curves = curves_of(checkpoint)
    assert curves.keys() == {"loss", "partial", "regulariser", "consistency", "labelled", "strength", "rate"}
    assert np.isnan(curves["regulariser"][:3]).all()
    assert ((curves["regulariser"][3:] >= 0) & (curves["regulariser"][3:] <= 1)).all()
    assert curves["strength"].tolist() == [0, 0, 0, 0.5, 1, 1, 1, 1]
    parts = curves["partial"] + 0.1 * curves["consistency"] + np.nan_to_num(curves["strength"] * curves["regulariser"])
    np.testing.assert_allclose(curves["loss"], parts, rtol=1e-5)
    assert ((curves["labelled"] > 0) & (curves["labelled"] < 0.5)).all()


def test_curves_and_pictures_lie_beside_the_checkpoint(checkpoint, options):
    with (log_folder(checkpoint) / "curves.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["regulariser"] == "" for row in rows] == [True] * 3 + [False] * 5
    assert not (log_folder(checkpoint) / "pictures").exists()
    drawn = options("drawn.h5", picture_every=4)
    train_scribble(drawn)
    assert read_header(drawn.out).digest == read_header(checkpoint).digest  # looking changes nothing
    pictures = sorted((log_folder(drawn.out) / "pictures").iterdir())
    assert [path.name for path in pictures] == ["batch-000004.png", "batch-000008.png"]
    assert Image.open(pictures[0]).width > 3 * 224


# The same training, another way


def test_the_same_seed_trains_the_same_network_with_any_number_of_workers(checkpoint, options):
    train_scribble(options("again.h5", workers=2))
    assert read_header(options("again.h5").out).digest == read_header(checkpoint).digest
    train_scribble(options("other.h5", seed=1))
    assert read_header(options("other.h5").out).digest != read_header(checkpoint).digest


@pytest.mark.parametrize(("step", "values"), [(6, {}), (3, {"ema": 0.9, "steps": 4})])
def test_a_killed_training_ends_as_an_uninterrupted_one(checkpoint, options, step, values):
    killed = options("killed.h5", save_every=step - 1, **values)
    with pytest.raises(KilledError):
        train_scribble(killed, Listening(step))
    assert state_path(killed.out).exists()
    train_scribble(killed)
    whole = checkpoint
    if values:
        whole = options("whole.h5", **values).out
        train_scribble(options("whole.h5", **values))
    assert read_header(killed.out).digest == read_header(whole).digest
    assert (log_folder(killed.out) / "curves.csv").read_bytes() == (log_folder(whole) / "curves.csv").read_bytes()


def test_resuming_with_another_option_is_refused_by_name(options):
    with pytest.raises(KilledError):
        train_scribble(options(save_every=1), Listening(3))
    with pytest.raises(StalePartialError) as error:
        train_scribble(options(consistency=0.2))
    state = state_path(options().out)
    assert str(error.value) == (
        f"{state} was begun with another --consistency (0.1, now 0.2); "
        "pass --overwrite to start anew, another --out, or --resume-changed to go on all the same"
    )


def test_a_teacher_that_begins_later_starts_as_the_network(options):
    with pytest.raises(KilledError):
        train_scribble(options(save_every=1, learning_rate=1e-3), Listening(4))
    with open_artefact(state_path(options().out), "training-state") as artefact:
        begun = read_weights(artefact)
    train_scribble(options(ema=0.999999, learning_rate=1e-3, steps=4, resume_changed=True))
    kept = weights_of(options().out)
    change = "--ema (None, now 0.999999) from step 3"
    assert change in read_header(options().out).facts["changed"]
    assert any(not torch.equal(kept[name], begun[name]) for name in begun)
    for name, tensor in begun.items():  # one step, whose share of the average is 10 / 14
        torch.testing.assert_close(kept[name], tensor, rtol=0, atol=2e-2)


def test_micro_batches_learn_what_the_whole_batch_does(options, tmp_path):
    mixed = mixture(options, tmp_path) | {"batch_size": 4, "steps": 3, "start": 0.0, "ramp": 0.0}
    for name, micro in (("whole", None), ("single", 1)):
        train_scribble(options(f"{name}.h5", micro_batch=micro, learning_rate=1e-5, **mixed))
    whole = curves_of(tmp_path / "whole.h5")
    assert {"partial", "regulariser", "consistency", "exclusion", "presence"} <= whole.keys()
    for key, tensor in weights_of(tmp_path / "single.h5").items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "whole.h5")[key], rtol=1e-3, atol=2e-5)
    for curve, values in curves_of(tmp_path / "single.h5").items():
        np.testing.assert_allclose(values, whole[curve], rtol=2e-3, atol=1e-5, err_msg=curve)


def test_two_processes_learn_what_one_does_from_the_same_batch(options, weak, synthetic_root, tmp_path):
    values = {**SMALL, "batch_size": 4, "steps": 2, "start": 0.0, "ramp": 0.0, "learning_rate": 1e-5}
    values |= {"root": synthetic_root, "scribbles": weak["scribbles"]}
    words = [f"--set={name}={value}" for name, value in values.items()]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pseudolabel.cli"]
    done = subprocess.run(
        [sys.executable, *command, "train-scribble", *words, "--out", tmp_path / "two.h5", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"out"') == 1  # one of them speaks
    train_scribble(options("one.h5", **values))
    for key, tensor in weights_of(tmp_path / "two.h5").items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "one.h5")[key], rtol=1e-3, atol=2e-5)


# What can be switched


@pytest.mark.parametrize("name", ["none", *REGULARISERS])
def test_every_regulariser_trains_by_its_name(options, name):
    train_scribble(options(regulariser=name, steps=2, start=0.0, ramp=0.0))
    curves, header = curves_of(options().out), read_header(options().out)
    assert np.isfinite(curves["loss"]).all()
    assert ("regulariser" in curves) == (name != "none")
    assert ("consistency" in curves) == (name == "dfr")
    assert (header.facts["architecture"]["embedding"] is not None) == (name == "dfr")
    weight = {"none": "", "densecrf": f" {2e-9 * (513 / 32) ** 4:.3g}", "dfr": " 1"}.get(name, " 0.1")
    assert header.protocol["trained_on"].startswith(f"8 images (scribbles 8); regulariser {name}{weight}")
    load_network(options().out, "segmenter")


@pytest.mark.parametrize(
    ("values", "curves", "embeds"),
    [
        ({"consistency": None}, {"regulariser"}, True),  # the kernel's embedding is left as it began
        ({"sigma_embedding": None}, {"regulariser", "consistency"}, True),
        ({"sigma_embedding": None, "consistency": None}, {"regulariser"}, False),
        ({"regulariser_weight": 0.0}, {"consistency"}, True),
        ({"confidence": None, "regulariser_weight": 3.0}, {"regulariser", "consistency"}, True),
        ({"exclusion": 0.1, "presence": 0.1}, {"regulariser", "consistency", "exclusion", "presence"}, True),
    ],
)
def test_each_part_can_be_switched(options, values, curves, embeds):
    train_scribble(options(steps=2, start=0.0, ramp=0.0, **values))
    found = curves_of(options().out)
    assert {"regulariser", "consistency", "exclusion", "presence", "objectness"} & found.keys() == curves
    assert any(name.startswith("consistency") for name in weights_of(options().out)) == embeds


def test_the_kernels_numbers_matter(options):
    values = {"steps": 1, "start": 0.0, "ramp": 0.0, "batch_size": 4}
    losses = []
    for changed in ({}, {"sigma_xy": 5}, {"sigma_rgb": 60}, {"map_scale": 0.5}, {"sigma_embedding": 0.1}):
        train_scribble(options(**values, **changed, overwrite=True))
        losses.append(float(curves_of(options().out)["regulariser"][0]))
    assert len(set(losses)) == 5


def test_an_average_is_kept_and_guides(checkpoint, options):
    train_scribble(options(ema=0.9))
    kept, own = weights_of(options().out), weights_of(checkpoint)
    assert kept.keys() == own.keys()
    assert any(not torch.equal(kept[name], own[name]) for name in own)
    before, after = curves_of(checkpoint)["consistency"], curves_of(options().out)["consistency"]
    np.testing.assert_array_equal(before[:3], after[:3])  # no prediction counts yet


def test_a_convolutional_backbone_trains(options):
    train_scribble(options(backbone="test_resnet", crop=64, output_stride=16, steps=2, start=0.0))
    assert np.isfinite(curves_of(options().out)["loss"]).all()


# Supervision


def mixture(options, folder):
    """Options for two images with scribbles, one with points, one with boxes, one mask, and three with tags only."""
    records = open_dataset(options()).records
    about = options()
    places = {kind: folder / "mixed" / kind for kind in ("scribbles", "points", "boxes")}
    source = about.scribbles.parent
    for place in places.values():
        place.mkdir(parents=True)
    for record in records[:2]:
        name = f"{record.id}.png"
        (places["scribbles"] / name).write_bytes((source / "scribbles" / name).read_bytes())
    rows = (source / "points" / "points.csv").read_text().splitlines()
    kept = [row for row in rows if row.startswith(("id,", f"{records[2].id},"))]
    (places["points"] / "points.csv").write_text("\n".join(kept))
    name = f"{records[3].id}.xml"
    (places["boxes"] / name).write_bytes((source / "boxes" / name).read_bytes())
    (folder / "masks.txt").write_text(records[4].id)
    return {**places, "mask_list": folder / "masks.txt", "exclusion": 0.1, "presence": 0.1}


def test_all_kinds_of_labels_train_in_one_run(options, tmp_path):
    listener = Listening()
    result = train_scribble(options(**mixture(options, tmp_path)), listener)
    header = read_header(options().out)
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
    assert np.isfinite(curves_of(options().out)["loss"]).all()
    assert listener.warnings == []


def test_tags_that_cannot_teach_are_warned_about(options, tmp_path):
    mixed = mixture(options, tmp_path) | {"exclusion": None, "presence": None}
    listener = Listening()
    train_scribble(options(steps=1, **mixed), listener)
    assert listener.warnings == ["3 images have tags only, and --exclusion, --presence and --objectness are off"]


def test_full_masks_are_an_upper_bound_and_an_oracle(options):
    result = train_scribble(options(supervision="masks", scribbles=None, regulariser="none", holdout=0.25))
    header = read_header(options().out)
    assert header.protocol["trained_on"] == "6 images (pixel masks 6); regulariser none"
    assert result["oracle"] == ["6 pixel masks used in training"]
    assert curves_of(options().out)["labelled"].min() > 0.8
    assert 0 <= result["agreement"] <= 1


def test_points_and_boxes_alone_train(options, weak):
    train_scribble(options("points.h5", scribbles=None, points=weak["points"], steps=2))
    assert (curves_of(options("points.h5").out)["labelled"] < 0.1).all()
    train_scribble(options("boxes.h5", scribbles=None, boxes=weak["boxes"], steps=2, exclusion=1.0, presence=1.0))
    found = curves_of(options("boxes.h5").out)
    assert (found["exclusion"] > 0).all()
    assert (found["presence"] > 0).all()


def test_cams_say_where_objects_are_and_fill_boxes(options, weak, synthetic_root, tmp_path):
    dataset = synthetic(synthetic_root)
    maps = [*blurred_truth(dataset, 7), "no such image"]
    cams = write_maps(tmp_path / "cams.h5", "cams", dataset, maps, oracle=("drawn from masks",))
    boxes = {"scribbles": None, "boxes": weak["boxes"], "steps": 2}
    train_scribble(options(**boxes, cams=cams, objectness=0.5, fill=(0.3, 0.6)))
    train_scribble(options("bare.h5", **boxes))
    header, found = read_header(options().out), curves_of(options().out)
    assert "drawn from masks" in header.oracle
    assert [item.kind for item in header.inputs] == ["dataset", "cams"]
    assert (found["objectness"] > 0).all()
    assert (found["labelled"] > curves_of(options("bare.h5").out)["labelled"]).all()


def test_held_out_labels_and_a_split_with_masks_measure(options):
    result = train_scribble(options("last.h5", holdout=0.25, validate_on="val"))
    header, curves = read_header(options("last.h5").out), curves_of(options("last.h5").out)
    assert {"epoch/agreement", "epoch/miou", "epoch/miou_tags"} <= curves.keys()
    assert result["held_out"] == len(header.facts["held_out"]) == 2
    assert result["miou"] == pytest.approx(curves["epoch/miou"][-1])
    assert header.oracle == ("scribbles simulated from pixel masks",)
    train_scribble(options("best.h5", validate_on="val", keep="best"))
    header = read_header(options("best.h5").out)
    assert header.oracle[-1] == "state of training chosen by pixel masks of val"
    assert header.protocol["state"] == "best on val (pixel masks)"


# Views


def views(options, source=None, **values):
    given = options(**values)
    dataset = open_dataset(given)
    found = LabelledViews(dataset, masked_ids(given, dataset), source, given)
    found.grid = 2
    return found, dataset


def test_views_show_labels_where_the_photograph_does(options):
    found, dataset = views(options, jitter=0.0)
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


def test_boxes_bound_their_classes_and_what_is_outside_is_background(options, weak):
    found, dataset = views(options, scribbles=None, boxes=weak["boxes"])
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


def test_every_view_allows_what_its_mask_shows(options, weak):
    """The same view of boxes and of masks: whatever is in it lies in its box, mirrored or not."""
    bound, dataset = views(options, scribbles=None, boxes=weak["boxes"])
    true, _ = views(options, scribbles=None, supervision="masks")
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


def test_a_class_without_a_box_may_be_anywhere(options, tmp_path):
    """A photograph with tags of two classes and a box of one: outside the box nothing is known."""
    given = options(scribbles=None, supervision="masks")
    dataset = open_dataset(given)
    record = Record("x", dataset.records[0].image, (1, 2), boxes=(Box(1, 4, 4, 20, 20),), points=(Point(2, 30, 30),))
    found = LabelledViews(dataset, frozenset(), None, given)
    image = found.read(record)
    assert (image.areas == 255).all()
    assert image.anywhere.tolist() == [False, True, False, False, False]
    assert image.hidden.tolist() == [True, False, False, False, False]
    assert image.strokes[30, 30] == 2


def test_boxes_are_filled_by_the_maps_of_their_classes(options, weak, synthetic_root, tmp_path):
    dataset = synthetic(synthetic_root)
    path = write_maps(tmp_path / "cams.h5", "cams", dataset, blurred_truth(dataset, 8))
    found, opened = views(
        options, open_cams(path, dataset), scribbles=None, boxes=weak["boxes"], cams=path, fill=(0.3, 0.6)
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


def test_a_pipeline_trains_again_when_a_label_or_the_list_has_changed(options, weak, synthetic_root, tmp_path):
    strokes, listed = tmp_path / "strokes", tmp_path / "masks.txt"
    shutil.copytree(weak["scribbles"], strokes)
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


def test_masks_that_taught_count_as_what_was_read(options, synthetic_root, tmp_path):
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


def test_what_starts_from_an_oracle_is_one(options, tmp_path):
    """From whichever stage, and also after the chain's next ones."""
    train_scribble(options("full.h5", supervision="masks", scribbles=None, steps=1))
    weights = options("full.h5").out
    both = ["scribbles simulated from pixel masks", "8 pixel masks used in training"]
    assert train_scribble(options("child.h5", weights=weights, steps=1))["oracle"] == both
    quick = {"precision": "float32", "device": "cpu", "workers": 0}
    plain = options("plain.h5", steps=1)
    train_scribble(plain)
    predict_masks(PredictMasksOptions(checkpoint=plain.out, split="train", out=tmp_path / "p", size=32, **quick))
    masks = tmp_path / "p/masks.h5"
    assert list(read_header(masks).oracle) == both[:1]
    start = TrainSegmenterOptions(masks=masks, weights=weights, out=tmp_path / "seg.h5", steps=1, crop=32, **quick)
    train_segmenter(start)
    assert list(read_header(start.out).oracle) == both


def test_objectness_is_cut_like_the_photograph(options, synthetic_root, tmp_path):
    dataset = synthetic(synthetic_root)
    maps = [{label: np.full((4, 4), label / 8) for label in record.tags} for record in dataset.records]
    sloped = np.tile(np.linspace(0, 1, 8), (8, 1))
    maps[0] = {label: sloped for label in dataset.records[0].tags}
    path = write_maps(tmp_path / "cams.h5", "cams", dataset, [*maps[:7], "missing"])
    given = {"cams": path, "objectness": 1.0}
    found, opened = views(options, open_cams(path, dataset), **given)
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


# From scribbles to scores on the command line


def stage(capsys, *words):
    assert main([*map(str, words), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_scribbles_in_masks_out(synthetic_root, tmp_path, capsys):
    data = ["--dataset", "voc", "--root", synthetic_root]
    small = [f"--set={name}={value}" for name, value in SMALL.items()]
    stage(capsys, "data", "scribbles", "--from", "masks", *data, "--out", tmp_path / "strokes", "--workers", "0")
    trained = stage(
        capsys, "train-scribble", *data, "--scribbles", tmp_path / "strokes", *small, "--out", tmp_path / "net.h5"
    )
    assert trained["supervision"] == {"scribbles": 8}
    quick = ["--device", "cpu", "--workers", "0"]
    stage(capsys, "predict-masks", tmp_path / "net.h5", "--split", "val", "--out", tmp_path / "val", *quick)
    scores = stage(capsys, "evaluate-masks", tmp_path / "val", "--resamples", "0")
    assert scores["oracle"] == ["scribbles simulated from pixel masks"]
    assert scores["protocol"]["trained_on"] == "8 images (scribbles 8); regulariser dfr 1; consistency 0.1"
    assert scores["protocol"]["tag_filtered_by"] == "image tags (xml)"
    assert 0 <= scores["miou"] <= 1
    seen = ["--split", "train", "--tags", "dataset"]
    stage(capsys, "predict-masks", tmp_path / "net.h5", *seen, "--out", tmp_path / "train", *quick)
    refined = stage(capsys, "refine-crf", tmp_path / "train" / "soft.h5", "--out", tmp_path / "soft.h5", *quick)
    assert refined["images"] == 8
    stage(capsys, "export-masks", tmp_path / "soft.h5", "--out", tmp_path / "masks", "--workers", "0")
    segmenter = ["--backbone", "test_vit", "--no-pretrained", "--crop", "32", "--epochs", "1", *quick]
    stage(capsys, "train-segmenter", tmp_path / "masks", *segmenter, "--out", tmp_path / "seg.h5")
    header = read_header(tmp_path / "seg.h5")
    assert header.oracle == ("scribbles simulated from pixel masks",)
    compared = stage(capsys, "compare", tmp_path)
    assert compared["runs"][0]["oracle"]["net.h5"] == ["scribbles simulated from pixel masks"]


def test_a_checkpoint_serves_where_its_scribbles_are_not(options, weak, tmp_path, capsys):
    """Unless the tags came from them, and are asked for."""
    strokes = tmp_path / "strokes"
    shutil.copytree(weak["scribbles"], strokes)
    train_scribble(options("xml.h5", scribbles=strokes, steps=2))
    train_scribble(options("weak.h5", scribbles=strokes, steps=2, tag_source="weak"))
    shutil.rmtree(strokes)
    quick = ["--device", "cpu", "--workers", "0"]
    seen = ["--split", "train", "--tags", "dataset", *quick]
    stage(capsys, "predict-masks", tmp_path / "xml.h5", *seen, "--out", tmp_path / "xml")
    stage(capsys, "refine-crf", tmp_path / "xml/soft.h5", "--out", tmp_path / "soft.h5", *quick)
    assert main(["predict-masks", str(tmp_path / "weak.h5"), *seen, "--out", str(tmp_path / "weak")]) == 2
    error = capsys.readouterr().err.replace("\n", "")
    assert f"{strokes} is no longer there; pass --tags none, or tag them" in error
    stage(capsys, "predict-masks", tmp_path / "weak.h5", "--split", "train", "--out", tmp_path / "weak", *quick)
    assert main(["evaluate-masks", str(tmp_path / "weak"), "--json"]) == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["tag_filtered"] is None
    assert f"some images have no tags; {strokes} is no longer there" in found.err
    assert main(["train-scribble", "--root", "x", "--scribbles", str(strokes), "--out", str(tmp_path / "y.h5")]) == 2


def test_scores_of_a_mixture_are_split_by_what_supervised_each_image(options, tmp_path, capsys):
    """Of the training images; also after a CRF, of a segmenter trained on the masks, in compare and in the report."""
    mixed, quick = mixture(options, tmp_path), ["--device", "cpu", "--workers", "0"]
    seconds = ["--annotation-seconds", "1,2,3,4,5"]
    flags = [word for name, value in mixed.items() for word in (f"--{name.replace('_', '-')}", value)]
    small = [f"--set={name}={value}" for name, value in (SMALL | {"epochs": 1}).items()]
    data = ["--dataset", "voc", "--root", options().root, "--holdout", "0.1"]
    stage(capsys, "train-scribble", *data, *flags, *small, *seconds, "--out", tmp_path / "net.h5")
    (held_out,) = read_header(tmp_path / "net.h5").facts["held_out"]
    pseudo = ["--split", "train", "--out", tmp_path / "train", *quick]
    stage(capsys, "predict-masks", tmp_path / "net.h5", *pseudo)
    found = stage(capsys, "evaluate-masks", tmp_path / "train", "--resamples", "0")
    ids = [record.id for record in open_dataset(options()).records]
    words = [*["scribbles"] * 2, "points", "boxes", "pixel masks", *["tags only"] * 3]
    words[ids.index(held_out)] = "not trained on"
    split = found["by_supervision"]
    assert {kind: part["images"] for kind, part in split.items()} == {kind: words.count(kind) for kind in words}
    cost = {"tags only": 1, "points": 2, "scribbles": 3, "boxes": 4, "pixel masks": 5, "not trained on": None}
    assert {kind: part["annotation_seconds"] for kind, part in split.items()} == {kind: cost[kind] for kind in split}
    hours = sum(cost[kind] or 0 for kind in words) / 3600
    assert found["protocol"]["annotation_hours"] == pytest.approx(hours, abs=5e-4)
    assert found["protocol"]["annotation_averages"] == (
        "tags 1, points 2, scribbles 3, boxes 4, masks 5 s an image (as given)"
    )
    main(["evaluate-masks", str(tmp_path / "train"), "--resamples", "0", "--overwrite"])
    shown = capsys.readouterr().out
    assert "supervised by" in shown
    assert "not trained on" in shown

    stage(capsys, "refine-crf", tmp_path / "train" / "soft.h5", "--out", tmp_path / "soft.h5", *quick)
    stage(capsys, "export-masks", tmp_path / "soft.h5", "--out", tmp_path / "masks", "--workers", "0")
    refined = stage(capsys, "evaluate-masks", tmp_path / "masks", "--resamples", "0")
    assert {kind: part["images"] for kind, part in refined["by_supervision"].items()} == {
        kind: part["images"] for kind, part in split.items()
    }
    segmenter = ["--backbone", "test_vit", "--no-pretrained", "--crop", "32", "--epochs", "1", *quick]
    stage(capsys, "train-segmenter", tmp_path / "masks", *segmenter, "--out", tmp_path / "seg.h5")
    stage(capsys, "predict-masks", tmp_path / "seg.h5", "--split", "val", "--out", tmp_path / "val", *quick)
    unseen = stage(capsys, "evaluate-masks", tmp_path / "val", "--resamples", "0")
    assert unseen["by_supervision"] is None
    assert unseen["protocol"]["annotation_hours"] == found["protocol"]["annotation_hours"]

    (run,) = stage(capsys, "compare", tmp_path)["runs"]
    assert run["figures"]["pseudo_labels"]["by_supervision"] == refined["by_supervision"]
    assert main(["compare", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "pseudo labels by what supervised each image" in text
    assert "annotation, hours" in text
    assert "(own averages)" in text
    stage(capsys, "report", tmp_path, "--out", tmp_path / "report.html", "--pictures", "0")
    page = (tmp_path / "report.html").read_text()
    assert "supervised by" in page
    assert '<th scope="row">pixel masks</th>' in page


# What cannot be


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"keep": "best"}, "--keep best needs --validate-on, the split whose masks choose"),
        ({"validate_on": "held-out"}, "--validate-on held-out needs a --holdout above 0"),
        ({"objectness": 1}, "--objectness and --fill need --cams, which say where objects are likely"),
        ({"fill": "0.6,0.3", "cams": "x.h5"}, "--fill 0.6,0.3 is not an increasing pair of scores in [0, 1]"),
        (
            {"supervision": "masks", "mask_list": "x.txt"},
            "--supervision masks uses the masks of all images; leave out --mask-list",
        ),
        (
            {"regulariser": "crf"},
            "--regulariser: should be 'none', 'densecrf', 'normalised-cut', 'kernel-cut', 'gated-crf' or 'dfr', "
            "found 'crf'",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, values, message):
    with pytest.raises(InputError) as error:
        build_options("train-scribble", {"root": tmp_path, "out": tmp_path / "x.h5", **values})
    assert str(error.value) == f"train-scribble: {message}"


def refused(kind, options, message):
    with pytest.raises(kind) as error:
        train_scribble(options)
    assert str(error.value) == message
    assert not options.out.exists()


def test_images_and_sets_without_labels_are_refused(options, synthetic_root, weak, tmp_path):
    root, records = synthetic_root, open_dataset(options()).records
    refused(
        InputError,
        options(scribbles=None),
        f"no image of split train of {root} has a labelled pixel; "
        "pass --scribbles, --points or --boxes, or --supervision masks, or train on tags with train-cosa",
    )
    few = tmp_path / "few"
    few.mkdir()
    for record in records[1:]:
        (few / f"{record.id}.png").write_bytes((weak["scribbles"] / f"{record.id}.png").read_bytes())
    refused(
        DatasetError,
        options(scribbles=few, tag_source="weak"),
        f"1 images of {root} have no label at all (first: {records[0].id}): no tags, no scribbles; "
        "label them (--scribbles, --points, --boxes, tags, --mask-list), or leave them out of --split",
    )
    for place, what in ((tmp_path / "no.txt", "does not exist"), (tmp_path, "is a folder")):
        said = f"--mask-list {place} {what}; wanted a text file of image ids, one a line"
        refused(DatasetError, options(mask_list=place), said)
    (tmp_path / "list.txt").write_text(f"{records[0].id}\nnobody\n")
    refused(
        DatasetError,
        options(mask_list=tmp_path / "list.txt"),
        f"{tmp_path / 'list.txt'} names 1 images that are not in split train of {root} (first: 'nobody'); "
        "remove them from the list",
    )


def test_a_scribble_of_another_size_is_refused_before_the_training(options, weak, tmp_path):
    """Also where the training would never come to it."""
    wrong = tmp_path / "wrong"
    shutil.copytree(weak["scribbles"], wrong)
    for record in open_dataset(options()).records[1:]:
        write_mask(wrong / f"{record.id}.png", np.array([[1, 255]], np.uint8))
    with pytest.raises(
        DatasetError, match=r"\.png is for 2 x 1 pixels, its image has \d+ x \d+; draw the scribbles at"
    ):
        train_scribble(options(scribbles=wrong, tag_source="weak", steps=1, batch_size=1), Listening(1))


def test_labels_at_fault_are_refused_or_skipped(options, weak, tmp_path):
    records = open_dataset(options()).records
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for record in records:
        (wrong / f"{record.id}.png").write_bytes((weak["scribbles"] / f"{record.id}.png").read_bytes())
    path = wrong / f"{records[0].id}.png"
    image = Image.open(path)
    width, height = image.size
    image.crop((0, 0, width - 1, height)).save(path)
    (wrong / "nobody.png").write_bytes((wrong / f"{records[1].id}.png").read_bytes())
    refused(
        DatasetError,
        options(scribbles=wrong),
        f"{path} is for {width - 1} x {height} pixels, its image has {width} x {height}; "
        "draw the scribbles at the image's size",
    )
    listener = Listening()
    result = train_scribble(options(scribbles=wrong, on_error="skip", steps=1, overwrite=True), listener)
    assert (result["skipped"], result["images"]) == (1, 7)
    assert len(listener.warnings) == 2
    assert re.fullmatch(r".*nobody\.png: image 'nobody' is not in split train of .*", listener.warnings[1])


def test_a_mask_or_maps_of_another_size_are_refused(options, synthetic_root, tmp_path):
    dataset = synthetic(synthetic_root)
    first = dataset.records[0]
    other = next(record for record in dataset.records if image_size(record.image) != image_size(first.image))
    (height, width), (tall, wide) = image_size(first.image), image_size(other.image)
    found = LabelledViews(dataset, frozenset("x"), None, options())
    with pytest.raises(DatasetError) as error:
        found.read(Record("x", first.image, None, mask=other.mask))
    assert str(error.value) == f"{first.image} is {width} x {height} pixels, its mask {wide} x {tall}"
    path = write_maps(tmp_path / "cams.h5", "cams", dataset, blurred_truth(dataset, 8))
    source = open_cams(path, dataset)
    with pytest.raises(DatasetError, match=rf"is {wide} x {tall} pixels, its maps in .* were made for {width} x "):
        source.maps(Record(first.id, other.image, None), (tall, wide))
    elsewhere = write_maps(tmp_path / "else.h5", "cams", dataset, [{}], names=["nobody"])
    with pytest.raises(InputError, match=r"else\.h5 has maps of no image of split train; make them of the images"):
        open_cams(elsewhere, dataset)


def test_what_cannot_be_built_is_refused_in_one_line(options, synthetic_root, tmp_path):
    refused(
        InputError,
        options(crop=16),
        "--regulariser dfr compares cells of a view, and test_vit sees one in --crop 16; use 32 or more",
    )
    refused(InputError, options(crop=40), "--crop 40 is no multiple of 16, as test_vit needs; use 32 or 48")
    dataset = synthetic(synthetic_root)
    other = write_maps(tmp_path / "cams.h5", "cams", dataset, [{}], classes=("background", "cat"))
    refused(
        InputError,
        options(cams=other, objectness=1.0),
        f"{other} is about other classes than {synthetic_root}; pass CAMs of this data set",
    )
    with pytest.raises(PseudolabelError, match=r"^the loss is nan at step 2 \(images "):
        train_scribble(options(learning_rate=1e30, warmup=0.0, save_every=1))

"""train-scribble: what is written, the same training another way, each part switched, what is refused."""

import csv
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.artefacts import StalePartialError, open_artefact, read_header
from pseudolabel.data import Record, image_size, open_dataset
from pseudolabel.data.palette import write_mask
from pseudolabel.data.weak.supervision import describe_averages
from pseudolabel.errors import DatasetError, InputError, PseudolabelError
from pseudolabel.models.checkpoint import load_network, read_weights
from pseudolabel.options import (
    TrainScribbleOptions,
    build_options,
)
from pseudolabel.scribble.training_data import LabelledCrops, open_cams
from pseudolabel.stages.train_scribble import train_scribble
from pseudolabel.training import state_path
from pseudolabel.training.curves import log_folder
from tests.helpers.artefacts import blurred_truth, synthetic, write_maps
from tests.helpers.scribble import SMALL, mixture
from tests.helpers.training import KilledError, Listening, curves_of, weights_of

REGULARISERS = ("densecrf", "normalised-cut", "kernel-cut", "gated-crf", "dfr")


@pytest.fixture(scope="module")
def checkpoint(synthetic_root, weak_folders, tmp_path_factory):
    """DFR after two steps on labels alone and six with its regulariser."""
    path = tmp_path_factory.mktemp("net") / "net.h5"
    train_scribble(
        TrainScribbleOptions(dataset="voc", root=synthetic_root, out=path, scribbles=weak_folders["scribbles"], **SMALL)
    )
    return path


# What is written


def test_a_checkpoint_says_what_it_learnt_from(checkpoint, synthetic_root, weak_folders):
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
    assert header.dataset["scribbles"] == str(weak_folders["scribbles"])
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


def test_curves_and_pictures_lie_beside_the_checkpoint(checkpoint, scribble_options):
    with (log_folder(checkpoint) / "curves.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["regulariser"] == "" for row in rows] == [True] * 3 + [False] * 5
    assert not (log_folder(checkpoint) / "pictures").exists()
    drawn = scribble_options("drawn.h5", picture_every=4)
    train_scribble(drawn)
    assert read_header(drawn.out).digest == read_header(checkpoint).digest  # looking changes nothing
    pictures = sorted((log_folder(drawn.out) / "pictures").iterdir())
    assert [path.name for path in pictures] == ["batch-000004.png", "batch-000008.png"]
    assert Image.open(pictures[0]).width > 3 * 224


# The same training, another way


def test_the_same_seed_trains_the_same_network_with_any_number_of_workers(checkpoint, scribble_options):
    train_scribble(scribble_options("again.h5", workers=2))
    assert read_header(scribble_options("again.h5").out).digest == read_header(checkpoint).digest
    train_scribble(scribble_options("other.h5", seed=1))
    assert read_header(scribble_options("other.h5").out).digest != read_header(checkpoint).digest


@pytest.mark.parametrize(("step", "values"), [(6, {}), (3, {"ema": 0.9, "steps": 4})])
def test_a_killed_training_ends_as_an_uninterrupted_one(checkpoint, scribble_options, step, values):
    killed = scribble_options("killed.h5", save_every=step - 1, **values)
    with pytest.raises(KilledError):
        train_scribble(killed, Listening(step))
    assert state_path(killed.out).exists()
    train_scribble(killed)
    whole = checkpoint
    if values:
        whole = scribble_options("whole.h5", **values).out
        train_scribble(scribble_options("whole.h5", **values))
    assert read_header(killed.out).digest == read_header(whole).digest
    assert (log_folder(killed.out) / "curves.csv").read_bytes() == (log_folder(whole) / "curves.csv").read_bytes()


def test_resuming_with_another_option_is_refused_by_name(scribble_options):
    with pytest.raises(KilledError):
        train_scribble(scribble_options(save_every=1), Listening(3))
    with pytest.raises(StalePartialError) as error:
        train_scribble(scribble_options(consistency=0.2))
    state = state_path(scribble_options().out)
    assert str(error.value) == (
        f"{state} was begun with another --consistency (0.1, now 0.2); "
        "pass --overwrite to start anew, another --out, or --resume-changed to go on all the same"
    )


def test_a_teacher_that_begins_later_starts_as_the_network(scribble_options):
    with pytest.raises(KilledError):
        train_scribble(scribble_options(save_every=1, learning_rate=1e-3), Listening(4))
    with open_artefact(state_path(scribble_options().out), "training-state") as artefact:
        begun = read_weights(artefact)
    train_scribble(scribble_options(ema=0.999999, learning_rate=1e-3, steps=4, resume_changed=True))
    kept = weights_of(scribble_options().out)
    change = "--ema (None, now 0.999999) from step 3"
    assert change in read_header(scribble_options().out).facts["changed"]
    assert any(not torch.equal(kept[name], begun[name]) for name in begun)
    for name, tensor in begun.items():  # one step, whose share of the average is 10 / 14
        torch.testing.assert_close(kept[name], tensor, rtol=0, atol=2e-2)


def test_micro_batches_learn_what_the_whole_batch_does(scribble_options, tmp_path):
    mixed = mixture(scribble_options, tmp_path) | {"batch_size": 4, "steps": 3, "start": 0.0, "ramp": 0.0}
    for name, micro in (("whole", None), ("single", 1)):
        train_scribble(scribble_options(f"{name}.h5", micro_batch=micro, learning_rate=1e-5, **mixed))
    whole = curves_of(tmp_path / "whole.h5")
    assert {"partial", "regulariser", "consistency", "exclusion", "presence"} <= whole.keys()
    for key, tensor in weights_of(tmp_path / "single.h5").items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "whole.h5")[key], rtol=1e-3, atol=2e-5)
    for curve, values in curves_of(tmp_path / "single.h5").items():
        np.testing.assert_allclose(values, whole[curve], rtol=2e-3, atol=1e-5, err_msg=curve)


def test_two_processes_learn_what_one_does_from_the_same_batch(
    scribble_options, weak_folders, synthetic_root, tmp_path
):
    values = {**SMALL, "batch_size": 4, "steps": 2, "start": 0.0, "ramp": 0.0, "learning_rate": 1e-5}
    values |= {"root": synthetic_root, "scribbles": weak_folders["scribbles"]}
    words = [f"--set={name}={value}" for name, value in values.items()]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pseudolabel"]
    done = subprocess.run(
        [sys.executable, *command, "train-scribble", *words, "--micro-batch=1", "--out", tmp_path / "two.h5", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"out"') == 1  # one of them speaks
    train_scribble(scribble_options("one.h5", **values))
    for key, tensor in weights_of(tmp_path / "two.h5").items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "one.h5")[key], rtol=1e-3, atol=2e-5)


# What can be switched


@pytest.mark.parametrize("name", ["none", *REGULARISERS])
def test_every_regulariser_trains_by_its_name(scribble_options, name):
    train_scribble(scribble_options(regulariser=name, steps=2, start=0.0, ramp=0.0))
    curves, header = curves_of(scribble_options().out), read_header(scribble_options().out)
    assert np.isfinite(curves["loss"]).all()
    assert ("regulariser" in curves) == (name != "none")
    assert ("consistency" in curves) == (name == "dfr")
    assert (header.facts["architecture"]["embedding"] is not None) == (name == "dfr")
    weight = {"none": "", "densecrf": f" {2e-9 * (513 / 32) ** 4:.3g}", "dfr": " 1"}.get(name, " 0.1")
    assert header.protocol["trained_on"].startswith(f"8 images (scribbles 8); regulariser {name}{weight}")
    load_network(scribble_options().out, "segmenter")


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
def test_each_part_can_be_switched(scribble_options, values, curves, embeds):
    train_scribble(scribble_options(steps=2, start=0.0, ramp=0.0, **values))
    found = curves_of(scribble_options().out)
    assert {"regulariser", "consistency", "exclusion", "presence", "objectness"} & found.keys() == curves
    assert any(name.startswith("consistency") for name in weights_of(scribble_options().out)) == embeds


def test_the_kernels_numbers_matter(scribble_options):
    # At first all maps are nearly alike, whatever the kernel; some steps later they are not.
    values = {"steps": 4, "start": 0.0, "ramp": 0.0, "batch_size": 4, "learning_rate": 1e-3}
    losses = []
    for changed in ({}, {"sigma_xy": 5}, {"sigma_rgb": 60}, {"map_scale": 0.5}, {"sigma_embedding": 0.1}):
        train_scribble(scribble_options(**values, **changed, overwrite=True))
        losses.append(float(curves_of(scribble_options().out)["regulariser"][-1]))
    assert len(set(losses)) == 5


def test_an_average_is_kept_and_guides(checkpoint, scribble_options):
    train_scribble(scribble_options(ema=0.9))
    kept, own = weights_of(scribble_options().out), weights_of(checkpoint)
    assert kept.keys() == own.keys()
    assert any(not torch.equal(kept[name], own[name]) for name in own)
    before, after = curves_of(checkpoint)["consistency"], curves_of(scribble_options().out)["consistency"]
    np.testing.assert_array_equal(before[:3], after[:3])  # no prediction counts yet


def test_a_convolutional_backbone_trains(scribble_options):
    train_scribble(scribble_options(backbone="test_resnet", crop=64, output_stride=16, steps=2, start=0.0))
    assert np.isfinite(curves_of(scribble_options().out)["loss"]).all()


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


def test_images_and_sets_without_labels_are_refused(scribble_options, synthetic_root, weak_folders, tmp_path):
    root, records = synthetic_root, open_dataset(scribble_options()).records
    refused(
        InputError,
        scribble_options(scribbles=None),
        f"no image of split train of {root} has a labelled pixel; "
        "pass --scribbles, --points or --boxes, or --supervision masks, or train on tags with train-cosa",
    )
    few = tmp_path / "few"
    few.mkdir()
    for record in records[1:]:
        (few / f"{record.id}.png").write_bytes((weak_folders["scribbles"] / f"{record.id}.png").read_bytes())
    refused(
        DatasetError,
        scribble_options(scribbles=few, tag_source="weak"),
        f"1 images of {root} have no label at all (first: {records[0].id}): no tags, no scribbles; "
        "label them (--scribbles, --points, --boxes, tags, --mask-list), or leave them out of --split",
    )
    for place, what in ((tmp_path / "no.txt", "does not exist"), (tmp_path, "is a folder")):
        said = f"--mask-list {place} {what}; wanted a text file of image ids, one a line"
        refused(DatasetError, scribble_options(mask_list=place), said)
    (tmp_path / "list.txt").write_text(f"{records[0].id}\nnobody\n")
    refused(
        DatasetError,
        scribble_options(mask_list=tmp_path / "list.txt"),
        f"{tmp_path / 'list.txt'} names 1 images that are not in split train of {root} (first: 'nobody'); "
        "remove them from the list",
    )


def test_masks_that_hold_no_class_teach_nothing_and_score_nothing(scribble_options, synthetic_root, tmp_path):
    root = shutil.copytree(synthetic_root, tmp_path / "data")
    for path in (root / "SegmentationClass").iterdir():
        mask = np.array(Image.open(path))
        write_mask(path, np.where(mask % 255, 255, 0).astype(np.uint8))
    said = (
        f"the ground truth of split {{}} of {root} holds background and ignored pixels and no class in {{}} images; if "
    )
    mend = "255 stands for a class in its masks, pass --mask-values 255=CLASS"
    masks = {"root": root, "supervision": "masks", "scribbles": None}
    refused(DatasetError, scribble_options(**masks), said.format("train", 8) + mend)
    refused(DatasetError, scribble_options(root=root, validate_on="val"), said.format("val", 4) + mend)


def test_a_scribble_of_another_size_is_refused_before_the_training(scribble_options, weak_folders, tmp_path):
    """Also where the training would never come to it."""
    wrong = tmp_path / "wrong"
    shutil.copytree(weak_folders["scribbles"], wrong)
    for record in open_dataset(scribble_options()).records[1:]:
        write_mask(wrong / f"{record.id}.png", np.array([[1, 255]], np.uint8))
    with pytest.raises(
        DatasetError, match=r"\.png is for 2 x 1 pixels, its image has \d+ x \d+; draw the scribbles at"
    ):
        train_scribble(scribble_options(scribbles=wrong, tag_source="weak", steps=1, batch_size=1), Listening(1))


def test_labels_at_fault_are_refused_or_skipped(scribble_options, weak_folders, tmp_path):
    records = open_dataset(scribble_options()).records
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for record in records:
        (wrong / f"{record.id}.png").write_bytes((weak_folders["scribbles"] / f"{record.id}.png").read_bytes())
    path = wrong / f"{records[0].id}.png"
    image = Image.open(path)
    width, height = image.size
    image.crop((0, 0, width - 1, height)).save(path)
    (wrong / "nobody.png").write_bytes((wrong / f"{records[1].id}.png").read_bytes())
    refused(
        DatasetError,
        scribble_options(scribbles=wrong),
        f"{path} is for {width - 1} x {height} pixels, its image has {width} x {height}; "
        "draw the scribbles at the image's size",
    )
    listener = Listening()
    result = train_scribble(scribble_options(scribbles=wrong, on_error="skip", steps=1, overwrite=True), listener)
    assert (result["skipped"], result["images"]) == (1, 7)
    assert len(listener.warnings) == 2
    assert re.fullmatch(
        r".*: the scribbles of 1 image that split train of .* lacks are not used \(first: 'nobody' in .*nobody\.png\)",
        listener.warnings[0],
    )


def test_a_mask_or_maps_of_another_size_are_refused(scribble_options, synthetic_root, tmp_path):
    dataset = synthetic(synthetic_root)
    first = dataset.records[0]
    other = next(record for record in dataset.records if image_size(record.image) != image_size(first.image))
    (height, width), (tall, wide) = image_size(first.image), image_size(other.image)
    found = LabelledCrops(dataset, frozenset("x"), None, scribble_options())
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


def test_what_cannot_be_built_is_refused_in_one_line(scribble_options, synthetic_root, tmp_path):
    refused(
        InputError,
        scribble_options(crop=16),
        "--regulariser dfr compares cells of a view, and test_vit sees one in --crop 16; use 32 or more",
    )
    refused(InputError, scribble_options(crop=40), "--crop 40 is no multiple of 16, as test_vit needs; use 32 or 48")
    dataset = synthetic(synthetic_root)
    other = write_maps(tmp_path / "cams.h5", "cams", dataset, [{}], classes=("background", "cat"))
    refused(
        InputError,
        scribble_options(cams=other, objectness=1.0),
        f"{other} is about other classes than {synthetic_root}; pass CAMs of this data set",
    )
    with pytest.raises(PseudolabelError, match=r"^the loss is nan at step 2 \(images "):
        train_scribble(scribble_options(learning_rate=1e30, warmup=0.0, save_every=1))

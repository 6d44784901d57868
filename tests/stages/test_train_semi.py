"""train-semi: what is written, the same training another way, each part switched, what is refused."""

import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.artefacts import StalePartialError, open_artefact, read_header
from pseudolabel.data.palette import write_mask
from pseudolabel.errors import DatasetError, InputError, PseudolabelError
from pseudolabel.models.checkpoint import load_network
from pseudolabel.options import EvaluateMasksOptions, PredictMasksOptions, build_options
from pseudolabel.stages.evaluate_masks import evaluate_masks
from pseudolabel.stages.predict_masks import predict_masks
from pseudolabel.stages.train_semi import train_semi
from pseudolabel.training import state_path
from pseudolabel.training.curves import log_folder
from tests.helpers.semi import SMALL, ids_of, semi_options, write_list
from tests.helpers.training import KilledError, Listening, curves_of, weights_of

METHODS = ("supervised", "mean-teacher", "unimatch", "ccvc")


@pytest.fixture
def options(synthetic_root, tmp_path):
    """Makes options of short trainings on three masks."""

    def make(name="net.h5", **values):
        return semi_options(values.pop("root", synthetic_root), tmp_path, name, **values)

    return make


@pytest.fixture(scope="module", params=METHODS)
def trained(request, synthetic_root, tmp_path_factory):
    """A checkpoint of each method, and the options that made it."""
    made = semi_options(synthetic_root, tmp_path_factory.mktemp("net"), method=request.param, picture_every=2)
    return made, train_semi(made)


# What is written


def test_a_checkpoint_says_what_it_learnt_from(trained, synthetic_root):
    options, result = trained
    header, ids = read_header(options.out, "checkpoint"), ids_of(synthetic_root)
    learns = options.method != "supervised"
    kinds = {"tags only" if learns else "no labels": 5, "pixel masks": 3}
    assert (header.stage, header.oracle, result["oracle"]) == ("train-semi", (), [])
    assert (result["images"], result["masks"], result["steps"], result["supervision"]) == (8, 3, 4, kinds)
    stated = ", ".join(f"{words} {count}" for words, count in kinds.items())
    weights = "consistency 0.4; discrepancy 0.2" if options.method == "ccvc" else "consistency 1"
    how = f"; {weights}; targets restricted to tags and boxes" if learns else ""
    assert header.protocol["trained_on"] == f"8 images ({stated}); method {options.method}{how}"
    assert header.protocol["supervision"] == "masks of 3 images"
    hours = (3 * 239.7 + 5 * 20 * learns) / 3600
    assert header.protocol["annotation_hours"] == result["annotation_hours"] == pytest.approx(hours, abs=1e-3)
    assert [item.kind for item in header.inputs if item.kind in ("truth", "list")] == ["truth", "list"]
    with open_artefact(options.out) as artefact:
        assert artefact.file["images/id"].asstr()[:].tolist() == ids
        names, words = (artefact.file[f"supervision/{key}"].asstr()[:] for key in ("id", "kind"))
        kind = dict(zip(names, words, strict=True))
    assert [kind[name] for name in ids] == ["pixel masks"] * 3 + list(kinds)[:1] * 5
    network, _ = load_network(options.out, "segmenter")
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 6, 2, 2)


def test_curves_and_pictures_lie_beside_the_checkpoint(trained):
    options, _ = trained
    folder = log_folder(options.out)
    with (folder / "curves.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 4
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["batch-000002.png", "batch-000004.png"]
    curves = curves_of(options.out)
    if options.method == "supervised":
        assert curves.keys() == {"loss", "supervised", "rate"}
        np.testing.assert_array_equal(curves["loss"], curves["supervised"])
        return
    common = {"loss", "supervised", "consistency", "strength", "rate"}
    assert curves["strength"].tolist() == [0, 0.5, 1, 1]
    if options.method == "ccvc":
        assert curves.keys() == {*common, "conflict", "discrepancy"}
        consistency = 0.4 * curves["consistency"] + 0.2 * curves["discrepancy"]
    else:
        assert curves.keys() == {*common, "confident"}
        consistency = curves["consistency"]
    weighted = curves["supervised"] + curves["strength"] * consistency
    np.testing.assert_allclose(curves["loss"], weighted, rtol=1e-5)


def test_masks_of_training_images_count_as_seen_and_scores_are_split_by_what_supervised(trained, tmp_path):
    options, _ = trained
    predicted = tmp_path / "train"
    predict_masks(PredictMasksOptions(checkpoint=options.out, split="train", tags="none", out=predicted, workers=0))
    scores = evaluate_masks(EvaluateMasksOptions(masks=predicted, out=tmp_path / "scores.h5", workers=0))
    assert scores["trained_on"] == 8
    others = "no labels" if options.method == "supervised" else "tags only"
    assert {words: part["images"] for words, part in scores["by_supervision"].items()} == {"pixel masks": 3, others: 5}
    assert scores["protocol"]["supervision"] == "masks of 3 images"
    assert scores["oracle"] == []


# The same training, another way


def test_the_same_seed_trains_the_same_network_with_any_number_of_workers(trained, synthetic_root, tmp_path):
    first, _ = trained
    for name, changes, same in (("again", {"workers": 2}, True), ("other", {"seed": 1}, False)):
        again = semi_options(synthetic_root, tmp_path, f"{name}.h5", method=first.method, **changes)
        train_semi(again)
        assert (read_header(again.out).digest == read_header(first.out).digest) is same


def test_a_killed_training_ends_as_an_uninterrupted_one(trained, synthetic_root, tmp_path):
    first, _ = trained
    killed = semi_options(synthetic_root, tmp_path, method=first.method, save_every=1, picture_every=2)
    with pytest.raises(KilledError):
        train_semi(killed, Listening(3))
    assert state_path(killed.out).exists()
    train_semi(killed)
    assert read_header(killed.out).digest == read_header(first.out).digest
    tables = [(log_folder(options.out) / "curves.csv").read_bytes() for options in (killed, first)]
    assert tables[0] == tables[1]


def test_resuming_with_another_list_is_refused_by_name(options, synthetic_root, tmp_path):
    with pytest.raises(KilledError):
        train_semi(options(save_every=1), Listening(2))
    changed = options().model_copy(update={"mask_list": tmp_path / "other.txt"})
    write_list(tmp_path / "other.txt", ids_of(synthetic_root)[2:6])
    with pytest.raises(StalePartialError) as error:
        train_semi(changed)
    assert str(error.value) == (
        f"{state_path(changed.out)} was begun with another input (dataset, truth, list differ by digest); "
        "pass --overwrite to start anew, another --out, or --resume-changed to go on all the same"
    )


@pytest.mark.parametrize("method", [name for name in METHODS if name != "ccvc"])  # whose mapping has a batch norm
def test_micro_batches_learn_what_the_whole_batch_does(options, tmp_path, method):
    values = {"method": method, "batch_size": 4, "steps": 3, "exclusion": 0.1, "presence": 0.1}
    for name, micro in (("whole", None), ("single", 1)):
        train_semi(options(f"{name}.h5", micro_batch=micro, learning_rate=1e-5, **values))
    whole, single = curves_of(tmp_path / "whole.h5"), curves_of(tmp_path / "single.h5")
    assert whole.keys() == single.keys() >= {"supervised", "exclusion", "presence"}
    for key, tensor in weights_of(tmp_path / "single.h5").items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "whole.h5")[key], rtol=1e-3, atol=2e-5)
    for curve, values in single.items():
        np.testing.assert_allclose(values, whole[curve], rtol=2e-3, atol=1e-5, err_msg=curve)


def test_two_processes_learn_what_one_does_from_the_same_batch(options, tmp_path):
    values = {"batch_size": 4, "steps": 2, "ramp": 0.0, "learning_rate": 1e-5}
    one = options("one.h5", **values)
    words = [f"--set={name}={value}" for name, value in {**SMALL, **values}.items()]
    words += [f"--set=root={one.root}", f"--set=mask_list={one.mask_list}"]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pseudolabel"]
    done = subprocess.run(
        [sys.executable, *command, "train-semi", *words, "--micro-batch=1", "--out", tmp_path / "two.h5", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    train_semi(one)
    for key, tensor in weights_of(tmp_path / "two.h5").items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "one.h5")[key], rtol=1e-3, atol=2e-5)


# What can be switched


@pytest.mark.parametrize(
    ("values", "curves"),
    [
        ({"consistency": 0.0}, set()),
        ({"strong_views": 0}, {"consistency"}),
        ({"strong_views": 2, "cutmix": 0.0}, {"consistency"}),
        ({"method": "supervised", "exclusion": 0.1}, {"exclusion"}),
        ({"weak_labels": False, "exclusion": 0.1, "presence": 0.1}, {"consistency"}),
        ({"restrict": False, "ema": 0.9, "confidence": 1.0}, {"consistency"}),
        ({"method": "unimatch", "ema": None, "confidence": 0.0}, {"consistency"}),
        ({"method": "unimatch", "strong_views": 0, "confidence": 0.0}, {"consistency"}),
        ({"method": "unimatch", "perturbation": None, "cutmix": 0.0, "confidence": 0.0}, {"consistency"}),
    ],
)
def test_each_part_can_be_switched(options, values, curves):
    train_semi(options(**{"steps": 2, **values}))
    found = curves_of(options().out)
    assert {"consistency", "partial", "exclusion", "presence", "objectness"} & found.keys() == curves
    assert np.isfinite(found["loss"]).all()
    if values.get("confidence") == 0.0:
        assert (found["confident"] == 1).all()
        assert (found["consistency"] > 0).all()
    if values.get("confidence") == 1.0:
        assert not found["consistency"].any()
        assert not found["confident"].any()


@pytest.mark.parametrize(
    ("values", "curves"),
    [
        ({}, {"consistency", "discrepancy", "conflict"}),
        ({"discrepancy": None, "conflict_weight": 1.0, "strong_views": 0}, {"consistency", "conflict"}),
        ({"consistency": 0.0}, set()),
        ({"consistency": 0.0, "exclusion": 0.1}, {"exclusion"}),
        ({"cutmix": 0.0, "strong_views": 2, "ema": None}, {"consistency", "discrepancy", "conflict"}),
    ],
)
def test_each_part_of_ccvc_can_be_switched(options, values, curves):
    train_semi(options(**{"method": "ccvc", "steps": 2, **values}))
    found = curves_of(options().out)
    assert {"consistency", "discrepancy", "conflict", "exclusion"} & found.keys() == curves
    assert np.isfinite(found["loss"]).all()


def test_either_of_ccvcs_networks_predicts_and_both_by_the_mean_of_their_shares(options, tmp_path, capsys):
    made = options(method="ccvc", learning_rate=1e-3)
    train_semi(made)
    torch.manual_seed(0)
    image, shares = torch.randn(1, 3, 32, 32), {}
    for which in ("first", "second", "both"):
        network, header = load_network(made.out, "segmenter", which)
        assert header.protocol["network"] == which
        with torch.no_grad():
            shares[which] = network.eval()(image).softmax(dim=1)
    torch.testing.assert_close(shares["both"], (shares["first"] + shares["second"]) / 2)
    assert not torch.allclose(shares["first"], shares["second"])
    assert load_network(made.out, "segmenter")[1].protocol["network"] == "both"
    with pytest.raises(InputError) as error:
        load_network(made.out, "segmenter", "teacher")
    assert str(error.value) == (
        f"{made.out} holds two networks (made by train-semi), none of which is the teacher; "
        "pass --network both, first or second"
    )
    for which in (None, "second"):
        out = tmp_path / f"val-{which}"
        predict_masks(PredictMasksOptions(checkpoint=made.out, network=which, out=out, workers=0))
        assert read_header(out / "masks.h5").protocol["network"] == (which or "both")


def test_what_is_not_used_is_not_counted(options):
    result = train_semi(options(steps=1, weak_labels=False))
    assert result["supervision"] == {"no labels": 5, "pixel masks": 3}
    assert result["annotation_hours"] == pytest.approx(3 * 239.7 / 3600, abs=1e-3)
    listener = Listening()
    train_semi(options(steps=1, restrict=False, overwrite=True), listener)
    assert listener.warnings[-1] == "5 images without masks have other labels, and nothing uses them"


def test_weak_labels_of_other_images_teach(options, weak_folders):
    result = train_semi(options(steps=2, scribbles=weak_folders["scribbles"]))
    assert result["supervision"] == {"scribbles": 5, "pixel masks": 3}
    assert result["oracle"] == ["scribbles simulated from pixel masks"]
    assert (curves_of(options().out)["partial"] > 0).all()
    train_semi(options("boxes.h5", steps=1, boxes=weak_folders["boxes"], partial=None))
    assert "partial" not in curves_of(options("boxes.h5").out)


def test_a_convolutional_backbone_trains(options):
    train_semi(options(backbone="test_resnet", crop=64, output_stride=16, steps=2))
    assert np.isfinite(curves_of(options().out)["loss"]).all()


def test_a_state_chosen_by_given_masks_is_no_oracle_and_one_chosen_by_others_is(options, synthetic_root):
    result = train_semi(options(holdout=0.4, validate_on="held-out", keep="best"))
    assert (result["masks"], result["held_out"], result["images"], result["oracle"]) == (2, 1, 7, [])
    header = read_header(options().out)
    assert header.protocol["state"] == "best on the held-out part of the images with masks"
    assert header.facts["held_out"][0] in ids_of(synthetic_root)[:3]
    assert result["miou"] is not None
    result = train_semi(options("val.h5", validate_on="val", keep="best"))
    assert result["oracle"] == ["state of training chosen by pixel masks of val"]


# What cannot be


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"method": "mean-teacher", "ema": "none"},
            "--method mean-teacher needs --ema, the decay of its teacher",
        ),
        (
            {"strong_views": 0, "perturbation": "none"},
            "--method unimatch needs --strong-views or --perturbation; without them choose --method supervised",
        ),
        ({"perturbation": 1}, "--perturbation 1 drops all features; pass less, or none"),
        ({"holdout": 0.5}, "--holdout is for --validate-on held-out; add that, or leave it out"),
        ({"objectness": 1}, "--objectness and --fill need --cams, which say where objects are likely"),
        ({"mask_list": None}, "--mask-list: is not a valid path for <class 'pathlib.Path'>, found None"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, values, message):
    with pytest.raises(InputError) as error:
        build_options("train-semi", {"mask_list": "x.txt", "out": tmp_path / "x.h5", **values})
    assert str(error.value) == f"train-semi: {message}"


def refused(kind, options, message):
    with pytest.raises(kind) as error:
        train_semi(options)
    assert str(error.value) == message
    assert not options.out.exists()


def test_lists_at_fault_are_refused_in_one_line(options, synthetic_root, tmp_path):
    root, ids = synthetic_root, ids_of(synthetic_root)
    listed = tmp_path / "masks3.txt"

    def wrong(kind, names, message, **values):
        made = options(**values)
        write_list(listed, names)
        refused(kind, made, message)

    wrong(
        InputError,
        ids,
        f"{listed} names all 8 images of split train of {root}: without a photograph that has no mask this is plain "
        "training, which train-scribble --supervision masks --regulariser none does",
    )
    wrong(
        DatasetError,
        [ids[0], "nobody"],
        f"{listed} names 1 images that are not in split train of {root} (first: 'nobody'); remove them from the list",
    )
    wrong(
        DatasetError, [ids[0], ids[0]], f"{listed}, line 2: id {ids[0]!r} stands already on line 1; remove one of them"
    )
    wrong(DatasetError, [], f"{listed} lists no image; wanted one id a line")
    wrong(
        DatasetError,
        ids[:2],
        f"2 images of --validate-on train are in {listed}, too (first: {ids[0]!r}): masks that are learnt validate "
        "nothing; take them out of one of the two",
        validate_on="train",
    )


def test_masks_at_fault_are_refused_or_skipped(options, synthetic_root, tmp_path):
    root, ids = shutil.copytree(synthetic_root, tmp_path / "data"), ids_of(synthetic_root)
    path = root / "SegmentationClass" / f"{ids[0]}.png"
    mask = np.array(Image.open(path))
    write_mask(path, np.where(mask == 0, 9, mask).astype(np.uint8))
    with pytest.raises(DatasetError, match=rf"^{path} holds label 9; wanted 0 to 5"):
        train_semi(options(root=root))
    path.unlink()
    refused(
        DatasetError,
        options(root=root),
        f"{tmp_path / 'masks3.txt'} names 1 images that have no mask in {root} (first: {ids[0]!r}); "
        "draw their masks, or remove them from the list",
    )
    path.write_bytes(b"not a picture")
    result = train_semi(options(root=root, on_error="skip", steps=1))
    assert (result["masks"], result["skipped"], result["images"]) == (2, 1, 7)
    for name in ids[:3]:
        write_mask(root / "SegmentationClass" / f"{name}.png", np.zeros(mask.shape, np.uint8))
    with pytest.raises(DatasetError, match="holds background and no class in 3 images"):
        train_semi(options("new.h5", root=root))


def test_classes_that_no_mask_shows_are_named(options, synthetic_root, tmp_path):
    listener = Listening()
    made = options(count=1, steps=1)
    train_semi(made, listener)
    (line,) = [line for line in listener.warnings if line.startswith("no mask of")]
    assert line.startswith(f"no mask of {made.mask_list} shows ")
    assert line.endswith(": what no mask shows is hardly learnt")


def test_unreadable_photographs_stop_or_are_skipped_and_sizes_may_differ(options, synthetic_root, tmp_path):
    root, ids = shutil.copytree(synthetic_root, tmp_path / "data"), ids_of(synthetic_root)
    place = root / "JPEGImages" / f"{ids[5]}.jpg"
    Image.open(place).resize((97, 31)).save(place)
    path = root / "JPEGImages" / f"{ids[6]}.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match=f"^{path}"):
        train_semi(options(root=root))
    result = train_semi(options("skip.h5", root=root, on_error="skip"))
    assert (result["skipped"], result["images"]) == (1, 7)


def test_a_training_that_diverges_stops(options):
    with pytest.raises(PseudolabelError, match=r"^the loss is nan at step 2 \(images "):
        train_semi(options(learning_rate=1e30, warmup=0.0))

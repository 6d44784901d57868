"""train-cosa on the synthetic set, with timm's tiny test models."""

import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from pseudolabel.artefacts import StalePartialError, open_artefact, read_header
from pseudolabel.cosa.thresholds import DynamicThreshold
from pseudolabel.data import open_dataset
from pseudolabel.errors import ArtefactError, InputError, PseudolabelError
from pseudolabel.models.checkpoint import load_network
from pseudolabel.options import TrainCosaOptions, build_options
from pseudolabel.stages.train_cosa import CosaCrops, quick_predictions, train_cosa
from pseudolabel.training import state_path
from pseudolabel.training.curves import log_folder
from pseudolabel.training.samples import epoch_order
from tests.helpers.training import KilledError, Listening, curves_of, weights_of

SMALL = {
    "backbone": "test_vit",
    "auxiliary_block": -2,
    "pretrained": False,
    "crop": 32,
    "epochs": 3,
    "batch_size": 2,
    "classification": 0.34,  # of nine steps the first three
    "teacher_scales": (1.0, 0.5),
    "embedding": 8,
    "precision": "float32",
    "device": "cpu",
    "workers": 0,
    "holdout": 0.25,
}
SWAPPED = ("c2s", "s2c", "regulariser", "contrastive", "labelled", "low", "high", "collapsed", "agreement")


def cosa_options(root, out, **values):
    return TrainCosaOptions(**{"dataset": "voc", "root": root, "out": out, **SMALL, **values})


@pytest.fixture(scope="module")
def checkpoint(synthetic_root, tmp_path_factory):
    """Student and teacher after three warm-up and six co-training steps."""
    path = tmp_path_factory.mktemp("cosa") / "cosa.h5"
    train_cosa(cosa_options(synthetic_root, path))
    return path


def test_a_checkpoint_holds_both_networks_thresholds_and_curves(checkpoint, synthetic_root):
    header = read_header(checkpoint, "checkpoint")
    assert header.stage == "train-cosa"
    assert header.facts["architecture"]["type"] == "cosa"
    assert header.facts["architecture"]["embedding"] == 8
    assert header.network["backbone"] == "test_vit"
    assert header.dataset["root"] == str(synthetic_root)
    assert header.oracle == ()
    assert header.facts["kept_step"] == 9
    assert 0 <= header.facts["tag_map"] <= 1
    assert not state_path(checkpoint).exists()
    student, teacher = weights_of(checkpoint), weights_of(checkpoint, "teacher")
    assert student.keys() == teacher.keys()
    assert any(not torch.equal(student[name], teacher[name]) for name in student)
    with open_artefact(checkpoint, "checkpoint") as artefact:
        low, high = (float(artefact.file[f"threshold/{name}"][()]) for name in ("low", "high"))
        assert 0.05 <= low == high <= 1  # the mixture gives one threshold
        assert artefact.file["threshold/counts"].shape == (256,)
        assert artefact.file["threshold/counts"][:].sum() > 0


def test_the_swapped_losses_begin_after_the_warm_up(checkpoint):
    curves = curves_of(checkpoint)
    assert {"loss", "main", "auxiliary", "rate", *SWAPPED} <= curves.keys()
    for name in SWAPPED:
        assert curves[name].shape == (9,)
        assert np.isnan(curves[name][:3]).all(), name
        assert np.isfinite(curves[name][3:]).all(), name
    assert np.isfinite(curves["loss"]).all()
    assert np.allclose(curves["loss"][:3], (curves["main"] + curves["auxiliary"])[:3])
    weights = {"c2s": 0.1, "s2c": 0.05, "regulariser": 0.05, "contrastive": 0.1}
    whole = curves["main"] + curves["auxiliary"] + sum(weight * curves[name] for name, weight in weights.items())
    assert np.allclose(curves["loss"][3:], whole[3:], atol=1e-5)
    assert curves["low"][3] == pytest.approx(0.25)  # the first co-training step still has the thresholds given
    assert curves["high"][3] == pytest.approx(0.7)
    fitted = ~np.isnan(curves["mixture/low_mean"])  # a step whose scores are all alike has no fit
    assert fitted[3:].sum() >= 4
    assert (curves["mixture/low_mean"][fitted] < curves["mixture/high_mean"][fitted]).all()
    shares = curves["mixture/low_share"] + curves["mixture/high_share"]
    np.testing.assert_allclose(shares[fitted], 1, rtol=1e-6)
    assert all((curves[f"mixture/{name}_deviation"][fitted] > 0).all() for name in ("low", "high"))
    assert ((curves["labelled"][3:] > 0) & (curves["labelled"][3:] <= 1)).all()


def test_the_same_seed_trains_the_same_networks_with_any_number_of_workers(checkpoint, synthetic_root, tmp_path):
    train_cosa(cosa_options(synthetic_root, tmp_path / "again.h5", workers=2))
    assert read_header(tmp_path / "again.h5").digest == read_header(checkpoint).digest
    train_cosa(cosa_options(synthetic_root, tmp_path / "other.h5", seed=1))
    assert read_header(tmp_path / "other.h5").digest != read_header(checkpoint).digest


@pytest.mark.parametrize("step", [2, 7])
def test_a_killed_training_ends_as_an_uninterrupted_one(checkpoint, synthetic_root, tmp_path, step):
    options = cosa_options(synthetic_root, tmp_path / "cosa.h5", save_every=1)
    with pytest.raises(KilledError):
        train_cosa(options, Listening(step))
    assert state_path(options.out).exists()
    train_cosa(options)
    assert read_header(options.out).digest == read_header(checkpoint).digest
    table = (log_folder(options.out) / "curves.csv").read_bytes()
    assert table == (log_folder(checkpoint) / "curves.csv").read_bytes()


def test_resuming_with_another_option_is_refused_by_name(synthetic_root, tmp_path):
    with pytest.raises(KilledError):
        train_cosa(cosa_options(synthetic_root, tmp_path / "cosa.h5", save_every=1), Listening(4))
    with pytest.raises(StalePartialError) as error:
        train_cosa(cosa_options(synthetic_root, tmp_path / "cosa.h5", c2s=0.2))
    assert str(error.value) == (
        f"{state_path(tmp_path / 'cosa.h5')} was begun with another --c2s (0.1, now 0.2); "
        "pass --overwrite to start anew, another --out, or --resume-changed to go on all the same"
    )


def test_other_thresholds_hold_from_where_a_training_goes_on(synthetic_root, tmp_path):
    def changed(name, **values):
        (tmp_path / name).mkdir()
        shutil.copy(state_path(begun.out), state_path(tmp_path / name / "cosa.h5"))
        return cosa_options(synthetic_root, tmp_path / name / "cosa.h5", resume_changed=True, **values)

    begun = cosa_options(synthetic_root, tmp_path / "cosa.h5", save_every=1)
    with pytest.raises(KilledError):
        train_cosa(begun, Listening(7))
    train_cosa(changed("fixed", threshold="fixed", low=0.3, high=0.6))
    curves = curves_of(tmp_path / "fixed" / "cosa.h5")
    np.testing.assert_allclose([curves[name][-1] for name in ("low", "high")], [0.3, 0.6])
    train_cosa(changed("released", threshold="released"))
    with pytest.raises(ArtefactError) as error:
        train_cosa(changed("queue", queue=7))
    assert str(error.value) == (
        f"{state_path(tmp_path / 'queue' / 'cosa.h5')}: the queue stored is (100, 256) (batches, bins), wanted "
        "(7, 256); pass --overwrite to start anew"
    )


def test_curves_and_pictures_lie_beside_the_checkpoint(checkpoint, synthetic_root, tmp_path):
    folder = log_folder(checkpoint)
    with (folder / "curves.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 10)]
    assert [row["c2s"] == "" for row in rows] == [True] * 3 + [False] * 6
    assert float(rows[8]["loss"]) == pytest.approx(float(curves_of(checkpoint)["loss"][8]), rel=1e-5)
    assert [row["epoch/tag_map"] != "" for row in rows] == [step % 3 == 0 for step in range(1, 10)]
    assert list(folder.glob("events.out.tfevents.*"))
    assert not (folder / "pictures").exists()  # 200 steps apart unless said otherwise
    train_cosa(cosa_options(synthetic_root, tmp_path / "drawn.h5", picture_every=4))
    assert read_header(tmp_path / "drawn.h5").digest == read_header(checkpoint).digest  # looking changes nothing
    drawn = sorted((log_folder(tmp_path / "drawn.h5") / "pictures").iterdir())
    assert [path.name for path in drawn] == ["batch-000004.png", "batch-000008.png"]
    train_cosa(cosa_options(synthetic_root, tmp_path / "quiet.h5", log=False, picture_every=4))
    assert not log_folder(tmp_path / "quiet.h5").exists()


def assert_close(path, other):
    """But for one weight in ten thousand: where a gradient is near zero, rounding decides which way Adam steps."""
    for group in ("weights", "teacher"):
        wanted = weights_of(other, group)
        for name, tensor in weights_of(path, group).items():
            far = ~torch.isclose(tensor, wanted[name], rtol=1e-3, atol=2e-5)
            assert far.sum() <= 1e-4 * far.numel(), name
            torch.testing.assert_close(tensor, wanted[name], rtol=1e-3, atol=5e-4)


def test_micro_batches_learn_what_the_whole_batch_does(synthetic_root, tmp_path):
    values = {"batch_size": 4, "epochs": 4, "classification": 0.0, "learning_rate": 1e-5}
    for name, micro in (("whole", None), ("part", 2), ("single", 1)):
        train_cosa(cosa_options(synthetic_root, tmp_path / f"{name}.h5", micro_batch=micro, **values))
    for name in ("part", "single"):
        assert_close(tmp_path / f"{name}.h5", tmp_path / "whole.h5")
        for curve, values in curves_of(tmp_path / "whole.h5").items():
            np.testing.assert_allclose(
                curves_of(tmp_path / f"{name}.h5")[curve], values, rtol=2e-3, atol=1e-5, err_msg=curve
            )


def test_two_processes_learn_what_one_does_from_the_same_batch(synthetic_root, tmp_path):
    values = {**SMALL, "batch_size": 4, "epochs": 3, "learning_rate": 1e-5, "dataset": "voc", "root": synthetic_root}
    del values["teacher_scales"]  # the three of the recipe
    words = [f"--set={name}={value}" for name, value in values.items()]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pseudolabel"]
    done = subprocess.run(
        [sys.executable, *command, "train-cosa", *words, "--micro-batch=1", "--out", tmp_path / "two.h5", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"out"') == 1  # one of them speaks
    assert "effective batch 4 = 2 x 1 x 2 processes" in done.stderr
    train_cosa(build_options("train-cosa", {**values, "out": tmp_path / "one.h5"}))
    assert_close(tmp_path / "two.h5", tmp_path / "one.h5")


@pytest.mark.parametrize("name", ["c2s", "s2c", "regulariser", "contrastive"])
def test_each_part_can_be_switched_off(synthetic_root, tmp_path, name):
    train_cosa(cosa_options(synthetic_root, tmp_path / "cosa.h5", steps=2, classification=0.0, **{name: None}))
    curves = curves_of(tmp_path / "cosa.h5")
    assert name not in curves
    assert {"c2s", "s2c", "regulariser", "contrastive"} - {name} <= curves.keys()
    projects = any(key.startswith("projection") for key in weights_of(tmp_path / "cosa.h5"))
    assert projects == (name != "contrastive")


def test_pixels_may_weigh_the_same_and_the_auxiliary_map_alone_may_teach(synthetic_root, tmp_path):
    values = {"steps": 2, "classification": 0.0}
    train_cosa(cosa_options(synthetic_root, tmp_path / "even.h5", **values))
    train_cosa(cosa_options(synthetic_root, tmp_path / "pixels.h5", balanced=False, auxiliary_share=1.0, **values))
    even, pixels = (curves_of(tmp_path / f"{name}.h5") for name in ("even", "pixels"))
    assert even["s2c"][0] == pytest.approx(pixels["s2c"][0])
    assert even["c2s"][0] != pytest.approx(pixels["c2s"][0])


def test_fixed_thresholds_stay_and_the_released_rules_run(synthetic_root, tmp_path):
    fixed = {"threshold": "fixed", "low": 0.3, "high": 0.6, "cam_rule": "released", "perplexity": None}
    train_cosa(cosa_options(synthetic_root, tmp_path / "fixed.h5", **fixed))
    curves = curves_of(tmp_path / "fixed.h5")
    np.testing.assert_allclose(curves["low"][3:], 0.3)
    np.testing.assert_allclose(curves["high"][3:], 0.6)
    train_cosa(cosa_options(synthetic_root, tmp_path / "three.h5", threshold="released"))
    curves = curves_of(tmp_path / "three.h5")
    assert (curves["low"][3:] <= curves["high"][3:]).all()


def test_a_convolutional_backbone_reads_an_earlier_stage(synthetic_root, tmp_path):
    cnn = {"backbone": "test_resnet", "crop": 64, "auxiliary_stage": -2, "output_stride": 16, "auxiliary_block": None}
    options = cosa_options(synthetic_root, tmp_path / "cosa.h5", **cnn)
    train_cosa(options)
    assert np.isfinite(curves_of(options.out)["loss"]).all()
    student, teacher = weights_of(options.out), weights_of(options.out, "teacher")
    moved = [
        name for name in student if name.endswith("running_mean") and not torch.equal(student[name], teacher[name])
    ]
    assert moved  # the teacher averages buffers, too


@pytest.mark.parametrize("propagate", [0, 2])
def test_padded_views_train(synthetic_root, tmp_path, propagate):
    options = cosa_options(synthetic_root, tmp_path / "cosa.h5", crop_scale=(0.3, 0.6), blur=0.5, propagate=propagate)
    train_cosa(options)
    curves = curves_of(options.out)
    assert (curves["labelled"][3:] < 0.95).all()  # padding has no label
    assert np.isfinite(curves["loss"]).all()


def test_weak_and_strong_views_share_geometry_and_padding(synthetic_root, tmp_path):
    options = cosa_options(synthetic_root, tmp_path / "x.h5", crop_scale=(0.3, 0.6), jitter=0.0)
    samples = CosaCrops(open_dataset(options).records, 5, options, 2)
    found = [samples[0, index] for index in range(8)]
    again = samples[0, 3]
    assert all(np.array_equal(found[3][name], again[name]) for name in ("weak", "strong", "inside", "noise", "tags"))
    for sample in found:
        assert sample["weak"].shape == sample["strong"].shape == (32, 32, 3)
        assert sample["noise"].shape == (2, 2)
        assert (sample["weak"][~sample["inside"]] == (0, 0, 0)).all()
    unchanged = sum(np.array_equal(sample["weak"], sample["strong"]) for sample in found)
    assert unchanged < 8


def test_scores_on_a_split_with_masks_choose_only_when_asked(synthetic_root, tmp_path):
    result = train_cosa(cosa_options(synthetic_root, tmp_path / "last.h5", validate_on="val"))
    header, curves = read_header(tmp_path / "last.h5"), curves_of(tmp_path / "last.h5")
    assert header.oracle == ()  # looking at masks changes nothing
    assert "state" not in header.protocol
    for name in ("miou", "miou_tags", "cam_miou", "auxiliary_cam_miou"):
        assert curves[f"epoch/{name}"].shape == (3,)
        assert ((curves[f"epoch/{name}"] >= 0) & (curves[f"epoch/{name}"] <= 1)).all()
    assert result["miou"] == pytest.approx(curves["epoch/miou"][-1])
    result = train_cosa(cosa_options(synthetic_root, tmp_path / "best.h5", validate_on="val", keep="best"))
    header, curves = read_header(tmp_path / "best.h5"), curves_of(tmp_path / "best.h5")
    assert header.oracle == ("state of training chosen by pixel masks of val",)
    assert header.protocol["state"] == "best on val (pixel masks)"
    assert result["miou"] == pytest.approx(curves["epoch/miou"].max())
    epoch = int(curves["epoch/miou"].argmax())
    assert result["kept_step"] == 3 * (1 + epoch)
    assert result["tag_map"] == pytest.approx(curves["epoch/tag_map"][epoch])
    with open_artefact(tmp_path / "best.h5", "checkpoint") as artefact:
        kept = [float(artefact.file[f"threshold/{name}"][()]) for name in ("low", "high")]
    assert [result["low"], result["high"]] == kept


def test_validation_cuts_auxiliary_maps_at_their_own_thresholds(checkpoint, synthetic_root, tmp_path):
    teacher, _ = load_network(checkpoint, "cam")
    teacher.eval()
    pixels, tags = torch.rand(2, 3, 32, 32), torch.zeros(2, teacher.classifier.out_channels)
    tags[:, 1] = 1

    def found(**values):
        options = cosa_options(synthetic_root, tmp_path / "x.h5", threshold="fixed", **values)
        threshold = DynamicThreshold("fixed", low=options.low, high=options.high)
        with torch.inference_mode():
            return quick_predictions(teacher, lambda images: images, options, threshold)(pixels, tags)

    one, other = found(low=0.3, high=0.5), found(low=0.3, high=0.5, auxiliary_thresholds=(0.6, 0.8))
    wanted = found(low=0.6, high=0.8)
    assert torch.equal(other["cam_miou"], one["cam_miou"])
    assert torch.equal(other["auxiliary_cam_miou"], wanted["auxiliary_cam_miou"])
    assert not torch.equal(one["auxiliary_cam_miou"], wanted["auxiliary_cam_miou"])


def tagged(root, out, tags):
    """Options whose images have the tags of a table."""
    ids = [record.id for record in open_dataset(cosa_options(root, out)).records]
    rows = "".join(f"{name},{tags.get(name, '')}\n" for name in ids)
    (out.parent / "tags.csv").write_text("id,class\n" + rows)
    return cosa_options(root, out, tag_source="csv", tags_file=out.parent / "tags.csv", classification=0.0, holdout=0.0)


def test_images_and_batches_without_any_tag_train(synthetic_root, tmp_path):
    options = tagged(synthetic_root, tmp_path / "cosa.h5", {})
    train_cosa(options)
    curves = curves_of(options.out)
    assert np.isfinite(curves["loss"]).all()
    assert (curves["collapsed"] == 1).all()  # no score at all to separate
    np.testing.assert_allclose(curves["low"], 0.25)
    np.testing.assert_allclose(curves["high"], 0.7)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (0.0, 0.0), (0.0, 1.0)])
def test_thresholds_that_all_pixels_lie_beyond_train(synthetic_root, tmp_path, low, high):
    fixed = {"threshold": "fixed", "low": low, "high": high}
    train_cosa(cosa_options(synthetic_root, tmp_path / "cosa.h5", classification=0.0, **fixed))
    assert np.isfinite(curves_of(tmp_path / "cosa.h5")["loss"]).all()


def test_a_head_that_does_not_learn_yet_decays_only_where_all_does(synthetic_root, tmp_path):
    rates = {"learning_rate": 0.001, "head_rate": 10.0, "weight_decay": 0.1, "warmup": 0.0, "decay_power": 0.0}
    still, decayed = tmp_path / "still.h5", tmp_path / "decayed.h5"
    for path, decay_all in ((still, False), (decayed, True)):
        values = {"steps": 2, "classification": 1.0, "decay_all": decay_all, **rates}
        train_cosa(cosa_options(synthetic_root, path, **values))
    name = "head.first.weight"
    torch.testing.assert_close(weights_of(decayed)[name], weights_of(still)[name] * (1 - 0.01 * 0.1) ** 2)


def test_a_loss_that_is_not_finite_stops_with_the_last_good_state(synthetic_root, tmp_path):
    options = cosa_options(
        synthetic_root, tmp_path / "cosa.h5", learning_rate=1e30, warmup=0.0, save_every=1, workers=0
    )
    with pytest.raises(PseudolabelError) as error:
        train_cosa(options)
    assert str(error.value).startswith("the loss is nan at step 2 (images ")
    assert "; no state was saved yet: " in str(error.value)  # that of step 1 leads nowhere
    assert not options.out.exists()
    train_cosa(options.model_copy(update={"learning_rate": 6e-5}))
    assert np.isfinite(curves_of(options.out)["loss"]).all()
    assert epoch_order(6, 0, 0).size == 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 0.8}, "--low 0.8 is above --high 0.7"),
        ({"teacher_scales": (0.5, 2)}, "--teacher-scales 0.5,2 lack 1, at which the teacher segments"),
        ({"keep": "best"}, "--keep best needs --validate-on, the split whose masks choose"),
        (
            {"auxiliary_thresholds": (0.7, 0.2)},
            "--auxiliary-thresholds 0.7,0.2 is not an increasing pair of scores in [0, 1]",
        ),
        (
            {"propagate": 1, "cam_fusion": "image"},
            "--cam-fusion image cannot be propagated along the grid's affinity; pass --propagate 0",
        ),
        ({"crop_scale": (2, 1)}, "--crop-scale 2,1 is not an increasing pair of factors in (0, 8]"),
        ({"validate_on": "held-out", "holdout": 0}, "--validate-on held-out needs a --holdout above 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, values, message):
    with pytest.raises(InputError) as error:
        build_options("train-cosa", {"root": tmp_path, "out": tmp_path / "x.h5", **values})
    assert str(error.value) == f"train-cosa: {message}"


def test_what_cannot_be_built_is_refused_in_one_line(synthetic_root, tmp_path):
    with pytest.raises(InputError) as error:
        train_cosa(cosa_options(synthetic_root, tmp_path / "x.h5", auxiliary_block=None))
    assert str(error.value) == "train-cosa needs its auxiliary head; give --auxiliary-block a number, for instance -3"
    with pytest.raises(InputError) as error:
        train_cosa(cosa_options(synthetic_root, tmp_path / "x.h5", crop=40))
    assert str(error.value) == "--crop 40 is no multiple of 16, as test_vit needs; use 32 or 48"
    with pytest.raises(InputError, match=r"^--propagate 1: test_resnet has no attention between patches"):
        train_cosa(cosa_options(synthetic_root, tmp_path / "x.h5", backbone="test_resnet", propagate=1))
    with pytest.raises(InputError, match=r"^--split nowhere: no such list"):
        train_cosa(cosa_options(synthetic_root, tmp_path / "x.h5", validate_on="nowhere"))
    assert not (tmp_path / "x.h5").exists()

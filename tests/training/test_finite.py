"""Trainings that diverge in their last step, or whose states are spoilt: one line, and nothing that looks finished."""

import numpy as np
import pytest
import torch

from pseudolabel.artefacts import open_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.errors import ArtefactError, PseudolabelError
from pseudolabel.options import STAGES
from pseudolabel.stages.train_cam import train_cam
from pseudolabel.stages.train_cosa import train_cosa
from pseudolabel.stages.train_scribble import train_scribble
from pseudolabel.stages.train_segmenter import train_segmenter
from pseudolabel.training import save_checkpoint, state_path
from pseudolabel.training.finite import not_finite
from pseudolabel.training.samples import epoch_order
from pseudolabel.training.schedule import make_optimiser
from pseudolabel.training.state import state_arrays, write_state
from tests.helpers.artefacts import synthetic, write_maps
from tests.helpers.loop import finish, make_run
from tests.helpers.training import KilledError, Listening, weights_of

TRAIN = {
    "train-cam": train_cam,
    "train-cosa": train_cosa,
    "train-scribble": train_scribble,
    "train-segmenter": train_segmenter,
}


def spoiling(run, step, value, *, target="body.weight"):
    """The run, in which a step leaves weights of one value."""
    after = run.objective.after_step

    def spoil(network, number):
        found = after(network, number)
        if number == step:
            tensors = run.objective._average if target == "average" else network.state_dict()
            tensors["head.weight" if target == "average" else target].fill_(value)
        return found

    run.objective.after_step = spoil
    return run


@pytest.mark.parametrize(
    ("value", "target", "found"),
    [
        (float("nan"), "body.weight", "the weights are not finite after step 12 (first: weights/body.weight)"),
        (float("-inf"), "head.bias", "the weights are not finite after step 12 (first: weights/head.bias)"),
        (float("nan"), "average", "the weights are not finite after step 12 (first: weights/head.weight)"),
        (3e38, "head.weight", "the loss is inf after step 12 (images {names})"),
        (3e38, "average", "the loss is inf after step 12 (images {names})"),
    ],
)
def test_what_the_last_step_has_made_is_looked_at(tmp_path, value, target, found):
    run = spoiling(make_run(tmp_path, ema=0.9 if target == "average" else None), 12, value, target=target)
    with pytest.raises(PseudolabelError) as error:
        finish(run)
    state = state_path(run.options.out)
    names = ", ".join(f"p{index}" for index in epoch_order(12, 0, 3)[8:])
    assert str(error.value) == (
        f"{found.format(names=names)}; the last good state is {state}: "
        "lower --learning-rate or pass --precision float32"
    )
    assert error.value.exit_code == 1
    whole = finish(make_run(tmp_path / "whole", ema=run.options.ema))
    again = make_run(tmp_path, ema=run.options.ema)
    for name, tensor in finish(again).items():  # from the state of step 11
        assert torch.equal(tensor, whole[name]), name
    assert again.step == 12


def test_nothing_is_validated_or_chosen_that_is_not_finite(tmp_path):
    run = spoiling(make_run(tmp_path), 6, float("nan"))
    seen = []
    run.validate, run.choose = (lambda network: seen.append(run.step) or {"score": float(run.step)}), "score"
    with pytest.raises(PseudolabelError, match=r"^the weights are not finite after step 6 \(first: weights/body"):
        finish(run)
    assert seen == [3]
    assert run.best.step == 3


def test_a_state_of_weights_that_are_not_finite_is_not_saved(tmp_path):
    """A statistic that only evaluation reads spoils no loss."""
    run = make_run(tmp_path)
    run.network.register_buffer("variance", torch.ones(2))
    with pytest.raises(PseudolabelError, match=r"^the weights are not finite after step 5 \(first: weights/variance\)"):
        finish(spoiling(run, 5, float("inf"), target="variance"))
    with open_artefact(state_path(run.options.out), "training-state") as artefact:
        assert artefact.file["step"][()] == 4


@pytest.mark.parametrize("name", ["weights/head.bias", "objective/average/head.bias", "best/weights/head.bias"])
def test_a_spoilt_state_is_not_gone_on_with(tmp_path, name):
    def choosing():
        run = make_run(tmp_path, ema=0.9)
        run.validate, run.choose = (lambda network: {"score": 0.5}), "score"
        return run

    run = choosing()
    finish(run)
    optimiser = make_optimiser(run.network, run.options)
    run.network(torch.ones(2, 3)).sum().backward()
    optimiser.step()
    arrays = state_arrays(run, optimiser)
    arrays[name][:] = np.nan
    write_state(run, arrays, CostMeter())
    with pytest.raises(ArtefactError) as error:
        finish(choosing())
    state = state_path(run.options.out)
    assert str(error.value) == f"{state} has weights that are not finite ({name}); pass --overwrite to start anew"


def test_no_checkpoint_is_written_of_weights_that_are_not_finite(tmp_path):
    run = make_run(tmp_path)
    finish(run)
    run.best.arrays, run.choose = {"weights/a": np.float32([1, np.inf])}, "score"
    with pytest.raises(PseudolabelError, match=r"^the weights are not finite after step 12 \(first: weights/a\)"):
        save_checkpoint(run, CostMeter(), (), ())
    assert not run.options.out.exists()


def test_gaps_of_curves_and_averages_of_gradients_are_no_weights():
    spoilt, sound = np.float32([np.nan]), np.float32([0])
    arrays = {"curves/loss": spoilt, "optimiser/weight/exp_avg_sq": spoilt, "weights/count": np.int64([1])}
    assert not_finite({**arrays, "weights/a": sound, "objective/threshold/low": spoilt}) is None
    for name in ("weights/b/c", "teacher/b", "objective/teacher/b", "objective/average/b", "best/teacher/b"):
        assert not_finite({**arrays, name: spoilt}) == name


def test_looking_at_a_step_changes_nothing_of_the_next_ones(tmp_path):
    """Dropout draws the same numbers, whether or not there is a validation between the steps."""
    plain = finish(make_run(tmp_path / "a", ema=0.9))
    run = make_run(tmp_path / "b", ema=0.9)
    run.validate = lambda network: {"score": 0.5}
    for name, tensor in finish(run).items():
        assert torch.equal(tensor, plain[name]), name


@pytest.fixture(scope="module")
def masks(synthetic_root, tmp_path_factory):
    """True masks of the synthetic train split."""
    dataset = synthetic(synthetic_root)
    maps = [dataset.read_mask(record) for record in dataset.records]
    return write_maps(tmp_path_factory.mktemp("masks") / "masks.h5", "masks", dataset, maps)


def shared_options(stage, synthetic_root, weak_folders, masks):
    """Settings of a training of two or three steps."""
    sizes = {"crop": 32, "batch_size": 2, "pretrained": False, "precision": "float32", "device": "cpu", "workers": 0}
    about = {"root": synthetic_root, "backbone": "test_vit", "holdout": 0.25, "decay_power": 0.0, **sizes}
    if stage == "train-segmenter":
        return {**about, "masks": masks}
    if stage == "train-scribble":
        return {**about, "scribbles": weak_folders["scribbles"], "start": 0.0, "ramp": 0.0}
    about |= {"dataset": "voc", "auxiliary_block": -2}
    return about if stage == "train-cam" else {**about, "embedding": 8, "classification": 0.0, "teacher_scales": (1.0,)}


@pytest.mark.parametrize("average", [None, 0.5])
@pytest.mark.parametrize("stage", TRAIN)
def test_no_training_ends_well_whose_last_step_diverged(stage, average, synthetic_root, weak_folders, masks, tmp_path):
    """Nor is its state lost: with the rate from before it ends."""
    about = shared_options(stage, synthetic_root, weak_folders, masks)
    if average is not None:
        about["teacher_decay" if stage == "train-cosa" else "ema"] = average

    def options(rate):
        going_on = {"learning_rate": rate, "resume_changed": True, "save_every": 1}
        return STAGES[stage](out=tmp_path / "net.h5", steps=2, **going_on, **about)

    with pytest.raises(KilledError):
        TRAIN[stage](options(1e-4), Listening(step=2))
    with pytest.raises(PseudolabelError, match=r"^the (loss is nan|loss is inf|weights are not finite) after step 2 "):
        TRAIN[stage](options(1e30))
    assert not (tmp_path / "net.h5").exists()
    assert state_path(tmp_path / "net.h5").exists()
    TRAIN[stage](options(1e-4))
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(tmp_path / "net.h5").values())


@pytest.mark.parametrize("stage", TRAIN)
def test_a_network_that_diverged_before_the_last_step_is_the_same_line(
    stage, synthetic_root, weak_folders, masks, tmp_path
):
    """Whatever a loss does with outputs that are not finite, as DFR's kernel, which has the embedding in it."""
    about = shared_options(stage, synthetic_root, weak_folders, masks)
    with pytest.raises(
        PseudolabelError, match=r"^the loss is (nan|inf) at step 2 \(images [^)]*\); no state was saved"
    ):
        TRAIN[stage](STAGES[stage](out=tmp_path / "net.h5", steps=3, learning_rate=1e30, **about))
    assert not (tmp_path / "net.h5").exists()

"""Trainings that were killed, and go on; states that are kept, and those that are not."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pseudolabel.artefacts import StalePartialError, open_artefact, partial_path, read_header
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.journal import claimed
from pseudolabel.errors import ArtefactError, InputError, PseudolabelError
from pseudolabel.runtime.progress import Progress
from pseudolabel.training import (
    Mean,
    Run,
    save_checkpoint,
    state_path,
    train,
)
from pseudolabel.training.samples import epoch_order
from pseudolabel.training.schedule import make_optimiser
from pseudolabel.training.state import restore_state
from tests.helpers import kinds
from tests.helpers.loop import finish, kill_at_step, make_run, squared
from tests.helpers.training import KilledError, Listening


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_killed_training_ends_as_an_uninterrupted_one(tmp_path, ema):
    whole = finish(make_run(tmp_path / "a", ema=ema))
    kill_at_step(make_run(tmp_path / "b", ema=ema), 8, CostMeter())
    again = make_run(tmp_path / "b", ema=ema)
    resumed = finish(again)
    assert again.step == again.total_steps == 12
    assert len(again.curves["loss"]) == 12
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_killed_training_costs_what_all_of_its_runs_cost(tmp_path):
    """The first run's meter stands at 1000 seconds when it begins, so that its share is seen in the sum."""
    spent = {"wall_seconds": 1000.0, "cpu_seconds": 500.0, "peak_memory_bytes": 1 << 60}
    kill_at_step(make_run(tmp_path), 5, CostMeter(spent))
    kill_at_step(make_run(tmp_path), 8, CostMeter())
    saved = read_header(state_path(tmp_path / "net.h5")).cost
    last, cost = make_run(tmp_path), CostMeter()
    train(last, Progress(), cost, overwrite=False)
    save_checkpoint(last, cost, (), ())
    found = read_header(last.options.out).cost
    assert 1000 < saved["wall_seconds"] < found["wall_seconds"] < 2000
    assert 500 < saved["cpu_seconds"] < found["cpu_seconds"] < 1000
    assert found["peak_memory_bytes"] == 1 << 60
    assert found["images"] == 48
    assert found["images_per_second"] == pytest.approx(48 / found["wall_seconds"], abs=1e-3)


def test_starting_anew_forgets_what_an_earlier_training_cost(tmp_path):
    kill_at_step(make_run(tmp_path), 8, CostMeter({"wall_seconds": 1000.0}))
    run, cost = make_run(tmp_path), CostMeter()
    train(run, Progress(), cost, overwrite=True)
    save_checkpoint(run, cost, (), ())
    assert read_header(run.options.out).cost["wall_seconds"] < 1000


def test_resuming_with_another_option_is_refused_by_name(tmp_path):
    run = make_run(tmp_path)
    finish(run)
    assert state_path(run.options.out).exists()
    with pytest.raises(StalePartialError) as error:
        finish(make_run(tmp_path, learning_rate=0.1))
    state = state_path(run.options.out)
    assert str(error.value) == (
        f"{state} was begun with another --learning-rate (0.05, now 0.1); "
        "pass --overwrite to start anew, another --out, or --resume-changed to go on all the same"
    )
    finish(make_run(tmp_path, learning_rate=0.1), overwrite=True)


def test_nothing_of_the_users_own_that_has_the_name_of_the_state_is_removed(tmp_path):
    state = state_path(make_run(tmp_path).options.out)
    write = {"folder": lambda: state.mkdir(), "notes": lambda: state.write_text("mine")}
    write |= {"link": lambda: state.symlink_to("nowhere"), "artefact": lambda: kinds.make("scores", state)}
    for kind, make in write.items():
        make()
        run = make_run(tmp_path)
        with pytest.raises(InputError) as error:
            finish(run, overwrite=True)
        said = str(error.value)
        assert said.startswith(f"{state} is not the state of a training ({state} "), kind
        assert said.endswith("), and is not replaced; move it away, or choose another --out"), kind
        assert run.step == 0
        assert os.path.lexists(state), kind
        shutil.rmtree(state) if kind == "folder" else state.unlink()


def test_a_training_in_progress_is_not_taken_over_by_another(tmp_path):
    run = make_run(tmp_path)
    with claimed(run.options.out), pytest.raises(InputError) as error:
        finish(run)
    assert str(error.value) == (
        f"{run.options.out}.partial is being written by another run; wait for it, or choose another --out"
    )
    assert (run.step, list(tmp_path.iterdir())) == (0, [])
    partial_path(run.options.out).touch()  # what a killed one has left
    finish(make_run(tmp_path))
    assert not partial_path(run.options.out).exists()


def test_a_training_can_go_on_with_other_options_and_says_so(tmp_path):
    kill_at_step(make_run(tmp_path, save_every=4), 6, CostMeter())
    run, cost, said = make_run(tmp_path, learning_rate=0.1, resume_changed=True, save_every=2), CostMeter(), Listening()
    train(run, said, cost, overwrite=False)
    whole = make_run(tmp_path / "whole")
    finish(whole)
    factors = [2 * (step >= 4) or 1 for step in range(12)]
    assert run.curves["rate"] == pytest.approx(np.multiply(whole.curves["rate"], factors))
    change = "--learning-rate (0.05, now 0.1) from step 4"
    assert said.warnings == [f"this training was begun with another {change}"]
    save_checkpoint(run, cost, (), ())
    assert read_header(run.options.out).facts["changed"] == [change]


def test_what_was_changed_is_not_forgotten_by_a_second_run(tmp_path):
    kill_at_step(make_run(tmp_path, save_every=2), 6, CostMeter())
    changed = {"learning_rate": 0.1, "save_every": 2}
    kill_at_step(make_run(tmp_path, resume_changed=True, **changed), 9, CostMeter())
    run = make_run(tmp_path, **changed)  # the same options as the second run: nothing to force
    finish(run)
    assert run.header.facts["changed"] == ["--learning-rate (0.05, now 0.1) from step 4"]


def test_another_network_cannot_be_gone_on_with(tmp_path):
    kill_at_step(make_run(tmp_path), 6, CostMeter())
    run = make_run(tmp_path, learning_rate=0.1, resume_changed=True)
    run.network.head = nn.Linear(5, 1)
    with pytest.raises(ArtefactError) as error:
        finish(run)
    state = state_path(run.options.out)
    assert str(error.value) == f"{state} is of another network; pass --overwrite to start anew"


def test_what_used_masks_before_it_was_changed_stays_marked(tmp_path):
    run = make_run(tmp_path)
    run.header = replace(run.header, oracle=("image tags read from pixel masks", "both"))
    kill_at_step(run, 6, CostMeter())
    for _ in range(2):  # of a second run, whose state knows it from the first
        run = make_run(tmp_path, learning_rate=0.1, resume_changed=True)
        run.header = replace(run.header, oracle=("both", "boxes simulated from pixel masks"))
        kill_at_step(run, 9, CostMeter())
        assert run.header.oracle == (
            "image tags read from pixel masks",
            "both",
            "boxes simulated from pixel masks",
        )


def test_an_optimiser_of_other_parameters_cannot_be_gone_on_with(tmp_path):
    kill_at_step(make_run(tmp_path), 6, CostMeter())
    run = make_run(tmp_path, freeze=0.5, resume_changed=True)
    run.network.body.weight.requires_grad = False
    with pytest.raises(StalePartialError) as error:
        finish(run)
    assert str(error.value) == (
        f"{state_path(run.options.out)} has an optimiser of other parameters, as it was begun with another --freeze; "
        "pass --overwrite to start anew, another --out, or the --freeze that it was begun with"
    )


def test_an_optimiser_of_unknown_parameters_cannot_be_gone_on_with(tmp_path):
    kill_at_step(make_run(tmp_path), 6, CostMeter())
    run = make_run(tmp_path)
    run.network.body.weight.requires_grad = False
    with pytest.raises(ArtefactError) as error:
        finish(run)
    state = state_path(run.options.out)
    assert str(error.value) == f"{state} has an optimiser of other parameters; pass --overwrite to start anew"


def test_the_optimiser_goes_on_by_name_however_its_groups_change(tmp_path):
    """At the head's rate of the body there is one group in place of two for all that decays, in another order."""
    kill_at_step(make_run(tmp_path, head_rate=10.0), 6, CostMeter())
    run = make_run(tmp_path, head_rate=1.0, resume_changed=True)
    optimiser = make_optimiser(run.network, run.options)
    restore_state(run, optimiser)
    with open_artefact(state_path(run.options.out), "training-state") as artefact:
        saved = {name: entry["exp_avg"][:] for name, entry in artefact.file["optimiser"].items()}
    assert list(saved) == ["body.bias", "body.weight", "head.bias", "head.weight"]
    for name, parameter in run.network.named_parameters():
        np.testing.assert_array_equal(optimiser.state[parameter]["exp_avg"].numpy(), saved[name])


@pytest.mark.parametrize(("before", "after"), [(None, 0.9), (0.9, None)])
def test_an_average_may_begin_or_end_in_the_course_of_a_training(tmp_path, before, after):
    kill_at_step(make_run(tmp_path, ema=before), 8, CostMeter())
    run = make_run(tmp_path, ema=after, resume_changed=True)
    kept = finish(run)
    own = run.network.state_dict()
    same = [torch.equal(kept[f"weights/{name}"], tensor) for name, tensor in own.items()]
    assert all(same) if after is None else not any(same)


@pytest.mark.parametrize(("split", "best"), [("val", 0.9), ("other", 0.5)])
def test_a_best_state_on_other_images_is_not_compared_with(tmp_path, split, best):
    def choosing(score, **values):
        run = make_run(tmp_path, "train-scribble", keep="best", **values)
        run.validate, run.choose = (lambda network: {"score": score}), "score"
        return run

    kill_at_step(choosing(0.9, validate_on="val"), 8, CostMeter())
    run = choosing(0.5, validate_on=split, jitter=0.1, resume_changed=True)
    finish(run)
    assert run.best.value == best


def test_a_loss_that_is_not_finite_stops_with_step_images_and_last_state(tmp_path):
    run = make_run(tmp_path)
    run.objective = Mean(
        lambda network, batch: {"loss": squared(network, batch)["loss"] * (float("nan") if run.step == 2 else 1.0)}
    )
    with pytest.raises(PseudolabelError) as error:
        finish(run)
    names = ", ".join(f"p{index}" for index in epoch_order(12, 0, 0)[8:12])
    state = state_path(run.options.out)
    assert str(error.value) == (
        f"the loss is nan at step 3 (images {names}); the last good state is {state}: "
        "lower --learning-rate or pass --precision float32"
    )
    with open_artefact(state, "training-state") as artefact:
        assert artefact.file["step"][()] == 1  # from that of step 2 there is no way on


def test_a_state_from_which_no_step_can_be_taken_is_not_kept(tmp_path):
    """The second step leaves huge weights; the same loss from the state that is kept goes on with a smaller rate."""

    def diverging(factor):
        run = make_run(tmp_path, save_every=1, decay_power=0, warmup=0)
        run.objective = Mean(
            lambda network, batch: {"loss": squared(network, batch)["loss"] * (factor if run.step == 1 else 1.0)}
        )
        run.network.drop.p = 0.0
        return run

    run = diverging(1.0)
    after = run.objective.after_step

    def spoil(network, step):
        if step == 2:
            with torch.no_grad():
                network.head.weight.fill_(1e30)
        return after(network, step)

    run.objective.after_step = spoil
    with pytest.raises(PseudolabelError, match=r"^the loss is inf at step 3 "):
        finish(run)
    again = diverging(1.0)
    finish(again)
    assert np.isfinite(again.curves["loss"]).all()
    assert len(again.curves["loss"]) == 12


def test_where_no_state_was_saved_yet_none_is_named(tmp_path):
    run = make_run(tmp_path, save_every=100)
    run.objective = Mean(lambda network, batch: {"loss": squared(network, batch)["loss"] * float("nan")})
    with pytest.raises(PseudolabelError) as error:
        finish(run)
    assert "); no state was saved yet: lower --learning-rate" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_starting_anew_forgets_the_state_of_an_earlier_training(tmp_path):
    kill_at_step(make_run(tmp_path), 8, CostMeter())
    with pytest.raises(ZeroDivisionError):
        finish(failing_at(make_run(tmp_path, save_every=100), 3), overwrite=True)
    assert not state_path(tmp_path / "net.h5").exists()
    kill_at_step(make_run(tmp_path), 8, CostMeter())
    with pytest.raises(ZeroDivisionError):
        finish(failing_at(make_run(tmp_path), 0), overwrite=True)
    assert state_path(tmp_path / "net.h5").exists()  # no step was taken: nothing changes


def failing_at(run, step):
    """The run, which cannot compute its loss after so many steps."""
    run.objective = Mean(
        lambda network, batch: {"loss": squared(network, batch)["loss"] / (1 if run.step < step else 1 // 0)}
    )
    return run


@pytest.mark.parametrize("killed", [False, True])
def test_the_best_state_is_kept_where_one_is_chosen(tmp_path, killed):
    scores = {3: 0.1, 6: 0.7, 9: 0.7, 12: 0.3}

    def choosing(run: Run) -> Run:
        run.validate = lambda network: {"score": scores[run.step]}
        run.choose = "score"
        return run

    early = make_run(tmp_path / "a", steps=6, decay_power=0, warmup=0)
    wanted = finish(early)
    run = choosing(make_run(tmp_path / "b", decay_power=0, warmup=0))
    if killed:
        kill_at_step(run, 10, CostMeter())
        run = choosing(make_run(tmp_path / "b", decay_power=0, warmup=0))
    finish(run)
    assert (run.best.value, run.best.step) == (0.7, 6)  # the first of equals
    for name, tensor in wanted.items():
        assert torch.equal(torch.from_numpy(run.best.arrays[name]), tensor), name


def test_a_best_state_is_chosen_where_a_training_goes_on_from_its_last_step(tmp_path):
    def choosing(**values):
        run = make_run(tmp_path, "train-scribble", keep="best", validate_on="val", **values)
        run.validate, run.choose = (lambda network: {"score": 0.5, "other": 2.0}), "score"
        return run

    kill_at_step(make_run(tmp_path, "train-scribble", save_every=6), 8, CostMeter())
    run, cost = choosing(steps=6, resume_changed=True), CostMeter()
    train(run, Progress(), cost, overwrite=False)
    assert (run.best.value, run.best.step, run.kept_measured) == (0.5, 6, {"score": 0.5, "other": 2.0})
    save_checkpoint(run, cost, (), ())
    with open_artefact(run.options.out, "checkpoint") as artefact:
        assert artefact.file["weights"].keys() == dict(run.network.named_parameters()).keys()


def test_what_was_measured_of_the_best_state_is_kept_with_it(tmp_path):
    def choosing(run):
        run.validate, run.choose = (lambda network: {"score": -abs(run.step - 6.0), "step": float(run.step)}), "score"
        return run

    kill_at_step(choosing(make_run(tmp_path)), 10, CostMeter())
    run = choosing(make_run(tmp_path))
    finish(run)
    assert run.kept_step == 6
    assert run.kept_measured == {"score": 0.0, "step": 6.0}
    assert run.measured == {"score": -6.0, "step": 12.0}


def test_an_epoch_in_which_nothing_was_measured_is_no_number(tmp_path):
    kill_at_step(make_run(tmp_path), 8, CostMeter())
    run = make_run(tmp_path, jitter=0.1, resume_changed=True)
    run.validate = lambda network: {"score": 0.5}
    finish(run)
    np.testing.assert_array_equal(run.curves["epoch/score"], [np.nan, np.nan, 0.5, 0.5])


class Strip(nn.Module):
    """A convolution whose weights lie channels-last in memory."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)

    def heads(self):
        return [self.head]


def test_a_killed_training_of_channels_last_weights_ends_as_an_uninterrupted_one(tmp_path):
    """The fused step takes weights and their averages in the order of memory."""

    def strip(folder: Path) -> Run:
        run = make_run(folder)
        run.network = Strip()
        run.objective = Mean(loss)
        return run

    def loss(network, batch):
        images = batch["x"][:, :, None, None] * torch.arange(6.0).view(1, 1, 2, 3)
        return {"loss": (network.head(images).sum(dim=(1, 2, 3)) - batch["y"][:, 0]).square().mean()}

    def dies(network, batch):
        if run.step == 7:
            raise KilledError
        return loss(network, batch)

    whole = finish(strip(tmp_path / "a"))
    run = strip(tmp_path / "b")
    run.objective = Mean(dies)
    with pytest.raises(KilledError):
        finish(run)
    resumed = finish(strip(tmp_path / "b"))
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name

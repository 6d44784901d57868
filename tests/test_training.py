"""The shared training loop: schedule, order, accumulation, averaging, resuming."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pseudolabel.artefacts import Header, StalePartialError, open_artefact, read_header
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.data import Record
from pseudolabel.errors import ArtefactError, InputError, PseudolabelError
from pseudolabel.options import STAGES
from pseudolabel.progress import Progress
from pseudolabel.training import (
    Group,
    Mean,
    Run,
    joined,
    sample_rng,
    save_checkpoint,
    split_records,
    state_path,
    train,
)
from pseudolabel.training.loop import training_mode
from pseudolabel.training.samples import epoch_order
from pseudolabel.training.schedule import make_optimiser, rate_factor


class Line(nn.Module):
    """A linear model with dropout, so that a resumed run also needs torch's random state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.drop(torch.tanh(self.body(x))))

    def heads(self):
        return [self.head]


class Points:
    """Twelve points; the noise depends on epoch and index alone."""

    def __len__(self):
        return 12

    def __getitem__(self, key):
        rng = sample_rng(0, *key)
        x = rng.normal(size=3).astype(np.float32)
        return {"id": f"p{key[1]}", "x": x, "y": np.float32([x.sum() + key[1]])}


def squared(network, batch):
    return {"loss": (network(batch["x"]) - batch["y"]).square().mean()}


def make_run(tmp_path: Path, stage: str = "train-cam", **settings) -> Run:
    tmp_path.mkdir(exist_ok=True)
    values = {"epochs": 4, "batch_size": 4, "learning_rate": 0.05, "save_every": 1, "workers": 0, **settings}
    options = STAGES[stage](out=tmp_path / "net.h5", root=tmp_path, **values)
    header = Header("checkpoint", stage, options.resolved(), ("background", "a"))
    return Run(Line(), Points(), Mean(squared, options.ema), options, header, torch.device("cpu"), torch.float32)


def finish(run: Run, *, overwrite: bool = False):
    train(run, Progress(), CostMeter(), overwrite=overwrite)
    return {name: torch.from_numpy(array) for name, array in run.objective.checkpoint(run.network).items()}


def test_the_rate_rises_linearly_and_falls_to_zero():
    factors = [rate_factor(step, 10, warmup=0.2, power=1.0) for step in range(10)]
    expected = [1 / 3, 2 / 3] + [1 - k / 8 for k in range(8)]
    assert factors == pytest.approx(expected)
    assert rate_factor(5, 10, warmup=0.0, power=2.0) == 0.25


def test_every_epoch_visits_every_sample_once_in_an_order_of_its_own():
    first, second = epoch_order(50, 3, 0), epoch_order(50, 3, 1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, epoch_order(50, 3, 0))


def test_heads_learn_faster_and_biases_do_not_decay(tmp_path):
    run = make_run(tmp_path, head_rate=10, weight_decay=0.1)
    groups = make_optimiser(run.network, run.options).param_groups
    found = {
        (group["peak"], group["weight_decay"], parameter.shape) for group in groups for parameter in group["params"]
    }
    assert found == {
        (0.05, 0.1, (4, 3)),
        (0.05, 0.0, (4,)),
        (0.5, 0.1, (1, 4)),
        (0.5, 0.0, (1,)),
    }


class Listening(Progress):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def warn(self, text: str) -> None:
        self.warned.append(text)


class KilledError(Exception):
    """What ends a training in the middle."""


def kill_at_step(run: Run, step: int, cost: CostMeter) -> None:
    """Train until the given step, from 1, which fails."""

    def dies(network, batch):
        if run.step == step - 1:
            raise KilledError
        return squared(network, batch)

    run.objective = Mean(dies, run.options.ema)
    with pytest.raises(KilledError):
        train(run, Progress(), cost, overwrite=False)


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
    save_checkpoint(last, cost)
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
    save_checkpoint(run, cost)
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


def test_a_training_can_go_on_with_other_options_and_says_so(tmp_path):
    kill_at_step(make_run(tmp_path, save_every=4), 6, CostMeter())
    run, cost, said = make_run(tmp_path, learning_rate=0.1, resume_changed=True, save_every=2), CostMeter(), Listening()
    train(run, said, cost, overwrite=False)
    whole = make_run(tmp_path / "whole")
    finish(whole)
    factors = [2 * (step >= 4) or 1 for step in range(12)]
    assert run.curves["rate"] == pytest.approx(np.multiply(whole.curves["rate"], factors))
    change = "--learning-rate (0.05, now 0.1) from step 4"
    assert said.warned == [f"this training was begun with another {change}"]
    save_checkpoint(run, cost)
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


def test_micro_batches_add_up_to_the_whole_batch(tmp_path):
    runs = [make_run(tmp_path / str(micro), micro_batch=micro, save_every=1000) for micro in (None, 1, 2)]
    for run in runs:
        run.network.drop.p = 0.0
    whole, *parts = [finish(run) for run in runs]
    for part in parts:
        for name, tensor in whole.items():
            torch.testing.assert_close(part[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_average_lags_behind_the_network(tmp_path):
    run = make_run(tmp_path, ema=0.9, epochs=1, save_every=1000)
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    average = finish(run)
    # by hand for the three steps: decay min(0.9, s / (s + 10)), starting from the first weights
    assert not torch.equal(average["weights/body.weight"], run.network.state_dict()["body.weight"])
    assert not torch.equal(average["weights/body.weight"], before["body.weight"])


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


def test_a_batch_size_other_than_the_recipes_is_warned_about(tmp_path, capsys):
    run = make_run(tmp_path, recipe_batch=8, epochs=1)
    finish(run)
    assert capsys.readouterr().err == (
        "warning: effective batch 4 differs from the recipe's 8, for which the learning rate 0.05 was chosen; "
        "results will differ\n"
    )


def test_records_are_parted_at_random_but_always_alike():
    records = tuple(Record(str(index), Path("x"), (1,)) for index in range(10))
    kept, held_out = split_records(records, 0.3, seed=5)
    assert len(held_out) == 3
    assert sorted([*kept, *held_out], key=lambda record: int(record.id)) == list(records)
    assert split_records(records, 0.3, seed=5) == (kept, held_out)
    assert split_records(records, 0.3, seed=6) != (kept, held_out)
    assert split_records(records, 0.0, seed=5) == (records, ())
    assert len(split_records(records, 1.0, seed=5)[0]) == 1


def test_frozen_normalisations_keep_their_statistics():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2), nn.BatchNorm2d(2, affine=False))
    network[0].weight.requires_grad = False
    training_mode(network)
    assert [module.training for module in network] == [False, True, True]


def test_workers_do_not_change_the_result(tmp_path):
    alone = finish(make_run(tmp_path / "a", save_every=1000))
    helped = finish(make_run(tmp_path / "b", save_every=1000, workers=2))
    for name, tensor in alone.items():
        assert torch.equal(tensor, helped[name]), name


def test_a_number_of_steps_takes_the_place_of_the_epochs(tmp_path):
    run = make_run(tmp_path, steps=5)
    assert (run.steps_per_epoch, run.total_steps) == (3, 5)
    run.validate = lambda network: {"score": 1.0}
    finish(run)
    assert len(run.curves["loss"]) == 5
    assert len(run.curves["epoch/score"]) == 2  # after three steps and at the end


def test_what_begins_later_is_no_number_before(tmp_path):
    run = make_run(tmp_path, epochs=1)

    def loss(network, batch):
        more = {"extra": torch.tensor(2.0)} if run.step == 1 else {}
        return {**squared(network, batch), **more}

    run.objective = Mean(loss)
    finish(run)
    np.testing.assert_array_equal(run.curves["extra"], [np.nan, 2.0, np.nan])


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
    save_checkpoint(run, cost)
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


def test_the_average_is_what_is_validated_and_kept(tmp_path):
    run = make_run(tmp_path, ema=0.9, epochs=1)
    seen = []
    run.validate = lambda network: seen.append(network.state_dict()["body.weight"].clone()) or {"score": 0.0}
    kept = finish(run)
    assert torch.equal(seen[-1], kept["weights/body.weight"])
    assert not torch.equal(seen[-1], run.network.state_dict()["body.weight"])


GROUP_SCRIPT = """
import sys
import torch
from pathlib import Path
from test_training import make_run
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.progress import Progress
from pseudolabel.training import joined, save_checkpoint, train

with joined("cpu") as (group, device):
    run = make_run(Path(sys.argv[1]), save_every=2)
    run.network.drop.p = 0.0
    run.group = group
    cost = CostMeter()
    used = cost.used()[0]
    train(run, Progress(), cost, overwrite=False)
    torch.save(run.network.state_dict(), Path(sys.argv[1]) / f"{group.rank}.pt")
    (Path(sys.argv[1]) / f"{group.rank}.txt").write_text(str(used))
    save_checkpoint(run, cost)
"""


def test_two_processes_learn_what_one_does_from_the_same_batch(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(GROUP_SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    alone = make_run(tmp_path / "alone")
    alone.network.drop.p = 0.0
    wanted = finish(alone)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, tensor in ranks[0].items():
        assert torch.equal(tensor, ranks[1][name]), name
        torch.testing.assert_close(tensor, wanted[f"weights/{name}"], rtol=1e-5, atol=1e-6)
    with open_artefact(tmp_path / "net.h5", "checkpoint") as artefact:  # the first process wrote it
        np.testing.assert_allclose(artefact.file["curves/loss"][:], alone.curves["loss"], rtol=1e-5)
    assert not state_path(tmp_path / "net.h5").exists()
    header = read_header(tmp_path / "net.h5")
    assert header.environment["processes"] == 2
    used = [float((tmp_path / f"{rank}.txt").read_text()) for rank in (0, 1)]
    assert min(used) > 0
    assert header.cost["cpu_seconds"] >= sum(used)


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path):
    run = make_run(tmp_path)
    run.group = Group(0, 3)
    with pytest.raises(InputError, match=r"^4 images a step cannot be shared by 3 processes; set --batch-size$"):
        finish(run)


def test_a_process_without_a_gpu_of_its_own_says_so_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # whatever there are, the second is one too many
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as error, joined("cuda"):
        pass
    assert str(error.value) == "--device cuda:1: torch sees 1 GPUs; use --device auto or cpu"
    assert error.value.alone


def test_one_gpu_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError) as error, joined("cuda:0"):
        pass
    assert str(error.value) == "--device cuda:0 is one GPU for 2 processes; use --device cuda"


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


def test_a_batch_of_more_images_than_there_are_is_stated_as_it_is(tmp_path, capsys):
    finish(make_run(tmp_path, batch_size=64, recipe_batch=64, epochs=1))
    assert capsys.readouterr().err.startswith("warning: effective batch 12 differs from the recipe's 64")

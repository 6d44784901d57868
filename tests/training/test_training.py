"""The shared training loop: order, accumulation, averaging, choosing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pseudolabel.data import Record
from pseudolabel.training import Mean, split_records
from pseudolabel.training.loop import training_mode
from pseudolabel.training.samples import epoch_order
from tests.helpers.loop import finish, make_run, squared


def test_every_epoch_visits_every_sample_once_in_an_order_of_its_own():
    first, second = epoch_order(50, 3, 0), epoch_order(50, 3, 1)
    assert sorted(first) == sorted(second) == list(range(50))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, epoch_order(50, 3, 0))


def test_micro_batches_add_up_to_the_whole_batch(tmp_path):
    runs = [make_run(tmp_path / str(micro), micro_batch=micro, save_every=1000) for micro in (None, 1, 2)]
    for run in runs:
        run.network.drop.p = 0.0
    whole, *parts = [finish(run) for run in runs]
    for part in parts:
        for name, tensor in whole.items():
            torch.testing.assert_close(part[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("micro", [None, 1])
@pytest.mark.parametrize("most", [0.1, 100.0])
def test_the_whole_batchs_gradient_is_clipped(tmp_path, micro, most):
    """By hand: the loss is u a + v b for two biases a and b, where (u, v) is the mean of four points."""
    run = make_run(tmp_path, steps=1, micro_batch=micro, clip_gradients=most)

    def loss(network, batch):
        u, v = batch["x"][:, :2].mean(dim=0)
        return {"loss": u * network.body.bias[0] + v * network.head.bias[0]}

    run.objective = Mean(loss)
    finish(run)
    chosen = epoch_order(12, run.header.seed, 0)[:4]
    wanted = np.mean([run.samples[0, index]["x"][:2] for index in chosen], axis=0)
    norm = np.hypot(*wanted)
    assert 0.1 < norm < 100
    found = [run.network.body.bias.grad[0].item(), run.network.head.bias.grad[0].item()]
    np.testing.assert_allclose(found, wanted * min(1, most / norm), rtol=1e-5)
    assert run.curves["gradient_norm"] == pytest.approx([norm])


def test_the_average_lags_behind_the_network(tmp_path):
    run = make_run(tmp_path, ema=0.9, epochs=1, save_every=1000)
    before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
    average = finish(run)
    # by hand for the three steps: decay min(0.9, s / (s + 10)), starting from the first weights
    assert not torch.equal(average["weights/body.weight"], run.network.state_dict()["body.weight"])
    assert not torch.equal(average["weights/body.weight"], before["body.weight"])


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


def test_the_average_is_what_is_validated_and_kept(tmp_path):
    run = make_run(tmp_path, ema=0.9, epochs=1)
    seen = []
    run.validate = lambda network: seen.append(network.state_dict()["body.weight"].clone()) or {"score": 0.0}
    kept = finish(run)
    assert torch.equal(seen[-1], kept["weights/body.weight"])
    assert not torch.equal(seen[-1], run.network.state_dict()["body.weight"])


def test_a_batch_of_more_images_than_there_are_is_stated_as_it_is(tmp_path, capsys):
    finish(make_run(tmp_path, batch_size=64, recipe_batch=64, epochs=1))
    assert capsys.readouterr().err.startswith("warning: effective batch 12 differs from the recipe's 64")

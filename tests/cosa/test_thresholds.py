"""The dynamic threshold: its histograms, its queue, its moving average, collapse, and exact restoring."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pseudolabel.cosa.thresholds import DynamicThreshold, count_scores
from pseudolabel.labels.mixture import as_histogram, count_values, cut_by_three, cut_by_two
from pseudolabel.training.ema import warmed_decay


def batch(seed: int, *, middle: float = 0.7, size: int = 600) -> np.ndarray:
    """Counts of a batch: two heaps of scores, at 0.25 and at ``middle``."""
    random = np.random.default_rng(seed)
    values = np.concatenate([random.normal(0.25, 0.06, size), random.normal(middle, 0.08, size // 2)])
    return count_values(values.clip(0, 1), 0.05)


def test_scores_of_maps_are_counted_like_values() -> None:
    cams = torch.rand(3, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 0.4
    inside = torch.rand(3, 5, 6) > 0.3
    inside[0] = False
    found = count_scores(cams, inside, minimum=0.2, bins=16)
    assert found.dtype == torch.int64
    assert found.tolist() == count_values(cams.amax(dim=1)[inside].numpy(), 0.2, bins=16).tolist()
    whole = count_scores(cams)
    assert torch.equal(whole, count_scores(cams[:1]) + count_scores(cams[1:]))
    assert count_scores(torch.tensor([0.05, 0.06, 1.0]).view(1, 1, 1, 3)).nonzero().flatten().tolist() == [2, 255]


def test_the_first_fit_replaces_the_threshold_and_later_ones_move_it() -> None:
    threshold = DynamicThreshold(low=0.9, high=0.9)
    threshold.update(batch(0))
    first = cut_by_two(as_histogram(batch(0), 0.05))
    assert threshold.low == threshold.high == threshold.value == first.value
    threshold.update(torch.from_numpy(batch(1, middle=0.5)))
    second = cut_by_two(as_histogram(batch(0) + batch(1, middle=0.5), 0.05), start=first.mixture, iterations=3)
    assert warmed_decay(0.99, 1) == 1 / 11
    assert threshold.value == pytest.approx(first.value / 11 + second.value * 10 / 11)


def test_the_average_by_hand_where_all_batches_are_alike() -> None:
    threshold = DynamicThreshold(low=0.9, high=0.9, decay=0.5)
    fits = []
    for _ in range(30):
        threshold.update(batch(0))
        assert threshold.mixture is not None
        fits.append(cut_by_two(as_histogram(threshold.counts, 0.05), start=threshold.mixture, iterations=1).value)
    assert threshold.value == pytest.approx(fits[-1], abs=0.004)
    assert threshold.value == pytest.approx(cut_by_two(as_histogram(batch(0), 0.05)).value, abs=0.004)  # a bin


def test_the_queue_forgets() -> None:
    short, all_of_them = DynamicThreshold(length=3), DynamicThreshold(length=50)
    batches = [batch(seed, middle=0.5 + 0.05 * seed) for seed in range(7)]
    for counts in batches:
        short.update(counts)
        all_of_them.update(counts)
    assert short.counts.tolist() == sum(batches[-3:]).tolist()
    assert all_of_them.counts.tolist() == sum(batches).tolist()


def test_following_ends_where_a_fit_from_nothing_ends() -> None:
    threshold = DynamicThreshold(length=10, decay=0.01)
    for seed in range(60):
        threshold.update(batch(seed, middle=0.6 + 0.1 * min(1, seed / 30)))
    anew = cut_by_two(as_histogram(threshold.counts, 0.05))
    assert threshold.value == pytest.approx(anew.value, abs=0.008)  # two bins
    assert threshold.mixture is not None
    np.testing.assert_allclose(threshold.mixture.mean, anew.mixture.mean, atol=0.005)


def test_the_released_rule_has_two_thresholds() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(middle, 0.03, 500) for middle in (0.2, 0.5, 0.8)])
    threshold = DynamicThreshold("released", low=0.3, high=0.6)
    threshold.update(count_values(values, 0.05))
    cut = cut_by_three(as_histogram(threshold.counts, 0.05))
    assert (threshold.low, threshold.high) == (cut.low, cut.high)
    assert 0.2 < threshold.low < 0.35 < 0.65 < threshold.high < 0.8
    assert threshold.value == pytest.approx(cut.value)


@pytest.mark.parametrize("rule", ["mixture", "released"])
def test_where_there_is_nothing_to_separate_the_thresholds_stay(rule) -> None:
    threshold = DynamicThreshold(rule, low=0.3, high=0.6, length=2)
    nothing = np.zeros(256, dtype=np.int64)
    constant = nothing.copy()
    constant[100] = 500
    for counts in (nothing, constant, constant):
        threshold.update(counts)
        assert threshold.collapsed
        assert (threshold.low, threshold.high) == (0.3, 0.6)
        assert threshold.mixture is None
    threshold.update(batch(0))
    threshold.update(batch(1))
    assert not threshold.collapsed
    moved = threshold.low, threshold.high
    assert moved != (0.3, 0.6)
    for _ in range(2):
        threshold.update(constant)
    assert threshold.collapsed
    assert (threshold.low, threshold.high) != (0.3, 0.6)


def test_one_heap_whose_threshold_would_lie_beside_it_is_a_collapse() -> None:
    values = np.random.default_rng(13).normal(0.305, 0.057, 647)
    threshold = DynamicThreshold(low=0.3, high=0.6)
    threshold.update(count_values(values, 0.05))
    assert threshold.collapsed
    assert (threshold.low, threshold.high) == (0.3, 0.6)


def test_a_component_that_has_lost_its_values_is_a_collapse() -> None:
    counts = np.zeros(256, dtype=np.int64)
    counts[100], counts[250] = 100_000, 1
    threshold = DynamicThreshold(low=0.4, high=0.4)
    threshold.update(counts)
    assert threshold.collapsed
    assert threshold.value == 0.4


@pytest.mark.parametrize("rule", ["mixture", "released"])
@pytest.mark.parametrize("updates", [0, 1, 9])
def test_a_restored_threshold_goes_on_exactly(rule, updates: int) -> None:
    one = DynamicThreshold(rule, length=5)
    for seed in range(updates):
        one.update(batch(seed))
    state = one.state_dict()
    assert all(isinstance(array, np.ndarray) for array in state.values())
    other = DynamicThreshold(rule, length=5, low=0.1, high=0.2)
    other.load_state_dict(state)
    for seed in range(20, 27):
        assert (one.low, one.high, one.collapsed) == (other.low, other.high, other.collapsed)
        one.update(batch(seed))
        other.update(batch(seed))
    assert one.counts.tolist() == other.counts.tolist()
    assert state["taken"].tolist()[0] == updates  # a copy: later updates do not reach it


def test_a_queue_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the queue stored is \(5, 256\) \(batches, bins\), wanted \(6, 256\)$"):
        DynamicThreshold(length=6).load_state_dict(DynamicThreshold(length=5).state_dict())


@pytest.mark.parametrize(("before", "after", "components"), [("mixture", "released", 3), ("released", "mixture", 2)])
def test_another_rule_goes_on_with_the_scores_and_a_mixture_of_its_own(before, after, components: int) -> None:
    one, other = DynamicThreshold(before, length=5), DynamicThreshold(after, length=5)
    one.update(batch(0))
    other.load_state_dict(one.state_dict())
    other.update(batch(1))
    assert other.counts.sum() == (batch(0) + batch(1)).sum()
    assert other.mixture is not None
    assert len(other.mixture.weight) == components

"""Parts of a batch, each computed in a thread of its own."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from pseudolabel import threads as module
from pseudolabel.threads import in_parts

pytestmark = pytest.mark.usefixtures("three_threads")


def test_parts_are_computed_at_the_same_time_and_stay_in_order() -> None:
    """They wait for each other, so that this ends only if they are computed at once."""
    together = threading.Barrier(3)

    def compute(part: Tensor) -> tuple[list[float], int]:
        together.wait(timeout=30)
        return part.flatten().tolist(), torch.get_num_threads()

    assert in_parts(compute, torch.arange(7.0)[:, None]) == [([0, 1, 2], 1), ([3, 4], 1), ([5, 6], 1)]
    assert in_parts(compute, torch.arange(3.0)[:, None]) == [([0], 1), ([1], 1), ([2], 1)]
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("size", [0, 1])
def test_what_has_no_parts_is_computed_here(size: int) -> None:
    here = threading.current_thread()
    found = in_parts(lambda part: (len(part), threading.current_thread() is here), torch.zeros(size, 2))
    assert found == [(size, True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gradients", [True, False])
def test_number_format_and_gradients_are_those_around_it(dtype: torch.dtype, gradients: bool) -> None:
    weight = torch.ones(4, 4, requires_grad=True)

    def compute(part: Tensor) -> Tensor:
        return part @ weight

    mixed = dtype != torch.float32
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        found = in_parts(compute, torch.ones(6, 4))
    assert [(part.dtype, part.requires_grad) for part in found] == [(dtype, gradients)] * 3


def test_an_error_in_a_thread_is_raised_and_the_next_call_works() -> None:
    def compute(part: Tensor) -> float:
        if part[0] == 2:
            raise ValueError("two")
        return float(part.sum())

    with pytest.raises(ValueError, match="two"):
        in_parts(compute, torch.arange(6.0))
    assert in_parts(compute, torch.ones(6)) == [2, 2, 2]


def test_an_error_is_raised_once_no_part_is_computed_any_more() -> None:
    ended = []

    def compute(part: Tensor) -> None:
        if part[0] == 0:
            raise ValueError("the first")
        time.sleep(0.3)
        ended.append(float(part[0]))

    with pytest.raises(ValueError, match="the first"):
        in_parts(compute, torch.arange(3.0))
    assert sorted(ended) == [1, 2]


def test_threads_that_cannot_all_start_wait_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the interpreter would wait for them at its end."""
    pools = []

    class Failing(ThreadPoolExecutor):
        def submit(self, function: Any, /, *words: Any, **settings: Any) -> Future[Any]:
            if self._threads:
                raise RuntimeError("can't start new thread")
            return super().submit(function, *words, **settings)

    def fails(count: int) -> ThreadPoolExecutor:
        pools.append(Failing(count))
        return pools[0]

    monkeypatch.setattr(module, "one_thread_each", fails)
    torch.set_num_threads(5)  # a number that no test has threads for yet
    with pytest.raises(RuntimeError, match="can't start new thread"):
        in_parts(lambda part: part, torch.zeros(5))
    (thread,) = pools[0]._threads
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert torch.get_num_threads() == 5

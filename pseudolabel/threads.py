"""A processor's threads, each with a part of its own to compute.

torch lets all threads share every operation. Those of a small network are short, so that threads spend much of the time
waiting for each other; where parts do not depend on each other, a thread for each can be quicker: make-cams gains,
co-training's teacher hardly (benchmarks/README.md).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def one_thread_each(count: int) -> ThreadPoolExecutor:
    """Threads in each of which torch computes alone. They start one by one, as they are needed.

    Each that starts also sets what ``torch.set_num_threads`` sets for all: set it again once they have.
    """
    return ThreadPoolExecutor(count, initializer=_compute_alone)


def in_parts(function: Callable[[Tensor], Result], batch: Tensor) -> list[Result]:
    """A function of parts of a batch, on a processor one in each thread, at the same time; else of the whole.

    Args:
        function: Called in several threads. Number format, and whether gradients are wanted, are as around this call.
        batch: (B, ...).

    Returns:
        What it gave for each part, in order.
    """
    threads = torch.get_num_threads()
    count = min(len(batch), threads) if batch.device.type == "cpu" else 1
    if count <= 1:
        return [function(batch)]
    gradients, mixed = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def compute(part: Tensor) -> Result:
        with torch.set_grad_enabled(gradients), torch.autocast("cpu", dtype, enabled=mixed):
            return function(part)

    results = [_pool(threads).submit(compute, part) for part in batch.tensor_split(count)]
    wait(results)  # of all, before the error of one is raised: nothing goes on behind the caller's back
    return [result.result() for result in results]


def _compute_alone() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # settles it: a thread takes the number for all at its first question, and then keeps it


@cache
def _pool(count: int) -> ThreadPoolExecutor:
    """Threads that stay, all of them started."""
    pool, together = one_thread_each(count), threading.Barrier(count)
    try:
        for started in [pool.submit(together.wait) for _ in range(count)]:
            started.result()
    except BaseException:
        together.abort()  # those that have started would wait for the others for ever, and the interpreter for them
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        torch.set_num_threads(count)
    return pool


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a copy of this process has no threads but its own

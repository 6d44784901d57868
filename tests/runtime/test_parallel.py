from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest

from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.runtime.parallel import cores, ordered_map


def slow_square(number: int) -> int:
    time.sleep(0.02 * (number % 3))  # later items overtake earlier ones
    return number * number


def refuse(number: int, *, bad: frozenset[int]) -> int:
    if number in bad:
        raise InputError(f"item {number} is bad")
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def surroundings(_: int) -> tuple[str, bool]:
    return os.environ["OMP_NUM_THREADS"], signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert list(ordered_map(slow_square, range(11), workers=workers)) == [n * n for n in range(11)]


def test_nothing_to_do_starts_nothing() -> None:
    assert list(ordered_map(slow_square, [], workers=2)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_in_order_propagates(workers: int) -> None:
    results = ordered_map(partial(refuse, bad=frozenset({3, 5})), range(9), workers=workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match=r"^item 3 is bad$"):
        next(results)


def test_items_are_drawn_only_as_results_are_taken() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            drawn.append(number)
            yield number

    with closing(ordered_map(slow_square, items(), workers=2, window=3)) as results:
        assert next(results) == 0
        assert len(drawn) == 6


def test_a_killed_worker_is_one_line() -> None:
    with pytest.raises(
        PseudolabelError, match=r"^a worker process was killed, most likely for want of memory; run again"
    ):
        list(ordered_map(die, range(3), workers=2))


def test_workers_have_one_thread_and_no_ear_for_ctrl_c_and_this_process_stays_as_it_was() -> None:
    before = dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert list(ordered_map(surroundings, range(2), workers=2)) == [("1", True)] * 2
    assert (dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before


ENDLESS = """
import time
from pseudolabel.runtime.parallel import ordered_map
for _ in ordered_map(time.sleep, iter(lambda: 0.05, None), workers=2):
    print("up", flush=True)
"""


@pytest.fixture
def endless() -> Iterator[subprocess.Popen[str]]:
    """A process with two workers, in a process group of its own."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", ENDLESS]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process


def test_ctrl_c_ends_everything_with_one_interrupt(endless: subprocess.Popen[str]) -> None:
    os.killpg(endless.pid, signal.SIGINT)  # as a terminal does: to every process
    _, messages = endless.communicate(timeout=10)
    assert messages.rstrip().endswith("KeyboardInterrupt")
    assert messages.count("Traceback") == 1
    wait_until_gone(endless.pid)


def test_workers_end_with_a_killed_parent(endless: subprocess.Popen[str]) -> None:
    endless.kill()
    endless.wait()
    wait_until_gone(endless.pid)


def wait_until_gone(group: int) -> None:
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process group {group} lives on")


def test_cores_is_at_least_one() -> None:
    assert cores() >= 1

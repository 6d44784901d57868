"""An ordered map over worker processes with bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from pseudolabel.errors import PseudolabelError
from pseudolabel.runtime.subprocesses import end_with_parent

T = TypeVar("T")
R = TypeVar("R")

_THREAD_LIMITS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
_GRACE = 0.5  # seconds: what ends all processes of a job may reach a worker first, and this process is to say why
_NO_MEMORY = (
    "there is not enough memory for one image; run again with fewer --workers, or with smaller images, to go on"
)
_function: Callable[[Any], Any]  # in a worker process: what it applies, sent once instead of with every item


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, workers: int | None, window: int = 4
) -> Generator[R, None, None]:
    """Apply a function to every item, in worker processes, and yield the results in the items' order.

    Items are drawn only as results are taken, so that memory does not grow with their number. Each worker computes in
    one thread. The first error, in the items' order, is raised here and ends the workers. Where the loop over the
    results may break off, close the generator, so that the workers end at once::

        with closing(ordered_map(refine, tasks, workers=2)) as results:
            for result in results:
                ...

    Args:
        function: A function of a module, or a ``functools.partial`` of one: workers start from nothing and import it.
            What is bound to it is sent once to each worker.
        items: What it is applied to; each is sent to a worker.
        workers: How many processes; None is one a core; 0 and 1 compute in this process.
        window: Items under way for each worker.

    Raises:
        PseudolabelError: A worker was killed.
    """
    workers = cores() if workers is None else workers
    if workers <= 1:
        try:
            yield from map(function, items)
        except MemoryError as error:
            raise PseudolabelError(_NO_MEMORY) from error
        return
    # Not forked: a copy of a process in which torch has begun threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_install, initargs=(function,))
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            with _worker_start():
                pending.append(pool.submit(_apply, item))
            if len(pending) >= workers * window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        time.sleep(_GRACE)
        raise PseudolabelError(
            "a worker process was killed, most likely for want of memory; run again with fewer --workers to go on"
        ) from error
    except MemoryError as error:
        raise PseudolabelError(_NO_MEMORY) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _worker_start() -> Iterator[None]:
    """What a worker inherits when it starts, which a submission may cause: one thread, and no ear for Ctrl-C.

    The thread limits must stand in the environment before the worker imports NumPy. Ctrl-C reaches every process of the
    terminal; this process alone answers it and ends the workers.
    """
    before = {name: os.environ.get(name) for name in _THREAD_LIMITS}
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
    mask = getattr(signal, "pthread_sigmask", None)  # Windows has none: there a worker is deaf once it is installed
    blocked = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else None
    try:
        yield
    finally:
        if mask:
            mask(signal.SIG_SETMASK, blocked)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _install(function: Callable[[Any], Any]) -> None:
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    _function = function


def _apply(item: Any) -> Any:
    return _function(item)

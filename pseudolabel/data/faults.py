"""What happens where a data set is at fault: loading stops at the first fault, ``data check`` gathers them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from pseudolabel.errors import DatasetError

Fault = Callable[[str], None]
"""Takes one line that names file and cause. If it returns, its caller leaves the faulty item out and goes on."""


def stop(message: str) -> NoReturn:
    """The usual answer to a fault.

    Raises:
        DatasetError: Always.
    """
    raise DatasetError(message)


@contextmanager
def passing_on(fault: Fault) -> Iterator[None]:
    """Hand an error raised inside to ``fault`` and go on behind the block."""
    try:
        yield
    except DatasetError as error:
        fault(str(error))

"""Files of the Hugging Face Hub: from its cache, else downloaded, or one line that says why not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from pseudolabel.errors import PseudolabelError

_PATIENCE = 5.0  # seconds for the hub to answer at all


def hub_file(repository: str, names: Sequence[str]) -> Path:
    """The first of some files that a repository of the hub has.

    What is cached serves, without a connection. A first question tells whether there is one: the downloader itself
    would try for half a minute. Only versions of huggingface_hub before 1.0 repeat that question.

    Args:
        repository: ORG/MODEL, or ORG/MODEL@REVISION.
        names: Of the files, the preferred one first.

    Returns:
        Its place in the cache.

    Raises:
        OSError: It is not cached, and the hub cannot be reached, refuses it, or has none of these files.
        ValueError: There can be no repository of this name.
    """
    identifier, _, revision = repository.partition("@")
    for name in names:
        cached = try_to_load_from_cache(identifier, name, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
    for name in names:
        try:
            _ask(hf_hub_url(identifier, name, revision=revision or None))
            return Path(hf_hub_download(identifier, name, revision=revision or None))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    raise FileNotFoundError(f"{repository} has no {' or '.join(names)}")


def _ask(address: str) -> None:
    """Ask the hub for a file's size and version."""
    try:
        get_hf_file_metadata(address, timeout=_PATIENCE)
    except (HfHubHTTPError, OfflineModeIsEnabled):
        raise
    except Exception as error:  # of requests, httpx or httpx2: which of them it is depends on the hub's version
        raise ConnectionError(f"no connection to {constants.ENDPOINT}, and it is not cached") from error


@contextmanager
def downloading(what: str, instead: str, failures: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Say in one line that something could not be had; what the downloader logs of its attempts is left out.

    Args:
        what: What was to be had.
        instead: What to do without it.
        failures: What a failed download raises.

    Raises:
        PseudolabelError: It could not be had.
    """
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except failures as error:
        cause = str(error).strip().split("\n", 1)[0][:160]
        raise PseudolabelError(f"timm could not load {what} ({cause}); {instead}") from error
    finally:
        logger.setLevel(level)

"""The errors a user may meet. Each is one line: what was found, what was wanted, what to do next."""

from __future__ import annotations


class PseudolabelError(Exception):
    """A stage failed for a reason the user can act on. The command line prints it as one line and exits with 1."""

    exit_code = 1
    alone = False
    """Whether this process may be the only one of those that train together that has met it."""


class InputError(PseudolabelError):
    """The input, the options or the usage is wrong. Exit code 2."""

    exit_code = 2


class ArtefactError(InputError):
    """A file is not the artefact that was expected: truncated, foreign, newer, of another kind, or altered."""


class DatasetError(InputError):
    """A data set does not hold what its layout promises: a missing file, an unknown class, an unreadable image."""


class MissingExtraError(InputError):
    """An optional package is needed and not installed; the message holds the command that installs it."""

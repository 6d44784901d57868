"""Trainings that are listened to, ended in the middle, and read back, for the tests of the stages that train."""

from contextlib import contextmanager

from pseudolabel.artefacts import open_artefact
from pseudolabel.models.checkpoint import read_weights
from pseudolabel.runtime.progress import Progress


class Listening(Progress):
    """Keeps the warnings, and ends a training in the middle if told so."""

    def __init__(self, step=None):
        self.step, self.warnings = step, []

    def warn(self, message):
        self.warnings.append(message)

    @contextmanager
    def track(self, total, what, *, done=0):
        count = [done]

        def advance(number):
            count[0] += number
            if count[0] == self.step:
                raise KilledError

        yield advance


class KilledError(Exception):
    """What ends a training in the middle."""


def curves_of(path):
    """Every curve of a checkpoint by its name, those of epochs and mixtures below theirs."""
    with open_artefact(path, "checkpoint") as artefact:
        group = artefact.file["curves"]
        found = {name: item[:] for name, item in group.items() if hasattr(item, "shape")}
        below = [(name, inner) for name in ("epoch", "mixture") for inner in group.get(name, {})]
        return found | {f"{name}/{inner}": group[name][inner][:] for name, inner in below}


def weights_of(path, group="weights"):
    """The weights of a checkpoint, as tensors."""
    with open_artefact(path, "checkpoint") as artefact:
        return read_weights(artefact, group)

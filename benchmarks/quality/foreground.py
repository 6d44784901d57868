"""How much of the photographs predictions call an object, of any class, against how much is one.

    python -m benchmarks.quality.foreground mixture=work/voc-mini/cosa/val/scores.h5 fixed=work/fixed/val/scores.h5

Reads the confusions of ``evaluate-masks``; ignored pixels do not count.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.common import conditions, make_parser, report
from pseudolabel.artefacts import open_artefact


def main() -> None:
    """Read and report."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument(
        "scores", nargs="+", metavar="NAME=FILE", help="scores of evaluate-masks, and what to call them"
    )
    arguments = parser.parse_args()
    found = {name: shares(Path(file)) for name, _, file in (word.partition("=") for word in arguments.scores)}
    report(__file__, arguments, conditions(), {"scores": found}, [])


def shares(path: Path) -> dict[str, dict[str, float]]:
    """The shares of one ``scores`` artefact, in per cent, by how the predictions were scored."""
    found = {}
    with open_artefact(path, "scores") as artefact:
        for name, group in (("as predicted", "/"), ("within the tags", "tag-filtered")):
            if group in artefact.file:
                scores = artefact.file[group]
                found[name] = shares_of(scores["confusion"][:], scores["unlabelled"][:])
    return found


def shares_of(confusion: np.ndarray, unlabelled: np.ndarray) -> dict[str, float]:
    """What a confusion says of objects as a whole.

    Args:
        confusion: Integers (K, K), rows the truth, columns the prediction, class 0 is background.
        unlabelled: Integers (K,), pixels of each true class that the prediction leaves out.

    Returns:
        ``true`` and ``predicted``, shares of all pixels; ``missed``, of the objects' pixels, called background.
    """
    truth = confusion.sum(axis=1) + unlabelled
    figures = {
        "true": truth[1:].sum() / truth.sum(),
        "predicted": confusion[:, 1:].sum() / truth.sum(),
        "missed": confusion[1:, 0].sum() / truth[1:].sum(),
    }
    return {name: round(100 * float(value), 1) for name, value in figures.items()}


if __name__ == "__main__":
    main()

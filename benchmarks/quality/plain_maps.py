"""What the maps of a CAM network are worth on the images that it was trained on, at best: what pseudo labels must beat.

    python -m benchmarks.quality.plain_maps work/voc-mini/multi-stage/cam.h5 --root ../shared/voc-mini

The maps of each head of a checkpoint of train-cam, as they are and after attention affinity propagation as the packaged
pipeline does it, at the threshold that is best for the masks (an oracle) and at the mixture's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import conditions, make_parser, report
from benchmarks.quality.trials import CAM_LOOKS, score_cams
from pseudolabel.options import MakeCamsOptions
from pseudolabel.stages.make_cams import make_cams

TIMES = (0, 2)
HEADS = ("auxiliary", "main", "mean")


def main() -> None:
    """Make all maps, score and report."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("checkpoint", type=Path, help="of train-cam, with an auxiliary head")
    parser.add_argument("--root", type=Path, help="of the data set, if it has moved")
    parser.add_argument("--split", default="train", help="(default: %(default)s)")
    arguments = parser.parse_args()
    found, scores = conditions(), {}
    with tempfile.TemporaryDirectory() as folder:
        cams = Path(folder) / "cams.h5"
        places: dict[str, Any] = {"checkpoint": arguments.checkpoint, "root": arguments.root, "split": arguments.split}
        for times in TIMES:
            for head in HEADS:
                looks = {**CAM_LOOKS, "head": head, "propagate": times}
                make_cams(MakeCamsOptions(**places, **looks, out=cams, overwrite=True))
                scores[f"{head}, passed on {times} times"] = score_cams(cams)
    report(__file__, arguments, found, {"split": arguments.split, "scores": scores}, [])


if __name__ == "__main__":
    main()

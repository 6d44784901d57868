"""Which blocks' attention serves propagation best: mIoU of make-cams with others than the package's own.

    python -m benchmarks.quality.attention_blocks work/choices/base.h5 --root voc-mini --split work/choices/dev.txt

For the checkpoint and the held-out fifth of train.txt of choices.py. Maps are made as the pipeline voc-mini/multi-stage
makes them, and scored at the mixture's threshold and at their best one (an oracle).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import conditions, make_parser, report
from benchmarks.quality.trials import CAM_LOOKS, score_cams
from pseudolabel.artefacts import read_header
from pseudolabel.options import MakeCamsOptions
from pseudolabel.stages.make_cams import make_cams


def main() -> None:
    """Measure and report."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("checkpoint", type=Path, help="of train-cam, of a plain ViT")
    parser.add_argument("--root", type=Path, help="where the data set lies now, if it has moved")
    parser.add_argument("--split", required=True, help="list of images, with masks to score by")
    parser.add_argument(
        "--blocks",
        nargs="+",
        default=["0-5", "3-8", "6-9", "6-11", "8-11", "10-11"],
        help="first and last, from 0 (default: those of a ViT of twelve)",
    )
    parser.add_argument("--times", type=int, default=2, help="as of make-cams --propagate (default: %(default)s)")
    arguments = parser.parse_args()
    found = conditions()
    scores = {blocks: score(arguments, blocks) for blocks in arguments.blocks}
    backbone = read_header(arguments.checkpoint, "checkpoint").network["backbone"]
    report(__file__, arguments, found, {"backbone": backbone, "times": arguments.times, "scores": scores}, [])


def score(arguments: Any, blocks: str) -> dict[str, float]:
    """Thresholds and mIoU in per cent, the mixture's and the best."""
    first, last = map(int, blocks.split("-"))
    with tempfile.TemporaryDirectory() as folder:
        cams = Path(folder) / "cams.h5"
        settings = {"checkpoint": arguments.checkpoint, "split": arguments.split, "root": arguments.root, **CAM_LOOKS}
        read = {"propagate": arguments.times, "attention_blocks": tuple(range(first, last + 1))}
        make_cams(MakeCamsOptions(**settings, **read, out=cams))
        return score_cams(cams)


if __name__ == "__main__":
    main()

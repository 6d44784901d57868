"""What every command is for and one line that runs: all that the overview needs, without an import of the settings."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One command.

    Attributes:
        text: What the command does; the first sentence stands in the overview.
        example: A runnable line, which the help ends with.
    """

    text: str
    example: str

    @property
    def line(self) -> str:
        """The first sentence, for the overview."""
        first, stop, _ = self.text.partition(". ")
        return first + stop.strip()


STAGES = {
    "train-cam": Entry(
        "Train a CAM network on image tags. Later stages use its class activation maps (CAMs).",
        "pseudolabel train-cam --dataset voc --root VOCdevkit/VOC2012 --out work/cam.h5",
    ),
    "train-cosa": Entry(
        "Co-train a segmenter and CAMs on tags (CoSA). Each one learns from pseudo labels of the other.",
        "pseudolabel train-cosa --dataset voc --root VOCdevkit/VOC2012 --out work/cosa.h5",
    ),
    "train-scribble": Entry(
        "Train a segmenter on weak labels. Scribbles, points, boxes, tags and masks may be mixed; a regularised loss "
        "covers unlabelled pixels.",
        "pseudolabel train-scribble --root VOCdevkit/VOC2012 --scribbles strokes --out work/scribble.h5",
    ),
    "train-semi": Entry(
        "Train a segmenter on few masks, many photographs. Images without masks teach by consistency, and by weak "
        "labels if they have any.",
        "pseudolabel train-semi --root VOCdevkit/VOC2012 --mask-list work/masks50.txt --out work/semi.h5",
    ),
    "make-cams": Entry(
        "Compute the class activation maps of a split. They are summed over scales and flips and normalised to [0, 1] "
        "per class.",
        "pseudolabel make-cams work/cam.h5 --split train --out work/cams.h5",
    ),
    "import-cams": Entry(
        "Import CAMs that other code has written. Reads IRN-style .npy dictionaries; unpickling is restricted to "
        "NumPy arrays.",
        "pseudolabel import-cams irn/cam --dataset voc --root VOCdevkit/VOC2012 --out work/cams.h5",
    ),
    "train-affinity": Entry(
        "Train a network that tells cells apart. From labels, it learns which neighbouring cells belong together.",
        "pseudolabel train-affinity work/confident --out work/affinity.h5",
    ),
    "refine-affinity": Entry(
        "Spread CAMs along a learnt affinity. A random walk over the cells of train-affinity's network.",
        "pseudolabel refine-affinity work/cams.h5 --network work/affinity.h5 --out work/walked.h5",
    ),
    "make-regions": Entry(
        "Divide images into regions without classes. They vote on labels in vote-regions.",
        "pseudolabel make-regions --dataset voc --root VOCdevkit/VOC2012 --method felzenszwalb --out work/regions.h5",
    ),
    "import-regions": Entry(
        "Import regions that other code has made. Reads binary PNGs, COCO run lengths (SAM) or label maps.",
        "pseudolabel import-regions sam --root VOCdevkit/VOC2012 --model 'SAM ViT-H' --licence Apache-2.0 "
        "--trained-on 'masks of SA-1B' --out work/regions.h5",
    ),
    "search-threshold": Entry(
        "Choose the background threshold of CAMs. From the CAM scores alone, against the masks (marked oracle), or "
        "fixed.",
        "pseudolabel search-threshold work/cams.h5 --out work/threshold.h5",
    ),
    "search-crf": Entry(
        "Choose dense CRF settings by random search. Without masks, by image edges and class areas, or against the "
        "masks (marked oracle).",
        "pseudolabel search-crf work/cams.h5 --threshold work/threshold.h5 --out work/crf.h5",
    ),
    "refine-crf": Entry(
        "Refine CAMs or soft labels with a dense CRF. Runs mean-field inference on the full-resolution images.",
        "pseudolabel refine-crf work/cams.h5 --threshold work/threshold.h5 --out work/soft.h5",
    ),
    "refine-par": Entry(
        "Refine CAMs or soft labels with PAR. Pixel-adaptive refinement: means of neighbours weighted by colour.",
        "pseudolabel refine-par work/cams.h5 --threshold work/threshold.h5 --out work/soft.h5",
    ),
    "vote-regions": Entry(
        "Move labels to the edges of regions by vote. Takes CAMs, soft labels or masks; four rules.",
        "pseudolabel vote-regions work/soft.h5 --regions work/regions.h5 --rule soft --out work/voted.h5",
    ),
    "export-masks": Entry(
        "Write pseudo labels as PNG masks. Writes 8-bit palette PNGs and masks.h5, and on request overlays, a contact "
        "sheet, and the format of another tool.",
        "pseudolabel export-masks work/soft.h5 --overlays 20 --out work/masks",
    ),
    "import-masks": Entry(
        "Import masks that people have corrected. Reads what another tool has exported, and compares it with the masks "
        "that it was given.",
        "pseudolabel import-masks corrected.json --from coco --masks work/masks --out work/corrected.h5",
    ),
    "train-segmenter": Entry(
        "Train a segmenter on exported masks. Pixels of value 255 are ignored.",
        "pseudolabel train-segmenter work/masks --epochs 20 --out work/seg.h5",
    ),
    "predict-masks": Entry(
        "Predict masks of new photographs or a split. Writes soft.h5, masks.h5 and PNG files into one folder.",
        "pseudolabel predict-masks work/seg.h5 --images photos --out work/new",
    ),
    "evaluate-masks": Entry(
        "Score masks against the ground truth. The result states everything that the scores depend on.",
        "pseudolabel evaluate-masks work/val --json",
    ),
}
RUNS = {
    "run": Entry(
        "Run a pipeline of stages. Stages whose artefacts are up to date are skipped.",
        "pseudolabel run demo/multi-stage --out work/demo --dry-run",
    ),
    "compare": Entry(
        "Compare runs side by side. Shows scores, cost and thresholds, and how the measurements differ.",
        "pseudolabel compare work/multi-stage work/single-stage",
    ),
    "report": Entry(
        "Write an HTML report on runs. One self-contained page of tables, curves, mixtures, images and lineage.",
        "pseudolabel report work/multi-stage work/single-stage --out report.html",
    ),
    "inspect": Entry(
        "Describe an artefact. Shows what it holds, how it was made, from what and at what cost.",
        "pseudolabel inspect work/soft.h5 --lineage",
    ),
    "export-model": Entry(
        "Write a segmenter for other programs. An ONNX file takes photographs of any size; preprocessing is inside.",
        "pseudolabel export-model work/seg.h5 --out work/seg.onnx",
    ),
    "demo": Entry(
        "Make a small data set and compare two routes. Needs neither network nor GPU; takes about five minutes.",
        "pseudolabel demo --supervision scribbles --out work/demo",
    ),
}
DATA = {
    "check": Entry(
        "Find everything that is wrong with a data set. The exit code is 2 if there is anything.",
        "pseudolabel data check --dataset voc --root VOCdevkit/VOC2012 --split val",
    ),
    "tags": Entry(
        "Write image tags as a CSV table. The table is in the format of --tags-file.",
        "pseudolabel data tags --dataset coco --root coco --split train2014 --out tags.csv",
    ),
    "show": Entry(
        "Draw weak labels over their images. Writes one PNG per image.",
        "pseudolabel data show --root VOCdevkit/VOC2012 --scribbles scribbles --count 12 --out work/shown",
    ),
    "split": Entry(
        "Draw a list of images to draw masks of. Every class occurs in it about as often, by the image tags.",
        "pseudolabel data split --masks 50 --root VOCdevkit/VOC2012 --split train --out work/masks50.txt",
    ),
    "scribbles": Entry(
        "Simulate scribbles from masks. Draws a stroke along the middle of each object, and background strokes, as "
        "ID.png.",
        "pseudolabel data scribbles --from masks --root VOCdevkit/VOC2012 --split train --out work/scribbles",
    ),
    "points": Entry(
        "Simulate points from masks. Places one at the centre of each object's largest inscribed circle; writes "
        "points.csv.",
        "pseudolabel data points --from masks --root VOCdevkit/VOC2012 --split train --out work/points",
    ),
    "boxes": Entry(
        "Simulate boxes from masks. Draws one around each object, as VOC annotations ID.xml.",
        "pseudolabel data boxes --from masks --root VOCdevkit/VOC2012 --split train --out work/boxes",
    ),
    "synth": Entry(
        "Make a synthetic data set in VOC layout. Equal settings give equal bytes.",
        "pseudolabel data synth --out work/synthetic --train 600",
    ),
}
GROUPS = {"data": "Check, show, tag, simulate or make data sets."}
"""Groups of commands, whose names begin with the group's."""

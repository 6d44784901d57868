"""Scores split by what supervised each image: by hand, found through what masks were made from, and where it is not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudolabel.artefacts import Header, Input, open_artefact, read_header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.inspection import lineage
from pseudolabel.data import Record, load_dataset
from pseudolabel.data.weak.supervision import describe_averages, find_supervision, supervision_arrays
from pseudolabel.options import EvaluateMasksOptions
from pseudolabel.runs.comparison import compare_runs
from pseudolabel.runs.pipeline import Step
from pseudolabel.runs.report import tables
from pseudolabel.runs.runner import Freshness
from pseudolabel.runtime.progress import Progress
from pseudolabel.stages.evaluate_masks import evaluate_masks
from tests.helpers import runs
from tests.helpers.voc import CLASSES, array, write_artefact_of_maps, write_voc

TRUTH = {
    "a": array([[0, 1], [0, 1]]),
    "b": array([[0, 0], [2, 2]]),
    "c": array([[1, 1], [0, 0]]),
    "d": array([[0, 2], [0, 2]]),
}
PREDICTED = {
    "a": array([[0, 1], [0, 0]]),
    "b": array([[0, 0], [2, 1]]),
    "c": array([[1, 1], [0, 0]]),
    "d": array([[0, 0], [0, 0]]),
}
SIZES = dict.fromkeys(TRUTH, (2, 2))
KINDS = {"a": "scribbles", "b": "scribbles", "c": "pixel masks"}
SECONDS = {"a": 34.9, "b": 34.9, "c": 239.7}
STATED = {"tag_filter": "none", "annotation_hours": 0.086, "annotation_averages": "made up"}


class Noticing(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def given(path: Path, *parents: Path) -> tuple[Input, ...]:
    return tuple(
        Input(read_header(parent).kind, str(parent.relative_to(path.parent)), read_header(parent).digest)
        for parent in parents
    )


def write_checkpoint(path: Path, kinds: dict[str, str] | None = None, *parents: Path) -> Path:
    arrays = {"weights/one": np.zeros(1, np.float32)}
    if kinds:
        arrays |= {
            "supervision/id": np.array(list(kinds), dtype=object),
            "supervision/kind": np.array(list(kinds.values()), dtype=object),
            "supervision/seconds": np.array([SECONDS[name] for name in kinds]),
        }
    header = Header("checkpoint", "train-scribble", {}, CLASSES, inputs=given(path, *parents))
    return write_artefact(path, header, arrays, CostMeter())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "voc", TRUTH)


@pytest.fixture
def soft(tmp_path: Path, root: Path) -> Path:
    """Soft labels of every class, whose argmax is PREDICTED, of a checkpoint that was not trained on image d."""
    checkpoint = write_checkpoint(tmp_path / "net.h5", KINDS)
    maps = {
        name: {k: np.where(labels == k, 0.6, 0.3 if k == 2 else 0.1) for k in range(3)}
        for name, labels in PREDICTED.items()
    }
    path = tmp_path / "soft.h5"
    inputs = given(path, checkpoint)
    return write_artefact_of_maps(path, "soft-labels", root, maps, SIZES, protocol=STATED, inputs=inputs)


def evaluate(masks: Path, progress: Progress | None = None, **options: Any) -> dict[str, Any]:
    given = {"workers": 0, **options}
    return evaluate_masks(EvaluateMasksOptions(masks=masks, **given), progress or Progress())


def test_a_split_by_hand(soft: Path) -> None:
    found = evaluate(soft)
    # a and b: background 4 of 5, cat 1 of 3, dog 1 of 2. With the tags the cat in b becomes a dog: 4 of 5, 1 of 2, all.
    # c: everything. d: background 2 of 4 and no dog; with the tags the same.
    assert found["by_supervision"] == {
        "scribbles": {
            "images": 2,
            "miou": pytest.approx((4 / 5 + 1 / 3 + 1 / 2) / 3, abs=1e-6),
            "unfiltered": pytest.approx((4 / 5 + 1 / 3 + 1 / 2) / 3, abs=1e-6),
            "tag_filtered": pytest.approx((4 / 5 + 1 / 2 + 1) / 3, abs=1e-6),
            "annotation_seconds": 34.9,
        },
        "not trained on": {
            "images": 1,
            "miou": 0.25,
            "unfiltered": 0.25,
            "tag_filtered": 0.25,
            "annotation_seconds": None,
        },
        "pixel masks": {
            "images": 1,
            "miou": 1,
            "unfiltered": 1,
            "tag_filtered": 1,
            "annotation_seconds": 239.7,
        },
    }
    assert found["protocol"]["annotation_hours"] == 0.086
    scores = soft.parent / "scores.h5"
    with open_artefact(scores) as artefact:
        kinds = artefact.file["images/supervision"].asstr()[:].tolist()
    assert kinds == ["scribbles", "scribbles", "pixel masks", "not trained on"]
    assert read_header(scores).facts["by_supervision"] == found["by_supervision"]
    assert [item.kind for item in read_header(scores).inputs] == ["soft-labels", "checkpoint", "dataset"]
    assert [node["kind"] for node in lineage(scores)["inputs"]] == ["soft-labels", "checkpoint", "dataset"]


def test_the_parts_are_those_of_the_images_alone(soft: Path, root: Path) -> None:
    """Against the same command on a list of the part's images."""
    whole = evaluate(soft)
    (root / "ImageSets/Segmentation/part.txt").write_text("a\nb\n")
    maps = {name: PREDICTED[name] for name in ("a", "b")}
    alone = write_artefact_of_maps(soft.parent / "part.h5", "masks", root, maps, SIZES, split="part")
    part = whole["by_supervision"]["scribbles"]
    assert evaluate(alone, out=soft.parent / "part-scores.h5")["miou"] == part["miou"]


def test_it_is_found_through_everything_that_masks_were_made_of(soft: Path, root: Path) -> None:
    folder = soft.parent
    split = evaluate(soft)["by_supervision"]
    refined = folder / "refined.h5"
    shutil.copy(soft, refined)  # of the same digest, as refine-crf would never make it, but of the same lineage
    masks = folder / "deep" / "masks.h5"
    masks.parent.mkdir()
    inputs = (Input("soft-labels", "../refined.h5", read_header(refined).digest),)
    about = {"protocol": {**STATED, "tag_filter": "image tags"}, "inputs": inputs}
    write_artefact_of_maps(masks, "masks", root, PREDICTED, SIZES, **about)
    found = evaluate(masks)["by_supervision"]
    assert {kind: part["miou"] for kind, part in found.items()} == {kind: part["miou"] for kind, part in split.items()}
    assert all(part["unfiltered"] is None and part["tag_filtered"] == part["miou"] for part in found.values())
    # A segmenter trained on these masks says nothing itself; what is behind it does.
    again = write_checkpoint(folder / "again.h5", None, masks)
    last = folder / "last.h5"
    about = {"protocol": STATED, "inputs": given(last, again)}
    write_artefact_of_maps(last, "masks", root, PREDICTED, SIZES, **about)
    assert evaluate(last, out=folder / "last-scores.h5")["by_supervision"] == {
        kind: part | {"tag_filtered": None, "unfiltered": part["miou"]} for kind, part in found.items()
    }
    assert str(find_supervision({last: read_header(last)}).path) == str(folder / "net.h5")  # type: ignore[union-attr]


def test_what_a_segmenter_learnt_from_comes_before_what_its_weights_started_from(soft: Path) -> None:
    folder = soft.parent
    began = write_checkpoint(folder / "began.h5", {"c": "pixel masks"})
    segmenter = write_checkpoint(folder / "seg.h5", None, began, soft)
    found = find_supervision({segmenter: read_header(segmenter)})
    assert found is not None
    assert found.kinds == KINDS
    alone = write_checkpoint(folder / "alone.h5", None, began)
    found = find_supervision({alone: read_header(alone)})
    assert found is not None
    assert found.path == began


def test_without_its_checkpoint_a_score_is_not_split_and_says_why(soft: Path) -> None:
    (soft.parent / "net.h5").unlink()
    progress = Noticing()
    assert evaluate(soft, progress)["by_supervision"] is None
    split, learnt = progress.warnings
    assert split == (
        f"the checkpoint behind {soft} is not where it was: "
        "scores of images that it was trained on are not split by supervision"
    )
    assert learnt.startswith(f"whether the network behind {soft} was trained on these images is not known: ")
    write_checkpoint(soft.parent / "net.h5", {"a": "scribbles"})  # made again since
    assert evaluate(soft, progress, overwrite=True)["by_supervision"] is None
    assert len(progress.warnings) == 4


def test_images_that_were_not_trained_on_are_not_split(soft: Path, root: Path) -> None:
    write_voc(root, {"e": TRUTH["a"]}, split="other")
    path = soft.parent / "other.h5"
    inputs = given(path, soft.parent / "net.h5")
    maps = {"e": PREDICTED["a"]}
    write_artefact_of_maps(path, "masks", root, maps, {"e": (2, 2)}, split="other", protocol=STATED, inputs=inputs)
    assert evaluate(path)["by_supervision"] is None
    with open_artefact(soft.parent / "scores.h5") as artefact:
        assert "supervision" not in artefact.file["images"]
    assert [item.kind for item in artefact.header.inputs] == ["masks", "dataset"]


def test_a_pipeline_scores_again_when_the_checkpoint_has_changed(soft: Path) -> None:
    evaluate(soft)
    options = EvaluateMasksOptions(masks=soft, out=soft.parent / "scores.h5")
    step = Step("scores", "evaluate-masks", options, ())
    assert Freshness().reason_to_run(step) is None
    write_checkpoint(soft.parent / "net.h5", {"a": "scribbles"})
    assert Freshness().reason_to_run(step) == f"its input {soft.parent / 'net.h5'} has changed"


def test_what_labels_cost_is_stated_with_its_averages() -> None:
    published = (20.0, 22.1, 34.9, 38.1, 239.7)
    each = "tags 20, points 22.1, scribbles 34.9, boxes 38.1, masks 239.7 s an image"
    assert describe_averages(published) == f"{each} (published averages of PASCAL VOC)"
    assert describe_averages((1, *published[1:])).endswith("(as given)")
    assert supervision_arrays([Record("a", Path("a.png"), (1,))], (), published)["supervision/seconds"].tolist() == [20]


def test_hours_stand_in_a_row_and_are_no_difference(tmp_path: Path) -> None:
    root = runs.write_data(tmp_path / "data")
    train = load_dataset({"dataset": "voc", "root": str(root), "split": "train"})
    made = []
    averages = ("made up (published averages of PASCAL VOC)", "made up (as given)", None)
    for number, stated in enumerate(averages):
        folder = tmp_path / f"run{number}"
        network = runs.write_network(folder / "net.h5", "train-scribble", train)
        maps = runs.label_maps(runs.probabilities(train, noise=1, seed=0, every=True))
        cost = {} if stated is None else {"annotation_hours": 1.5 + number, "annotation_averages": stated}
        about = {"tag_filter": "none", "scales": [1.0], **cost}
        runs.write_labels(folder / "masks.h5", "masks", "predict-masks", train, maps, network, **about)
        evaluate(folder / "masks.h5")
        made.append(folder)
    found = compare_runs(made)
    sections = tables.score_table(found).sections
    (row,) = [row for _, rows in sections for row in rows if row[0] == "annotation, hours" and set(row[1:]) != {"-"}]
    assert row == ("annotation, hours", "1.5", "2.5 (own averages)", "-")
    assert not [each for each in found["differences"] if each["key"].startswith("annotation")]
    assert tables.supervision_table(found) is None

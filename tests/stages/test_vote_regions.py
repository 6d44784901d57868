"""vote-regions: what each kind of labels becomes, what the header states, resuming, and each error's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudolabel.artefacts import Header, Images, RegionsWriter, read_header
from pseudolabel.artefacts.maps import at_size
from pseudolabel.artefacts.run_lengths import Regions, label_runs, make_regions, mask_runs
from pseudolabel.data import load_dataset
from pseudolabel.errors import ArtefactError, DatasetError, InputError
from pseudolabel.labels.assignment import from_soft
from pseudolabel.options import EvaluateMasksOptions, ExportMasksOptions, RefineCrfOptions, VoteRegionsOptions
from pseudolabel.stages.evaluate_masks import evaluate_masks
from pseudolabel.stages.export_masks import export_masks
from pseudolabel.stages.refine_crf import refine_crf
from pseudolabel.stages.vote_regions import vote_regions
from tests.helpers.artefacts import interrupted, read_maps, write_thresholds
from tests.helpers.voc import CLASSES, array, write_artefact_of_maps, write_voc

A = array([[1, 1, 0, 0], [1, 0, 0, 0]])
B = array([[0, 2, 255], [0, 2, 2]])
SIZES = {"a": (2, 4), "b": (2, 3)}
COLUMNS = {"a": array([[0, 0, 1, 1], [0, 0, 1, 1]]), "b": array([[0, 1, 1], [0, 1, 1]])}
EXTERNAL = ["SAM (Apache-2.0), trained on masks of SA-1B"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "voc", {"a": array([[1, 1, 0, 2], [1, 0, 0, 0]]), "b": B})


def of_labels(labels: np.ndarray) -> Regions:
    return make_regions(labels.shape, label_runs(labels, np.unique(labels).tolist()))


def write_regions(root: Path, regions: dict[str, Regions | str], **changes: Any) -> Path:
    """An artefact of regions, or of reasons why there are none; of an external model."""
    sizes = np.array([SIZES.get(name, (2, 2)) if isinstance(r, str) else r.size for name, r in regions.items()])
    path = root.parent / "regions.h5"
    facts = {"source": "imported", "model": "SAM", "licence": "Apache-2.0", "model_trained_on": "masks of SA-1B"}
    about = {"facts": facts, "protocol": {"regions": "SAM", "external_models": EXTERNAL}, "classes": CLASSES}
    header = Header("regions", "import-regions", {}, **(about | changes))
    with RegionsWriter(path, header, Images(tuple(regions), sizes[:, 0], sizes[:, 1])) as writer:
        for index, found in enumerate(regions.values()):
            if isinstance(found, str):
                writer.skip(index, found)
            else:
                writer.add(index, found)
    return path


def columns(root: Path) -> Path:
    return write_regions(root, {name: of_labels(labels) for name, labels in COLUMNS.items()})


def write_masks(root: Path, masks: dict[str, np.ndarray | str] | None = None, **header: Any) -> Path:
    return write_artefact_of_maps(root.parent / "masks.h5", "masks", root, masks or {"a": A, "b": B}, SIZES, **header)


def options(labels: Path, regions: Path, **values: Any) -> VoteRegionsOptions:
    about = {"labels": labels, "regions": regions, "out": labels.parent / "voted.h5", "workers": 0}
    return VoteRegionsOptions(**(about | values))


def voted(path: Path) -> list[list[list[int]]]:
    found = []
    for maps, size in zip(read_maps(path), SIZES.values(), strict=True):
        labels, values = at_size(maps, size)
        found.append(from_soft(labels, values).tolist())
    return found


def test_masks_and_what_the_header_says(root: Path) -> None:
    labels = write_masks(root, protocol={"crf": "irn"}, oracle=("masks were looked at",))
    chosen = options(labels, columns(root))
    result = vote_regions(chosen)
    assert result.pop("images_per_second") > 0
    words = "sepl, share 0.5, coverage 0.85"
    assert result == {"out": str(chosen.out), "images": 2, "without": 0, "skipped": 0, "vote": words}
    assert voted(chosen.out) == [[[1, 1, 0, 0], [1, 1, 0, 0]], [[0, 2, 2], [0, 2, 2]]]
    assert {label: array.dtype for label, array in read_maps(chosen.out)[1].items()} == {0: np.uint8, 2: np.uint8}
    header = read_header(chosen.out, "soft-labels")
    vote = {"regions": "SAM", "region_vote": f"{words}; regions: SAM", "external_models": EXTERNAL}
    assert header.protocol == {"crf": "irn", **vote}
    assert (header.oracle, header.classes) == (("masks were looked at",), CLASSES)
    assert [item.kind for item in header.inputs] == ["masks", "regions"]


def test_a_second_vote_keeps_the_words_of_the_first(root: Path) -> None:
    regions = columns(root)
    vote_regions(options(write_masks(root), regions, rule="soft"))
    again = options(root.parent / "voted.h5", regions, out=root.parent / "again.h5", rule="fma", split=0.15)
    vote_regions(again)
    words = "soft; regions: SAM; then fma, power 0.7, split 0.15; regions: SAM"
    assert read_header(again.out).protocol["region_vote"] == words


def test_cams_are_cut_by_their_thresholds_and_fma_takes_the_maps_themselves(root: Path) -> None:
    strong = np.array([[0.5, 0.75, 0.0, 0.25], [0.5, 0.75, 0.25, 0.0]])
    cams = {"a": {1: strong}, "b": {2: np.array([[0.0, 0.25, 0.5], [0.0, 0.5, 1.0]])}}
    labels = write_artefact_of_maps(root.parent / "cams.h5", "cams", root, cams, SIZES)
    threshold = write_thresholds(root.parent / "t.h5", CLASSES, 0.6)
    regions = columns(root)
    half = [[1, 1, 0, 0], [1, 1, 0, 0]]
    for rule, second in (("sepl", [[0, 2, 2], [0, 2, 2]]), ("fma", [[0, 2, 2], [0, 2, 2]])):
        chosen = options(labels, regions, threshold=threshold, rule=rule, overwrite=True)
        vote_regions(chosen)
        assert voted(chosen.out) == [half, second]
    assert "fma, power 0.6; " in read_header(chosen.out).protocol["region_vote"]
    assert read_header(chosen.out).protocol["threshold"] == 0.6


def test_soft_labels_stay_soft_and_can_be_refined(root: Path) -> None:
    first = np.array([[255, 55, 0, 0], [55, 55, 255, 255]], np.uint8)
    soft = {
        "a": {0: first, 1: 255 - first},
        "b": {0: np.full((2, 3), 255, np.uint8), 255: array([[0, 0, 0], [0, 255, 255]])},
    }
    labels = write_artefact_of_maps(root.parent / "soft.h5", "soft-labels", root, soft, SIZES, dtype="uint8")
    chosen = options(labels, columns(root), rule="soft")
    vote_regions(chosen)
    a, b = read_maps(chosen.out)
    assert a[0].tolist() == [[105, 105, 129, 129]] * 2  # (255 + 3 * 55) / 4; a half, which comes first among equals
    assert a[1].tolist() == [[150, 150, 128, 128]] * 2
    assert b.keys() == {0}  # the unlabelled pixels are in a region that has labelled ones
    crf = RefineCrfOptions(cams=chosen.out, out=root.parent / "crf.h5", iterations=1, workers=0)
    assert refine_crf(crf)["images"] == 2
    assert read_header(crf.out).protocol["external_models"] == EXTERNAL
    export = ExportMasksOptions(labels=crf.out, out=root.parent / "exported", workers=0)
    export_masks(export)
    assert read_header(export.artefact).protocol["external_models"] == EXTERNAL


def test_unlabelled_pixels_keep_probabilities_that_sum_to_one(root: Path) -> None:
    """So that a CRF can still refine them."""
    none = {name: make_regions(size, []) for name, size in SIZES.items()}
    none["b"] = make_regions(SIZES["b"], [mask_runs(COLUMNS["b"] == 0)])
    chosen = options(write_masks(root), write_regions(root, none))
    assert vote_regions(chosen)["without"] == 1
    assert voted(chosen.out) == [A.tolist(), B.tolist()]
    maps = read_maps(chosen.out)[1]
    assert maps.keys() == {0, 2, 255}
    assert (maps[0].astype(int) + maps[2] >= 255).all()
    assert refine_crf(RefineCrfOptions(cams=chosen.out, out=root.parent / "crf.h5", workers=0))["images"] == 2


def test_images_without_regions_keep_their_labels_and_skipped_ones_their_reason(root: Path) -> None:
    regions = write_regions(root, {"b": "no file", "a": of_labels(COLUMNS["a"]), "c": make_regions((9, 9), [])})
    labels = write_masks(root, {"a": "unreadable", "b": B})
    chosen = options(labels, regions, rule="fma")
    result = vote_regions(chosen)
    assert (result["images"], result["without"], result["skipped"]) == (1, 1, 1)
    assert from_soft(*at_size(read_maps(chosen.out)[1], SIZES["b"])).tolist() == B.tolist()


def test_worker_processes_and_an_interruption_change_nothing(root: Path) -> None:
    labels, regions = write_masks(root), columns(root)
    one = options(labels, regions, out=root.parent / "one.h5", split=0.15)
    two = options(labels, regions, out=root.parent / "two.h5", split=0.15)
    vote_regions(one)
    interrupted(vote_regions, two, 1)
    vote_regions(two.model_copy(update={"workers": 2}))
    assert read_header(one.out).digest == read_header(two.out).digest


def test_a_score_never_stands_without_the_external_models_behind_it(root: Path) -> None:
    run = root.parent / "run"
    chosen = options(write_masks(root), columns(root), out=run / "voted.h5")
    vote_regions(chosen)
    export_masks(ExportMasksOptions(labels=chosen.out, out=run / "masks", workers=0))
    result = evaluate_masks(EvaluateMasksOptions(masks=run / "masks", workers=0))
    assert result["protocol"]["external_models"] == EXTERNAL


# Boxes


def write_boxes(root: Path, edges: dict[str, tuple[str, int, int, int, int]]) -> Path:
    """VOC's annotations: corners count from 1."""
    folder = root.parent / "boxes"
    folder.mkdir()
    for name, (label, left, top, right, bottom) in edges.items():
        corners = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
        text = f"<annotation><object><name>{label}</name><bndbox>{corners}</bndbox></object></annotation>"
        (folder / f"{name}.xml").write_text(text)
    return folder


def test_boxes_take_regions_of_classes_that_the_labels_do_not_have(root: Path) -> None:
    boxes = write_boxes(root, {"a": ("dog", 1, 1, 3, 2)})
    chosen = options(write_masks(root), columns(root), rule="box", boxes=boxes)
    assert vote_regions(chosen)["vote"] == "box, inside 0.9"
    assert voted(chosen.out) == [[[2, 2, 255, 0], [2, 2, 255, 0]], B.tolist()]
    header = read_header(chosen.out)
    assert [item.kind for item in header.inputs] == ["masks", "regions", "dataset"]
    assert header.dataset["boxes"] == str(boxes)


def test_a_box_beyond_its_image_is_an_error(root: Path) -> None:
    boxes = write_boxes(root, {"a": ("dog", 1, 1, 9, 2)})
    with pytest.raises(DatasetError, match=r"a.xml.* goes beyond the border of its image, which is 4 x 2 pixels$"):
        vote_regions(options(write_masks(root), columns(root), rule="box", boxes=boxes))


def test_the_box_rule_needs_boxes(root: Path) -> None:
    with pytest.raises(InputError) as caught:
        vote_regions(options(write_masks(root), columns(root), rule="box"))
    assert str(caught.value) == (
        f"--rule box, but no image of split val of {root} has a box; pass --boxes with the folder of VOC annotations "
        "or COCO's JSON that has them"
    )
    (root.parent / "masks.h5").unlink()
    (root.parent / "regions.h5").unlink()
    labels = write_masks(root, protocol={"held_to": "boxes of 1 image"})
    with pytest.raises(InputError) as caught:
        vote_regions(options(labels, columns(root)))
    assert str(caught.value).startswith(f"{labels} is box-constrained, but no image of split val of ")


def test_box_constrained_labels_stay_so(root: Path) -> None:
    boxes = write_boxes(root, {"a": ("cat", 2, 1, 3, 2)})
    spec = load_dataset({"dataset": "voc", "root": root, "split": "val", "boxes": boxes}).spec()
    labels = write_masks(
        root, {"a": array([[0, 1, 0, 0], [0, 1, 0, 0]]), "b": B}, dataset=spec, protocol={"held_to": "x"}
    )
    chosen = options(labels, columns(root))
    vote_regions(chosen)
    assert voted(chosen.out)[0] == [[0, 1, 0, 0], [0, 1, 0, 0]]  # the first column is in the region, not in the box


# Errors


def test_regions_of_other_images(root: Path) -> None:
    regions = write_regions(root, {"a": of_labels(COLUMNS["a"])})
    with pytest.raises(InputError) as caught:
        vote_regions(options(write_masks(root), regions))
    assert str(caught.value) == (
        f"{regions} has no regions of 1 of the 2 images of {root.parent / 'masks.h5'} (first: b); make or import "
        "regions of the split that the labels are of"
    )
    assert not (root.parent / "voted.h5.partial").exists()


def test_regions_of_another_size(root: Path) -> None:
    regions = write_regions(root, {"a": of_labels(COLUMNS["a"].T.copy()), "b": of_labels(COLUMNS["b"])})
    with pytest.raises(InputError) as caught:
        vote_regions(options(write_masks(root), regions))
    assert str(caught.value) == (
        f"{regions} has regions of image 'a' at 4 x 2 pixels, {root.parent / 'masks.h5'} has it at 2 x 4; make both "
        "from the same photographs"
    )


def test_regions_with_other_classes(root: Path) -> None:
    classed = make_regions(SIZES["a"], [mask_runs(COLUMNS["a"] == 0)], label=[1])
    regions = write_regions(root, {"a": classed, "b": of_labels(COLUMNS["b"])}, classes=("background", "cow"))
    with pytest.raises(InputError) as caught:
        vote_regions(options(write_masks(root), regions))
    assert str(caught.value) == (
        f"{regions} has regions of other classes (1 of them) than {root.parent / 'masks.h5'} (2); import them with the "
        "data set of the labels"
    )


def test_what_is_no_regions_and_thresholds_without_cams(root: Path) -> None:
    labels = write_masks(root)
    with pytest.raises(ArtefactError) as caught:
        vote_regions(options(labels, labels))
    said = "holds masks (made by make-cams); wanted regions artefact (made by make-regions or import-regions)"
    assert str(caught.value) == f"{labels} {said}"
    threshold = write_thresholds(root.parent / "t.h5", CLASSES, 0.6)
    with pytest.raises(InputError) as error:
        vote_regions(options(labels, columns(root), threshold=threshold))
    assert str(error.value) == f"{labels} holds masks, which --threshold cannot cut; leave it out"

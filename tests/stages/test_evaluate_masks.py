"""evaluate-masks: PNG folders, masks.h5 and soft labels; what is an error; what every score states."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel.artefacts import Input, open_artefact, read_header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.artefacts.inspection import lineage
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.metrics.confusion import PixelCounter, class_counts
from pseudolabel.metrics.scores import iou
from pseudolabel.options import EvaluateMasksOptions
from pseudolabel.runs.pipeline import Step
from pseudolabel.runs.runner import Freshness
from pseudolabel.runtime.progress import Progress
from pseudolabel.stages.evaluate_masks import evaluate_masks
from tests.helpers.voc import CLASSES, array, random_labels, save, write_artefact_of_maps, write_voc

TRUTH = {"a": array([[0, 0, 1], [0, 1, 1]]), "b": array([[0, 2, 255]]), "sub/c": array([[0, 0], [0, 0]])}
PREDICTION = {"a": array([[0, 0, 0], [0, 1, 1]]), "b": array([[0, 2, 1]]), "sub/c": array([[0, 0], [255, 2]])}
KEYS = {
    "miou", "iou", "precision", "recall", "pixel_accuracy", "mean_accuracy", "boundary_iou", "labelled_share",
    "interval", "images", "protocol",
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "voc", TRUTH)


def folder_of(path: Path, masks: Mapping[str, np.ndarray] = PREDICTION) -> Path:
    for name, labels in masks.items():
        save(path / f"{name}.png", labels)
    return path


def evaluate(masks: Path, root: Path | None = None, **options: Any) -> dict[str, Any]:
    named = {"dataset": "voc", "root": root, "split": "val"} if root else {}
    return evaluate_masks(EvaluateMasksOptions(masks=masks, **{**named, **options}))


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        evaluate(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Noticing(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_a_folder_of_pngs_by_hand(tmp_path: Path, root: Path) -> None:
    found = evaluate(folder_of(tmp_path / "masks"), root)
    # Background: 3 + 1 + 3 hits, 8 true, 8 predicted; cat: 2 of 3; dog: 1 hit, 1 true, 2 predicted.
    assert found["iou"] == pytest.approx({"background": 7 / 9, "cat": 2 / 3, "dog": 1 / 2}, abs=1e-6)
    assert found["miou"] == pytest.approx((7 / 9 + 2 / 3 + 1 / 2) / 3, abs=1e-6)
    assert found["pixel_accuracy"] == pytest.approx(10 / 12, abs=1e-6)
    assert found["labelled_share"] == pytest.approx(11 / 12, abs=1e-6)
    assert found["false_negatives"]["cat"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["worst"] == [
        {"id": "a", "miou": pytest.approx((3 / 4 + 2 / 3) / 2, abs=1e-6)},
        {"id": "sub/c", "miou": 0.75},
        {"id": "b", "miou": 1.0},
    ]
    assert found["images"] == 3
    assert found["out"] == str(tmp_path / "masks" / "scores.h5")
    assert set(found) >= KEYS
    assert found["interval"][0] <= found["miou"] <= found["interval"][1]
    json.dumps(found, allow_nan=False)


def test_a_folder_of_pngs_is_an_input_that_lineage_and_freshness_see(tmp_path: Path, root: Path) -> None:
    masks = folder_of(tmp_path / "masks")
    options = EvaluateMasksOptions(masks=masks, dataset="voc", root=root, split="val", out=tmp_path / "scores.h5")
    evaluate_masks(options)
    png, dataset = read_header(tmp_path / "scores.h5").inputs
    lines = [f"{name}\t{sha256((masks / f'{name}.png').read_bytes()).hexdigest()}\n" for name in sorted(PREDICTION)]
    assert png == Input("png", str(masks), sha256("".join(lines).encode()).hexdigest())
    assert dataset.kind == "dataset"
    node = lineage(tmp_path / "scores.h5")["inputs"][0]
    assert (node["kind"], node["path"], node["state"]) == ("png", str(masks), "recorded")
    step = Step("scores", "evaluate-masks", options, ())
    assert Freshness().reason_to_run(step) is None
    folder_of(masks)  # other times of change, the same masks
    (masks / "notes.txt").write_text("no mask")
    assert Freshness().reason_to_run(step) is None
    folder_of(masks, {"b": array([[0, 2, 0]])})
    assert Freshness().reason_to_run(step) == f"its input {masks} has changed"
    folder_of(masks)
    (masks / "b.png").rename(masks / "d.png")
    assert Freshness().reason_to_run(step) == f"its input {masks} has changed"


@pytest.mark.parametrize(("ignored", "background"), [("background", 7 / 9), ("drop", 6 / 8), ("miss", 6 / 9)])
def test_the_policy_for_a_predicted_255(tmp_path: Path, root: Path, ignored: str, background: float) -> None:
    found = evaluate(folder_of(tmp_path / "masks"), root, ignored=ignored)
    assert found["iou"]["background"] == pytest.approx(background, abs=1e-6)
    assert found["protocol"]["predicted_255"] == ignored
    assert found["labelled_share"] == pytest.approx(11 / 12, abs=1e-6)


def test_masks_of_others_have_a_score_of_unknown_filter(tmp_path: Path, root: Path) -> None:
    found = evaluate(folder_of(tmp_path / "masks"), root)
    assert (found["unfiltered"], found["tag_filtered"], found["oracle"]) == (None, None, [])
    protocol = found["protocol"]
    assert protocol["tag_filter"] == "unknown"
    assert (protocol["dataset"], protocol["split"], protocol["scored"]) == ("voc", "val", "masks")
    assert {protocol[name] for name in ("scales", "flip", "crf", "threshold", "threshold_fitted_on")} == {None}
    assert protocol["true_255"] == "never counted"


def test_the_scores_artefact_holds_the_counts_and_the_result(tmp_path: Path, root: Path) -> None:
    found = evaluate(folder_of(tmp_path / "masks"), root, out=tmp_path / "s.h5")
    with open_artefact(tmp_path / "s.h5", "scores") as artefact:
        assert artefact.file["confusion"].dtype == np.uint64
        assert artefact.file["confusion"][:].tolist() == [[6, 0, 1], [1, 2, 0], [0, 0, 1]]  # row: truth
        assert artefact.file["unlabelled"][:].tolist() == [1, 0, 0]
        assert artefact.file["images/id"].asstr()[:].tolist() == ["a", "b", "sub/c"]
        assert artefact.file["images/miou"][:] == pytest.approx([(3 / 4 + 2 / 3) / 2, 1.0, 0.75])
        assert artefact.header.facts == {key: value for key, value in found.items() if key != "out"}
        assert artefact.header.classes == CLASSES
        assert artefact.header.protocol == found["protocol"]
        assert artefact.header.dataset["split"] == "val"
        assert [item.kind for item in artefact.header.inputs] == ["png", "dataset"]


def test_a_second_run_needs_leave_to_replace_the_first(tmp_path: Path, root: Path) -> None:
    masks = folder_of(tmp_path / "masks")
    evaluate(masks, root)
    assert "exists already; pass --overwrite" in refusal(masks, root)
    evaluate(masks, root, overwrite=True)


def test_missing_and_superfluous_masks_are_counted_and_named(tmp_path: Path, root: Path) -> None:
    masks = folder_of(tmp_path / "masks", {name: PREDICTION["a"] for name in ("a", "d", "e", "f", "g", "h", "i")})
    assert refusal(masks, root) == (
        f"{masks} does not match split val of {root}: 2 of 3 images have no mask (b, sub/c); 6 masks are of no image "
        "of the split (d, e, f, g, h, and 1 more); make what is missing, remove what is too much, or pass the --split "
        "that the masks are of"
    )
    assert not (masks / "scores.h5").exists()


def test_all_masks_that_do_not_fit_are_counted_and_the_first_named(tmp_path: Path, root: Path) -> None:
    masks = folder_of(tmp_path / "masks", PREDICTION | {"a": array([[0, 1], [0, 1]]), "b": array([[0, 7, 0]])})
    (masks / "sub/c.png").write_text("no picture")
    message = refusal(masks, root)
    assert message.startswith(
        f"{masks} does not fit the ground truth of split val: 3 faults: {masks}/a.png is 2 x 2 pixels, its ground "
        f"truth 3 x 2; {masks}/b.png holds label 7, wanted 0 to 2 or 255; {masks}/sub/c.png is no PNG"
    )


def test_an_rgb_mask_is_an_error(tmp_path: Path, root: Path) -> None:
    masks = folder_of(tmp_path / "masks")
    Image.new("RGB", (3, 2)).save(masks / "a.png")
    assert f"{masks}/a.png is an RGB picture; wanted class indices" in refusal(masks, root)


def test_ground_truth_must_be_there(tmp_path: Path, root: Path) -> None:
    (root / "SegmentationClass/b.png").unlink()
    assert "b.png has no ground-truth mask" in refusal(folder_of(tmp_path / "masks"), root)


def test_what_others_masks_do_not_say_must_be_passed(tmp_path: Path, root: Path) -> None:
    masks = folder_of(tmp_path / "masks")
    assert refusal(masks) == f"{masks} does not say what it was made of; pass --dataset and --root and --split"
    assert refusal(masks, root, split=None).endswith("; pass --split")
    (masks / "val").mkdir()
    (masks / "val/masks.h5").touch()
    assert refusal(masks) == (
        f"{masks} does not say what it was made of; did you mean {masks}/val? "
        "Otherwise pass --dataset and --root and --split"
    )


def test_a_place_without_masks_is_an_error(tmp_path: Path, root: Path) -> None:
    (tmp_path / "empty").mkdir()
    expected = "holds neither masks.h5 nor PNG masks; pass the folder of export-masks or of PNGs"
    assert refusal(tmp_path / "empty", root) == f"{tmp_path / 'empty'} {expected}"
    with pytest.raises(ArtefactError, match="does not exist; wanted masks or soft-labels artefact"):
        evaluate(tmp_path / "none", root)
    assert not (tmp_path / "none").exists()


SIZES = {name: labels.shape for name, labels in TRUTH.items()}


def masks_artefact(path: Path, root: Path, masks: Mapping[str, Any] = PREDICTION, **header: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_artefact_of_maps(path, "masks", root, masks, SIZES, **header)


def test_a_list_of_some_of_the_images_scores_their_masks_alone(tmp_path: Path, root: Path) -> None:
    (root / "ImageSets/Segmentation/val.txt").write_text("a\nb\nsub/c\nd")
    save(root / "JPEGImages/d.png", np.zeros((2, 3, 3), dtype=np.uint8))
    (root / "SegmentationClass/b.png").unlink()  # only some of one's own photographs have a mask
    maps = {**PREDICTION, "d": "is unreadable"}
    masks = write_artefact_of_maps(tmp_path / "run/masks.h5", "masks", root, maps, SIZES | {"d": (2, 3)})
    assert "b.png has no ground-truth mask" in refusal(masks)
    some = tmp_path / "some.txt"
    some.write_text("sub/c\na\n")
    progress = Noticing()
    found = evaluate_masks(EvaluateMasksOptions(masks=masks, split=str(some)), progress)
    assert progress.lines == [f"1 of 3 masks are of images outside split {some}: not scored"]
    assert progress.warnings == []  # the unreadable image was not asked for
    pngs = folder_of(tmp_path / "pngs", {name: PREDICTION[name] for name in ("a", "sub/c")})
    alone = evaluate(pngs, root, split=str(some))
    assert {key: found[key] for key in KEYS - {"protocol"}} == {key: alone[key] for key in KEYS - {"protocol"}}
    assert (found["images"], found["skipped"], found["unscored"]) == (2, 0, 1)
    assert (alone["unscored"], found["protocol"]["split"]) == (0, str(some))
    some.write_text("a\ne\n")
    save(root / "JPEGImages/e.png", np.zeros((2, 3, 3), dtype=np.uint8))
    assert "1 of 2 images have no mask (e); make what is missing" in refusal(masks, split=str(some), overwrite=True)


def test_a_network_that_is_gone_may_have_learnt_anything(tmp_path: Path, root: Path) -> None:
    maps = {name: soft_maps(labels, labels) for name, labels in TRUTH.items()}
    gone = Input("checkpoint", "gone.h5", "0" * 64)
    about = {"protocol": {"tag_filter": "none"}, "stage": "predict-masks", "inputs": (gone,)}
    soft = write_artefact_of_maps(tmp_path / "soft.h5", "soft-labels", root, maps, SIZES, **about)
    progress = Noticing()
    assert evaluate_masks(EvaluateMasksOptions(masks=soft), progress)["trained_on"] is None
    assert progress.warnings == [
        f"whether the network behind {soft} was trained on these images is not known: its checkpoint is not where it "
        "was, has learnt from another folder, or does not say from which images"
    ]


def test_masks_of_a_list_that_has_shrunk_since_are_superfluous(tmp_path: Path, root: Path) -> None:
    masks = masks_artefact(tmp_path / "run/masks.h5", root)
    (root / "ImageSets/Segmentation/val.txt").write_text("a\nb\n")
    assert "1 masks are of no image of the split (sub/c)" in refusal(masks)


def test_masks_say_what_they_are_of_and_how_they_were_made(tmp_path: Path, root: Path) -> None:
    masks = masks_artefact(
        tmp_path / "run/masks.h5",
        root,
        protocol={"tag_filter": "image tags", "scales": [1.0, 0.5], "threshold": 0.3},
        oracle=("image tags read from pixel masks",),
    )
    found = evaluate(masks.parent)
    assert found["out"] == str(tmp_path / "run/scores.h5")
    assert found["miou"] == evaluate(folder_of(tmp_path / "pngs"), root)["miou"]
    assert found["unfiltered"] is None
    assert found["tag_filtered"]["miou"] == found["miou"]
    assert found["tag_filtered"]["interval"] == found["interval"]
    assert found["oracle"] == ["image tags read from pixel masks"] == found["protocol"]["oracle"]
    assert (found["protocol"]["scales"], found["protocol"]["threshold"]) == ([1.0, 0.5], 0.3)
    header = read_header(tmp_path / "run/scores.h5")
    assert header.inputs[0] == Input("masks", "masks.h5", read_header(masks).digest)
    assert header.oracle == ("image tags read from pixel masks",)


@pytest.mark.parametrize("tag_filter", ["none", "predicted tags"])
def test_masks_made_without_image_tags_have_an_unfiltered_score(tmp_path: Path, root: Path, tag_filter: str) -> None:
    found = evaluate(masks_artefact(tmp_path / "masks.h5", root, protocol={"tag_filter": tag_filter}))
    assert found["unfiltered"]["miou"] == found["miou"]
    assert found["tag_filtered"] is None


def test_a_moved_data_set_and_another_split_can_be_named(tmp_path: Path, root: Path) -> None:
    masks = masks_artefact(tmp_path / "masks.h5", root)
    moved = root.rename(tmp_path / "moved")
    assert f"data set folder {root} does not exist" in refusal(masks)
    found = evaluate_masks(EvaluateMasksOptions(masks=masks, root=moved))
    assert found["images"] == 3
    (tmp_path / "part.txt").write_text("a\nb\n")
    assert evaluate(masks, moved, split=str(tmp_path / "part.txt"), overwrite=True)["images"] == 2


def test_masks_of_other_classes_are_an_error(tmp_path: Path, root: Path) -> None:
    masks = masks_artefact(tmp_path / "masks.h5", root, classes=("background", "cat"))
    assert refusal(masks).startswith(
        f"{masks} was made with other classes than {root} has: class 2 was 'none', is 'dog'; "
    )


def test_images_that_were_skipped_are_reported_and_no_others_may_lack(tmp_path: Path, root: Path) -> None:
    masks = masks_artefact(tmp_path / "masks.h5", root, PREDICTION | {"b": "b.jpg is truncated"})
    progress = Noticing()
    found = evaluate_masks(EvaluateMasksOptions(masks=masks), progress)
    assert (found["images"], found["skipped"]) == (2, 1)
    assert found["iou"]["dog"] is None
    assert progress.warnings == ["1 images that an earlier stage has skipped are not scored"]
    with open_artefact(tmp_path / "scores.h5") as artefact:
        assert artefact.file["skipped/id"].asstr()[:].tolist() == ["b"]
        assert artefact.file["skipped/reason"].asstr()[:].tolist() == ["b.jpg is truncated"]
    fewer = {name: labels for name, labels in PREDICTION.items() if name != "b"}
    other = masks_artefact(tmp_path / "other/masks.h5", root, fewer)
    assert "1 of 3 images have no mask (b)" in refusal(other)


def test_masks_of_which_every_image_was_skipped(tmp_path: Path, root: Path) -> None:
    """Our own stages do not write such a file; the format allows it."""
    header = read_header(masks_artefact(tmp_path / "masks.h5", root))
    names, nothing = np.array(list(PREDICTION), dtype=object), np.zeros(0, dtype=np.int32)
    arrays = {"images/id": names, "skipped/id": names, "skipped/reason": np.array(["gone"] * 3, dtype=object)}
    arrays |= {f"images/{side}": np.zeros(3, dtype=np.int32) for side in ("height", "width")}
    arrays |= {f"maps/{column}": nothing for column in ("image", "height", "width")}
    arrays["maps/values"] = np.zeros(0, dtype=np.uint8)
    none = write_artefact(tmp_path / "none.h5", header, arrays | {"maps/offset": np.zeros(1, np.int64)}, CostMeter())
    assert refusal(none) == f"{none} has no image to score: earlier stages have skipped all 3"


def soft_maps(labels: np.ndarray, second: np.ndarray) -> dict[int, np.ndarray]:
    """Probabilities of every class whose argmax is the one map, and without its labels mostly the other."""
    maps = {label: np.where(labels == label, 0.6, np.where(second == label, 0.3, 0.05)) for label in range(3)}
    return {label: values.astype(np.float16) for label, values in maps.items()}


def test_soft_labels_are_scored_with_and_without_the_tags(tmp_path: Path, root: Path) -> None:
    given = {"a": array([[0, 2, 2], [0, 1, 1]]), "b": array([[0, 2, 1]]), "sub/c": array([[1, 0], [0, 2]])}
    second = {"a": array([[0, 0, 1], [0, 1, 1]]), "b": array([[0, 0, 0]]), "sub/c": array([[0, 0], [0, 0]])}
    maps = {name: soft_maps(given[name], second[name]) for name in given}
    soft = tmp_path / "run/soft.h5"
    soft.parent.mkdir()
    protocol = {"tag_filter": "none"}
    write_artefact_of_maps(soft, "soft-labels", root, maps, SIZES, protocol=protocol, stage="predict-masks")
    found = evaluate(soft)
    unfiltered = evaluate(folder_of(tmp_path / "u", given), root)
    # Without dog in a: [[0, 0, 1], [0, 1, 1]]; without cat in b: [[0, 2, .]]; c has no tags: all background.
    filtered = evaluate(folder_of(tmp_path / "f", TRUTH | {"b": array([[0, 2, 0]])}), root)
    for key in KEYS - {"images", "protocol"}:
        assert found[key] == found["unfiltered"][key] == unfiltered[key]
        assert found["tag_filtered"][key] == filtered[key]
    assert found["protocol"]["tag_filter"] == "none"
    assert found["protocol"]["tag_filtered_by"] == "image tags (xml)"
    with open_artefact(tmp_path / "run/scores.h5") as artefact:
        assert artefact.file["tag-filtered/confusion"][:].tolist() == [[8, 0, 0], [0, 3, 0], [0, 0, 1]]
    # Masks made of these soft labels lead to them.
    digest = read_header(soft).digest
    masks = masks_artefact(
        tmp_path / "run/masks.h5", root, given, protocol=protocol, inputs=(Input("soft-labels", "soft.h5", digest),)
    )
    again = evaluate(masks, out=tmp_path / "again.h5")
    assert again == found | {"out": str(tmp_path / "again.h5")}
    assert [item.kind for item in read_header(tmp_path / "again.h5").inputs] == ["masks", "soft-labels", "dataset"]
    soft.unlink()
    alone = evaluate(masks, overwrite=True)
    assert (alone["miou"], alone["tag_filtered"]) == (found["miou"], None)


def test_soft_labels_at_a_coarse_grid_are_enlarged(tmp_path: Path) -> None:
    truth = np.kron(array([[0, 1], [2, 0]]), np.ones((8, 8), dtype=np.uint8))
    root = write_voc(tmp_path / "voc", {"a": truth})
    maps = {"a": soft_maps(array([[0, 1], [2, 0]]), array([[0, 0], [0, 0]]))}
    soft = write_artefact_of_maps(
        tmp_path / "soft.h5", "soft-labels", root, maps, {"a": (16, 16)}, protocol={"tag_filter": "none"}
    )
    # Bilinear enlargement rounds off the corners where four squares meet.
    assert evaluate(soft)["pixel_accuracy"] > 0.85


def test_tags_that_nobody_knows_cannot_filter(tmp_path: Path, root: Path) -> None:
    (root / "Annotations/a.xml").unlink()
    maps = {name: soft_maps(labels, labels) for name, labels in TRUTH.items()}
    soft = write_artefact_of_maps(
        tmp_path / "soft.h5", "soft-labels", root, maps, SIZES, protocol={"tag_filter": "none"}
    )
    progress = Noticing()
    assert evaluate_masks(EvaluateMasksOptions(masks=soft), progress)["tag_filtered"] is None
    assert progress.warnings == ["there is no tag-filtered score: some images have no tags"]


def test_a_class_whose_map_is_not_stored_can_be_all_that_the_tags_leave(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", {"a": array([[0, 0]]), "b": array([[1, 1]])})
    soft = write_artefact_of_maps(
        tmp_path / "soft.h5",
        "soft-labels",
        root,
        {name: {1: np.ones((1, 2))} for name in "ab"},
        dict.fromkeys("ab", (1, 2)),
        protocol={"tag_filter": "none"},
    )
    found = evaluate(soft)
    assert (found["miou"], found["tag_filtered"]["miou"]) == (0.25, 1)


def test_classes_that_are_tags_and_in_no_mask_are_named(tmp_path: Path, root: Path) -> None:
    masks = folder_of(tmp_path / "masks")
    for name in "ab":
        save(root / f"SegmentationClass/{name}.png", array([[0, 1, 255]]))
        save(masks / f"{name}.png", array([[0, 1, 2]]))
    progress = Noticing()
    evaluate_masks(EvaluateMasksOptions(masks=masks, dataset="voc", root=root, split="val"), progress)
    assert progress.warnings == ["the ground truth has no pixel of classes that are tags of its images: dog (tag of 1)"]
    (root / "Annotations/b.xml").write_text("no annotation")  # tags that cannot be read are no reason not to score
    progress = Noticing()
    evaluate_masks(EvaluateMasksOptions(masks=masks, dataset="voc", root=root, split="val", overwrite=True), progress)
    assert progress.warnings == []


def test_masks_that_hold_no_class_are_scored_with_a_warning(tmp_path: Path, root: Path) -> None:
    masks = folder_of(
        tmp_path / "masks", {name: (np.where(truth % 255, 255, 0)).astype(np.uint8) for name, truth in TRUTH.items()}
    )
    progress = Noticing()
    found = evaluate_masks(EvaluateMasksOptions(masks=masks, dataset="voc", root=root, split="val"), progress)
    assert found["iou"]["cat"] == 0
    assert progress.warnings == [
        f"no mask of {masks} holds a class, only background and 255, which is unlabelled; "
        "if a value of theirs stands for a class, save them with its index"
    ]


def zeros_and_255(tmp_path: Path) -> tuple[Path, Path]:
    """The root of a data set whose one class is saved as 255, and perfect masks of it."""
    root = write_voc(tmp_path / "voc", {"a": array([[0, 1, 1]]), "b": array([[0, 0, 1]])})
    (root / "classes.txt").write_text("cat")
    for name in "ab":
        path = root / f"SegmentationClass/{name}.png"
        save(path, np.asarray(Image.open(path)) * np.uint8(255))
    return root, folder_of(tmp_path / "masks", {"a": array([[0, 1, 1]]), "b": array([[0, 0, 1]])})


def test_ground_truth_without_a_class_is_refused(tmp_path: Path) -> None:
    root, masks = zeros_and_255(tmp_path)
    said = "the ground truth of split val of {} holds background and ignored pixels and no class in 2 images; if "
    assert refusal(masks, root) == said.format(root) + (
        "255 stands for a class in its masks, pass --mask-values 255=cat"
    )
    for name in "ab":
        save(root / f"SegmentationClass/{name}.png", array([[0, 0, 0]]))
    assert refusal(masks, root) == said.format(root).replace(" and ignored pixels", "") + (
        "VALUE stands for a class in its masks, pass --mask-values VALUE=cat"
    )


def test_the_values_in_masks_are_what_the_user_says(tmp_path: Path) -> None:
    root, masks = zeros_and_255(tmp_path)
    found = evaluate(masks, root, mask_values="255=cat")
    assert found["iou"] == {"background": 1, "cat": 1}
    assert read_header(masks / "scores.h5").dataset["mask_values"] == ["255=cat"]
    assert found["protocol"]["mask_values"] == "255=cat"
    wrong = folder_of(tmp_path / "wrong", {"a": array([[0, 0, 0]]), "b": array([[0, 0, 0]])})
    assert evaluate(wrong, root, mask_values="255=cat")["iou"] == {"background": 0.5, "cat": 0}
    assert refusal(masks, root, mask_values="255=cta", overwrite=True) == (
        "--mask-values 255=cta: no such class (did you mean 'cat'?); known: background, cat"
    )


def test_workers_change_nothing(tmp_path: Path) -> None:
    names = [f"image {number}" for number in range(70)]
    truth = {name: random_labels(number, 20, 30) for number, name in enumerate(names)}
    given = {name: random_labels(number // 2, 20, 30) for number, name in enumerate(names)}
    root = write_voc(tmp_path / "voc", truth)
    masks = folder_of(tmp_path / "masks", given)
    alone = evaluate(masks, root, out=tmp_path / "1.h5", workers=0)
    together = evaluate(masks, root, out=tmp_path / "2.h5", workers=2)
    assert alone | {"out": ""} == together | {"out": ""}
    assert read_header(tmp_path / "1.h5").digest == read_header(tmp_path / "2.h5").digest
    counter = PixelCounter(3, boundary=None, ignored="background")
    counts = sum(class_counts(counter.table(truth[name], given[name]), "background") for name in names)
    assert alone["iou"] == pytest.approx(dict(zip(CLASSES, iou(counts), strict=True)), abs=1e-6)


def test_without_a_boundary_its_scores_are_null(tmp_path: Path, root: Path) -> None:
    found = evaluate(folder_of(tmp_path / "masks"), root, boundary=None, worst=1)
    assert (found["boundary_iou"], found["protocol"]["boundary_distance"]) == (None, None)
    assert len(found["worst"]) == 1


def test_one_image_has_no_interval(tmp_path: Path, root: Path) -> None:
    (tmp_path / "one.txt").write_text(f"{next(iter(PREDICTION))}\n")
    name = next(iter(PREDICTION))
    found = evaluate(folder_of(tmp_path / "masks", {name: PREDICTION[name]}), root, split=str(tmp_path / "one.txt"))
    assert (found["images"], found["interval"], found["protocol"]["interval"]) == (1, None, None)


def test_older_commands_still_switch_the_interval_off(tmp_path: Path, root: Path) -> None:
    off = evaluate(folder_of(tmp_path / "masks"), root, resamples=0)
    assert (off["interval"], off["protocol"]["interval"]) == (None, None)
    given, own = (evaluate(tmp_path / "masks", root, overwrite=True, **more) for more in ({"resamples": 1000}, {}))
    assert given["interval"] == own["interval"] is not None


def test_options_survive_the_way_to_a_worker() -> None:
    options = EvaluateMasksOptions(masks=Path("m"))
    assert pickle.loads(pickle.dumps(options)) == options


def test_real_masks_compared_with_themselves_are_perfect(tmp_path: Path, voc_mini: Path) -> None:
    names = (voc_mini / "ImageSets/Segmentation/val.txt").read_text().split()[:8]
    (tmp_path / "list.txt").write_text("\n".join(names))
    for name in names:
        labels = np.asarray(Image.open(voc_mini / f"SegmentationClass/{name}.png"))
        save(tmp_path / f"masks/{name}.png", np.where(labels == 255, 0, labels).astype(np.uint8))
    found = evaluate(tmp_path / "masks", voc_mini, split=str(tmp_path / "list.txt"))
    assert (found["miou"], found["boundary_iou"], found["pixel_accuracy"]) == (1, 1, 1)

"""Simulated scribbles, points and boxes: inside their objects, equal for equal seeds, and marked; and ``data show``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from pseudolabel.cli.app import main
from pseudolabel.data import Dataset, load_dataset
from pseudolabel.data.images import read_label_png
from pseudolabel.data.instances import Instance, InstanceMasks, read_shape
from pseudolabel.data.shapes import Box, Point
from pseudolabel.data.simulate.labels import Truth, find_objects, simulate_boxes, simulate_points, simulate_scribbles
from pseudolabel.data.simulate.strokes import depth_of, jittered_box, middle_point, stroke
from pseudolabel.data.weak.labels import WeakLabels, load_weak_labels
from pseudolabel.errors import DatasetError
from pseudolabel.export.weak_labels import labels_picture
from pseudolabel.options import SimulateBoxesOptions, SimulatePointsOptions, SimulateScribblesOptions
from tests.helpers.voc import CLASSES, array, save, write_voc

SIMULATIONS = {
    "scribbles": (simulate_scribbles, SimulateScribblesOptions),
    "points": (simulate_points, SimulatePointsOptions),
    "boxes": (simulate_boxes, SimulateBoxesOptions),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def blob(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """One connected object of a random shape, bool (H, W)."""
    smooth = ndimage.gaussian_filter(rng(seed).normal(size=(height, width)), 5)
    numbers, _ = ndimage.label(smooth > np.quantile(smooth, 0.6), np.ones((3, 3)))
    return np.asarray(numbers == np.bincount(numbers.ravel())[1:].argmax() + 1)


def simulate(kind: str, root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    function, model = SIMULATIONS[kind]
    values = {"from_": "masks", "root": root, "split": "val", "out": out, "workers": 0} | changes
    return function(model(**values))


def load(root: Path, **places: Any) -> Dataset:
    return load_dataset({"dataset": "voc", "root": root, "split": "val"} | places)


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_stroke_of_a_bar_is_its_middle_line() -> None:
    inside = np.zeros((20, 60), dtype=bool)
    inside[6:15, 5:55] = True  # 9 pixels high: the middle row is 10
    rows, columns = stroke(inside, rng(), width=1).nonzero()
    middle = (columns > 12) & (columns < 47)
    assert set(rows[middle]) == {10}
    assert columns.min() <= 10
    assert columns.max() >= 49


@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_of_a_stroke_lies_inside_and_shorter_ones_are_part_of_longer_ones(seed: int) -> None:
    inside = blob(seed)
    drawn = [stroke(inside, rng(seed), length=length, wobble=0.8) for length in (0.25, 0.5, 1.0)]
    for shorter, longer in zip([np.zeros_like(inside), *drawn], [*drawn, inside], strict=True):
        assert not (shorter & ~longer).any()
    counts = [int(line.sum()) for line in drawn]
    assert 0 < counts[0] < counts[1] < counts[2] < inside.sum()
    assert counts[1] / counts[2] == pytest.approx(0.5, abs=0.15)  # round ends count whatever the length


@pytest.mark.parametrize("seed", range(6))
def test_a_stroke_is_one_line_without_branches(seed: int) -> None:
    line = stroke(blob(seed), rng(seed), width=1)
    assert ndimage.label(line, np.ones((3, 3)))[1] == 1
    rows, columns = line.nonzero()
    assert line.sum() <= 2.2 * max(np.ptp(rows), np.ptp(columns)) + 3


def test_wobble_moves_a_stroke_and_only_its_seed_decides_how() -> None:
    inside = blob(1)
    straight, wobbly, again, other = (
        stroke(inside, rng(seed), wobble=wobble) for seed, wobble in ((0, 0.0), (0, 0.6), (0, 0.6), (5, 0.6))
    )
    assert (wobbly != straight).any()
    assert (wobbly == again).all()
    assert (wobbly != other).any()


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_tiny_objects_get_a_stroke_and_a_point_too(height: int, width: int, seed: int, thick: int) -> None:
    numbers, count = ndimage.label(rng(seed).random((height, width)) < 0.6, np.ones((3, 3)))
    for number in range(1, count + 1):
        inside = numbers == number
        drawn = stroke(inside, rng(seed), length=0.3, wobble=1.0, width=thick)
        assert drawn.any()
        assert not (drawn & ~inside).any()
        point = middle_point(inside, 1, rng(seed), 1.0)
        assert inside[point.y, point.x]


def test_depth_counts_the_image_border_as_outside() -> None:
    np.testing.assert_array_equal(depth_of(np.ones((3, 4), dtype=bool)), [[1, 1, 1, 1], [1, 2, 2, 1], [1, 1, 1, 1]])


def test_the_point_of_a_square_is_its_centre() -> None:
    inside = np.zeros((9, 11), dtype=bool)
    inside[2:7, 5:10] = True
    assert middle_point(inside, 3, rng(), 0.0) == Point(3, 7, 4)


@pytest.mark.parametrize("seed", range(6))
def test_points_lie_inside_their_object_at_any_wobble(seed: int) -> None:
    inside = blob(seed)
    for wobble in (0.0, 0.5, 1.0):
        point = middle_point(inside, 1, rng(seed), wobble)
        assert inside[point.y, point.x]


def test_a_box_is_tight_without_jitter_and_stays_in_the_image_with_it() -> None:
    inside = np.zeros((10, 20), dtype=bool)
    inside[2:7, 5:15] = True
    assert jittered_box(inside, 2, rng(), 0.0) == Box(2, 5, 2, 15, 7)
    boxes = [jittered_box(inside, 2, rng(seed), 0.4) for seed in range(50)]
    assert len(set(boxes)) > 10
    for box in boxes:
        assert 0 <= box.left < box.right <= 20
        assert 0 <= box.top < box.bottom <= 10
        assert abs(box.left - 5) <= 4
        assert abs(box.bottom - 7) <= 2


def test_a_box_has_two_pixels_along_each_axis_that_has_them() -> None:
    inside = np.zeros((1, 5), dtype=bool)
    inside[0, 4] = True
    assert jittered_box(inside, 1, rng(), 0.0) == Box(1, 3, 0, 5, 1)


def test_objects_are_told_apart_by_numbers_or_by_their_pieces() -> None:
    labels = array([[1, 1, 0, 2], [1, 1, 0, 0], [0, 0, 2, 255]])
    assert [(label, int(piece.sum())) for label, piece in find_objects(labels, None)] == [(1, 4), (2, 1), (2, 1)]
    numbers = np.array([[1, 2, 0, 3], [1, 2, 0, 0], [0, 0, 3, 0]])
    assert [(label, int(piece.sum())) for label, piece in find_objects(labels, numbers)] == [(1, 2), (1, 2), (2, 2)]
    assert find_objects(array([[0, 255]]), None) == []


def test_specks_are_left_out_where_their_class_has_something_larger() -> None:
    labels = np.zeros((100, 100), dtype=np.uint8)
    labels[10:50, 10:50], labels[80, 80], labels[90, 20] = 1, 1, 2  # two specks of less than a thousandth
    assert [(label, int(piece.sum())) for label, piece in find_objects(labels, None)] == [(1, 1600), (2, 1)]


def test_voc_instances_are_used_where_they_are(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set", {"a": array([[1, 1, 1, 1], [255, 255, 1, 1]])})
    record = load(root).records[0]
    save(root / "SegmentationObject/a.png", array([[1, 1, 2, 2], [255, 255, 2, 2]]))
    labels, numbers = Truth(load(root).read_mask, root / "SegmentationObject").read(record)
    assert numbers is not None
    assert [int(piece.sum()) for _, piece in find_objects(labels, numbers)] == [2, 4]
    assert simulate("boxes", root, tmp_path / "boxes")["instances"] == "SegmentationObject"
    found = load_weak_labels(load(root, boxes=tmp_path / "boxes").records[0], (2, 4), CLASSES)
    assert [box[:5] for box in found.boxes] == [(1, 0, 0, 2, 2), (1, 2, 0, 4, 2)]  # the first grown to two rows


def test_coco_instances_know_which_annotation_a_pixel_shows(tmp_path: Path) -> None:
    shapes = [read_shape([ring], (4, 6), "") for ring in ([0, 0, 4, 0, 4, 4, 0, 4], [3, 0, 6, 0, 6, 2, 3, 2])]
    instances = tuple(Instance(1, False, shape) for shape in shapes)
    masks = InstanceMasks((1,), {"a": 1}, {"a": (4, 6)}, {"a": instances})
    record = load(write_voc(tmp_path, {"a": np.zeros((4, 6), dtype=np.uint8)})).records[0]
    labels, numbers = masks.draw(record)
    np.testing.assert_array_equal(labels, masks(record))
    np.testing.assert_array_equal(numbers, [[1, 1, 1, 2, 2, 2]] * 2 + [[1, 1, 1, 1, 0, 0]] * 2)
    assert Truth(masks).instances == "annotations"


@pytest.mark.parametrize("kind", SIMULATIONS)
def test_the_same_seed_gives_the_same_bytes(synthetic_root: Path, tmp_path: Path, kind: str) -> None:
    loose = {"boxes": {"jitter": 0.2}}.get(kind, {})
    processes = {"scribbles": {"workers": 2}}.get(kind, {})
    for name, changes in {"first": {}, "same": processes, "other": {"seed": 1}}.items():
        simulate(kind, synthetic_root, tmp_path / name, **loose, **changes)
    first, same, other = (digests(tmp_path / name) for name in ("first", "same", "other"))
    assert first == same
    assert first.keys() == other.keys()
    assert len({name for name in first if first[name] != other[name]}) >= len(first) - 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "other", "same"]  # nothing half-made is left


def test_an_image_looks_the_same_in_any_list(synthetic_root: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("scene_00010\n")
    simulate("scribbles", synthetic_root, tmp_path / "all")
    simulate("scribbles", synthetic_root, tmp_path / "one", split=str(tmp_path / "one.txt"))
    assert digests(tmp_path / "one")["scene_00010.png"] == digests(tmp_path / "all")["scene_00010.png"]


def test_images_have_random_numbers_of_their_own_and_excluded_classes_no_labels(tmp_path: Path) -> None:
    mask = np.kron(array([[1, 0], [0, 2]]), np.ones((30, 30))).astype(np.uint8)
    root = write_voc(tmp_path / "set", {"a": mask, "b": mask, "c": mask})
    (root / "Annotations/c.xml").write_text("<annotation><object><name>dog</name></object></annotation>")
    simulate("scribbles", root, tmp_path / "s")
    first, second, third = (read_label_png(tmp_path / f"s/{name}.png") for name in "abc")
    assert (first != second).any()
    assert set(np.unique(second)) == {0, 1, 2, 255}
    assert set(np.unique(third)) == {0, 2, 255}


def test_simulated_labels_agree_with_the_masks(synthetic_root: Path, tmp_path: Path) -> None:
    places = {kind: tmp_path / kind for kind in SIMULATIONS}
    for kind, folder in places.items():
        simulate(kind, synthetic_root, folder)
    dataset = load(synthetic_root, tag_source="weak", **places)
    assert [record.tags for record in dataset.records] == [record.tags for record in load(synthetic_root).records]
    for record in dataset.records:
        mask = dataset.read_mask(record)
        assert record.scribbles is not None
        drawn = read_label_png(record.scribbles)
        assert (drawn[drawn != 255] == mask[drawn != 255]).all()
        assert (drawn == 0).any()
        found = load_weak_labels(record, mask.shape, dataset.classes)
        assert all(mask[point.y, point.x] == point.label for point in found.points)
        for tag in record.tags or ():
            inside = np.zeros(mask.shape, dtype=bool)
            for box in found.boxes:
                if box.label == tag:
                    inside[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = True
            pieces, _ = ndimage.label(mask == tag, np.ones((3, 3)))
            largest = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
            assert not (largest & ~inside).any()
    assert dataset.oracle == tuple(f"{kind} simulated from pixel masks" for kind in SIMULATIONS)


def test_what_is_written_says_that_it_was_simulated(synthetic_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = simulate("scribbles", synthetic_root, out, seed=7, length=0.5, background=False)
    assert {key: result[key] for key in ("images", "unlabelled", "seed", "oracle")} == {
        "images": 4,
        "unlabelled": 0,
        "seed": 7,
        "oracle": ["scribbles simulated from pixel masks"],
    }
    assert json.loads((out / "simulated.json").read_text()) == {
        "simulated": "scribbles",
        "from": "pixel masks",
        "dataset": "voc",
        "root": str(synthetic_root),
        "split": "val",
        "instances": "connected pieces",
        "seed": 7,
        "length": 0.5,
        "wobble": 0.3,
        "width": 3,
        "background": False,
        "unlabelled": [],
    }
    assert all((read_label_png(path) != 0).all() for path in out.glob("*.png"))


def test_an_image_without_anything_to_label_gets_no_file(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set", {"a": array([[1, 0]]), "b": array([[255, 255]])})
    assert simulate("scribbles", root, tmp_path / "out")["unlabelled"] == 1
    assert json.loads((tmp_path / "out/simulated.json").read_text())["unlabelled"] == ["b"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "simulated.json"]


def test_the_commands(synthetic_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--root", str(synthetic_root), "--split", "val"]
    for kind in SIMULATIONS:
        words = ["data", kind, *where, "--out", str(tmp_path / kind), "--workers", "0", "--json"]
        assert main(words) == 2
        assert capsys.readouterr().err == f"error: data {kind}: --from is required\n"
        assert main([*words, "--from", "masks"]) == 0
        assert json.loads(capsys.readouterr().out)["oracle"] == [f"{kind} simulated from pixel masks"]
        assert main([*words, "--from", "masks"]) == 2
        assert capsys.readouterr().err == (
            f"error: {tmp_path / kind} is not empty; choose another --out, or remove it first\n"
        )
    assert main(["data", "boxes", *where, "--from", "tags", "--out", "x"]) == 2
    assert capsys.readouterr().err == "error: data boxes: --from: should be 'masks', found 'tags'\n"
    places = [word for kind in SIMULATIONS for word in (f"--{kind}", str(tmp_path / kind))]
    assert main(["data", "check", *where, *places, "--workers", "0"]) == 0
    capsys.readouterr()
    show = ["data", "show", *where, "--out", str(tmp_path / "shown")]
    assert main(show) == 2
    assert capsys.readouterr().err == ("error: there is nothing to draw; pass --scribbles, --points or --boxes\n")
    assert main([*show, *places, "--ids", "scene_00009,scene_00011", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    assert sorted(path.name for path in (tmp_path / "shown").iterdir()) == ["scene_00009.png", "scene_00011.png"]
    assert main(["data", "show", *where, *places, "--count", "3", "--out", str(tmp_path / "three")]) == 0
    assert len(list((tmp_path / "three").iterdir())) == 3
    capsys.readouterr()
    assert main(["data", "show", *where, *places, "--ids", "nobody", "--out", str(tmp_path / "none")]) == 2
    assert "'nobody'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_picture_shows_every_kind_of_label_even_background() -> None:
    labels = np.full((60, 80), 255, dtype=np.uint8)
    labels[10, 5:30], labels[50, 5:70] = 1, 0
    weak = WeakLabels(labels, (Point(2, 60, 20),), (Box(1, 2, 2, 40, 30),))
    photograph = np.full((60, 80, 3), 90, dtype=np.uint8)
    picture = np.asarray(labels_picture(photograph, weak, CLASSES, "a"))
    assert picture.shape[1] >= 640

    def share(colour: tuple[int, int, int]) -> float:
        return float((picture[40:500] == colour).all(axis=2).mean())

    assert share((128, 0, 0)) > 0.01  # class 1: stroke and box
    assert share((0, 128, 0)) > 1e-4  # class 2: the point
    assert share((0, 0, 0)) > 0.005  # background
    column = picture[40:500, 10 + 400]  # across the background stroke: white, black, white on the grey photograph
    black = (column == 0).all(axis=1).nonzero()[0]
    assert (column[[black[0] - 1, black[-1] + 1]] == 255).all()
    only_boxes = WeakLabels(np.full((60, 80), 255, dtype=np.uint8), (), weak.boxes)
    assert isinstance(labels_picture(photograph, only_boxes, CLASSES, "a"), Image.Image)


def test_masks_without_a_class_are_no_source(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", {"a": array([[0, 1, 1]])})
    save(root / "SegmentationClass/a.png", array([[0, 255, 255]]))
    with pytest.raises(DatasetError) as caught:
        simulate("scribbles", root, tmp_path / "s")
    assert str(caught.value) == (
        f"the ground truth of split val of {root} holds background and ignored pixels and no class in 1 images; "
        "if 255 stands for a class in its masks, pass --mask-values 255=CLASS"
    )
    assert simulate("points", root, tmp_path / "p", mask_values=("255=cat",))["marks"] == 2


def test_real_photographs_get_strokes_inside_their_objects(voc_mini: Path, tmp_path: Path) -> None:
    names = (voc_mini / "ImageSets/Segmentation/val.txt").read_text().split()[::25]
    (tmp_path / "few.txt").write_text("\n".join(names))
    simulate("scribbles", voc_mini, tmp_path / "s", split=str(tmp_path / "few.txt"))
    dataset = load(voc_mini, split=str(tmp_path / "few.txt"), scribbles=tmp_path / "s")
    for record in dataset.records:
        mask = dataset.read_mask(record)
        drawn = load_weak_labels(record, mask.shape, dataset.classes).labels
        assert (drawn[drawn != 255] == mask[drawn != 255]).all()
        assert 0.001 < (drawn != 255).mean() < 0.06

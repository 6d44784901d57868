"""Label files as they are published: of more images than the list, in other frames and units, from other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from pseudolabel.labels.box_constraints import allowed
from tests.helpers.voc import save, write_voc
from tests.helpers.weak import (
    MASKS,
    annotation,
    box,
    checked,
    coco,
    load,
    problems,
    refusal,
    strokes,
    text,
    untagged,
    weak,
)

VAL = ("--split", "val")
CLICK = {"cls": 1, "x": 2.5, "y": 3.5, "rank": 1}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images of 8 x 6 pixels: a with the tag cat, b with the tag dog."""
    return write_voc(tmp_path / "set", MASKS)


def found(root: Path, capsys: pytest.CaptureFixture[str], kind: str, path: Path) -> tuple[int, list[str], list[str]]:
    """What ``data check`` says, without the folder above the data set."""
    code, *parts = checked(capsys, root, *VAL, f"--{kind}", str(path))
    problems, warnings = ([line.replace(f"{root.parent}/", "") for line in part] for part in parts)
    return code, problems, warnings


def published(folder: Path, kind: str) -> Path:
    """Labels of both images and of two others, one of whose classes is unknown, in a format of this kind."""
    if kind == "points.csv":
        return text(folder / kind, "a,cat,2,3\nb,dog,5,4\nx,cow,1,1\ny,cat,7000,0\n")
    if kind == "points.json":
        clicks = {"a": [CLICK], "b": [{"cls": 2, "x": 5, "y": 4}], "x": [{"cls": 20, "x": 1, "y": 1}], "y": [CLICK]}
        return text(folder / kind, clicks)
    if kind == "boxes.json":
        others = [{"id": number, "file_name": f"{name}.jpg"} for number, name in enumerate("abxy", 1)]
        marks = [(1, 17, [1, 1, 3, 4]), (2, 18, [4, 2, 4, 3]), (3, 19, [0, 0, 9, 9]), (4, 17, [0, 0, 9, 9])]
        return coco(folder / kind, *marks, images=others)
    for name, label in zip("abxy", ("cat", "dog", "cow", "cat"), strict=True):
        if kind == "boxes":
            annotation(folder / f"boxes/{name}.xml", (label, box(5, 3, 7, 5)))
        else:
            strokes(folder / f"scribbles/{name}.xml", (label, [(5, 4), (6, 4)]))
    return folder / kind


FIRST = {
    "points.csv": "'x' in points.csv, line 3",
    "points.json": "'x' in points.json: point 1 of 'x'",
    "boxes.json": "'x' in boxes.json: annotation 12 of image 3",
    "boxes": "'x' in boxes/x.xml",
    "scribbles": "'x' in scribbles/x.xml",
}


@pytest.mark.parametrize("name", FIRST)
def test_labels_of_more_images_than_the_list_are_counted_in_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    kind = name.split(".")[0]
    assert found(root, capsys, kind, published(tmp_path, name)) == (
        0,
        [],
        [f"warning: {name}: the {kind} of 2 images that split val of ROOT lacks are not used (first: {FIRST[name]})"],
    )
    assert all(getattr(record, kind) for record in load(root, **{kind: tmp_path / name}).records)


@pytest.mark.parametrize("name", FIRST)
def test_labels_none_of_which_is_of_the_list_are_a_problem(root: Path, tmp_path: Path, name: str) -> None:
    kind = name.split(".")[0]
    path = published(tmp_path, name)
    for index, old in enumerate("ab"):
        for folder in ("JPEGImages", "SegmentationClass", "Annotations"):
            ending = ".xml" if folder == "Annotations" else ".png"
            (root / folder / f"{old}{ending}").rename(root / folder / f"n{index}{ending}")
    (root / "ImageSets/Segmentation/val.txt").write_text("n0\nn1\n")
    (line,) = problems(root, **{kind: path})
    assert line.startswith(f"{name}: none of its {kind} is of an image in split val of set (first: 'a' in {name}")
    assert line.endswith("; an id is the name in the list, without a file's ending")


def test_labels_in_the_data_sets_own_folder_serve_all_its_lists(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(root / "JPEGImages/other.png", np.zeros((6, 8, 3), dtype=np.uint8))
    for name in ("a", "b", "other"):
        annotation(root / f"boxes/{name}.xml", ("cat" if name == "a" else "dog", box(1, 1, 2, 3)))
    assert found(root, capsys, "boxes", root / "boxes") == (0, [], [])
    annotation(root / "boxes/ghost.xml", ("dog", box(1, 1, 2, 3)))
    code, faults, (line,) = found(root, capsys, "boxes", root / "boxes")
    assert (code, faults) == (0, [])
    assert line == (
        "warning: boxes: the boxes of 1 image that split val of ROOT lacks are not used "
        "(first: 'ghost' in boxes/ghost.xml)"
    )


def test_points_on_pixels_that_the_mask_ignores_are_counted_in_a_warning(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = text(tmp_path / "points.csv", "a,cat,2,3\nb,dog,4,2\nb,dog,5,2\n")
    assert found(root, capsys, "points", path) == (
        0,
        [],
        [
            "warning: 2 points on pixels that the masks ignore (255; first: points.csv, line 2: point (4, 2)); no "
            "score counts these pixels, and a training, which reads no masks, uses the points"
        ],
    )
    assert len(weak(load(root, points=path), 1).points) == 2


def test_a_folder_of_clicks_and_of_points_of_the_background(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text(tmp_path / "p/clicks.json", {"a": [CLICK], "b": [{"cls": 2, "x": 5, "y": 4}]})
    free = {"a": [{"cls": 0, "x": 8.0, "y": 6.0}], "x": [{"cls": 0, "x": 1, "y": 1}]}
    ground = text(tmp_path / "p/ground.json", free)
    text(tmp_path / "p/simulated.json", {})
    dataset = load(root, points=tmp_path / "p")
    assert [point[:3] for point in weak(dataset, 0).points] == [(1, 2, 3), (0, 7, 5)]  # the far border belongs to it
    assert [point[:3] for point in weak(dataset, 1).points] == [(2, 5, 4)]
    assert found(root, capsys, "points", tmp_path / "p")[:2] == (0, [])
    code, faults, warnings = found(untagged(root), capsys, "points", ground)
    assert (code, faults) == (2, ["ROOT: id 'b' has no label: no tags or points"])
    assert warnings[1] == (
        "warning: p/ground.json: all points are of the background, for in JSON cls 0 is that; classes count from 1"
    )


def test_pixels_beyond_the_border_are_no_places_on_it(root: Path, tmp_path: Path) -> None:
    path = text(tmp_path / "points.json", {"a": [{"cls": 1, "x": 8, "y": 1}]})
    assert refusal(root, points=path) == (
        "points.json: point 1 of 'a': point (8, 1) lies outside its image, which is 8 x 6 pixels"
    )


def test_coco_is_no_list_of_points(root: Path, tmp_path: Path) -> None:
    path = coco(tmp_path / "x.json")
    assert refusal(root, points=path) == (
        "x.json is COCO's JSON; wanted an object of image id to a list of points, or --boxes x.json"
    )


def framed(folder: Path, kind: str, width: object, height: object) -> dict[str, Path]:
    """Boxes, or strokes, of image a whose file states a size; each lies in the image."""
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    if kind == "coco":
        image = {"id": 1, "file_name": "a.jpg", "width": width, "height": height}
        return {"boxes": coco(folder / "boxes.json", (1, 17, [1, 1, 3, 4]), images=[image])}
    if kind == "scribbles":
        return {"scribbles": strokes(folder / "scribbles/a.xml", ("cat", [(1, 2), (5, 2)]), size=size)}
    path = annotation(folder / "boxes/a.xml", ("cat", box(2, 2, 4, 5))) / "a.xml"
    path.write_text(path.read_text().replace("<annotation>", f"<annotation>{size}"))
    return {"boxes": path.parent}


FRAMED = {
    "coco": "boxes.json: annotation 10 of image 1",
    "voc": "boxes/a.xml: object 1",
    "scribbles": "scribbles/a.xml",
}
MEND = {"boxes": "pass the photographs that the boxes were drawn on, or write the boxes for this size"}


@pytest.mark.parametrize("kind", FRAMED)
def test_labels_drawn_on_an_image_of_another_size_are_refused(root: Path, tmp_path: Path, kind: str) -> None:
    places = framed(tmp_path, kind, 16, 12)
    mend = MEND.get(next(iter(places)), "draw the scribbles at the image's size")
    line = f"{FRAMED[kind]} is for 16 x 12 pixels, its image has 8 x 6; {mend}"
    assert refusal(root, **places) == line
    assert problems(root, **places) == [line]


@pytest.mark.parametrize("kind", FRAMED)
@pytest.mark.parametrize("sides", [(8, 6), (0, 0), (0, 6), (8, 0)])
def test_a_size_that_fits_or_is_not_stated(root: Path, tmp_path: Path, kind: str, sides: tuple[int, int]) -> None:
    places = framed(tmp_path, kind, *sides)
    assert problems(root, **places) == []
    assert weak(load(root, **places), 0)


@pytest.mark.parametrize("kind", FRAMED)
def test_labels_of_a_photograph_before_it_is_turned_are_refused(root: Path, tmp_path: Path, kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (6, 8)).save(root / "JPEGImages/a.png", exif=exif)  # upright, it is 8 x 6
    places = framed(tmp_path, kind, 6, 8)
    mend = MEND.get(next(iter(places)), "draw the scribbles at the image's size")
    turned = "8 x 6 after its EXIF orientation has turned it upright"
    assert problems(root, **places) == [f"{FRAMED[kind]} is for 6 x 8 pixels, its image has {turned}; {mend}"]
    assert problems(root, **framed(tmp_path, kind, 8, 6)) == []


def test_boxes_of_another_frame_constrain_no_maps(root: Path, tmp_path: Path) -> None:
    record = load(root, **framed(tmp_path, "voc", 16, 12)).records[0]
    with pytest.raises(Exception, match=r"object 1 is for 16 x 12 pixels, its image has 8 x 6;"):
        allowed(record, (6, 8))


def shares(folder: Path, kind: str) -> dict[str, Path]:
    """Labels of image a in shares of its sides."""
    if kind == "points.csv":
        return {"points": text(folder / kind, "id,class,x,y\na,cat,0.25,0.5\nx,cat,1,0\n")}
    if kind == "points.json":
        return {"points": text(folder / kind, {"a": [{"cls": 1, "x": 0.25, "y": 0.5}]})}
    if kind == "boxes.json":
        return {"boxes": coco(folder / kind, (1, 17, [0, 0.2, 0.3, 0.4]), (1, 17, [0, 0, 1, 1]))}
    if kind == "boxes/a.xml":
        return {"boxes": annotation(folder / kind, ("cat", box(0, 0.2, 0.3, 0.4)))}
    return {"scribbles": strokes(folder / kind, ("cat", [(0.1, 0.2), (0.5, 1)]))}


@pytest.mark.parametrize("kind", ["points.csv", "points.json", "boxes.json", "boxes/a.xml", "scribbles/a.xml"])
def test_coordinates_in_shares_of_the_sides_are_refused(root: Path, tmp_path: Path, kind: str) -> None:
    line = (
        f"{kind}: all coordinates lie between 0 and 1, as shares of the image's sides; "
        "wanted pixels: multiply x by the image's width and y by its height"
    )
    places = shares(tmp_path, kind)
    assert refusal(root, **places) == line
    assert problems(root, **places) == [line]


SMALL: list[dict[str, Any]] = [
    {"points": "a,cat,0,1\na,cat,1,1\n"},
    {"points": "a,cat,0.5,0.5\nx,cat,1.5,1\n"},
    {"boxes": [(1, 17, [0, 0, 1, 1])]},
    {"boxes": [(1, 17, [0.5, 0.5, 0.5, 0.5]), (3, 17, [0, 0, 200, 100])]},
]


@pytest.mark.parametrize("files", SMALL, ids=repr)
def test_labels_in_the_first_pixels_are_no_shares(root: Path, tmp_path: Path, files: dict[str, Any]) -> None:
    ((kind, content),) = files.items()
    place = text(tmp_path / "points.csv", content) if kind == "points" else coco(tmp_path / "boxes.json", *content)
    assert problems(root, **{kind: place}) == []


def test_boxes_counted_from_0_are_read_so_and_said_so(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotation(tmp_path / "boxes/a.xml", ("cat", box(1, 1, 4, 5)))
    annotation(tmp_path / "boxes/b.xml", ("dog", box(0, 2, 8, 6)))
    dataset = load(root, boxes=tmp_path / "boxes")
    assert [item[:5] for item in weak(dataset, 0).boxes] == [(1, 1, 1, 4, 5)]  # exactly the cat in MASKS
    assert [item[:5] for item in weak(dataset, 1).boxes] == [(2, 0, 2, 8, 6)]
    assert found(root, capsys, "boxes", tmp_path / "boxes") == (
        0,
        [],
        [
            "warning: boxes: a corner is 0 (first: boxes/b.xml: object 1), but VOC counts pixels from 1; all boxes "
            "there are read as counted from 0"
        ],
    )


@pytest.fixture
def whats_the_point(voc_mini: Path) -> Path:
    """The folder of the published clicks."""
    folder = voc_mini.parent / "whats-the-point"
    if not folder.is_dir():
        pytest.skip(f"needs the published clicks in {folder}")
    return folder


def test_published_clicks_work_as_they_are(
    voc_mini: Path, whats_the_point: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in [*sorted(whats_the_point.glob("*.json")), whats_the_point]:
        code, faults, warnings = checked(capsys, voc_mini, "--points", str(path))
        assert (code, faults) == (0, [])
        assert 2 <= len(warnings) <= 3
    first = whats_the_point / "voc_whats_the_point.json"
    covered = sum(map(bool, json.loads(first.read_text()).values()))
    assert f": the points of {covered - 500} images that" in checked(capsys, voc_mini, "--points", str(first))[2][0]

"""Small data sets with label files of every format that the program reads, for the fuzzer of labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.helpers import weak
from tests.helpers.pictures import deep_png, tiff

NAMES = ("a", "b", "c")
HEIGHT, WIDTH = 24, 32
_SPLIT = "ImageSets/Segmentation/train.txt"
_MASKED = "--tag-source masks"


class Format(NamedTuple):
    """One format of label files.

    Attributes:
        base: The data set: a folder that ``make`` has filled.
        file: The file to spoil, in that folder.
        kind: What it is, by which ways to spoil it are chosen.
        options: Words behind ``data check``, or another command's whole; ``{root}`` is the data set's folder.
        alike: Whether damage of its bytes has to be seen, for it has checksums.
    """

    base: str
    file: str
    kind: str
    options: str = ""
    alike: bool = False


FORMATS = {
    "VOC annotation, tags": Format("voc", "Annotations/a.xml", "xml"),
    "VOC annotation, boxes": Format("voc", "Annotations/a.xml", "xml", "--boxes {root}/Annotations"),
    "VOC annotation, tags of boxes": Format(
        "voc", "Annotations/b.xml", "xml", "--boxes {root}/Annotations --tag-source weak"
    ),
    "COCO boxes": Format("voc", "boxes.json", "json", "--boxes {root}/boxes.json"),
    "points, CSV": Format("voc", "points.csv", "csv", "--points {root}/points.csv"),
    "What's the Point": Format("voc", "clicks.json", "json", "--points {root}/clicks.json --tag-source weak"),
    "scribble PNG": Format("voc", "strokes/a.png", "png", "--scribbles {root}/strokes", alike=True),
    "scribble manifest": Format("voc", "strokes/simulated.json", "json", "--scribbles {root}/strokes"),
    "ScribbleSup": Format("voc", "lines/a.xml", "xml", "--scribbles {root}/lines --tag-source weak"),
    "mask, palette": Format("voc", "SegmentationClass/a.png", "png", alike=True),
    "mask, grey with filters": Format("voc", "SegmentationClass/b.png", "png", _MASKED, alike=True),
    "mask, 16 bits": Format("deep", "SegmentationClass/a.png", "png", alike=True),
    "mask values": Format(
        "values", "SegmentationClass/a.png", "png", "--mask-values 128=cat,200=dog --ignore-value 254", alike=True
    ),
    "class list": Format("voc", "classes.txt", "text"),
    "class list, numbered": Format("numbered", "class_names.txt", "text"),
    "class list, CVAT": Format("cvat", "labelmap.txt", "text"),
    "split": Format("voc", _SPLIT, "text"),
    "split of one class": Format("flagged", _SPLIT, "text"),
    "mask list": Format("voc", "listed.txt", "text", "--mask-list {root}/listed.txt --points {root}/points.csv"),
    "tags, CSV": Format("folder", "tags.csv", "csv"),
    "tags, one-hot": Format("folder", "one_hot.csv", "csv", "--tags-file {root}/one_hot.csv"),
    "tags, CSV of VOC": Format("voc", "tags.csv", "csv", "--tags-file {root}/tags.csv"),
    "COCO instances": Format("coco", "annotations/instances_train.json", "json"),
    "COCO instances, masks": Format("coco", "annotations/instances_train.json", "json", _MASKED),
    "Roboflow": Format("roboflow", "train/_annotations.coco.json", "json"),
    "CAM dump": Format("voc", "dumps/a.npy", "npy", "import-cams {root}/dumps"),
    "photograph, PNG": Format("voc", "JPEGImages/a.png", "picture"),
    **{
        f"photograph, {ending}": Format("folder", f"images/{ending}.{ending}", "picture")
        for ending in ("jpg", "tif", "bmp", "gif", "webp", "jp2", "ppm")
    },
}


def words(form: Format, root: Path, out: Path) -> list[str]:
    """The command line that reads a data set with labels of this format."""
    layout = {"folder": "folder", "coco": "coco", "roboflow": "coco"}.get(form.base, "voc")
    about = ["--dataset", layout, "--root", str(root), "--workers", "0", "--json"]
    options = form.options.format(root=root).split()
    if options[:1] == ["import-cams"]:
        return [*options, *about, "--array", "cam", "--keys", "keys", "--out", str(out), "--quiet"]
    return ["data", "check", *about, *options]


def make(folder: Path) -> None:
    """Fill one folder for each base."""
    for base in ("voc", "deep", "values", "numbered", "cvat", "flagged"):
        _voc(folder / base)
    for path in (folder / "deep/SegmentationClass").iterdir():
        deep_png(path, np.asarray(Image.open(path))[..., None].astype(np.uint16))
    for path in (folder / "values/SegmentationClass").iterdir():
        Image.fromarray(np.array([0, 128, 200, 254], np.uint8)[_labels() % 4]).save(path)
    for base, name, text in (
        ("numbered", "class_names.txt", "0 background\n1 cat\n2 dog\n"),
        ("cvat", "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:9,0,0::\ndog:0,9,0::\n"),
    ):
        (folder / base / "classes.txt").unlink()
        (folder / base / name).write_text(text)
    (folder / "flagged" / _SPLIT).write_text("a  1\nb  0\nc -1\n")
    _folder(folder / "folder")
    _coco(folder / "coco", "annotations/instances_train.json", "images")
    _coco(folder / "roboflow", "train/_annotations.coco.json", "train")


def _labels() -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[3:12, 4:20], labels[10:20, 15:30], labels[10, 15:30] = 1, 2, 255
    return np.where(labels == 255, 3, labels).astype(np.uint8)


def _photograph(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    tiff(path, colours, deflated=True) if path.suffix == ".tif" else Image.fromarray(colours).save(path)


def _voc(root: Path) -> None:
    labels = np.array([0, 1, 2, 255], np.uint8)[_labels()]
    for number, name in enumerate(NAMES):
        _photograph(root / f"JPEGImages/{name}.png", number)
        mask = root / f"SegmentationClass/{name}.png"
        mask.parent.mkdir(exist_ok=True)
        picture = Image.fromarray(labels)
        if name == "a":
            picture.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0] + [9] * 759)  # with fewer, Pillow cuts bits off
        picture.save(mask)  # Pillow writes grey rows filtered, and palette rows plain
        corners = [("cat", weak.box(5, 4, 20, 12)), ("dog", weak.box(16, 11, 30, 20))]
        weak.annotation(root / f"Annotations/{name}.xml", *corners)
        lines = [("cat", [(5, 5), (15, 9)]), ("dog", [(20, 12), (28, 18)]), ("background", [(1, 21), (9, 22)])]
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        weak.strokes(root / f"lines/{name}.xml", *lines, size=size)
        strokes = np.full((HEIGHT, WIDTH), 255, np.uint8)
        strokes[5, 5:15], strokes[15, 18:28], strokes[22, 1:9] = 1, 2, 0
        (root / "strokes").mkdir(exist_ok=True)
        Image.fromarray(strokes).save(root / f"strokes/{name}.png")
        maps = np.random.default_rng(number).random((2, HEIGHT, WIDTH)).astype(np.float32)
        (root / "dumps").mkdir(exist_ok=True)
        dump: Any = {"keys": np.array([0, 1]), "cam": maps}
        np.save(root / f"dumps/{name}.npy", dump, allow_pickle=True)
    weak.text(root / "strokes/simulated.json", {"simulated": "scribbles", "seed": 0, "from": "masks"})
    weak.text(root / "classes.txt", "background\ncat\ndog\n")
    weak.text(root / _SPLIT, "a\nb\nc\n")
    weak.text(root / "listed.txt", "a\n")
    weak.text(root / "tags.csv", "id,tags\na,cat;dog\nb,dog;cat\nc,cat;dog\n")
    weak.text(root / "points.csv", "id,class,x,y\n" + "".join(f"{n},cat,6,5\n{n},dog,20,15\n" for n in NAMES))
    clicks = [{"cls": 1, "x": 6, "y": 5, "rank": 0}, {"cls": 2, "x": 20, "y": 15, "rank": 1}]
    weak.text(root / "clicks.json", dict.fromkeys(NAMES, clicks))
    weak.text(root / "boxes.json", json.dumps(_instances("png")))


def _folder(root: Path) -> None:
    endings = ("jpg", "tif", "bmp", "gif", "webp", "jp2", "ppm")
    for number, ending in enumerate(endings):
        _photograph(root / f"images/{ending}.{ending}", number)
    weak.text(root / "tags.csv", "id,tags\n" + "".join(f"{name},cat;dog\n" for name in endings))
    weak.text(root / "one_hot.csv", "id,cat,dog,cow\n" + "".join(f"{name},1,0,1\n" for name in endings))


def _instances(ending: str) -> dict[str, Any]:
    square: list[Any] = [[4, 3, 20, 3, 20, 12, 4, 12]]
    runs = {"size": [HEIGHT, WIDTH], "counts": [100, 50, HEIGHT * WIDTH - 150]}
    packed = {"size": [HEIGHT, WIDTH], "counts": "S39?00000000000000000000000000000m8"}
    shapes = (square, runs, packed, [])
    return {
        "images": [
            {"id": number, "file_name": f"{name}.{ending}", "height": HEIGHT, "width": WIDTH}
            for number, name in enumerate(NAMES, 1)
        ],
        "categories": [{"id": 3, "name": "cat", "supercategory": "pet"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {
                "id": 10 * image + number,
                "image_id": image,
                "category_id": 3 if number % 2 else 7,
                "bbox": [4, 3, 16.5, 9] if number < 3 else [22, 14, 6, 6],
                "area": 144,
                "iscrowd": int(number == 1),
                "segmentation": shape,
            }
            for image in (1, 2, 3)
            for number, shape in enumerate(shapes)
        ],
    }


def _coco(root: Path, file: str, images: str) -> None:
    for number, name in enumerate(NAMES):
        _photograph(root / images / f"{name}.png", number)
    weak.text(root / file, json.dumps(_instances("png")))

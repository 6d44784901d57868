"""Weak labels of two tiny images, for the tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudolabel.cli.app import main
from pseudolabel.data import Dataset, load_dataset
from pseudolabel.data.check import check_dataset
from pseudolabel.data.weak.labels import load_weak_labels
from pseudolabel.errors import InputError
from pseudolabel.options import DataCheckOptions
from tests.helpers.voc import array, save

MASKS = {"a": np.zeros((6, 8), dtype=np.uint8), "b": np.zeros((6, 8), dtype=np.uint8)}
MASKS["a"][1:5, 1:4] = 1
MASKS["b"][2:5, 4:8] = 2
MASKS["b"][2, 4:8] = 255


def load(root: Path, **places: Any) -> Dataset:
    """The data set with weak labels."""
    return load_dataset({"dataset": "voc", "root": root, "split": "val"} | places)


def weak(dataset: Dataset, index: int, **how: Any) -> Any:
    """The weak labels of one image."""
    return load_weak_labels(dataset.records[index], (6, 8), dataset.classes, **how)


def problems(root: Path, **changes: Any) -> list[str]:
    """What ``data check`` finds, without the folder above the data set."""
    options = DataCheckOptions(**{"root": root, "split": "val", "workers": 0} | changes)
    return [line.replace(f"{root.parent}/", "") for line in check_dataset(options)["problems"]]


def checked(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> tuple[int, list[str], list[str]]:
    """What the command ``data check`` says: its exit code, problems and warnings, without the folder of the set."""
    code = main(["data", "check", "--root", str(root), "--workers", "0", "--json", *words])
    captured = capsys.readouterr()
    found = json.loads(captured.out)["problems"], captured.err.splitlines()
    problems, warnings = ([line.replace(f"{root}/", "").replace(str(root), "ROOT") for line in part] for part in found)
    return code, problems, warnings


def read_all(root: Path, **places: Any) -> None:
    """Read every image's weak labels."""
    dataset = load(root, **places)
    for index in range(len(dataset.records)):
        weak(dataset, index)


def refusal(root: Path, **places: Any) -> str:
    """What reading them all is refused with, likewise."""
    with pytest.raises(InputError) as caught:
        read_all(root, **places)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{root.parent}/", "")


def scribble(path: Path, rows: Sequence[Sequence[int]]) -> Path:
    """Write a scribble PNG; returns its folder."""
    save(path, array(rows))
    return path.parent


def blank(**marks: int) -> list[list[int]]:
    """An unlabelled scribble of 8 x 6 pixels with single pixels set: r2c3=1."""
    rows = [[255] * 8 for _ in range(6)]
    for place, label in marks.items():
        row, column = place[1:].split("c")
        rows[int(row)][int(column)] = label
    return rows


def strokes(path: Path, *polygons: tuple[str, Sequence[tuple[Any, Any]]], size: str = "") -> Path:
    """Write an XML file of polylines; returns its folder."""
    body = "".join(
        f"<polygon><tag>{tag}</tag>{''.join(f'<point><X>{x}</X><Y>{y}</Y></point>' for x, y in points)}</polygon>"
        for tag, points in polygons
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{path.stem}.jpg</filename>{size}{body}</annotation>")
    return path.parent


def text(path: Path, content: object) -> Path:
    """Write text, or JSON of anything else; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def annotation(path: Path, *objects: tuple[str, Mapping[str, Any]]) -> Path:
    """Write an XML file of boxes; returns its folder."""
    body = "".join(
        f"<object><name>{name}</name><bndbox>{''.join(f'<{k}>{v}</{k}>' for k, v in box.items())}</bndbox></object>"
        for name, box in objects
    )
    text(path, f"<annotation>{body}</annotation>")
    return path.parent


def box(x0: Any, y0: Any, x1: Any, y1: Any) -> dict[str, Any]:
    """Corners as VOC writes them."""
    return {"xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}


def coco(path: Path, *boxes: tuple[int, int, Any], **changes: Any) -> Path:
    """Write a JSON file of instances: image, category and box of each."""
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}, {"id": 3, "file_name": "ghost.png"}]
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "bbox": values}
        for number, (image, category, values) in enumerate(boxes, 10)
    ]
    categories = [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 19, "name": "cow"}]
    return text(path, {"images": images, "categories": categories, "annotations": annotations} | changes)


def untagged(root: Path) -> Path:
    """The data set without its tags."""
    for path in (root / "Annotations").iterdir():
        path.unlink()
    return root


def write(folder: Path, files: Mapping[str, Any]) -> dict[str, Path]:
    """Write files of weak labels and say what the options are that name them."""
    places = {}
    for name, content in files.items():
        kind = name.split("/")[0].split(".")[0]
        path = folder / name
        places[kind] = path.parent if "/" in name else path
        if isinstance(content, str) or name.startswith("points"):
            text(path, content)
        elif name.endswith(".png"):
            scribble(path, content)
        elif name == "boxes.json":
            coco(path, *content)
        else:
            (strokes if kind == "scribbles" else annotation)(path, *content)
    return places

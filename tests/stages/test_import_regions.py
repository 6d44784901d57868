"""import-regions: every form of file, each fault's words, the model behind the regions, skipping and freshness."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask

from pseudolabel.artefacts import RegionsReader, open_artefact, read_header
from pseudolabel.artefacts.inspection import lineage
from pseudolabel.artefacts.run_lengths import Regions
from pseudolabel.data.region_files import coco_runs, read_regions
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import ImportRegionsOptions
from pseudolabel.runs.pipeline import Step
from pseudolabel.runs.runner import Freshness
from pseudolabel.stages.import_regions import import_regions
from tests.helpers.voc import CLASSES, array, write_voc

LEFT = array([[1, 1, 0], [1, 0, 0]])
RIGHT = array([[0, 0, 1], [0, 0, 1]])
Write = Callable[[Path], Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "voc", {"a": LEFT, "b": RIGHT})


def options(root: Path, **values: Any) -> ImportRegionsOptions:
    about = {"model": None, "licence": None, "trained_on": None, "split": "val", "root": root}
    place = root.parent
    return ImportRegionsOptions(**({"regions": place / "found", "out": place / "regions.h5"} | about | values))


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def packed(mask: np.ndarray) -> dict[str, Any]:
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


def read(folder: Path, name: str = "a", uncovered: int | None = None) -> Regions:
    return read_regions(folder, name, (2, 3), CLASSES, uncovered)


def shown(regions: Regions) -> list[list[list[int]]]:
    return [mask.astype(int).tolist() for mask in regions.masks()]


def test_a_folder_of_binary_masks(tmp_path: Path) -> None:
    save(tmp_path / "a/0.png", LEFT * 255)
    save(tmp_path / "a/1.png", RIGHT)
    save(tmp_path / "a/2.png", LEFT > 0)  # of 1 bit
    (tmp_path / "a/metadata.csv").write_text("SAM writes one")
    found = read(tmp_path)
    assert shown(found) == [LEFT.tolist(), RIGHT.tolist(), LEFT.tolist()]
    assert np.isnan(found.score).all()
    (tmp_path / "b").mkdir()
    assert len(read(tmp_path, "b")) == 0


def test_sams_json_with_all_that_may_stand_in_it(tmp_path: Path) -> None:
    rows = [
        {
            "segmentation": packed(LEFT),
            "predicted_iou": 1.03125,
            "area": 3,
            "point_coords": [[1.0, 0.5]],
            "bbox": [0] * 4,
        },
        {
            "segmentation": {"size": [2, 3], "counts": [4, 2]},
            "score": 0.5,
            "predicted_iou": 1,
            "class": "dog",
            "prompt_box": [2, 0, 1, 2],
            "prompt": "the box of the dog",
        },
    ]
    write_json(tmp_path / "a.json", rows)
    write_json(tmp_path / "b.json", {"image": {"image_id": 3}, "annotations": rows})
    for name in ("a", "b"):
        found = read(tmp_path, name)
        assert shown(found) == [LEFT.tolist(), RIGHT.tolist()]
        assert found.score.tolist() == [1.03125, 0.5]
        assert found.label.tolist() == [255, 2]
        assert (np.isnan(found.box[0]).all(), found.box[1].tolist()) == (True, [2, 0, 3, 2])
        assert found.prompt == ("point 1 0.5", "the box of the dog")


@pytest.mark.parametrize("order", ["C", "F"])
def test_label_maps(order: Any, tmp_path: Path) -> None:
    labels = np.array([[-1, 0, 7], [0, 0, 7]], order=order)
    np.save(tmp_path / "a.npy", labels)
    save(tmp_path / "b.png", array([[0, 0, 7], [5, 5, 7]]))
    save(tmp_path / "c.png", np.array([[0, 0, 700], [0, 0, 0]], np.uint16))
    assert shown(read(tmp_path)) == [[[0, 1, 0], [1, 1, 0]], [[0, 0, 1], [0, 0, 1]]]
    assert shown(read(tmp_path, "a", uncovered=7)) == [[[1, 0, 0], [0, 0, 0]], [[0, 1, 0], [1, 1, 0]]]
    assert shown(read(tmp_path, "b")) == [[[0, 0, 0], [1, 1, 0]], [[0, 0, 1], [0, 0, 1]]]
    assert shown(read(tmp_path, "c")) == [[[0, 0, 1], [0, 0, 0]]]


@given(arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 40))))
def test_compressed_runs_are_pycocotools(mask: np.ndarray) -> None:
    if mask.any():
        counts = coco_runs(packed(mask), mask.shape, "x").tolist()
        again = coco_mask.decode(coco_mask.frPyObjects({"size": list(mask.shape), "counts": counts}, *mask.shape))
        np.testing.assert_array_equal(again, mask)


def test_empty_runs_within_are_joined() -> None:
    assert coco_runs({"size": [2, 3], "counts": [1, 1, 0, 2, 2, 0]}, (2, 3), "x").tolist() == [1, 3, 2]


SIZES = "is 3 x 2 pixels high and wide, its image 2 x 3 (they look transposed)"
FAULTS: list[tuple[Write, str]] = [
    (
        lambda folder: folder.mkdir(exist_ok=True),
        "{f} has no regions of image 'a'; wanted a folder a of binary PNGs, or a.json, a.npy or a.png",
    ),
    (
        lambda folder: (save(folder / "a.png", LEFT), write_json(folder / "a.json", [])),
        "{f}/a.json and {f}/a.png are both regions of image 'a'; keep one of them",
    ),
    (lambda folder: save(folder / "a/0.png", LEFT.T.copy()), "{f}/a/0.png " + SIZES),
    (
        lambda folder: save(folder / "a/0.png", LEFT * 0),
        "{f}/a/0.png is an empty region: no pixel is inside; remove it",
    ),
    (
        lambda folder: save(folder / "a/0.png", LEFT + RIGHT * 2),
        "{f}/a/0.png holds 3 values; wanted a binary mask: 0 outside, one value inside",
    ),
    (
        lambda folder: save(folder / "a/0.png", np.zeros((2, 3, 3), np.uint8)),
        "{f}/a/0.png is a picture of Pillow's mode 'RGB'; wanted one number a pixel",
    ),
    (lambda folder: (folder / "a").write_text(""), "{f}/a is no folder of binary PNGs"),
    (lambda folder: np.save(folder / "a.npy", LEFT.T), "{f}/a.npy " + SIZES),
    (lambda folder: np.save(folder / "a.npy", LEFT * 0.5), "{f}/a.npy holds float64; wanted a label map of integers"),
    (
        lambda folder: np.save(folder / "a.npy", np.array([{}]), allow_pickle=True),
        "{f}/a.npy is not an .npy file of numbers: it holds object",
    ),
    (
        lambda folder: (folder / "a.npy").write_bytes(b"\x93NUMPY\x01\x00"),
        "{f}/a.npy is not an .npy file of numbers: it does not begin as an .npy file does",
    ),
    (
        lambda folder: write_json(folder / "a.json", {"masks": []}),
        "{f}/a.json holds a JSON dict without 'annotations'; wanted SAM's list of objects with 'segmentation'",
    ),
    (
        lambda folder: write_json(folder / "a.json", [3]),
        "{f}/a.json: entry 0 is no JSON object; wanted SAM's list of objects with 'segmentation'",
    ),
    (
        lambda folder: write_json(folder / "a.json", [{"segmentation": [[0, 0, 1, 1]]}]),
        "{f}/a.json: entry 0: its segmentation has no 'size' and 'counts'; wanted COCO run lengths (of SAM's amg.py, "
        "--convert-to-rle)",
    ),
    (
        lambda folder: write_json(folder / "a.json", [{"segmentation": packed(LEFT.T)}]),
        "{f}/a.json: entry 0 " + SIZES,
    ),
    (
        lambda folder: write_json(folder / "a.json", [{"segmentation": {"size": [2], "counts": [4, 2]}}]),
        "{f}/a.json: entry 0: its size is no list of height and width",
    ),
    (
        lambda folder: write_json(folder / "a.json", [{"segmentation": {"size": [2, 3], "counts": [4, 3]}}]),
        "{f}/a.json: entry 0: its run lengths do not fill the image: 7 of 6 pixels",
    ),
    (
        lambda folder: write_json(folder / "a.json", [{"segmentation": {"size": [2, 3], "counts": [6]}}]),
        "{f}/a.json: entry 0 is an empty region: no pixel is inside; remove it",
    ),
    *(
        (
            lambda folder, counts=counts: write_json(
                folder / "a.json", [{"segmentation": {"size": [2, 3], "counts": counts}}]
            ),
            "{f}/a.json: entry 0: its counts are no run lengths of COCO",
        )
        for counts in ([4, -2, 4], [True, 5], "é", "P", "4R", 6, "o" * 100)
    ),
    (
        lambda folder: write_json(folder / "a.json", [{"segmentation": packed(LEFT), "score": -1}]),
        "{f}/a.json: entry 0 has score -1; wanted a number from 0",
    ),
    (
        lambda folder: write_json(folder / "a.json", [{"segmentation": packed(LEFT), "class": "dogs"}]),
        "{f}/a.json: entry 0 has class 'dogs', which is none of the 2 object classes (did you mean 'dog'?)",
    ),
    (
        lambda folder: write_json(folder / "a.json", [{"segmentation": packed(LEFT), "prompt_box": [1, 1, 0, 1]}]),
        "{f}/a.json: entry 0 has prompt_box [1, 1, 0, 1]; wanted left, top, width and height in pixels",
    ),
    (
        lambda folder: write_json(folder / "a.json", [{"segmentation": packed(LEFT), "prompt": 3}]),
        "{f}/a.json: entry 0 has prompt 3; wanted words",
    ),
    (
        lambda folder: write_json(folder / "a.json", [{}] * 10_001),
        "{f}/a.json holds 10001 regions; wanted at most 10000: keep the best ones",
    ),
    (lambda folder: (folder / "a.json").write_text("{"), "{f}/a.json is not JSON (line 1: Expecting property name"),
]


@pytest.mark.parametrize(("write", "said"), FAULTS)
def test_what_is_no_regions_of_the_image_is_refused(write: Write, said: str, tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(DatasetError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(said.replace("{f}", str(tmp_path)))
    assert "\n" not in str(caught.value)


# The stage


def test_regions_of_a_model_are_stored_with_its_name_licence_and_data(root: Path) -> None:
    save(root.parent / "found/a/0.png", LEFT)
    write_json(root.parent / "found/b.json", [])
    found = import_regions(options(root, model="SAM ViT-H", licence="Apache-2.0", trained_on="masks of SA-1B"))
    out = root.parent / "regions.h5"
    assert found == {"out": str(out), "images": 2, "regions": 1, "without": 1, "skipped": 0}
    with open_artefact(out, "regions") as artefact:
        header, reader = artefact.header, RegionsReader(artefact)
        assert [shown(reader.regions(index)) for index in range(2)] == [[LEFT.tolist()], []]
    model = {"model": "SAM ViT-H", "licence": "Apache-2.0", "model_trained_on": "masks of SA-1B"}
    assert header.facts == {"source": "imported", **model}
    external = ["SAM ViT-H (Apache-2.0), trained on masks of SA-1B"]
    assert header.protocol == {"regions": "SAM ViT-H", "external_models": external}
    assert (header.classes, header.stage, header.oracle) == (CLASSES, "import-regions", ())


def test_without_a_model_nothing_external_is_stated(root: Path) -> None:
    save(root.parent / "found/a.png", LEFT)
    save(root.parent / "found/b.png", RIGHT)
    import_regions(options(root))
    header = read_header(root.parent / "regions.h5")
    assert header.protocol == {"regions": "imported"}
    assert header.facts == {"source": "imported", "model": None, "licence": None, "model_trained_on": None}


def test_the_folder_is_an_input_that_lineage_and_freshness_see(root: Path) -> None:
    save(root.parent / "found/a.png", LEFT)
    save(root.parent / "found/b.png", RIGHT)
    chosen = options(root)
    import_regions(chosen)
    node = next(node for node in lineage(chosen.out)["inputs"] if node["kind"] == "region-files")
    assert (node["path"], node["state"]) == (str(root.parent / "found"), "recorded")
    step = Step("regions", "import-regions", chosen, ())
    assert Freshness().reason_to_run(step) is None
    save(root.parent / "found/a.png", RIGHT)
    assert Freshness().reason_to_run(step) == f"its input {root.parent / 'found'} has changed"


def test_a_missing_image_is_named_or_skipped(root: Path) -> None:
    save(root.parent / "found/a.png", LEFT)
    with pytest.raises(DatasetError, match=r"found has no regions of image 'b'; wanted a folder b of binary PNGs, or"):
        import_regions(options(root))
    found = import_regions(options(root, on_error="skip"))
    assert (found["images"], found["skipped"]) == (1, 1)
    with open_artefact(root.parent / "regions.h5") as artefact:
        assert list(RegionsReader(artefact).skipped) == ["b"]


def test_there_is_no_such_folder(root: Path) -> None:
    with pytest.raises(InputError) as caught:
        import_regions(options(root))
    assert str(caught.value) == f"{root.parent / 'found'} is not a folder of regions"

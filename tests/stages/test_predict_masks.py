"""predict-masks on new photographs: without a data set, list or tags, from any folder, and back to the other stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.artefacts import MapsReader, open_artefact, read_header
from pseudolabel.errors import ArtefactError, DatasetError, InputError
from pseudolabel.labels.assignment import from_soft
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.prediction import class_probabilities
from pseudolabel.options import EvaluateMasksOptions, ExportMasksOptions, PredictMasksOptions, RefineCrfOptions
from pseudolabel.runtime.devices import normalise
from pseudolabel.stages.evaluate_masks import evaluate_masks
from pseudolabel.stages.export_masks import export_masks
from pseudolabel.stages.predict_masks import predict_masks
from pseudolabel.stages.refine_crf import refine_crf
from tests.helpers.artefacts import interrupted
from tests.helpers.cli import program
from tests.helpers.segmenters import CLASSES, RESNET_FPN, photograph, write_segmenter
from tests.helpers.training import Listening

QUICK: dict[str, Any] = {"device": "cpu", "precision": "float32", "workers": 0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segmenter(tmp_path_factory.mktemp("net") / "seg.h5")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Three photographs of several sizes and formats."""
    for number, name in enumerate(("a 1.JPG", "shoes/b.png", "shoes/old/c.webp")):
        photograph(tmp_path / "in" / name, (40 + 8 * number, 64 - 8 * number), number)
    return tmp_path / "in"


def options(checkpoint: Path, images: Any, out: Path, **values: Any) -> PredictMasksOptions:
    return PredictMasksOptions(checkpoint=checkpoint, images=images, out=out, **QUICK | values)


def test_masks_of_new_photographs_are_a_usual_artefact(checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = predict_masks(options(checkpoint, photographs, out))
    assert {key: result[key] for key in ("out", "images", "skipped")} == {"out": str(out), "images": 3, "skipped": 0}
    header = read_header(out / "masks.h5", "masks")
    assert header.classes == CLASSES
    assert header.dataset["root"] == photographs.as_posix()
    assert header.protocol == {"split": "all", "tag_filter": "none", "scales": [1.0], "flip": True, "size": 64}
    assert header.options["images"] == [photographs.as_posix()]
    seen = set()
    with open_artefact(out / "masks.h5", "masks") as first, open_artefact(out / "soft.h5", "soft-labels") as second:
        masks, soft = MapsReader(first), MapsReader(second)
        assert masks.images.ids == ("a 1", "shoes/b", "shoes/old/c")
        for index, name in enumerate(masks.images.ids):
            labels = masks.labels(index)
            assert labels.shape == (40 + 8 * index, 64 - 8 * index)
            assert np.array_equal(from_soft(*soft.full_size(index)), labels)
            assert np.array_equal(np.asarray(Image.open(out / f"{name}.png")), labels)
            seen |= set(np.unique(labels).tolist())
    assert len(seen) > 1


def test_later_stages_read_it(checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    predict_masks(options(checkpoint, photographs, tmp_path / "out"))
    refine_crf(RefineCrfOptions(cams=tmp_path / "out/soft.h5", out=tmp_path / "crf.h5", iterations=1, workers=0))
    exported = export_masks(
        ExportMasksOptions(
            labels=tmp_path / "crf.h5", out=tmp_path / "again", overlays=1, contact_sheet=2, as_="coco", workers=0
        )
    )
    assert exported["images"] == 3
    assert [Path(name).name for name in exported["also"]] == ["coco.json", "contact-sheet.png", "overlays"]
    moved = photographs.rename(tmp_path / "moved")
    again = {"labels": tmp_path / "out" / "soft.h5", "out": tmp_path / "third", "contact_sheet": 2, "workers": 0}
    assert export_masks(ExportMasksOptions(root=moved, **again))["images"] == 3


def test_pictures_are_drawn_on_request(checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    out = photographs / "masks"  # among them, as people do
    result = predict_masks(options(checkpoint, photographs, out, overlays=2, contact_sheet=3))
    assert result["also"] == [str(out / "contact-sheet.png"), str(out / "overlays")]
    assert len(list((out / "overlays").rglob("*.png"))) == 2
    assert predict_masks(options(checkpoint, photographs, tmp_path / "again"))["images"] == 3  # not the pictures


def test_a_crf_follows(checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    predict_masks(options(checkpoint, photographs, tmp_path / "out", crf=True, iterations=1))
    assert read_header(tmp_path / "out/soft.h5").stage == "refine-crf"
    assert read_header(tmp_path / "out/masks.h5").protocol["crf"].startswith("irn")


def test_a_prediction_among_its_photographs_goes_on(checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    predict_masks(options(checkpoint, photographs, tmp_path / "whole", batch_size=1))
    settings = options(checkpoint, photographs, photographs / "masks", batch_size=1)
    interrupted(predict_masks, settings, 2)
    predict_masks(settings)
    whole, resumed = (read_header(path / "masks.h5").digest for path in (tmp_path / "whole", photographs / "masks"))
    assert resumed == whole


def test_no_object_anywhere_is_said(photographs: Path, tmp_path: Path) -> None:
    listening = Listening()
    checkpoint = write_segmenter(tmp_path / "seg.h5", flat=True)
    predict_masks(options(checkpoint, photographs, tmp_path / "out"), listening)
    assert listening.warnings == ["the network found no object in any of 3 images"]


def test_an_unreadable_photograph(checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    bad = photographs / "shoes" / "bad.png"
    bad.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"bad\.png is empty \(0 bytes\); replace or remove it"):
        predict_masks(options(checkpoint, photographs, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    result = predict_masks(options(checkpoint, photographs, tmp_path / "out", on_error="skip"))
    assert (result["images"], result["skipped"]) == (3, 1)


def test_a_photograph_of_one_pixel(checkpoint: Path, tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "dot.png", (1, 1))
    predict_masks(options(checkpoint, tmp_path / "in", tmp_path / "out"))
    assert np.asarray(Image.open(tmp_path / "out/dot.png")).shape == (1, 1)


def test_a_mask_would_replace_its_photograph(checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    shoes = photographs / "shoes"
    with pytest.raises(InputError) as error:
        predict_masks(options(checkpoint, [shoes / "b.png", shoes / "old"], shoes, overwrite=True))
    assert str(error.value) == (f"--out {shoes} would replace the photograph {shoes / 'b.png'}; choose another folder")
    with pytest.raises(ValueError, match="would replace the input"):
        options(checkpoint, photographs, photographs, overwrite=True)


def test_there_is_no_score_of_them(checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    predict_masks(options(checkpoint, photographs, tmp_path / "out"))
    with pytest.raises(InputError) as error:
        evaluate_masks(EvaluateMasksOptions(masks=tmp_path / "out"))
    assert str(error.value) == (
        f"{tmp_path / 'out'} holds masks of new photographs, of which there is no ground truth; "
        "pass --dataset, --root and --split if a data set has them"
    )


def test_masks_are_no_network(photographs: Path, tmp_path: Path) -> None:
    other = photographs / "a 1.JPG"
    with pytest.raises(
        ArtefactError, match=r"wanted a checkpoint of train-segmenter, train-scribble, train-semi or train-cosa"
    ):
        predict_masks(options(other, photographs, tmp_path / "out"))


def test_the_command_line(checkpoint: Path, photographs: Path, tmp_path: Path) -> None:
    both = ["--images", str(photographs / "a 1.JPG"), "--images", str(photographs / "shoes")]
    found = program("predict-masks", str(checkpoint), *both, "--out", str(tmp_path / "out"), "--workers", "0")
    assert (found.returncode, found.stderr) == (0, "")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")) == [
        "a 1.png",
        "shoes/b.png",
        "shoes/old/c.png",
    ]
    empty = tmp_path / "empty"
    empty.mkdir()
    found = program("predict-masks", str(checkpoint), "--images", str(empty), "--out", str(tmp_path / "none"))
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith(f"error: {empty} holds no photograph; wanted JPEG, PNG")
    assert not (tmp_path / "none").exists()


def masks_of(folder: Path) -> list[np.ndarray]:
    with open_artefact(folder / "masks.h5", "masks") as artefact:
        reader = MapsReader(artefact)
        return [reader.labels(index) for index in range(len(reader))]


@pytest.mark.parametrize("network", [{}, RESNET_FPN])
def test_tiles_that_hold_whole_photographs_change_nothing(
    photographs: Path, tmp_path: Path, network: dict[str, Any]
) -> None:
    checkpoint = write_segmenter(tmp_path / "seg.h5", **network)
    predict_masks(options(checkpoint, photographs, tmp_path / "whole", size=96))
    predict_masks(options(checkpoint, photographs, tmp_path / "tiled", size=96, tile=96))
    for whole, tiled in zip(masks_of(tmp_path / "whole"), masks_of(tmp_path / "tiled"), strict=True):
        assert np.array_equal(whole, tiled)
    protocol = read_header(tmp_path / "tiled" / "masks.h5").protocol
    assert (protocol["size"], protocol["tile"]) == (96, 96)


def test_a_large_photograph_in_tiles_equals_a_plain_loop(checkpoint: Path, tmp_path: Path) -> None:
    """Every tile on its own, weighted by hand; the photograph is seen at its own size."""
    path = photograph(tmp_path / "in" / "large.png", (160, 256))
    photograph(tmp_path / "in" / "small.png", (48, 64), 1)
    predict_masks(options(checkpoint, tmp_path / "in", tmp_path / "out", tile=128, batch_size=2, scales=(1, 0.5)))
    network, _ = load_network(checkpoint, "segmenter")
    network.eval()
    pixels = torch.from_numpy(np.array(Image.open(path)))[None]
    total, weight = np.zeros((4, 10, 16)), np.zeros((10, 16))
    for top in (0, 32):
        for left in (0, 64, 128):
            tile = normalise(pixels[:, top : top + 128, left : left + 128], network.mean, network.std)
            with torch.no_grad():
                found = class_probabilities(network, tile, (1, 0.5), flip=True)[0].numpy()
            middle = np.exp(-0.5 * (np.arange(8) - 3.5) ** 2)  # a cell is as wide as a standard deviation
            down, across = middle.copy(), middle.copy()
            down[[0, 7]] *= top == 0, top == 32
            across[[0, 7]] *= left == 0, left == 128
            place = slice(top // 16, top // 16 + 8), slice(left // 16, left // 16 + 8)
            total[:, *place] += found * (down[:, None] * across)
            weight[place] += down[:, None] * across
    with open_artefact(tmp_path / "out" / "soft.h5") as artefact:
        reader = MapsReader(artefact)
        stored = reader.maps(0)
        assert reader.header.protocol["size"] == "the image's own"
        assert {found.shape for found in reader.maps(1).values()} == {(3, 4)}
    assert len(stored) > 2
    for label, found in stored.items():
        np.testing.assert_allclose(found, (total / weight)[label], atol=1e-3)


def test_a_photograph_of_24_megapixels_takes_bounded_memory(checkpoint: Path, tmp_path: Path) -> None:
    photograph(tmp_path / "in" / "large.jpg", (4000, 6000))
    words = [
        "--size",
        "3000",
        "--tile",
        "256",
        "--no-flip",
        "--quiet",
        "--device",
        "cpu",
        "--workers",
        "0",
        "--contact-sheet",
        "1",
    ]
    words += ["--overlays", "1", "--precision", "float32"]
    found = program(
        "predict-masks", str(checkpoint), "--images", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *words
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert np.asarray(Image.open(tmp_path / "out" / "large.png")).shape == (4000, 6000)
    assert read_header(tmp_path / "out" / "masks.h5").cost["peak_memory_bytes"] < 2e9


def test_a_large_size_needs_tiles(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--size 6000 is more than 4096 and needs --tile, such as --tile 1024"):
        options(checkpoint, tmp_path, tmp_path / "out", size=6000)

"""make-regions: superpixels that divide an image, settings in words, resuming, skipping, and what is not installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel.artefacts import RegionsReader, open_artefact, read_header
from pseudolabel.errors import DatasetError, MissingExtraError
from pseudolabel.labels.superpixels import SuperpixelSettings, superpixels
from pseudolabel.options import MakeRegionsOptions
from pseudolabel.stages.make_regions import make_regions
from tests.helpers.artefacts import interrupted
from tests.helpers.voc import array, write_voc

pytest.importorskip("skimage")
SLIC = SuperpixelSettings("slic", 0.0, segments=4, compactness=10)
GRAPH = SuperpixelSettings("felzenszwalb", 0.0, scale=10, minimum=5)


def options(root: Path, out: Path, **values: Any) -> MakeRegionsOptions:
    return MakeRegionsOptions(**({"root": root, "out": out, "split": "train", "workers": 0} | values))


@pytest.mark.parametrize("settings", [SLIC, GRAPH])
def test_every_pixel_is_in_one_region_and_flat_colours_stay_whole(settings: SuperpixelSettings) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = (250, 200, 10)
    found = superpixels(image, settings)
    assert (found.spread(np.ones((len(found), 1))) == 1).all()
    for mask in found.masks():
        assert len(np.unique(image[mask], axis=0)) == 1
    if settings is GRAPH:
        assert [mask[0, 0] for mask in found.masks()] == [True, False]


def test_the_scale_is_in_8_bit_colours() -> None:
    """Two flat halves part where their difference exceeds scale over size, in grey levels and all three bands."""
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 10:] = 20  # 20 sqrt(3) = 34.6 apart, each half of 100 pixels
    for scale, count in ((3000, 2), (4000, 1)):
        found = superpixels(image, SuperpixelSettings("felzenszwalb", 0.0, scale=scale, minimum=1))
        assert len(found) == count


def test_the_artefact_and_its_words(synthetic_root: Path, tmp_path: Path) -> None:
    found = make_regions(options(synthetic_root, tmp_path / "r.h5", scale=50))
    rate = found.pop("images_per_second")
    with open_artefact(tmp_path / "r.h5", "regions") as artefact:
        reader = RegionsReader(artefact)
        counts = [len(reader.regions(index)) for index in range(len(reader))]
        header = artefact.header
    assert found == {"out": str(tmp_path / "r.h5"), "images": 8, "regions": sum(counts), "skipped": 0}
    assert rate > 0
    assert min(counts) > 1
    words = "felzenszwalb, sigma 0.8, scale 50, minimum 100"
    assert header.protocol == {"regions": words}
    assert header.facts == {"source": words, "model": None, "licence": None, "model_trained_on": None}


def test_worker_processes_and_an_interruption_change_nothing(synthetic_root: Path, tmp_path: Path) -> None:
    make_regions(options(synthetic_root, tmp_path / "one.h5", method="slic", segments=9))
    interrupted(make_regions, options(synthetic_root, tmp_path / "two.h5", method="slic", segments=9), 3)
    make_regions(options(synthetic_root, tmp_path / "two.h5", method="slic", segments=9, workers=2))
    assert read_header(tmp_path / "one.h5").digest == read_header(tmp_path / "two.h5").digest


def test_an_unreadable_photograph_and_too_many_regions_stop_or_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_voc(tmp_path / "voc", {"a": array([[1, 0]]), "b": array([[0] * 300] * 300)}, split="train")
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    Image.fromarray(noise).save(root / "JPEGImages/b.png")
    few = {"scale": 1, "minimum": 1, "sigma": 0}
    with pytest.raises(DatasetError) as caught:
        make_regions(options(root, tmp_path / "r.h5", **few))
    said = str(caught.value)
    assert said.startswith(f"{root / 'JPEGImages/b.png'} falls into ")
    assert said.endswith(" regions; wanted at most 10000: raise --scale or --minimum")
    assert make_regions(options(root, tmp_path / "r.h5", on_error="skip", **few))["skipped"] == 1


def test_scikit_image_is_asked_for_in_one_line(
    synthetic_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(MissingExtraError) as caught:
        make_regions(options(synthetic_root, tmp_path / "r.h5", method="slic"))
    assert str(caught.value) == (
        '--method slic needs the package scikit-image, which is not installed; run: pip install "pseudolabel[regions]"'
    )

"""search-threshold: every method on tiny CAMs, what the artefact says, and what is an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudolabel.artefacts import MapsReader, open_artefact, read_header
from pseudolabel.data import load_dataset
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.labels.assignment import assign, read_thresholds
from pseudolabel.labels.mixture import as_histogram, count_values, cut_by_three, cut_by_two
from pseudolabel.metrics.confusion import PixelCounter, class_counts
from pseudolabel.metrics.scores import class_mean, error_shares, iou
from pseudolabel.metrics.sweep import THRESHOLDS
from pseudolabel.options import SearchThresholdOptions
from pseudolabel.runtime.progress import Progress
from pseudolabel.stages.search_threshold import search_threshold
from tests.helpers.voc import CLASSES, array, random_labels, save, write_artefact_of_maps, write_voc

SHAPE = (24, 30)
GRID = (6, 8)
Maps = Mapping[str, Any]


def some_maps() -> dict[str, dict[int, np.ndarray]]:
    """Maps of cat in all images, of dog in every second one: two heaps of values, the dog's lower."""
    random = np.random.default_rng(0)
    found = {}
    for number in range(6):
        maps = {}
        for label, bright in ((1, 0.8), (2, 0.5)):
            inside = random.random(GRID) < 0.4
            values = np.where(inside, random.normal(bright, 0.05, GRID), random.normal(0.2, 0.05, GRID))
            maps[label] = values.clip(0, 1).astype(np.float16)
        found[f"image {number}"] = maps if number % 2 else {1: maps[1]}
    return found


TRUTH = {f"image {number}": random_labels(number, *SHAPE) for number in range(6)}
SIZES = dict.fromkeys(TRUTH, SHAPE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_voc(tmp_path / "voc", TRUTH, split="train")


@pytest.fixture
def cams(tmp_path: Path, root: Path) -> Path:
    return write(tmp_path / "cams.h5", root)


def write(path: Path, root: Path, maps: Maps | None = None, **header: Any) -> Path:
    maps = some_maps() if maps is None else maps
    about = {"protocol": {"tag_filter": "image tags", "scales": [1.0]}} | header
    return write_artefact_of_maps(path, "cams", root, maps, SIZES, split="train", **about)


def search(cams: Path, progress: Progress | None = None, **options: Any) -> dict[str, Any]:
    settings = SearchThresholdOptions(**{"cams": cams, "out": cams.with_name("t.h5"), "overwrite": True, **options})
    found = search_threshold(settings, progress or Progress())
    json.dumps(found, allow_nan=False)
    return found


def refusal(cams: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        search(cams, **options)
    assert "\n" not in str(caught.value)
    assert not cams.with_name("t.h5").exists()
    return str(caught.value)


def strongest(label: int | None = None) -> np.ndarray:
    """All values of the strongest map, or of one class's."""
    chosen = [m.values() if label is None else [m[label]] for m in some_maps().values() if label in (None, *m)]
    return np.concatenate([np.max(list(maps), axis=0).ravel() for maps in chosen]).astype(np.float32)


@pytest.mark.parametrize(("method", "cut"), [("mixture", cut_by_two), ("released", cut_by_three)])
def test_a_mixture_is_fitted_to_the_strongest_maps_values(cams: Path, method: str, cut: Any) -> None:
    found = search(cams, method=method)
    expected = cut(as_histogram(count_values(strongest(), 0.05), 0.05))
    for name in ("value", "low", "high"):
        assert found[name] == pytest.approx(getattr(expected, name), abs=1e-4)
    thresholds, header = read_thresholds(cams.with_name("t.h5"))
    np.testing.assert_array_equal(thresholds.value, np.full(3, expected.value))
    np.testing.assert_array_equal(thresholds.low, np.full(3, expected.low))
    assert found["fitted_on"] == "values of 9 maps of split train, no masks"
    assert header.protocol["threshold_fitted_on"] == found["fitted_on"]
    assert header.protocol["threshold"] == found["value"]
    assert header.protocol["scales"] == [1.0]
    assert (header.oracle, found["oracle"], found["images"]) == ((), [], 6)
    assert header.facts == {key: value for key, value in found.items() if key not in ("out", "oracle")}
    with open_artefact(cams.with_name("t.h5")) as artefact:
        assert artefact.file["histogram/counts"][:].sum() == (strongest() > 0.05).sum()
        assert artefact.file["histogram/edges"].shape == (257,)
        np.testing.assert_allclose(artefact.file["mixture/mean"][:], expected.mixture.mean)


def test_no_mask_is_read_for_a_mixture(cams: Path, root: Path) -> None:
    for mask in (root / "SegmentationClass").iterdir():
        mask.unlink()
    assert search(cams)["oracle"] == []


def test_a_mixture_for_every_class_of_its_own(cams: Path) -> None:
    progress = Noticing()
    found = search(cams, progress, per_class=True)
    for label, name in ((1, "cat"), (2, "dog")):
        expected = cut_by_two(as_histogram(count_values(strongest(label), 0.05), 0.05))
        assert found["value"][name] == pytest.approx(expected.value, abs=1e-4)
        assert found["high"][name] == pytest.approx(expected.high, abs=1e-4)
    assert found["value"]["dog"] < found["value"]["cat"]
    assert (found["scope"], found["fallback"], progress.warnings) == ("one a class", [], [])
    with open_artefact(cams.with_name("t.h5")) as artefact:
        assert artefact.file["histogram/counts"].shape == (3, 256)
        assert artefact.file["mixture/mean"].shape == (3, 2)


class Noticing(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_a_class_without_maps_gets_the_threshold_of_all(tmp_path: Path, root: Path) -> None:
    maps = {name: {1: found[1]} for name, found in some_maps().items()}
    progress = Noticing()
    found = search(write(tmp_path / "cams.h5", root, maps), progress, per_class=True)
    assert found["fallback"] == ["dog"]
    assert found["value"]["dog"] == found["value"]["cat"]
    assert progress.warnings == ["1 classes get the threshold of all: dog"]


def slow_curve(cams: Path) -> np.ndarray:
    """Class counts (T, K, 3) by one label map for every threshold and image."""
    counter = PixelCounter(3, boundary=None, ignored="background")
    total = np.zeros((len(THRESHOLDS), 3, 3))
    with open_artefact(cams) as artefact:
        reader = MapsReader(artefact)
        for index, name in enumerate(reader.images.ids):
            labels, maps = reader.full_size(index)
            for row, threshold in enumerate(THRESHOLDS):
                found = assign(labels, maps, np.full(3, threshold))
                total[row] += class_counts(counter.table(TRUTH[name], found), "background")
    return total


def test_a_sweep_is_a_loop_over_all_thresholds(cams: Path) -> None:
    found = search(cams, method="sweep")
    counts = slow_curve(cams)
    miou = class_mean(iou(counts))
    with open_artefact(cams.with_name("t.h5")) as artefact:
        np.testing.assert_array_equal(artefact.file["curve/threshold"][:], np.arange(100) / 100)
        np.testing.assert_array_equal(artefact.file["curve/miou"][:], miou)
        for name, share in zip(("false_positives", "false_negatives"), error_shares(counts), strict=True):
            np.testing.assert_array_equal(artefact.file[f"curve/{name}"][:], class_mean(share))
    best = int(miou.argmax())
    assert found["value"] == best / 100
    assert found["miou"] == pytest.approx(miou[best], abs=1e-6)
    assert found["miou"] + found["false_positives"] + found["false_negatives"] == pytest.approx(1, abs=2e-6)
    assert (found["low"], found["high"]) == (None, None)
    assert found["fitted_on"] == "masks of split train (oracle)"
    assert found["oracle"] == ["threshold swept against the masks of split train"]
    header = read_header(cams.with_name("t.h5"))
    assert header.oracle == tuple(found["oracle"])
    assert [item.kind for item in header.inputs] == ["cams", "dataset"]


def test_workers_change_nothing(cams: Path, tmp_path: Path) -> None:
    for per_class in (False, True):
        found = [search(cams, method="sweep", per_class=per_class, workers=workers) for workers in (0, 2)]
        assert found[0] == found[1]


def test_a_sweep_records_the_data_set_that_its_header_leads_to(cams: Path) -> None:
    out = cams.with_name("sweep.h5")
    search_threshold(SearchThresholdOptions(cams=cams, out=out, method="sweep", workers=1))
    header = read_header(out)
    recorded = [item.digest for item in header.inputs if item.kind == "dataset"]
    assert recorded == [load_dataset(header.dataset).as_input().digest]  # or run would find it stale every time


def test_a_sweep_for_every_class_maximises_its_own_iou_and_states_what_comes_of_it(cams: Path) -> None:
    found = search(cams, method="sweep", per_class=True)
    by_class = iou(slow_curve(cams))
    best = by_class.argmax(axis=0) / 100
    assert found["value"] == {"cat": best[1], "dog": best[2]}
    counter = PixelCounter(3, boundary=None, ignored="background")
    with open_artefact(cams) as artefact:
        reader = MapsReader(artefact)
        maps = [assign(*reader.full_size(index), best) for index in range(len(reader))]
    counts = sum(
        class_counts(counter.table(TRUTH[f"image {n}"], labels), "background") for n, labels in enumerate(maps)
    )
    assert found["miou"] == pytest.approx(float(class_mean(iou(counts))), abs=1e-6)
    assert found["single_miou"] == pytest.approx(class_mean(by_class).max(), abs=1e-6)


def test_classes_that_are_never_true_get_the_best_threshold_of_all(tmp_path: Path) -> None:
    truth = {name: np.where(labels == 2, 0, labels).astype(np.uint8) for name, labels in TRUTH.items()}
    root = write_voc(tmp_path / "voc", truth, split="train")
    cams = write(tmp_path / "cams.h5", root)
    found = search(cams, method="sweep", per_class=True)
    assert found["fallback"] == ["dog"]
    assert found["value"]["dog"] == search(cams, method="sweep")["value"]


def test_images_that_were_skipped_or_have_no_map(tmp_path: Path, root: Path) -> None:
    maps = some_maps() | {"image 1": "broken", "image 2": {}}
    cams = write(tmp_path / "cams.h5", root, maps)
    assert search(cams)["images"] == 4
    assert search(cams, method="sweep")["images"] == 5


def test_a_fixed_threshold_is_what_was_asked_for(cams: Path) -> None:
    found = search(cams, method="fixed", value=0.35, low=0.2, high=0.5)
    assert (found["value"], found["low"], found["high"]) == (0.35, 0.2, 0.5)
    thresholds, header = read_thresholds(cams.with_name("t.h5"))
    np.testing.assert_array_equal(thresholds.high, [0.5] * 3)
    assert header.protocol["threshold_fitted_on"] == "nothing (fixed)"
    assert header.classes == CLASSES
    assert search(cams, method="fixed")["low"] is None


def test_low_and_high_by_hand_replace_the_fitted_ones(cams: Path) -> None:
    found = search(cams, low=0.01)
    assert found["low"] == 0.01
    assert found["high"] == search(cams)["high"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "fixed", "per_class": True},
            "--per-class has no meaning with --method fixed, which gives every class the same threshold",
        ),
        ({"method": "sweep", "low": 0.1}, "--low and --high belong together; pass both or neither"),
        (
            {"method": "fixed", "value": 0.4, "low": 0.5, "high": 0.6},
            "low, value and high threshold are 0.5, 0.4, 0.6, wanted ascending; pass another --low or --high",
        ),
        ({"minimum": 1}, "--minimum 1 drops every value; pass a smaller one"),
    ],
)
def test_settings_that_mean_nothing_are_errors(cams: Path, options: dict[str, Any], message: str) -> None:
    assert refusal(cams, **options) == message


@pytest.mark.parametrize(
    ("values", "found"),
    [(None, "no map"), (0.0, "0 values in 0 of 256 bins"), (0.5, "288 values in 1 of 256 bins")],
)
def test_nothing_to_separate_is_an_error(tmp_path: Path, root: Path, values: float | None, found: str) -> None:
    maps = {name: {} if values is None else {1: np.full(GRID, values)} for name in TRUTH}
    cams = write(tmp_path / "cams.h5", root, maps)
    assert refusal(cams) == (
        f"{cams} has {found} above --minimum 0.05, which do not part object from background; pass a smaller --minimum, "
        "or --method fixed and --value"
    )


@pytest.mark.parametrize("wrong", [np.nan, 1.5, -0.125])
def test_maps_out_of_range_are_an_error(tmp_path: Path, root: Path, wrong: float) -> None:
    maps = some_maps()
    maps["image 3"][2][1, 1] = wrong
    cams = write(tmp_path / "cams.h5", root, maps)
    with pytest.raises(ArtefactError, match=rf"map \d in 'maps/values' holds {wrong}, wanted 0 to 1; make it again"):
        search(cams)


def test_masks_that_do_not_fit_the_maps_are_errors(cams: Path, root: Path) -> None:
    write_voc(root, {"image 4": array([[0, 1]])}, split="other")
    (root / "SegmentationClass/image 5.png").unlink()
    message = refusal(cams, method="sweep")
    assert message.startswith(
        f"{cams} does not fit the masks of split train: 2 faults: the maps of 'image 4' are for 30 x 24"
    )
    assert "image 5.png has no ground-truth mask" in message
    (root / "ImageSets/Segmentation/train.txt").write_text("image 0")
    assert "5 images of" in refusal(cams, method="sweep")
    (root / "classes.txt").write_text("cat\ndog\ncow")
    assert "was made with other classes than" in refusal(cams, method="sweep")


def test_masks_of_other_values_are_read_as_the_data_set_or_the_options_say(cams: Path, root: Path) -> None:
    plain = search(cams, method="sweep")
    for name, labels in TRUTH.items():
        values = np.array([0, 101, 102, *[255] * 253], dtype=np.uint8)[labels]
        save(root / f"SegmentationClass/{name}.png", np.where(labels == 255, np.uint8(254), values))
    meant = {"mask_values": ("101=cat", "102=dog"), "ignore_value": (254,)}
    assert search(cams, method="sweep", **meant) == plain
    spec = {"dataset": "voc", "root": root, "split": "train"}
    stored = write(cams.with_name("stored.h5"), root, dataset=load_dataset(spec | meant).spec())
    assert search(stored, method="sweep") == plain


def test_masks_without_a_pixel_that_counts_are_an_error(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc", dict.fromkeys(TRUTH, np.full(SHAPE, 255, dtype=np.uint8)), split="train")
    cams = write(tmp_path / "cams.h5", root)
    assert refusal(cams, method="sweep") == (
        f"the ground truth of split train of {root} holds ignored pixels and no class in 6 images; "
        "if 255 stands for a class in its masks, pass --mask-values 255=CLASS"
    )


def test_the_data_set_may_have_moved(cams: Path, root: Path) -> None:
    found = search(cams, method="sweep")
    moved = root.rename(root.with_name("moved"))
    assert search(cams, method="sweep", root=moved) == found

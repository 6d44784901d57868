from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from pseudolabel.errors import MissingExtraError, PseudolabelError
from pseudolabel.options import CrfEngine, CrfOptions, CrfPreset
from pseudolabel.pairwise import (
    PRESETS,
    CrfSettings,
    dense_crf,
    describe,
    memory_of_crf,
    require_engine,
    require_memory,
    resolve,
)
from pseudolabel.pairwise.lattice import Lattice, position_colour
from pseudolabel.pairwise.meanfield import SETTLED

ENGINE = "pydensecrf.densecrf"


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Two flat halves of different colour under a little noise."""
    image = np.full((height, width, 3), 60, dtype=np.int64)
    image[:, width // 2 :] = (180, 120, 90)
    noise = np.random.default_rng(seed).integers(-6, 7, image.shape)
    return (image + noise).astype(np.uint8)


def random_probabilities(count: int, height: int, width: int, seed: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).dirichlet(np.ones(count), size=(height, width))
    return np.ascontiguousarray(np.moveaxis(drawn, -1, 0), dtype=np.float32)


def exact_mean_field(image: np.ndarray, probabilities: np.ndarray, settings: CrfSettings) -> np.ndarray:
    """The formula of the module's docstring with whole N x N matrices."""
    count, height, width = probabilities.shape
    rows, columns = np.mgrid[:height, :width]
    place = np.stack([rows, columns], axis=-1).reshape(-1, 2).astype(float)
    colour = image.reshape(-1, 3).astype(float)
    places = ((place[:, None] - place[None]) ** 2).sum(axis=-1)
    colours = ((colour[:, None] - colour[None]) ** 2).sum(axis=-1)
    spatial = np.exp(-places / (2 * settings.spatial_xy**2))
    bilateral = np.exp(-places / (2 * settings.bilateral_xy**2) - colours / (2 * settings.bilateral_rgb**2))
    start = probabilities.reshape(count, -1).astype(float)
    if settings.unary == "hard":
        hard = np.full_like(start, (1 - settings.gt_prob) / (count - 1))
        hard[start.argmax(axis=0), np.arange(start.shape[1])] = settings.gt_prob
        start = hard
    unary = -np.log(np.maximum(start, 1e-5))
    q = softmax(-unary)
    for _ in range(settings.iterations):
        message = np.zeros_like(q)
        for weight, kernel in ((settings.spatial_weight, spatial), (settings.bilateral_weight, bilateral)):
            scale = 1 / np.sqrt(kernel.sum(axis=1))
            message += weight * (scale * (kernel @ (scale * q).T).T)
        q = softmax(-unary + message)
    return q.reshape(probabilities.shape)


def softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(axis=0))
    return raised / raised.sum(axis=0)


@pytest.mark.parametrize(
    ("preset", "numbers"),
    [  # docs/methods.md, section 3: iterations / spatial s, w / bilateral s_xy, s_rgb, w
        ("deeplab", (10, 1, 3, 67, 3, 4, "soft")),
        ("toco", (10, 1, 1, 121, 5, 4, "soft")),
        ("cosa", (1, 1, 1, 121, 5, 4, "soft")),
        ("afa", (10, 3, 3, 64, 5, 4, "soft")),
        ("toco-labels", (10, 3, 3, 36, 3, 4, "soft")),
        ("psa", (10, 3, 3, 80, 13, 10, "soft")),
        ("irn", (10, 3, 3, 50, 5, 10, "hard")),
    ],
)
def test_presets_are_those_of_the_published_systems(preset: str, numbers: tuple[object, ...]) -> None:
    found = resolve(CrfOptions(preset=preset))
    assert tuple(vars(found).values())[:-1] == numbers
    assert found.gt_prob == 0.7


def test_every_preset_of_the_options_has_settings() -> None:
    assert set(PRESETS) == set(get_args(CrfPreset))


def test_each_number_overrides_its_preset_and_is_told() -> None:
    values = {
        "iterations": 2,
        "spatial_xy": 4.0,
        "spatial_weight": 0.0,
        "bilateral_xy": 5.5,
        "bilateral_rgb": 6.0,
        "bilateral_weight": 7.0,
        "unary": "hard",
        "gt_prob": 0.9,
    }
    for name, value in values.items():
        options = CrfOptions(preset="deeplab", **{name: value})
        expected = vars(PRESETS["deeplab"]) | {name: value}
        assert vars(resolve(options)) == expected
        assert describe(options) == f"deeplab, {name.replace('_', ' ')} {value}"
    assert describe(CrfOptions(preset="psa")) == "psa"
    assert describe(CrfOptions(preset="psa", engine="pydensecrf")) == "psa, engine pydensecrf"


def refine(image: np.ndarray, start: np.ndarray, settings: CrfSettings, engine: CrfEngine = "lattice") -> np.ndarray:
    return dense_crf(image, start, settings, engine=engine).probabilities


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("count", [2, 3, 4])
def test_one_iteration_is_close_to_the_exact_sum(preset: str, count: int) -> None:
    image, start = photograph(12, 10), random_probabilities(count, 12, 10)
    settings = replace(PRESETS[preset], iterations=1)
    difference = np.abs(refine(image, start, settings) - exact_mean_field(image, start, settings))
    # The lattice's own error, a few per cent of each kernel, times weights up to 10, in a softmax.
    assert difference.max() < 0.1
    assert difference.mean() < 0.02


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_all_iterations_are_close_to_the_exact_sum(preset: str) -> None:
    image, noise = photograph(12, 10), random_probabilities(2, 12, 10)
    square = np.zeros((12, 10), dtype=bool)
    square[2:9, 5:] = True
    start = (0.5 * np.where([~square, square], 0.7, 0.3) + 0.5 * noise).astype(np.float32)
    found = dense_crf(image, start, PRESETS[preset])
    exact = exact_mean_field(image, start, replace(PRESETS[preset], iterations=found.steps))
    # Looser than 1e-5 for the same reason; iterations pull both to the same clear answer.
    np.testing.assert_allclose(found.probabilities, exact, atol=0.05)
    assert np.abs(found.probabilities - exact).mean() < 0.01
    to_the_end = exact_mean_field(image, start, PRESETS[preset])
    np.testing.assert_array_equal(found.probabilities.argmax(axis=0), to_the_end.argmax(axis=0))


def test_probabilities_come_out_as_probabilities() -> None:
    found = refine(photograph(31, 17), random_probabilities(4, 31, 17), PRESETS["deeplab"])
    assert (found.dtype, found.shape) == (np.float32, (4, 31, 17))
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_on_a_uniform_image_a_constant_start_keeps_its_order_everywhere() -> None:
    image = np.full((20, 30, 3), 128, dtype=np.uint8)
    start = np.broadcast_to(np.array([0.2, 0.5, 0.3], dtype=np.float32)[:, None, None], (3, 20, 30))
    found = refine(image, start, PRESETS["psa"])
    assert (found.argmax(axis=0) == 1).all()
    equal = refine(image, np.full((3, 20, 30), 1 / 3, dtype=np.float32), PRESETS["psa"])
    np.testing.assert_allclose(equal, 1 / 3, atol=5e-4)  # kernels of weight 13 strengthen every rounding, ten times


def test_labels_snap_to_the_edge_of_the_photograph() -> None:
    image = photograph(24, 24)
    start = np.full((2, 24, 24), 0.3, dtype=np.float32)
    start[0, :, :9], start[1, :, 9:] = 0.7, 0.7  # the photograph's edge is at column 12
    found = refine(image, start, PRESETS["irn"]).argmax(axis=0)
    assert (found[:, :12] == 0).all()
    assert (found[:, 12:] == 1).all()


def test_the_order_of_the_classes_does_not_matter() -> None:
    image, start = photograph(20, 16), random_probabilities(3, 20, 16)
    settings = PRESETS["cosa"]
    turned = refine(image, start[[2, 0, 1]], settings)
    np.testing.assert_allclose(turned, refine(image, start, settings)[[2, 0, 1]], atol=1e-5)


def test_the_same_input_gives_the_same_bits_and_stays_untouched() -> None:
    image, start = photograph(40, 30), random_probabilities(3, 40, 30)
    kept = image.copy(), start.copy()
    first, second = (refine(image, start, PRESETS["irn"]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, kept[0])
    np.testing.assert_array_equal(start, kept[1])


def test_memory_order_does_not_matter() -> None:
    image, start = photograph(12, 20), random_probabilities(2, 12, 20)
    found = refine(np.asfortranarray(image), np.asfortranarray(start), PRESETS["psa"])
    np.testing.assert_array_equal(found, refine(image, start, PRESETS["psa"]))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2000, 3)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    found = refine(np.zeros((*size, 3), dtype=np.uint8), random_probabilities(2, *size), PRESETS["irn"])
    assert found.shape == (2, *size)
    assert np.isfinite(found).all()


def test_one_class_needs_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    found = refine(photograph(3, 4), np.ones((1, 3, 4), dtype=np.float32), PRESETS["irn"])
    np.testing.assert_array_equal(found, np.ones((1, 3, 4), dtype=np.float32))


def test_the_absent_extra_is_one_line_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, ENGINE, None)
    with pytest.raises(MissingExtraError) as caught:
        require_engine("pydensecrf")
    assert str(caught.value) == (
        "--engine pydensecrf needs the package pydensecrf2, which is not installed; leave --engine out, or run: "
        'pip install "pseudolabel[pydensecrf]"'
    )


def test_an_image_of_another_size_or_type_is_refused() -> None:
    start = random_probabilities(2, 6, 5)
    with pytest.raises(ValueError, match=r"^image must be uint8 \(6, 5, 3\), found uint8 \(5, 6, 3\)$"):
        refine(photograph(5, 6), start, PRESETS["irn"])
    with pytest.raises(ValueError, match=r"found float32 \(6, 5, 3\)$"):
        refine(photograph(6, 5).astype(np.float32), start, PRESETS["irn"])


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_refused(wrong: float) -> None:
    start = random_probabilities(2, 6, 5)
    start[1, 2, 3] = wrong
    with pytest.raises(ValueError, match=r"^probabilities must be numbers, found NaN or infinity$"):
        dense_crf(photograph(6, 5), start, PRESETS["irn"])


def test_how_many_classes_there_can_be() -> None:
    image = photograph(6, 5)
    for count in (0, 257):
        with pytest.raises(ValueError, match=f"^a CRF takes 1 to 256 classes, found {count}$"):
            dense_crf(image, np.full((count, 6, 5), 1 / 257, dtype=np.float32), PRESETS["irn"])
    start = random_probabilities(255, 6, 5)
    for preset in ("irn", "deeplab"):
        found = refine(image, start, PRESETS[preset])
        np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_maps_of_zeros_and_of_ones_say_nothing(fill: float) -> None:
    found = refine(photograph(9, 8), np.full((3, 9, 8), fill, dtype=np.float32), PRESETS["psa"])
    np.testing.assert_allclose(found, 1 / 3, atol=5e-4)


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8"])
def test_other_number_types_are_taken_as_numbers(dtype: str) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (7, 9))
    start = np.stack([1 - labels, labels])
    found = refine(photograph(7, 9), start.astype(dtype), PRESETS["deeplab"])
    np.testing.assert_array_equal(found, refine(photograph(7, 9), start.astype(np.float32), PRESETS["deeplab"]))


@pytest.mark.parametrize("preset", ["irn", "toco"])
def test_the_exact_engine_is_the_formula(preset: str) -> None:
    image, start = photograph(12, 10), random_probabilities(3, 12, 10)
    settings = replace(PRESETS[preset], spatial_xy=1.0, iterations=4)
    found = dense_crf(image, start, settings, engine="exact")
    expected = exact_mean_field(image, start, replace(settings, iterations=found.steps))
    # The spatial kernel is cut off at three to four widths.
    np.testing.assert_allclose(found.probabilities, expected, atol=2e-3)


def test_inference_ends_where_nothing_moves_any_more() -> None:
    image, start = photograph(24, 24), np.full((2, 24, 24), 0.2, dtype=np.float32)
    start[0, :, :12], start[1, :, 12:] = 0.8, 0.8
    found = dense_crf(image, start, replace(PRESETS["deeplab"], iterations=100))
    assert 1 < found.steps < 100
    before = refine(image, start, replace(PRESETS["deeplab"], iterations=found.steps - 1))
    assert np.abs(found.probabilities - before).max() < SETTLED
    to_the_end = exact_mean_field(image, start, replace(PRESETS["deeplab"], iterations=100))
    np.testing.assert_array_equal(found.probabilities.argmax(axis=0), to_the_end.argmax(axis=0))


def test_inference_goes_on_where_labels_stand_still_for_a_while() -> None:
    """A grey image: class 1 loses everywhere, but only after steps that change no label."""
    image, start = np.full((30, 40, 3), 128, dtype=np.uint8), np.full((2, 30, 40), 0.1, dtype=np.float32)
    start[0, :, :24], start[0, :, 24:], start[1, :, 24:] = 0.9, 0.2, 0.8
    first = refine(image, start, replace(PRESETS["toco"], iterations=1)).argmax(axis=0)
    np.testing.assert_array_equal(first, start.argmax(axis=0))
    np.testing.assert_array_equal(refine(image, start, PRESETS["toco"]).argmax(axis=0), 0)


def test_hard_classes_that_label_nothing_are_as_if_each_were_computed() -> None:
    """One row stands for them; a compatibility matrix, here Potts, computes each."""
    image, start = photograph(14, 11), random_probabilities(6, 14, 11)
    start[[1, 3, 4]] *= 0.01
    start /= start.sum(axis=0)
    settings = replace(PRESETS["irn"], iterations=3)
    together = dense_crf(image, start, settings)
    apart = dense_crf(image, start, settings, compatibility=np.eye(6, dtype=np.float32))
    assert together.steps == apart.steps
    np.testing.assert_allclose(together.probabilities, apart.probabilities, atol=1e-5)
    np.testing.assert_array_equal(together.probabilities[1], together.probabilities[4])


def test_a_compatibility_matrix_says_which_classes_attract_each_other() -> None:
    image = np.full((1, 2, 3), 90, dtype=np.uint8)
    start = np.array([[[0.9, 0.4]], [[0.05, 0.3]], [[0.05, 0.3]]], dtype=np.float32)
    settings = replace(PRESETS["toco"], iterations=1)
    potts = refine(image, start, settings)
    matrix = np.eye(3, dtype=np.float32)
    matrix[1, 0] = 1  # class 0 speaks for class 1 as for itself
    found = dense_crf(image, start, settings, compatibility=matrix).probabilities
    assert found[1, 0, 1] > potts[1, 0, 1]
    assert found[2, 0, 1] < potts[2, 0, 1]
    # The messages of this image by hand: both pixels look the same, so each gets half of each one's Q from A, where
    # the two kernels' weights are 1 and 4 and the spatial one's off-diagonal is exp(-1/2).
    q, near = start[:, 0], float(np.exp(-0.5))
    spatial = np.array([[1, near], [near, 1]]) / (1 + near)
    messages = matrix @ (q @ (1 * spatial + 4 * np.full((2, 2), 0.5)))
    np.testing.assert_allclose(found[:, 0], softmax(np.log(q) + messages), atol=2e-3)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_labels_are_those_of_pydensecrf(preset: str) -> None:
    pytest.importorskip(ENGINE, reason="the extra pydensecrf is not installed")
    image = photograph(60, 80)
    square = np.zeros((60, 80), dtype=bool)
    square[20:50, 30:] = True
    noise = random_probabilities(3, 60, 80)
    start = (0.75 * np.stack([~square, square, np.zeros_like(square)]) + 0.25 * noise).astype(np.float32)
    ours, theirs = (refine(image, start, PRESETS[preset], engine) for engine in ("lattice", "pydensecrf"))
    # Its spatial kernel is a lattice's too, which shows where nothing but the outline's length counts; on photographs
    # the share is larger (benchmarks/results/crf.json).
    assert (ours.argmax(axis=0) == theirs.argmax(axis=0)).mean() >= 0.997


def test_the_memory_asked_for_holds_what_the_lattice_keeps() -> None:
    image = np.clip(photograph(80, 100).astype(int) * 2 - 100, 0, 255).astype(np.uint8)  # twice the noise
    lattice = Lattice(position_colour(image, 67, 3))
    kept = sum(array.nbytes for array in vars(lattice).values() if isinstance(array, np.ndarray))
    assert kept + 2 * 4 * lattice.vertices < memory_of_crf(80 * 100, 2)


def test_pydensecrf_takes_no_matrix() -> None:
    image, start, matrix = photograph(3, 4), random_probabilities(2, 3, 4), np.eye(2, dtype=np.float32)
    with pytest.raises(ValueError, match=r"^the engine pydensecrf takes no compatibility matrix here"):
        dense_crf(image, start, PRESETS["irn"], engine="pydensecrf", compatibility=matrix)


def test_memory_is_asked_for_before_it_is_needed(tmp_path: Path) -> None:
    needed = memory_of_crf(40_000_000, 3)
    require_memory(tmp_path / "a.jpg", "dense CRF", needed, needed)
    require_memory(tmp_path / "a.jpg", "dense CRF", needed, None)
    with pytest.raises(PseudolabelError) as caught:
        require_memory(tmp_path / "a.jpg", "dense CRF", needed, 10**9)
    assert str(caught.value) == (
        f"{tmp_path / 'a.jpg'}: its dense CRF needs about {needed / 1e9:.1f} GB and 1.0 GB are free; "
        "use fewer --workers, or make the photograph smaller"
    )


@pytest.mark.parametrize("matrix", [np.ones((1, 3)), np.eye(2), np.full((3, 3), np.nan)], ids=str)
def test_a_compatibility_of_another_shape_or_without_numbers_is_refused(matrix):
    image, probabilities = np.zeros((8, 9, 3), np.uint8), np.full((3, 8, 9), 1 / 3, np.float32)
    with pytest.raises(ValueError, match=r"^compatibility must be numbers \(3, 3\), found"):
        dense_crf(image, probabilities, PRESETS["toco"], compatibility=matrix.astype(np.float32))


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_a_weight_below_zero_or_no_number_is_refused(weight):
    image, probabilities = np.zeros((8, 9, 3), np.uint8), np.full((3, 8, 9), 1 / 3, np.float32)
    with pytest.raises(ValueError, match=r"^kernel weights must be numbers of at least 0, found spatial 3 and"):
        dense_crf(image, probabilities, replace(PRESETS["irn"], bilateral_weight=weight))

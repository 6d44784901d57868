"""The permutohedral lattice, the spatial convolution and mean field by themselves, against exact sums."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pseudolabel
from pseudolabel.pairwise.lattice import Lattice, position_colour
from pseudolabel.pairwise.meanfield import NEGLIGIBLE, mean_field
from pseudolabel.pairwise.spatial import gaussian


def cloud(points: int, dimensions: int, spread: float = 2.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((points, dimensions)) * spread).astype(np.float32)


def exact(features: np.ndarray, maps: np.ndarray) -> np.ndarray:
    distance = ((features[:, None].astype(float) - features[None]) ** 2).sum(axis=-1)
    return maps @ np.exp(-distance / 2)


def reference(features: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Adams, Baek & Davis (2010) word by word, in float64: corners are tuples of whole coordinates in a dictionary."""
    d = features.shape[1]
    basis = np.zeros((d + 1, d))
    for i in range(d):
        basis[: i + 1, i], basis[i + 1, i] = 1, -(i + 1)
    basis *= np.sqrt(2 / 3) * (d + 1) / np.linalg.norm(basis, axis=0)
    values: dict[tuple[int, ...], np.ndarray] = {}
    places = []
    for feature, column in zip(features.astype(float), maps.T.astype(float), strict=True):
        elevated = basis @ feature
        zero = np.round(elevated / (d + 1)) * (d + 1)
        order = np.argsort(zero - elevated, kind="stable")  # largest difference first
        excess = round(zero.sum() / (d + 1))
        zero[order[d + 1 - excess :] if excess > 0 else []] -= d + 1
        zero[order[:-excess] if excess < 0 else []] += d + 1
        difference = elevated - zero
        order = np.argsort(-difference, kind="stable")
        falling = difference[order] / (d + 1)
        shares = np.concatenate([[1 - (falling[0] - falling[-1])], (falling[:-1] - falling[1:])[::-1]])
        corners = []
        for remainder in range(d + 1):
            corner = zero + remainder
            corner[order[d + 1 - remainder :]] -= d + 1
            corners.append(tuple(int(x) for x in corner))
            values[corners[-1]] = values.get(corners[-1], 0) + shares[remainder] * column
        places.append((corners, shares))

    def blurred(axes: range) -> dict[tuple[int, ...], np.ndarray]:
        now = dict(values)
        for axis in axes:
            step = np.ones(d + 1, dtype=int)
            step[axis] = -d
            near = [{tuple(np.add(corner, sign * step)): corner for corner in now} for sign in (1, -1)]
            now = {
                corner: value + sum(now[found[corner]] / 2 for found in near if corner in found)
                for corner, value in now.items()
            }
        return now

    passes = blurred(range(d + 1)), blurred(range(d, -1, -1))
    factor = (2 * np.pi * 2 / 3) ** (d / 2) * np.sqrt(d + 1) / 2 ** (d + 1) / 2
    read = [
        factor * sum(share * (one[corner] + other[corner]) for corner, share in zip(corners, shares, strict=True))
        for corners, shares in places
        for one, other in [passes]
    ]
    return np.stack(read, axis=1)


@pytest.mark.parametrize("dimensions", [2, 3, 5])
def test_the_lattice_is_that_of_the_paper(dimensions: int) -> None:
    features = cloud(60, dimensions) - 1
    maps = np.random.default_rng(1).standard_normal((1, 60)).astype(np.float32)
    np.testing.assert_allclose(Lattice(features).filter(maps), reference(features, maps), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dimensions", "error"), [(2, 0.05), (3, 0.06), (5, 0.1)])
def test_a_dense_cloud_is_filtered_as_by_the_gaussian(dimensions: int, error: float) -> None:
    features = cloud(3000, dimensions, 3)
    maps = np.random.default_rng(1).random((1, 3000)).astype(np.float32)
    found, expected = Lattice(features).filter(maps), exact(features, maps)
    assert np.abs(found - expected).mean() / expected.mean() < error


def test_points_far_from_each_other_do_not_mix() -> None:
    features = np.array([[0, 0], [40, 0], [0, 40]], dtype=np.float32)
    found = Lattice(features).filter(np.eye(3, dtype=np.float32))
    assert np.count_nonzero(found - np.diag(np.diag(found))) == 0
    assert (np.diag(found) > 0).all()


@given(st.integers(1, 40), st.floats(0.1, 30), st.sampled_from([0, 1, 3, 20]), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_filter_is_symmetric_positive_and_linear(points: int, spread: float, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    lattice = Lattice(cloud(points, 5, spread, seed))
    x, y = random.standard_normal((2, count, points)).astype(np.float32)
    filtered_x, filtered_y = lattice.filter(x), lattice.filter(y)
    size = 1e-5 * (np.abs(x).sum() + 1) * (np.abs(y).sum() + 1)
    assert abs((filtered_x * y).sum() - (x * filtered_y).sum()) < size
    assert (lattice.filter(np.abs(x)) >= 0).all()
    np.testing.assert_allclose(lattice.filter(x + 2 * y), filtered_x + 2 * filtered_y, atol=1e-3)
    assert lattice.filter(x).shape == (count, points)


@pytest.mark.parametrize("dimensions", [2, 9, 16])
def test_every_number_of_dimensions_has_shares_that_sum_to_one(dimensions: int) -> None:
    features = cloud(50, dimensions, 300)
    lattice = Lattice(features)
    found = lattice.row_sums()
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert lattice.vertices <= 50 * (dimensions + 1)
    np.testing.assert_allclose(lattice._shares.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 17, 40])
def test_maps_filtered_together_are_as_if_filtered_alone_for_any_number_of_threads(count: int) -> None:
    lattice = Lattice(cloud(300, 5))
    maps = np.random.default_rng(1).random((count, 300)).astype(np.float32)
    scale = np.random.default_rng(2).random(300).astype(np.float32)
    together = lattice.filter(maps, scale)
    np.testing.assert_array_equal(together, lattice.filter(maps, scale, threads=3))
    alone = np.concatenate([lattice.filter(plane[None], scale) for plane in maps])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    np.testing.assert_allclose(together, scale * lattice.filter(scale * maps), rtol=1e-5)


def test_a_mirrored_image_is_filtered_to_nearly_the_mirrored_map() -> None:
    """Not to the bit: the lattice lies otherwise between the points, which is its error."""
    random = np.random.default_rng(0)
    image = np.repeat(np.repeat(random.integers(0, 256, (6, 8, 3)), 5, axis=0), 5, axis=1).astype(np.uint8)
    maps = np.repeat(np.repeat(random.random((1, 6, 8)), 5, axis=1), 5, axis=2).astype(np.float32)

    def normalised(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
        lattice = Lattice(position_colour(image, 20, 30))
        return (lattice.filter(maps.reshape(1, -1))[0] / lattice.row_sums()).reshape(maps.shape)

    plain, turned = normalised(image, maps), normalised(image[:, ::-1], maps[..., ::-1])[..., ::-1]
    assert np.abs(plain - turned).mean() < 0.03


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            np.zeros((4, 1), np.float32),
            "features must be float32 (N, d) with N >= 1 and d in 2-16, found float32 (4, 1)",
        ),
        (np.zeros((4, 17), np.float32), "found float32 (4, 17)"),
        (np.zeros((0, 3), np.float32), "found float32 (0, 3)"),
        (np.zeros((4, 3)), "found float64 (4, 3)"),
        (np.full((4, 3), np.nan, np.float32), "features must be finite and within 2^20 widths of 0"),
        (np.full((4, 3), np.inf, np.float32), "features must be finite and within 2^20 widths of 0"),
        (np.full((4, 3), 2e6, np.float32), "is a width far too small?"),
    ],
)
def test_features_that_cannot_be(features: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Lattice(features)


def test_results_are_added_to_what_is_given() -> None:
    random = np.random.default_rng(0)
    maps, before = random.random((2, 3, 20, 15)).astype(np.float32)
    lattice = Lattice(cloud(300, 5))
    flat, out = maps.reshape(3, -1), before.reshape(3, -1).copy()
    assert lattice.filter(flat, out=out) is out
    np.testing.assert_allclose(out, before.reshape(3, -1) + lattice.filter(flat), rtol=1e-6)
    with pytest.raises(ValueError, match=r"^out must be float32 \(3, 300\), found float64 \(3, 300\)$"):
        lattice.filter(flat, out=out.astype(float))
    out = before.copy()
    assert gaussian(maps, 2.0, out=out) is out
    np.testing.assert_allclose(out, before + gaussian(maps, 2.0), rtol=1e-6)
    with pytest.raises(ValueError, match=r"^out must be float32 \(3, 20, 15\), found float32 \(1, 20, 15\)$"):
        gaussian(maps, 2.0, out=out[:1])


def test_maps_that_cannot_be() -> None:
    lattice = Lattice(cloud(4, 2))
    with pytest.raises(ValueError, match=r"^maps must be float32 \(K, 4\), found float64 \(1, 4\)$"):
        lattice.filter(np.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"found float32 \(1, 5\)$"):
        lattice.filter(np.zeros((1, 5), np.float32))
    with pytest.raises(ValueError, match=r"^scale must be float32 \(4,\), found float32 \(3,\)$"):
        lattice.filter(np.zeros((1, 4), np.float32), np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"^scale must be float32 \(2, 3\), found float64 \(2, 3\)$"):
        gaussian(np.zeros((1, 2, 3), np.float32), 1.0, np.ones((2, 3)))


@pytest.mark.parametrize("widths", [(0, 5), (-1, 5), (5, 0), (float("nan"), 5)])
def test_widths_are_above_zero(widths: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^kernel widths must be above 0, found xy"):
        position_colour(np.zeros((2, 2, 3), np.uint8), *widths)
    if not widths[0] > 0:
        with pytest.raises(ValueError, match=r"^kernel width must be above 0, found"):
            gaussian(np.zeros((1, 2, 2), np.float32), widths[0])


def test_position_and_colour_by_hand() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
    found = position_colour(image, 2, 4)
    assert found.dtype == np.float32
    assert found[2].tolist() == [1.0, 0.0, 1.5, 1.75, 2.0]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (12, 31)])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0, 50.0])
def test_the_spatial_kernel_is_the_gaussian_up_to_its_radius(size: tuple[int, int], sigma: float) -> None:
    random = np.random.default_rng(0)
    maps, scale = random.random((2, *size)).astype(np.float32), random.random(size).astype(np.float32)
    places = np.stack(np.mgrid[: size[0], : size[1]], axis=-1).reshape(-1, 2) / sigma
    expected = scale * exact(places, (scale * maps).reshape(2, -1)).reshape(maps.shape)
    found = gaussian(maps, sigma, scale)
    np.testing.assert_allclose(found, expected, atol=0.012 * expected.max())
    if 3 * sigma >= max(size):  # nothing is cut off
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mean_field_is_its_formula_also_with_classes_left_out() -> None:
    """A kernel written as a matrix; class 3 is far below NEGLIGIBLE everywhere, and class 2 until class 1 lifts it."""
    random = np.random.default_rng(0)
    points, steps = 30, 6
    kernel = random.random((points, points)).astype(np.float32) / 10
    kernel = (kernel + kernel.T).astype(np.float32)
    unary = random.random((4, points)).astype(np.float32) * 3
    unary[2] += 13
    unary[3] += 60

    matrix = np.eye(4, dtype=np.float32)
    matrix[2, 1] = 8
    found, done = mean_field(
        unary, [lambda maps, out: np.add(out, maps @ kernel, out=out)], steps, compatibility=matrix
    )
    assert 1 <= done <= steps
    assert found[2].max() > 0.1
    q = np.exp(-unary.astype(float))
    q /= q.sum(axis=0)
    for _ in range(done):
        q = np.exp(matrix @ (q @ kernel) - unary)
        q /= q.sum(axis=0)
    np.testing.assert_allclose(found, q, atol=5 * NEGLIGIBLE)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_members_and_a_matrix_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"^members need the Potts model; leave out compatibility$"):
        mean_field(
            np.zeros((2, 3), np.float32),
            [lambda maps, out: None],
            1,
            members=np.ones(2, np.float32),
            compatibility=np.eye(2, dtype=np.float32),
        )


_ONCE = """
import numpy as np
from pseudolabel.pairwise.spatial import gaussian
print(gaussian(np.ones((1, 3, 4), np.float32), 1.0).tolist())
"""


def test_the_package_holds_no_machine_code(tmp_path: Path) -> None:
    """pip would leave it behind, and what is left of an old installation hides an editable one."""
    shutil.copytree(
        Path(pseudolabel.__file__).parent, tmp_path / "pseudolabel", ignore=shutil.ignore_patterns("__pycache__")
    )
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", _ONCE], env=environment, capture_output=True, check=True, cwd=tmp_path)
    assert list((tmp_path / "cache/pseudolabel").rglob("*.nbc"))
    assert not list((tmp_path / "pseudolabel").rglob("*.nb[ci]"))


def test_a_cache_that_cannot_be_written_is_said_once_and_the_result_is_the_same(tmp_path: Path) -> None:
    """A folder cannot be made where a file is, not even by root; so for every place where Numba would keep it."""
    package = Path(pseudolabel.__file__).parent
    shutil.copytree(package, tmp_path / "pseudolabel", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "file").write_text("")
    blocked = dict.fromkeys(("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME"), str(tmp_path / "file/cache"))
    plain = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    runs = [
        subprocess.run([sys.executable, "-c", _ONCE], env=plain | more, capture_output=True, text=True, cwd=tmp_path)
        for more in ({"NUMBA_CACHE_DIR": str(tmp_path / "cache")}, blocked)
    ]
    assert runs[0].stdout == runs[1].stdout != ""
    assert runs[0].stderr == ""
    assert runs[1].stderr == (
        "Warning: the pairwise engine's machine code cannot be kept, as no cache folder can be written: each process "
        "compiles it anew (some seconds); set NUMBA_CACHE_DIR to change that\n"
    )
    assert list((tmp_path / "cache").rglob("*.nbc"))
    assert not list((tmp_path / "pseudolabel").rglob("*.nb[ci]"))


@pytest.mark.parametrize(
    ("places", "folder"),
    [
        ({"NUMBA_CACHE_DIR": "ABOVE/own", "XDG_CACHE_HOME": "ABOVE/user"}, "own"),
        ({"NUMBA_CACHE_DIR": ".", "XDG_CACHE_HOME": "ABOVE/user"}, "user/pseudolabel"),
        ({"NUMBA_CACHE_DIR": "own", "XDG_CACHE_HOME": "user", "HOME": "ABOVE/home"}, "home/.cache/pseudolabel"),
        ({"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": "", "HOME": "ABOVE/home"}, "home/.cache/pseudolabel"),
        ({"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": "user", "HOME": "."}, None),
    ],
)
def test_machine_code_is_cached_in_one_absolute_place_and_never_in_the_current_folder(
    places: dict[str, str], folder: str | None, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    environment = os.environ | {name: value.replace("ABOVE", str(tmp_path)) for name, value in places.items()}
    done = subprocess.run([sys.executable, "-c", _ONCE], env=environment, capture_output=True, text=True, cwd=here)
    assert ("cannot be kept" in done.stderr) == (folder is None), done.stderr
    assert list(here.iterdir()) == []
    found = {path.parents[1] for path in tmp_path.rglob("*.nbc")}
    assert found == (set() if folder is None else {tmp_path / folder})


_TWO_THREADS = """
import threading
from concurrent.futures import ThreadPoolExecutor
from numba.core import caching
from pseudolabel.pairwise.jit import compiled

look = caching.UserProvidedCacheLocator.get_suitable_cache_subpath  # numba calls it between its looks at the setting
first, second, done = threading.Event(), threading.Event(), threading.Event()

def slow_look(path):
    if not first.is_set():
        first.set()
        second.wait(1)
    else:
        second.set()
        done.wait(1)
    return look(path)

caching.UserProvidedCacheLocator.get_suitable_cache_subpath = staticmethod(slow_look)

def make(number):
    if number:
        first.wait(9)
    def function(x):
        return x + number
    made = compiled(function)
    made(1)
    done.set()
    return made.stats.cache_path

with ThreadPoolExecutor(2) as pool:
    print(*set(pool.map(make, range(2))), sep="\\n")
"""


def test_threads_that_compile_at_once_cache_in_the_same_place(tmp_path: Path) -> None:
    """The setting once was put back while another thread was about to read it: a cache lay in the repository's root."""
    here, script = tmp_path / "here", tmp_path / "script.py"
    here.mkdir()
    script.write_text(_TWO_THREADS)
    environment = os.environ | {"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=here)
    assert list(here.iterdir()) == []
    (folder,) = (tmp_path / "cache/pseudolabel").iterdir()
    assert done.stdout == f"{folder}\n"

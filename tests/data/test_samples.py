"""Alpha and 16-bit samples of photographs: what becomes of them by default, and what by choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from pseudolabel.data.decoding import AS_USUAL, Decoding, Look
from pseudolabel.data.images import look_at, read_image
from pseudolabel.errors import DatasetError
from tests.helpers.pictures import chunk, deep_png, tiff

DROP = Decoding(alpha="drop")
TWELVE = Decoding(largest=4095)
DEEP = np.random.default_rng(0).integers(0, 4096, (5, 7, 4), dtype=np.uint16)
SCALED = ((DEEP.astype(np.int64) * 255 + 2047) // 4095).astype(np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
INFRARED = np.random.default_rng(2).integers(30, 220, (5, 7, 1), dtype=np.uint8)
FOUR = np.concatenate([COLOURS, INFRARED], axis=2)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(float) / 255
    return colours * share + 255 * (1 - share)


@pytest.mark.parametrize("extra", [None, [1], [2]])
@pytest.mark.parametrize("deflated", [False, True])
def test_the_fourth_band_of_a_tiff_can_be_dropped(tmp_path: Path, extra: list[int] | None, *, deflated: bool) -> None:
    path = tiff(tmp_path / "a.tif", FOUR, extra=extra, deflated=deflated)
    image, look = look_at(path, DROP)
    np.testing.assert_array_equal(image, COLOURS)
    assert look == Look("none")
    assert look_at(path, AS_USUAL)[1] == Look("some")


def test_unspecified_bands_are_no_alpha(tmp_path: Path) -> None:
    image, look = look_at(tiff(tmp_path / "a.tif", FOUR, extra=[0]), AS_USUAL)
    np.testing.assert_array_equal(image, COLOURS)
    assert look == Look("none")


def test_alpha_is_composited_or_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(FOUR).save(path)
    image, look = look_at(path, AS_USUAL)
    assert np.abs(image - on_white(COLOURS, INFRARED)).max() <= 1  # Pillow rounds
    assert look.alpha == "some"
    np.testing.assert_array_equal(read_image(path, DROP), COLOURS)


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_alpha_0_everywhere_leaves_nothing_but_white(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.concatenate([COLOURS, np.zeros_like(INFRARED)], axis=2)).save(path, lossless=True, exact=True)
    image, look = look_at(path, AS_USUAL)
    assert (image.min(), look.alpha) == (255, "all")
    np.testing.assert_array_equal(read_image(path, DROP), COLOURS)


def test_opaque_alpha_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.concatenate([COLOURS, np.full_like(INFRARED, 255)], axis=2)).save(path)
    image, look = look_at(path, AS_USUAL)
    np.testing.assert_array_equal(image, COLOURS)
    assert look == Look("none")


@pytest.mark.parametrize("mode", ["P", "LA", "RGB"])
def test_every_kind_of_transparency_can_be_dropped(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    if mode == "LA":
        Image.merge("LA", [Image.fromarray(COLOURS[..., 0]), Image.fromarray(INFRARED[..., 0])]).save(path)
        wanted = np.repeat(COLOURS[..., :1], 3, axis=2)
    else:
        image = Image.fromarray(COLOURS)
        image = image.quantize(16) if mode == "P" else image
        wanted = np.asarray(image.convert("RGB"))
        image.save(path, transparency=bytes(16) if mode == "P" else tuple(COLOURS[0, 0].tolist()))
    np.testing.assert_array_equal(read_image(path, DROP), wanted)
    assert look_at(path, AS_USUAL)[1].alpha == ("all" if mode == "P" else "some")


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_16_bits_of_a_png_are_scaled_by_the_range_stated(tmp_path: Path, bands: int) -> None:
    path = deep_png(tmp_path / "a.png", DEEP[..., :bands])
    colours = bands if bands != 2 else 1
    grey = colours == 1
    image, look = look_at(path, Decoding("drop", 4095))
    wanted = SCALED[..., :1].repeat(3, axis=2) if grey else SCALED[..., :3]
    np.testing.assert_array_equal(image, wanted)
    assert look.largest == DEEP[..., : 1 if grey else 3].max()
    high = (DEEP >> 8).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path, DROP), high[..., :1].repeat(3, axis=2) if grey else high[..., :3])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize(("bands", "extra"), [(3, None), (4, None), (4, [0]), (4, [1]), (4, [2])])
def test_16_bits_of_a_tiff_are_scaled_by_the_range_stated(
    tmp_path: Path, order: str, bands: int, extra: list[int] | None, *, deflated: bool
) -> None:
    path = tiff(tmp_path / "a.tif", DEEP[..., :bands], order=order, extra=extra, deflated=deflated)
    image, look = look_at(path, Decoding("drop", 4095))
    np.testing.assert_array_equal(image, SCALED[..., :3])
    assert look == Look("none", int(DEEP[..., :3].max()))


def test_16_bit_cmyk(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", DEEP, photometric=5)
    wanted = np.asarray(Image.frombytes("CMYK", (7, 5), SCALED.tobytes()).convert("RGB"))
    np.testing.assert_array_equal(read_image(path, TWELVE), wanted)


def test_16_bit_alpha_is_composited(tmp_path: Path) -> None:
    samples = np.array([[[65535, 0, 0, 65535], [65535, 0, 0, 0], [0, 0, 0, 0x3333]]], dtype=np.uint16)
    wanted = [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]
    np.testing.assert_array_equal(read_image(deep_png(tmp_path / "a.png", samples)), wanted)
    np.testing.assert_array_equal(read_image(tiff(tmp_path / "a.tif", samples, extra=[2])), wanted)
    associated = samples.copy()
    associated[0, 1, 0] = 0  # colours multiplied by alpha
    np.testing.assert_array_equal(read_image(tiff(tmp_path / "b.tif", associated, extra=[1])), wanted)


def test_a_colour_that_counts_as_transparent_is_compared_in_16_bits(tmp_path: Path) -> None:
    samples = np.array([[[1000], [1001]]], dtype=np.uint16)  # of one high byte
    path = deep_png(tmp_path / "a.png", samples, chunk(b"tRNS", (1000).to_bytes(2, "big")))
    np.testing.assert_array_equal(read_image(path)[0, :, 0], [255, 3])


def test_values_above_the_range_are_white(tmp_path: Path) -> None:
    path = deep_png(tmp_path / "a.png", np.array([[[4095], [4500], [0]]], dtype=np.uint16))
    image, look = look_at(path, TWELVE)
    np.testing.assert_array_equal(image[0, :, 0], [255, 255, 0])
    assert look.largest == 4500


def test_the_range_leaves_8_bits_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", TWELVE), COLOURS)


@pytest.mark.parametrize("deflated", [False, True])
def test_bands_of_16_bits_on_their_own_are_refused_as_pillow_misreads_them(tmp_path: Path, *, deflated: bool) -> None:
    path = tiff(tmp_path / "a.tif", DEEP[..., :3], planar=True, deflated=deflated)
    with pytest.raises(DatasetError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path} stores each band of 16 bits on its own, which Pillow misreads; save it with its bands interleaved"
    )


@pytest.mark.parametrize("bands", [5, 8])
def test_bands_that_pillow_does_not_know_are_named_as_the_reason(tmp_path: Path, bands: int) -> None:
    path = tiff(tmp_path / "a.tif", np.zeros((4, 4, bands), dtype=np.uint16), extra=[0] * (bands - 3))
    with pytest.raises(DatasetError) as caught:
        read_image(path)
    assert str(caught.value) == (
        f"{path} is a TIFF with bands that Pillow does not read; save it as grey or RGB of 8 or 16 bits"
    )


@pytest.mark.parametrize("decoding", [AS_USUAL, DROP, TWELVE, Decoding("drop", 1)])
def test_a_stored_decoding_is_read_again(decoding: Decoding) -> None:
    assert Decoding.of(decoding.spec()) == decoding


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"alpha": "keep"}, "alpha is 'keep'; wanted composite or drop"),
        ({"photo_range": 0}, "photo_range is 0; wanted a whole number from 1 to 65535"),
        ({"photo_range": "4095"}, "photo_range is '4095'; wanted a whole number from 1 to 65535"),
    ],
)
def test_an_impossible_decoding_is_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        Decoding.of(spec)
    assert str(caught.value) == message


def test_16_bits_of_a_ppm(tmp_path: Path) -> None:
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6\n7 5\n65535\n" + DEEP[..., :3].astype(">u2").tobytes())
    image, look = look_at(path, TWELVE)
    np.testing.assert_array_equal(image, SCALED[..., :3])
    assert look.largest == DEEP[..., :3].max()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError) as caught:
        read_image(path)
    assert str(caught.value) == f"{path} is truncated; replace or remove it"


def test_the_range_that_a_ppm_states_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5\n3 1\n4095\n" + np.array([0, 2048, 4095], dtype=">u2").tobytes())
    assert read_image(path)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow reads no JPEG 2000")
def test_jpeg_2000(tmp_path: Path) -> None:
    grey = tmp_path / "grey.jp2"
    Image.fromarray(DEEP[..., 0]).save(grey)
    image, look = look_at(grey, TWELVE)
    np.testing.assert_array_equal(image[..., 0], SCALED[..., 0])
    assert look == Look("none", int(DEEP[..., 0].max()))
    colours = tmp_path / "colours.jp2"
    Image.fromarray(COLOURS).save(colours)
    np.testing.assert_array_equal(read_image(colours), COLOURS)
    assert look_at(colours, AS_USUAL)[1] == Look()
    content = colours.read_bytes()
    start = content.find(b"\xff\x4f\xff\x51") + 42
    for band in range(3):  # Pillow writes 8 bits alone
        assert content[start + 3 * band] == 7
        content = content[: start + 3 * band] + b"\x0f" + content[start + 3 * band + 1 :]
    colours.write_bytes(content)
    assert look_at(colours, AS_USUAL)[1].remarks == (
        "of its 16 bits a band Pillow keeps the high byte; if its values need fewer bits, save it as PNG or TIFF with "
        "16 and pass --photo-range",
    )


def test_several_pictures_in_a_jpeg(tmp_path: Path) -> None:
    first = Image.fromarray(np.full((8, 8, 3), 200, dtype=np.uint8))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - 200).max() <= 2


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_corrupt_avif_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    Image.fromarray(np.full((8, 8, 3), 200, dtype=np.uint8)).save(path)
    content = path.read_bytes()
    start = content.index(b"mdat") + 4
    path.write_bytes(content[:start] + b"\xff" * (len(content) - start))
    with pytest.raises(DatasetError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path} is corrupt (")
    assert "\n" not in str(caught.value)

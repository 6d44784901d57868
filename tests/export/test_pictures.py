"""Palette, PNG masks and pictures for people."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data.images import read_label_png
from pseudolabel.data.palette import PALETTE, mask_path, write_mask, write_png
from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.export.pictures import contact_sheet, overlay, paint_heat, paint_labels

CLASSES = ("background", "cat", "dog")


def labels() -> np.ndarray:
    found = np.zeros((30, 40), dtype=np.uint8)
    found[5:20, 5:20], found[10:25, 22:38], found[:3] = 1, 2, 255
    return found


def photograph(height: int = 30, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_first_colours_and_the_last_are_vocs() -> None:
    first = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128)]
    assert PALETTE[:7].tolist() == [list(colour) for colour in first]
    assert PALETTE[7:10].tolist() == [[128, 128, 128], [64, 0, 0], [192, 0, 0]]
    assert PALETTE[20].tolist() == [0, 64, 128]  # tvmonitor
    assert PALETTE[255].tolist() == [224, 224, 192]


def test_every_index_has_its_own_colour_by_the_bit_rule() -> None:
    assert len(np.unique(PALETTE, axis=0)) == 256
    for index in range(256):  # the development kit's own loop
        colour, rest = [0, 0, 0], index
        for step in range(8):
            for channel in range(3):
                colour[channel] |= (rest >> channel & 1) << (7 - step)
            rest >>= 3
        assert PALETTE[index].tolist() == colour


def test_a_mask_is_a_palette_png_of_its_indices(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_mask(tmp_path / "some" / "where.png", every)
    with Image.open(tmp_path / "some" / "where.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "P", (32, 8))
        np.testing.assert_array_equal(np.array(image), every)
        assert image.getpalette() == PALETTE.ravel().tolist()
        np.testing.assert_array_equal(np.array(image.convert("RGB")), PALETTE[every])
    np.testing.assert_array_equal(read_label_png(tmp_path / "some" / "where.png"), every)
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["where.png"]


def test_the_same_mask_gives_the_same_bytes_from_any_memory_order(tmp_path: Path) -> None:
    write_mask(tmp_path / "c.png", labels())
    write_mask(tmp_path / "f.png", np.asfortranarray(labels()))
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "f.png").read_bytes()


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "mask.png"
    write_mask(kept, labels())
    before = kept.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        with pytest.raises(PseudolabelError, match=r"^cannot write .*mask\.png: File too large; free some"):
            write_png(kept, Image.fromarray(photograph()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept.read_bytes() == before
    assert list(tmp_path.iterdir()) == [kept]


def test_ids_become_paths_inside_the_folder(tmp_path: Path) -> None:
    assert mask_path(tmp_path, "a") == tmp_path / "a.png"
    assert mask_path(tmp_path, "some folder/b.c ü") == tmp_path / "some folder" / "b.c ü.png"


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "..", "a//b", "a/", "", "C:/a", "a\\b", "a\0b", "a\nb"])
def test_ids_that_could_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"no file of that name is written into {tmp_path}$"):
        mask_path(tmp_path, name)


def test_the_refusal_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        mask_path(tmp_path, "/etc/passwd")
    assert str(caught.value) == (
        "image id '/etc/passwd' is an absolute path; wanted a name inside the data set; "
        f"no file of that name is written into {tmp_path}"
    )


def test_painting_colours_classes_and_outlines_them() -> None:
    grey = np.full((4, 5, 3), 100, dtype=np.uint8)
    found = paint_labels(grey, np.array([[0, 0, 1, 1, 0]] * 4, dtype=np.uint8))
    assert found[0].tolist() == [
        [100, 100, 100],
        [255, 255, 255],
        [118, 35, 35],  # 0.35 x 100 + 0.65 x (128, 0, 0)
        [255, 255, 255],
        [100, 100, 100],
    ]
    unlabelled = paint_labels(grey, np.array([[0, 255]] * 4, dtype=np.uint8)[:, [0, 1, 1, 0, 0]])
    assert (unlabelled != 255).all()  # cream, without an outline
    np.testing.assert_array_equal(grey, 100)


def test_heat_goes_from_dark_to_pale() -> None:
    grey = np.full((1, 3, 3), 100, dtype=np.uint8)
    found = paint_heat(grey, np.array([[0, 0.5, 1]])).astype(int)
    assert found.sum(axis=2)[0].tolist() == sorted(found.sum(axis=2)[0].tolist())
    assert found[0, 1].tolist() == [157, 70, 89]  # 0.35 x 100 + 0.65 x (188, 55, 84)


def panels(picture: Image.Image) -> float:
    return (picture.width - 10) / 410


def test_an_overlay_has_a_panel_for_each_thing_there_is() -> None:
    heat = np.linspace(0, 1, 30 * 40).reshape(30, 40)
    assert panels(overlay(photograph(), labels(), CLASSES)) == 2
    assert panels(overlay(photograph(), labels(), CLASSES, heat=heat)) == 3
    full = overlay(photograph(), labels(), CLASSES, heat=heat, truth=labels())
    assert panels(full) == 4
    assert full.height == 10 + 22 + 300 + 10 + 32  # margin, title, picture, margin, one line of legend
    colours = {colour for _, colour in full.getcolors(full.width * full.height) or ()}
    assert {(128, 0, 0), (0, 128, 0), (224, 224, 192)} <= colours  # the legend's squares


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3)])
def test_odd_sizes_can_be_drawn(size: tuple[int, int]) -> None:
    empty = np.zeros(size, dtype=np.uint8)
    found = overlay(photograph(*size), empty, CLASSES, heat=empty.astype(float), truth=empty)
    assert max(found.size) < 2000


def test_a_contact_sheet_is_a_square_of_cells() -> None:
    pictures = [(f"a long name of some image {index}", photograph(), labels()) for index in range(5)]
    found = contact_sheet(iter(pictures), 5, CLASSES)
    assert found.size == (10 + 3 * 210, 10 + 2 * 192 + 32)
    again = contact_sheet(iter(pictures), 5, CLASSES)
    assert found.tobytes() == again.tobytes()

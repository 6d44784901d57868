"""One warning for each kind of surprise in photographs, from ``data check`` and from stages that open a data set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data import load_dataset
from pseudolabel.data.check import check_dataset
from pseudolabel.data.survey import warn_of_photographs
from pseudolabel.options import DataCheckOptions
from pseudolabel.runtime.progress import Progress
from tests.helpers.pictures import deep_png, tiff

COLOURS = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)


class Heard(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "tags.csv").write_text("id,tags\n")
    Image.fromarray(COLOURS).save(folder / "plain.png")
    return folder


def warnings_of(root: Path, capfd: pytest.CaptureFixture[str], **changes: object) -> list[str]:
    """What data check and a stage warn of; both say the same here, but for what is told only on reading."""
    heard = Heard()
    options = DataCheckOptions(dataset="folder", root=root, split="all", workers=0, **changes)
    assert check_dataset(options, heard)["problems"] in (
        [],
        [f"{root}: id 'plain' has no tags in csv, but others have"],
    )
    before = Heard()
    warn_of_photographs(load_dataset(options.model_dump()), before)
    assert set(before.warnings) <= set(heard.warnings)
    assert capfd.readouterr().err == ""
    return [line.replace(f"{root}/", "") for line in heard.warnings if "has tags, weak labels" not in line]


def test_alpha_is_said_once_and_counted(images: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        alpha = np.full((6, 8, 1), 0 if number == 1 else 90, dtype=np.uint8)
        Image.fromarray(np.concatenate([COLOURS, alpha], axis=2)).save(images / f"{number}.png")
    wanted = [
        "3 photographs have alpha and are seen on white there, 1 of them all white, since their alpha is 0 everywhere "
        "(first: images/0.png); if alpha is data, such as near infrared, pass --alpha drop"
    ]
    found = warnings_of(images.parent, capfd)
    assert found == wanted
    assert warnings_of(images.parent, capfd, alpha="drop") == []


def test_12_bits_in_16_are_said_with_the_largest_value(images: Path, capfd: pytest.CaptureFixture[str]) -> None:
    deep_png(images / "a.png", np.full((2, 2, 3), 4000, dtype=np.uint16))
    deep_png(images / "b.png", np.full((2, 2, 1), 4090, dtype=np.uint16))
    assert warnings_of(images.parent, capfd) == [
        "2 of 2 photographs with 16 bits use only the darkest 16 of 256 grey levels: their largest value is 4090 "
        "(images/b.png); state the value that is white, for instance --photo-range 4095 for 12 bits"
    ]
    assert warnings_of(images.parent, capfd, photo_range=4095) == []
    assert warnings_of(images.parent, capfd, photo_range=4050) == [
        "1 of 2 photographs with 16 bits have values above --photo-range 4050, which become white: the largest is 4090 "
        "(images/b.png)"
    ]


def test_16_bits_that_are_used_are_not_spoken_of(images: Path, capfd: pytest.CaptureFixture[str]) -> None:
    deep_png(images / "a.png", np.full((2, 2, 3), 60000, dtype=np.uint16))
    assert warnings_of(images.parent, capfd) == []


def test_pictures_that_are_not_read_are_counted(images: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("a.heic", "b.HEIC", "plain.psd"):
        (images / name).write_bytes(b"something")
    (found,) = warnings_of(images.parent, capfd)
    assert found == (
        f"2 files of {images} are pictures in formats that are not read (first: images/a.heic), and are left out; "
        "convert them to one of JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, PPM or AVIF"
    ).replace(f"{images.parent}/", "")


def test_what_decoders_warn_of_is_said_once_a_kind_with_a_file(images: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number in range(3):  # a resolution must be one number
        tiff(images / f"{number}.tif", COLOURS, deflated=True, tags=[(282, range(number + 2))])
    options = DataCheckOptions(dataset="folder", root=images.parent, split="all", workers=0)
    heard = Heard()
    check_dataset(options, heard)
    assert [line.replace(f"{images}/", "") for line in heard.warnings if "tif" in line] == [
        "0.tif: Metadata Warning, tag 282 had too many entries: 2, expected 1 (and alike in 2 more files)"
    ]
    assert capfd.readouterr().err == ""


def test_reading_warns_once_a_kind_and_names_the_file(tmp_path: Path) -> None:
    for number in range(3):
        tiff(tmp_path / f"{number}.tif", COLOURS, tags=[(282, range(number + 2))])
    script = (
        "import sys; from pathlib import Path; from pseudolabel.data import image_size, read_image\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()): image_size(path), read_image(path)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stderr == (
        f"warning: {tmp_path}/0.tif: Metadata Warning, tag 282 had too many entries: 2, expected 1 "
        "(said once; data check counts such files)\n"
    )


def test_what_libtiff_prints_goes_into_the_one_line_of_the_error(
    images: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tiff(images / "bad.tif", np.repeat(np.repeat(COLOURS, 9, axis=0), 9, axis=1), deflated=True)
    content = bytearray(path.read_bytes())
    content[60:90] = b"\xff" * 30
    path.write_bytes(content)
    options = DataCheckOptions(dataset="folder", root=images.parent, split="all", workers=0)
    (problem,) = [line for line in check_dataset(options, Heard())["problems"] if "bad" in line]
    assert problem.startswith(f"{path} is corrupt (ZIPDecode: Decoding error at scanline 0")
    assert problem.endswith("; replace or remove it")
    assert capfd.readouterr().err == ""


def test_what_others_print_meanwhile_is_not_lost(tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif", COLOURS, deflated=True)
    script = (
        "import os, sys; from pathlib import Path; from pseudolabel.data.image_files import FORMATS, opened\n"
        "with opened(Path(sys.argv[1]), FORMATS, []) as image: os.write(2, b'\\x1b[2Kbar 5/9'); image.load()"
    )
    place = str(tmp_path / "a.tif")
    done = subprocess.run([sys.executable, "-c", script, place], capture_output=True, text=True, check=True)
    assert done.stderr == "\x1b[2Kbar 5/9"


def test_a_stage_looks_at_no_more_than_100(images: Path) -> None:
    alpha = np.full((6, 8, 1), 90, dtype=np.uint8)
    Image.fromarray(np.concatenate([COLOURS, alpha], axis=2)).save(images / "000.png")
    for number in range(1, 150):
        (images / f"{number:03}.png").write_bytes((images / "000.png").read_bytes())
    heard = Heard()
    warn_of_photographs(load_dataset({"dataset": "folder", "root": images.parent, "split": "all"}), heard)
    assert heard.warnings == [
        f"75 photographs have alpha and are seen on white there (first: {images}/000.png); if alpha is data, such as "
        "near infrared, pass --alpha drop (75 of 150 such photographs were looked at)"
    ]


def test_a_stage_says_what_decoders_warn_of_once_and_reading_says_it_no_more(tmp_path: Path) -> None:
    for number in range(3):
        tiff(tmp_path / f"{number}.tif", COLOURS, tags=[(282, range(number + 2))])
    script = (
        "import sys; from pathlib import Path; from pseudolabel.data import load_dataset, read_image\n"
        "from pseudolabel.data.survey import warn_of_photographs; from pseudolabel.runtime.progress import Progress\n"
        "dataset = load_dataset({'dataset': 'folder', 'root': Path(sys.argv[1]), 'split': 'all'})\n"
        "warn_of_photographs(dataset, Progress())\n"
        "for record in dataset.records: read_image(record.image)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stderr == (
        f"warning: {tmp_path}/0.tif: Metadata Warning, tag 282 had too many entries: 2, expected 1 (and alike in 2 "
        "more files)\n"
    )

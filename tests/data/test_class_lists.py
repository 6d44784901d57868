"""Class lists as people and other tools write them: read right, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pseudolabel.data import load_dataset
from pseudolabel.data.class_lists import read_classes
from pseudolabel.errors import DatasetError

WANTED = "wanted one class name a line, in index order"


def read(tmp_path: Path, text: str) -> tuple[str, ...]:
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    return read_classes(tmp_path / "classes.txt")


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\n",
        "background\ncat\ndog\n",
        "_background_\ncat\ndog\n",
        "__background__\ncat\ndog\n",
        "BG\ncat\ndog\n",
        "__ignore__\n_background_\ncat\ndog\n",
        "__ignore__\ncat\ndog\n",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\ndog:0,128,0:nose,tail:run\n",
        "cat:128,0,0::\ndog:::\n",
        "0 background\n1 cat\n2 dog\n",
        "0: _background_\n1: cat\n2: dog\n",
        "1,cat\r\n2,dog\r\n",
    ],
)
def test_lists_that_mean_the_same(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == ("background", "cat", "dog")


def test_names_stay_as_they_are(tmp_path: Path) -> None:
    names = ("tench, Tinca tinca", "7 up", "stop sign", "class 3", "bg", "ignore me", "a-b")
    assert read(tmp_path, "\n".join(names))[1:] == names
    assert read(tmp_path, "grade 1\ngrade 2\n") == ("background", "grade 1", "grade 2")
    assert read(tmp_path, "cafe\u0301\n") == ("background", "caf\u00e9")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "cat\n_background_\n",
            ": '_background_' is class 2, but background is what belongs to no class, with index 0;",
        ),
        ("# label:color_rgb:parts:actions\ncat:1,1,1::\nbackground:0,0,0::\n", ": 'background' is class 2, but backg"),
        ("cat\n__ignore__\n", ", line 2: '__ignore__' stands behind other names; it is no class: put it first, as "),
        ("background\n__ignore__\n", ", line 2: '__ignore__' stands behind other names; it is no class: put it first"),
        ("# my classes\ncat\n", f", line 1: '# my classes' begins with '#'; {WANTED}"),
        ("cat,dog\n", f", line 1: 'cat,dog' holds several names; {WANTED}"),
        ('["cat", "dog"]\n', f', line 1: \'["cat", "dog"]\' begins like JSON; {WANTED}'),
        ("names:\n- cat\n- dog\n", f", line 1: 'names:' begins like YAML; {WANTED}"),
        ("cat,1\ndog,2\n", f", line 1: 'cat,1' ends in a number; {WANTED}"),
        ("background 0 0 0\ncat 128 0 0\n", f", line 1: 'background 0 0 0' ends in a colour; {WANTED}"),
        ("0 cat\n1 dog\n", ", line 1: class 'cat' has number 0, which is that of background; number from 1, and say "),
        ("cat 1\ndog 2\n", f": its lines end in their numbers ('cat 1'); {WANTED}"),
        ("cat\tdog\n", f", line 1: 'cat\\tdog' holds several columns; {WANTED}"),
        ("id,name\n1,cat\n", f", line 1: 'id,name' looks like a heading; {WANTED}"),
        ("class_name\ncat\n", f", line 1: 'class_name' looks like a heading; {WANTED}"),
        ("cat\ndog:1,1,1::\n", f", line 2: 'dog:1,1,1::' holds a colour; {WANTED}"),
        ("<class>cat</class>\n", f", line 1: '<class>cat</class>' begins like XML; {WANTED}"),
        ("1 cat\n3 dog\n", f": its lines are numbered, but not from 0 or 1 without gaps; {WANTED}"),
        ("caf\u00e9\ncafe\u0301\n", ": class 'caf\u00e9' stands twice; every class needs a name of its own"),
    ],
)
def test_lists_that_would_shift_classes_are_refused(tmp_path: Path, text: str, wanted: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read(tmp_path, text)
    assert str(caught.value).removeprefix(f"{tmp_path}/classes.txt").startswith(wanted)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["class_names.txt", "labelmap.txt"])
def test_lists_of_labelme_and_cvat_are_found_by_their_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("_background_\ndog\ncat\n")
    (tmp_path / "tags.csv").write_text("a,cat\n")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "images/a.png")
    spec = {"dataset": "folder", "root": tmp_path, "split": "train"}
    dataset = load_dataset(spec)
    assert (dataset.classes, dataset.records[0].tags) == (("background", "dog", "cat"), (2,))
    for part in ("JPEGImages", "ImageSets/Segmentation"):
        (tmp_path / part).mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(tmp_path / "JPEGImages/a.png")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a")
    assert load_dataset(spec | {"dataset": "voc"}).classes == ("background", "dog", "cat")


def test_long_lists_and_numbers_take_no_time(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"classes.txt names 200001 classes; wanted 1 to 254$"):
        read(tmp_path, "\n".join(f"word{number}" for number in range(200_000)) + "\nword7\n")
    numbers = "9" * 5000  # more digits than Python makes a number of
    assert read(tmp_path, f"{numbers} cat\n1 dog\n") == ("background", f"{numbers} cat", "1 dog")
    assert read(tmp_path, f"cat {numbers}\ndog 1\n") == ("background", f"cat {numbers}", "dog 1")

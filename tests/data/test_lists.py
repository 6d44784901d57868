"""Lists of ids, class names and tag tables: what is forgiven, what is refused, and in which words."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pseudolabel.data.class_lists import read_classes
from pseudolabel.data.image_files import SUFFIXES
from pseudolabel.data.lists import find_list, index_images, no_image, read_ids, unsafe
from pseudolabel.data.records import Dataset, Record
from pseudolabel.data.tag_tables import read_table
from pseudolabel.data.tags import save_table, tag_indices, write_table
from pseudolabel.errors import DatasetError, InputError


def listed(tmp_path: Path, content: bytes) -> list[str]:
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    return read_ids(path)


def message(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(DatasetError) as caught:
        listed(tmp_path, content)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_ids_forgive_what_editors_leave_behind(tmp_path: Path) -> None:
    content = "\ufeffone\r\n\r\n  two words \r\n\ndrei_äöü_图片\nfolder/four\n2007.000 1".encode()
    assert listed(tmp_path, content) == ["one", "two words", "drei_äöü_图片", "folder/four", "2007.000 1"]


def test_ids_of_vocs_two_column_lists_are_those_where_the_class_is_present(tmp_path: Path) -> None:
    assert listed(tmp_path, b"2008_000008 -1\n2008_000015  1\n2008_000019  0\n") == ["2008_000015", "2008_000019"]
    assert listed(tmp_path, b"a photo  1\na photo  2\n") == [
        "a photo  1",
        "a photo  2",
    ]  # no such list: ids with spaces


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "train.txt lists no image; wanted one id a line"),
        (b"\n \r\n", "train.txt lists no image; wanted one id a line"),
        (b"a\nb\n\na\n", "train.txt, line 4: id 'a' stands already on line 1; remove one of them"),
        (
            b"a\n../b\n",
            "train.txt, line 2: id '../b' could lead out of the data set; wanted a plain name",
        ),
        (
            b"/etc/passwd\n",
            "train.txt, line 1: id '/etc/passwd' is an absolute path; wanted a name inside the data set",
        ),
        (b"C:\\a\n", "train.txt, line 1: id 'C:\\\\a' is an absolute path; wanted a name inside the data set"),
        (b"a\0b\n", "train.txt, line 1: id 'a\\x00b' holds a control character"),
        (b"a\n\xff\xfe\n", "train.txt is not UTF-8 text (byte 2); save it as UTF-8"),
    ],
)
def test_ids_are_refused_with_file_and_line(tmp_path: Path, content: bytes, wanted: str) -> None:
    assert message(tmp_path, content) == wanted


@pytest.mark.parametrize("name", ["..", "a/../b", "./a", "a//b", "a/", "..\\a", "a/..", "/", "c:/a", "a\tb"])
def test_unsafe_ids(name: str) -> None:
    assert unsafe(name)


@pytest.mark.parametrize("name", ["a", "a/b", "..a", "a..b", "a b", "é", "c:", "2007_000001.v2"])
def test_safe_ids(name: str) -> None:
    assert unsafe(name) is None


def test_a_list_that_goes_on_gathers_every_fault(tmp_path: Path) -> None:
    path = tmp_path / "l.txt"
    path.write_text("a\n../x\nb\na\n/y\n")
    faults: list[str] = []
    assert read_ids(path, faults.append) == ["a", "b"]
    assert [fault.removeprefix(f"{path}, ").partition(":")[0] for fault in faults] == ["line 2", "line 4", "line 5"]


def test_a_split_is_a_name_in_the_data_set_before_it_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lists").mkdir()
    for name in ("lists/train.txt", "train", "mine.txt"):
        (tmp_path / name).write_text("a\n")
    monkeypatch.chdir(tmp_path)
    folders = (tmp_path / "absent", tmp_path / "lists")
    assert find_list("train", folders) == (tmp_path / "lists/train.txt", "train")
    assert find_list("mine.txt", folders) == (Path("mine.txt"), str(tmp_path / "mine.txt"))
    assert find_list("../lists/train", folders) is None
    assert find_list("lists", folders) is None  # a folder is no list


def test_images_are_indexed_by_path_without_ending(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "sub/c.v2.webp", "notes.txt", ".hidden.png", "masks/a.png", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    index = index_images(tmp_path, skip=("masks",))
    assert list(index) == ["a", "b", "sub/c.v2"]
    assert index["b"] == tmp_path / "b.JPG"
    (tmp_path / "a.tif").touch()
    with pytest.raises(DatasetError) as caught:
        index_images(tmp_path, skip=("masks",))
    assert str(caught.value) == f"{tmp_path}/a.tif and a.png have the same id 'a'; keep one of them"


def test_an_id_with_an_ending_is_explained(tmp_path: Path) -> None:
    looked = f"(looked for {', '.join(SUFFIXES)})"
    assert no_image("a", tmp_path) == f"id 'a' has no image in {tmp_path} {looked}"
    assert no_image("a.JPG", tmp_path).endswith(f"{looked}; ids are written without '.jpg'")


def test_classes(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("Background\ncat\n\ndining table\r\n")
    assert read_classes(path) == ("background", "cat", "dining table")
    path.write_text("cat\ndog\n")
    assert read_classes(path) == ("background", "cat", "dog")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cat\ndog\ncat\n", ": class 'cat' stands twice; every class needs a name of its own"),
        (
            "cat\nbackground\n",
            ": 'background' is class 2, but background is what belongs to no class, with index 0; "
            "put it first, leave it out, or give the class another name",
        ),
        ("", " names 0 classes; wanted 1 to 254"),
        ("background\n", " names 0 classes; wanted 1 to 254"),
        ("\n".join(map(str, range(255))), " names 255 classes; wanted 1 to 254"),
    ],
)
def test_classes_are_refused(tmp_path: Path, text: str, wanted: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(DatasetError) as caught:
        read_classes(path)
    assert str(caught.value) == f"{path}{wanted}"


def table(tmp_path: Path, text: str) -> dict[str, tuple[str, ...]]:
    (tmp_path / "tags.csv").write_bytes(text.encode())
    return {name: row.names for name, row in read_table(tmp_path / "tags.csv").rows.items()}


def test_a_tag_table_may_use_columns_or_semicolons(tmp_path: Path) -> None:
    text = '\ufeffid,tags\r\na,cat;dog\r\n\r\nb,cat,dog\r\n"c, d", cat ; dog ;\r\ne,\r\nf\r\ng,"dining table"\r\n'
    both = ("cat", "dog")
    assert table(tmp_path, text) == {"a": both, "b": both, "c, d": both, "e": (), "f": (), "g": ("dining table",)}
    assert table(tmp_path, "a,cat\nid,dog\n") == {"a": ("cat",), "id": ("dog",)}  # a heading can only be the first line


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a,cat\nb,dog\na,dog\n", "tags.csv, line 3: id 'a' stands already on line 1; remove one of them"),
        (
            "id,tags\n../a,cat\n",
            "tags.csv, line 2: id '../a' could lead out of the data set; wanted a plain name",
        ),
        ('a,cat\nb,"dog\n', "tags.csv, line 2: not CSV (unexpected end of data)"),
    ],
)
def test_a_tag_table_is_refused_with_its_line(tmp_path: Path, text: str, wanted: str) -> None:
    with pytest.raises(DatasetError) as caught:
        table(tmp_path, text)
    assert str(caught.value).replace(f"{tmp_path}/", "") == wanted


def test_unknown_classes_name_the_nearest_one() -> None:
    classes = ("background", "cat", "dog", "horse")
    assert tag_indices(["dog", "cat", "dog"], classes, "x") == (1, 2)
    with pytest.raises(DatasetError, match=r"^t.csv, line 3: unknown class 'dgo' \(did you mean 'dog'\?\)$"):
        tag_indices(["dgo"], classes, "t.csv, line 3")
    with pytest.raises(DatasetError, match=r"^x: unknown class 'background'; known: cat, dog, horse$"):
        tag_indices(["background"], classes, "x")
    faults: list[str] = []
    assert tag_indices(["zzz", "cat", "qqq"], classes, "x", faults.append) == (1,)
    assert len(faults) == 2


def tagged(tmp_path: Path) -> Dataset:
    tags = {"a": (1, 2), "b, c": (), "d": None}
    records = tuple(Record(name, tmp_path / f"{name}.png", value) for name, value in tags.items())
    return Dataset(
        "folder", tmp_path, "all", ("background", "cat", "dining table"), records, "csv", lambda record: NotImplemented
    )


def test_a_written_table_is_read_back(tmp_path: Path) -> None:
    file = io.StringIO()
    assert write_table(tagged(tmp_path), file) == 2
    assert file.getvalue() == 'id,tags\na,cat;dining table\n"b, c",\n'
    assert table(tmp_path, file.getvalue()) == {"a": ("cat", "dining table"), "b, c": ()}
    path = tmp_path / "new/tags.csv"
    assert save_table(tagged(tmp_path), path) == 2
    assert path.read_text() == file.getvalue()


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("old")
    dataset = tagged(tmp_path)
    unwritable = replace(dataset, records=(replace(dataset.records[0], id="no \ud800 text"),))
    before = set(tmp_path.iterdir())
    with pytest.raises(UnicodeEncodeError):
        save_table(unwritable, tmp_path / "tags.csv")
    assert (tmp_path / "tags.csv").read_text() == "old"
    assert set(tmp_path.iterdir()) == before


def test_a_table_replaces_a_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "tags.csv"
    path.write_text("old")
    assert save_table(tagged(tmp_path), path) == 2
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError) as caught:
        save_table(tagged(tmp_path), path)
    assert str(caught.value) == f"{path} is a folder and will not be replaced; choose another --out"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/a\xff.jpg"
    try:
        Path(os.fsdecode(path)).touch()
    except OSError:
        pytest.skip("this file system holds text names only")
    with pytest.raises(DatasetError) as caught:
        index_images(tmp_path)
    assert str(caught.value) == rf"'{tmp_path}/a\udcff.jpg': the file's name is not UTF-8; rename it"

"""Tag tables as people write them: names, one column a class, and what only looks like names."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pseudolabel.data import Dataset, load_dataset
from pseudolabel.data.tag_tables import read_table
from pseudolabel.errors import DatasetError, InputError

FORM = "wanted names separated by ';', such as cat;dog"
ONE_HOT = "a one-hot table has the heading id,CLASS,CLASS and cells of 0 and 1; names stand in a column called tags"


def load(root: Path, table: str, classes: str = "") -> Dataset:
    """A data set of images im1 and im2 with this table."""
    (root / "tags.csv").write_text(table, encoding="utf-8")
    (root / "images").mkdir(exist_ok=True)
    for name in ("im1", "im2"):
        Image.new("RGB", (3, 2)).save(root / f"images/{name}.png")
    if classes:
        (root / "classes.txt").write_text(classes)
    return load_dataset({"dataset": "folder", "root": root, "split": "train"})


def refusal(root: Path, table: str, classes: str = "") -> str:
    with pytest.raises(InputError) as caught:
        load(root, table, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{root}/", "")


@pytest.mark.parametrize(
    "table",
    [
        "id,cat,dog\nim1,1,0\nim2,0,1\n",
        "ID, cat , dog \nim1, 1, 0\nim2, 0, 1\n",
        "filename,cat,dog\nim1,1,0\nim2,0,1\n",
        "image,dog,cat\nim1,False,True\nim2,True,False\n",
        "id,cat,dog\nim1,1.0,0.0\nim2,0.0,1.0\n",
        "id,cat,dog,,\nim1,1,0,\nim2,0,1\n",
        "id,cat,dog,background\nim1,1,0,1\nim2,0,1,1\n",
        "id,tags\nim1,cat\nim2,dog\n",
        "image_name,labels\nim1,cat\nim2,dog\n",
        "id,animal\nim1,cat\nim2,dog\n",
        "id,cat,dog\nim1,cat,\nim2,,dog\n",
        "id,tags\nim1,cat;background\nim2,_background_;dog\n",
        "im1,cat\nim2,dog\n",
        "id,n/a\nim1,cat\nim2,dog\n",
    ],
)
def test_tables_that_mean_the_same(tmp_path: Path, table: str) -> None:
    dataset = load(tmp_path, table)
    assert dataset.classes == ("background", "cat", "dog")
    assert [record.tags for record in dataset.records] == [(1,), (2,)]


def test_one_hot_tables(tmp_path: Path) -> None:
    dataset = load(tmp_path, "id,lesion\nim1,1\nim2,0\n")
    assert (dataset.classes, [record.tags for record in dataset.records]) == (("background", "lesion"), [(1,), ()])
    dataset = load(tmp_path, "id,dog,cat,fox\nim1,1,1,0\nim2,0,0,0\n")
    assert dataset.classes == ("background", "cat", "dog", "fox")  # a class that no image has is one as well
    assert [record.tags for record in dataset.records] == [(1, 2), ()]
    dataset = load(tmp_path, "id,dog,cat\nim1,1,0\nim2,0,0\n", "dog\ncat\n")
    assert [record.tags for record in dataset.records] == [(1,), ()]


def test_background_in_a_table_is_left_out_and_told(tmp_path: Path) -> None:
    dataset = load(tmp_path, "id,tags\nim1,cat;background\nim2,background\n")
    assert [record.tags for record in dataset.records] == [(1,), ()]
    assert dataset.notes == (f"{tmp_path}/tags.csv: 'background' is no tag, and is left out of 2 rows",)


def test_names_that_look_the_same_are_the_same(tmp_path: Path) -> None:
    dataset = load(tmp_path, "im1,caf\u00e9\nim2,cafe\u0301\n")
    assert (dataset.classes, dataset.records[0].tags) == (("background", "caf\u00e9"), dataset.records[1].tags)


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ("id,tags\nim1,cat|dog\nim2,dog\n", f"line 2: 'cat|dog' holds '|'; {FORM}"),
        ('id,tags\nim1,"cat, dog"\nim2,dog\n', f"line 2: 'cat, dog' holds ','; {FORM}"),
        (
            "id,tags\nim1,\"['cat', 'dog']\"\nim2,['dog']\n",
            f"line 2: \"['cat', 'dog']\" is no class name; {FORM}, without brackets and quotes",
        ),
        ("im1,dog\nim2,['dog']\n", f"line 2: \"['dog']\" is no class name; {FORM}, without brackets and quotes"),
        ("im1,dog\nim2,cat dog;cat\n", f"line 2: 'cat dog' is made of other classes' names; {FORM}"),
        ("im1,cat/dog\nim2,dog/fox;fox/cat\n", f"line 1: 'cat/dog' is made of other classes' names; {FORM}"),
        ("im1,dog\nim2,cat and dog;cat\n", f"line 2: 'cat and dog' is made of other classes' names; {FORM}"),
        ("im1,cat:0.9;dog:0.1\nim2,dog\n", f"line 1: 'cat:0.9' ends in a number; {FORM}"),
        ("im1,cat\nim2,Cat\n", "line 2: class 'Cat' stands beside 'cat'; write it in one way"),
        (
            "im1,polar bear\nim2,polar  bear\n",
            "line 2: class 'polar  bear' stands beside 'polar bear'; write ",
        ),
        ("im1,cat\nim2,cat\u200b\n", "line 2: class 'cat\\u200b' stands beside 'cat'; write it in one way"),
        ("id,label\nim1,1\nim2,0\n", f"line 2: '1' is a number and no class name; {ONE_HOT}"),
    ],
)
def test_names_that_nobody_means_are_refused(tmp_path: Path, table: str, wanted: str) -> None:
    found = refusal(tmp_path, table)
    assert found.startswith(f"tags.csv, {wanted}")
    assert found.endswith(" (if it is a class, name all classes in classes.txt)")


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ("im1,1,0\nim2,0,1\n", f" holds cells of 0 and 1 only, and no heading that names their classes; {ONE_HOT}"),
        ("id,cat,dog\nim1,1,0\nim2,0,2\n", f", line 3: column 'dog' holds '2'; {ONE_HOT}"),
        ("id,cat,dog\nim1,1,0\nim2,0.7,1\n", f", line 3: column 'cat' holds '0.7'; {ONE_HOT}"),
        ("id,cat,dog\nim1,1,\nim2,0,1\n", f", line 2: column 'dog' holds ''; {ONE_HOT}"),
        ("id,cat,dog\nim1,x,\nim2,,x\n", f", line 2: column 'cat' holds 'x'; {ONE_HOT}"),
        ("id;cat;dog\nim1;1;0\n", " separates its columns by ';'; wanted commas"),
        ("id,cat,dog\nim1,1\nim2,0,1\n", f", line 2 has 2 cells, its heading 3; {ONE_HOT}"),
        ("id,cat,cat\nim1,1,0\nim2,0,1\n", ": its heading names class 'cat' twice; remove one of the columns"),
        (
            "id,tags,split\nim1,cat,train\nim2,dog,val\n",
            ": column 'split' holds neither class names nor cells of 0 and 1 of a class; remove it "
            f"({FORM}; {ONE_HOT})",
        ),
    ],
)
def test_columns_that_are_no_tags_are_refused(tmp_path: Path, table: str, wanted: str) -> None:
    assert refusal(tmp_path, table) == f"tags.csv{wanted}"


def test_a_list_of_classes_allows_every_name(tmp_path: Path) -> None:
    classes = "cat, big\nCat\ncat|dog\n1\ncat dog\ncat\ndog"
    dataset = load(tmp_path, 'id,tags\nim1,"Cat;cat, big;1"\nim2,cat|dog;cat dog\n', classes)
    assert [record.tags for record in dataset.records] == [(1, 2, 4), (3, 5)]
    assert refusal(tmp_path, "im1,cat|dog\n", "cat\ndog\n") == f"tags.csv, line 1: 'cat|dog' holds '|'; {FORM}"


def test_a_heading_without_anything_below_it(tmp_path: Path) -> None:
    assert [record.tags for record in load(tmp_path, "id,cat\nim1,\nim2,\n").records] == [(), ()]


def test_an_empty_table_is_one(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("")
    assert read_table(tmp_path / "tags.csv").rows == {}
    (tmp_path / "tags.csv").write_text('id,tags\na,"b\n')
    with pytest.raises(DatasetError, match="not CSV"):
        read_table(tmp_path / "tags.csv")


def test_long_cells_take_no_time(tmp_path: Path) -> None:
    for cell in (":" + "1" * 100_000 + "x", "1" * 100_000 + "x"):
        assert load(tmp_path, f"id,tags\nim1,{cell}\nim2,\n").classes == ("background", cell)
        with pytest.raises(DatasetError, match="holds neither class names nor cells of 0 and 1"):
            load(tmp_path, f"id,tags,split\nim1,cat,{cell}\nim2,,\n")

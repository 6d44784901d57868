"""The VOC layout: lists, tags from annotations, tables and masks, and all that can be wrong with them."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data import Dataset, load_dataset
from pseudolabel.data.image_files import SUFFIXES
from pseudolabel.data.layouts.voc import CLASSES
from pseudolabel.errors import DatasetError, InputError

BOMB = """<?xml version="1.0"?>
<!DOCTYPE bomb [<!ENTITY a "lollollol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<annotation><object><name>&c;</name></object></annotation>"""


def annotate(root: Path, name: str, *objects: str, text: str | None = None) -> Path:
    path = root / "Annotations" / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    inner = "".join(f"<object><name>{label}</name></object>" for label in objects)
    path.write_text(text if text is not None else f"<annotation>{inner}</annotation>")
    return path


def mask(root: Path, name: str, values: list[list[int]], folder: str = "SegmentationClass") -> Path:
    path = root / folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images, ``a`` with a cat and a dog, ``b c`` with nothing."""
    for folder in ("JPEGImages", "ImageSets/Segmentation", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a.jpg", "b c.PNG"):
        Image.new("RGB", (3, 2)).save(tmp_path / "JPEGImages" / name)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\nb c\n")
    annotate(tmp_path, "a", "dog", "cat", "dog")
    annotate(tmp_path, "b c")
    mask(tmp_path, "a", [[0, 8, 8], [255, 12, 0]])
    return tmp_path


def load(root: Path, **changes: object) -> Dataset:
    return load_dataset({"dataset": "voc", "root": root, "split": "train"} | changes)


def refusal(root: Path, **changes: object) -> str:
    with pytest.raises(InputError) as caught:
        load(root, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{root}/", "").replace(str(root), "ROOT")


def test_records_tags_and_masks(root: Path) -> None:
    dataset = load(root)
    assert dataset.classes == CLASSES
    assert [(record.id, record.image.name, record.tags) for record in dataset.records] == [
        ("a", "a.jpg", (8, 12)),
        ("b c", "b c.PNG", ()),
    ]
    assert (dataset.tag_source, dataset.oracle, dataset.split) == ("xml", (), "train")
    np.testing.assert_array_equal(dataset.read_mask(dataset.records[0]), [[0, 8, 8], [255, 12, 0]])
    assert dataset.records[1].mask is None
    with pytest.raises(
        DatasetError, match=r"b c\.PNG has no ground-truth mask; evaluation and tags from masks need one$"
    ):
        dataset.read_mask(dataset.records[1])


def test_difficult_objects_are_tags_and_parts_are_not(root: Path) -> None:
    text = (
        "<annotation><object><name> person </name><difficult>1</difficult><part><name>head</name></part></object>"
        "<object><part><name>hand</name></part><name>cow</name></object></annotation>"
    )
    annotate(root, "a", text=text)
    assert load(root).records[0].tags == (10, 15)


def test_an_image_without_annotation_has_unknown_tags(root: Path) -> None:
    (root / "Annotations/a.xml").unlink()
    assert load(root).records[0].tags is None
    shutil.rmtree(root / "Annotations")
    assert [record.tags for record in load(root, tag_source="xml").records] == [None, None]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (BOMB, "Annotations/a.xml declares XML entities, which are refused as unsafe; remove its DOCTYPE"),
        ("", "Annotations/a.xml is not XML (no element found: line 1, column 0); replace or remove it"),
        (
            "<annotation><object>",
            "Annotations/a.xml is not XML (no element found: line 1, column 20); replace or remove it",
        ),
        ("<html/>", "Annotations/a.xml is no VOC annotation: its root is <html>, wanted <annotation>"),
        ("<annotation><object><x/></object></annotation>", "Annotations/a.xml: object 1 has no <name>"),
        (
            "<annotation><object><name>dgo</name></object></annotation>",
            "Annotations/a.xml: unknown class 'dgo' (did you mean 'dog'?)",
        ),
        (
            "<annotation><object><name>zebra?</name></object></annotation>",
            "Annotations/a.xml: unknown class 'zebra?'; known: aeroplane, bicycle, bird, boat, bottle, bus ...",
        ),
    ],
)
def test_bad_annotations_are_named(root: Path, text: str, wanted: str) -> None:
    annotate(root, "a", text=text)
    assert refusal(root) == wanted


def test_entities_of_other_files_are_refused(root: Path, tmp_path: Path) -> None:
    text = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{tmp_path}/classes.txt">]><annotation>&x;</annotation>'
    annotate(root, "a", text=text)
    assert refusal(root) == "Annotations/a.xml declares XML entities, which are refused as unsafe; remove its DOCTYPE"


def test_own_classes_replace_vocs(root: Path) -> None:
    (root / "classes.txt").write_text("dog\ncat\n")
    dataset = load(root)
    assert dataset.classes == ("background", "dog", "cat")
    assert dataset.records[0].tags == (1, 2)
    with pytest.raises(DatasetError, match=r"a\.png holds label 8; wanted 0 to 2, or 255 for ignore; --mask-values"):
        dataset.read_mask(dataset.records[0])


def test_tags_from_a_table(root: Path, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("id,tags\na,sheep;cat\n")
    dataset = load(root, tags_file=table)
    assert [record.tags for record in dataset.records] == [(8, 17), None]
    assert (dataset.tag_source, dataset.tags_file) == ("csv", table)
    assert load_dataset(dataset.spec()).records == dataset.records
    table.write_text("id,tags\na,sheep\nx,shep\n")
    assert refusal(root, tags_file=table) == "mine.csv, line 3: unknown class 'shep' (did you mean 'sheep'?)"
    (root / "tags.csv").write_text("a,cow\n")
    assert load(root).tag_source == "xml"
    assert load(root, tag_source="csv").records[0].tags == (10,)


def test_tags_from_masks_are_an_oracle_and_must_be_asked_for(root: Path) -> None:
    dataset = load(root, tag_source="masks")
    assert [record.tags for record in dataset.records] == [(8, 12), None]
    assert dataset.oracle == ("image tags read from pixel masks",)
    mask(root, "a", [[0, 21, 8]])
    assert (
        refusal(root, tag_source="masks")
        == "SegmentationClass/a.png holds label 21; wanted 0 to 20, or 255 for ignore; "
        "--mask-values and --ignore-value say what other values mean"
    )


def test_tag_sources_that_contradict(root: Path) -> None:
    assert refusal(root, tag_source="csv") == "--tag-source csv needs --tags-file, or a tags.csv in ROOT"
    assert (
        refusal(root, tag_source="folders")
        == "--tag-source folders is not for --dataset voc; wanted auto, xml, csv, masks"
    )
    wanted = "--tags-file is not read with --tag-source xml; leave one of them out"
    assert refusal(root, tag_source="xml", tags_file=root / "tags.csv") == wanted
    assert refusal(root, tags_file=root / "tags.csv") == "tags.csv cannot be read: No such file or directory"


def test_masks_fall_back_to_the_augmented_set(root: Path) -> None:
    mask(root, "a", [[1, 1, 1]], "SegmentationClassAug")
    mask(root, "b c", [[2, 2, 2]], "SegmentationClassAug")
    dataset = load(root)
    assert [dataset.read_mask(record)[0, 1] for record in dataset.records] == [8, 2]


def test_lists(root: Path) -> None:
    (root / "ImageSets/Main/cat_val.txt").write_text("a  1\nb c -1\n".replace("b c", "b_c"))
    assert [record.id for record in load(root, split="cat_val").records] == ["a"]
    mine = root / "mine.txt"
    mine.write_bytes("\ufeffb c\r\n\r\na\r\n".encode())
    dataset = load(root, split=str(mine))
    assert [record.id for record in dataset.records] == ["b c", "a"]
    assert dataset.split == str(mine)
    assert refusal(root, split="tset") == (
        "--split tset: no such list in ImageSets/Segmentation or ImageSets/Main, and no file of that name; "
        "known here: cat_val, train"
    )


def test_ids_may_hold_folders_and_unicode(root: Path) -> None:
    (root / "JPEGImages/süd/x").mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(root / "JPEGImages/süd/x/日 1.webp")
    annotate(root, "placeholder")
    (root / "Annotations/süd/x").mkdir(parents=True)
    annotate(root, "süd/x/日 1", "bird")
    (root / "ImageSets/Segmentation/train.txt").write_text("süd/x/日 1\n")
    (record,) = load(root).records
    assert (record.id, record.tags) == ("süd/x/日 1", (3,))


def test_bad_lists(root: Path) -> None:
    name = "ImageSets/Segmentation/train.txt"
    looked = f"has no image in JPEGImages (looked for {', '.join(SUFFIXES)})"
    for text, wanted in {
        "a\nnone\n": f"id 'none' {looked}",
        "a.jpg\n": f"id 'a.jpg' {looked}; ids are written without '.jpg'",
        "a\n\na\n": f"{name}, line 3: id 'a' stands already on line 1; remove one of them",
        "../x\n": f"{name}, line 1: id '../x' could lead out of the data set; wanted a plain name",
        "": f"{name} lists no image; wanted one id a line",
    }.items():
        (root / name).write_text(text)
        assert refusal(root) == wanted
    Image.new("RGB", (3, 2)).save(root / "JPEGImages/a.png")
    assert refusal(root) == "JPEGImages/a.png and a.jpg have the same id 'a'; keep one of them"


def test_a_wrong_root_is_explained(root: Path, tmp_path: Path) -> None:
    devkit = tmp_path / "devkit"
    (devkit / "VOC2012/JPEGImages").mkdir(parents=True)
    assert refusal(devkit) == "ROOT has no folder JPEGImages; did you mean --root VOC2012?"
    assert refusal(root / "ImageSets").endswith(
        "has no folder JPEGImages; wanted the VOC layout, or --dataset folder for photographs in any folder"
    )
    assert refusal(root / "nowhere").endswith("does not exist; pass --root with the folder's place now")


def test_a_data_set_can_be_sent_to_another_process(root: Path) -> None:
    dataset = load(root)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.records == dataset.records
    np.testing.assert_array_equal(copy.read_mask(copy.records[0]), dataset.read_mask(dataset.records[0]))


def test_real_photographs(voc_mini: Path) -> None:
    weak = load(voc_mini, split="val")
    assert len(weak.records) == 100
    assert weak.records == load(voc_mini, split="val", tag_source="masks").records  # its boxes were derived from masks
    assert weak.read_mask(weak.records[0]).shape == (437, 480)

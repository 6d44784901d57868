"""What the values in mask files mean: as the user says, or class indices with 255 ignored."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pseudolabel.data import Dataset, load_dataset
from pseudolabel.data.check import check_dataset
from pseudolabel.data.opening import restated
from pseudolabel.errors import InputError
from pseudolabel.options import DataCheckOptions
from pseudolabel.options.fields import validated
from tests.helpers.voc import array, save


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images of cats and dogs in a folder; the masks hold other values than their indices."""
    for name, tag, values in (("a", "cat", [[0, 128, 255]]), ("b", "dog", [[7, 0, 254]])):
        save(tmp_path / f"masks/{name}.png", array(values))
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (3, 1)).save(tmp_path / f"images/{name}.png")
        with (tmp_path / "tags.csv").open("a") as file:
            file.write(f"{name},{tag}\n")
    return tmp_path


def load(root: Path, **changes: Any) -> Dataset:
    options = validated(DataCheckOptions, {"dataset": "folder", "root": root} | changes, where="data check")
    return load_dataset(options.model_dump())


def masks(dataset: Dataset) -> list[list[int]]:
    return [dataset.read_mask(record)[0].tolist() for record in dataset.records]


def refusal(root: Path, **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        masks(load(root, **changes))
    return str(caught.value).replace(f"{root}/", "")


def test_values_stand_for_classes_by_name(root: Path) -> None:
    dataset = load(root, mask_values="128=cat, 7=dog", ignore_value="254,255")
    assert masks(dataset) == [[0, 1, 255], [2, 0, 255]]
    assert masks(load_dataset(dataset.spec())) == masks(dataset)
    assert {name: dataset.spec()[name] for name in ("mask_values", "ignore_value")} == {
        "mask_values": ["128=cat", "7=dog"],
        "ignore_value": [254, 255],
    }
    assert masks(load(root, mask_values={128: "dog", 255: "dog", 7: "cat", 254: "background"})) == [
        [0, 2, 2],
        [1, 0, 0],
    ]


def test_what_a_stage_says_of_values_leaves_what_it_does_not_say(root: Path) -> None:
    """Else the other option, stored with the data set, would be forgotten and values mean other classes."""
    spec = load(root, mask_values="128=dog,7=cat", ignore_value="254,255").spec()
    for given, wanted in (
        ({"mask_values": None, "ignore_value": None}, spec),
        ({"mask_values": None, "ignore_value": (255,)}, {**spec, "ignore_value": (255,)}),
        ({"mask_values": ("7=dog",), "ignore_value": None}, {**spec, "mask_values": ("7=dog",)}),
    ):
        assert restated(spec, SimpleNamespace(**given)) == wanted


def test_255_is_ignored_unless_it_stands_for_a_class(root: Path) -> None:
    assert masks(load(root, mask_values="128=cat,7=dog,254=dog"))[0] == [0, 1, 255]
    assert masks(load(root, mask_values="255=cat,7=dog,254=dog,128=background"))[0] == [0, 0, 1]


def test_0_may_be_ignored(root: Path) -> None:
    assert masks(load(root, mask_values="128=cat,255=cat,7=dog,254=dog", ignore_value=0)) == [[255, 1, 1], [2, 255, 2]]


def test_an_ignored_value_alone_leaves_the_indices(root: Path) -> None:
    save(root / "masks/a.png", array([[0, 1, 254]]))
    save(root / "masks/b.png", array([[0, 2, 254]]))
    assert masks(load(root, ignore_value=254)) == [[0, 1, 255], [0, 2, 255]]
    save(root / "masks/b.png", array([[0, 2, 255]]))
    assert refusal(root, ignore_value=254) == (
        "masks/b.png holds value 255, which --mask-values and --ignore-value give no meaning; "
        "those that have one: 0, 1, 2, 254"
    )


def test_values_without_a_meaning_are_refused(root: Path) -> None:
    assert refusal(root, mask_values="128=cat") == (
        "masks/b.png holds value 7, which --mask-values and --ignore-value give no meaning; "
        "those that have one: 0, 128, 255"
    )
    assert refusal(root) == (
        "masks/a.png holds label 128; wanted 0 to 2, or 255 for ignore; "
        "--mask-values and --ignore-value say what other values mean"
    )


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"mask_values": "128=cta"}, "--mask-values 128=cta: no such class (did you mean 'cat'?); "),
        (
            {"mask_values": "128=cat", "ignore_value": "128"},
            "--mask-values and --ignore-value both name 128; a value is a class or ignored",
        ),
        (
            {"mask_values": "cat=128"},
            "data check: --mask-values: wanted VALUE=CLASS[,VALUE=CLASS...] with ",
        ),
        (
            {"mask_values": "256=cat"},
            "data check: --mask-values: wanted VALUE=CLASS[,VALUE=CLASS...] with ",
        ),
        ({"mask_values": "1=cat,1=dog"}, "data check: --mask-values: value 1 stands for two classes"),
        ({"ignore_value": "256"}, "data check: --ignore-value: "),
        (
            {"dataset": "coco", "ignore_value": "254"},
            "--mask-values and --ignore-value are for masks that lie in files; --dataset coco draws its ground truth ",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(root: Path, changes: dict[str, Any], wanted: str) -> None:
    assert refusal(root, **changes).startswith(wanted)


def test_images_whose_masks_are_all_background_have_no_tags(root: Path) -> None:
    (root / "classes.txt").write_text("cat\n")
    (root / "tags.csv").write_text("a,\nb,\n")
    for name in "ab":
        save(root / f"masks/{name}.png", array([[0, 0, 0]]))
    dataset = load(root, tag_source="masks")
    assert [record.tags for record in dataset.records] == [(), ()]
    assert dataset.notes == (
        f"the 2 masks of split train of {root} hold background alone, so that its images have none of the classes",
    )


def test_a_mask_in_another_format_is_one_problem(root: Path) -> None:
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "masks/a.png").unlink()
    save(root / "masks/a.jpg", array([[0, 1, 2]]))
    wanted = [
        "1 mask with the ending .jpg (first: masks/a.jpg); lossy compression alters class indices: make them anew as "
        "8-bit palette or grey PNG"
    ]
    for source in ("csv", "masks"):
        about = {"dataset": "folder", "root": root, "workers": 0, "tag_source": source, "mask_values": "7=dog"}
        found = check_dataset(validated(DataCheckOptions, about | {"ignore_value": "254"}, where="data check"))
        assert [line.replace(f"{root}/", "") for line in found["problems"] if ".jpg" in line] == wanted


def test_tags_from_masks_without_a_class_are_refused(root: Path) -> None:
    (root / "classes.txt").write_text("cat\n")
    (root / "tags.csv").write_text("a,cat\nb,cat\n")
    for name in "ab":
        save(root / f"masks/{name}.png", array([[0, 255, 255]]))
    assert refusal(root, tag_source="masks").endswith(
        "holds background and ignored pixels and no class in 2 images; "
        "if 255 stands for a class in its masks, pass --mask-values 255=cat"
    )
    assert [record.tags for record in load(root, tag_source="masks", mask_values="255=cat").records] == [(1,), (1,)]
    assert np.unique(load(root, mask_values="255=cat").read_mask(load(root).records[0])).tolist() == [0, 1]

"""data split: which images are drawn, that lists nest, and what is refused."""

import numpy as np
import pytest

from pseudolabel.cli.app import main
from pseudolabel.data import load_dataset
from pseudolabel.data.balanced_lists import draw_balanced, draw_list
from pseudolabel.data.lists import read_ids
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import DataSplitOptions
from tests.helpers.training import Listening


def by_hand(tags, count, seed):
    """The rule as it is stated, without queues."""
    left = np.random.default_rng((seed, 4)).permutation(len(tags)).tolist()
    found = []
    while len(found) < count:
        best = None
        for label in sorted({label for index in left for label in tags[index]}):
            had = sum(label in tags[index] for index in found)
            key = (had, sum(label in tags[index] for index in left), label)
            best = key if best is None else min(best, key)
        chosen = next(index for index in left if best is None or best[2] in tags[index])
        found.append(chosen)
        left.remove(chosen)
    return found


def test_the_rarest_class_is_served_first():
    # Class 2 has one image and comes first, then class 1 by chance; class 1 again, as class 2 has no image left.
    tags = [(1,), (1,), (2,), (1,), ()]
    drawn = draw_balanced(tags, 5, seed=0)
    assert drawn[0] == 2
    assert sorted(drawn[1:4]) == [0, 1, 3]
    assert drawn[4] == 4  # without a tag
    # An image of both classes serves both: class 3 is then the only one that nothing drawn has.
    assert draw_balanced([(1, 2), (3,), (3,), (3,)], 2, seed=0)[0] == 0
    assert draw_balanced([(1, 2), (3,), (3,), (3,)], 2, seed=0)[1] in (1, 2, 3)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_slow_rule_and_lists_nest(seed):
    rng = np.random.default_rng(seed)
    tags = [tuple(np.flatnonzero(rng.random(7) < 0.2) + 1) for _ in range(40)]
    whole = draw_balanced(tags, 40, seed)
    assert whole == by_hand(tags, 40, seed)
    assert sorted(whole) == list(range(40))
    assert draw_balanced(tags, 11, seed) == whole[:11]
    assert draw_balanced(tags, 40, seed + 1) != whole
    counts = np.array([sum(label in tags[index] for index in whole[:14]) for label in range(1, 8)])
    assert counts.min() >= 2  # two rounds over seven classes


def test_no_more_are_drawn_than_there_are():
    with pytest.raises(InputError, match=r"^3 images cannot be drawn from 2$"):
        draw_balanced([(1,), (2,)], 3, seed=0)


def test_the_command_writes_a_list_that_is_a_split(synthetic_root, tmp_path, capsys):
    out = tmp_path / "new" / "masks.txt"
    words = ["data", "split", "--root", str(synthetic_root), "--masks", "3", "--out", str(out), "--quiet"]
    assert main(words) == 0
    assert "images" in capsys.readouterr().out
    about = {"dataset": "voc", "root": synthetic_root}
    records = load_dataset({**about, "split": "train"}).records
    ids = read_ids(out)
    assert ids == [records[index].id for index in draw_balanced([record.tags for record in records], 3, 0)]
    assert [record.id for record in load_dataset({**about, "split": str(out)}).records] == ids
    result = draw_list(DataSplitOptions(**about, masks=3, out=out), Listening())
    assert (result["images"], result["rest"], result["oracle"]) == (3, 5, [])
    assert sum(result["counts"].values()) == sum(len(record.tags) for record in records if record.id in ids)


def test_what_cannot_be_drawn_is_refused_in_one_line(synthetic_root, tmp_path):
    about = {"dataset": "voc", "root": synthetic_root, "out": tmp_path / "list.txt"}
    with pytest.raises(DatasetError) as error:
        draw_list(DataSplitOptions(**about, masks=8))
    assert str(error.value) == (
        f"split train of {synthetic_root} has 8 images, and --masks 8 would leave none without a mask; "
        "pass a smaller number"
    )
    table = tmp_path / "tags.csv"
    table.write_text("id,tags\n")
    with pytest.raises(DatasetError) as error:
        draw_list(DataSplitOptions(**about, masks=2, tags_file=table))
    first = load_dataset({"dataset": "voc", "root": synthetic_root, "split": "train"}).records[0].id
    assert str(error.value) == (
        f"8 images of {synthetic_root} have no tags (first: {first}); a list is balanced by image tags: put them into "
        "a tags.csv there, give --tags-file, or --tag-source masks, which is marked oracle"
    )
    assert not about["out"].exists()


def test_tags_from_masks_are_oracle_and_said_so(synthetic_root, tmp_path):
    listener = Listening()
    options = DataSplitOptions(
        dataset="voc", root=synthetic_root, out=tmp_path / "list.txt", masks=2, tag_source="masks"
    )
    assert draw_list(options, listener)["oracle"] == ["image tags read from pixel masks"]
    assert listener.warnings[0] == "oracle: image tags read from pixel masks"

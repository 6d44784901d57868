"""``inspect``: what an artefact says of itself, where it came from, and whether it is what was written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pseudolabel.artefacts import Input, MapsWriter, read_header
from pseudolabel.artefacts.checks import REQUIRED
from pseudolabel.artefacts.inspection import describe_artefact, lineage, verify
from pseudolabel.cli.app import main
from pseudolabel.errors import ArtefactError
from tests.helpers import kinds as kinds


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """CAMs, thresholds made of them, soft labels made of both, and masks in a folder."""
    data = tmp_path / "voc"
    data.mkdir()
    dataset = Input("dataset", str(data), "ab" * 32)
    cams = read_header(kinds.make("cams", tmp_path / "cams.h5", inputs=(dataset,)))
    made_of_cams = Input("cams", "cams.h5", cams.digest)
    threshold = read_header(kinds.make("thresholds", tmp_path / "threshold.h5", inputs=(made_of_cams,)))
    inputs = (made_of_cams, Input("thresholds", "threshold.h5", threshold.digest), dataset)
    soft = read_header(kinds.make("soft-labels", tmp_path / "soft.h5", inputs=inputs))
    (tmp_path / "masks").mkdir()
    return kinds.make(
        "masks", tmp_path / "masks" / "masks.h5", inputs=(Input("soft-labels", "../soft.h5", soft.digest),)
    )


@pytest.mark.parametrize("kind", list(REQUIRED))
def test_every_kind_is_described_in_full(kind: str, tmp_path: Path) -> None:
    path = kinds.make(kind, tmp_path / "x.h5")
    found = json.loads(json.dumps(describe_artefact(path)))
    assert found["path"] == str(path)
    assert found["bytes"] == path.stat().st_size
    assert found["kind"] == kind
    assert found["stage"] == kinds.STAGES[kind]
    assert found["classes"] == ["background", "cat", "dog"]
    assert found["inputs"] == [{"kind": "dataset", "path": "/data/voc", "digest": "ab" * 32}]
    assert found["cost"]["images"] == 3
    assert {"python", "numpy", "h5py", "cores"} <= found["environment"].keys()
    stored = {array["name"] for array in found["arrays"]}
    assert all(name in stored or any(other.startswith(name + "/") for other in stored) for name in REQUIRED[kind])
    assert found.get("images") == (3 if "images/id" in stored else None)
    assert found.get("maps") == (sum(map(len, kinds.MAPS[kind])) if kind in kinds.MAPS else None)


def test_arrays_state_shape_type_and_sizes(tmp_path: Path) -> None:
    found = describe_artefact(kinds.make("cams", tmp_path / "x.h5"))
    values = next(array for array in found["arrays"] if array["name"] == "maps/values")
    assert values["shape"] == [4 + 6 + 9]
    assert values["type"] == "float16"
    assert values["bytes"] == 2 * 19
    assert 0 < values["stored_bytes"] < 200


def test_skipped_images_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with MapsWriter(tmp_path / "x.h5", kinds.header("masks"), kinds.IMAGES, dtype="uint8") as writer:
        writer.skip(0, "a.jpg is truncated")
        writer.add(1, np.zeros((5, 7)))
        writer.add(2, np.zeros((6, 6)))
    assert describe_artefact(tmp_path / "x.h5")["skipped"] == {"a": "a.jpg is truncated"}
    assert main(["inspect", str(tmp_path / "x.h5")]) == 0
    assert "skipped a: a.jpg is truncated" in capsys.readouterr().out


def test_lineage_follows_inputs_to_the_data_set(chain: Path) -> None:
    found = lineage(chain)
    assert (found["kind"], found["state"]) == ("masks", "found")
    (soft,) = found["inputs"]
    assert soft["path"] == str(chain.parents[1] / "soft.h5")
    assert [(item["kind"], item["state"]) for item in soft["inputs"]] == [
        ("cams", "found"),
        ("thresholds", "found"),
        ("dataset", "recorded"),
    ]
    cams, threshold, _ = soft["inputs"]
    assert [(item["kind"], item["state"]) for item in cams["inputs"]] == [("dataset", "recorded")]
    assert [(item["kind"], item["state"]) for item in threshold["inputs"]] == [("cams", "above")]


def test_lineage_moves_with_the_folder(chain: Path, tmp_path: Path) -> None:
    folder = chain.parents[1]
    shutil.copytree(folder, tmp_path / "moved")
    for name in ("cams.h5", "soft.h5"):
        (folder / name).unlink()
    found = lineage(tmp_path / "moved" / "masks" / "masks.h5")
    assert found["inputs"][0]["state"] == "found"


def test_lineage_says_what_is_missing_and_what_has_changed(chain: Path) -> None:
    folder = chain.parents[1]
    kinds.make("thresholds", folder / "threshold.h5", facts={"made": "anew"})
    (folder / "cams.h5").unlink()
    (folder / "voc").rmdir()
    (soft,) = lineage(chain)["inputs"]
    assert [(item["kind"], item["state"]) for item in soft["inputs"]] == [
        ("cams", "missing"),
        ("thresholds", "changed"),
        ("dataset", "missing"),
    ]
    (folder / "threshold.h5").write_text("text")
    assert lineage(chain)["inputs"][0]["inputs"][1]["state"] == "changed"


def test_lineage_ends_where_artefacts_name_each_other(tmp_path: Path) -> None:
    """No stage makes such files; a forged one must not make the program run for ever."""
    digest = read_header(kinds.make("cams", tmp_path / "b.h5")).digest
    kinds.make("cams", tmp_path / "a.h5", inputs=(Input("cams", "b.h5", digest),))
    (tmp_path / "b.h5").unlink()
    kinds.make("cams", tmp_path / "b.h5", inputs=(Input("cams", "a.h5", digest),))
    found = lineage(tmp_path / "a.h5")
    assert [item["state"] for item in found["inputs"]] == ["above"]


def test_verify_recomputes_the_digest(chain: Path) -> None:
    stated = read_header(chain).digest
    assert verify(chain) == stated
    with h5py.File(chain, "r+") as file:
        file["maps/values"][3] = 2
    with pytest.raises(ArtefactError) as caught:
        verify(chain)
    said = str(caught.value)
    assert said.startswith(f"{chain} was altered: its data have digest ")
    assert said.endswith(f", it states {stated[:12]}; make it again")


# The command


def test_the_tree_names_everything_of_interest(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(chain), "--lineage", "--verify"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for words in (
        f"{chain}: masks",
        "stage: export-masks",
        "the digest was recomputed and is right",
        "oracle: image tags read from pixel masks",
        "tag filter: image tags",
        f"soft-labels: {chain.parents[1]}/soft.h5 by refine-crf",
        "(above)",
        "classes: background, cat, dog",
        "values: 103 uint8",
    ):
        assert words in shown.out, words


def test_scores_are_shown_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"miou": 0.5, "labelled_share": 1.0, "interval": [0.4, 0.6]}
    facts = {
        **figures,
        "iou": {"background": 0.75, "cat": 0.25, "dog": None},
        "images": 3,
        "unfiltered": figures,
        "tag_filtered": figures | {"miou": 0.625},
        "worst": [{"id": "a", "miou": 0.125}],
        "protocol": {"split": "val", "ids_sha256": "ab" * 32},
    }
    path = kinds.make("scores", tmp_path / "x.h5", facts=facts)
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    for words in ("mIoU 50.0 %, 95 % interval 40.0 to 60.0, 3 images", "without image tags", "62.5", "worst: a 12.5"):
        assert words in shown


def test_json_is_one_document(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(chain), "--json", "--lineage", "--verify"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verified"] is True
    assert found["lineage"]["inputs"][0]["kind"] == "soft-labels"
    assert main(["inspect", str(chain), "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys().isdisjoint({"verified", "lineage"})


def test_an_altered_file_is_exit_code_2_and_one_line(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(chain, "r+") as file:
        file["maps/values"][3] = 2
    for words in ([], ["--verify"]):  # of small files the digest is always recomputed
        assert main(["inspect", str(chain), *words]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith(f"error: {chain} was altered")
        assert len(shown.err.splitlines()) == 1


def test_no_torch_is_imported(chain: Path) -> None:
    code = f"""
import sys
from pseudolabel.cli.app import main
assert main(["inspect", {str(chain)!r}, "--lineage", "--verify"]) == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

"""``compare``: what runs took, and in what runs were not measured alike."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pseudolabel.artefacts import read_header
from pseudolabel.artefacts.attributes import attribute
from pseudolabel.cli.app import main
from pseudolabel.runs.comparison import HEADLINES, compare_runs
from pseudolabel.runs.report import tables
from pseudolabel.runs.report.page import write_report
from tests.helpers import kinds
from tests.helpers.runs import compared, multi_stage, stage, write_data


def test_cost_is_the_artefacts_and_adds_up(made: Path) -> None:
    cost = compared(made / "multi")["cost"]
    rows = {row["artefact"]: row for row in cost["stages"]}
    assert "ten/soft.h5" not in rows  # predict-masks wrote it; its masks state the cost of both
    for name, row in rows.items():
        header = read_header(made / "multi" / name)
        assert row["stage"] == header.stage
        for key in ("wall_seconds", "cpu_seconds", "peak_memory_bytes"):
            assert row[key] == header.cost[key]
    assert rows["one.h5"]["bytes"] == (made / "multi/one.h5").stat().st_size
    folder = [path for path in (made / "multi/seven").rglob("*") if path.is_file()]
    assert len(folder) == 5  # masks.h5 and four PNGs
    assert rows["seven/masks.h5"]["bytes"] == sum(path.stat().st_size for path in folder)
    for key, chosen in (("total", set(rows)), ("to_segmenter", set(rows) - {
        "four/masks.h5", "five.h5", "eight.h5", "ten/masks.h5", "eleven.h5"})):  # fmt: skip
        kept = [rows[name] for name in chosen]
        assert cost[key]["stages"] == len(kept)
        assert cost[key]["wall_seconds"] == pytest.approx(sum(row["wall_seconds"] for row in kept), abs=1e-3)
        assert cost[key]["bytes"] == sum(row["bytes"] for row in kept)
        assert cost[key]["peak_memory_bytes"] == max(row["peak_memory_bytes"] for row in kept)
    assert rows["ten/masks.h5"]["environment"]["dtype"] == "bfloat16"


def test_scores_beside_masks_are_not_their_disk(made: Path) -> None:
    rows = {row["artefact"]: row["bytes"] for row in compared(made / "single")["cost"]["stages"]}
    files = [path for path in (made / "single/pseudo").iterdir() if path.name != "scores.h5"]
    assert rows["pseudo/masks.h5"] == sum(path.stat().st_size for path in files)
    assert rows["pseudo/scores.h5"] == (made / "single/pseudo/scores.h5").stat().st_size


def test_inputs_outside_the_folder_belong_to_the_run(multi: Path) -> None:
    (multi / "run").mkdir()
    for name in ("six.h5", "seven", "eight.h5", "nine.h5", "ten", "eleven.h5"):
        shutil.move(multi / name, multi / "run" / name)
    for name, place in (("six.h5", "two.h5"), ("six.h5", "three.h5"), ("nine.h5", "one.h5")):
        with kinds.edited(multi / "run" / name) as file:
            file.attrs["inputs"] = attribute(file, "inputs").replace(f'"{place}"', f'"../{place}"')
    run = compared(multi / "run")
    outside = [row["artefact"] for row in run["cost"]["stages"] if row["outside"]]
    assert outside == ["../one.h5", "../two.h5", "../three.h5"]
    assert run["headline_scores"]["pseudo_labels"]["scores"] == "eight.h5"
    assert run["cost"]["to_segmenter"]["stages"] == 6


def test_thresholds_say_what_they_were_fitted_on_and_for_what(made: Path) -> None:
    (row,) = compared(made / "multi")["thresholds"]
    facts = read_header(made / "multi/three.h5").facts
    assert {key: row[key] for key in ("method", "value", "low", "high", "fitted_on")} == {
        key: facts[key] for key in ("method", "value", "low", "high", "fitted_on")
    }
    assert sorted(row["used_by"]) == ["four/masks.h5", "six.h5"]
    assert (row["oracle"], row["miou"]) == ([], None)
    (swept,) = compared(made / "single")["thresholds"]
    assert swept["oracle"] == ["threshold swept against the masks of split train"]
    assert swept["miou"] == read_header(made / "single/swept.h5").facts["miou"]


def test_what_was_not_measured_alike_is_named(made: Path, tmp_path: Path) -> None:
    again = multi_stage(tmp_path / "again", made / "data", seed=7, ignored="drop", crf="toco-labels")
    found = compare_runs([made / "multi", again])["differences"]
    assert {row["key"]: (row["what"], row["values"]) for row in found} == {
        "predicted_255": (list(HEADLINES), {"multi": "background", "again": "drop"}),
        "crf": (["pseudo_labels"], {"multi": "irn", "again": "toco-labels"}),
    }
    notes = tables.difference_notes(compare_runs([made / "multi", again]))
    assert "crf of pseudo labels: multi = irn; again = toco-labels" in notes
    with kinds.edited(again / "one.h5") as file:
        file.attrs["environment"] = json.dumps({"machine": "other", "cores": 64, "device": "cuda:0"})
    found = {row["key"]: row["values"] for row in compare_runs([made / "multi", again])["differences"]}
    assert found["device"] == {"multi": ["cpu"], "again": ["cpu", "cuda:0"]}


def test_equal_runs_have_no_difference_and_other_data_have_several(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "multi", tmp_path / "copy")
    assert compare_runs([made / "multi", tmp_path / "copy"])["differences"] == []
    root = write_data(tmp_path / "data", classes=("background", "cat", "cow"), splits={"train": "ab", "val": "cd"})
    other = multi_stage(tmp_path / "other", root)
    keys = {row["key"] for row in compare_runs([made / "multi", other])["differences"]}
    assert {"classes", "images", "ids_sha256"} <= keys


def test_runs_of_one_name_are_told_apart_by_their_folders(made: Path, tmp_path: Path) -> None:
    for name in ("x", "y"):
        shutil.copytree(made / "multi", tmp_path / name / "run")
    found = compare_runs([tmp_path / "x" / "run", tmp_path / "y" / "run", made / "single"])
    assert [run["name"] for run in found["runs"]] == ["x/run", "y/run", "single"]


def test_files_that_are_no_artefacts_are_named(multi: Path) -> None:
    (multi / "broken.h5").write_bytes(b"nothing")
    assert compared(multi)["unreadable"] == {
        "broken.h5": f"{multi / 'broken.h5'} is not an HDF5 file; wanted a pseudolabel artefact"
    }


def test_headers_that_are_not_what_they_should_be_are_named(multi: Path) -> None:
    for name, key, value, what in (("five.h5", "facts", [1], "object"), ("eight.h5", "oracle", {}, "list")):
        with kinds.edited(multi / name) as file:
            file.attrs[key] = json.dumps(value)
        assert compared(multi)["unreadable"][name] == (
            f"{multi / name}: attribute {key!r} is no JSON {what}; make it again"
        )
    with kinds.edited(multi / "one.h5") as file:
        file.attrs["cost"] = "{}"
    run = compared(multi)
    assert run["cost"]["total"]["unstated"] == 1
    assert "multi: 1 of 9 stages do not state their cost" in tables.gap_notes({"runs": [run]})


def test_artefacts_that_name_each_other_end_the_search(multi: Path) -> None:
    """No stage makes such files; forged ones must not make the program run for ever."""
    digest = read_header(multi / "ten" / "masks.h5").digest
    with kinds.edited(multi / "ten" / "soft.h5") as file:
        file.attrs["inputs"] = json.dumps([{"kind": "masks", "path": "masks.h5", "digest": digest}])
    with kinds.edited(multi / "ten" / "masks.h5") as file:
        file.attrs["inputs"] = json.dumps(json.loads(attribute(file, "inputs"))[1:])
    assert compared(multi)["unplaced_scores"] == {
        "eleven.h5": "what ten/masks.h5 was made from is not there any more, or not recorded"
    }


def test_json_is_one_document_and_the_same_as_the_functions(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [made / "multi", made / "single"]
    assert main(["compare", *map(str, folders), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(compare_runs(folders), allow_nan=False))


def test_the_tables_show_figures_cost_thresholds_and_notes(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(made / "multi"), str(made / "single")]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    figure = read_header(made / "multi/eight.h5").facts["miou"]
    for words in (
        "pseudo labels of the training images",
        f"{100 * figure:.1f}",
        "train, 4",
        "scales of pseudo labels, CAMs: multi = 1, 0.5; single = 1",
        "single: threshold swept against the masks of split train: swept.h5, plain/masks.h5, plain.h5",
        "up to the segmenter",
        "1 stage ",
        "values of 4 maps of split",
    ):
        assert words in shown.out, words


def test_names_of_runs_are_no_markup(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(made / "multi", tmp_path / "[red]run")
    assert main(["compare", str(tmp_path / "[red]run")]) == 0
    assert capsys.readouterr().out.count("[red]run") == 3  # heads its column and its parts of the other tables


def test_thresholds_of_single_classes_are_shown_as_a_range(multi: Path) -> None:
    stage("search-threshold", multi / "two.h5", "--per-class", "--out", multi / "each.h5")
    value = read_header(multi / "each.h5").facts["value"]
    table = tables.threshold_table(compare_runs([multi]))
    assert table is not None
    rows = {row[0]: row for row in table.sections[0][1]}
    assert rows["each.h5"][4] == f"{min(value.values()):.3g} to {max(value.values()):.3g}"
    assert rows["each.h5"][3] == "nothing"


def test_errors_are_one_line(tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*folders: Path) -> str:
        capsys.readouterr()
        assert main(["compare", *map(str, folders)]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        (line,) = shown.err.splitlines()
        return line.removeprefix("error: ")

    wanted = "wanted the folder of a run, as 'pseudolabel run"
    assert refused(tmp_path / "no") == f"{tmp_path / 'no'} does not exist; {wanted} CONFIG' leaves it"
    file = made / "multi/one.h5"
    assert refused(file) == f"{file} is a file; {wanted} CONFIG' leaves it"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty") == f"{tmp_path / 'empty'} holds no artefact; {wanted}' leaves it"
    (tmp_path / "empty/x.h5").write_bytes(b"")
    assert "holds no artefact (the first of 1 .h5 files: " in refused(tmp_path / "empty")
    twice = made / "multi" / ".." / "multi"
    assert refused(made / "multi", twice) == f"{twice} is named twice; name each run once"


def test_no_torch_is_imported(made: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from pseudolabel.cli.app import main
assert main(["compare", {str(made / "multi")!r}]) == 0
assert main(["report", {str(made / "multi")!r}, "--out", {str(tmp_path / "r.html")!r}]) == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_refiners_and_models_from_outside_stand_beside_the_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the page and in the terminal, of the scores that come of them."""
    monkeypatch.setenv("COLUMNS", "200")
    root = write_data(tmp_path / "data")
    models = ["SAM (Apache-2.0), trained on masks of SA-1B"]
    run = multi_stage(tmp_path / "run", root, region_vote="sepl; regions: SAM", external_models=models)
    other = multi_stage(tmp_path / "other", root)
    write_report([run, other], tmp_path / "page.html")
    capsys.readouterr()
    assert main(["compare", str(run), str(other)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ((tmp_path / "page.html").read_text(encoding="utf-8"), shown):
        assert "refined by" in text
        assert "CRF: irn" in text
        assert "sepl; regions: SAM" in text
        assert "external models" in text
        assert models[0] in text

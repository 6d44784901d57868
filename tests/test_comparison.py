"""``compare``: which score is which by lineage alone, what it took, and in what runs were not measured alike."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest
import small_runs
from small_runs import multi_stage, single_stage, stage, write_data, write_network

from pseudolabel.artefacts import read_header
from pseudolabel.cli.app import main
from pseudolabel.comparison import FIGURES, MEASURES, compare_runs
from pseudolabel.data import load_dataset
from pseudolabel.reporting import tables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a multi-stage run ``multi`` and a single-stage run ``single``; tests that change them copy them."""
    folder = tmp_path_factory.mktemp("runs")
    root = write_data(folder / "data")
    multi_stage(folder / "multi", root)
    single_stage(folder / "single", root)
    return folder


@pytest.fixture
def multi(made: Path, tmp_path: Path) -> Path:
    """A copy of the multi-stage run."""
    return Path(shutil.copytree(made / "multi", tmp_path / "multi"))


@pytest.fixture
def single(made: Path, tmp_path: Path) -> Path:
    """A copy of the single-stage run."""
    return Path(shutil.copytree(made / "single", tmp_path / "single"))


def one(folder: Path) -> dict[str, Any]:
    (run,) = compare_runs([folder])["runs"]
    return run


def test_figures_are_found_by_lineage_and_equal_the_artefacts(made: Path) -> None:
    figures = one(made / "multi")["figures"]
    assert list(figures) == list(FIGURES)
    places = {"pseudo_labels": "eight.h5", "cams": "five.h5", "segmenter": "eleven.h5"}
    for key, name in places.items():
        facts = read_header(made / "multi" / name).facts
        assert figures[key]["scores"] == name
        assert {measure: figures[key][measure] for measure in MEASURES} == {m: facts[m] for m in MEASURES}
        assert figures[key]["iou"] == facts["iou"]
        assert (figures[key]["ignored"], figures[key]["images"]) == ("background", facts["images"])
        assert (figures[key]["reason"], figures[key]["reasons"], figures[key]["others"]) == (None, {}, [])
    facts = read_header(made / "multi/eleven.h5").facts
    assert figures["segmenter_with_tags"]["miou"] == facts["tag_filtered"]["miou"] > figures["segmenter"]["miou"]
    assert {key: (figure["split"], figure["tags"]) for key, figure in figures.items()} == {
        "pseudo_labels": ("train", "image tags"),
        "cams": ("train", "image tags"),
        "segmenter": ("val", "none"),
        "segmenter_with_tags": ("val", "image tags"),
    }
    assert figures["pseudo_labels"]["scored"] == "seven/masks.h5"


def test_names_of_files_and_places_of_folders_mean_nothing(multi: Path, made: Path) -> None:
    (multi / "eight.h5").rename(multi / "cams-val.h5")
    (multi / "five.h5").rename(multi / "segmenter.h5")
    (multi / "deep").mkdir()
    (multi / "two.h5").rename(multi / "deep" / "soft.h5")
    moved, before = one(multi)["figures"], one(made / "multi")["figures"]
    assert {key: figure["miou"] for key, figure in moved.items()} == {k: f["miou"] for k, f in before.items()}
    assert (moved["pseudo_labels"]["scores"], moved["cams"]["scores"]) == ("cams-val.h5", "segmenter.h5")


def test_a_single_stage_run_answers_the_same_questions(made: Path) -> None:
    run = one(made / "single")
    assert {key: figure["scores"] for key, figure in run["figures"].items()} == {
        "pseudo_labels": "pseudo/scores.h5",
        "cams": "plain.h5",
        "segmenter": "held-out/scores.h5",
        "segmenter_with_tags": "held-out/scores.h5",
    }
    assert run["figures"]["segmenter"]["miou"] == read_header(made / "single/held-out/scores.h5").facts["miou"]
    assert run["cost"]["to_segmenter"]["stages"] == 1
    assert run["figures"]["cams"]["oracle"] == ["threshold swept against the masks of split train"]
    assert list(run["oracle"]) == ["swept.h5", "plain/masks.h5", "plain.h5"]


def test_a_segmenter_trained_on_anothers_masks_is_the_final_one(single: Path, made: Path) -> None:
    """The multi-stage route that begins with the single-stage network."""
    train, val = (
        load_dataset({"dataset": "voc", "root": str(made / "data"), "split": split}) for split in ("train", "val")
    )
    last = small_runs.write_network(single / "last.h5", "train-segmenter", train, single / "pseudo" / "masks.h5")
    figures = one(single)["figures"]
    assert figures["pseudo_labels"]["scores"] == "pseudo/scores.h5"
    assert figures["segmenter"]["miou"] is None
    assert figures["segmenter"]["reason"] == (
        "last.h5 has no scores on images that it was not trained on; run 'pseudolabel predict-masks "
        f"{last} --split SPLIT' and 'pseudolabel evaluate-masks' on what it writes"
    )
    stage("evaluate-masks", small_runs.predict(single / "after", last, val, seed=9))
    run = one(single)
    assert run["figures"]["segmenter"]["scores"] == "after/scores.h5"
    assert [row["scores"] for row in run["other_scores"]] == ["held-out/scores.h5"]
    route = [row["artefact"] for row in run["cost"]["stages"] if row["leads_to_segmenter"]]
    assert route == ["network.h5", "pseudo/masks.h5", "last.h5"]


def test_images_of_another_list_that_were_trained_on_are_no_others(single: Path, made: Path) -> None:
    spec = {"dataset": "voc", "root": str(made / "data")}
    train = load_dataset({**spec, "split": "train"})
    (single / "some.txt").write_text(train.records[0].id)
    some = load_dataset({**spec, "split": str(single / "some.txt")})
    last = small_runs.write_network(single / "last.h5", "train-segmenter", train, single / "pseudo" / "masks.h5")
    stage("evaluate-masks", small_runs.predict(single / "after", last, some, seed=9))
    assert read_header(single / "after/scores.h5").facts["trained_on"] == 1
    figure = one(single)["figures"]["segmenter"]
    assert figure["miou"] is None
    assert figure["reason"].startswith("last.h5 has no scores on images that it was not trained on; ")


def test_pseudo_labels_may_be_scored_on_those_of_the_training_images_that_have_masks(multi: Path, made: Path) -> None:
    train = load_dataset({"dataset": "voc", "root": str(made / "data"), "split": "train"})
    (multi / "some.txt").write_text(train.records[0].id)
    before = one(multi)["figures"]["pseudo_labels"]
    scored = multi / before["scores"]
    masks = multi / before["scored"]
    scored.unlink()
    stage("evaluate-masks", masks, "--split", multi / "some.txt", "--out", scored)
    figure = one(multi)["figures"]["pseudo_labels"]
    assert (figure["scores"], figure["images"], figure["split"]) == (before["scores"], 1, str(multi / "some.txt"))
    assert figure["protocol"]["ids_sha256"] != before["protocol"]["ids_sha256"]


def test_soft_labels_that_lead_to_the_segmenter_through_a_crf_are_counted(single: Path, made: Path) -> None:
    train = load_dataset({"dataset": "voc", "root": str(made / "data"), "split": "train"})
    stage(
        "refine-crf", single / "pseudo/soft.h5", "--out", single / "refined.h5", "--iterations", "1", "--workers", "0"
    )
    stage("export-masks", single / "refined.h5", "--out", single / "clean", "--workers", "0")
    small_runs.write_network(single / "last.h5", "train-segmenter", train, single / "clean" / "masks.h5")
    cost = one(single)["cost"]
    route = [row["artefact"] for row in cost["stages"] if row["leads_to_segmenter"]]
    assert route == ["network.h5", "pseudo/masks.h5", "refined.h5", "clean/masks.h5", "last.h5"]
    assert cost["to_segmenter"]["stages"] == 5


def both_in_one(made: Path, folder: Path) -> Path:
    """The artefacts of both routes in one folder."""
    shutil.copytree(made / "multi", folder)
    for path in (made / "single").iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    return folder


def test_routes_of_one_folder_that_share_nothing_are_columns_of_their_own(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = both_in_one(made, tmp_path / "work")
    runs = compare_runs([folder])["runs"]
    by_name = {run["name"]: run for run in runs}  # the older one is first, and both may be of one second
    assert len(runs) == len(by_name) == 2
    for name, place in (("work: one.h5", "multi"), ("work: network.h5", "single")):
        found, alone = by_name[name], one(made / place)
        assert found["figures"] == alone["figures"]
        assert found["cost"]["total"]["stages"] == alone["cost"]["total"]["stages"]
        assert found["thresholds"] == alone["thresholds"]
    assert main(["compare", str(folder)]) == 0
    assert "work: network.h5" in capsys.readouterr().out
    stage("report", folder, "--out", tmp_path / "report.html", "--pictures", "1")
    assert "work: network.h5" in (tmp_path / "report.html").read_text()


def test_what_hangs_together_with_no_route_is_named_and_not_mixed_in(made: Path, tmp_path: Path) -> None:
    folder = both_in_one(made, tmp_path / "work")
    (folder / "cams.h5").unlink()  # thresholds and plain masks of the second route are now of nothing
    first, second = compare_runs([folder])["runs"]
    assert first["unreadable"] == dict.fromkeys(
        ("swept.h5", "plain/masks.h5", "plain.h5"), "it hangs together with none of the routes in this folder"
    )
    assert second["unreadable"] == {}
    assert first["figures"] == one(made / "multi")["figures"]
    assert second["figures"]["cams"]["miou"] is None


def test_one_route_keeps_what_it_is_cut_off_from(single: Path) -> None:
    (single / "cams.h5").unlink()
    run = one(single)
    assert (run["name"], run["unreadable"]) == ("single", {})
    assert "swept.h5" in [row["artefact"] for row in run["thresholds"]]


def test_a_route_that_is_cut_in_two_is_not_two_routes(multi: Path, made: Path) -> None:
    """Its segmenter starts from weights of elsewhere, so that only the refined labels tie it to the CAM network."""
    train, val = (
        load_dataset({"dataset": "voc", "root": str(made / "data"), "split": split}) for split in ("train", "val")
    )
    for name in ("nine.h5", "eleven.h5", "six.h5"):
        (multi / name).unlink()
    shutil.rmtree(multi / "ten")
    last = small_runs.write_network(multi / "nine.h5", "train-segmenter", train, multi / "seven" / "masks.h5")
    stage("evaluate-masks", small_runs.predict(multi / "ten", last, val, seed=2))
    run = one(multi)
    assert (run["name"], run["unreadable"]) == ("multi", {})
    assert run["figures"]["cams"]["miou"] is not None


def test_what_is_missing_is_a_dash_with_a_reason(multi: Path) -> None:
    (multi / "eight.h5").unlink()
    (multi / "eleven.h5").unlink()
    figures = one(multi)["figures"]
    assert figures["pseudo_labels"]["reason"] == (
        "seven/masks.h5, which nine.h5 was trained on, has no scores; "
        f"run 'pseudolabel evaluate-masks {multi / 'seven' / 'masks.h5'}', with --split LIST where only the images of "
        "a list have ground truth"
    )
    assert {figures["pseudo_labels"][measure] for measure in MEASURES} == {None}
    shown = tables.score_table(compare_runs([multi]))
    assert ("mIoU, %", "-") in [tuple(row) for row in shown.sections[0][1]]
    stated = [tuple(row) for row in tables.score_table(compare_runs([multi])).sections[1][1]]
    value = read_header(multi / "five.h5").protocol["threshold"]
    assert {("scales", "1, 0.5, mirrored"), ("threshold", f"{value:.3g}")} <= set(stated)
    notes = tables.gap_notes(compare_runs([multi]))
    assert any(note.startswith("multi: segmenter, segmenter with tags: nine.h5 has no scores") for note in notes)


def test_a_run_of_cams_alone(multi: Path) -> None:
    for name in ("six.h5", "eight.h5", "nine.h5", "eleven.h5"):
        (multi / name).unlink()
    for name in ("seven", "ten"):
        shutil.rmtree(multi / name)
    figures = one(multi)["figures"]
    assert figures["pseudo_labels"]["scores"] == figures["cams"]["scores"] == "five.h5"
    assert figures["segmenter"]["reason"] == "no checkpoint of this run predicts masks"
    assert one(multi)["cost"]["to_segmenter"] is None
    (multi / "five.h5").unlink()
    figures = one(multi)["figures"]
    assert figures["pseudo_labels"]["reason"].startswith("no masks of the training images have scores")
    assert figures["cams"]["reason"].startswith("no masks cut straight from CAMs of the training images have scores")


@pytest.mark.parametrize("kind", ["scribble", "cosa", "segmenter"])
def test_a_segmenter_that_has_predicted_nothing_yet_is_told_how_to(made: Path, tmp_path: Path, kind: str) -> None:
    dataset = load_dataset({"dataset": "voc", "root": made / "data", "split": "train"})
    facts = {"architecture": {"type": kind}}
    path = write_network(tmp_path / "run/net.h5", "train-scribble", dataset, facts=facts)
    assert one(path.parent)["figures"]["segmenter"]["reason"] == (
        f"net.h5 has no scores on images that it was not trained on; run 'pseudolabel predict-masks {path} "
        "--split SPLIT' and 'pseudolabel evaluate-masks' on what it writes"
    )


def test_a_run_without_cams_has_no_rows_about_them(multi: Path, made: Path) -> None:
    for path in multi.iterdir():
        if path.name not in ("nine.h5", "ten", "eleven.h5"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = compare_runs([multi])
    assert not any("CAMs" in note for note in tables.gap_notes(found))
    assert "multi: CAMs: there are none in this run" in tables.gap_notes(compare_runs([multi, made / "single"]))
    assert [title for title, _ in tables.score_table(found).sections] == [
        "pseudo labels of the training images",
        "final segmenter on other images, without image tags",
        "final segmenter on other images, with image tags",
    ]
    assert tables.threshold_table(found) is None
    assert len(tables.score_table(compare_runs([multi, made / "single"])).sections) == 4


def test_scores_of_masks_that_are_gone_or_others_are_not_guessed_about(multi: Path, made: Path) -> None:
    shutil.rmtree(multi / "ten")
    stage("export-masks", multi / "two.h5", "--threshold", multi / "three.h5", "--out", multi / "new", "--workers", "0")
    pngs = [path for path in (multi / "new").glob("*.png")]
    (multi / "pngs").mkdir()
    for path in pngs:
        path.rename(multi / "pngs" / path.name)
    stage("evaluate-masks", multi / "pngs", "--dataset", "voc", "--root", made / "data", "--split", "train")
    run = one(multi)
    assert run["unplaced_scores"] == {
        "eleven.h5": "what was scored is not there any more: ten/masks.h5 is missing",
        "pngs/scores.h5": "PNG files were scored, which do not say what they were made of",
    }
    small_runs.write_network(multi / "ten" / "masks.h5", "train-cam", load_dataset(
        {"dataset": "voc", "root": str(made / "data"), "split": "train"}))  # fmt: skip
    assert one(multi)["unplaced_scores"]["eleven.h5"] == (
        "what was scored is not there any more: ten/masks.h5 was made again since"
    )


def test_the_newest_of_several_counts_never_the_best(multi: Path) -> None:
    stage("evaluate-masks", multi / "ten", "--out", multi / "zz.h5", "--ignored", "miss", "--boundary", "none",
          "--resamples", "0")  # fmt: skip
    with h5py.File(multi / "zz.h5", "r+") as file:
        file.attrs["created"] = "2999-01-01T00:00:00+00:00"
    figure = one(multi)["figures"]["segmenter"]
    assert (figure["scores"], figure["others"], figure["ignored"]) == ("zz.h5", ["eleven.h5"], "miss")
    assert figure["reasons"] == {
        "interval": "scored with --resamples 0",
        "boundary_iou": "scored with --boundary none",
    }
    notes = tables.gap_notes(compare_runs([multi]))
    assert "multi: segmenter, segmenter with tags: no boundary iou: scored with --boundary none" in notes
    assert "multi: segmenter: older scores that fit too: eleven.h5" in notes


def test_cost_is_the_artefacts_and_adds_up(made: Path) -> None:
    cost = one(made / "multi")["cost"]
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
    rows = {row["artefact"]: row["bytes"] for row in one(made / "single")["cost"]["stages"]}
    files = [path for path in (made / "single/pseudo").iterdir() if path.name != "scores.h5"]
    assert rows["pseudo/masks.h5"] == sum(path.stat().st_size for path in files)
    assert rows["pseudo/scores.h5"] == (made / "single/pseudo/scores.h5").stat().st_size


def test_inputs_outside_the_folder_belong_to_the_run(multi: Path) -> None:
    (multi / "run").mkdir()
    for name in ("six.h5", "seven", "eight.h5", "nine.h5", "ten", "eleven.h5"):
        shutil.move(multi / name, multi / "run" / name)
    for name, place in (("six.h5", "two.h5"), ("six.h5", "three.h5"), ("nine.h5", "one.h5")):
        with h5py.File(multi / "run" / name, "r+") as file:
            file.attrs["inputs"] = file.attrs["inputs"].replace(f'"{place}"', f'"../{place}"')
    run = one(multi / "run")
    outside = [row["artefact"] for row in run["cost"]["stages"] if row["outside"]]
    assert outside == ["../one.h5", "../two.h5", "../three.h5"]
    assert run["figures"]["pseudo_labels"]["scores"] == "eight.h5"
    assert run["cost"]["to_segmenter"]["stages"] == 6


def test_thresholds_say_what_they_were_fitted_on_and_for_what(made: Path) -> None:
    (row,) = one(made / "multi")["thresholds"]
    facts = read_header(made / "multi/three.h5").facts
    assert {key: row[key] for key in ("method", "value", "low", "high", "fitted_on")} == {
        key: facts[key] for key in ("method", "value", "low", "high", "fitted_on")
    }
    assert sorted(row["used_by"]) == ["four/masks.h5", "six.h5"]
    assert (row["oracle"], row["miou"]) == ([], None)
    (swept,) = one(made / "single")["thresholds"]
    assert swept["oracle"] == ["threshold swept against the masks of split train"]
    assert swept["miou"] == read_header(made / "single/swept.h5").facts["miou"]


def test_what_was_not_measured_alike_is_named(made: Path, tmp_path: Path) -> None:
    again = multi_stage(tmp_path / "again", made / "data", seed=7, ignored="drop", crf="toco-labels")
    found = compare_runs([made / "multi", again])["differences"]
    assert {row["key"]: (row["what"], row["values"]) for row in found} == {
        "predicted_255": (list(FIGURES), {"multi": "background", "again": "drop"}),
        "crf": (["pseudo_labels"], {"multi": "irn", "again": "toco-labels"}),
    }
    notes = tables.difference_notes(compare_runs([made / "multi", again]))
    assert "crf of pseudo labels: multi = irn; again = toco-labels" in notes
    with h5py.File(again / "one.h5", "r+") as file:
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
    assert one(multi)["unreadable"] == {
        "broken.h5": f"{multi / 'broken.h5'} is not an HDF5 file; wanted a pseudolabel artefact"
    }


def test_headers_that_are_not_what_they_should_be_are_named(multi: Path) -> None:
    for name, attribute, value, what in (("five.h5", "facts", [1], "object"), ("eight.h5", "oracle", {}, "list")):
        with h5py.File(multi / name, "r+") as file:
            file.attrs[attribute] = json.dumps(value)
        assert one(multi)["unreadable"][name] == (
            f"{multi / name}: attribute {attribute!r} is no JSON {what}; make it again"
        )
    with h5py.File(multi / "one.h5", "r+") as file:
        file.attrs["cost"] = "{}"
    run = one(multi)
    assert run["cost"]["total"]["unstated"] == 1
    assert "multi: 1 of 9 stages do not state their cost" in tables.gap_notes({"runs": [run]})


def test_artefacts_that_name_each_other_end_the_search(multi: Path) -> None:
    """No stage makes such files; forged ones must not make the program run for ever."""
    digest = read_header(multi / "ten" / "masks.h5").digest
    with h5py.File(multi / "ten" / "soft.h5", "r+") as file:
        file.attrs["inputs"] = json.dumps([{"kind": "masks", "path": "masks.h5", "digest": digest}])
    with h5py.File(multi / "ten" / "masks.h5", "r+") as file:
        file.attrs["inputs"] = json.dumps(json.loads(file.attrs["inputs"])[1:])
    assert one(multi)["unplaced_scores"] == {
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

"""Which of a run's scores is which, by lineage alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pseudolabel.artefacts import read_header
from pseudolabel.artefacts.attributes import attribute
from pseudolabel.cli.app import main
from pseudolabel.data import load_dataset
from pseudolabel.runs.comparison import HEADLINES, MEASURES, compare_runs
from pseudolabel.runs.report import tables
from tests.helpers import kinds, runs
from tests.helpers.runs import compared, stage, write_network


def test_figures_are_found_by_lineage_and_equal_the_artefacts(made: Path) -> None:
    figures = compared(made / "multi")["headline_scores"]
    assert list(figures) == list(HEADLINES)
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
    moved, before = compared(multi)["headline_scores"], compared(made / "multi")["headline_scores"]
    assert {key: figure["miou"] for key, figure in moved.items()} == {k: f["miou"] for k, f in before.items()}
    assert (moved["pseudo_labels"]["scores"], moved["cams"]["scores"]) == ("cams-val.h5", "segmenter.h5")


def test_a_single_stage_run_answers_the_same_questions(made: Path) -> None:
    run = compared(made / "single")
    assert {key: figure["scores"] for key, figure in run["headline_scores"].items()} == {
        "pseudo_labels": "pseudo/scores.h5",
        "cams": "plain.h5",
        "segmenter": "held-out/scores.h5",
        "segmenter_with_tags": "held-out/scores.h5",
    }
    assert run["headline_scores"]["segmenter"]["miou"] == read_header(made / "single/held-out/scores.h5").facts["miou"]
    assert run["cost"]["to_segmenter"]["stages"] == 1
    assert run["headline_scores"]["cams"]["oracle"] == ["threshold swept against the masks of split train"]
    assert list(run["oracle"]) == ["swept.h5", "plain/masks.h5", "plain.h5"]


def test_a_segmenter_trained_on_anothers_masks_is_the_final_one(single: Path, made: Path) -> None:
    """The multi-stage route that begins with the single-stage network."""
    train, val = (
        load_dataset({"dataset": "voc", "root": str(made / "data"), "split": split}) for split in ("train", "val")
    )
    last = runs.write_network(single / "last.h5", "train-segmenter", train, single / "pseudo" / "masks.h5")
    figures = compared(single)["headline_scores"]
    assert figures["pseudo_labels"]["scores"] == "pseudo/scores.h5"
    assert figures["segmenter"]["miou"] is None
    assert figures["segmenter"]["reason"] == (
        "last.h5 has no scores on images that it was not trained on; run 'pseudolabel predict-masks "
        f"{last} --split SPLIT' and 'pseudolabel evaluate-masks' on what it writes"
    )
    stage("evaluate-masks", runs.predict(single / "after", last, val, seed=9))
    run = compared(single)
    assert run["headline_scores"]["segmenter"]["scores"] == "after/scores.h5"
    assert [row["scores"] for row in run["other_scores"]] == ["held-out/scores.h5"]
    route = [row["artefact"] for row in run["cost"]["stages"] if row["leads_to_segmenter"]]
    assert route == ["network.h5", "pseudo/masks.h5", "last.h5"]


def test_images_of_another_list_that_were_trained_on_are_no_others(single: Path, made: Path) -> None:
    spec = {"dataset": "voc", "root": str(made / "data")}
    train = load_dataset({**spec, "split": "train"})
    (single / "some.txt").write_text(train.records[0].id)
    some = load_dataset({**spec, "split": str(single / "some.txt")})
    last = runs.write_network(single / "last.h5", "train-segmenter", train, single / "pseudo" / "masks.h5")
    stage("evaluate-masks", runs.predict(single / "after", last, some, seed=9))
    assert read_header(single / "after/scores.h5").facts["trained_on"] == 1
    figure = compared(single)["headline_scores"]["segmenter"]
    assert figure["miou"] is None
    assert figure["reason"].startswith("last.h5 has no scores on images that it was not trained on; ")


def test_a_score_of_a_part_counts_where_there_is_none_of_all(multi: Path, made: Path) -> None:
    """Its images are training images because the masks' list is the network's, whether or not all were learnt."""
    train = load_dataset({"dataset": "voc", "root": str(made / "data"), "split": "train"})
    before = compared(multi)["headline_scores"]["pseudo_labels"]
    some = multi / "some.txt"
    some.write_text("\n".join(record.id for record in train.records[:2]))
    stage("evaluate-masks", multi / before["scored"], "--split", some, "--out", multi / "part.h5")
    beside = compared(multi)["headline_scores"]["pseudo_labels"]
    assert beside == {**before, "others": ["part.h5"]}
    (multi / before["scores"]).unlink()
    figure = compared(multi)["headline_scores"]["pseudo_labels"]
    assert (figure["scores"], figure["split"], figure["images"], figure["unscored"]) == ("part.h5", str(some), 2, 2)
    assert figure["protocol"]["ids_sha256"] != before["protocol"]["ids_sha256"]
    (cell,) = [row[1] for row in tables.score_table(compare_runs([multi])).sections[0][1] if row[0] == "split, images"]
    assert cell.endswith("some.txt, 2 of 4")


def test_a_part_that_was_picked_does_not_stand_for_all_predictions(multi: Path, made: Path) -> None:
    val = load_dataset({"dataset": "voc", "root": str(made / "data"), "split": "val"})
    before = compared(multi)["headline_scores"]["segmenter"]
    (multi / "easy.txt").write_text(val.records[0].id)
    stage("evaluate-masks", multi / before["scored"], "--split", multi / "easy.txt", "--out", multi / "easy.h5")
    assert compared(multi)["headline_scores"]["segmenter"] == before


def test_where_nobody_knows_what_a_network_has_learnt_a_note_says_so(multi: Path) -> None:
    scores = multi / compared(multi)["headline_scores"]["segmenter"]["scores"]
    said = "multi: segmenter, segmenter with tags: whether its network was trained on these images is not known"
    assert said not in tables.gap_notes(compare_runs([multi]))
    with kinds.edited(scores) as file:
        facts = json.loads(attribute(file, "facts"))
        assert facts["trained_on"] == 0
        file.attrs["facts"] = json.dumps({**facts, "trained_on": None})
    assert said in tables.gap_notes(compare_runs([multi]))


def test_soft_labels_that_lead_to_the_segmenter_through_a_crf_are_counted(single: Path, made: Path) -> None:
    train = load_dataset({"dataset": "voc", "root": str(made / "data"), "split": "train"})
    stage(
        "refine-crf", single / "pseudo/soft.h5", "--out", single / "refined.h5", "--iterations", "1", "--workers", "0"
    )
    stage("export-masks", single / "refined.h5", "--out", single / "clean", "--workers", "0")
    runs.write_network(single / "last.h5", "train-segmenter", train, single / "clean" / "masks.h5")
    cost = compared(single)["cost"]
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
        found, alone = by_name[name], compared(made / place)
        assert found["headline_scores"] == alone["headline_scores"]
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
    assert first["headline_scores"] == compared(made / "multi")["headline_scores"]
    assert second["headline_scores"]["cams"]["miou"] is None


def test_one_route_keeps_what_it_is_cut_off_from(single: Path) -> None:
    (single / "cams.h5").unlink()
    run = compared(single)
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
    last = runs.write_network(multi / "nine.h5", "train-segmenter", train, multi / "seven" / "masks.h5")
    stage("evaluate-masks", runs.predict(multi / "ten", last, val, seed=2))
    run = compared(multi)
    assert (run["name"], run["unreadable"]) == ("multi", {})
    assert run["headline_scores"]["cams"]["miou"] is not None


def test_what_is_missing_is_a_dash_with_a_reason(multi: Path) -> None:
    (multi / "eight.h5").unlink()
    (multi / "eleven.h5").unlink()
    figures = compared(multi)["headline_scores"]
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
    figures = compared(multi)["headline_scores"]
    assert figures["pseudo_labels"]["scores"] == figures["cams"]["scores"] == "five.h5"
    assert figures["segmenter"]["reason"] == "no checkpoint of this run predicts masks"
    assert compared(multi)["cost"]["to_segmenter"] is None
    (multi / "five.h5").unlink()
    figures = compared(multi)["headline_scores"]
    assert figures["pseudo_labels"]["reason"].startswith("no masks of the training images have scores")
    assert figures["cams"]["reason"].startswith("no masks cut straight from CAMs of the training images have scores")


@pytest.mark.parametrize("kind", ["scribble", "cosa", "segmenter"])
def test_a_segmenter_that_has_predicted_nothing_yet_is_told_how_to(made: Path, tmp_path: Path, kind: str) -> None:
    dataset = load_dataset({"dataset": "voc", "root": made / "data", "split": "train"})
    facts = {"architecture": {"type": kind}}
    path = write_network(tmp_path / "run/net.h5", "train-scribble", dataset, facts=facts)
    assert compared(path.parent)["headline_scores"]["segmenter"]["reason"] == (
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
    run = compared(multi)
    assert run["unplaced_scores"] == {
        "eleven.h5": "what was scored is not there any more: ten/masks.h5 is missing",
        "pngs/scores.h5": "PNG files were scored, which do not say what they were made of",
    }
    runs.write_network(multi / "ten" / "masks.h5", "train-cam", load_dataset(
        {"dataset": "voc", "root": str(made / "data"), "split": "train"}))  # fmt: skip
    assert compared(multi)["unplaced_scores"]["eleven.h5"] == (
        "what was scored is not there any more: ten/masks.h5 was made again since"
    )


def test_the_newest_of_several_counts_never_the_best(multi: Path) -> None:
    stage("evaluate-masks", multi / "ten", "--out", multi / "zz.h5", "--ignored", "miss",
          "--boundary", "none")  # fmt: skip
    with kinds.edited(multi / "zz.h5") as file:
        file.attrs["created"] = "2999-01-01T00:00:00+00:00"
    figure = compared(multi)["headline_scores"]["segmenter"]
    assert (figure["scores"], figure["others"], figure["ignored"]) == ("zz.h5", ["eleven.h5"], "miss")
    assert figure["reasons"] == {
        "boundary_iou": "scored with --boundary none",
    }
    notes = tables.gap_notes(compare_runs([multi]))
    assert "multi: segmenter, segmenter with tags: no boundary iou: scored with --boundary none" in notes
    assert "multi: segmenter: further scores that fit: eleven.h5" in notes

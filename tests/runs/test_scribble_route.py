"""From scribbles to scores on the command line."""

import json
import shutil

import pytest

from pseudolabel.artefacts import read_header
from pseudolabel.cli.app import main
from pseudolabel.data import open_dataset
from pseudolabel.stages.train_scribble import train_scribble
from tests.helpers.scribble import SMALL, mixture


def stage(capsys, *words):
    assert main([*map(str, words), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_scribbles_in_masks_out(synthetic_root, tmp_path, capsys):
    data = ["--dataset", "voc", "--root", synthetic_root]
    small = [f"--set={name}={value}" for name, value in SMALL.items()]
    stage(capsys, "data", "scribbles", "--from", "masks", *data, "--out", tmp_path / "strokes", "--workers", "0")
    trained = stage(
        capsys, "train-scribble", *data, "--scribbles", tmp_path / "strokes", *small, "--out", tmp_path / "net.h5"
    )
    assert trained["supervision"] == {"scribbles": 8}
    quick = ["--device", "cpu", "--workers", "0"]
    stage(capsys, "predict-masks", tmp_path / "net.h5", "--split", "val", "--out", tmp_path / "val", *quick)
    scores = stage(capsys, "evaluate-masks", tmp_path / "val")
    assert scores["oracle"] == ["scribbles simulated from pixel masks"]
    assert scores["protocol"]["trained_on"] == "8 images (scribbles 8); regulariser dfr 1; consistency 0.1"
    assert scores["protocol"]["tag_filtered_by"] == "image tags (xml)"
    assert 0 <= scores["miou"] <= 1
    seen = ["--split", "train", "--tags", "dataset"]
    stage(capsys, "predict-masks", tmp_path / "net.h5", *seen, "--out", tmp_path / "train", *quick)
    refined = stage(capsys, "refine-crf", tmp_path / "train" / "soft.h5", "--out", tmp_path / "soft.h5", *quick)
    assert refined["images"] == 8
    stage(capsys, "export-masks", tmp_path / "soft.h5", "--out", tmp_path / "masks", "--workers", "0")
    segmenter = ["--backbone", "test_vit", "--no-pretrained", "--crop", "32", "--epochs", "1", *quick]
    stage(capsys, "train-segmenter", tmp_path / "masks", *segmenter, "--out", tmp_path / "seg.h5")
    header = read_header(tmp_path / "seg.h5")
    assert header.oracle == ("scribbles simulated from pixel masks",)
    compared = stage(capsys, "compare", tmp_path)
    assert compared["runs"][0]["oracle"]["net.h5"] == ["scribbles simulated from pixel masks"]


def test_a_checkpoint_serves_where_its_scribbles_are_not(scribble_options, weak_folders, tmp_path, capsys):
    """Unless the tags came from them, and are asked for."""
    strokes = tmp_path / "strokes"
    shutil.copytree(weak_folders["scribbles"], strokes)
    train_scribble(scribble_options("xml.h5", scribbles=strokes, steps=2))
    train_scribble(scribble_options("weak.h5", scribbles=strokes, steps=2, tag_source="weak"))
    shutil.rmtree(strokes)
    quick = ["--device", "cpu", "--workers", "0"]
    seen = ["--split", "train", "--tags", "dataset", *quick]
    stage(capsys, "predict-masks", tmp_path / "xml.h5", *seen, "--out", tmp_path / "xml")
    stage(capsys, "refine-crf", tmp_path / "xml/soft.h5", "--out", tmp_path / "soft.h5", *quick)
    assert main(["predict-masks", str(tmp_path / "weak.h5"), *seen, "--out", str(tmp_path / "weak")]) == 2
    error = capsys.readouterr().err.replace("\n", "")
    assert f"{strokes} is no longer there; pass --tags none, or tag them" in error
    stage(capsys, "predict-masks", tmp_path / "weak.h5", "--split", "train", "--out", tmp_path / "weak", *quick)
    assert main(["evaluate-masks", str(tmp_path / "weak"), "--json"]) == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["tag_filtered"] is None
    assert f"some images have no tags; {strokes} is no longer there" in found.err
    assert main(["train-scribble", "--root", "x", "--scribbles", str(strokes), "--out", str(tmp_path / "y.h5")]) == 2


def test_scores_of_a_mixture_are_split_by_what_supervised_each_image(scribble_options, tmp_path, capsys):
    """Of the training images; also after a CRF, of a segmenter trained on the masks, in compare and in the report."""
    mixed, quick = mixture(scribble_options, tmp_path), ["--device", "cpu", "--workers", "0"]
    seconds = ["--annotation-seconds", "1,2,3,4,5"]
    flags = [word for name, value in mixed.items() for word in (f"--{name.replace('_', '-')}", value)]
    small = [f"--set={name}={value}" for name, value in (SMALL | {"epochs": 1}).items()]
    data = ["--dataset", "voc", "--root", scribble_options().root, "--holdout", "0.1"]
    stage(capsys, "train-scribble", *data, *flags, *small, *seconds, "--out", tmp_path / "net.h5")
    (held_out,) = read_header(tmp_path / "net.h5").facts["held_out"]
    pseudo = ["--split", "train", "--out", tmp_path / "train", *quick]
    stage(capsys, "predict-masks", tmp_path / "net.h5", *pseudo)
    found = stage(capsys, "evaluate-masks", tmp_path / "train")
    ids = [record.id for record in open_dataset(scribble_options()).records]
    words = [*["scribbles"] * 2, "points", "boxes", "pixel masks", *["tags only"] * 3]
    words[ids.index(held_out)] = "not trained on"
    split = found["by_supervision"]
    assert {kind: part["images"] for kind, part in split.items()} == {kind: words.count(kind) for kind in words}
    cost = {"tags only": 1, "points": 2, "scribbles": 3, "boxes": 4, "pixel masks": 5, "not trained on": None}
    assert {kind: part["annotation_seconds"] for kind, part in split.items()} == {kind: cost[kind] for kind in split}
    hours = sum(cost[kind] or 0 for kind in words) / 3600
    assert found["protocol"]["annotation_hours"] == pytest.approx(hours, abs=5e-4)
    assert found["protocol"]["annotation_averages"] == (
        "tags 1, points 2, scribbles 3, boxes 4, masks 5 s an image (as given)"
    )
    main(["evaluate-masks", str(tmp_path / "train"), "--overwrite"])
    shown = capsys.readouterr().out
    assert "supervised by" in shown
    assert "not trained on" in shown

    stage(capsys, "refine-crf", tmp_path / "train" / "soft.h5", "--out", tmp_path / "soft.h5", *quick)
    stage(capsys, "export-masks", tmp_path / "soft.h5", "--out", tmp_path / "masks", "--workers", "0")
    refined = stage(capsys, "evaluate-masks", tmp_path / "masks")
    assert {kind: part["images"] for kind, part in refined["by_supervision"].items()} == {
        kind: part["images"] for kind, part in split.items()
    }
    segmenter = ["--backbone", "test_vit", "--no-pretrained", "--crop", "32", "--epochs", "1", *quick]
    stage(capsys, "train-segmenter", tmp_path / "masks", *segmenter, "--out", tmp_path / "seg.h5")
    stage(capsys, "predict-masks", tmp_path / "seg.h5", "--split", "val", "--out", tmp_path / "val", *quick)
    unseen = stage(capsys, "evaluate-masks", tmp_path / "val")
    assert unseen["by_supervision"] is None
    assert unseen["protocol"]["annotation_hours"] == found["protocol"]["annotation_hours"]

    (run,) = stage(capsys, "compare", tmp_path)["runs"]
    assert run["headline_scores"]["pseudo_labels"]["by_supervision"] == refined["by_supervision"]
    assert main(["compare", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "pseudo labels by what supervised each image" in text
    assert "annotation, hours" in text
    assert "(own averages)" in text
    stage(capsys, "report", tmp_path, "--out", tmp_path / "report.html", "--pictures", "0")
    page = (tmp_path / "report.html").read_text()
    assert "supervised by" in page
    assert '<th scope="row">pixel masks</th>' in page

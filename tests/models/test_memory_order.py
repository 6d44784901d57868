"""The memory order that a training uses: channels last where it was tried."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from pseudolabel.models.backbone import Backbone
from pseudolabel.models.memory_order import TRIED, picks_channels_last
from pseudolabel.options import TrainCamOptions
from pseudolabel.runtime.progress import Progress
from pseudolabel.stages.train_cam import train_cam

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "memory_order.json"
CPU = torch.device("cpu")


def picked(name, wanted=None, device=CPU, network=None):
    described = {"backbone": name} if isinstance(name, str) else name
    return picks_channels_last(wanted, network or torch.nn.Identity(), described, device)


def test_the_table_is_what_the_benchmark_found():
    assert list(TRIED) == json.loads(RESULTS.read_text())["families_in_channels_last"]
    assert set(TRIED) <= set(timm.list_modules())


def test_a_processor_uses_it_for_the_families_that_were_tried():
    assert picked("resnet50.a1_in1k")
    assert picked("vit_small_patch16_224")
    assert picked({"backbone": "local-dir:/x", "backbone_config": {"architecture": "resnet18"}})
    assert not picked("fastvit_t8")  # a step of it ends the process
    assert not picked("mobileone_s0")
    assert not picked("crossvit_tiny_240")  # has no maps and was not tried


def test_what_the_user_says_holds_and_so_does_an_accelerator():
    assert picked("fastvit_t8", wanted=True)
    assert not picked("resnet50", wanted=False)
    assert picked("fastvit_t8", device=torch.device("cuda"))


@pytest.mark.parametrize(
    ("layer", "faultless"),
    [
        (torch.nn.Conv2d(3, 8, 1, stride=2), False),
        (torch.nn.Conv2d(7, 8, 1, stride=(1, 2)), False),
        (torch.nn.Conv2d(8, 8, 1, stride=2), True),
        (torch.nn.Conv2d(1, 8, 1, stride=2), True),
        (torch.nn.Conv2d(3, 8, 1), True),
        (torch.nn.Conv2d(3, 8, 3, stride=2), True),
        (torch.nn.Conv2d(6, 6, 1, stride=2, groups=6), True),
    ],
)
def test_the_convolution_that_is_at_fault_keeps_any_network_from_it(layer, faultless):
    assert picked("resnet50", network=torch.nn.Sequential(torch.nn.ReLU(), layer)) is faultless


@pytest.mark.parametrize("module", ["fastvit_t8", "mobileone_s1", "repvgg_a0"])
def test_networks_with_that_convolution_are_found(module):
    assert not picked("resnet50", network=Backbone(module))


@pytest.mark.parametrize(
    ("backbone", "words", "order"),
    [
        ("fastvit_t8", [], "first"),
        ("test_resnet", [], "last"),
        ("test_resnet", ["--no-channels-last"], "first"),
        ("test_mambaout", ["--channels-last"], "last"),
    ],
)
def test_a_training_says_which_order_it_uses_and_ends(backbone, words, order, synthetic_root, tmp_path):
    """In a process of its own: in the other order, that of fastvit_t8 is aborted within two steps."""
    small = ["--backbone", backbone, "--no-pretrained", "--crop", "64", "--steps", "2", "--batch-size", "4"]
    about = ["--dataset", "voc", "--root", str(synthetic_root), "--device", "cpu", "--precision", "float32"]
    command = [sys.executable, "-m", "pseudolabel", "train-cam", *about, *small, *words, "--auxiliary-block", "none"]
    done = subprocess.run(
        [*command, "--workers", "0", "--out", str(tmp_path / "cam.h5")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"cpu, float32, channels {order} in memory" in " ".join(done.stderr.split())


def test_the_order_is_no_reason_to_train_again(synthetic_root, tmp_path):
    """It changes nothing but the rounding."""

    def options(**values):
        small = {"backbone": "test_resnet", "pretrained": False, "crop": 32, "steps": 2, "batch_size": 4, "workers": 0}
        about = {"dataset": "voc", "root": synthetic_root, "device": "cpu", "precision": "float32"}
        return TrainCamOptions(out=tmp_path / "cam.h5", **about, **small, **values)

    assert options().meaning() == options(channels_last=True).meaning() == options(channels_last=False).meaning()
    assert train_cam(options(channels_last=False), Progress())["steps"] == 2

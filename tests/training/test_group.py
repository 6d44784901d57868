"""Several processes that train one network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pseudolabel.artefacts import open_artefact, read_header
from pseudolabel.errors import InputError
from pseudolabel.models.backbone import Backbone, freeze
from pseudolabel.models.cam import CamNetwork
from pseudolabel.training import Group, joined, state_path
from pseudolabel.training.loop import training_mode
from tests.helpers.loop import finish, make_run

GROUP_SCRIPT = """
import sys
import torch
from pathlib import Path
from tests.helpers.loop import make_run
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.runtime.progress import Progress
from pseudolabel.training import joined, save_checkpoint, train

with joined("cpu") as (group, device):
    run = make_run(Path(sys.argv[1]), save_every=2, micro_batch=int(sys.argv[2]), clip_gradients=12.0)
    run.network.drop.p = 0.0
    run.group = group
    cost = CostMeter()
    while group.rank == 1 and cost.used()[0] < 1:
        pass
    before = cost.used()[0]
    train(run, Progress(), cost, overwrite=False)
    torch.save(run.network.state_dict(), Path(sys.argv[1]) / f"{group.rank}.pt")
    (Path(sys.argv[1]) / f"{group.rank}.txt").write_text(f"{before} {cost.used()[0]}")
    save_checkpoint(run, cost, (), ())
"""


def run_twice(script, *words):
    """A script, or ``-m`` and a module, in two processes that train together; what they said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *words], capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("micro", [4, 1])
def test_two_processes_learn_what_one_does_from_the_same_batch(tmp_path, micro):
    script = tmp_path / "script.py"
    script.write_text(GROUP_SCRIPT)
    done = run_twice(script, str(tmp_path), str(micro))
    assert "find_unused_parameters" not in done.stderr  # which torch likes to be told that it does without
    alone = make_run(tmp_path / "alone", clip_gradients=12.0)
    alone.network.drop.p = 0.0
    wanted = finish(alone)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, tensor in ranks[0].items():
        assert torch.equal(tensor, ranks[1][name]), name
        torch.testing.assert_close(tensor, wanted[f"weights/{name}"], rtol=1e-5, atol=1e-6)
    with open_artefact(tmp_path / "net.h5", "checkpoint") as artefact:  # the first process wrote it
        for name in ("loss", "gradient_norm"):
            np.testing.assert_allclose(artefact.file[f"curves/{name}"][:], alone.curves[name], rtol=1e-5)
    assert min(alone.curves["gradient_norm"]) < 12 < max(alone.curves["gradient_norm"])
    assert not state_path(tmp_path / "net.h5").exists()
    header = read_header(tmp_path / "net.h5")
    assert header.environment["processes"] == 2
    used = [[float(word) for word in (tmp_path / f"{rank}.txt").read_text().split()] for rank in (0, 1)]
    assert header.cost["cpu_seconds"] >= used[0][1] + used[1][0] > 1  # what the first had at its end, the other before


RESUMED_SCRIPT = """
import sys
import torch
import torch.distributed as dist
from pathlib import Path
from tests.helpers.loop import finish, kill_at_step, make_run
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.training import joined, state_path

def made(name):
    run = make_run(Path(sys.argv[1]) / name, micro_batch=1, ema=0.9)
    run.group = group
    return run

with joined("cpu") as (group, device):
    whole = finish(made("whole"))
    kill_at_step(made("killed"), 8, CostMeter())
    dist.barrier()
    assert state_path(Path(sys.argv[1]) / "killed/net.h5").exists()
    again = made("killed")
    found = finish(again)
    assert len(again.curves["loss"]) == 12
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())
"""


def test_a_killed_training_of_two_processes_ends_as_an_uninterrupted_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(RESUMED_SCRIPT)
    run_twice(script, str(tmp_path))


def test_gradients_of_what_a_step_uses_are_summed_and_of_nothing_else(tmp_path):
    """What an earlier part of the step alone uses counts, what another loss than the descended one uses does not."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import torch
from torch import nn
from pseudolabel.training import joined
from pseudolabel.training.group import accumulating

with joined("cpu") as (group, device):
    torch.manual_seed(0)
    network = nn.ModuleDict({name: nn.Linear(2, 1, bias=False) for name in ("body", "first", "watched", "idle")})
    module = group.joint(network)
    for step in range(3):
        network.zero_grad()
        views = [torch.tensor([[1.0, 2.0]]) * (group.rank + 1) * part for part in (1, 10)]
        losses = [{"loss": (network["body"](views[0]) + network["first"](views[0])).sum()}]
        losses.append({"loss": network["body"](views[1]).sum(), "seen": network["watched"](views[1]).sum()})
        parts = iter(losses)
        for more in (True, False):
            with accumulating(module, more=more):
                (module(parts)["loss"] * group.size).backward()
        found = {name: layer.weight.grad for name, layer in network.items()}
        assert found["body"].tolist() == [[33.0, 66.0]], found
        assert found["first"].tolist() == [[3.0, 6.0]], found
        assert found["watched"] is None and found["idle"] is None, found
    layer = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)  # the fused optimiser pairs in memory's order
    module = group.joint(layer)
    module({"loss": layer(torch.ones(1, 2, 4, 4)).sum()} for _ in range(1))["loss"].backward()
    assert layer.weight.grad.stride() == layer.weight.stride()
"""
    )
    run_twice(script)


@pytest.mark.parametrize(
    ("stage", "words"), [("train-cam", ["--auxiliary-block", "-2"]), ("train-scribble", ["--scribbles", "SCRIBBLES"])]
)
def test_two_processes_leave_out_an_unreadable_image_and_end(stage, words, synthetic_root, weak_folders, tmp_path):
    """Seven images for batches of four."""
    root = shutil.copytree(synthetic_root, tmp_path / "data")
    broken = sorted((root / "JPEGImages").glob("*.jpg"))[2]
    broken.write_bytes(broken.read_bytes()[:300])
    words = [str(weak_folders["scribbles"]) if word == "SCRIBBLES" else word for word in words]
    small = ["--backbone", "test_vit", "--no-pretrained", "--crop", "32", "--epochs", "2", "--batch-size", "4"]
    about = ["--dataset", "voc", "--root", str(root), "--holdout", "0", "--device", "cpu", "--on-error", "skip"]
    done = run_twice("-m", "pseudolabel", stage, *about, *small, *words, "--out", str(tmp_path / "net.h5"), "--json")
    assert json.loads(done.stdout)["skipped"] == 1
    assert json.loads(done.stdout)["images"] == 7
    assert done.stderr.count(f"warning: skipped: {broken} is truncated") == 1
    with open_artefact(tmp_path / "net.h5", "checkpoint") as artefact:
        assert artefact.file["skipped/id"].asstr()[:].tolist() == [broken.stem]
        assert len(artefact.file["curves/loss"]) == 2


def test_processes_that_found_different_images_say_so_and_do_not_wait(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import torch
from pseudolabel.errors import PseudolabelError
from pseudolabel.training import joined

with joined("cpu") as (group, device):
    group.require_same({"images": 8, "first step": 100}, device)
    try:
        group.require_same({"images": 8 - group.rank, "first step": 0}, device)
    except PseudolabelError as error:
        print(error)
"""
    )
    wanted = "the processes differ in their images: 8, 7; let all of them read the same files, and start them again"
    assert run_twice(script).stdout.count(wanted) == 2


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])  # timm's holds its activation in the norm
def test_normalisations_of_several_processes_are_replaced_and_nothing_else(name):
    network = CamNetwork(Backbone(name), 3, "gap").eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    parameters, state, maps = list(network.parameters()), network.state_dict(), network(images).maps
    count = len(normalisations(network))
    assert Group().synchronised(network, torch.device("cpu")) is network
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in normalisations(network))
    found = Group(0, 2).synchronised(network, torch.device("cuda"))
    assert count == sum(isinstance(module, nn.SyncBatchNorm) for module in normalisations(found)) > 0
    assert list(map(id, found.parameters())) == list(map(id, parameters))
    assert list(found.state_dict()) == list(state)
    assert torch.equal(found(images).maps, maps)
    freeze(found.backbone.model, 1.0)
    training_mode(found)
    assert not any(module.training for module in normalisations(found))


def normalisations(network):
    """All batch normalisations of a network."""
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def test_one_process_has_nothing_to_synchronise(tmp_path):
    kept = finish(make_run(tmp_path / "a"))
    for name, tensor in finish(make_run(tmp_path / "b", sync_batchnorm=True)).items():
        assert torch.equal(tensor, kept[name]), name


def test_synchronised_normalisation_without_gpus_is_refused(tmp_path):
    run = make_run(tmp_path, sync_batchnorm=True)
    run.group = Group(0, 2)
    with pytest.raises(InputError) as error:
        finish(run)
    assert str(error.value) == (
        "--sync-batchnorm needs a GPU for each of the 2 processes, found --device cpu; leave it out"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch normalises over processes on GPUs alone")
def test_two_processes_normalise_by_the_whole_batch(tmp_path):
    """Both on one GPU, where nccl would want one each."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import torch
import torch.distributed as dist
from torch import nn
from pseudolabel.training import Group

def gradients(network, module, images, size):
    loss = (network(images) * torch.arange(16, device=images.device).view(4, 4)).sin().sum()
    module({"loss": loss} for _ in range(1))["loss"].mul(size).backward()
    return [parameter.grad.cpu() for parameter in network.parameters()] + [network[1].running_var.cpu()]

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).to(device)

device = torch.device("cuda", 0)
dist.init_process_group("gloo")
group = Group(dist.get_rank(), 2)
images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1)).to(device)
network = build()
alone = gradients(network, Group().joint(network), images, 1)
network = group.synchronised(build(), device)
part = images[2 * group.rank : 2 * group.rank + 2]
together = gradients(network, group.joint(network), part, 2)
for found, wanted in zip(together, alone, strict=True):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
dist.destroy_process_group()
"""
    )
    run_twice(script)


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path):
    run = make_run(tmp_path)
    run.group = Group(0, 3)
    with pytest.raises(InputError, match=r"^4 images a step cannot be shared by 3 processes; set --batch-size$"):
        finish(run)


def test_a_process_without_a_gpu_of_its_own_says_so_itself(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)  # the second is one too many
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as error, joined("cuda"):
        pass
    assert str(error.value) == "--device cuda:1: torch sees 1 cuda device; use --device auto or cpu"
    assert error.value.alone


def test_one_gpu_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError) as error, joined("cuda:0"):
        pass
    assert str(error.value) == "--device cuda:0 is one accelerator for 2 processes; use --device cuda"


def test_several_processes_cannot_share_an_accelerator_that_is_always_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError) as error, joined("auto"):
        pass
    assert str(error.value) == "--device auto is one accelerator (mps) for 2 processes; use --device cpu"

"""A tiny training of a linear model, for the tests of the loop."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pseudolabel.artefacts import Header
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.options import STAGES
from pseudolabel.runtime.progress import Progress
from pseudolabel.training import Mean, Run, sample_rng, train
from tests.helpers.training import KilledError


class Line(nn.Module):
    """A linear model with dropout, so that a resumed run also needs torch's random state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.drop(torch.tanh(self.body(x))))

    def heads(self):
        return [self.head]


class Points:
    """Twelve points; the noise depends on epoch and index alone."""

    def __len__(self):
        return 12

    def __getitem__(self, key):
        rng = sample_rng(0, *key)
        x = rng.normal(size=3).astype(np.float32)
        return {"id": f"p{key[1]}", "x": x, "y": np.float32([x.sum() + key[1]])}


def squared(network, batch):
    return {"loss": (network(batch["x"]) - batch["y"]).square().mean()}


def make_run(tmp_path: Path, stage: str = "train-cam", **settings) -> Run:
    tmp_path.mkdir(exist_ok=True)
    values = {"epochs": 4, "batch_size": 4, "learning_rate": 0.05, "save_every": 1, "workers": 0, **settings}
    options = STAGES[stage](out=tmp_path / "net.h5", root=tmp_path, **values)
    header = Header("checkpoint", stage, options.resolved(), ("background", "a"))
    return Run(Line(), Points(), Mean(squared, options.ema), options, header, torch.device("cpu"), torch.float32)


def finish(run: Run, *, overwrite: bool = False):
    train(run, Progress(), CostMeter(), overwrite=overwrite)
    return {name: torch.from_numpy(array) for name, array in run.objective.checkpoint(run.network).items()}


def kill_at_step(run: Run, step: int, cost: CostMeter) -> None:
    """Train until the given step, from 1, which fails."""

    def dies(network, batch):
        if run.step == step - 1:
            raise KilledError
        return squared(network, batch)

    run.objective = Mean(dies, run.options.ema)
    with pytest.raises(KilledError):
        train(run, Progress(), cost, overwrite=False)

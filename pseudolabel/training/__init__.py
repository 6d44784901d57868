"""What every training shares: samples, schedule, the loop, several processes, resuming, the checkpoint.

What a step computes depends on the seed, the step's number and the weights alone, never on the number of workers or on
whether the training was interrupted: a resumed training ends with the same weights as an uninterrupted one.
"""

from pseudolabel.training.group import Group, joined
from pseudolabel.training.loop import train
from pseudolabel.training.run import Batch, Losses, Mean, Objective, Run, Step, state_path
from pseudolabel.training.samples import Samples, sample_rng, split_records, total_steps
from pseudolabel.training.state import save_checkpoint

__all__ = [
    "Batch",
    "Group",
    "Losses",
    "Mean",
    "Objective",
    "Run",
    "Samples",
    "Step",
    "joined",
    "sample_rng",
    "save_checkpoint",
    "split_records",
    "state_path",
    "total_steps",
    "train",
]

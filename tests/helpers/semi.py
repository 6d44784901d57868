"""Short trainings on few masks, for the tests of what they make and of what reads that."""

from pseudolabel.data import load_dataset
from pseudolabel.options import TrainSemiOptions

SMALL = {
    "method": "mean-teacher",
    "backbone": "test_vit",
    "pretrained": False,
    "crop": 32,
    "steps": 4,
    "batch_size": 2,
    "ramp": 0.5,
    "precision": "float32",
    "device": "cpu",
    "workers": 0,
}


def ids_of(root, split="train"):
    """The ids of a split, in list order."""
    return [record.id for record in load_dataset({"dataset": "voc", "root": root, "split": split}).records]


def write_list(path, ids):
    """A list of image ids as a file."""
    path.write_text("".join(f"{name}\n" for name in ids))
    return path


def semi_options(root, folder, name="net.h5", count=3, **values):
    """Options of a short training on the first masks of a synthetic data set."""
    listed = write_list(folder / f"masks{count}.txt", ids_of(root)[:count])
    return TrainSemiOptions(
        **{"dataset": "voc", "root": root, "mask_list": listed, "out": folder / name, **SMALL, **values}
    )

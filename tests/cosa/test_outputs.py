"""What a checkpoint of train-cosa gives: CAMs, masks and pseudo labels, and segmenters trained on them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pseudolabel.artefacts import read_header
from pseudolabel.cli.app import main
from pseudolabel.data import Record, read_image
from pseudolabel.data.augmentation import resized
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.cosa import CosaNetwork, build_cosa_network
from pseudolabel.models.segmenter import Segmenter
from pseudolabel.runtime.devices import normalise
from tests.helpers.artefacts import read_maps, synthetic
from tests.helpers.cosa import CNN, VIT, cosa_architecture, write_cam, write_cosa, write_segmenter
from tests.helpers.runs import stage

EXACT = ("--precision", "float32", "--device", "cpu", "--workers", 0)
PLAIN = ("--size", 64, *EXACT)
BRIEF = ("--crop", 32, "--epochs", 1, "--batch-size", 4, *EXACT)
GROUP = {"teacher": "teacher", "student": "weights"}
STRIDE = {VIT: 16, CNN: 32}
SCALES = (1, 0.5, 1.5)


@pytest.fixture(scope="module")
def checkpoints(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of train-cosa, by backbone."""
    folder = tmp_path_factory.mktemp("cosa")
    return {name: write_cosa(folder / f"{name}.h5", synthetic_root, name) for name in (VIT, CNN)}


def network_in(path: Path, backbone: str, which: str) -> CosaNetwork:
    """One network of a checkpoint, read without the package's own reader."""
    with h5py.File(path) as file:
        network = build_cosa_network(cosa_architecture(backbone, len(file["classes/name"]) - 1))
        weights = {name: torch.from_numpy(np.asarray(item[()])) for name, item in file[GROUP[which]].items()}
    network.load_state_dict(weights)
    return network.eval()


def views(network: CosaNetwork, record: Record, stride: int) -> list[torch.Tensor]:
    """One photograph at each scale, (1, 3, H, W): its long side has four cells at scale 1, all sides whole ones."""
    image = read_image(record.image)
    scale = 4 * stride / max(image.shape[:2])
    size = [max(1, round(side * scale / stride)) * stride for side in image.shape[:2]]
    pixels = torch.from_numpy(resized(image, (size[0], size[1])).copy())[None]
    base = normalise(pixels, network.backbone.mean, network.backbone.std)
    found = []
    for factor in SCALES:
        shape = [max(1, int(side * factor / stride + 0.5)) * stride for side in size]
        found.append(base if factor == 1 else F.interpolate(base, shape, mode="bilinear", antialias=True))
    return found


@torch.no_grad()
def slow_cams(network: CosaNetwork, record: Record, head: str, stride: int) -> dict[int, np.ndarray]:
    """One view at a time: the maps of the tags, by class."""
    sums: dict[str, Any] = {"main": 0, "auxiliary": 0}
    seen = views(network, record, stride)
    grid = [side // stride for side in seen[0].shape[2:]]
    for view in seen:
        straight, mirrored = network.outputs(view), network.outputs(view.flip(3))
        for name, one, other in (
            ("main", straight.maps, mirrored.maps),
            ("auxiliary", straight.auxiliary, mirrored.auxiliary),
        ):
            best = torch.maximum(one, other.flip(3)).clamp(min=0)
            sums[name] = sums[name] + F.interpolate(best, grid, mode="bilinear")[0]
    over_peak = [maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-6) for maps in sums.values()]
    maps = (over_peak[0] + over_peak[1]) / 2 if head == "mean" else sums[head]
    found = {}
    for tag in record.tags or ():
        array = maps[tag - 1].numpy()
        span = array.max() - array.min()
        found[tag] = (array - array.min()) / span if span > 1e-6 else np.zeros_like(array)
    return found


@torch.no_grad()
def slow_probabilities(network: CosaNetwork, record: Record, stride: int, *, filtered: bool) -> np.ndarray:
    """One view at a time: probabilities (K, h, w), of the tags and background alone if filtered."""
    seen, total = views(network, record, stride), 0
    grid = [side // stride for side in seen[0].shape[2:]]
    for view in seen:
        straight = network.outputs(view).segmentation.softmax(1)
        mirrored = network.outputs(view.flip(3)).segmentation.softmax(1).flip(3)
        total = total + F.interpolate((straight + mirrored) / 2, grid, mode="bilinear")[0] / len(SCALES)
    found = total.numpy()
    if filtered:
        absent = [label for label in range(1, len(found)) if label not in (record.tags or ())]
        found[absent] = 0
        found = found / found.sum(axis=0)
    return found


@pytest.mark.parametrize("backbone", [VIT, CNN])
@pytest.mark.parametrize("which", ["teacher", "student"])
def test_cams_of_every_head_equal_a_plain_loop(checkpoints, synthetic_root, tmp_path, backbone, which):
    network, stride = network_in(checkpoints[backbone], backbone, which), STRIDE[backbone]
    for head in ("main", "auxiliary", "mean"):
        out = tmp_path / f"{head}.h5"
        words = ("--network", which, "--head", head, "--scales", "1,0.5,1.5", "--size", 4 * stride, "--propagate", 0)
        stage("make-cams", checkpoints[backbone], *words, "--out", out, *EXACT)
        stored = read_maps(out)
        assert max(array.max() for maps in stored for array in maps.values()) == 1
        for record, maps in zip(synthetic(synthetic_root).records, stored, strict=True):
            expected = slow_cams(network, record, head, stride)
            assert set(maps) == set(expected)
            for label, array in maps.items():
                np.testing.assert_allclose(array, expected[label], atol=2e-3)  # stored as float16


@pytest.mark.parametrize("backbone", [VIT, CNN])
@pytest.mark.parametrize(("which", "tags"), [("teacher", "dataset"), ("student", "none")])
def test_soft_labels_of_the_segmentation_head_equal_a_plain_loop(
    checkpoints, synthetic_root, tmp_path, backbone, which, tags
):
    network, stride = network_in(checkpoints[backbone], backbone, which), STRIDE[backbone]
    words = ("--network", which, "--tags", tags, "--split", "train", "--scales", "1,0.5,1.5", "--size", 4 * stride)
    stage("predict-masks", checkpoints[backbone], *words, "--out", tmp_path / "out", *EXACT)
    for record, maps in zip(synthetic(synthetic_root).records, read_maps(tmp_path / "out" / "soft.h5"), strict=True):
        expected = slow_probabilities(network, record, stride, filtered=tags == "dataset")
        for label, array in enumerate(expected):
            np.testing.assert_allclose(maps.get(label, 0), array, atol=2e-3)  # stored as float16


def test_the_teacher_is_read_unless_the_student_is_asked_for(checkpoints, tmp_path, capsys):
    digests = {}
    for words in ((), ("--network", "teacher"), ("--network", "student")):
        which = words[-1] if words else "default"
        stage("make-cams", checkpoints[VIT], *words, "--out", tmp_path / f"{which}.h5", *PLAIN)
        stage("predict-masks", checkpoints[VIT], *words, "--out", tmp_path / which, *PLAIN)
        cams, soft = read_header(tmp_path / f"{which}.h5"), read_header(tmp_path / which / "soft.h5")
        stated = words[-1] if words else "teacher"
        assert cams.protocol["network"] == soft.protocol["network"] == stated
        assert read_header(tmp_path / which / "masks.h5").protocol["network"] == stated
        digests[which] = (cams.digest, soft.digest)
    assert digests["default"] == digests["teacher"]
    assert all(one != other for one, other in zip(digests["teacher"], digests["student"], strict=True))


def test_other_checkpoints_have_no_network_to_state(synthetic_root, tmp_path):
    stage("make-cams", write_cam(tmp_path / "cam.h5", synthetic_root), "--out", tmp_path / "cams.h5", *PLAIN)
    stage("predict-masks", write_segmenter(tmp_path / "seg.h5", synthetic_root), "--out", tmp_path / "val", *PLAIN)
    for path in (tmp_path / "cams.h5", tmp_path / "val" / "soft.h5"):
        assert "network" not in read_header(path).protocol


def test_a_segmenter_out_of_a_checkpoint_has_its_weights(checkpoints):
    network, _ = load_network(checkpoints[VIT], "segmenter", "student")
    assert isinstance(network, Segmenter)
    whole = network_in(checkpoints[VIT], VIT, "student").state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, whole[name]), name
    assert {name.partition(".")[0] for name in whole} - {name.partition(".")[0] for name in network.state_dict()} == {
        "classifier",
        "auxiliary",
        "projection",
    }


def test_pseudo_labels_of_the_segmentation_head_go_through_the_later_stages(checkpoints, tmp_path):
    predicted = tmp_path / "predicted"
    stage("predict-masks", checkpoints[VIT], "--split", "train", "--tags", "dataset", "--out", predicted, *PLAIN)
    refined = tmp_path / "refined.h5"
    stage("refine-crf", predicted / "soft.h5", "--iterations", 1, "--workers", 0, "--out", refined)
    stage("export-masks", refined, "--workers", 0, "--out", tmp_path / "masks")
    stage("evaluate-masks", tmp_path / "masks")
    protocol = read_header(tmp_path / "masks" / "scores.h5").protocol
    assert (protocol["network"], protocol["tag_filter"]) == ("teacher", "image tags")
    stage("train-segmenter", predicted, "--out", tmp_path / "seg.h5", *BRIEF)
    header = read_header(tmp_path / "seg.h5")
    assert header.facts["architecture"]["backbone"] == VIT
    assert header.protocol["trained_on"].startswith("8 masks (network teacher; split train; tag filter image tags; ")
    stage("predict-masks", tmp_path / "seg.h5", "--out", tmp_path / "val", *PLAIN)
    assert "network" not in read_header(tmp_path / "val" / "masks.h5").protocol


def test_a_segmenter_learns_from_masks_of_the_cams(checkpoints, tmp_path):
    stage("make-cams", checkpoints[CNN], "--network", "student", "--out", tmp_path / "cams.h5", *PLAIN)
    stage("search-threshold", tmp_path / "cams.h5", "--method", "fixed", "--out", tmp_path / "threshold.h5")
    words = ("--threshold", tmp_path / "threshold.h5", "--workers", 0, "--out", tmp_path / "masks")
    stage("export-masks", tmp_path / "cams.h5", *words)
    stage("train-segmenter", tmp_path / "masks", "--out", tmp_path / "seg.h5", *BRIEF)
    header = read_header(tmp_path / "seg.h5")
    assert header.facts["architecture"]["backbone"] == CNN
    assert "network student; " in header.protocol["trained_on"]


def test_what_co_training_leaves_is_read(synthetic_root, tmp_path):
    data = ("--dataset", "voc", "--root", synthetic_root)
    network = ("--backbone", CNN, "--no-pretrained", "--teacher-scales", "1", "--holdout", 0)
    stage("train-cosa", *data, *network, "--out", tmp_path / "cosa.h5", *BRIEF)
    for which in ("teacher", "student"):
        words = (tmp_path / "cosa.h5", "--network", which)
        stage("make-cams", *words, "--head", "mean", "--out", tmp_path / f"{which}.h5", *PLAIN)
        stage("predict-masks", *words, "--out", tmp_path / which, *PLAIN)
    stage(
        "train-segmenter", tmp_path / "teacher", "--weights", tmp_path / "cosa.h5", "--out", tmp_path / "s.h5", *BRIEF
    )
    assert read_header(tmp_path / "s.h5").network["backbone"] == CNN


def backbone_of(path: Path, group: str = "weights") -> dict[str, np.ndarray]:
    """The backbone's weights in a checkpoint."""
    with h5py.File(path) as file:
        return {name: item[()] for name, item in file[group].items() if name.startswith("backbone.")}


def test_the_weights_that_the_co_training_began_with_are_found_again(synthetic_root, tmp_path):
    first = build_cosa_network(cosa_architecture(VIT, 5)).backbone.model.state_dict()
    save_file(first, tmp_path / "first.safetensors")
    begun = str(tmp_path / "first.safetensors")
    checkpoint = write_cosa(tmp_path / "cosa.h5", synthetic_root, weights=begun)
    stage("predict-masks", checkpoint, "--split", "train", "--out", tmp_path / "masks", *PLAIN)
    stage("train-segmenter", tmp_path / "masks", "--freeze", 1, "--out", tmp_path / "seg.h5", *BRIEF)
    for name, array in backbone_of(tmp_path / "seg.h5").items():
        assert np.array_equal(array, first[name.removeprefix("backbone.model.")]), name
    assert [item.kind for item in read_header(tmp_path / "seg.h5").inputs] == ["masks", "weights"]


def test_a_segmenter_can_go_on_from_the_student(checkpoints, tmp_path):
    stage("predict-masks", checkpoints[VIT], "--split", "train", "--out", tmp_path / "masks", *PLAIN)
    words = ("--weights", checkpoints[VIT], "--freeze", 1, "--out", tmp_path / "seg.h5")
    stage("train-segmenter", tmp_path / "masks", *words, *BRIEF)
    student, teacher = backbone_of(checkpoints[VIT]), backbone_of(checkpoints[VIT], "teacher")
    found = backbone_of(tmp_path / "seg.h5")
    assert all(np.array_equal(array, student[name]) for name, array in found.items())
    assert not all(np.array_equal(array, teacher[name]) for name, array in found.items())
    inputs = read_header(tmp_path / "seg.h5").inputs
    assert [item.kind for item in inputs] == ["masks", "checkpoint"]
    assert inputs[1].digest == read_header(checkpoints[VIT]).digest


def refusal(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """What a command line that must be refused says."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def test_a_data_set_whose_classes_have_changed_is_refused(checkpoints, synthetic_root, tmp_path, capsys):
    """Their names would come from the checkpoint, their tags' numbers from the data set."""
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    names = (root / "classes.txt").read_text().split()
    (root / "classes.txt").write_text("\n".join([names[0], *reversed(names[1:])]))
    for words in (["make-cams", "--out", tmp_path / "x.h5"], ["predict-masks", "--out", tmp_path / "x"]):
        said = refusal(capsys, words[0], checkpoints[VIT], "--root", root, "--split", "val", *words[1:])
        assert said == (
            f"error: {checkpoints[VIT]} was made with other classes than {root} has: class 1 was {names[1]!r}, "
            f"is {names[-1]!r}; pass --root with the folder that it was made from\n"
        )


def test_a_checkpoint_of_another_network_is_named(checkpoints, synthetic_root, tmp_path, capsys):
    cam = write_cam(tmp_path / "cam.h5", synthetic_root)
    segmenter = write_segmenter(tmp_path / "seg.h5", synthetic_root)
    out, folder = ("--out", tmp_path / "cams.h5", *PLAIN), ("--out", tmp_path / "folder", *PLAIN)
    assert refusal(capsys, "predict-masks", cam, *folder) == (
        f"error: {cam} holds a cam network (made by train-cam); wanted a checkpoint of train-segmenter, "
        "train-scribble, train-semi or train-cosa; make-cams takes it\n"
    )
    assert refusal(capsys, "make-cams", segmenter, *out) == (
        f"error: {segmenter} holds a segmenter network (made by train-segmenter); wanted a checkpoint of "
        "train-cam or train-cosa; predict-masks takes it\n"
    )
    assert refusal(capsys, "make-cams", cam, "--network", "student", *out) == (
        f"error: {cam} holds a cam network (made by train-cam) and no other; leave out --network student\n"
    )
    assert refusal(capsys, "predict-masks", segmenter, "--network", "teacher", *folder) == (
        f"error: {segmenter} holds a segmenter network (made by train-segmenter) and no other; "
        "leave out --network teacher\n"
    )
    assert refusal(capsys, "train-segmenter", checkpoints[VIT], "--out", tmp_path / "new.h5", *BRIEF) == (
        f"error: {checkpoints[VIT]} holds checkpoint (made by train-cosa); wanted masks artefact "
        "(made by export-masks, predict-masks or import-masks)\n"
    )
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {cam, segmenter}


def test_a_checkpoint_that_lacks_weights(synthetic_root, tmp_path, capsys):
    out, folder = ("--out", tmp_path / "other.h5", *PLAIN), ("--out", tmp_path / "folder", *PLAIN)
    alone = write_cosa(tmp_path / "alone.h5", synthetic_root, without=("teacher/",))
    said = f"error: {alone}: 'teacher' is missing from this checkpoint artefact; make it again\n"
    assert refusal(capsys, "make-cams", alone, *out) == said
    assert refusal(capsys, "predict-masks", alone, "--network", "teacher", *folder) == said
    stage("make-cams", alone, "--network", "student", "--out", tmp_path / "cams.h5", *PLAIN)
    headless = write_cosa(tmp_path / "headless.h5", synthetic_root, without=("teacher/head.classifier.weight",))
    said = (
        f"error: {headless}: the weights do not fit the architecture it states: "
        'Missing key(s) in state_dict: "head.classifier.weight".\n'
    )
    assert refusal(capsys, "predict-masks", headless, *folder) == said
    assert refusal(capsys, "make-cams", headless, *out) == said
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {alone, headless, tmp_path / "cams.h5"}


def test_weights_of_another_backbone_are_refused(checkpoints, tmp_path, capsys):
    stage("predict-masks", checkpoints[VIT], "--split", "train", "--out", tmp_path / "masks", *PLAIN)
    words = ("--weights", checkpoints[CNN], "--out", tmp_path / "seg.h5")
    said = refusal(capsys, "train-segmenter", tmp_path / "masks", *words, *BRIEF)
    assert said.startswith(f"error: {checkpoints[CNN]} lacks ")
    assert said.endswith("is it for another --backbone?\n")
    assert said.count("\n") == 1

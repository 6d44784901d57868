"""train-affinity and refine-affinity on masks of the synthetic set, with timm's tiny test models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pseudolabel.artefacts import MapsReader, open_artefact, read_header
from pseudolabel.data import Dataset
from pseudolabel.errors import ArtefactError, DatasetError, InputError
from pseudolabel.models.affinity import propagate
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.pair_affinity import AttentionAffinity, FeatureAffinity, build_pair_affinity
from pseudolabel.options import RefineAffinityOptions, TrainAffinityOptions
from pseudolabel.stages.refine_affinity import refine_affinity, walked, walking_affinity
from pseudolabel.stages.train_affinity import train_affinity
from tests.helpers.artefacts import blurred_truth, read_maps, synthetic, write_maps
from tests.helpers.training import weights_of

NETWORK = {"backbone": "test_vit", "crop": 32, "output_stride": None, "weights": None, "pretrained": False}


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


@pytest.fixture(scope="module")
def masks(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true masks of the training split."""
    labels = [dataset.read_mask(record) for record in dataset.records]
    return write_maps(tmp_path_factory.mktemp("masks") / "masks.h5", "masks", dataset, labels, network=NETWORK)


def train_options(masks: Path, out: Path, **values: Any) -> TrainAffinityOptions:
    settings: dict[str, Any] = {"pretrained": False, "crop": 64, "epochs": 2, "batch_size": 4, "workers": 0}
    settings |= {"precision": "float32", "device": "cpu", "radius": 3, "holdout": 0.25}
    return TrainAffinityOptions(masks=masks, out=out, **(settings | values))


@pytest.fixture(scope="module")
def trained(masks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("affinity") / "affinity.h5"
    train_affinity(train_options(masks, path))
    return path


@pytest.fixture(scope="module")
def cams(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cams") / "cams.h5"
    protocol = {"split": "train", "scales": [1.0]}
    return write_maps(path, "cams", dataset, blurred_truth(dataset, 6), protocol=protocol)


def refine_options(cams: Path, network: Path, out: Path, **values: Any) -> RefineAffinityOptions:
    settings: dict[str, Any] = {"precision": "float32", "device": "cpu", "workers": 0, "walk": 8, "power": 2.0}
    return RefineAffinityOptions(cams=cams, network=network, out=out, **(settings | values))


@pytest.mark.parametrize("form", ["features", "attention"])
def test_it_learns_which_cells_belong_together(masks: Path, tmp_path: Path, form: str) -> None:
    """More steps leave a smaller loss; what is held out is measured."""
    losses = []
    for epochs in (1, 8):
        result = train_affinity(
            train_options(masks, tmp_path / f"{epochs}.h5", form=form, epochs=epochs, learning_rate=1e-3)
        )
        losses.append(result["loss"])
        assert 0 <= result["together"] <= 1
        assert 0 <= result["apart"] <= 1
        assert result["held_out"] == 2
    assert losses[1] < losses[0]


def test_what_the_checkpoint_says(trained: Path, masks: Path) -> None:
    header = read_header(trained, "checkpoint")
    architecture = header.facts["architecture"]
    assert (header.stage, architecture["type"], architecture["form"]) == ("train-affinity", "affinity", "features")
    assert (architecture["radius"], architecture["earlier"]) == (3, -3)
    assert header.protocol["trained_on"].startswith("6 masks")
    assert isinstance(load_network(trained, "affinity")[0], FeatureAffinity)
    with pytest.raises(ArtefactError, match="affinity"):
        load_network(trained, "segmenter")


def test_the_same_seed_trains_the_same_network(masks: Path, tmp_path: Path, trained: Path) -> None:
    train_affinity(train_options(masks, tmp_path / "again.h5"))
    for name, tensor in weights_of(trained).items():
        torch.testing.assert_close(weights_of(tmp_path / "again.h5")[name], tensor, atol=0, rtol=0)


def test_attention_trains_its_weights_alone(masks: Path, tmp_path: Path) -> None:
    for epochs in (1, 3):
        train_affinity(train_options(masks, tmp_path / f"{epochs}.h5", form="attention", epochs=epochs))
    one, three = (weights_of(tmp_path / f"{epochs}.h5") for epochs in (1, 3))
    changed = {name for name, tensor in one.items() if not torch.equal(tensor, three[name])}
    assert changed == {"weights.weight", "weights.bias"}


def build(form: str) -> Any:
    torch.manual_seed(0)
    architecture = {"type": "affinity", "backbone": "test_vit", "in_chans": 3, "output_stride": None}
    network = build_pair_affinity({**architecture, "form": form, "earlier": -2, "radius": 3}).eval()
    for parameter in network.backbone.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(8)
    return network


def test_affinities_of_features_by_hand() -> None:
    network = build("features")
    images = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        affinity, pairs, grid = network(images, 3)
        last, earlier = network.backbone(images)
        levels = [F.elu(level(maps)) for level, maps in zip(network.levels, (earlier, last), strict=True)]
        features = F.elu(network.joint(torch.cat(levels, dim=1))).flatten(2)
    assert grid == (3, 4)
    for pair in (0, 7, len(pairs.first) - 1):
        i, j = int(pairs.first[pair]), int(pairs.second[pair])
        wanted = torch.exp(-(features[:, :, i] - features[:, :, j]).abs().mean(dim=1))
        torch.testing.assert_close(affinity[:, pair], wanted)


def test_affinities_of_attention_against_timms_own() -> None:
    """Scores from queries and keys of the blocks themselves, without the fused operation."""
    network = build("attention")
    assert isinstance(network, AttentionAffinity)
    kept: list[torch.Tensor] = []
    model = network.backbone.model
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for index, block in enumerate(model.blocks):
        if index in network.blocks:
            block.attn.register_forward_hook(lambda module, given, found: kept.append(given[0]))
    with torch.no_grad():
        affinity, pairs, _ = network(images, 3)
        scores = []
        for index, tokens in zip(network.blocks, kept, strict=True):
            attention = model.blocks[index].attn
            parts = attention.qkv(tokens).reshape(1, tokens.shape[1], 3, attention.num_heads, -1)
            queries, keys, _ = parts[:, model.num_prefix_tokens :].permute(2, 0, 3, 1, 4)
            found = (queries * attention.scale @ keys.transpose(2, 3))[0]
            scores.append(found + found.transpose(1, 2))
        joined = torch.cat(scores)[:, pairs.first, pairs.second].T
        wanted = network.weights(joined)[:, 0].sigmoid()
    torch.testing.assert_close(affinity[0], wanted, atol=1e-4, rtol=1e-4)


def test_a_walk_by_hand() -> None:
    """Two cells that go to each other half of the time share all they have; a third keeps its own."""
    matrix = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    found = walked({2: np.array([[1.0, 0.0, 0.25]]), 4: np.zeros((1, 3))}, matrix, (1, 3), 3)
    np.testing.assert_allclose(found[2], [[1.0, 1.0, 0.5]])
    assert not found[4].any()
    assert walked({}, matrix, (1, 3), 3) == {}


def test_the_stage_walks_each_image_on_its_network_s_grid(
    trained: Path, cams: Path, dataset: Dataset, tmp_path: Path
) -> None:
    options = refine_options(cams, trained, tmp_path / "walked.h5", size=64)
    result = refine_affinity(options)
    assert (result["images"], result["skipped"]) == (6, 0)
    header = read_header(options.out, "cams")
    assert header.protocol["walk"] == "8 steps, power 2"
    assert header.protocol["scales"] == [1.0]
    assert "trained_on" not in header.protocol
    before, after = read_maps(cams), read_maps(options.out)
    for old, new in zip(before, after, strict=True):
        assert list(old) == list(new)
        for array in new.values():
            assert max(array.shape) == 4
            assert float(array.max()) in (0.0, 1.0)


def test_rows_of_the_walk_sum_to_one_and_mirroring_is_a_mean(trained: Path, cams: Path, tmp_path: Path) -> None:
    network, _ = load_network(trained, "affinity")
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    options = refine_options(cams, trained, tmp_path / "o.h5")
    with torch.inference_mode():
        matrix, grid = walking_affinity(network.eval(), images, 3, options)  # type: ignore[arg-type]
        flipped, _ = walking_affinity(network, images.flip(3), 3, options)  # type: ignore[arg-type]
    assert grid == (4, 3)
    torch.testing.assert_close(matrix.sum(dim=2), torch.ones(2, 12))
    maps = torch.rand(2, 1, 4, 3)
    torch.testing.assert_close(propagate(maps.flip(3), flipped, 3).flip(3), propagate(maps, matrix, 3))


def test_skipped_images_stay_skipped(trained: Path, dataset: Dataset, tmp_path: Path) -> None:
    maps = [*blurred_truth(dataset, 2), "is truncated", {}]
    cams = write_maps(tmp_path / "cams.h5", "cams", dataset, maps)
    result = refine_affinity(refine_options(cams, trained, tmp_path / "walked.h5"))
    assert (result["images"], result["skipped"]) == (3, 1)
    with open_artefact(tmp_path / "walked.h5", "cams") as artefact:
        assert MapsReader(artefact).skipped == {dataset.records[2].id: "is truncated"}


def test_a_network_of_other_classes(trained: Path, dataset: Dataset, tmp_path: Path) -> None:
    cams = write_maps(tmp_path / "cams.h5", "cams", dataset, [{}], classes=("background", "cat"))
    with pytest.raises(InputError) as error:
        refine_affinity(refine_options(cams, trained, tmp_path / "walked.h5"))
    assert str(error.value) == (
        f"{trained} was trained on labels of other classes (5 of them) than {cams} has (1); train it on labels made "
        "from these CAMs"
    )


def test_a_photograph_of_another_size(
    trained: Path, cams: Path, synthetic_root: Path, dataset: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(synthetic_root, tmp_path / "moved")
    path = tmp_path / "moved" / dataset.records[0].image.relative_to(synthetic_root)
    photograph = Image.open(path)
    width, height = photograph.size
    photograph.resize((width, height + 2)).save(path)
    with pytest.raises(DatasetError) as error:
        refine_affinity(refine_options(cams, trained, tmp_path / "walked.h5", root=tmp_path / "moved"))
    assert str(error.value) == (
        f"{path} is {width} x {height + 2} pixels, but its maps were made for {width} x {height}; pass --root with the "
        "folder that they were made from, or make them again"
    )


def test_labels_without_a_pair_teach_nothing_and_say_so(dataset: Dataset, tmp_path: Path) -> None:
    labels = [np.full(dataset.read_mask(record).shape, 255) for record in dataset.records]
    path = write_maps(tmp_path / "masks.h5", "masks", dataset, labels, network=NETWORK)
    with pytest.raises(InputError) as error:
        train_affinity(train_options(path, tmp_path / "affinity.h5"))
    assert str(error.value) == f"{path} labels 0 usable images of split train; training needs two"


def test_attention_of_a_cnn(masks: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        train_affinity(train_options(masks, tmp_path / "a.h5", form="attention", backbone="test_resnet"))
    assert str(error.value) == (
        "--form attention: test_resnet has no attention between patches as plain ViTs do; use --form features"
    )


def test_a_cnn_has_affinity_by_features(masks: Path, cams: Path, tmp_path: Path) -> None:
    train_affinity(train_options(masks, tmp_path / "a.h5", backbone="test_resnet", epochs=1, earlier=-2))
    result = refine_affinity(refine_options(cams, tmp_path / "a.h5", tmp_path / "walked.h5"))
    assert result["images"] == 6

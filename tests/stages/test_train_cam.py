"""train-cam on the synthetic set, with timm's tiny test models."""

import shutil

import numpy as np
import pytest
import timm
import torch

from pseudolabel.artefacts import open_artefact, read_header
from pseudolabel.artefacts.inspection import describe_artefact
from pseudolabel.data import open_dataset
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.models.cam import CamOutput
from pseudolabel.models.checkpoint import load_network
from pseudolabel.runtime.devices import normalise
from pseudolabel.stages.make_cams import make_cams
from pseudolabel.stages.train_cam import architecture_of, classification_losses, train_cam
from pseudolabel.training import state_path
from pseudolabel.training.image_tags import tag_vector
from tests.helpers.cams import cam_options, make_options


@pytest.fixture(scope="module")
def checkpoint(synthetic_root, tmp_path_factory):
    """A CAM network trained for two epochs."""
    path = tmp_path_factory.mktemp("cam") / "cam.h5"
    train_cam(cam_options(synthetic_root, path))
    return path


def test_a_checkpoint_says_all_that_later_stages_need(checkpoint, synthetic_root):
    header = read_header(checkpoint, "checkpoint")
    assert header.dataset["root"] == str(synthetic_root)
    assert header.network["backbone"] == "test_vit"
    assert header.facts["architecture"]["classes"] == len(header.classes) - 1
    assert len(header.facts["held_out"]) == 2
    assert 0 <= header.facts["tag_map"] <= 1
    assert header.oracle == ()
    assert not state_path(checkpoint).exists()
    with open_artefact(checkpoint, "checkpoint") as artefact:
        assert artefact.file["curves/loss"].shape == (2,)  # 6 images, batches of 4, 2 epochs
        trained = artefact.file["images/id"].asstr()[:].tolist()
    assert sorted(trained + header.facts["held_out"]) == [f"scene_{number:05}" for number in range(8)]


def test_the_same_seed_trains_the_same_network(checkpoint, synthetic_root, tmp_path):
    again = tmp_path / "again.h5"
    train_cam(cam_options(synthetic_root, again, workers=2))
    assert read_header(again).digest == read_header(checkpoint).digest


def test_tags_from_masks_are_marked_oracle(synthetic_root, tmp_path):
    train_cam(cam_options(synthetic_root, tmp_path / "cam.h5", tag_source="masks", epochs=1))
    assert read_header(tmp_path / "cam.h5").oracle == ("image tags read from pixel masks",)
    make_cams(make_options(tmp_path / "cam.h5", tmp_path / "cams.h5"))
    assert read_header(tmp_path / "cams.h5").oracle == ("image tags read from pixel masks",)


def test_an_output_that_exists_is_not_replaced(checkpoint, synthetic_root):
    with pytest.raises(InputError) as error:
        train_cam(cam_options(synthetic_root, checkpoint))
    assert str(error.value) == f"{checkpoint} exists already; pass --overwrite to replace it, or another --out"


def test_losses_by_hand():
    class Net:
        def __call__(self, images):
            return CamOutput(torch.zeros(1, 2, 1, 2), None, torch.tensor([[1.0, -1.0]]), None)

    losses = classification_losses(Net(), torch.zeros(1), torch.tensor([[1.0, 0.0]]))
    # logits (1, -1), tags (1, 0): both terms are log(1 + e^-1)
    assert losses["loss"].item() == pytest.approx(np.log1p(np.exp(-1)), rel=1e-6)


def test_a_crop_that_patches_do_not_fill(synthetic_root, tmp_path):
    with pytest.raises(InputError) as error:
        train_cam(cam_options(synthetic_root, tmp_path / "cam.h5", crop=40))
    assert str(error.value) == "--crop 40 is no multiple of 16, as test_vit needs; use 32 or 48"
    assert list(tmp_path.iterdir()) == []
    train_cam(cam_options(synthetic_root, tmp_path / "cnn.h5", backbone="test_resnet", crop=40, epochs=1))


def test_a_cnn_trains_too(synthetic_root, tmp_path):
    options = cam_options(
        synthetic_root,
        tmp_path / "cam.h5",
        backbone="test_resnet",
        output_stride=16,
        freeze=0.3,
        pooling="gmp",
        epochs=1,
    )
    result = train_cam(options)
    assert np.isfinite(result["loss"])
    make_cams(make_options(tmp_path / "cam.h5", tmp_path / "cams.h5", head=None))
    assert read_header(tmp_path / "cams.h5").protocol["head"] == "main"


def test_training_records_what_it_skips(synthetic_root, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    victim = open_dataset(cam_options(root, tmp_path / "x.h5")).records[2]
    victim.image.write_bytes(b"")
    said = f"{victim.image} is empty (0 bytes); replace or remove it"
    with pytest.raises(DatasetError) as error:
        train_cam(cam_options(root, tmp_path / "cam.h5", epochs=1, workers=1))
    assert str(error.value) == said
    assert not (tmp_path / "cam.h5").exists()
    result = train_cam(cam_options(root, tmp_path / "cam.h5", epochs=1, on_error="skip", overwrite=True))
    assert result["skipped"] == 1
    assert describe_artefact(tmp_path / "cam.h5")["skipped"] == {victim.id: said}


def test_tag_vectors():
    from pathlib import Path

    from pseudolabel.data import Record

    assert tag_vector(Record("a", Path("a.jpg"), (1, 3)), 4).tolist() == [1, 0, 1, 0]


def test_a_backbone_of_ones_own_is_needed_in_training_alone(synthetic_root, tmp_path):
    folder, path = tmp_path / "own", tmp_path / "cam.h5"
    timm.models.save_for_hf(timm.create_model("test_vit", img_size=96), str(folder), model_args={"img_size": 96})
    stored = timm.models.load_state_dict(str(folder / "pytorch_model.bin"))
    begin = {"backbone": f"local-dir:{folder}", "pretrained": True, "epochs": 1, "learning_rate": 1e-12}
    train_cam(cam_options(synthetic_root, path, **begin))
    found = {(item.kind, item.path) for item in read_header(path).inputs}
    assert ("weights", str(folder / "pytorch_model.bin")) in found
    about = read_header(path)
    assert about.network["backbone"] == f"local-dir:{folder}"
    assert about.network["backbone_config"] == about.facts["architecture"]["backbone_config"]
    shutil.rmtree(folder)
    network, _ = load_network(path, "cam")
    torch.testing.assert_close(network.backbone.model.pos_embed.data, stored["pos_embed"])
    assert make_cams(make_options(path, tmp_path / "cams.h5"))["images"] == 8
    with pytest.raises(InputError) as error:
        train_cam(cam_options(synthetic_root, tmp_path / "again.h5", **begin))
    assert str(error.value) == (
        f"--backbone local-dir:{folder}: the folder has no config.json, as timm's save_for_hf writes it"
    )


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_a_network_for_grey_sees_no_colours(synthetic_root, tmp_path, backbone):
    path, weights = tmp_path / "cam.h5", tmp_path / "w.pth"
    torch.save(timm.create_model(backbone).state_dict(), weights)
    train_cam(cam_options(synthetic_root, path, backbone=backbone, in_chans=1, weights=weights, epochs=1))
    network, header = load_network(path, "cam")
    assert len(header.network["mean"]) == network.backbone.in_chans == 1
    assert make_cams(make_options(path, tmp_path / "cams.h5"))["images"] == 8
    backbone, photograph = network.eval().backbone, np.zeros((2, 64, 64, 3), np.uint8)
    photograph[0, ..., 0], photograph[1, ..., 1] = 200, 102  # as bright as each other
    with torch.no_grad():
        maps = network(normalise(torch.from_numpy(photograph), backbone.mean, backbone.std)).maps
    torch.testing.assert_close(maps[0], maps[1])


@pytest.mark.parametrize(("backbone", "pooling"), [("test_vit", "gmp"), ("test_resnet", "gap")])
def test_pooling_follows_the_backbone_unless_it_is_asked_for(synthetic_root, tmp_path, backbone, pooling):
    options = cam_options(synthetic_root, tmp_path / "x.h5", backbone=backbone)
    assert architecture_of(options, 5)["pooling"] == pooling
    for asked in ("gap", "gmp"):
        assert architecture_of(options.model_copy(update={"pooling": asked}), 5)["pooling"] == asked

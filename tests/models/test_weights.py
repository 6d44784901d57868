"""Initial weights: files of timm's and of other layouts, checkpoints of this package, and what is refused."""

import argparse
import collections
import copy
import hashlib
import os
import pickle

import h5py
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from pseudolabel.artefacts import Header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.models.backbone import Backbone
from pseudolabel.models.cam import build_cam_network
from pseudolabel.models.checkpoint import load_network, weight_arrays
from pseudolabel.models.segmenter import build_segmenter, timm_model
from pseudolabel.models.weights import weights_inputs

CAM = {
    "type": "cam",
    "backbone": "test_vit",
    "output_stride": None,
    "auxiliary_block": -2,
    "pooling": "gap",
    "classes": 3,
}
SMALL = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}
ADVICE = "is it for another --backbone or --in-chans?"


def small(architecture, **more):
    """A timm architecture with the widths of a test."""
    settings = {"input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.5,) * 3, "first_conv": "patch_embed.proj"}
    config = {"architecture": architecture, "model_args": {**SMALL, **more}, "pretrained_cfg": settings}
    return {
        "backbone": architecture,
        "backbone_config": {**config, "pretrained_cfg": {**settings, "classifier": "head"}},
    }


def assert_same(model, expected):
    found = model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)


def timms(architecture):
    """A random model of such a description, as timm alone builds it."""
    torch.manual_seed(3)
    config = architecture["backbone_config"]
    model = timm.create_model(config["architecture"], num_classes=0, **config["model_args"])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_weights_travel_by_safetensors_by_pth_and_by_checkpoint(tmp_path):
    source = build_cam_network(CAM)
    save_file(source.backbone.model.state_dict(), tmp_path / "weights.safetensors")
    torch.save(source.backbone.model.state_dict(), tmp_path / "weights.pth")
    torch.save({"model": source.backbone.model.state_dict(), "epoch": 3}, tmp_path / "training.pth")
    network = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop": 32}
    about = {"facts": {"architecture": CAM}, "network": network}
    header = Header("checkpoint", "train-cam", {}, ("background", "a", "b", "c"), **about)
    write_artefact(tmp_path / "cam.h5", header, weight_arrays(source.state_dict()), CostMeter())
    for name in ("weights.safetensors", "weights.pth", "training.pth", "cam.h5"):
        assert_same(Backbone("test_vit", weights=tmp_path / name).model, source.backbone.model.state_dict())
    network, stored = load_network(tmp_path / "cam.h5", "cam")
    assert stored.classes == ("background", "a", "b", "c")
    assert_same(network, source.state_dict())


def test_a_network_keeps_no_second_copy_of_its_weights(tmp_path):
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    begun, fresh = Backbone("test_vit", weights=tmp_path / "w.safetensors"), Backbone("test_vit")
    assert len(pickle.dumps(begun)) < 1.1 * len(pickle.dumps(fresh))
    assert_same(copy.deepcopy(begun).model, begun.model.state_dict())


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext"])
def test_a_classifier_in_the_file_is_left_out(name, tmp_path):
    source = timm.create_model(name, num_classes=7)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    found = Backbone(name, weights=tmp_path / "w.pth").model.state_dict()
    stored = source.state_dict()
    assert len(found) < len(stored)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in found.items())


def test_a_classifier_where_the_pretrained_model_has_none(tmp_path):
    """DINOv2 is published without one; a network that was trained on from it has one."""
    described = small("vit_small_patch14_dinov2")
    stored = timms(described).state_dict()
    save_file({**stored, "head.weight": torch.zeros(7, 32), "head.bias": torch.zeros(7)}, tmp_path / "w.safetensors")
    assert_same(Backbone(described, weights=tmp_path / "w.safetensors").model, stored)


def test_position_embeddings_of_another_size_are_resized(tmp_path):
    """A file of 384 pixels in a model of 224."""
    torch.manual_seed(0)
    source = timm.create_model("vit_tiny_patch16_384", num_classes=5)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    model = Backbone("vit_tiny_patch16_224", weights=tmp_path / "w.pth").model
    stored = source.state_dict()
    for name, tensor in model.state_dict().items():
        if name != "pos_embed":
            assert torch.equal(tensor, stored[name])
    first, grid = stored["pos_embed"][:, :1], stored["pos_embed"][:, 1:].reshape(1, 24, 24, 192).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, (14, 14), mode="bicubic", antialias=True)
    expected = torch.cat([first, resized.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(model.pos_embed.data, expected)


def native_dinov2(state):
    """The layout of DINOv2's published files with registers: the class token has a position of its own."""
    named = {"reg_token": "register_tokens"}
    native = {named.get(name, name): tensor for name, tensor in state.items()}
    own = torch.randn(1, 1, 32)
    native["cls_token"] = state["cls_token"] - own
    native["pos_embed"] = torch.cat([own, state["pos_embed"]], dim=1)
    return {**native, "mask_token": torch.zeros(1, 32)}


def native_dinov3(state):
    """The layout of DINOv3's published files, whose biases of queries and values are zero."""
    named = (("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"), ("reg_token", "storage_tokens"))
    native = {}
    for name, tensor in state.items():
        for ours, theirs in named:
            name = name.replace(ours, theirs)
        native[name] = tensor
        if name.endswith("qkv.weight"):
            native[name.replace("weight", "bias")] = torch.zeros(len(tensor))
            native[name.replace("weight", "bias_mask")] = torch.zeros(len(tensor))
    return {**native, "mask_token": torch.zeros(1, 32), "rope_embed.periods": torch.zeros(4)}


def native_clip(state):
    """The layout of OpenAI's CLIP, whose text tower is in the same file."""
    swaps = (
        ("blocks.", "transformer.resblocks."),
        ("norm_pre", "ln_pre"),
        ("norm1", "ln_1"),
        ("norm2", "ln_2"),
        ("attn.qkv.", "attn.in_proj_"),
        ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("patch_embed.proj", "conv1"),
    )
    native = {
        "visual.proj": torch.zeros(32, 8),
        "logit_scale": torch.zeros(()),
        "token_embedding.weight": torch.ones(3),
    }
    for name, tensor in state.items():
        for ours, theirs in swaps:
            name = name.replace(ours, theirs)
        name = name.replace("norm.", "ln_post.") if name.startswith("norm.") else name
        if name == "cls_token":
            name, tensor = "class_embedding", tensor[0, 0]
        if name == "pos_embed":
            name, tensor = "positional_embedding", tensor[0]
        native[f"visual.{name}"] = tensor
    return native


def native_mae(state):
    """The layout of MAE's published files with a decoder."""
    return {"model": {**state, "decoder_embed.weight": torch.zeros(4, 32)}, "mask_token": torch.zeros(1, 1, 4)}


@pytest.mark.parametrize(
    ("architecture", "native"),
    [
        ("vit_small_patch14_reg4_dinov2", native_dinov2),
        ("vit_small_patch16_dinov3", native_dinov3),
        ("vit_base_patch16_clip_224", native_clip),
        ("vit_base_patch16_224", native_mae),
    ],
)
def test_native_layouts_are_renamed(architecture, native, tmp_path, capsys):
    described = small(architecture)
    expected = timms(described).state_dict()
    torch.save(native({name: tensor.clone() for name, tensor in expected.items()}), tmp_path / "native.pth")
    found = Backbone(described, weights=tmp_path / "native.pth").model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)
    assert capsys.readouterr() == ("", "")  # timm prints on its way, where the result of a stage goes


@pytest.mark.parametrize(("name", "conv"), [("test_vit", "patch_embed.proj.weight"), ("test_resnet", "conv1.0.weight")])
def test_one_channel_has_the_sum_of_the_colours_weights(name, conv, tmp_path):
    source = timm.create_model(name)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    backbone = Backbone({"backbone": name, "in_chans": 1}, weights=tmp_path / "w.safetensors")
    torch.testing.assert_close(backbone.model.state_dict()[conv], source.state_dict()[conv].sum(dim=1, keepdim=True))
    assert (backbone.in_chans, backbone.mean, backbone.std) == (1, (0.5,), (0.5,))
    assert backbone(torch.zeros(1, 1, 64, 64))[0].shape[1] == backbone.channels


def test_a_decoder_takes_layouts_names_and_channels_as_a_backbone_does(tmp_path):
    """Under most decoders timm's model has other names than by itself."""
    source = timm.create_model("test_convnext", num_classes=7)
    torch.save({"model": source.state_dict()}, tmp_path / "w.pth")
    architecture = {"backbone": "test_convnext", "decoder": "unet", "classes": 2, "in_chans": 1, "output_stride": None}
    network = build_segmenter(architecture, weights=tmp_path / "w.pth").eval()
    own = timm_model(network).state_dict()
    torch.testing.assert_close(own["stem_0.weight"], source.state_dict()["stem.0.weight"].sum(dim=1, keepdim=True))
    name = "stages_1.blocks.0.mlp.fc1.weight"
    assert torch.equal(own[name], source.state_dict()[name.replace("stages_1", "stages.1")])
    assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 16, 16)


def refused(path, name="test_vit", error=ArtefactError):
    with pytest.raises(error) as found:
        Backbone(name, weights=path)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_weights_of_another_backbone_are_named(tmp_path):
    path = tmp_path / "resnet.safetensors"
    save_file({"conv1.0.weight": torch.zeros(1)}, path)
    wanted = Backbone("test_vit").model.state_dict()
    assert refused(path) == (
        f"{path} lacks {len(wanted)} of the backbone's {len(wanted)} weights (first: cls_token); "
        "is it for another --backbone?"
    )


def test_one_weight_that_is_missing_is_named(tmp_path):
    path = tmp_path / "w.pth"
    stored = timm.create_model("test_vit").state_dict()
    del stored["blocks.3.mlp.fc1.bias"]
    torch.save(stored, path)
    count = len(stored) - 2 + 1
    said = (
        f"{path} lacks 1 of the backbone's {count} weights (first: blocks.3.mlp.fc1.bias); "
        "is it for another --backbone?"
    )
    assert refused(path) == said
    with pytest.raises(ArtefactError) as found:
        build_segmenter({"backbone": "test_vit", "decoder": "dpt", "classes": 2}, weights=path)
    assert str(found.value) == said


def test_a_weight_of_another_shape_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), path)
    said = refused(path)
    assert said.startswith(f"{path} does not fit test_vit (size mismatch for cls_token: copying a param with shape ")
    assert said.endswith(f"); {ADVICE}")


def test_a_checkpoint_of_another_shape_is_named(tmp_path):
    network = build_cam_network(CAM)
    header = Header("checkpoint", "train-cam", {}, ("background",), facts={"architecture": CAM})
    path = tmp_path / "cam.h5"
    write_artefact(path, header, weight_arrays(network.state_dict()), CostMeter())
    with pytest.raises(ArtefactError) as found:
        Backbone({"backbone": "test_vit", "in_chans": 1}, weights=path)
    assert str(found.value) == (
        f"{path}: patch_embed.proj.weight has shape (64, 3, 16, 16), the backbone wants (64, 1, 16, 16); {ADVICE}"
    )


def test_a_text_file_as_weights(tmp_path):
    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"w{suffix}"
        path.write_text("not weights")
        assert refused(path).startswith(f"{path} is not a readable {suffix} file: ")


def test_a_file_of_no_known_kind(tmp_path):
    path = tmp_path / "w.npz"
    path.write_bytes(b"x")
    assert refused(path, error=InputError) == (
        f"weights file {path} is none of .safetensors, .pth, .pt, .bin, .tar and no checkpoint .h5; convert it"
    )
    assert refused(tmp_path / "no.pth", error=InputError) == (
        f"weights file {tmp_path / 'no.pth'} does not exist; pass --weights FILE.safetensors or a checkpoint .h5"
    )


def test_a_file_without_weights_where_timm_looks_for_them(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"teacher": timm.create_model("test_vit").state_dict(), "epoch": 3}, path)
    assert refused(path) == (
        f"{path} holds no weights where timm looks for them: tensors by name, or a dictionary of them called "
        "state_dict or model; save them so"
    )


class Harmful:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickle_is_not_run(tmp_path):
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    torch.save({"state_dict": timm.create_model("test_vit").state_dict(), "more": Harmful(trace)}, path)
    assert refused(path, error=InputError) == (
        f"weights file {path} holds more than tensors (posix.mkdir), and code of files is not run; save its state "
        "dictionary alone, best as .safetensors"
    )
    old = tmp_path / "old.pth"  # as PyTorch wrote them before 1.6
    torch.save({"more": Harmful(trace)}, old, _use_new_zipfile_serialization=False)
    assert refused(old).startswith(f"{old} is not a readable .pth file: ")
    assert not trace.exists()


def test_plain_data_beside_the_weights_does_no_harm(tmp_path):
    source = timm.create_model("test_vit", num_classes=0)
    more = {"optimizer": collections.OrderedDict(lr=0.1), "epoch": 3, "names": ["a"]}
    torch.save({"state_dict": source.state_dict(), **more}, tmp_path / "w.pth")
    assert_same(Backbone("test_vit", weights=tmp_path / "w.pth").model, source.state_dict())


def test_a_files_digest_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"args": argparse.Namespace(lr=1)}, path)
    (found,) = weights_inputs("test_vit", path)
    assert (found.kind, found.path) == ("weights", str(path))
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert weights_inputs("test_vit", None) == weights_inputs("test_vit", "pretrained") == ()


def test_real_safetensors_are_read_as_they_are(tmp_path):
    source = timm.create_model("test_efficientnet", num_classes=0)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    assert_same(
        Backbone("test_efficientnet", weights=tmp_path / "w.safetensors").model, load_file(tmp_path / "w.safetensors")
    )


def test_weights_that_are_altered_or_no_numbers_are_refused(tmp_path):
    network = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop": 32}
    header = Header("checkpoint", "train-cam", {}, ("background", "a"), facts={"architecture": CAM}, network=network)
    weights = weight_arrays(build_cam_network(CAM).state_dict())
    name = next(name for name, array in weights.items() if array.dtype.kind == "f")
    weights["weights/more"] = np.zeros(1 << 19, np.float32)  # so much that opening alone does not recompute the digest
    path = write_artefact(tmp_path / "cam.h5", header, weights, CostMeter())
    with h5py.File(path, "r+") as file:
        file[name][...] = 0.5
    with pytest.raises(ArtefactError, match=r"cam\.h5 was altered: its data have digest .*; make it again$"):
        load_network(path, "cam")
    weights[name] = np.full_like(weights[name], np.nan)
    path = write_artefact(tmp_path / "nan.h5", header, weights, CostMeter())
    with pytest.raises(ArtefactError) as caught:
        load_network(path, "cam")
    assert str(caught.value) == f"{path}: {name!r} holds NaN or infinity; train it again"

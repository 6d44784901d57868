"""Backbones by name: folders in timm's format, checkpoints that stand alone, and those that docs/backbones.md lists."""

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

from pseudolabel.errors import InputError
from pseudolabel.models.affinity import patch_affinity
from pseudolabel.models.backbone import Backbone
from pseudolabel.models.segmenter import build_segmenter
from pseudolabel.models.timm_models import describe_backbone
from pseudolabel.models.weights import weights_inputs

TABLE = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
LISTED = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| (\d+) \| (yes|no) \|", TABLE, re.MULTILINE)


@pytest.fixture
def folder(tmp_path):
    """A model of one's own, as timm writes it: another size of input, another normalisation, a classifier."""
    torch.manual_seed(1)
    model = timm.create_model("test_vit", img_size=96, num_classes=4)
    model.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "label_names": ["a", "b", "c", "d"]}
    save_for_hf(model, str(tmp_path / "own"), model_args={"img_size": 96}, safe_serialization=True)
    return tmp_path / "own"


def test_a_folder_in_timms_format(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    described = describe_backbone("local-dir:own")
    assert described["backbone"] == f"local-dir:{folder}"
    config = described["backbone_config"]
    assert config["architecture"] == "test_vit"
    assert config["model_args"]["img_size"] in (96, [96, 96])  # as timm's version writes it
    assert config["pretrained_cfg"]["mean"] == [0.1, 0.2, 0.3]
    assert "label_names" not in json.dumps(described)
    network = Backbone("local-dir:own", weights="pretrained")
    stored = timm.models.load_state_dict(str(folder / "model.safetensors"))
    assert all(torch.equal(tensor, stored[name]) for name, tensor in network.model.state_dict().items())
    assert (network.mean, network.std, network.is_vit) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), True)
    (found,) = weights_inputs("local-dir:own", "pretrained")
    assert (found.kind, found.path) == ("weights", str(folder / "model.safetensors"))


@pytest.mark.parametrize("decoder", ["largefov", "dpt"])
def test_its_network_is_built_without_the_folder(folder, decoder):
    described = describe_backbone(f"local-dir:{folder}")
    architecture = {**described, "decoder": decoder, "classes": 3, "output_stride": None}
    trained = build_segmenter(architecture, weights="pretrained").eval()
    shutil.rmtree(folder)
    again = build_segmenter(json.loads(json.dumps(architecture))).eval()
    again.load_state_dict(trained.state_dict())
    images = torch.randn(1, 3, 128, 64 if decoder == "largefov" else 128)
    assert torch.equal(again(images), trained(images))
    assert (again.mean, again.std) == (trained.mean, trained.std) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))


def test_folders_that_are_none_of_timms(folder, tmp_path):
    def refused(name, **settings):
        with pytest.raises(InputError) as error:
            Backbone(name, **settings)
        return str(error.value)

    own, other = f"local-dir:{folder}", f"local-dir:{tmp_path / 'no'}"
    assert refused(other) == f"--backbone {other}: the folder has no config.json, as timm's save_for_hf writes it"
    (folder / "model.safetensors").unlink()
    assert refused(own, weights="pretrained") == (
        f"--backbone {own}: the folder has no model.safetensors or pytorch_model.bin; pass --weights or --no-pretrained"
    )
    (folder / "config.json").write_text('{"architecture": "net_of_mine", "pretrained_cfg": {}}')
    assert refused(own) == (
        f"--backbone {own}: config.json names the architecture 'net_of_mine', which this timm does not have"
    )
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert refused(own) == f"--backbone {own}: config.json is not one of timm's (KeyError('architecture'))"
    (folder / "config.json").write_text("not JSON")
    assert refused(own).startswith(f"--backbone {own}: config.json is not one of timm's (JSONDecodeError(")


@pytest.mark.parametrize(("name", "kind", "patch", "attends"), LISTED, ids=[row[0] for row in LISTED])
def test_the_backbones_that_are_listed(name, kind, patch, attends):
    """Random weights and a grid of 3 x 2 cells: that they work, not how well."""
    if not timm.is_model(name.split(".")[0]):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    torch.manual_seed(0)
    network = Backbone(name).eval()
    side = network.stride
    images = torch.randn(1, 3, 3 * side, 2 * side)
    with torch.no_grad():
        features, _ = network(images)
    assert features.shape == (1, network.channels, 3, 2)
    assert features.isfinite().all()
    assert (side, network.attends, network.is_vit) == (int(patch), attends == "yes", kind.startswith("plain ViT"))
    if network.attends:
        affinity = patch_affinity(network, images, flip=True)
        assert affinity.shape == (1, 6, 6)
        torch.testing.assert_close(affinity.sum(dim=2), torch.ones(1, 6))


def test_the_table_lists_what_it_is_about():
    tried = TABLE.partition("## Tried")[2]
    assert len(LISTED) == tried.count("\n| `")
    licences = {
        "apache-2.0": "Apache-2.0",
        "dinov3-license": "DINOv3 licence",
        "dinov3": "DINOv3 licence",
        "nvidia-open-model-license": "NVIDIA Open Model License",
        "cc-by-nc-4.0": "CC BY-NC 4.0",
    }
    for name, *_ in LISTED:
        row = next(line for line in tried.splitlines() if line.startswith(f"| `{name}` | "))
        stated = timm.get_pretrained_cfg(name).license if timm.is_model(name.split(".")[0]) else None
        assert stated is None or row.endswith(f"| {licences[stated]} |")  # older versions of timm state fewer
    assert {row[0] for row in LISTED} >= {
        "vit_small_patch16_dinov3.lvd1689m",
        "vit_small_patch16_dinov3_qkvb.lvd1689m",
        "vit_small_patch14_reg4_dinov2.lvd142m",
        "vit_base_patch16_clip_224.openai",
        "vit_pe_spatial_tiny_patch16_512.fb",
        "vit_base_patch16_siglip_512.v2_webli",
        "vit_base_patch16_radio_v3.c_radio",
        "vit_base_patch16_224.mae",
        "convnext_tiny.dinov3_lvd1689m",
        "samvit_base_patch16.sa1b",
    }


REFUSED = {
    "crossvit_tiny_240": "gives maps whose grid does not grow with the image "
    "(14 x 14 cells at 64 pixels, 14 x 14 at 128); choose a CNN or a plain ViT",
    "inception_v4": "gives maps that do not cover the whole image (2 x 2 cells at 128 pixels, 6 x 6 at 256), "
    "as not all of its convolutions pad; choose a CNN whose convolutions do, or a plain ViT",
    "hiera_tiny_224": "takes images of 224 x 224 pixels, and not of any size (The size of tensor a (1024) "
    "must match the size of tensor b (3136) at non-singleton dimension 1); choose a CNN or a plain ViT",
    "convit_tiny": "takes images of 224 x 224 pixels, and not of any size (Input height (128) "
    "doesn't match model (224)); choose a CNN or a plain ViT",
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_whose_maps_cannot_be_used_is_refused_for_a_true_reason(name):
    with pytest.raises(InputError) as error:
        Backbone(name)
    assert str(error.value) == f"{name} {REFUSED[name]}"


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("sequencer2d_s", 14),  # neither 64 nor 128 is a multiple
        ("hieradet_small", 32),  # has no norm for its maps
        ("swin_tiny_patch4_window7_224", 32),
        ("swinv2_tiny_window8_256", 32),
        ("resnet18", 32),
    ],
)
def test_the_stride_is_that_of_images_of_every_size(name, stride):
    network = Backbone(name).eval()
    assert (network.stride, network.is_vit) == (stride, False)
    for rows, columns in ((2, 3), (5, 4)):
        features, _ = network(torch.zeros(1, 3, rows * stride, columns * stride))
        assert features.shape == (1, network.channels, rows, columns)


def test_the_stride_of_a_dilated_cnn():
    network = Backbone("test_resnet", output_stride=8, auxiliary_stage=-2)
    assert (network.stride, network.training) == (8, True)
    assert network.auxiliary_channels == network(torch.zeros(2, 3, 32, 32))[1].shape[1]


@pytest.mark.parametrize(
    ("name", "side", "said"),
    [
        (
            "swin_tiny_patch4_window7_224",
            66,
            "--crop 66: NAME does not take images of that size (Input height (66) should be divisible by patch "
            "size (4)); use a multiple of 32, or another --backbone",
        ),
        (
            "mvitv2_tiny",
            320,
            "--crop 320: NAME does not take images of that size (index 111 is out of bounds for dimension 0 with "
            "size 111); use a smaller one, or another --backbone",
        ),
    ],
)
def test_a_view_that_an_architecture_does_not_take(name, side, said):
    network = Backbone(name)
    network.require_side(64, "NAME")
    with pytest.raises(InputError) as error:
        network.require_side(side, "NAME")
    assert str(error.value) == said
    assert network.training


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "test_vit3"])
def test_a_plain_vit_is_known_by_its_class(name):
    """The first has a few convolutions before its patches."""
    network = Backbone(name)
    assert (network.is_vit, network.attends) == (True, True)
    features, _ = network(torch.zeros(1, 3, 3 * network.stride, 2 * network.stride))
    assert features.shape[2:] == (3, 2)


def test_fixed_positions_are_a_constant_resized_without_antialiasing() -> None:
    torch.manual_seed(0)
    described = {"backbone": "vit_tiny_patch16_224", "position_embedding": "frozen"}
    fixed = Backbone(described, auxiliary_block=-2).eval()
    plain = Backbone("vit_tiny_patch16_224", auxiliary_block=-2).eval()
    plain.load_state_dict(fixed.state_dict())
    assert [name for name, p in fixed.named_parameters() if not p.requires_grad] == ["model.pos_embed"]
    native = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(fixed(native), plain(native))
    images = torch.randn(2, 3, 448, 320)
    model, seen = fixed.model, {}
    hook = model.blocks[0].register_forward_hook(lambda module, inputs, output: seen.update(tokens=inputs[0]))
    last, _ = fixed(images)
    hook.remove()
    cells = model.pos_embed[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    cells = torch.nn.functional.interpolate(cells, (28, 20), mode="bicubic", align_corners=False)
    patches = model.patch_embed(images) + cells.permute(0, 2, 3, 1)
    torch.testing.assert_close(seen["tokens"][:, 1:], patches.flatten(1, 2), rtol=1e-5, atol=1e-5)
    assert (plain(images)[0] - last).abs().max() > 1e-3
    copied = copy.deepcopy(fixed)
    torch.testing.assert_close(copied(images)[0], last)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit2", "eva02_tiny_patch14_224"])
def test_positions_of_other_networks_cannot_be_fixed(name: str) -> None:
    with pytest.raises(InputError) as error:
        Backbone({"backbone": name, "position_embedding": "frozen"})
    assert str(error.value) == (
        f"--position-embedding frozen: {name} is no plain ViT with a class token and a learnt position embedding; "
        "use trained"
    )


def test_images_may_be_normalised_by_imagenets_statistics() -> None:
    backbone = Backbone({"backbone": "vit_tiny_patch16_224", "normalisation": "imagenet"})
    assert (backbone.mean, backbone.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Backbone("vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)

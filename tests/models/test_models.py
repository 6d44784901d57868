"""Backbones, CAM networks, segmenters and their checkpoints, on timm's tiny test models."""

import copy

import numpy as np
import pytest
import timm
import torch

from pseudolabel.artefacts import Header, write_artefact
from pseudolabel.artefacts.header import CostMeter
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.models.backbone import Backbone, freeze
from pseudolabel.models.cam import CamNetwork, build_cam_network
from pseudolabel.models.checkpoint import load_network, weight_arrays
from pseudolabel.models.segmenter import LargeFov, build_segmenter, timm_model

CAM = {
    "type": "cam",
    "backbone": "test_vit",
    "output_stride": None,
    "auxiliary_block": -2,
    "pooling": "gap",
    "classes": 3,
}


@pytest.mark.parametrize(
    ("name", "settings", "stride"),
    [
        ("test_vit", {}, 16),
        ("test_resnet", {}, 32),
        ("test_resnet", {"output_stride": 16}, 16),
        ("test_efficientnet", {}, 32),
    ],
)
def test_a_backbone_states_its_channels_and_stride(name, settings, stride):
    backbone = Backbone(name, **settings)
    features, earlier = backbone(torch.zeros(2, 3, 96, 64))
    assert backbone.stride == stride
    assert features.shape == (2, backbone.channels, 96 // stride, 64 // stride)
    assert earlier is None


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_auxiliary_head_alone_gives_what_it_gives_in_the_whole_network(mode):
    network = build_cam_network({**CAM, "backbone": "test_vit"})
    getattr(network, mode)()
    images = torch.randn(2, 3, 64, 48)
    alone, output = network.auxiliary_head(images), network(images)
    torch.testing.assert_close(alone.maps, output.auxiliary, rtol=0, atol=0)
    torch.testing.assert_close(alone.logits, output.auxiliary_logits, rtol=0, atol=0)
    plain = build_cam_network({**CAM, "backbone": "test_vit", "auxiliary_block": None})
    with pytest.raises(ValueError, match=r"^the network has no auxiliary head$"):
        plain.auxiliary_head(images)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "eva02_tiny_patch14_224"])
def test_the_earlier_map_is_a_blocks_raw_output_and_the_last_one_that_of_the_final_norm(name):
    backbone = Backbone(name, auxiliary_block=-2).eval()
    side = 3 * backbone.stride
    seen = {}
    blocks, model = backbone.model.blocks, backbone.model
    hooks = [blocks[i].register_forward_hook(lambda m, x, out, i=i: seen.update({i: out})) for i in (-2, -1)]
    images = torch.randn(2, 3, side, side)
    last, earlier = backbone(images)
    alone = backbone.earlier(images)
    for hook in hooks:
        hook.remove()

    def grid(tokens):
        return tokens[:, backbone.prefix_tokens :].transpose(1, 2).reshape(2, -1, 3, 3)

    torch.testing.assert_close(earlier, grid(seen[-2]), rtol=0, atol=0)
    torch.testing.assert_close(alone, earlier, rtol=0, atol=0)
    torch.testing.assert_close(last, grid(model.norm(seen[-1])), rtol=0, atol=0)


def test_the_largefov_head_has_no_biases_and_torchs_initial_weights():
    torch.manual_seed(0)
    head = LargeFov(48, 4)
    assert {name for name, _ in head.named_parameters()} == {"first.weight", "second.weight", "classifier.weight"}
    for layer in (head.first, head.second, head.classifier):
        fan = layer.weight[0].numel()
        assert layer.weight.abs().max().item() <= fan**-0.5 * (1 + 1e-6)  # the bound itself is rounded to float32
        assert layer.weight.std().item() == pytest.approx((3 * fan) ** -0.5, rel=0.05)


def fused(network):
    return [module.fused_attn for module in network.modules() if hasattr(module, "fused_attn")]


def test_a_vit_attends_by_products_in_training_on_small_views_alone():
    backbone = Backbone("test_vit")  # 2 heads
    for side, batch, products in ((64, 1, True), (512, 2, True), (512, 3, False)):  # 1024 cells: 2^21 scores an image
        backbone(torch.zeros(batch, 3, side, side))
        assert set(fused(backbone)) == {not products}
        with torch.no_grad():
            backbone(torch.zeros(1, 3, 32, 32))
        assert set(fused(backbone)) == {True}


def test_both_ways_of_attention_have_the_same_gradients():
    torch.manual_seed(0)
    backbone, images = Backbone("test_vit"), torch.randn(2, 3, 64, 64)
    found = []
    for network in (backbone, copy.deepcopy(backbone)):
        network._attentions = network._attentions if network is backbone else []  # the copy stays as timm made it
        network(images)[0].square().mean().backward()
        found.append({name: parameter.grad for name, parameter in network.named_parameters()})
    assert set(fused(backbone)) == {False}
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-6)


def test_a_copy_attends_on_its_own():
    backbone = Backbone("test_vit")
    teacher = copy.deepcopy(backbone)
    backbone(torch.zeros(1, 3, 32, 32))
    assert (set(fused(backbone)), set(fused(teacher))) == ({False}, {True})


@pytest.mark.parametrize("name", ["iformer_t", "xcit_nano_12_p16_224"])
def test_the_attention_of_other_networks_stays_as_timm_made_it(name):
    """The first's has no count of heads; timm does not fuse all of the second's."""
    backbone = Backbone(name)
    before = fused(backbone)
    backbone(torch.zeros(2, 3, 64, 64))[0].mean().backward()
    assert fused(backbone) == before == fused(timm.create_model(name, num_classes=0))


def test_an_auxiliary_block_of_a_vit_gives_an_earlier_map():
    features, earlier = Backbone("test_vit", auxiliary_block=-2)(torch.randn(1, 3, 64, 64))
    assert earlier.shape == features.shape
    assert not torch.equal(earlier, features)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet19", {}, "timm has no model 'resnet19' (did you mean 'resnet18'?); see timm.list_models()"),
        (
            "test_vit",
            {"output_stride": 8},
            "--output-stride is for CNNs; test_vit is a plain ViT with a fixed patch size",
        ),
        ("test_vit", {"auxiliary_block": -1}, "--auxiliary-block -1 is not an earlier block of test_vit, which has 6"),
    ],
)
def test_a_backbone_that_cannot_do_what_is_asked(name, settings, message):
    with pytest.raises(InputError) as error:
        Backbone(name, **settings)
    assert str(error.value) == message


def test_freezing_half_of_a_backbone_stops_its_first_parameters_only():
    backbone = Backbone("test_resnet")
    freeze(backbone.model, 0.5)
    frozen = [not parameter.requires_grad for parameter in backbone.parameters()]
    assert frozen[0]
    assert not frozen[-1]
    assert frozen == sorted(frozen, reverse=True)
    kept = sum(p.numel() for p in backbone.parameters() if not p.requires_grad)
    assert 0.25 < kept / sum(p.numel() for p in backbone.parameters()) <= 0.5


def test_a_cam_is_the_weighted_sum_of_features_and_its_mean_the_logit():
    network = build_cam_network(CAM).eval()
    images = torch.randn(2, 3, 64, 64)
    features, _ = network.backbone(images)
    output = network(images)
    by_hand = torch.einsum("kc,bchw->bkhw", network.classifier.weight[:, :, 0, 0], features)
    torch.testing.assert_close(output.maps, by_hand, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits, output.maps.flatten(2).mean(2), rtol=1e-4, atol=1e-5)


class Fixed(torch.nn.Module):
    """A backbone of two channels whose features are given."""

    channels, auxiliary_channels, stride = 2, 2, 1

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, images):
        return self.features, 2 * self.features

    def earlier(self, images):
        return 2 * self.features


def test_global_max_pooling_is_of_each_feature_channel_and_then_comes_the_classifier():
    # Channel 0 is largest in the first cell, channel 1 in the last: no cell's map reaches what both give together.
    features = torch.tensor([[[[5.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [1.0, 3.0]]]], requires_grad=True)
    network = CamNetwork(Fixed(features), 2, "gmp")
    weights = torch.tensor([[1.0, 1.0], [1.0, -2.0]])
    for head in (network.classifier, network.auxiliary):
        head.weight.data = weights[:, :, None, None].clone()
    output = network(None)
    assert output.maps[0].tolist() == [[[5, 2], [2, 3]], [[5, -4], [-1, -6]]]
    assert output.logits.tolist() == [[8, -1]]  # 5 + 3 and 5 - 2 * 3; of the maps it would be 5 and 5
    assert output.auxiliary_logits.tolist() == [[16, -2]]
    assert network.auxiliary_head(None).logits.tolist() == [[16, -2]]
    output.logits[0, 0].backward()
    assert features.grad.tolist() == [[[[1, 0], [0, 0]], [[0, 0], [0, 1]]]]  # a cell for each channel learns


def test_a_tag_teaches_many_cells_by_the_features_maxima_and_one_by_the_maps():
    torch.manual_seed(0)
    features = torch.randn(1, 64, 14, 14, requires_grad=True)
    backbone = Fixed(features)
    backbone.channels, backbone.auxiliary_channels = 64, None
    network = CamNetwork(backbone, 3, "gmp")
    output = network(None)
    slow = torch.stack([(network.classifier.weight[:, :, 0, 0] * features[0].amax(dim=(1, 2))).sum(dim=1)])
    torch.testing.assert_close(output.logits, slow)
    (pooled,) = torch.autograd.grad(output.logits[0, 0], features, retain_graph=True)
    (largest,) = torch.autograd.grad(output.maps[0, 0].max(), features)
    cells = [int((gradient[0] != 0).any(dim=0).sum()) for gradient in (pooled, largest)]
    assert cells[1] == 1
    assert cells[0] > 40


def test_a_checkpoint_of_another_kind_of_network(tmp_path):
    network = build_cam_network(CAM)
    header = Header("checkpoint", "train-cam", {}, ("background",), facts={"architecture": CAM})
    write_artefact(tmp_path / "cam.h5", header, weight_arrays(network.state_dict()), CostMeter())
    with pytest.raises(ArtefactError) as error:
        load_network(tmp_path / "cam.h5", "segmenter")
    path = tmp_path / "cam.h5"
    assert str(error.value) == (
        f"{path} holds a cam network (made by train-cam); wanted a checkpoint of train-segmenter, "
        "train-scribble, train-semi or train-cosa; make-cams takes it"
    )


@pytest.mark.parametrize(
    ("backbone", "decoder", "size"),
    [
        ("test_vit", "largefov", 6),
        ("test_vit", "dpt", 24),
        ("test_resnet", "deeplabv3plus", 24),
        ("test_resnet", "fpn", 24),
        ("test_resnet", "pan", 32),
        ("swin_tiny_patch4_window7_224", "unet", 24),
        ("test_convnext", "fpn", 24),
    ],
)
def test_segmenters_give_logits_and_take_backbone_weights(backbone, decoder, size, tmp_path):
    architecture = {"type": "segmenter", "backbone": backbone, "decoder": decoder, "output_stride": None, "classes": 4}
    network = build_segmenter(architecture).eval()
    with torch.no_grad():
        side = size * (16 if decoder == "largefov" else 4)
        assert network(torch.randn(1, 3, side, side)).shape == (1, 4, size, size)
    assert len(network.mean) == 3
    cam = build_cam_network({**CAM, "backbone": backbone, "auxiliary_block": None})
    header = Header("checkpoint", "train-cam", {}, ("background",), facts={"architecture": CAM})
    write_artefact(tmp_path / "cam.h5", header, weight_arrays(cam.state_dict()), CostMeter())
    network = build_segmenter(architecture, weights=tmp_path / "cam.h5")
    ours, theirs = timm_model(network).state_dict(), cam.backbone.model.state_dict()
    assert np.allclose(next(iter(ours.values())), next(iter(theirs.values())))  # timm renames some parts


@pytest.mark.parametrize(
    ("backbone", "decoder", "said"),
    [
        ("test_vit", "unet", r"decoder unet does not work on test_vit \(.*pattern.*\); use --decoder largefov"),
        ("test_mambaout", "pan", r"decoder pan does not work on test_mambaout \(.*output_stride.*\); use --decoder"),
        ("ghostnet_050", "pan", r"decoder pan does not work on ghostnet_050 \(.*output_stride.*\); use --decoder"),
        ("nest_tiny", "unet", r"decoder unet does not work on nest_tiny \(list index .*\); use --decoder largefov"),
        ("coat_tiny", "fpn", r"decoder fpn does not work on coat_tiny \(Input height .*\); use --decoder largefov"),
        ("swinv2_cr_tiny_224", "unet", r"decoder unet does not work on swinv2_.* \(Input image height .*\); use"),
        ("vit_tiny_patch16_224", "unet", r"decoder unet does not work on vit_tiny.* \(.*pattern.*\); use --decoder"),
        ("resnet19", "unet", r"timm has no model 'resnet19' \(did you mean 'resnet18'\?\); see timm.list_models\(\)"),
    ],
)
def test_a_decoder_that_does_not_work_on_a_backbone(backbone, decoder, said):
    architecture = {"type": "segmenter", "backbone": backbone, "decoder": decoder, "output_stride": None, "classes": 4}
    with pytest.raises(InputError, match=said):
        build_segmenter(architecture)


def test_a_plain_vit_takes_every_size_under_a_dpt_decoder():
    architecture = {"type": "segmenter", "backbone": "vit_tiny_patch16_224", "decoder": "dpt", "output_stride": None}
    network = build_segmenter(architecture | {"classes": 4})
    assert network.training
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, 96, 64)).shape == (1, 4, 24, 16)

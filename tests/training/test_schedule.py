"""The optimiser's groups and their rates."""

import pytest
import torch

from pseudolabel.errors import InputError
from pseudolabel.models.backbone import Backbone, freeze
from pseudolabel.models.cam import CamNetwork
from pseudolabel.models.segmenter import build_segmenter
from pseudolabel.options import TrainCamOptions
from pseudolabel.training.schedule import fill_gradients, make_optimiser, rate_factor
from tests.helpers.loop import make_run


def made_options(**values):
    return TrainCamOptions(out="net.h5", root=".", learning_rate=0.01, weight_decay=0.1, **values)


def decoder_segmenter(backbone, decoder):
    return build_segmenter({"backbone": backbone, "decoder": decoder, "classes": 3, "output_stride": None})


def settings_by_name(network, options):
    """Peak rate and weight decay of every parameter that is trained."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = make_optimiser(network, options).param_groups
    return {names[id(p)]: (group["peak"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_the_rate_rises_linearly_and_falls_to_zero():
    """As released: the decay counts from step 0, so that it goes on where the whole curve would be, not at 1."""
    factors = [rate_factor(step, 10, warmup=0.2, power=1.0) for step in range(10)]
    assert factors == pytest.approx([1e-6, 0.5 + 0.5e-6, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert rate_factor(5, 10, warmup=0.0, power=2.0) == 0.25
    assert rate_factor(1500, 32000, warmup=0.046875, power=0.9) == (1 - 1500 / 32000) ** 0.9  # CoSA's on VOC


def test_everything_may_decay():
    network = CamNetwork(Backbone("test_vit2"), 3, "gap")
    found = settings_by_name(network, made_options(decay_all=True))
    assert {decay for _, decay in found.values()} == {0.1}
    assert found.keys() == {name for name, _ in network.named_parameters()}


def test_what_a_step_does_not_train_decays_too_where_all_decays():
    """As in the released code of CoSA, whose losses have a weight of 0 at first: the head decays and counts steps."""
    network = CamNetwork(Backbone("test_vit2"), 3, "gap")
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimiser = make_optimiser(network, made_options(decay_all=True, head_rate=1.0))
    network.classifier.weight.grad = torch.ones_like(network.classifier.weight)
    fill_gradients(optimiser)
    optimiser.step()
    moved = before.pop("classifier.weight") * 0.999 - 0.01  # 1 - rate x decay, and Adam's first step of 1
    torch.testing.assert_close(network.classifier.weight.detach(), moved)
    for name, parameter in network.named_parameters():
        if name in before:
            torch.testing.assert_close(parameter.detach(), before[name] * 0.999)
    assert {int(state["step"]) for state in optimiser.state.values()} == {1}


def test_heads_learn_faster_and_biases_do_not_decay(tmp_path):
    run = make_run(tmp_path, head_rate=10, weight_decay=0.1)
    groups = make_optimiser(run.network, run.options).param_groups
    found = {
        (group["peak"], group["weight_decay"], parameter.shape) for group in groups for parameter in group["params"]
    }
    assert found == {
        (0.05, 0.1, (4, 3)),
        (0.05, 0.0, (4,)),
        (0.5, 0.1, (1, 4)),
        (0.5, 0.0, (1,)),
    }


@pytest.mark.parametrize(("name", "token"), [("test_vit", "cls_token"), ("test_vit2", "reg_token")])
def test_tokens_and_position_embeddings_do_not_decay(name, token):
    """They have three dimensions; timm says by name which of a model's parameters are not to decay."""
    network = CamNetwork(Backbone(name), 3, "gap")
    decays = {name for name, (_, decay) in settings_by_name(network, made_options()).items() if decay}
    spared = {f"backbone.model.{name}" for name in (token, "pos_embed")}
    assert {name for name, parameter in network.named_parameters() if parameter.ndim == 3} == spared
    assert decays == {name for name, parameter in network.named_parameters() if parameter.ndim > 1} - spared


def test_a_decoders_encoder_is_asked_for_what_does_not_decay():
    network = decoder_segmenter("test_vit", "dpt")
    decays = {name for name, (_, decay) in settings_by_name(network, made_options()).items() if decay}
    assert "network.encoder.model.pos_embed" not in decays
    assert "network.encoder.model.patch_embed.proj.weight" in decays


def test_early_layers_learn_slower():
    """A ViT of six blocks, by hand: its last block and the norm have the rate, what is before the first 2^-6 of it."""
    network = CamNetwork(Backbone("test_vit", auxiliary_block=-2), 3, "gap")
    found = settings_by_name(network, made_options(layer_decay=0.5, head_rate=4.0))
    expected = {"cls_token": 2**-6, "pos_embed": 2**-6, "patch_embed": 2**-6, "norm": 1.0}
    expected |= {f"blocks.{number}": 2.0 ** (number - 5) for number in range(6)}
    for layer, factor in expected.items():
        peaks = {peak for name, (peak, _) in found.items() if name.startswith(f"backbone.model.{layer}")}
        assert peaks == {0.01 * factor}, layer
    assert {name: peak for name, (peak, _) in found.items() if not name.startswith("backbone")} == {
        "classifier.weight": 0.04,
        "auxiliary.weight": 0.04,
    }
    plain = settings_by_name(network, made_options(head_rate=4.0))
    assert {name: decay for name, (_, decay) in found.items()} == {name: decay for name, (_, decay) in plain.items()}
    assert {peak for name, (peak, _) in plain.items() if name.startswith("backbone")} == {0.01}


def test_frozen_layers_count_as_layers():
    network = CamNetwork(Backbone("test_resnet"), 3, "gap")
    whole = settings_by_name(network, made_options(layer_decay=0.5))
    freeze(network.backbone.model, 0.1)
    part = settings_by_name(network, made_options(layer_decay=0.5))
    assert part.keys() < whole.keys()
    assert part.items() <= whole.items()


def test_an_encoder_without_layers_cannot_have_rates_by_layer():
    network = decoder_segmenter("test_resnet", "unet")
    with pytest.raises(InputError) as error:
        make_optimiser(network, made_options(layer_decay=0.5))
    assert str(error.value) == (
        "--layer-decay: timm does not say what the layers of this encoder are; use --decoder largefov, or leave it out"
    )

"""The optimiser's groups and their rates."""

import pytest

from pseudolabel.models.backbone import Backbone
from pseudolabel.models.cam import CamNetwork
from pseudolabel.models.segmenter import DecoderSegmenter
from pseudolabel.options import TrainCamOptions
from pseudolabel.training.schedule import make_optimiser, rate_factor
from tests.helpers.loop import make_run


def made_options(**values):
    return TrainCamOptions(out="net.h5", root=".", learning_rate=0.01, weight_decay=0.1, **values)


def settings_by_name(network, options):
    """Peak rate and weight decay of every parameter that is trained."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = make_optimiser(network, options).param_groups
    return {names[id(p)]: (group["peak"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_the_rate_rises_linearly_and_falls_to_zero():
    factors = [rate_factor(step, 10, warmup=0.2, power=1.0) for step in range(10)]
    expected = [1 / 3, 2 / 3] + [1 - k / 8 for k in range(8)]
    assert factors == pytest.approx(expected)
    assert rate_factor(5, 10, warmup=0.0, power=2.0) == 0.25


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
    network = DecoderSegmenter("test_vit", "dpt", 3)
    decays = {name for name, (_, decay) in settings_by_name(network, made_options()).items() if decay}
    assert "network.encoder.model.pos_embed" not in decays
    assert "network.encoder.model.patch_embed.proj.weight" in decays

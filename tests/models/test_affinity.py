"""Attention affinity between the patches of a plain ViT, and propagation along it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pseudolabel.errors import InputError
from pseudolabel.models.affinity import (
    Attending,
    mean_attention,
    middle_blocks,
    patch_affinity,
    propagate,
    require_attention,
    with_mirrored,
)
from pseudolabel.models.backbone import Backbone


def images(batch: int = 2, height: int = 64, width: int = 48, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def backbone(name: str = "test_vit", **settings: int) -> Backbone:
    torch.manual_seed(1)
    found = Backbone(name, **settings).eval()
    for parameter in found.parameters():  # attention of fresh weights is all but even
        if parameter.ndim == 2:
            parameter.data.mul_(8)
    return found


def slow_affinity(network: Backbone, pixels: Tensor) -> Tensor:
    """The same from timm's own attention, which keeps every block's scores where it is not fused."""
    kept: list[Tensor] = []
    model = network.model
    for index, block in enumerate(model.blocks):
        block.attn.fused_attn = False
        if index in middle_blocks(len(model.blocks)):
            block.attn.attn_drop.register_forward_hook(lambda module, given, found: kept.append(found))
    with torch.no_grad():
        model.forward_features(pixels)
    first = model.num_prefix_tokens
    patches = torch.stack(kept)[..., first:, first:]
    return (patches / patches.sum(dim=-1, keepdim=True)).mean(dim=(0, 2))


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(12, [6, 7, 8, 9]), (24, [*range(12, 20)]), (6, [3, 4]), (3, [1]), (2, [1]), (1, [0])],
)
def test_blocks_from_the_middle_without_the_last_sixth(depth: int, blocks: list[int]) -> None:
    assert list(middle_blocks(depth)) == blocks


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", "test_vit4", "deit_tiny_distilled_patch16_224"])
def test_the_affinity_is_what_timms_attention_computes(name: str) -> None:
    """Without a class token's, a distillation token's or registers' part in it."""
    network = backbone(name)
    pixels = images()
    assert network.attends
    found = patch_affinity(network, pixels, flip=False)
    assert found.shape == (2, 12, 12)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(dim=2), torch.ones(2, 12))
    assert float(found.std()) > 0.003  # nothing would be tested by even attention
    torch.testing.assert_close(found, slow_affinity(network, pixels), rtol=1e-4, atol=1e-5)


def test_attention_of_two_patches_by_hand() -> None:
    """d = 4; the scores of the first head are q k / 2 = [[0, ln 3], [0, 0]], those of the second are all equal."""
    queries, keys = torch.zeros(1, 2, 2, 4), torch.zeros(1, 2, 2, 4)
    queries[0, 0, 0, 0], keys[0, 0, 1, 0] = 2, float(np.log(3))
    expected = torch.tensor([[[(0.25 + 0.5) / 2, (0.75 + 0.5) / 2], [0.5, 0.5]]])
    torch.testing.assert_close(mean_attention(queries, keys), expected)


def test_maps_are_passed_on_by_hand() -> None:
    affinity = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]])
    maps = torch.tensor([[[[1.0, 0.0]], [[0.0, 4.0]]]])  # two classes, a grid of one row
    assert propagate(maps, affinity, 0).tolist() == maps.tolist()
    assert propagate(maps, affinity, 1).tolist() == [[[[0.5, 0.0]], [[2.0, 4.0]]]]
    assert propagate(maps, affinity, 2).tolist() == [[[[0.25, 0.0]], [[3.0, 4.0]]]]


def test_what_is_everywhere_stays_and_nothing_leaves_the_range() -> None:
    affinity = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(2))
    affinity /= affinity.sum(dim=2, keepdim=True)
    maps = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(3))
    found = propagate(maps, affinity, 3)
    assert (found >= maps.amin(dim=(2, 3), keepdim=True)).all()
    assert (found <= maps.amax(dim=(2, 3), keepdim=True)).all()
    torch.testing.assert_close(propagate(torch.full((3, 2, 4, 5), 0.3), affinity, 3), torch.full((3, 2, 4, 5), 0.3))


def test_padding_gives_nothing_to_what_is_inside() -> None:
    affinity = torch.tensor([[[0.2, 0.3, 0.5], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]])
    inside = torch.tensor([[[True, True, False]]])
    maps = torch.tensor([[[[1.0, 0.5, 100.0]]]])
    found = propagate(maps, affinity, 1, inside)
    torch.testing.assert_close(found[0, 0, 0, :2], torch.tensor([0.4 * 1 + 0.6 * 0.5, 0.5]))
    assert torch.isfinite(found).all()
    everything = torch.ones(1, 1, 3, dtype=torch.bool)
    torch.testing.assert_close(propagate(maps, affinity, 2, everything), propagate(maps, affinity, 2))


def test_an_images_affinity_is_its_own_whatever_the_batch() -> None:
    network = backbone()
    pixels = images(3)
    found = patch_affinity(network, pixels, flip=False)
    torch.testing.assert_close(patch_affinity(network, pixels[1:2], flip=False)[0], found[1], rtol=1e-4, atol=1e-6)


def test_mirror_images_are_seen_alike() -> None:
    """Cell (0, 1) of the mirror image is cell (0, 0) of a grid of one row and two columns."""
    affinity = torch.tensor([[[0.9, 0.1], [0.4, 0.6]], [[0.2, 0.8], [0.3, 0.7]]])
    expected = torch.tensor([[[(0.9 + 0.7) / 2, (0.1 + 0.3) / 2], [(0.4 + 0.8) / 2, (0.6 + 0.2) / 2]]])
    torch.testing.assert_close(with_mirrored(affinity, (1, 2)), expected)
    network, pixels = backbone(), images()
    found, mirrored = (patch_affinity(network, view, flip=True) for view in (pixels, pixels.flip(3)))
    maps = torch.rand(2, 3, 4, 3, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(propagate(maps.flip(3), mirrored, 2).flip(3), propagate(maps, found, 2))


def test_a_whole_pass_is_read_in_passing() -> None:
    """What the pass gives is what it gives otherwise; blocks behind those that are read change nothing."""
    network = backbone(auxiliary_block=-2)
    pixels = images()
    with torch.no_grad():
        before = network(pixels)
        with Attending(network) as attending:
            found = network(pixels)
    for one, other in zip(found, before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(attending.affinity(), patch_affinity(network, pixels, flip=False), rtol=0, atol=0)


def test_after_a_training_step_attention_can_still_be_read() -> None:
    """In training on a processor timm's attention is not the fused operation that is read here."""
    network = backbone()
    network.train()
    network(images())[0].sum().backward()
    assert patch_affinity(network.eval(), images(), flip=False).shape == (2, 12, 12)


def test_without_a_pass_that_comes_far_enough_there_is_no_affinity() -> None:
    network = backbone()
    for blocks in (0, middle_blocks(network.depth)[-1]):
        with torch.no_grad(), Attending(network) as attending:
            if blocks:
                network.block(images(), blocks - 1)
        assert not attending.complete
        with pytest.raises(ValueError, match=rf"^attention is read up to block \d+, {blocks} blocks were computed$"):
            attending.affinity()


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_cnns_do_not_attend(name: str) -> None:
    network = backbone(name)
    assert not network.attends
    require_attention(network, 0, name)
    with pytest.raises(InputError) as error:
        require_attention(network, 2, name)
    assert str(error.value) == f"--propagate 2: {name} has no attention between patches as plain ViTs do; leave it out"

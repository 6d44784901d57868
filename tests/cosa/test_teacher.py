"""The teacher: its average against the formula, what it sees against one view at a time, and CoSA's network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudolabel.cosa.teacher import teacher_forward, update_teacher
from pseudolabel.errors import InputError
from pseudolabel.models.affinity import patch_affinity, propagate
from pseudolabel.models.backbone import Backbone
from pseudolabel.models.cam import build_cam_network
from pseudolabel.models.cosa import CosaNetwork, build_cosa_network
from pseudolabel.models.multiscale import activation, unit_range
from pseudolabel.training.ema import make_teacher, update_ema, warmed_decay

ARCHITECTURE = {
    "type": "cosa",
    "backbone": "test_vit",
    "output_stride": None,
    "auxiliary_block": -3,
    "auxiliary_stage": -2,
    "pooling": "gmp",
    "embedding": 8,
    "classes": 3,
}


def network(**changes: object) -> CosaNetwork:
    torch.manual_seed(0)
    return build_cosa_network({**ARCHITECTURE, **changes})


def test_the_decay_warms_up() -> None:
    assert [warmed_decay(0.9, step) for step in (0, 1, 10, 90, 1000)] == [0, 1 / 11, 0.5, 0.9, 0.9]


def test_the_average_by_hand() -> None:
    layer = nn.BatchNorm1d(1)
    average = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer.weight.data[:], layer.running_mean[:] = 12.0, 22.0
    layer.num_batches_tracked += 7
    update_ema(average, layer, 0.9, 1)  # decay 1 / 11
    assert average["weight"].item() == pytest.approx(1 / 11 + 12 * 10 / 11)
    assert average["running_mean"].item() == pytest.approx(20.0)
    assert average["num_batches_tracked"].item() == 7
    update_ema(average, layer, 0.9, 10_000)
    assert average["running_mean"].item() == pytest.approx(0.9 * 20 + 0.1 * 22)


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_the_teacher_follows_and_learns_nothing_itself(backbone: str) -> None:
    student = network(backbone=backbone)
    teacher = make_teacher(student)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    with torch.no_grad():
        for tensor in student.state_dict().values():
            tensor.add_(1)
    update_teacher(teacher, student, decay=0.9994, step=5)  # decay 1 / 3
    for name, tensor in teacher.state_dict().items():
        expected = before[name] + 2 / 3 if tensor.is_floating_point() else before[name] + 1
        torch.testing.assert_close(tensor, expected)


def one_at_a_time(teacher: CosaNetwork, images: Tensor, scales: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The stated sums, image by image, scale by scale and mirrored image by mirrored image."""
    stride = teacher.backbone.stride
    grid = (images.shape[2] // stride, images.shape[3] // stride)
    rows = []
    for image in images:
        sums: list[Tensor | float] = [0.0, 0.0]
        for scale in scales:
            size = [int(length * scale / stride + 0.5) * stride for length in images.shape[2:]]
            view = F.interpolate(image[None], size, mode="bilinear", antialias=True) if scale != 1 else image[None]
            straight, mirrored = teacher.outputs(view), teacher.outputs(view.flip(3))
            for head in range(2):
                both = torch.maximum(straight[head], mirrored[head].flip(3)).clamp(min=0)
                sums[head] = sums[head] + F.interpolate(both, grid, mode="bilinear")
            if scale == 1:
                logits = (straight.segmentation + mirrored.segmentation.flip(3)) / 2
        rows.append((*sums, logits))
    maps, auxiliary, segmentation = (torch.cat(parts) for parts in zip(*rows, strict=True))
    return maps, auxiliary, segmentation


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_what_the_teacher_sees_is_one_view_after_the_other(backbone: str) -> None:
    teacher = make_teacher(network(backbone=backbone))
    images = torch.randn(2, 3, 64, 96)
    seen = teacher_forward(teacher, images, scales=(0.5, 1.0, 1.5), flip=True)
    with torch.no_grad():
        expected = one_at_a_time(teacher, images, (0.5, 1.0, 1.5))
    assert seen.grid == tuple(seen.maps.shape[2:])
    for found, wanted in zip(seen[:3], expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
        assert not found.requires_grad
    mirrored = teacher_forward(teacher, images.flip(3), scales=(0.5, 1.0, 1.5), flip=True)
    torch.testing.assert_close(mirrored.maps.flip(3), seen.maps, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def as_released(teacher: CosaNetwork, images: Tensor, scales: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """As CoSA's released code: everything enlarged to the image first; logits summed over scales and mirrors.

    Only that the auxiliary maps are summed over all scales, not of the last one alone, is ours.
    """
    size, stride = images.shape[2:], teacher.backbone.stride
    sums: list[Tensor] = [torch.zeros(1)] * 3
    for scale in scales:
        shape = [int(length * scale / stride + 0.5) * stride for length in size]
        view = F.interpolate(images, shape, mode="bilinear") if scale != 1 else images
        straight, mirrored = teacher.outputs(view), teacher.outputs(view.flip(3))
        for head in range(3):
            one, other = (F.interpolate(each[head], size, mode="bilinear") for each in (straight, mirrored))
            other = other.flip(3)
            sums[head] = sums[head] + (one + other if head == 2 else F.relu(torch.maximum(one, other)))
    return sums[0], sums[1], sums[2]


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_as_released_maps_and_logits_of_all_scales_are_fused_at_the_size_of_the_image(backbone: str) -> None:
    teacher, images = make_teacher(network(backbone=backbone)), torch.randn(2, 3, 64, 96)
    scales = (1.0, 0.5, 1.5)
    seen = teacher_forward(teacher, images, scales=scales, flip=True, cam_fusion="image", spl_scales="all")
    for found, wanted in zip(seen[:3], as_released(teacher, images, scales), strict=True):
        assert found.shape[2:] == (64, 96)
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert seen.grid == (64 // teacher.backbone.stride, 96 // teacher.backbone.stride)
    ours = teacher_forward(teacher, images, scales=scales, flip=True)
    assert (F.interpolate(ours.maps, (64, 96), mode="bilinear") - seen.maps).abs().max() > 1e-3


def test_maps_fused_at_the_image_are_not_propagated() -> None:
    teacher, images = make_teacher(network()), torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"^maps that are fused at the size of the image cannot be propagated"):
        teacher_forward(teacher, images, scales=(1.0,), flip=False, times=1, cam_fusion="image")


def test_the_teachers_maps_are_propagated_along_its_attention() -> None:
    """Summed over the scales, along what it attends to at scale 1; what it segments is untouched."""
    teacher, images = make_teacher(network()), torch.randn(2, 3, 64, 96)
    inside = torch.ones(2, 64, 96, dtype=torch.bool)
    inside[0, :, 70:] = False  # within the fifth of six columns of cells
    cells = torch.ones(2, 4, 6, dtype=torch.bool)
    cells[0, :, 4:] = False
    looks = {"scales": (0.5, 1.0), "flip": True}
    plain, found = (
        teacher_forward(teacher, images, **looks),
        teacher_forward(teacher, images, **looks, times=2, inside=inside),
    )
    affinity = patch_affinity(teacher.backbone, images, flip=True)
    for maps, wanted in zip(found[:2], plain[:2], strict=True):
        torch.testing.assert_close(maps, propagate(wanted, affinity, 2, cells))
        assert not maps.requires_grad
    torch.testing.assert_close(found.segmentation, plain.segmentation, rtol=0, atol=0)


def test_in_bfloat16_it_computes_in_bfloat16() -> None:
    teacher, images = make_teacher(network()), torch.randn(3, 3, 64, 96)
    looks = {"scales": (0.5, 1.0), "flip": True, "times": 2}
    exact = teacher_forward(teacher, images, **looks)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = teacher_forward(teacher, images, **looks)
    for found, wanted in zip(rounded[:3], exact[:3], strict=True):
        distance = (found - wanted).abs().max() / wanted.abs().max()
        assert 1e-5 < distance < 0.05


def test_every_scale_of_both_heads_counts() -> None:
    teacher, images = make_teacher(network()), torch.randn(1, 3, 64, 64)
    one, two = (teacher_forward(teacher, images, scales=scales, flip=False) for scales in ((1.0,), (1.0, 0.5)))
    assert (two.maps - one.maps).max() > 0
    assert (two.auxiliary - one.auxiliary).max() > 0
    torch.testing.assert_close(one.segmentation, two.segmentation)
    with pytest.raises(ValueError, match=r"^the teacher's scales must hold 1, at which it segments, found \(0.5,\)$"):
        teacher_forward(teacher, images, scales=(0.5,), flip=False)


def test_what_a_scale_adds_by_hand() -> None:
    straight, mirrored = torch.tensor([[1.0, -2.0]]), torch.tensor([[-4.0, 3.0]])
    maps = torch.stack([straight, mirrored])[:, None]  # (2, 1, 1, 2): an image's and its mirror image's
    assert activation(maps, (1, 2), flip=True).tolist() == [[[[3, 0]]]]
    assert activation(maps, (1, 2), flip=True, mirror="sum").tolist() == [[[[4, 0]]]]  # IRN: ReLU, then added
    assert activation(maps[:1], (1, 2), flip=False).tolist() == [[[[1, 0]]]]
    # Enlarged first, the middle cell of three is the mean, -0.5 and -0.5, and not that of what is left of both
    assert activation(maps[:1], (1, 3), flip=False, enlarge_first=True).tolist() == [[[[1, 0, 0]]]]
    assert activation(maps[:1], (1, 3), flip=False).tolist() == [[[[1, 0.5, 0]]]]


def test_unit_range_by_hand() -> None:
    maps = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert unit_range(maps).tolist() == [[[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]]]
    torch.testing.assert_close(unit_range(maps, "max")[0], maps[0] / 5)


def test_the_outputs_are_those_of_the_parts() -> None:
    student = network().eval()
    images = torch.randn(2, 3, 64, 48)
    output = student.outputs(images)
    for name, tensor in student(images)._asdict().items():
        torch.testing.assert_close(getattr(output, name), tensor)
    torch.testing.assert_close(output.auxiliary, student.auxiliary_head(images).maps)
    torch.testing.assert_close(output.segmentation, student.segmenter()(images))
    assert output.maps.shape == output.auxiliary.shape == (2, 3, 4, 3)
    assert output.segmentation.shape == (2, 4, 4, 3)
    assert output.embedding.shape == (2, 8, 4, 3)
    torch.testing.assert_close(output.embedding.norm(dim=1), torch.ones(2, 4, 3))
    assert network(embedding=None).eval().outputs(images).embedding is None


@pytest.mark.parametrize(
    ("backbone", "settings", "cells", "finer"),
    [
        ("test_resnet", {}, 2, 2),
        ("test_resnet", {"output_stride": 16}, 4, 1),
        ("test_resnet", {"auxiliary_stage": -3}, 2, 4),
        ("test_convnext", {}, 2, 2),
        ("test_vit", {}, 4, 1),
    ],
)
def test_the_auxiliary_maps_of_a_cnn_are_on_the_grid_of_their_stage(backbone, settings, cells, finer) -> None:
    student = network(backbone=backbone, **settings).eval()
    output = student.outputs(torch.randn(1, 3, 64, 64))
    assert output.maps.shape == (1, 3, cells, cells)
    assert output.auxiliary.shape == (1, 3, cells * finer, cells * finer)
    seen = teacher_forward(make_teacher(student), torch.randn(1, 3, 64, 64), scales=(1.0, 0.5), flip=True)
    assert seen.auxiliary.shape == seen.maps.shape == (1, 3, cells, cells)


def test_all_that_is_new_learns_at_the_head_rate() -> None:
    student = network()
    heads = {id(parameter) for head in student.heads() for parameter in head.parameters()}
    backbone = {id(parameter) for parameter in student.backbone.parameters()}
    assert heads | backbone == {id(parameter) for parameter in student.parameters()}
    assert not heads & backbone


def test_a_backbone_without_an_earlier_map_is_refused() -> None:
    with pytest.raises(ValueError, match="the backbone gives no earlier map"):
        network(auxiliary_block=None)
    with pytest.raises(InputError) as error:
        Backbone("test_resnet", auxiliary_stage=-6)
    assert str(error.value) == "--auxiliary-stage -6 is not an earlier stage of test_resnet, which has 5"
    cam = {key: ARCHITECTURE[key] for key in ("output_stride", "auxiliary_block", "pooling", "classes")}
    assert build_cam_network({**cam, "backbone": "test_resnet"}).auxiliary is None  # a CNN ignores the block

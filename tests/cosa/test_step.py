"""A whole step of co-training on a tiny network: parts of a batch, what is switched off, half precision, learning."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pseudolabel.cosa.assignments import cam_labels, guided_cams, released_cam_labels, segmentation_labels
from pseudolabel.cosa.step import Method, assign, classification_losses, student_losses, totals
from pseudolabel.cosa.teacher import Seen, teacher_forward, update_teacher
from pseudolabel.cosa.thresholds import DynamicThreshold, count_scores
from pseudolabel.models.cosa import CosaNetwork, build_cosa_network
from pseudolabel.pairwise.loss_modules import Bilateral, GatedDenseEnergy
from pseudolabel.training.ema import make_teacher

SIDE, GRID, C = 64, 4, 3
ALL = Method(contrastive_cells=8)
RELEASED = Method(rule="released", perplexity=None, contrastive=None)
NOTHING = Method(c2s=None, s2c=None, regulariser=None, contrastive=None)
ENERGY = GatedDenseEnergy(weight=1e-5, bilateral=Bilateral(scale=0.25, backend="exact"))


def student(embedding: int | None = 8) -> CosaNetwork:
    torch.manual_seed(0)
    settings = {"output_stride": None, "auxiliary_block": -3, "auxiliary_stage": -2, "pooling": "gmp"}
    return build_cosa_network({"backbone": "test_vit", "classes": C, "embedding": embedding, **settings})


class Views:
    """A batch: bright squares on dark ground, one class a place; strong views are a little darker."""

    def __init__(self, count: int = 4) -> None:
        random = torch.Generator().manual_seed(1)
        self.photographs = torch.randint(0, 90, (count, 3, SIDE, SIDE), generator=random).to(torch.uint8)
        self.tags = torch.zeros(count, C)
        for image in range(count):
            channel = image % C
            self.photographs[image, channel, 16:48, 16:48] += 150
            self.tags[image, channel] = 1
        self.weak = self.photographs.float() / 127.5 - 1
        self.strong = self.weak * 0.9 - 0.05
        self.noise = torch.rand(count, GRID, GRID, generator=random)
        self.inside = torch.ones(count, SIDE, SIDE, dtype=torch.bool)
        self.inside[0, 40:] = False


def gradients(
    network: CosaNetwork, views: Views, method: Method, parts: list[slice], *, rough: bool = False
) -> dict[str, Tensor]:
    """Losses and gradients of one step over the parts of a batch, as a training would take it.

    ``rough``: the student in bfloat16; what the teacher assigns stays as it is.
    """
    teacher, count = make_teacher(network), len(views.tags)
    assigned = []
    for p in parts:
        seen = teacher_forward(teacher, views.weak[p], scales=(1.0, 0.5), flip=True)
        inside = views.inside[p]
        assigned.append(assign(seen, views.tags[p], method, low=0.4, high=0.6, size=(SIDE, SIDE), inside=inside))
    total = sum(totals(part) for part in assigned)
    network.zero_grad()
    found: dict[str, Tensor] = {}
    for p, part in zip(parts, assigned, strict=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=rough):
            output = network.outputs(views.strong[p])
            pooled = output.logits, output.auxiliary_logits
            first = classification_losses(*pooled, views.tags[p], images=count)
            rest = student_losses(
                output,
                part,
                method,
                total=total,
                images=count,
                photographs=views.photographs[p],
                noise=views.noise[p],
                energy=ENERGY,
            )
        (first["loss"] + rest["loss"]).backward()
        for name, value in {**first, **rest, "loss": first["loss"] + rest["loss"]}.items():
            found[name] = found.get(name, torch.zeros(())) + value.detach()
    return found | {f"gradient/{n}": p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("method", [ALL, RELEASED])
def test_micro_batches_have_the_gradient_of_the_batch(method: Method) -> None:
    network, views = student(), Views()
    whole = gradients(network, views, method, [slice(4)])
    cut = gradients(network, views, method, [slice(1), slice(1, 3), slice(3, 4)])
    assert whole.keys() == cut.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(cut[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    assert whole["c2s"] > 0
    assert whole["s2c"] > 0


def test_what_is_off_has_no_loss_and_a_weight_scales_its_own() -> None:
    network, views = student(), Views()
    off = gradients(network, views, NOTHING, [slice(4)])
    assert {name for name in off if "/" not in name} == {"loss", "main", "auxiliary"}
    assert not any(name.startswith("gradient/head.") for name in off)
    on = gradients(network, views, ALL, [slice(4)])
    expected = sum((getattr(ALL, name) or 0) * on[name] for name in ("c2s", "s2c", "regulariser", "contrastive"))
    assert (on["loss"] - off["loss"]).item() == pytest.approx(float(expected), rel=1e-4)
    alone = gradients(network, views, replace(NOTHING, c2s=0.2), [slice(4)])
    assert (alone["loss"] - off["loss"]).item() == pytest.approx(0.2 * on["c2s"].item(), rel=1e-4)


def test_half_precision_changes_the_losses_little() -> None:
    network, views = student(), Views()
    exact = gradients(network, views, ALL, [slice(4)])
    rough = gradients(network, views, ALL, [slice(4)], rough=True)
    for name in ("main", "auxiliary", "c2s", "s2c", "regulariser", "contrastive"):
        assert exact[name] != 0
        torch.testing.assert_close(rough[name], exact[name], rtol=0, atol=0.01, msg=name)
    assert all(tensor.isfinite().all() for tensor in rough.values())


def test_padding_never_teaches() -> None:
    network, views = student(), Views()
    seen = teacher_forward(make_teacher(network), views.weak, scales=(1.0,), flip=False)
    found = assign(seen, views.tags, ALL, low=0.4, high=0.6, size=(SIDE, SIDE), inside=views.inside)
    assert (found.main.labels[0, 40:] == 255).all()
    assert (found.auxiliary.labels[0, 40:] == 255).all()
    assert found.cells[0].tolist() == [[True] * 4] * 2 + [[False] * 4] * 2
    assert (found.contrast[0, 2:] == 255).all()
    assert (found.cams[0, :, 2:] == 0).all()
    assert totals(found)[8] == found.cells.sum() == 56


def test_the_assignment_is_made_of_its_parts() -> None:
    sums = torch.rand(2, C, GRID, GRID)
    seen, tags = Seen(sums, sums.flip(1), torch.randn(2, C + 1, GRID, GRID), (GRID, GRID)), torch.eye(C)[:2]
    found = assign(seen, tags, ALL, low=0.4, high=0.4, size=(SIDE, SIDE))
    assert found.main.labels.equal(cam_labels(found.cams, tags, (SIDE, SIDE), low=0.4, high=0.4).labels)
    assert found.main.labels.ne(255).all()
    for confidence in found.confidence:
        assert confidence is not None
        assert (confidence > 0).all()
    assert assign(seen, tags, RELEASED, low=0.4, high=0.4, size=(SIDE, SIDE)).confidence == (None, None)


def test_the_auxiliary_labels_may_have_thresholds_of_their_own() -> None:
    sums = torch.rand(2, C, GRID, GRID)
    seen, tags = Seen(sums, sums, torch.randn(2, C + 1, GRID, GRID), (GRID, GRID)), torch.eye(C)[:2]
    method = replace(RELEASED, auxiliary_thresholds=(0.3, 0.8))
    found = assign(seen, tags, method, low=0.2, high=0.6, size=(SIDE, SIDE))
    pairs = ((found.main, (0.2, 0.6)), (found.auxiliary, (0.3, 0.8)))
    for labels, (low, high) in pairs:
        expected = released_cam_labels(found.cams, tags, (SIDE, SIDE), low=low, high=high)
        assert labels.labels.equal(expected.labels)
    assert not found.main.labels.equal(found.auxiliary.labels)


def test_labels_from_maps_and_logits_at_the_size_of_the_image() -> None:
    """As released: min-max, thresholds and softmax at the image; what the losses compare with cells is reduced."""
    sums, logits = torch.rand(2, C, SIDE, SIDE), torch.randn(2, C + 1, SIDE, SIDE)
    seen, tags = Seen(sums, sums.flip(1), logits, (GRID, GRID)), torch.eye(C)[:2]
    inside = torch.ones(2, SIDE, SIDE, dtype=torch.bool)
    inside[0, 40:] = False
    found = assign(seen, tags, RELEASED, low=0.25, high=0.7, size=(SIDE, SIDE), inside=inside)
    cams = guided_cams(sums, tags, inside)
    expected = released_cam_labels(cams, tags, (SIDE, SIDE), low=0.25, high=0.7, inside=inside)
    assert found.main.labels.equal(expected.labels)
    soft = segmentation_labels(logits, tags)
    torch.testing.assert_close(found.targets, torch.nn.functional.interpolate(soft, (GRID, GRID), mode="bilinear"))
    assert found.cams.shape == (2, C, GRID, GRID)
    assert found.cells.shape == (2, GRID, GRID)
    assert found.cells[0].tolist() == [[True] * 4] * 2 + [[False] * 4] * 2


def test_some_steps_teach_the_segmentation_head_from_tags_alone() -> None:
    network, views = student(), Views()
    views.inside[:] = True
    teacher, threshold = make_teacher(network), DynamicThreshold(low=0.5, high=0.5)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    curve = []
    for step in range(1, 31):
        seen = teacher_forward(teacher, views.weak, scales=(1.0,), flip=True)
        bounds = {"low": threshold.low, "high": threshold.high}
        part = assign(seen, views.tags, ALL, **bounds, size=(SIDE, SIDE))
        threshold.update(count_scores(part.cams, part.cells))
        output = network.outputs(views.strong)
        first = classification_losses(output.logits, output.auxiliary_logits, views.tags, images=4)
        rest = student_losses(
            output,
            part,
            ALL,
            total=totals(part),
            images=4,
            photographs=views.photographs,
            noise=views.noise,
            energy=ENERGY,
        )
        optimiser.zero_grad()
        (first["loss"] + rest["loss"]).backward()
        optimiser.step()
        update_teacher(teacher, network, decay=0.9, step=step)
        curve.append((first["loss"].item(), rest["c2s"].item()))
    assert curve[-1][0] < 0.5 * curve[0][0]
    assert curve[-1][1] < curve[0][1]
    assert 0.05 < threshold.value < 1

"""A whole step of learning from mixed weak labels on a tiny network: parts of a batch, what is off, learning."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pseudolabel.data.shapes import Box
from pseudolabel.models.scribble import ConsistencyHead, ScribbleNetwork, ScribbleOutput, build_scribble_network
from pseudolabel.models.segmenter import build_segmenter, timm_model
from pseudolabel.pairwise.loss_modules import Bilateral
from pseudolabel.scribble.boxes import boxes_allow, tags_allow
from pseudolabel.scribble.consistency import consistency_loss, known_labels, labels_on_grid
from pseudolabel.scribble.losses import exclusion_loss, objectness_loss, partial_cross_entropy, presence_loss
from pseudolabel.scribble.regularisers import Regulariser, build_regulariser
from pseudolabel.scribble.step import Known, Method, losses, totals, unlabelled_tags

SIDE, GRID, C, D = 64, 4, 3, 6
ALL = Method(cells=8, confidence=0.3, exclusion=0.5, presence=0.2, objectness=0.3)
PLAIN = Method(regulariser=None, consistency=None)
KINDS = ("scribbles", "tags", "boxes", "mask")
KERNEL = Bilateral(sigma_xy=20, sigma_rgb=40, scale=0.25, backend="exact")


def network(embedding: int | None = D) -> ScribbleNetwork:
    torch.manual_seed(0)
    settings = {"backbone": "test_vit", "output_stride": None, "classes": C + 1, "embedding": embedding}
    return build_scribble_network(settings)


def dfr() -> Regulariser:
    found = build_regulariser("dfr", bilateral=KERNEL)
    assert found is not None
    return found


class Views:
    """A batch of bright squares on dark ground, one class a place; each view has another kind of weak labels."""

    def __init__(self, kinds: tuple[str, ...] = KINDS, *, padded: bool = False) -> None:
        random = torch.Generator().manual_seed(1)
        count = len(kinds)
        self.photographs = torch.randint(0, 90, (count, 3, SIDE, SIDE), generator=random).to(torch.uint8)
        self.truth = torch.zeros(count, SIDE, SIDE, dtype=torch.uint8)
        tags = torch.zeros(count, C)
        for image in range(count):
            self.photographs[image, image % C, 16:48, 16:48] += 150
            self.truth[image, 16:48, 16:48] = image % C + 1
            tags[image, image % C] = 1
        labels, present = torch.full_like(self.truth, 255), torch.zeros(count, C, dtype=torch.bool)
        allowed = tags_allow(tags).expand(-1, -1, GRID, GRID).clone()
        self.objectness = torch.full((count, GRID, GRID), torch.nan)
        for image, kind in enumerate(kinds):
            if kind == "mask":
                labels[image] = self.truth[image]
            if kind == "scribbles":
                labels[image, 30:33, 18:46] = self.truth[image, 30, 30]
                labels[image, 4:7] = 0
            if kind == "boxes":
                box = Box(image % C + 1, 16, 16, 48, 48)
                allowed[image] = boxes_allow([box], C, (SIDE, SIDE), (GRID, GRID))
            if kind in ("tags", "boxes"):
                present[image] = unlabelled_tags(labels[image, None], tags[image, None])[0]
                self.objectness[image] = (self.truth[image, 8::16, 8::16] > 0) * 0.9
        inside = torch.ones(count, SIDE, SIDE, dtype=torch.bool)
        if padded:
            inside[0, 40:] = False
            labels[~inside] = 255
        self.known = Known(labels, allowed, present, self.objectness, inside if padded else None)
        self.images = self.photographs.float() / 127.5 - 1
        self.noise = torch.rand(count, GRID, GRID, generator=random)

    def part(self, p: slice) -> Known:
        return Known(*(None if value is None else value[p] for value in self.known))  # type: ignore[arg-type]


def gradients(
    model: ScribbleNetwork, views: Views, method: Method, parts: list[slice], strength: float = 1.0
) -> dict[str, Tensor]:
    """Losses and gradients of one step over the parts of a batch, as a training would take it."""
    total = torch.stack([totals(views.part(p)) for p in parts]).sum(dim=0)
    model.zero_grad()
    found: dict[str, Tensor] = {}
    for p in parts:
        terms = losses(
            model.outputs(views.images[p]),
            views.part(p),
            method,
            total=total,
            photographs=views.photographs[p],
            noise=views.noise[p],
            regulariser=dfr() if method.regulariser else None,
            strength=strength,
        )
        terms["loss"].backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        for name, value in terms.items():
            found[name] = found.get(name, torch.zeros(())) + value.detach()
    return found | {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("by_image", [False, True])
def test_the_parts_of_a_mixed_batch_have_its_losses_and_gradients(padded: bool, by_image: bool) -> None:
    views, method = Views(padded=padded), replace(ALL, by_image=by_image)
    whole = gradients(network(), views, method, [slice(4)])
    cut = gradients(network(), views, method, [slice(1), slice(1, 2), slice(2, 4)])
    assert whole.keys() == cut.keys()
    for name, value in whole.items():
        # Sums over other groups of images, in float32.
        torch.testing.assert_close(
            cut[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_the_loss_is_the_weighted_sum_and_every_part_can_be_off() -> None:
    views = Views()
    found = gradients(network(), views, ALL, [slice(4)], strength=0.5)
    weights = {"regulariser": 0.5, "consistency": 0.1, "exclusion": 0.5, "presence": 0.2, "objectness": 0.3}
    expected = found["partial"] + sum(weight * found[name] for name, weight in weights.items())
    torch.testing.assert_close(found["loss"], expected)
    for name in weights:
        without = gradients(network(), views, replace(ALL, **{name: None}), [slice(4)], strength=0.5)
        assert name not in without
        torch.testing.assert_close(without["loss"], expected - weights[name] * found[name])
    plain = gradients(network(None), views, PLAIN, [slice(4)])
    torch.testing.assert_close(plain["loss"], plain["partial"])


@pytest.mark.parametrize("padded", [False, True])
def test_every_term_is_its_loss_of_what_is_known(padded: bool) -> None:
    views, model = Views(padded=padded), network()
    method = replace(ALL, by_image=True, confidence=0.5)
    with torch.no_grad():
        plain = model.outputs(views.images)
        output = ScribbleOutput(plain.segmentation * 20, plain.embedding)  # sure enough for every term to matter
        found = losses(
            output, views.known, method, total=totals(views.known), photographs=views.photographs, noise=views.noise,
            regulariser=dfr(),
        )  # fmt: skip
    logits, deep, known = output.segmentation, output.embedding, views.known
    assert deep is not None
    cells = torch.ones(4, GRID, GRID, dtype=torch.bool)
    if padded:
        cells[0, 2:] = False  # the third row of cells is padding in part
    shares = torch.nn.functional.interpolate(logits, (SIDE, SIDE), mode="bilinear").softmax(dim=1)
    three = slice(3)  # the mask leaves nothing to regularise
    inside = known.inside[three] if known.inside is not None else None
    sure = known_labels(labels_on_grid(known.labels, (GRID, GRID)), logits.softmax(dim=1), 0.5, allowed=known.allowed)
    assert known.objectness is not None
    expected = {
        "partial": partial_cross_entropy(logits, known.labels, by_image=True),
        "regulariser": dfr()(views.photographs[three], shares[three], inside, deep[three]) * 3 / 4,
        "consistency": consistency_loss(deep, sure.masked_fill(~cells, 255), views.noise, most=method.cells),
        "exclusion": exclusion_loss(logits, known.allowed, inside=cells),
        "presence": presence_loss(logits, known.present, known.allowed),
        "objectness": objectness_loss(logits, known.objectness),
    }
    assert found.keys() == {"loss", *expected}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    free = known_labels(labels_on_grid(known.labels, (GRID, GRID)), logits.softmax(dim=1), 0.5)
    assert (free != sure).any()  # or what is allowed would not matter here


def test_an_image_whose_padding_alone_is_unlabelled_is_not_regularised() -> None:
    views = Views(("mask", "mask"), padded=True)
    assert (views.known.labels[0] == 255).any()
    assert gradients(network(), views, Method(), [slice(2)])["regulariser"] == 0


def test_the_defaults_are_dfrs() -> None:
    model, views = network(), Views(("scribbles",))
    assert gradients(model, views, Method(), [slice(1)]).keys() >= {"loss", "partial", "regulariser", "consistency"}


def test_before_the_ramp_only_labels_teach() -> None:
    views, model = Views(("scribbles", "scribbles")), network()
    method = Method(confidence=0.0)  # every cell is predicted confidently
    early, late = (gradients(model, views, method, [slice(2)], strength=strength) for strength in (0.0, 1e-9))
    assert early["regulariser"] == 0
    assert late["regulariser"] > 0
    only = gradients(model, views, replace(method, confidence=None), [slice(2)])
    torch.testing.assert_close(early["consistency"], only["consistency"])
    assert abs(late["consistency"] - only["consistency"]) > 1e-4


def test_a_guides_predictions_may_take_the_networks_place() -> None:
    views, model = Views(("scribbles",)), network()
    output, total = model.outputs(views.images), totals(views.known)
    method = Method(regulariser=None)
    whole = torch.nn.functional.one_hot(views.truth[:, 8::16, 8::16].long(), C + 1).movedim(3, 1) * 50.0

    def consistency(guide: Tensor | None, known: Known) -> Tensor:
        found = losses(
            output, known, method, total=total, photographs=views.photographs, noise=views.noise,
            regulariser=None, guide=guide,
        )  # fmt: skip
        return found["consistency"]

    masked = views.known._replace(labels=views.truth)
    torch.testing.assert_close(consistency(whole, views.known), consistency(None, masked))
    assert abs(consistency(None, views.known) - consistency(whole, views.known)) > 1e-4


def test_what_the_kinds_of_labels_teach() -> None:
    model = network()
    only = {kind: gradients(model, Views((kind,)), ALL, [slice(1)]) for kind in KINDS}
    assert [kind for kind in KINDS if only[kind]["partial"] > 0] == ["scribbles", "mask"]
    assert [kind for kind in KINDS if only[kind]["presence"] > 0] == ["tags", "boxes"]
    assert [kind for kind in KINDS if only[kind]["objectness"] > 0] == ["tags", "boxes"]
    assert [kind for kind in KINDS if only[kind]["regulariser"] > 0] == ["scribbles", "tags", "boxes"]
    assert all(only[kind]["exclusion"] > 0 for kind in KINDS)
    assert only["boxes"]["exclusion"] > only["tags"]["exclusion"]
    views = Views(("mask",))
    expected = partial_cross_entropy(model.segment(views.images), views.truth)
    torch.testing.assert_close(only["mask"]["partial"], expected.detach())


@pytest.mark.parametrize("label", [0, 1, 255])
def test_batches_that_say_little_are_finite(label: int) -> None:
    views = Views(("tags", "tags"))
    nothing = torch.zeros(2, C)
    views.known = Known(
        torch.full_like(views.known.labels, label),
        tags_allow(nothing),
        nothing > 0,
        torch.full((2, GRID, GRID), torch.nan),
    )
    found = gradients(network(), views, ALL, [slice(2)])
    assert all(value.isfinite().all() for value in found.values())


def test_half_precision_gives_nearly_the_same_losses() -> None:
    views, model = Views(), network()
    plain = gradients(model, views, ALL, [slice(4)])
    with torch.autocast("cpu", torch.bfloat16):
        cast = gradients(model, views, ALL, [slice(4)])
    for name in ("loss", "partial", "regulariser", "exclusion", "presence", "objectness"):
        assert cast[name].dtype == torch.float32
        torch.testing.assert_close(cast[name], plain[name], rtol=0.05, atol=0.02)  # bfloat16 has 3 digits
    assert cast["consistency"].isfinite()  # which cells are confident may change


def test_unlabelled_tags_by_hand() -> None:
    labels = torch.tensor([[[0, 1, 255]], [[255, 255, 3]]], dtype=torch.uint8)
    found = unlabelled_tags(labels, torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    assert found.tolist() == [[False, True, False], [False, False, False]]


def test_a_few_steps_learn_from_mixed_labels() -> None:
    model, views = network(), Views()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def right() -> float:
        with torch.no_grad():
            maps = torch.nn.functional.interpolate(model.segment(views.images), (SIDE, SIDE), mode="bilinear")
        return (maps.argmax(dim=1) == views.truth).float().mean().item()

    first = gradients(model, views, ALL, [slice(4)])["loss"]
    for _ in range(30):
        last = gradients(model, views, ALL, [slice(4)])["loss"]
        optimiser.step()
    assert last < first / 2
    assert right() > 0.85


def test_the_network_is_a_segmenter_with_a_head_on_request() -> None:
    model = network()
    images = torch.randn(2, 3, 64, 48)
    output = model.outputs(images)
    assert isinstance(output, ScribbleOutput)
    assert output.embedding is not None
    assert output.segmentation.shape == (2, C + 1, 4, 3)
    assert output.embedding.shape == (2, D, 4, 3)
    torch.testing.assert_close(output.embedding.norm(dim=1), torch.ones(2, 4, 3))
    for logits in (model.segment(images), model(images)):
        torch.testing.assert_close(logits, output.segmentation, rtol=0, atol=0)
    assert model.heads() == [model.head, model.consistency]
    assert model.multiple == 16
    assert timm_model(model) is model.backbone.model
    assert (model.mean, model.std) == (model.backbone.mean, model.backbone.std)
    plain = network(None)
    assert plain.outputs(images).embedding is None
    assert plain.heads() == [plain.head]
    segmenter = build_segmenter(
        {"backbone": "test_vit", "decoder": "largefov", "classes": C + 1, "output_stride": None}
    )
    assert segmenter.state_dict().keys() == plain.state_dict().keys()


def test_the_consistency_head_has_the_stated_layers_and_bears_silence() -> None:
    head = ConsistencyHead(12, 5)
    assert [tuple(weight.shape) for weight in head.parameters()] == [(12, 12, 1, 1), (12,), (5, 12, 1, 1), (5,)]
    with torch.no_grad():
        for weight in head.parameters():
            weight.zero_()
    features = torch.zeros(1, 12, 2, 2, requires_grad=True)
    found = head(features)
    found.sum().backward()
    assert found.isfinite().all()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert ConsistencyHead(12, 5)(torch.randn(1, 12, 2, 2)).dtype == torch.float32

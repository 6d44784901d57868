"""make-cams on the synthetic set, with timm's tiny test models."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pseudolabel.artefacts import MapsReader, open_artefact, read_header
from pseudolabel.data import open_dataset, read_image
from pseudolabel.data.augmentation import resized
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.models.affinity import patch_affinity, propagate
from pseudolabel.models.cam import build_cam_network
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.propagation import Propagation, affinity_of, pass_on
from pseudolabel.options import MakeCamsOptions
from pseudolabel.runtime.devices import normalise
from pseudolabel.stages.make_cams import cams, make_cams, normalised, pick_batch, pick_head, present
from pseudolabel.stages.train_cam import train_cam
from tests.helpers.cams import cam_options, make_options, read_all

TWICE = Propagation(2)


@pytest.fixture(scope="module")
def checkpoint(synthetic_root, tmp_path_factory):
    """A CAM network trained for two epochs."""
    path = tmp_path_factory.mktemp("cam") / "cam.h5"
    train_cam(cam_options(synthetic_root, path))
    return path


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("head", ["main", "auxiliary"])
def test_cams_equal_a_plain_loop_over_images_scales_and_flips(checkpoint, synthetic_root, tmp_path, head):
    scales = (1, 0.5, 1.5)
    make_cams(make_options(checkpoint, tmp_path / "cams.h5", head=head, scales=scales, batch_size=3))
    stored = read_all(tmp_path / "cams.h5")
    network, header = load_network(checkpoint, "cam")
    network.eval()
    dataset = open_dataset(cam_options(synthetic_root, tmp_path / "x.h5"))
    for record in dataset.records:
        image = read_image(record.image)
        scale = 64 / max(image.shape[:2])
        size = tuple(max(1, round(side * scale / 16)) * 16 for side in image.shape[:2])
        pixels = torch.from_numpy(resized(image, size).copy())[None]
        base = normalise(pixels, network.backbone.mean, network.backbone.std)
        total = torch.zeros(len(header.classes) - 1, size[0] // 16, size[1] // 16)
        for factor in scales:
            shape = tuple(max(16, int(side * factor / 16 + 0.5) * 16) for side in size)
            view = base if shape == size else F.interpolate(base, shape, mode="bilinear", antialias=True)
            with torch.no_grad():
                straight = getattr(network(view), "maps" if head == "main" else "auxiliary")[0]
                mirrored = getattr(network(view.flip(3)), "maps" if head == "main" else "auxiliary")[0].flip(2)
            best = torch.maximum(straight, mirrored).relu()[None]
            total += F.interpolate(best, total.shape[1:], mode="bilinear")[0]
        assert set(stored[record.id]) == set(record.tags)
        for tag in record.tags:
            array = total[tag - 1].numpy()
            expected = (array - array.min()) / (array.max() - array.min())
            np.testing.assert_allclose(stored[record.id][tag], expected, atol=2e-3)  # stored as float16


def test_only_present_classes_are_stored_and_within_0_and_1(checkpoint, tmp_path):
    result = make_cams(make_options(checkpoint, tmp_path / "cams.h5", split="val"))
    stored = read_all(tmp_path / "cams.h5")
    assert result["images"] == len(stored) == 4
    for maps in stored.values():
        for array in maps.values():
            assert array.dtype == np.float16
            assert array.min() >= 0
            assert array.max() <= 1


def test_predicted_tags_need_no_tags(checkpoint, tmp_path):
    make_cams(make_options(checkpoint, tmp_path / "cams.h5", tags="predicted", tag_threshold=1.0))
    assert all(len(maps) == 1 for maps in read_all(tmp_path / "cams.h5").values())
    assert read_header(tmp_path / "cams.h5").protocol["tag_filter"] == "predicted tags"


def test_the_best_tag_always_counts():
    logits = torch.tensor([-3.0, -1.0, -2.0])
    options = MakeCamsOptions(checkpoint="c.h5", out="o.h5", tags="predicted", tag_threshold=0.5)
    assert present(None, logits, options) == [2]
    assert present(None, torch.tensor([1.0, -1.0, 2.0]), options) == [1, 3]


def test_a_flat_map_stays_zero_and_others_fill_the_range():
    maps = torch.stack([torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [3.0, 5.0]])])
    found = normalised(maps, [1, 2], "minmax")
    assert found[1].tolist() == [[0, 0], [0, 0]]
    assert found[2].tolist() == [[0, 0.25], [0.5, 1]]
    np.testing.assert_allclose(normalised(maps, [2], "max")[2], [[0.2, 0.4], [0.6, 1]], atol=1e-3)


def test_an_auxiliary_head_that_is_not_there(synthetic_root, tmp_path):
    train_cam(cam_options(synthetic_root, tmp_path / "cam.h5", auxiliary_block=None, epochs=1))
    with pytest.raises(InputError) as error:
        make_cams(make_options(tmp_path / "cam.h5", tmp_path / "cams.h5", head="auxiliary"))
    assert str(error.value) == f"--head auxiliary: {tmp_path / 'cam.h5'} has no auxiliary head; use --head main"


@pytest.mark.parametrize("looks", [{}, {"flip": False}, {"scales": (0.5,)}], ids=["both", "one side", "no scale 1"])
@pytest.mark.parametrize("head", ["auxiliary", "main", "mean"])
def test_sums_over_the_scales_are_passed_on_along_attention(checkpoint, head, looks):
    network, _ = load_network(checkpoint, "cam")
    for parameter in network.eval().parameters():  # attention of so short a training is all but even
        if parameter.ndim == 2:
            parameter.data.mul_(8)
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    options = make_options(checkpoint, "never.h5", head=head, **looks)
    with torch.inference_mode():
        found, logits = cams(network, images, head, TWICE, options)
        plain, same = cams(network, images, head, Propagation(0), options)
        if head == "mean":
            each = [cams(network, images, name, TWICE, options)[0] for name in ("main", "auxiliary")]
            wanted = sum(maps / maps.amax(dim=(2, 3), keepdim=True).clamp_min(1e-6) for maps in each) / 2
        else:
            wanted = propagate(plain, patch_affinity(network.backbone, images, flip=options.flip), 2)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(logits, same)
    assert (found - plain).abs().max() > 0.1 * plain.max()


@pytest.mark.parametrize(
    ("side", "times", "flip", "batch"),
    [(21, 2, True, 16), (42, 2, True, 10), (42, 2, False, 16), (84, 2, True, 1), (84, 0, True, 16)],
)
def test_a_batch_has_room_for_what_its_patches_attend_to(side, times, flip, batch):
    """42**4 pairs of an image and as many of its mirror image: ten go into 2**26."""
    options = make_options("cam.h5", "never.h5", split="val", flip=flip)
    assert pick_batch(side, Propagation(times), options) == batch


def test_maps_of_a_vit_state_how_often_they_were_passed_on(checkpoint, tmp_path):
    """Twice unless told otherwise."""
    for times in (None, 0, 2):
        make_cams(make_options(checkpoint, tmp_path / f"{times}.h5", propagate=times))
    assert [read_header(tmp_path / f"{times}.h5").protocol.get("propagate") for times in (None, 0, 2)] == [2, None, 2]
    found, wanted = read_all(tmp_path / "None.h5"), read_all(tmp_path / "2.h5")
    for name, maps in found.items():
        for label, array in maps.items():
            np.testing.assert_array_equal(array, wanted[name][label])


def test_passed_on_maps_are_made_at_a_smaller_size(checkpoint, tmp_path):
    """By default: attention on a grid much finer than that of the training says less. The training crop was 32."""
    for times in (0, 1):
        make_cams(make_options(checkpoint, tmp_path / f"{times}.h5", propagate=times, size=None))
    assert [read_header(tmp_path / f"{times}.h5").protocol["size"] for times in (0, 1)] == [64, 48]


def test_a_cnn_has_nothing_to_pass_maps_on_along(synthetic_root, tmp_path):
    train_cam(cam_options(synthetic_root, tmp_path / "cam.h5", backbone="test_resnet", epochs=1))
    make_cams(make_options(tmp_path / "cam.h5", tmp_path / "cams.h5", propagate=None))
    assert "propagate" not in read_header(tmp_path / "cams.h5").protocol
    with pytest.raises(InputError) as error:
        make_cams(make_options(tmp_path / "cam.h5", tmp_path / "other.h5", propagate=1))
    assert str(error.value) == (
        f"--propagate 1: the network of {tmp_path / 'cam.h5'} has no attention between patches as plain ViTs do; "
        "leave it out"
    )


def test_a_killed_make_cams_goes_on_with_the_same_result(checkpoint, tmp_path, monkeypatch):
    whole = tmp_path / "whole.h5"
    make_cams(make_options(checkpoint, whole, batch_size=2))

    class KilledError(Exception):
        pass

    calls = []
    from pseudolabel.artefacts import MapsWriter

    add = MapsWriter.add

    def dies_at_the_fourth(writer, image, maps):
        calls.append(image)
        if len(calls) == 4:
            raise KilledError
        add(writer, image, maps)
        writer.commit()

    monkeypatch.setattr(MapsWriter, "add", dies_at_the_fourth)
    with pytest.raises(KilledError):
        make_cams(make_options(checkpoint, tmp_path / "broken.h5", batch_size=2))
    monkeypatch.setattr(MapsWriter, "add", add)
    make_cams(make_options(checkpoint, tmp_path / "broken.h5", batch_size=2))
    assert read_header(tmp_path / "broken.h5").digest == read_header(whole).digest


@pytest.mark.usefixtures("three_threads")
def test_an_unreadable_image_stops_or_is_recorded(synthetic_root, checkpoint, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    dataset = open_dataset(cam_options(root, tmp_path / "x.h5"))
    victim = dataset.records[2].image
    victim.write_bytes(victim.read_bytes()[:-200])  # the header stays whole, the pixels do not
    with pytest.raises(DatasetError, match=victim.name):
        make_cams(make_options(checkpoint, tmp_path / "cams.h5", root=root))
    result = make_cams(make_options(checkpoint, tmp_path / "skip.h5", root=root, on_error="skip"))
    assert result["skipped"] == 1
    with open_artefact(tmp_path / "skip.h5", "cams") as artefact:
        assert list(MapsReader(artefact).skipped) == [dataset.records[2].id]


@pytest.mark.parametrize("damage", [lambda whole: whole[:-200], lambda whole: b""])
def test_no_readable_image_at_all_is_an_error_even_with_skip(synthetic_root, checkpoint, tmp_path, damage):
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    records = open_dataset(cam_options(root, tmp_path / "x.h5")).records
    for record in records:
        record.image.write_bytes(damage(record.image.read_bytes()))
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match=r"none of the 8 images could be used, .*; the first: .*jpg is "):
        make_cams(make_options(checkpoint, tmp_path / "out/cams.h5", root=root, on_error="skip"))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("pooling", "block", "asked", "head"),
    [
        ("gmp", -2, None, "main"),
        ("gap", -2, None, "auxiliary"),
        ("gap", None, None, "main"),
        ("gmp", -2, "auxiliary", "auxiliary"),
        ("gap", -2, "main", "main"),
    ],
)
def test_the_head_follows_the_pooling_unless_it_is_asked_for(tmp_path, pooling, block, asked, head):
    architecture = {"backbone": "test_vit", "output_stride": None, "auxiliary_block": block, "classes": 3}
    network = build_cam_network({**architecture, "pooling": pooling})
    options = MakeCamsOptions(checkpoint=tmp_path / "cam.h5", out=tmp_path / "cams.h5", head=asked)
    assert pick_head(network, options) == head


@pytest.mark.parametrize(
    ("looks", "stated"),
    [
        ({"affinity": "caa", "class_boxes": 0.4}, {"propagate": 2, "affinity": "caa", "class_boxes": 0.4}),
        ({"affinity": "mean", "attention_blocks": (0, -1)}, {"propagate": 2, "attention_blocks": [0, 5]}),
        ({"affinity": "features"}, {"propagate": 2, "affinity": "features"}),
        ({"affinity_scales": (1, 0.5, 2), "propagate": 1}, {"propagate": 1, "affinity_scales": [1.0, 0.5, 2.0]}),
        ({"affinity": "caa", "propagate": 0}, {}),
    ],
)
def test_maps_state_along_what_they_were_passed_on(checkpoint, tmp_path, looks, stated):
    make_cams(make_options(checkpoint, tmp_path / "cams.h5", **{"propagate": None} | looks))
    protocol = read_header(tmp_path / "cams.h5").protocol
    names = ("propagate", "affinity", "attention_blocks", "affinity_scales", "class_boxes")
    assert {name: protocol[name] for name in names if name in protocol} == stated


@pytest.mark.parametrize("form", ["mean", "caa", "features"])
def test_sums_are_passed_on_at_several_scales(checkpoint, form):
    """Of the two scales one is among those of the maps, the other is computed for itself."""
    network, _ = load_network(checkpoint, "cam")
    for parameter in network.eval().parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(8)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    options = make_options(checkpoint, "never.h5")
    how = Propagation(2, form, (1,), (1.0, 1.5), 0.5)
    with torch.inference_mode():
        found, _ = cams(network, images, "main", how, options)
        plain, _ = cams(network, images, "main", Propagation(0), options)
        larger = F.interpolate(images, (96, 144), mode="bilinear", antialias=True)
        affinities = [affinity_of(network.backbone, view, how, flip=True) for view in (images, larger)]
        wanted = pass_on(plain, list(zip([(4, 6), (6, 9)], affinities, strict=True)), how)
    torch.testing.assert_close(found, wanted)


def test_a_cnn_passes_maps_on_along_features(synthetic_root, tmp_path):
    train_cam(cam_options(synthetic_root, tmp_path / "cam.h5", backbone="test_resnet", epochs=1))
    for times in (0, 2):
        make_cams(make_options(tmp_path / "cam.h5", tmp_path / f"{times}.h5", affinity="features", propagate=times))
    plain, passed = (read_all(tmp_path / f"{times}.h5") for times in (0, 2))
    changes = [
        np.abs(maps[label] - array).max() for name, maps in plain.items() for label, array in passed[name].items()
    ]
    assert max(changes) > 0.05


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        (
            {"attention_blocks": (0, 6)},
            "--attention-blocks 0, 6: the network of {} has blocks 0 to 5; name each once",
        ),
        (
            {"attention_blocks": (5, -1)},
            "--attention-blocks 5, -1: the network of {} has blocks 0 to 5; name each once",
        ),
        (
            {"attention_blocks": (1,), "affinity": "features"},
            "--attention-blocks is for --affinity mean and caa; leave it out",
        ),
    ],
)
def test_blocks_that_are_not_there(checkpoint, tmp_path, looks, said):
    with pytest.raises(InputError) as error:
        make_cams(make_options(checkpoint, tmp_path / "cams.h5", propagate=2, **looks))
    assert str(error.value) == said.format(checkpoint)
    assert not (tmp_path / "cams.h5").exists()

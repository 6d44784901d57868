"""train-cam and make-cams on the synthetic set, with timm's tiny test models."""

import shutil

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

from pseudolabel.artefacts import MapsReader, open_artefact, read_header
from pseudolabel.artefacts.inspection import describe_artefact
from pseudolabel.data import open_dataset, read_image
from pseudolabel.data.augmentation import resized
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.models.affinity import patch_affinity, propagate
from pseudolabel.models.cam import CamOutput, build_cam_network
from pseudolabel.models.checkpoint import load_network
from pseudolabel.options import MakeCamsOptions, TrainCamOptions
from pseudolabel.runtime.devices import normalise
from pseudolabel.stages.make_cams import cams, make_cams, normalised, pick_batch, pick_head, present
from pseudolabel.stages.train_cam import architecture_of, classification_losses, train_cam
from pseudolabel.training import state_path
from pseudolabel.training.image_tags import tag_vector


def cam_options(root, out, **values):
    settings = {
        "backbone": "test_vit",
        "auxiliary_block": -2,
        "pretrained": False,
        "crop": 32,
        "epochs": 2,
        "batch_size": 4,
        "precision": "float32",
        "device": "cpu",
        "workers": 0,
        "holdout": 0.25,
        **values,
    }
    return TrainCamOptions(dataset="voc", root=root, out=out, **settings)


@pytest.fixture(scope="module")
def checkpoint(synthetic_root, tmp_path_factory):
    """A CAM network trained for two epochs."""
    path = tmp_path_factory.mktemp("cam") / "cam.h5"
    train_cam(cam_options(synthetic_root, path))
    return path


def make_options(checkpoint, out, **values):
    """Of plain CAMs: propagated along the even attention of so short a training, they would be the same everywhere."""
    looks = {"size": 64, "scales": (1, 0.5), "propagate": 0}
    settings = {"precision": "float32", "device": "cpu", "workers": 0, **looks, **values}
    return MakeCamsOptions(checkpoint=checkpoint, out=out, **settings)


def read_all(path):
    with open_artefact(path, "cams") as artefact:
        reader = MapsReader(artefact)
        return {name: reader.maps(index) for index, name in enumerate(reader.images.ids)}


def test_a_checkpoint_says_all_that_later_stages_need(checkpoint, synthetic_root):
    header = read_header(checkpoint, "checkpoint")
    assert header.dataset["root"] == str(synthetic_root)
    assert header.network["backbone"] == "test_vit"
    assert header.facts["architecture"]["classes"] == len(header.classes) - 1
    assert len(header.facts["held_out"]) == 2
    assert 0 <= header.facts["tag_map"] <= 1
    assert header.oracle == ()
    assert not state_path(checkpoint).exists()
    with open_artefact(checkpoint, "checkpoint") as artefact:
        assert artefact.file["curves/loss"].shape == (2,)  # 6 images, batches of 4, 2 epochs
        trained = artefact.file["images/id"].asstr()[:].tolist()
    assert sorted(trained + header.facts["held_out"]) == [f"scene_{number:05}" for number in range(8)]


def test_the_same_seed_trains_the_same_network(checkpoint, synthetic_root, tmp_path):
    again = tmp_path / "again.h5"
    train_cam(cam_options(synthetic_root, again, workers=2))
    assert read_header(again).digest == read_header(checkpoint).digest


def test_tags_from_masks_are_marked_oracle(synthetic_root, tmp_path):
    train_cam(cam_options(synthetic_root, tmp_path / "cam.h5", tag_source="masks", epochs=1))
    assert read_header(tmp_path / "cam.h5").oracle == ("image tags read from pixel masks",)
    make_cams(make_options(tmp_path / "cam.h5", tmp_path / "cams.h5"))
    assert read_header(tmp_path / "cams.h5").oracle == ("image tags read from pixel masks",)


def test_an_output_that_exists_is_not_replaced(checkpoint, synthetic_root):
    with pytest.raises(InputError) as error:
        train_cam(cam_options(synthetic_root, checkpoint))
    assert str(error.value) == f"{checkpoint} exists already; pass --overwrite to replace it, or another --out"


def test_losses_by_hand():
    class Net:
        def __call__(self, images):
            return CamOutput(torch.zeros(1, 2, 1, 2), None, torch.tensor([[1.0, -1.0]]), None)

    losses = classification_losses(Net(), torch.zeros(1), torch.tensor([[1.0, 0.0]]))
    # logits (1, -1), tags (1, 0): both terms are log(1 + e^-1)
    assert losses["loss"].item() == pytest.approx(np.log1p(np.exp(-1)), rel=1e-6)


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


def test_a_crop_that_patches_do_not_fill(synthetic_root, tmp_path):
    with pytest.raises(InputError) as error:
        train_cam(cam_options(synthetic_root, tmp_path / "cam.h5", crop=40))
    assert str(error.value) == "--crop 40 is no multiple of 16, as test_vit needs; use 32 or 48"
    assert list(tmp_path.iterdir()) == []
    train_cam(cam_options(synthetic_root, tmp_path / "cnn.h5", backbone="test_resnet", crop=40, epochs=1))


def test_a_cnn_trains_too(synthetic_root, tmp_path):
    options = cam_options(
        synthetic_root,
        tmp_path / "cam.h5",
        backbone="test_resnet",
        output_stride=16,
        freeze=0.3,
        pooling="gmp",
        epochs=1,
    )
    result = train_cam(options)
    assert np.isfinite(result["loss"])
    make_cams(make_options(tmp_path / "cam.h5", tmp_path / "cams.h5", head=None))
    assert read_header(tmp_path / "cams.h5").protocol["head"] == "main"


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
        found, logits = cams(network, images, head, 2, options)
        plain, same = cams(network, images, head, 0, options)
        if head == "mean":
            each = [cams(network, images, name, 2, options)[0] for name in ("main", "auxiliary")]
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
    assert pick_batch(side, times, options) == batch


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


def test_training_records_what_it_skips(synthetic_root, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    victim = open_dataset(cam_options(root, tmp_path / "x.h5")).records[2]
    victim.image.write_bytes(b"")
    said = f"{victim.image} is empty (0 bytes); replace or remove it"
    with pytest.raises(DatasetError) as error:
        train_cam(cam_options(root, tmp_path / "cam.h5", epochs=1, workers=1))
    assert str(error.value) == said
    assert not (tmp_path / "cam.h5").exists()
    result = train_cam(cam_options(root, tmp_path / "cam.h5", epochs=1, on_error="skip", overwrite=True))
    assert result["skipped"] == 1
    assert describe_artefact(tmp_path / "cam.h5")["skipped"] == {victim.id: said}


def test_tag_vectors():
    from pathlib import Path

    from pseudolabel.data import Record

    assert tag_vector(Record("a", Path("a.jpg"), (1, 3)), 4).tolist() == [1, 0, 1, 0]


def test_a_backbone_of_ones_own_is_needed_in_training_alone(synthetic_root, tmp_path):
    folder, path = tmp_path / "own", tmp_path / "cam.h5"
    timm.models.save_for_hf(timm.create_model("test_vit", img_size=96), str(folder), model_args={"img_size": 96})
    stored = timm.models.load_state_dict(str(folder / "pytorch_model.bin"))
    begin = {"backbone": f"local-dir:{folder}", "pretrained": True, "epochs": 1, "learning_rate": 1e-12}
    train_cam(cam_options(synthetic_root, path, **begin))
    found = {(item.kind, item.path) for item in read_header(path).inputs}
    assert ("weights", str(folder / "pytorch_model.bin")) in found
    about = read_header(path)
    assert about.network["backbone"] == f"local-dir:{folder}"
    assert about.network["backbone_config"] == about.facts["architecture"]["backbone_config"]
    shutil.rmtree(folder)
    network, _ = load_network(path, "cam")
    torch.testing.assert_close(network.backbone.model.pos_embed.data, stored["pos_embed"])
    assert make_cams(make_options(path, tmp_path / "cams.h5"))["images"] == 8
    with pytest.raises(InputError) as error:
        train_cam(cam_options(synthetic_root, tmp_path / "again.h5", **begin))
    assert str(error.value) == (
        f"--backbone local-dir:{folder}: the folder has no config.json, as timm's save_for_hf writes it"
    )


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_a_network_for_grey_sees_no_colours(synthetic_root, tmp_path, backbone):
    path, weights = tmp_path / "cam.h5", tmp_path / "w.pth"
    torch.save(timm.create_model(backbone).state_dict(), weights)
    train_cam(cam_options(synthetic_root, path, backbone=backbone, in_chans=1, weights=weights, epochs=1))
    network, header = load_network(path, "cam")
    assert len(header.network["mean"]) == network.backbone.in_chans == 1
    assert make_cams(make_options(path, tmp_path / "cams.h5"))["images"] == 8
    backbone, photograph = network.eval().backbone, np.zeros((2, 64, 64, 3), np.uint8)
    photograph[0, ..., 0], photograph[1, ..., 1] = 200, 102  # as bright as each other
    with torch.no_grad():
        maps = network(normalise(torch.from_numpy(photograph), backbone.mean, backbone.std)).maps
    torch.testing.assert_close(maps[0], maps[1])


@pytest.mark.parametrize(("backbone", "pooling"), [("test_vit", "gmp"), ("test_resnet", "gap")])
def test_pooling_follows_the_backbone_unless_it_is_asked_for(synthetic_root, tmp_path, backbone, pooling):
    options = cam_options(synthetic_root, tmp_path / "x.h5", backbone=backbone)
    assert architecture_of(options, 5)["pooling"] == pooling
    for asked in ("gap", "gmp"):
        assert architecture_of(options.model_copy(update={"pooling": asked}), 5)["pooling"] == asked


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

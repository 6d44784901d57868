"""train-segmenter and predict-masks on masks of the synthetic set, with timm's tiny test models."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pseudolabel.artefacts import Header, Images, MapsReader, MapsWriter, open_artefact, read_header
from pseudolabel.artefacts.attributes import attribute
from pseudolabel.artefacts.inspection import describe_artefact
from pseudolabel.data import load_dataset
from pseudolabel.errors import ArtefactError, DatasetError, InputError
from pseudolabel.labels.assignment import from_soft
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.prediction import class_probabilities
from pseudolabel.models.segmenter import timm_model
from pseudolabel.options import PredictMasksOptions, TrainSegmenterOptions
from pseudolabel.stages.predict_masks import predict_masks, restricted
from pseudolabel.stages.train_segmenter import segmentation_loss, train_segmenter
from pseudolabel.training.masked import describe_masks, labelled_at, labelled_rows
from tests.helpers import kinds


@pytest.fixture(scope="module")
def masks(synthetic_root, tmp_path_factory):
    """A masks artefact that holds the true masks of the synthetic train split; the first image is unlabelled."""
    path = tmp_path_factory.mktemp("masks") / "masks.h5"
    dataset = load_dataset({"dataset": "voc", "root": str(synthetic_root), "split": "train"})
    labels = [dataset.read_mask(record) for record in dataset.records]
    sizes = np.array([array.shape for array in labels])
    images = Images(tuple(record.id for record in dataset.records), sizes[:, 0], sizes[:, 1])
    header = Header(
        "masks",
        "export-masks",
        {},
        dataset.classes,
        dataset=dataset.spec(),
        network={"backbone": "test_vit", "crop": 32, "output_stride": None, "weights": None, "pretrained": False},
        protocol={"crf": "irn"},
    )
    with MapsWriter(path, header, images, dtype="uint8") as writer:
        for index, array in enumerate(labels):
            writer.add(index, np.full_like(array, 255) if index == 0 else array)
    return path


def seg_options(masks, out, **values):
    settings = {
        "pretrained": False,
        "crop": 32,
        "epochs": 2,
        "batch_size": 3,
        "precision": "float32",
        "device": "cpu",
        "workers": 0,
        **values,
    }
    return TrainSegmenterOptions(masks=masks, out=out, **settings)


@pytest.fixture(scope="module")
def checkpoint(masks, tmp_path_factory):
    """A segmenter trained for two epochs."""
    path = tmp_path_factory.mktemp("seg") / "seg.h5"
    train_segmenter(seg_options(masks, path))
    return path


def predict_options(checkpoint, out, **values):
    settings = {"precision": "float32", "device": "cpu", "workers": 0, "size": 64, **values}
    return PredictMasksOptions(checkpoint=checkpoint, out=out, **settings)


def test_external_models_behind_the_masks_stay_a_list_of_their_own():
    external = ["SAM (Apache-2.0), trained on masks of SA-1B"]
    parent = kinds.header("masks", protocol={"crf": "irn", "external_models": external, "annotation_hours": 2})
    assert describe_masks(3, parent) == "3 masks (crf irn)"
    assert labelled_at(parent) == {"external_models": external, "annotation_hours": 2}


def test_the_loss_by_hand_with_ignored_pixels():
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1, 0, 0] = 2.0
    labels = torch.tensor([[[1, 0], [255, 0]]], dtype=torch.uint8)
    foreground, background = np.log1p(np.exp(-2)), np.log(2)
    plain = segmentation_loss(logits, labels, balanced=False).item()
    assert plain == pytest.approx((foreground + 2 * background) / 3, rel=1e-6)
    balanced = segmentation_loss(logits, labels, balanced=True).item()
    assert balanced == pytest.approx((foreground + background) / 2, rel=1e-6)


def test_unlabelled_pixels_have_no_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    labels[0, 1, 2] = 2
    segmentation_loss(logits, labels, balanced=False).backward()
    touched = logits.grad.abs().sum(dim=1)[0] > 0
    assert touched.nonzero().tolist() == [[1, 2]]


def test_nothing_labelled_is_no_loss():
    labels = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    assert segmentation_loss(torch.randn(1, 3, 4, 4), labels, balanced=True).item() == 0


def test_images_without_a_labelled_pixel_are_left_out(masks):
    header, rows = labelled_rows(masks)
    assert header.kind == "masks"
    assert sorted(rows.values()) == list(range(1, 8))


@pytest.fixture
def damaged(synthetic_root, tmp_path):
    """A copy of the data set whose third image cannot be read; its folder, and the id and path of that image."""
    root = tmp_path / "data"
    shutil.copytree(synthetic_root, root)
    victim = load_dataset({"dataset": "voc", "root": str(root), "split": "train"}).records[2]
    victim.image.write_bytes(b"")
    return root, victim


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_photograph_is_one_line_whichever_process_meets_it(masks, damaged, tmp_path, workers):
    root, victim = damaged
    with pytest.raises(DatasetError) as error:
        train_segmenter(seg_options(masks, tmp_path / "seg.h5", root=root, workers=workers))
    assert str(error.value) == f"{victim.image} is empty (0 bytes); replace or remove it"
    assert not (tmp_path / "seg.h5").exists()


def test_unreadable_photographs_can_be_left_out_and_are_recorded(masks, damaged, tmp_path, capsys):
    root, victim = damaged
    result = train_segmenter(seg_options(masks, tmp_path / "seg.h5", root=root, on_error="skip"))
    assert (result["images"], result["skipped"], result["unlabelled"]) == (6, 1, 1)
    said = f"{victim.image} is empty (0 bytes); replace or remove it"
    assert capsys.readouterr().err == f"warning: skipped: {said}\n"
    assert describe_artefact(tmp_path / "seg.h5")["skipped"] == {victim.id: said}
    assert read_header(tmp_path / "seg.h5").protocol == {"trained_on": "6 masks (crf irn)"}


def test_training_reads_backbone_and_data_set_from_the_masks(masks, checkpoint):
    header = read_header(checkpoint, "checkpoint")
    assert header.facts["architecture"]["backbone"] == "test_vit"
    assert header.network["crop"] == 32
    assert header.protocol == {"trained_on": "7 masks (crf irn)"}


def test_a_folder_stands_for_the_masks_in_it_and_the_result_is_the_same(masks, checkpoint, tmp_path):
    result = train_segmenter(seg_options(masks.parent, tmp_path / "seg.h5", workers=2))
    assert result["unlabelled"] == 1
    assert read_header(tmp_path / "seg.h5").digest == read_header(checkpoint).digest


def test_a_frozen_encoder_stays_as_loaded(masks, checkpoint, tmp_path):
    options = seg_options(masks, tmp_path / "seg.h5", weights=checkpoint, freeze=1.0, epochs=1)
    train_segmenter(options)
    with open_artefact(checkpoint) as first, open_artefact(tmp_path / "seg.h5") as second:
        for name, dataset in first.file["weights"].items():
            same = np.array_equal(dataset[()], second.file["weights"][name][()])
            assert same == name.startswith("backbone."), name


def test_agreement_is_measured_on_what_is_held_out(masks, tmp_path):
    result = train_segmenter(seg_options(masks, tmp_path / "seg.h5", holdout=0.3, epochs=1, batch_size=2))
    header = read_header(tmp_path / "seg.h5")
    assert result["held_out"] == len(header.facts["held_out"]) == 2
    with open_artefact(tmp_path / "seg.h5") as artefact:
        trained = artefact.file["images/id"].asstr()[:].tolist()
    assert len(trained) == result["images"]
    assert not set(trained) & set(header.facts["held_out"])
    assert 0 <= result["agreement"] <= 1


def test_soft_labels_equal_a_plain_loop(checkpoint, tmp_path):
    predict_masks(predict_options(checkpoint, tmp_path / "val", scales=(1, 1.5), batch_size=2))
    from pseudolabel.data import read_image
    from pseudolabel.data.augmentation import network_size, resized
    from pseudolabel.models.checkpoint import load_network
    from pseudolabel.runtime.devices import normalise

    network, header = load_network(checkpoint, "segmenter")
    network.eval()
    dataset = load_dataset(header.dataset, split="val")
    with open_artefact(tmp_path / "val" / "soft.h5", "soft-labels") as artefact:
        reader = MapsReader(artefact)
        for index, record in enumerate(dataset.records):
            image = read_image(record.image)
            size = network_size(*image.shape[:2], 64, 16)
            base = normalise(torch.from_numpy(resized(image, size).copy())[None], network.mean, network.std)
            total = 0
            with torch.no_grad():
                for scale in (1, 1.5):
                    shape = tuple(int(side * scale / 16 + 0.5) * 16 for side in size)
                    view = base if scale == 1 else F.interpolate(base, shape, mode="bilinear", antialias=True)
                    for mirrored in (False, True):
                        soft = network(view.flip(3) if mirrored else view).softmax(1)
                        soft = soft.flip(3) if mirrored else soft
                        total = total + F.interpolate(soft, (size[0] // 16, size[1] // 16), mode="bilinear") / 4
            stored = reader.maps(index)
            for label, array in stored.items():
                np.testing.assert_allclose(array, total[0, label].numpy(), atol=2e-3)


def test_masks_pngs_and_soft_labels_agree(checkpoint, tmp_path):
    out = tmp_path / "val"
    result = predict_masks(predict_options(checkpoint, out))
    assert result["images"] == 4
    with open_artefact(out / "masks.h5", "masks") as first, open_artefact(out / "soft.h5", "soft-labels") as second:
        assert first.header.stage == "predict-masks"
        assert first.header.protocol == {
            "trained_on": "7 masks (crf irn)",
            "split": "val",
            "tag_filter": "none",
            "scales": [1.0],
            "flip": True,
            "size": 64,
        }
        masks, soft = MapsReader(first), MapsReader(second)
        for index, name in enumerate(masks.images.ids):
            labels = masks.labels(index)
            assert np.array_equal(from_soft(*soft.full_size(index)), labels)
            png = Image.open(out / f"{name}.png")
            assert png.mode == "P"
            assert np.array_equal(np.asarray(png), labels)


def test_the_tag_filter_leaves_only_tags_and_background(checkpoint, tmp_path):
    predict_masks(predict_options(checkpoint, tmp_path / "val", tags="dataset"))
    header = read_header(tmp_path / "val" / "masks.h5")
    assert header.protocol["tag_filter"] == "image tags"
    dataset = load_dataset(header.dataset)
    with open_artefact(tmp_path / "val" / "masks.h5") as artefact:
        reader = MapsReader(artefact)
        for index, record in enumerate(dataset.records):
            assert set(np.unique(reader.labels(index))) <= {0, *record.tags}


def test_restricting_by_hand():
    soft = np.array([0.1, 0.6, 0.3], dtype=np.float32)[:, None, None]
    np.testing.assert_allclose(restricted(soft, (2,))[:, 0, 0], [0.25, 0, 0.75], rtol=1e-6)
    assert restricted(soft, ())[:, 0, 0].tolist() == [1, 0, 0]
    sure = np.array([0, 1, 0], np.float32).reshape(3, 1, 1)  # of a class that the tags exclude
    assert restricted(sure, (2,))[:, 0, 0].tolist() == [1, 0, 0]
    assert restricted(np.array([1e-30, 1, 3e-30], np.float32).reshape(3, 1, 1), (2,))[:, 0, 0].tolist() == [
        0.25,
        0,
        0.75,
    ]


def test_probabilities_sum_to_one(checkpoint):
    from pseudolabel.models.checkpoint import load_network

    network, _ = load_network(checkpoint, "segmenter")
    network.eval()
    with torch.no_grad():
        soft = class_probabilities(network, torch.randn(2, 3, 64, 48), (0.5, 1.0), flip=True)
    assert soft.shape[2:] == (4, 3)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(2, 4, 3))


def test_with_a_crf_the_networks_own_probabilities_are_kept_too(checkpoint, tmp_path):
    pytest.importorskip("pydensecrf", reason="needs the crf extra")
    predict_masks(predict_options(checkpoint, tmp_path / "val", crf=True, iterations=2))
    assert read_header(tmp_path / "val" / "network.h5").stage == "predict-masks"
    assert read_header(tmp_path / "val" / "soft.h5").stage == "refine-crf"
    assert read_header(tmp_path / "val" / "masks.h5").stage == "predict-masks"
    assert read_header(tmp_path / "val" / "masks.h5").protocol["crf"].startswith("irn")


def test_a_second_prediction_does_not_overwrite(checkpoint, tmp_path):
    predict_masks(predict_options(checkpoint, tmp_path / "val"))
    with pytest.raises(InputError, match=r"masks.h5 exists already; pass --overwrite to replace it, or another --out"):
        predict_masks(predict_options(checkpoint, tmp_path / "val"))
    predict_masks(predict_options(checkpoint, tmp_path / "val", overwrite=True))


def test_a_prediction_killed_before_its_pngs_goes_on_from_its_soft_labels(checkpoint, tmp_path):
    predict_masks(predict_options(checkpoint, tmp_path / "val"))
    whole = read_header(tmp_path / "val" / "masks.h5").digest
    for path in (tmp_path / "val").iterdir():
        if path.name != "soft.h5":
            path.unlink()
    result = predict_masks(predict_options(checkpoint, tmp_path / "val"))
    assert "images_per_second" not in result or result["skipped"] == 0
    assert read_header(tmp_path / "val" / "masks.h5").digest == whole


def test_one_image_is_too_few_for_batch_normalisation(masks, tmp_path):
    options = seg_options(masks, tmp_path / "seg.h5", backbone="test_resnet", decoder="deeplabv3plus", batch_size=1)
    with pytest.raises(InputError) as error:
        train_segmenter(options)
    assert str(error.value) == (
        "batch normalisation cannot learn from a forward pass of 1 image; "
        "raise --batch-size or --micro-batch to 2 or more, or choose another --backbone or --decoder"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("backbone", "decoder", "multiple", "sides"),
    [("test_vit", "largefov", 16, "32 or 48"), ("test_resnet", "unet", 32, "32 or 64")],
)
def test_a_crop_that_the_network_cannot_take(masks, tmp_path, backbone, decoder, multiple, sides):
    with pytest.raises(InputError) as error:
        train_segmenter(seg_options(masks, tmp_path / "seg.h5", backbone=backbone, decoder=decoder, crop=40))
    said = f"--crop 40 is no multiple of {multiple}, as {decoder} on {backbone} needs; use {sides}"
    assert str(error.value) == said
    assert list(tmp_path.iterdir()) == []


def test_a_cam_checkpoint_is_not_a_segmenter(masks, tmp_path):
    with pytest.raises(ArtefactError, match=r"holds masks \(made by export-masks\); wanted a checkpoint of"):
        predict_masks(predict_options(masks, tmp_path / "val"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_decoder_of_the_library_trains_and_predicts(masks, tmp_path, precision):
    settings = {"backbone": "test_resnet", "decoder": "fpn", "epochs": 1, "balanced": True, "precision": precision}
    assert np.isfinite(train_segmenter(seg_options(masks, tmp_path / "seg.h5", **settings))["loss"])
    options = predict_options(tmp_path / "seg.h5", tmp_path / "val", precision=precision, scales=(1, 0.5))
    assert predict_masks(options)["images"] == 4


def test_bfloat16_trains_and_predicts_a_plain_vit(masks, tmp_path):
    train_segmenter(seg_options(masks, tmp_path / "seg.h5", precision="bfloat16", epochs=1, holdout=0.3))
    assert predict_masks(predict_options(tmp_path / "seg.h5", tmp_path / "val", precision="bfloat16"))["images"] == 4


@pytest.mark.parametrize(
    ("given", "channels"),
    [({}, 1), ({"in_chans": 3}, 3), ({"in_chans": 1, "backbone": "test_resnet", "decoder": "fpn", "crop": 64}, 1)],
)
def test_grey_is_passed_on_from_the_network_behind_the_masks(masks, tmp_path, given, channels):
    grey, out = tmp_path / "grey.h5", tmp_path / "seg.h5"
    shutil.copy(masks, grey)
    with kinds.edited(grey) as file:
        file.attrs["network"] = json.dumps({**json.loads(attribute(file, "network")), "mean": [0.5], "std": [0.5]})
    train_segmenter(seg_options(grey, out, epochs=1, **given))
    network, header = load_network(out, "segmenter")
    first = next(weight for weight in timm_model(network).parameters() if weight.ndim == 4)
    assert (first.shape[1], len(header.network["mean"])) == (channels, channels)
    assert predict_masks(predict_options(out, tmp_path / "masks"))["images"] == 4


def test_a_segmenter_of_ones_own_backbone_needs_its_folder_for_weights_alone(masks, tmp_path):
    own, gone = tmp_path / "masks.h5", f"local-dir:{tmp_path / 'gone'}"
    settings = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "std": [0.5] * 3, "classifier": "head"}
    config = {"architecture": "test_vit", "model_args": {"img_size": 96}, "pretrained_cfg": settings}
    shutil.copy(masks, own)
    with kinds.edited(own) as file:
        about = {"backbone": gone, "backbone_config": config, "pretrained": True}
        file.attrs["network"] = json.dumps({**json.loads(attribute(file, "network")), **about})
    train_segmenter(seg_options(own, tmp_path / "seg.h5", epochs=1))
    network, header = load_network(tmp_path / "seg.h5", "segmenter")
    assert timm_model(network).pos_embed.shape[1] == 1 + 6 * 6
    assert header.network["mean"] == [0.1, 0.2, 0.3]
    with pytest.raises(InputError) as error:
        train_segmenter(seg_options(own, tmp_path / "more.h5", pretrained=True))
    assert str(error.value) == (
        f"--backbone {gone}: the folder has no model.safetensors or pytorch_model.bin; "
        "pass --weights or --no-pretrained"
    )
    train_segmenter(seg_options(own, tmp_path / "other.h5", epochs=1, backbone="test_resnet"))
    assert "backbone_config" not in read_header(tmp_path / "other.h5").network

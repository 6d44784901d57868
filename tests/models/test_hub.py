"""What is downloaded: from a hub on this machine, from the cache, and in one line where there is neither."""

import logging
import socket
import time

import pytest
import timm
import torch
from huggingface_hub import constants, file_download
from safetensors.torch import save_file
from timm.models import save_for_hf

from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.models.backbone import Backbone
from pseudolabel.models.hub import downloading, hub_file
from pseudolabel.models.segmenter import build_segmenter, timm_model
from pseudolabel.models.timm_models import describe_backbone, parse_name
from tests.helpers.hub import serving


@pytest.fixture
def no_proxy(monkeypatch, tmp_path):
    """No proxy in between, and nothing in the cache."""
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def at(monkeypatch, address):
    """What HF_ENDPOINT does when a process starts."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@pytest.fixture
def closed(monkeypatch, no_proxy):
    """A place for a hub where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    at(monkeypatch, address)
    return address


@pytest.fixture
def hub(monkeypatch, no_proxy, tmp_path):
    """A hub on this machine, with timm's own test_vit and a model of somebody's; and what it was asked."""
    torch.manual_seed(0)
    own = tmp_path / "hub" / "timm" / "test_vit.r160_in1k"
    own.mkdir(parents=True)
    save_file(timm.create_model("test_vit").state_dict(), own / "model.safetensors")
    theirs = timm.create_model("test_vit", img_size=96, num_classes=4)
    save_for_hf(theirs, str(tmp_path / "hub" / "somebody" / "net"), model_args={"img_size": 96})  # writes a .bin
    with serving(tmp_path / "hub") as (address, asked):
        at(monkeypatch, address)
        yield asked


def weights_at(path):
    return timm.models.load_state_dict(str(path), weights_only=True)


def test_timms_weights_are_downloaded_once(hub, tmp_path, monkeypatch):
    stored = weights_at(tmp_path / "hub/timm/test_vit.r160_in1k/model.safetensors")
    network = Backbone("test_vit", weights="pretrained")
    assert torch.equal(network.model.pos_embed, stored["pos_embed"])
    file = "/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
    assert [line for line in hub if file in line] == [f"HEAD {file}", f"HEAD {file}", f"GET {file}"]
    asked = len(hub)
    again = build_segmenter(
        {"backbone": "test_vit", "decoder": "dpt", "classes": 2, "output_stride": None}, weights="pretrained"
    )
    assert torch.equal(timm_model(again).pos_embed, stored["pos_embed"])
    assert len(hub) == asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    Backbone("test_vit", weights="pretrained")


def test_a_model_of_the_hub(hub, tmp_path):
    described = describe_backbone("hf-hub:somebody/net")
    assert described["backbone_config"]["architecture"] == "test_vit"
    network = Backbone(described, weights="pretrained")
    stored = weights_at(tmp_path / "hub/somebody/net/pytorch_model.bin")
    assert torch.equal(network.model.pos_embed, stored["pos_embed"])
    assert network.model.pos_embed.shape == (1, 1 + 6 * 6, 64)
    assert "HEAD /somebody/net/resolve/main/model.safetensors" in hub  # is preferred, and not there


def test_a_repository_without_weights_and_one_that_is_not_there(hub):
    with pytest.raises(FileNotFoundError, match=r"^somebody/net has no a\.bin or b\.bin$"):
        hub_file("somebody/net", ("a.bin", "b.bin"))
    with pytest.raises(PseudolabelError) as error:
        describe_backbone("hf-hub:nobody/net")
    assert str(error.value).startswith("timm could not load the configuration of hf-hub:nobody/net (")
    assert str(error.value).endswith("); pass local-dir:FOLDER, or the name of a timm model")
    assert "\n" not in str(error.value)


def test_a_failed_download_is_one_line_and_its_attempts_are_not_logged():
    logger = logging.getLogger("huggingface_hub.utils")
    with downloading("its weights", "pass others"):
        assert not logger.isEnabledFor(logging.WARNING)
    with pytest.raises(PseudolabelError) as error, downloading("its weights", "pass others"):
        raise OSError("no space\nat all")
    assert str(error.value) == "timm could not load its weights (no space); pass others"
    assert logger.isEnabledFor(logging.WARNING)


def test_without_a_network_nothing_is_tried_again_and_again(closed):
    begin = time.monotonic()
    with pytest.raises(PseudolabelError) as error:
        Backbone("test_resnet", weights="pretrained")
    assert str(error.value) == (
        f"timm could not load its weights for test_resnet (no connection to {closed}, and it is not cached); "
        "pass --weights FILE.safetensors or --no-pretrained"
    )
    with pytest.raises(PseudolabelError) as error:
        Backbone("hf-hub:somebody/net@v2")
    assert str(error.value) == (
        f"timm could not load the configuration of hf-hub:somebody/net@v2 (no connection to {closed}, and it is not "
        "cached); pass local-dir:FOLDER, or the name of a timm model"
    )
    assert time.monotonic() - begin < 5  # the downloader by itself tries for 24 seconds


def test_in_offline_mode_the_hub_is_not_asked(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PseudolabelError, match=r"^timm could not load its weights for test_vit \(.*offline mode"):
        Backbone("test_vit", weights="pretrained")
    assert hub == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("test_vit.r160_in1k", (None, "test_vit.r160_in1k")),
        ("hf-hub:timm/vit_small_patch16_dinov3.lvd1689m", ("hf-hub", "timm/vit_small_patch16_dinov3.lvd1689m")),
        ("hf-hub:org/model@main", ("hf-hub", "org/model@main")),
        ("local-dir:/some/folder", ("local-dir", "/some/folder")),
        ("local-dir:some/folder", ("local-dir", "some/folder")),
    ],
)
def test_names_are_parsed_as_timm_parses_them(name, found):
    assert parse_name(name) == found


@pytest.mark.parametrize("name", ["org/model", "hf-hub:", "https://org/model", "/some/test_vit"])
def test_other_names_are_refused(name):
    with pytest.raises(InputError) as error:
        Backbone(name)
    assert str(error.value) == f"--backbone {name!r} is neither a timm model nor hf-hub:ORG/MODEL nor local-dir:FOLDER"


def test_a_model_whose_weights_were_never_published(closed):
    with pytest.raises(PseudolabelError) as error:
        Backbone("nf_resnet26", weights="pretrained")
    assert str(error.value) == (
        "timm could not load its weights for nf_resnet26 (No pretrained weights exist for nf_resnet26. Use "
        "`pretrained=False` for random init.); pass --weights FILE.safetensors or --no-pretrained"
    )


def test_a_tag_that_timm_does_not_know():
    with pytest.raises(InputError) as error:
        Backbone("test_vit.in22k")
    assert str(error.value) == "timm has no weights 'test_vit.in22k'; of test_vit it has test_vit.r160_in1k"

"""Networks as ONNX files: what onnxruntime makes of them is what torch does, at every size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pseudolabel.errors import InputError
from pseudolabel.export import onnx_model
from pseudolabel.export.onnx_model import PhotographNetwork, export_model
from pseudolabel.models.checkpoint import load_network
from pseudolabel.options import ExportModelOptions
from tests.helpers.segmenters import CLASSES, RESNET_FPN, write_segmenter


def options(folder: Path, **values: object) -> ExportModelOptions:
    return ExportModelOptions.model_validate(
        {"checkpoint": folder / "seg.h5", "out": folder / "deep" / "seg.onnx"} | values
    )


@pytest.mark.parametrize("network", [{}, RESNET_FPN], ids=["largefov on a ViT", "fpn on a CNN"])
def test_onnxruntime_computes_what_torch_does(tmp_path: Path, network: dict[str, str]) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnxscript", reason="needs the extra onnx")
    write_segmenter(tmp_path / "seg.h5", **network)
    result = export_model(options(tmp_path))
    multiple = 32 if network else 16
    file = tmp_path / "deep" / "seg.onnx"
    assert result == {
        "out": str(file),
        "format": "onnx",
        "classes": list(CLASSES),
        "multiple": multiple,
        "size": 64,
        "bytes": file.stat().st_size,
    }
    assert [path.name for path in file.parent.iterdir()] == ["seg.onnx"]
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    about = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert (about["classes"], about["multiple"], about["size"]) == (list(CLASSES), multiple, 64)
    built, _ = load_network(tmp_path / "seg.h5", "segmenter")
    whole = PhotographNetwork(built.eval())
    for height, width in ((64, 64), (96, 160), (192, 32)):
        pixels = np.random.default_rng(height).integers(0, 255, (1, height, width, 3), dtype=np.uint8)
        with torch.inference_mode():
            wanted = whole(torch.from_numpy(pixels)).numpy()
        (found,) = session.run(["probabilities"], {"pixels": pixels})
        assert (found.dtype, found.shape) == (np.float32, (1, 4, height, width))
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    with pytest.raises(InputError) as error:
        export_model(options(tmp_path))
    assert str(error.value) == f"{file} exists already; pass --overwrite to replace it, or another --out"


def test_packages_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "_NEEDED", ("json", "onnx_that_is_not_there"))
    with pytest.raises(InputError) as error:
        export_model(options(tmp_path))
    assert str(error.value) == (
        "export-model needs the package onnx_that_is_not_there; run pip install 'pseudolabel[onnx]'"
    )

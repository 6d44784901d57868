"""A segmenter as an ONNX file: photographs of any size in, class probabilities out, and what one must know."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudolabel.artefacts import Header
from pseudolabel.artefacts.atomic import require_replaceable, unfinished_path, writing
from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.pair import AnyPredictor
from pseudolabel.options import ExportModelOptions
from pseudolabel.runtime.devices import normalise
from pseudolabel.runtime.progress import Progress

_NEEDED = ("onnx", "onnxscript")


class PhotographNetwork(nn.Module):
    """A segmenter with what comes before and after it.

    Args:
        network: The segmenter.
    """

    def __init__(self, network: AnyPredictor) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities float32 (1, K, H, W) of a photograph uint8 (1, H, W, 3), RGB."""
        images = normalise(pixels, self.network.mean, self.network.std, channels_last=False)
        found = self.network(images).float().softmax(dim=1)
        return F.interpolate(found, pixels.shape[1:3], mode="bilinear")


def export_model(options: ExportModelOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Write the network of a checkpoint as an ONNX file.

    Args:
        options: Checkpoint, file, which network.
        progress: Where to report.

    Returns:
        ``out``, ``format``, ``classes`` (names, background first), ``multiple``, ``size`` and ``bytes``.

    Raises:
        InputError: The packages that write ONNX are missing, the file exists, or the network cannot be exported.
        ArtefactError: The checkpoint holds no segmenter.
        PseudolabelError: The file cannot be written.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"export-model needs the package {' and '.join(missing)}; run pip install 'pseudolabel[onnx]'")
    require_replaceable(options.out)
    if options.out.exists() and not options.overwrite:
        raise InputError(f"{options.out} exists already; pass --overwrite to replace it, or another --out")
    network, header = load_network(options.checkpoint, "segmenter", options.network)
    assert isinstance(network, AnyPredictor)  # load_network checked the architecture's type
    progress.log(f"exporting {options.checkpoint}, which takes a minute")
    about = describe(network, header)
    program = traced(network.eval(), options.checkpoint)
    program.model.metadata_props.update({name: json.dumps(value) for name, value in about.items()})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_path(options.out)
    try:
        with writing(options.out):
            program.save(unfinished)
            unfinished.replace(options.out)
    finally:
        unfinished.unlink(missing_ok=True)
    return {
        "out": str(options.out),
        "format": options.format,
        **{name: about[name] for name in ("classes", "multiple", "size")},
        "bytes": options.out.stat().st_size,
    }


def describe(network: AnyPredictor, header: Header) -> dict[str, Any]:
    """What the file says of itself, as JSON data: classes, input and output, and what made it."""
    return {
        "classes": list(header.classes),
        "input": "uint8 (1, H, W, 3), RGB; H and W multiples of 'multiple', the longer one about 'size'",
        "output": "float32 (1, K, H, W), class probabilities",
        "multiple": network.multiple,
        "size": 2 * int(header.network["crop"]),
        "made_by": f"pseudolabel {header.version}, {header.stage}",
        "digest": header.digest,
        "oracle": list(header.oracle),
    }


def traced(network: AnyPredictor, checkpoint: Path) -> Any:
    """The network as an ``ONNXProgram``, for photographs of every size.

    Raises:
        InputError: torch cannot export it.
    """
    example = torch.zeros(1, 4 * network.multiple, 6 * network.multiple, 3, dtype=torch.uint8)
    sides = {1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    with _quiet():
        try:
            return torch.onnx.export(
                PhotographNetwork(network).eval(),
                (example,),
                dynamo=True,
                dynamic_shapes={"pixels": sides},
                input_names=["pixels"],
                output_names=["probabilities"],
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause: BaseException = error.__cause__ or error
            line = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
            raise PseudolabelError(
                f"torch {torch.__version__} cannot export the network of {checkpoint} for images of every size "
                f"({line[:160]}); use Predictor, or train one on another --backbone"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporter says of its own working."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

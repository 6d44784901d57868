"""Initial weights of timm models: from a file in any layout that timm knows, or from a checkpoint of this package."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from pseudolabel.artefacts import Input, open_artefact, read_header, require_unaltered
from pseudolabel.errors import ArtefactError, InputError
from pseudolabel.models.timm_models import loading, parse_name, pretrained_file
from pseudolabel.runtime.files import open_regular, what_stands

TIMM_PREFIXES = ("backbone.model.", "network.encoder.model.")
"""Where the networks of this package keep their timm model among their weights."""

AS_TRAINED = ("normalisation", "position_embedding")
"""What an ``architecture`` says of how weights were trained to be used, where that is not how timm uses them."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
"""Of weights files that are no checkpoints of this package; all but the first are pickled."""

Weights = Path | Literal["pretrained"] | None
"""Initial weights: a file's; ``pretrained``: the model's own, downloaded if need be; None: random."""

Network = TypeVar("Network", bound=nn.Module)

_UNFIT = (RuntimeError, KeyError, ValueError, TypeError, AttributeError, AssertionError, IndexError)
"""What timm raises where a file is of another model."""


def choose_weights(file: Path | None, *, pretrained: bool) -> Weights:
    """What ``--weights`` and ``--pretrained`` ask for."""
    return file or ("pretrained" if pretrained else None)


def create(make: Callable[..., Network], inner: Callable[[Network], nn.Module], name: str, weights: Weights) -> Network:
    """Build a network around a timm model, with initial weights.

    Files are read by this package, and given to timm as tensors: its older versions run what a pickle asks for. timm
    renames native layouts (DINOv2, DINOv3, CLIP, MAE ...), resizes position embeddings, and converts the first
    convolution to other numbers of channels. What it only logs, that weights are missing, is an error here.

    Args:
        make: Builds the network. It hands ``pretrained`` and all else that it is given on to ``timm.create_model``.
        inner: The timm model in a network.
        name: As of ``--backbone``.
        weights: Where the weights are.

    Returns:
        The network.

    Raises:
        InputError: There is no such file, or it cannot be read without running its code.
        ArtefactError: The file lacks weights of this model or has them in other shapes.
        PseudolabelError: The weights could not be downloaded.
    """
    path = pretrained_file(name) if weights == "pretrained" else weights
    if path is None:
        if not weights:
            return make(pretrained=False)
        with loading(name):
            return make(pretrained=True)
    require_file(path)
    if path.suffix == ".h5":
        network = make(pretrained=False)
        load_checkpoint(inner(network), path)
        return network
    stored = read_weights_file(path)
    try:
        with _quiet(), _complete(path):
            network = make(pretrained=True, pretrained_cfg_overlay=_given(stored))
    except _UNFIT as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = lines[min(1, len(lines) - 1)] if lines else repr(error)  # torch's first line names the class alone
        raise ArtefactError(f"{path} does not fit {name} ({cause[:240]}); {_ADVICE}") from error
    for module in network.modules():
        if isinstance(settings := getattr(module, "pretrained_cfg", None), dict):
            settings.pop("state_dict", None)
    return network


def load_checkpoint(model: nn.Module, path: Path) -> None:
    """Fill a timm model from a checkpoint artefact, whose names are those of a model built in the same way.

    Raises:
        ArtefactError: The file lacks parameters of this model or has them in other shapes.
    """
    with open_artefact(path, "checkpoint") as artefact:
        require_unaltered(artefact)
        group = artefact.file["weights"]
        found = [(name, prefix) for name in group for prefix in TIMM_PREFIXES if name.startswith(prefix)]
        stored = {name.removeprefix(prefix): torch.from_numpy(np.asarray(group[name][()])) for name, prefix in found}
    wanted = _without_classifier(model)
    source = {name: _stored_name(name, stored) for name in wanted}
    _require_all([name for name in wanted if source[name] not in stored], wanted, path)
    for name, tensor in wanted.items():
        shape = tuple(stored[source[name]].shape)
        if shape != tuple(tensor.shape):
            raise ArtefactError(
                f"{path}: {name} has shape {shape}, the backbone wants {tuple(tensor.shape)}; {_ADVICE}"
            )
    model.load_state_dict({name: stored[source[name]] for name in wanted}, strict=False)  # all but the classifier


def _stored_name(name: str, stored: Collection[str]) -> str:
    """A parameter's name in a whole model, whose feature extractors may have other names.

    timm wraps some in a module called ``model``, and takes others apart, so that ``layers.0`` is called ``layers_0``.
    """
    names = (name, name.removeprefix("model."), re.sub(r"^([a-z]\w*?)_(\d+)\.", r"\1.\2.", name))
    return next((found for found in names if found in stored), name)


def read_weights_file(path: Path) -> Mapping[str, Any]:
    """The state dictionary in a file of safetensors or of PyTorch; nothing but tensors and plain data is unpickled.

    Raises:
        InputError: It is no such file, or needs code that a pickle brings along.
        ArtefactError: It is damaged.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"weights file {path} is none of {', '.join(SUFFIXES)} and no checkpoint .h5; convert it")
    try:
        stored: Mapping[str, Any] = timm.models.load_state_dict(str(path), weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, OSError, EOFError, *_UNFIT) as error:
        if needed := _code_in(path):
            raise InputError(
                f"weights file {path} holds more than tensors ({', '.join(needed)}), and code of files is not run; "
                "save its state dictionary alone, best as .safetensors"
            ) from error
        cause = str(error).strip().split("\n", 1)[0][:160] or type(error).__name__
        raise ArtefactError(f"{path} is not a readable {path.suffix} file: {cause}") from error
    if not any(isinstance(value, Tensor) for value in stored.values()):
        raise ArtefactError(
            f"{path} holds no weights where timm looks for them: tensors by name, or a dictionary of them called "
            "state_dict or model; save them so"
        )
    return stored


def require_file(path: Path) -> None:
    """Refuse a weights file that is not there.

    Raises:
        InputError: It does not exist.
    """
    if not path.is_file():
        raise InputError(
            f"weights file {path} {what_stands(path)}; pass --weights FILE.safetensors or a checkpoint .h5"
        )


def weights_inputs(name: str, weights: Weights) -> tuple[Input, ...]:
    """The file that a network begins with as inputs of an artefact: one or, of what timm downloads, none.

    Args:
        name: As of ``--backbone``.
        weights: As for ``create``.

    Raises:
        InputError: There is no such file.
    """
    if weights == "pretrained":
        weights = pretrained_file(name) if parse_name(name)[0] == "local-dir" else None
    if weights is None:
        return ()
    require_file(weights)
    if weights.suffix == ".h5":
        return (Input("checkpoint", weights.resolve().as_posix(), read_header(weights, "checkpoint").digest),)
    with open_regular(weights) as handle:
        return (Input("weights", weights.resolve().as_posix(), hashlib.file_digest(handle, "sha256").hexdigest()),)


def trained_for(weights: Weights) -> dict[str, Any]:
    """What an ``architecture`` has to say for the weights of a checkpoint artefact to be used as they were trained.

    Returns:
        Those of ``AS_TRAINED`` that differ from timm's; of other files and of none, nothing.

    Raises:
        ArtefactError: It is no checkpoint.
    """
    if not isinstance(weights, Path) or weights.suffix != ".h5":
        return {}
    require_file(weights)
    architecture = read_header(weights, "checkpoint").facts["architecture"]
    return {name: architecture[name] for name in AS_TRAINED if name in architecture}


def network_facts(
    architecture: Mapping[str, Any],
    weights: Weights,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    crop: int,
) -> dict[str, Any]:
    """The ``network`` of a header, from which a later training starts: what was built, and from which weights.

    Args:
        architecture: The model's.
        weights: That it began with.
        statistics: Mean and standard deviation of its input.
        crop: Side of a training crop, in pixels.
    """
    return {
        **{name: architecture[name] for name in ("backbone", "backbone_config") if name in architecture},
        "output_stride": architecture["output_stride"],
        "weights": str(weights.resolve()) if isinstance(weights, Path) else None,
        "pretrained": weights == "pretrained",
        "mean": statistics[0],
        "std": statistics[1],
        "crop": crop,
    }


def weights_oracle(path: Path | None) -> tuple[str, ...]:
    """Why what starts from a weights file is no weakly supervised result either; of a checkpoint artefact alone."""
    return read_header(path, "checkpoint").oracle if path is not None and path.suffix == ".h5" else ()


_ADVICE = "is it for another --backbone or --in-chans?"


def _given(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with which timm takes weights as they are given; those of a classifier it leaves out."""
    return {"state_dict": dict(stored), "source": None, "custom_load": False, "num_classes": -1}


def _require_all(missing: list[str], wanted: Mapping[str, Tensor], path: Path) -> None:
    lacking = [name for name in missing if name in wanted]
    if lacking:
        raise ArtefactError(
            f"{path} lacks {len(lacking)} of the backbone's {len(wanted)} weights (first: {lacking[0]}); "
            "is it for another --backbone?"
        )


def _without_classifier(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a timm model but for its classifier, which some decoders leave in and nobody uses."""
    settings: Any = getattr(model, "pretrained_cfg", None) or {}
    heads = settings.get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(prefixes)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what timm prints on the way, beside results, and what it logs of weights that nobody wants."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _complete(path: Path) -> Iterator[None]:
    """Refuse weights, loaded while it lasts, that lack some of a model's: PyTorch reports them to its hooks.

    The model is timm's own, also where the network then keeps parts of it under other names.
    """
    reported: list[tuple[nn.Module, list[str]]] = []
    handles: dict[nn.Module, Any] = {}

    def report(module: nn.Module, keys: Any) -> None:
        reported[:] = [(module, keys.missing_keys)]  # of all so far: the last report is of the whole model

    def listen(module: nn.Module, _: str, __: nn.Module | None) -> None:
        if module not in handles:
            handles[module] = module.register_load_state_dict_post_hook(report)

    registration = register_module_module_registration_hook(listen)
    try:
        yield
    finally:
        registration.remove()
        for handle in handles.values():
            handle.remove()
    for model, missing in reported:
        _require_all(missing, _without_classifier(model), path)


def _code_in(path: Path) -> list[str]:
    """The names of the functions and classes that a pickled file needs beside those of tensors."""
    if path.suffix == ".safetensors":
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError, OSError, EOFError, pickle.UnpicklingError):
        return []

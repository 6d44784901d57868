"""A segmenter as an object: photographs in, masks out, without files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, overload

import numpy as np
import torch
from PIL import Image

from pseudolabel.artefacts.maps import at_size
from pseudolabel.data import read_image
from pseudolabel.data.augmentation import network_size, resized
from pseudolabel.data.decoding import Decoding
from pseudolabel.errors import InputError
from pseudolabel.labels.assignment import label_map
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.pair import AnyPredictor
from pseudolabel.models.prediction import Inference, long_side, stored
from pseudolabel.options import PredictorOptions
from pseudolabel.options.fields import validated
from pseudolabel.runtime.devices import pick_device

Photograph: TypeAlias = str | Path | np.ndarray | Image.Image
"""A file; or uint8 (H, W, 3), RGB; or uint8 (H, W), grey; or a picture of Pillow, as it is: not turned upright."""

Photographs: TypeAlias = list[Photograph] | tuple[Photograph, ...]
Found = TypeVar("Found")


class Predictor:
    """A trained segmenter that gives the masks of photographs, with the numbers of ``predict-masks``::

        predictor = Predictor("work/seg.h5")
        mask = predictor("photograph.jpg")  # uint8 (H, W), indices into predictor.classes
        masks = predictor(["a.jpg", "b.jpg"])

    Args:
        checkpoint: Artefact of train-segmenter, train-scribble or train-cosa.
        device: As ``--device``.
        network: Which of the two networks of train-cosa; None: the teacher.
        size: Longer side of an image at scale 1; None: twice the training crop, or with ``tile`` the image's own.
        tile: Longest side of what the network sees at once, pixels; None: whole images.
        scales: Over which probabilities are averaged.
        flip: Average with the mirrored image.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        batch_size: Most images of a list that an accelerator computes at the same time.

    Attributes:
        classes: Names by class index, background first.

    Raises:
        InputError: A setting is wrong, or there is no such device or network.
        ArtefactError: The file is no checkpoint, or holds no network that gives masks.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: str = "auto",
        network: Literal["teacher", "student"] | None = None,
        size: int | None = None,
        tile: int | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = True,
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
        batch_size: int = 16,
    ) -> None:
        given: dict[str, Any] = {
            "device": device,
            "network": network,
            "size": size,
            "tile": tile,
            "scales": tuple(scales),
            "flip": flip,
            "precision": precision,
            "batch_size": batch_size,
        }
        options = validated(PredictorOptions, given, where="Predictor")
        model, header = load_network(Path(checkpoint), "segmenter", options.network)
        assert isinstance(model, AnyPredictor)  # load_network checked the architecture's type
        self.classes = header.classes
        self._inference = Inference.of(model, options, pick_device(options.device))
        self._long_side = long_side(options, int(header.network["crop"]))
        self._decoding = Decoding.of(header.dataset)
        self._most = 1 if self._inference.device.type == "cpu" or tile is not None else options.batch_size

    @overload
    def __call__(self, image: Photograph) -> np.ndarray: ...

    @overload
    def __call__(self, image: Photographs) -> list[np.ndarray]: ...

    def __call__(self, image: Photograph | Photographs) -> np.ndarray | list[np.ndarray]:
        """The mask of a photograph, uint8 (H, W), at its size; of several, a list of masks in their order.

        Raises:
            InputError: It is no photograph.
            DatasetError: A file cannot be read.
        """
        return self._each(image, label_map)

    @overload
    def probabilities(self, image: Photograph) -> np.ndarray: ...

    @overload
    def probabilities(self, image: Photographs) -> list[np.ndarray]: ...

    def probabilities(self, image: Photograph | Photographs) -> np.ndarray | list[np.ndarray]:
        """Class probabilities of a photograph, float32 (K, H, W), at its size; of several, a list of them.

        As in ``soft.h5``, a class that is nowhere more probable than 0.0001 is 0 everywhere.

        Raises:
            InputError: It is no photograph.
            DatasetError: A file cannot be read.
        """
        return self._each(image, self._all_classes)

    def _all_classes(self, maps: dict[int, np.ndarray], size: tuple[int, int]) -> np.ndarray:
        labels, shares = at_size(maps, size)
        found = np.zeros((len(self.classes), *size), dtype=np.float32)
        found[labels] = shares
        return found

    def _each(
        self,
        image: Photograph | Photographs,
        finish: Callable[[dict[int, np.ndarray], tuple[int, int]], Found],
    ) -> Found | list[Found]:
        """What becomes of the maps of one photograph, or of each of several."""
        if isinstance(image, str | Path | np.ndarray | Image.Image):
            return next(self._found([image], finish))
        return list(self._found(image, finish))

    def _found(
        self,
        images: Sequence[Photograph],
        finish: Callable[[dict[int, np.ndarray], tuple[int, int]], Found],
    ) -> Iterator[Found]:
        """As ``_each``; photographs that follow one another and have one size are computed at the same time."""
        sizes: list[tuple[int, int]] = []
        batch: list[np.ndarray] = []
        for image in images:
            pixels = as_pixels(image, self._decoding)
            height, width = pixels.shape[:2]
            side = self._long_side or max(height, width)
            view = resized(pixels, network_size(height, width, side, self._inference.network.multiple))
            if batch and (view.shape != batch[0].shape or len(batch) == self._most):
                yield from map(finish, self._maps(batch), sizes)
                sizes, batch = [], []
            sizes.append((height, width))
            batch.append(view)
        if batch:
            yield from map(finish, self._maps(batch), sizes)

    def _maps(self, views: Sequence[np.ndarray]) -> list[dict[int, np.ndarray]]:
        pixels = torch.from_numpy(np.stack(views))
        return [stored(found) for found in self._inference.probabilities(pixels)]


def as_pixels(image: Photograph, decoding: Decoding) -> np.ndarray:
    """A photograph as uint8 (H, W, 3), RGB.

    Args:
        image: The photograph.
        decoding: Of files.

    Raises:
        InputError: It is something else.
        DatasetError: It is a file that cannot be read.
    """
    if isinstance(image, str | Path):
        if Path(image).is_dir():
            raise InputError(f"{image} is a folder; pass its files, or run 'pseudolabel predict-masks --images'")
        return read_image(Path(image), decoding)
    if isinstance(image, Image.Image):
        return np.array(image.convert("RGB"))
    found = np.asarray(image)
    if found.dtype == np.uint8 and found.ndim == 2:
        found = np.repeat(found[..., None], 3, axis=2)
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3 or not found.size:
        raise InputError(
            f"Predictor: found an array of {found.dtype} and shape {found.shape}; wanted a photograph as uint8 "
            "(H, W, 3) in RGB or (H, W) in grey, a picture of Pillow, a path, or a list of these"
        )
    return found

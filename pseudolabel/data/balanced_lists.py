"""``data split``: which images of a split to draw masks of, when there is time for a few."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from pseudolabel.artefacts.atomic import replacing, writing
from pseudolabel.data.opening import load_dataset
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import DataSplitOptions
from pseudolabel.runtime.progress import Progress


def draw_list(options: DataSplitOptions, progress: Progress = Progress()) -> dict[str, Any]:  # noqa: B008 - has no state
    """Draw a list of images for ``--mask-list``, in which every class occurs alike often as far as it can.

    Args:
        options: The data set, how many images, and where the list goes.
        progress: Where to warn of classes that no image of the split has.

    Returns:
        ``out``, ``images``, ``rest`` (how many images of the split are not in the list), ``counts`` (images in the list
        by class), ``seed``, ``oracle``.

    Raises:
        DatasetError: The split has no more images than are wanted, or one has no tags.
        InputError: ``out`` is no regular file.
    """
    dataset = load_dataset(options.model_dump())
    records = dataset.records
    if options.masks >= len(records):
        raise DatasetError(
            f"split {dataset.split} of {dataset.root} has {len(records)} images, and --masks {options.masks} would "
            "leave none without a mask; pass a smaller number"
        )
    dataset.require_tags(
        "a list is balanced by image tags: put them into a tags.csv there, give --tags-file, or --tag-source masks, "
        "which is marked oracle"
    )
    for reason in dataset.oracle:
        progress.warn(f"oracle: {reason}")
    tags = [record.tags or () for record in records]
    absent = [name for label, name in enumerate(dataset.classes) if label and not any(label in own for own in tags)]
    if absent:
        progress.warn(f"no image of split {dataset.split} is tagged {', '.join(absent)}")
    drawn = draw_balanced(tags, options.masks, options.seed)
    with writing(options.out):
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(options.out) as file:
            file.write("".join(f"{records[index].id}\n" for index in drawn).encode())
    counts = {name: sum(label in tags[index] for index in drawn) for label, name in enumerate(dataset.classes) if label}
    return {
        "out": str(options.out),
        "images": len(drawn),
        "rest": len(records) - len(drawn),
        "counts": counts,
        "seed": options.seed,
        "oracle": list(dataset.oracle),
    }


def draw_balanced(tags: Sequence[Sequence[int]], count: int, seed: int) -> list[int]:
    """Draw images one by one: each time one of the class that the fewest of those drawn have. [ours]

    Of classes that are alike rare among those drawn, the one with the fewest images left is served, so that none runs
    out; of its images, one at random. Images without a tag come last.

    Args:
        tags: Class indices of every image.
        count: How many to draw, at most as many as there are images.
        seed: Of the random numbers. With the same seed a shorter list is the beginning of a longer one.

    Returns:
        Their numbers, in the order in which they were drawn.

    Raises:
        InputError: More are wanted than there are.
    """
    if count > len(tags):
        raise InputError(f"{count} images cannot be drawn from {len(tags)}")
    order = np.random.default_rng((seed, 4)).permutation(len(tags)).tolist()
    waiting: dict[int, deque[int]] = {label: deque() for own in tags for label in own}
    for index in order:
        for label in tags[index]:
            waiting[label].append(index)
    left = {label: len(images) for label, images in waiting.items()}
    had = dict.fromkeys(waiting, 0)
    found: dict[int, None] = {}
    untagged = deque(index for index in order if not tags[index])
    while len(found) < count:
        wanted = [label for label, images in left.items() if images]
        rarest = min(wanted, key=lambda label: (had[label], left[label], label), default=None)
        images = untagged if rarest is None else waiting[rarest]
        while images[0] in found:
            images.popleft()
        chosen = images.popleft()
        found[chosen] = None
        for label in set(tags[chosen]):
            had[label] += 1
            left[label] -= 1
    return list(found)

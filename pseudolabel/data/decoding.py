"""How the photographs of a data set become 8-bit RGB, as options state it, and what was noticed in one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pseudolabel.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the photographs of a data set become 8-bit RGB.

    Attributes:
        alpha: ``composite`` on white, or ``drop``.
        largest: The value of 16-bit samples that becomes 255; None keeps their high byte.
    """

    alpha: str = "composite"
    largest: int | None = None

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Decoding:
        """As options or a stored data set say it.

        Raises:
            DatasetError: They say something else.
        """
        alpha, largest = spec.get("alpha", "composite"), spec.get("photo_range")
        if alpha not in ("composite", "drop"):
            raise DatasetError(f"alpha is {alpha!r:.40}; wanted composite or drop")
        if largest is not None and (type(largest) is not int or not 1 <= largest <= 65535):
            raise DatasetError(f"photo_range is {largest!r:.40}; wanted a whole number from 1 to 65535")
        return cls(alpha, largest)

    def spec(self) -> dict[str, Any]:
        """What ``of`` reads again: only what is not as usual, as JSON data."""
        alpha = {"alpha": self.alpha} if self.alpha != "composite" else {}
        return alpha | ({"photo_range": self.largest} if self.largest is not None else {})


AS_USUAL = Decoding()


class Look(NamedTuple):
    """What was noticed as a photograph was read.

    Attributes:
        alpha: Whether compositing changed it: ``none``, ``some`` of it, or ``all``, which left it white.
        largest: Largest 16-bit sample of its colours; None where they have 8 bits.
        remarks: What the decoders warned of.
    """

    alpha: str = "none"
    largest: int | None = None
    remarks: tuple[str, ...] = ()

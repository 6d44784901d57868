"""XML annotations, of VOC's kind: read without expanding entities, with clear words for every file that is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from pseudolabel.errors import DatasetError
from pseudolabel.runtime.files import open_regular


def read_annotation(path: Path) -> Any:
    """The root element ``<annotation>`` of an XML file; None where there is no such file.

    Raises:
        DatasetError: The file is no annotation, or declares XML entities, which can expand without end.
    """
    try:
        with open_regular(path) as file:
            tree = ElementTree.parse(file)
    except FileNotFoundError:
        return None
    except DefusedXmlException as error:
        raise DatasetError(f"{path} declares XML entities, which are refused as unsafe; remove its DOCTYPE") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: an unknown encoding
        raise DatasetError(f"{path} is not XML ({error}); replace or remove it") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    annotation = tree.getroot()
    if annotation.tag != "annotation":
        raise DatasetError(f"{path} is no VOC annotation: its root is <{annotation.tag}>, wanted <annotation>")
    return annotation


def number_in(element: Any, name: str, where: str) -> float:
    """The number in a child element.

    Raises:
        DatasetError: There is none; the line begins with ``where``.
    """
    text = (element.findtext(name) or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError(f"{where}: <{name}> is {text!r}; wanted a number")
    return value

"""Artefacts: one HDF5 file each, stamped, versioned, written whole or not at all, as ``docs/format.md`` specifies.

Nothing here imports torch.
"""

from pseudolabel.artefacts.atomic import partial_path
from pseudolabel.artefacts.header import Header, Input, child_header
from pseudolabel.artefacts.image_writer import StalePartialError
from pseudolabel.artefacts.maps import Images, MapsReader
from pseudolabel.artefacts.regions import RegionsReader, RegionsWriter
from pseudolabel.artefacts.store import (
    Artefact,
    check_output,
    data_digest,
    open_artefact,
    read_header,
    read_input,
    require_unaltered,
    write_artefact,
)
from pseudolabel.artefacts.writer import MapsWriter

__all__ = [
    "Artefact",
    "Header",
    "Images",
    "Input",
    "MapsReader",
    "MapsWriter",
    "RegionsReader",
    "RegionsWriter",
    "StalePartialError",
    "check_output",
    "child_header",
    "data_digest",
    "open_artefact",
    "partial_path",
    "read_header",
    "read_input",
    "require_unaltered",
    "write_artefact",
]

"""Artefacts that are not what they should be: every one refused in one line."""

from __future__ import annotations

import os
import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from pseudolabel.artefacts import (
    Images,
    MapsReader,
    MapsWriter,
    open_artefact,
    partial_path,
)
from pseudolabel.artefacts.checks import MAKERS, REQUIRED
from pseudolabel.errors import ArtefactError
from pseudolabel.options import STAGES
from tests.helpers import kinds as kinds


def complaint(path: Path, *wanted: str) -> str:
    """What opening a file says, without its folder."""
    with pytest.raises(ArtefactError) as caught, open_artefact(path, *wanted):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.fixture
def cams(tmp_path: Path) -> Path:
    return kinds.make("cams", tmp_path / "cams.h5")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert (
        complaint(tmp_path / "no.h5", "cams")
        == "no.h5 does not exist; wanted cams artefact (made by make-cams, import-cams or refine-affinity)"
    )
    (tmp_path / "folder").mkdir()
    assert complaint(tmp_path / "folder") == "folder is a folder, not an artefact; wanted a pseudolabel artefact"


@pytest.mark.parametrize("content", [b"", b"just text\n", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_a_file_of_another_format(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    stages = "make-cams, import-cams, refine-affinity, export-masks, predict-masks or import-masks"
    assert (
        complaint(path, "cams", "masks")
        == f"x.h5 is not an HDF5 file; wanted cams or masks artefact (made by {stages})"
    )


def test_an_hdf5_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["data"] = [1, 2]
    wanted = "x.h5 is an HDF5 file of another program (no encoding-type); wanted a pseudolabel artefact"
    assert complaint(path) == wanted
    with h5py.File(path, "r+") as file:
        file.attrs["encoding-type"] = "anndata"
    assert complaint(path) == wanted


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_truncated_file(share: float, cams: Path) -> None:
    os.truncate(cams, int(cams.stat().st_size * share))
    assert complaint(cams) == "cams.h5 is truncated (make it again); wanted a pseudolabel artefact"


def edit(path: Path, attribute: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = value


def test_a_newer_and_an_older_version(cams: Path) -> None:
    edit(cams, "encoding-version", 3)
    newer = "cams.h5 has format version 3, newer than this pseudolabel reads: upgrade it (supported: 1, 2)"
    assert complaint(cams) == newer
    edit(cams, "encoding-version", 0)
    assert complaint(cams) == "cams.h5 has format version 0, not supported (supported: 1, 2)"


def test_another_kind(cams: Path) -> None:
    wanted = "wanted masks artefact (made by export-masks, predict-masks or import-masks)"
    assert complaint(cams, "masks") == f"cams.h5 holds cams (made by make-cams); {wanted}"
    edit(cams, "encoding-type", "pseudolabel/scribbles")
    assert complaint(cams).startswith("cams.h5 holds 'scribbles', which is no known kind; known: cams, soft-labels, ")


def test_every_kind_that_is_asked_for_names_the_stages_that_make_it() -> None:
    assert REQUIRED.keys() - MAKERS.keys() == {"training-state"}  # which only the training itself reads
    assert {stage for stages in MAKERS.values() for stage in stages} <= STAGES.keys()
    assert all(kinds.STAGES[kind] in stages for kind, stages in MAKERS.items())


def test_a_file_without_a_digest_was_never_finished(cams: Path) -> None:
    with h5py.File(cams, "r+") as file:
        del file.attrs["digest"]
    assert complaint(cams) == "cams.h5 was never finished (it has no digest); run 'make-cams' again"


def test_a_half_finished_file_says_so(tmp_path: Path) -> None:
    out = tmp_path / "cams.h5"
    with pytest.raises(KeyboardInterrupt), MapsWriter(out, kinds.header("cams"), kinds.IMAGES, dtype="float16"):
        raise KeyboardInterrupt
    said = "cams.h5.partial is half-finished (run its stage again); wanted a pseudolabel artefact"
    assert complaint(partial_path(out)) == said


@pytest.mark.parametrize("attribute", ["options", "inputs", "protocol", "facts", "cost"])
def test_an_attribute_that_is_missing_or_no_json(attribute: str, cams: Path) -> None:
    edit(cams, attribute, "{")
    assert complaint(cams) == f"cams.h5: attribute {attribute!r} is missing or not JSON; make it again"
    with h5py.File(cams, "r+") as file:
        del file.attrs[attribute]
    assert complaint(cams) == f"cams.h5: attribute {attribute!r} is missing or not JSON; make it again"


NO_INPUT = "attribute 'inputs' has an entry other than kind, path and digest"
WRONG: list[tuple[str, object, str]] = [
    ("seed", "three", "attribute 'seed' is missing or no integer from 0 to 9223372036854775807"),
    ("seed", -1, "attribute 'seed' is missing or no integer from 0 to 9223372036854775807"),
    ("ignore-value", 256, "attribute 'ignore-value' is missing or no integer from 0 to 255"),
    ("ignore-value", 2, "attribute 'ignore-value' is 2, which is a class"),
    ("inputs", "[3]", NO_INPUT),
    ("inputs", '[{"a": 1}]', NO_INPUT),
    ("inputs", '[{"kind": 1, "path": "x", "digest": "y"}]', NO_INPUT),
    ("oracle", "[1]", "attribute 'oracle' has an entry that is no text"),
    ("created", "yesterday", "attribute 'created' is no time of ISO 8601"),
    ("stage", 3, "attribute 'stage' is missing or no text"),
    ("facts", "[" * 100_000, "attribute 'facts' is missing or not JSON"),
    ("network", '{"std": [0.5, 0]}', "'std' in attribute 'network' is [0.5, 0], wanted positive numbers"),
    ("network", '{"mean": [NaN]}', "'mean' in attribute 'network' is [NaN], wanted numbers"),
    ("network", '{"crop": true}', "'crop' in attribute 'network' is true, wanted count"),
    ("dataset", '{"root": 3}', "'root' in attribute 'dataset' is 3, wanted string or null"),
    ("cost", '{"images": -1}', "'images' in attribute 'cost' is -1, wanted amount or null"),
]


@pytest.mark.parametrize(("attribute", "value", "said"), WRONG)
def test_an_attribute_of_the_wrong_type(attribute: str, value: object, said: str, cams: Path) -> None:
    with kinds.edited(cams) as file:
        file.attrs[attribute] = value
    assert complaint(cams) == f"cams.h5: {said}; make it again"


def test_a_version_that_is_no_number(cams: Path) -> None:
    edit(cams, "encoding-version", "one")
    assert complaint(cams).startswith("cams.h5 is damaged (")


@pytest.mark.parametrize("kind", list(REQUIRED))
def test_a_missing_dataset_is_named(kind: str, tmp_path: Path) -> None:
    for name in (*REQUIRED[kind], "classes/name"):
        path = kinds.make(kind, tmp_path / f"{name.replace('/', '-')}.h5")
        with h5py.File(path, "r+") as file:
            del file[name]
        assert complaint(path) == f"{path.name}: {name!r} is missing from this {kind} artefact; make it again"


def broken_links(file: h5py.File, outside: Path) -> dict[str, tuple[object, str]]:
    return {
        "external link": (
            h5py.ExternalLink(outside, "/maps/values"),
            "is an external link; files with links are refused",
        ),
        "soft link": (h5py.SoftLink("/maps/offset"), "is a soft link; files with links are refused"),
    }


@pytest.mark.parametrize("which", ["external link", "soft link"])
@pytest.mark.parametrize("name", ["maps/values", "classes/name", "elsewhere"])
def test_links_are_refused_before_they_are_followed(which: str, name: str, cams: Path, tmp_path: Path) -> None:
    outside = kinds.make("cams", tmp_path / "outside.h5")
    with h5py.File(cams, "r+") as file:
        link, said = broken_links(file, outside)[which]
        if name in file:
            del file[name]
        file[name] = link
    outside.unlink()  # following the link would now fail in another way
    assert complaint(cams) == f"cams.h5: {name!r} {said}"


def replace(path: Path, name: str, **how: object) -> None:
    with h5py.File(path, "r+") as file:
        data = file[name][:]
        del file[name]
        file.create_dataset(name, data=data, **how)


def test_data_in_another_file_is_refused(cams: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.raw"
    replace(cams, "maps/values", external=[(str(values), 0, h5py.h5f.UNLIMITED)])
    said = "cams.h5: the data of 'maps/values' lie in another file; such files are refused"
    assert complaint(cams) == said
    with h5py.File(cams, "r+") as file:
        shape, dtype = file["maps/values"].shape, file["maps/values"].dtype
        del file["maps/values"]
        layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
        layout[:] = h5py.VirtualSource("outside.h5", "maps/values", shape=shape)
        file.create_virtual_dataset("maps/values", layout)
    assert complaint(cams) == said


def test_a_filter_that_not_every_build_has_is_refused(cams: Path) -> None:
    replace(cams, "maps/values", compression="lzf")
    said = "cams.h5: 'maps/values' uses HDF5 filter 32000; only gzip, shuffle, fletcher32 are read"
    assert complaint(cams) == said


def test_groups_that_contain_themselves_are_refused(cams: Path) -> None:
    with h5py.File(cams, "r+") as file:
        file["maps/loop"] = file["maps"]
        file["maps/other"] = file["maps"]
    assert complaint(cams) == "cams.h5: 'maps/loop/' is a second link to a group; such files are refused"


def test_groups_may_not_be_too_deep(cams: Path) -> None:
    with h5py.File(cams, "r+") as file:
        file.create_group("/".join("abcdefghijklmnopqrst"))
    assert "lies more than 16 groups deep; such files are refused" in complaint(cams)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("maps/offset", [0, 4, 13], "'maps/offset' has 3 entries for 3 maps, wanted 4"),
        ("maps/height", [2, 3], "'maps/height' has 2 entries for 3 maps, wanted 3"),
        ("maps/class", [[1, 2, 1]], "'maps/class' has shape (1, 3), wanted one dimension"),
        ("maps/offset", [0, 4, 10, 18], "'maps/values' has 19 values, 'maps/offset' says 18"),
    ],
)
def test_inconsistent_maps_are_refused_at_opening(name: str, values: list[int], said: str, cams: Path) -> None:
    with h5py.File(cams, "r+") as file:
        del file[name]
        file[name] = np.array(values)
    assert complaint(cams) == f"cams.h5: {said}; make it again"


def test_ids_that_are_no_text_are_refused(cams: Path) -> None:
    with h5py.File(cams, "r+") as file:
        count = len(file["images/id"])
        del file["images/id"]
        file["images/id"] = np.arange(count)
    assert complaint(cams) == "cams.h5: 'images/id' holds int64, wanted strings; make it again"


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        ([0, 5, 10, 19], "gives map 0 5 values but it is 2 x 2"),
        ([1, 4, 10, 19], "does not ascend from 0"),
        ([0, 5, 4, 19], "does not ascend from 0"),
        ([0, -2, 10, 19], "holds -2, wanted at least 0"),
    ],
)
def test_offsets_that_do_not_fit_the_sizes_are_refused(offset: list[int], said: str, cams: Path) -> None:
    with kinds.edited(cams) as file:
        file["maps/offset"][:] = offset
    assert complaint(cams) == f"cams.h5: 'maps/offset' {said}; make it again"


def test_values_that_were_overwritten_on_disk_are_named(tmp_path: Path) -> None:
    sizes = np.array([3000], np.int32)
    path, noise = tmp_path / "x.h5", np.random.default_rng(0).integers(0, 3, (3000, 3000), dtype=np.uint8)
    with MapsWriter(path, kinds.header("masks"), Images(("a",), sizes, sizes), dtype="uint8") as writer:
        writer.add(0, noise)
    with h5py.File(path) as file:
        place = file["maps/values"].id.get_chunk_info(0).byte_offset
    with path.open("rb+") as handle:
        handle.seek(place)
        handle.write(bytes(1000))
    with open_artefact(path) as artefact, pytest.raises(ArtefactError, match="map 0 in 'maps/values' is damaged"):
        MapsReader(artefact).labels(0)


def test_any_damaged_byte_is_an_artefact_error_or_harmless(cams: Path) -> None:
    """No damage of the file may look like a bug of the program."""
    good, rng = cams.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(rng.choice((1, 8, 200))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        cams.write_bytes(damaged)
        try:
            with open_artefact(cams) as artefact:
                reader = MapsReader(artefact)
                for index in range(len(reader)):
                    reader.maps(index)
        except ArtefactError:
            refused += 1
    assert refused > 100

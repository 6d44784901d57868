"""docs/format.md: what it says of artefacts holds of those that are written today."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from pseudolabel.artefacts.checks import REQUIRED
from tests.helpers import kinds as kinds


@pytest.fixture
def cams(tmp_path: Path) -> Path:
    return kinds.make("cams", tmp_path / "cams.h5")


FORMAT = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")


def shown_in_document(kind: str) -> str:
    found = re.search(rf"<!-- dump: {kind}(?: of [a-z-]+)? -->\n```\n(.*?)\n```\n<!-- /dump -->", FORMAT, re.DOTALL)
    assert found is not None, f"docs/format.md shows no {kind}; run docs/make_format_dumps.py"
    return found[1]


@pytest.mark.parametrize("kind", list(REQUIRED))
def test_the_document_shows_every_kind_as_it_is_written_today(kind: str, tmp_path: Path) -> None:
    shown = shown_in_document(kind)
    with h5py.File(kinds.make(kind, tmp_path / "x.h5")) as file:
        assert sorted(re.findall(r"^  ([a-z-]+) = ", shown, re.MULTILINE)) == sorted(file.attrs)
    assert f"encoding-type = pseudolabel/{kind}" in shown
    assert "/classes/name" in shown
    for name in REQUIRED[kind]:
        assert f"/{name}" in shown
        assert f"/{name}" in FORMAT.replace(shown, "")
    assert not re.search(r"(?<![.\w])/(home|root|tmp|work|Users)/", shown)


def test_the_document_describes_every_attribute(cams: Path) -> None:
    with h5py.File(cams) as file:
        assert re.findall(r"^\| `([a-z-]+)` \| (?:string|integer|JSON)", FORMAT, re.MULTILINE) == [
            "encoding-type", "encoding-version", "pseudolabel-version", "stage", "seed", "ignore-value", "options",
            "inputs", "dataset", "network", "protocol", "oracle", "facts", "environment", "cost", "created", "digest",
            "seal",
        ]  # fmt: skip
        assert len(file.attrs) == 18


def test_the_digest_is_what_the_document_says(cams: Path) -> None:
    """Computed here from the document's words alone."""
    digest = hashlib.sha256()
    with h5py.File(cams) as file:
        for name in ("encoding-type", "encoding-version", "ignore-value", "facts"):
            value = file.attrs[name]
            digest.update(name.encode() + b"=" + (value if isinstance(value, bytes) else str(value).encode()) + b"\n")
        found = {}
        file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        for name in sorted(found):
            values = found[name][()]
            digest.update(
                f"{name}:{values.dtype.str}:{values.shape}\n".encode() + np.ascontiguousarray(values).tobytes()
            )
        assert digest.hexdigest().encode() == file.attrs["digest"]


def test_the_seal_is_what_the_document_says(cams: Path) -> None:
    sealed = hashlib.sha256()
    with h5py.File(cams) as file:
        for name in sorted(set(file.attrs) - {"seal"}):
            value = file.attrs[name]
            sealed.update(name.encode() + b"=" + (value if isinstance(value, bytes) else str(value).encode()) + b"\n")
        assert sealed.hexdigest().encode() == file.attrs["seal"]


def test_the_dumps_are_made_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("dumps", Path(__file__).parents[2] / "docs" / "make_format_dumps.py")
    assert spec is not None
    assert spec.loader is not None
    dumps = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dumps)
    dumps.FORMAT = tmp_path / "format.md"
    other = "<!-- dump: cams of import-cams -->\nnot of this stage\n<!-- /dump -->\n"
    dumps.FORMAT.write_text(f"before\n<!-- dump: cams -->\nstale\n<!-- /dump -->\n{other}after\n")
    kinds.make("cams", tmp_path / "artefacts" / "cams.h5")
    assert dumps.main([str(tmp_path / "artefacts")]) == 0
    text = dumps.FORMAT.read_text()
    assert text.startswith("before\n<!-- dump: cams -->\n```\ncams.h5\n")
    assert "/maps/values  float16  19  chunks of 65536, shuffle, gzip\n" in text
    assert "stale" not in text
    assert text.endswith(f"```\n<!-- /dump -->\n{other}after\n")
    assert "not found: soft-labels, masks, " in capsys.readouterr().out

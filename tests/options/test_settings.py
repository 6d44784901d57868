"""Settings from YAML files, crafted ones included."""

from __future__ import annotations

from pathlib import Path

import pytest

from pseudolabel.errors import InputError
from pseudolabel.options.settings import read_yaml


def test_anchors_and_merged_keys_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1, y: !!int 2}\nb: {<<: *a, y: 0x3}\nc: *a\nd: 2026-11-30\n")
    found = read_yaml(path)
    assert (found["a"], found["b"], found["c"]) == ({"x": 1, "y": 2}, {"x": 1, "y": 3}, {"x": 1, "y": 2})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: !!int x", ":2 is not valid YAML: 'x' is no int; put it in quotes if it is a word"),
        ("a: !!int ''", ":1 is not valid YAML: '' is no int; put it in quotes if it is a word"),
        ("a: !!float x", ":1 is not valid YAML: 'x' is no float; put it in quotes if it is a word"),
        ("a: !!bool x", ":1 is not valid YAML: 'x' is no bool; put it in quotes if it is a word"),
        ("a: !!timestamp x", ":1 is not valid YAML: 'x' is no timestamp; put it in quotes if it is a word"),
        ("a: 2026-02-31", ":1 is not valid YAML: '2026-02-31' is no timestamp; put it in quotes if it is a word"),
        ("a: " + "1" * 5000, f":1 is not valid YAML: '{'1' * 40}' is no int; put it in quotes if it is a word"),
        ("? !!int x\n: 1", ":1 is not valid YAML: 'x' is no int; put it in quotes if it is a word"),
        ("a: !!set x", " is not valid YAML: not enough values to unpack (expected 2, got 1)"),
        (
            "a: !!python/object/apply:os.mkdir [x]",
            ":1 is not valid YAML: could not determine a constructor for the tag",
        ),
        ("a: &x [*x]", ":1 is not valid YAML: an alias stands for what it is in"),
        ("a: &x {b: *x}", ":1 is not valid YAML: an alias stands for what it is in"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
            ":6 is not valid YAML: aliases make more than 100000 values",
        ),
        ("", " holds NoneType, wanted 'key: value' lines"),
        ("[" * 5000, " is nested too deeply; wanted a YAML file of settings"),
    ],
)
def test_what_yaml_cannot_hold_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}{said}")

"""The documents against the live command line: every command has a page, every example parses, every link resolves."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

import pseudolabel.options
from pseudolabel.errors import InputError
from pseudolabel.options import (
    STAGES,
    DataCheckOptions,
    DataShowOptions,
    DataSplitOptions,
    DataTagsOptions,
    DemoOptions,
    ExportModelOptions,
    SimulateBoxesOptions,
    SimulatePointsOptions,
    SimulateScribblesOptions,
    SynthOptions,
    check_names,
)
from pseudolabel.options.fields import validated
from pseudolabel.options.settings import parse_assignments
from pseudolabel.runs.pipeline import find_config, read_pipeline

REPOSITORY = Path(__file__).parents[1]
STAGE_PAGES = REPOSITORY / "docs" / "stages"
MODELS = {
    **STAGES,
    "data check": DataCheckOptions,
    "data tags": DataTagsOptions,
    "data show": DataShowOptions,
    "data split": DataSplitOptions,
    "data scribbles": SimulateScribblesOptions,
    "data points": SimulatePointsOptions,
    "data boxes": SimulateBoxesOptions,
    "data synth": SynthOptions,
    "demo": DemoOptions,
    "export-model": ExportModelOptions,
}
HEADINGS = ["Why", "What it reads and writes", "Formulas", "Pitfalls", "Example", "Usage and options"]
OTHER_FLAGS = {"--check", "--help", "--nproc-per-node", "--logdir", "--dist", "--convert-to-rle"}
"""Of docs/generate.py, of every command, of torchrun, of TensorBoard, of pytest, of SAM's amg.py."""


def _load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _load_generator()
COMMANDS: dict[str, Any] = GENERATE.commands()
DOCUMENTS = [*GENERATE.documents(), REPOSITORY / "CHANGELOG.md", REPOSITORY / "CONTRIBUTING.md"]


def _name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def _prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchor(heading: str) -> str:
    """A heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_command_has_exactly_one_generated_part() -> None:
    places: dict[str, list[str]] = {name: [] for name in COMMANDS}
    for path in GENERATE.documents():
        for name in GENERATE.names_in(path.read_text(encoding="utf-8")):
            if name not in GENERATE.TABLES:
                places[name].append(_name(path))
    assert {name: len(found) for name, found in places.items()} == dict.fromkeys(COMMANDS, 1)
    assert {name: places[name] for name in STAGES} == {name: [f"docs/stages/{name}.md"] for name in STAGES}


def test_every_stage_page_belongs_to_a_stage_and_has_the_same_headings() -> None:
    assert sorted(path.stem for path in STAGE_PAGES.glob("*.md")) == sorted(STAGES)
    for stage in STAGES:
        text = _prose((STAGE_PAGES / f"{stage}.md").read_text(encoding="utf-8"))
        assert re.findall(r"^# (.+)$", text, re.MULTILINE) == [stage]
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS, stage


@pytest.mark.parametrize("path", GENERATE.documents(), ids=_name)
def test_generated_parts_are_up_to_date(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("<!-- generated:") == len(GENERATE.names_in(text)), "a part is not closed"
    assert GENERATE.rewritten(text) == text, "run 'python docs/generate.py'"


def test_generate_rewrites_what_is_stale_and_check_only_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("no generated part\n")
    page = tmp_path / "docs" / "a.md"
    page.write_text("before\n<!-- generated: data synth -->\nold\n<!-- /generated -->\nafter\n")
    assert GENERATE.main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err == "stale: docs/a.md; run 'python docs/generate.py'\n"
    assert "\nold\n" in page.read_text()
    assert GENERATE.main([], tmp_path) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- generated: data synth -->\n\nMake a synthetic data set in VOC layout")
    assert text.endswith("|\n\n<!-- /generated -->\nafter\n")
    assert "| `--size` | `INTEGER` | Longer side of an image, in pixels. (32 to 1024; default: 160) |" in text
    assert GENERATE.main(["--check"], tmp_path) == 0
    page.write_text("<!-- generated: nothing -->\n<!-- /generated -->\n")
    with pytest.raises(SystemExit, match="nothing is generated under the name 'nothing'; known: train-cam, "):
        GENERATE.main([], tmp_path)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_every_command_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help.endswith(".")
    assert command.epilog.startswith(f"Example: pseudolabel {name} ")
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.name} has no help"


def test_every_field_of_every_model_has_a_help_sentence() -> None:
    for stage, model in MODELS.items():
        for name, field in model.model_fields.items():
            assert field.description is not None, f"{stage} {name}"
            assert field.description.endswith("."), f"{stage} {name}: {field.description}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_commands_in_documents_parse(path: Path) -> None:
    for line in _command_lines(path.read_text(encoding="utf-8")):
        for words in _commands_of(line):
            _parse(words)


def _command_lines(text: str) -> list[str]:
    """Lines of shell blocks, and the lines of console blocks that a prompt begins."""
    console = "".join(_blocks(text, "console")).replace("\\\n", " ").splitlines()
    shell = "".join(_blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return shell + [line.removeprefix("$ ") for line in console if line.startswith("$ ")]


def _commands_of(line: str) -> list[list[str]]:
    """The words behind ``pseudolabel``, or ``torchrun ... -m pseudolabel``, of every such command in a line."""
    parts = (shlex.split(part, comments=True) for part in line.split("&&"))
    found = (words[words.index("pseudolabel") :] if "torchrun" in words else words for words in parts)
    return [words[1:] for words in found if words[:1] == ["pseudolabel"]]


def _parse(words: list[str]) -> None:
    """Fail unless the live app takes these words and the options models take their values."""
    name = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
    assert name is not None, f"no such command: pseudolabel {' '.join(words)}"
    given = COMMANDS[name].make_context(name, words[len(name.split()) :]).params
    if name in MODELS:
        values = {key: value for key, value in given.items() if value is not None and key in MODELS[name].model_fields}
        if name in STAGES:
            values = check_names(name, parse_assignments(given["assignments"] or [])) | values
        validated(MODELS[name], values, where=name)
    elif name == "run" and not given["config"].endswith(".yaml"):
        find_config(given["config"])


def test_a_wrong_example_would_be_found() -> None:
    with pytest.raises(AssertionError, match="no such command"):
        _parse(["train-cams", "--out", "x"])
    with pytest.raises(typer.BadParameter.__mro__[1], match="--epoch"):
        _parse(["train-cam", "--epoch", "3", "--out", "x.h5"])
    with pytest.raises(InputError, match=r"^train-cam: --epochs: should be a valid integer"):
        _parse(["train-cam", "--epochs", "many", "--out", "x.h5"])


@pytest.mark.parametrize("path", [*GENERATE.documents(), REPOSITORY / "CHANGELOG.md"], ids=_name)
def test_flags_named_in_documents_exist(path: Path) -> None:
    known = OTHER_FLAGS | {
        flag for command in COMMANDS.values() for item in command.params for flag in (*item.opts, *item.secondary_opts)
    }
    found = set(re.findall(r"(?<![\w<!-])--[a-z][a-z0-9-]*", path.read_text(encoding="utf-8")))
    assert found - known == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_python_in_documents_names_what_exists(path: Path) -> None:
    for block in _blocks(path.read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Options"):
                fields = getattr(pseudolabel.options, node.func.id).model_fields
                assert {keyword.arg for keyword in node.keywords} <= set(fields), node.func.id


def test_the_step_of_learning_from_weak_labels_runs_and_learns() -> None:
    import torch

    (block,) = _blocks((REPOSITORY / "docs" / "scribbles.md").read_text(encoding="utf-8"), "python")
    names: dict[str, Any] = {}
    exec(block, names)
    assert list(names["terms"]) == ["loss", "partial", "regulariser", "consistency", "exclusion"]
    assert names["terms"]["partial"] < 0.5 * torch.log(torch.tensor(3.0))  # what guessing among three classes costs
    with torch.no_grad():
        found = names["network"].outputs(names["photographs"].float() / 127.5 - 1).segmentation.argmax(dim=1)
    assert found[:, 0].tolist() == [[0] * 4] * 2
    assert found[:, 1:3, 1:3].unique(dim=0).tolist() == [[[1, 1], [1, 1]], [[2, 2], [2, 2]]]


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_pipelines_in_documents_are_valid(path: Path, tmp_path: Path) -> None:
    pipelines = [block for block in _blocks(path.read_text(encoding="utf-8"), "yaml") if "stages:" in block]
    for number, block in enumerate(pipelines):
        config = tmp_path / f"{number}.yaml"
        config.write_text(block)
        assert read_pipeline(config).steps


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_links_resolve(path: Path) -> None:
    text = _prose(path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        assert file.exists(), f"{target} leads nowhere"
        assert file.is_relative_to(REPOSITORY.resolve()), f"{target} leads out of the repository"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", _prose(file.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in map(_anchor, headings), f"{target}: no such heading"


@pytest.mark.parametrize("path", [REPOSITORY / "README.md", REPOSITORY / "docs" / "index.md"], ids=_name)
def test_tables_of_stages_are_complete_and_in_order(path: Path) -> None:
    row = re.compile(r"^\| \[([a-z-]+)\]\([^)]*stages/([a-z-]+)\.md\) \|", re.MULTILINE)
    assert row.findall(path.read_text(encoding="utf-8")) == [(stage, stage) for stage in STAGES]


def test_readme_has_two_commands_and_ci_runs_the_one_for_the_tests() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    commands = [block.strip() for block in _blocks(text, "sh") if block.startswith("pip install")]
    assert commands[0] == "pip install . && pseudolabel demo"
    assert commands[1:] == ['pip install -e ".[dev]" && pytest -n auto --dist loadfile']
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    assert f"\ncheck '{commands[1]}'\n" in script
    assert len(text.splitlines()) <= 175


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    found = [path.parent.relative_to(REPOSITORY) for path in (REPOSITORY / "pseudolabel").rglob("__init__.py")]
    elsewhere = [name for name in settings["package-dir"] if name != "pseudolabel"]
    assert sorted(settings["packages"]) == sorted([*(".".join(path.parts) for path in found), *elsewhere])


def test_ci_runs_every_check_and_can_be_run() -> None:
    path = REPOSITORY / ".ci" / "run"
    checks = re.findall(r"^check '(.+)'$", path.read_text(encoding="utf-8"), re.MULTILINE)
    compared = 'pip install -e ".[pydensecrf]" && pytest tests/pairwise/test_crf.py'
    assert checks[1:] == [compared, "ruff check .", "ruff format --check .", "mypy", "python docs/generate.py --check"]
    assert os.access(path, os.X_OK)
    assert path.read_bytes().startswith(b"#!/usr/bin/env bash\n")
    bash = shutil.which("bash")
    assert bash is not None
    assert subprocess.run([bash, "-n", str(path)], check=False).returncode == 0


def test_a_check_of_ci_that_leaves_anything_behind_fails(tmp_path: Path) -> None:
    head, _, _ = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").partition("\npython=")
    script = tmp_path / ".ci" / "run"
    script.parent.mkdir()
    (tmp_path / ".gitignore").write_text("*.egg-info/\nwork/\n")
    (tmp_path / "pseudolabel.egg-info").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work/earlier").touch()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a"]
    commit = [[*git, "init", "-q"], [*git, "add", ".gitignore"], [*git, "commit", "-qm", "first"]]
    for command in commit:
        subprocess.run(command, cwd=tmp_path, check=True)
    for harm, said in {
        "touch pseudolabel.egg-info/PKG-INFO work/earlier": "",
        "touch left": "?? left",
        "touch work/left": "!! work/left",
        "echo >> .gitignore": " M .gitignore",
    }.items():
        script.write_text(f"{head}\ncheck '{harm}'\ncheck 'echo next'\n")
        done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
        rule = "This check left or changed files in the repository; it must write to temporary folders only:"
        assert done.stderr == (f"{rule}\n{said}\n" if said else "")
        assert (done.returncode, done.stdout.endswith("\nnext\n")) == ((1, False) if said else (0, True))

"""How the package is built: who may import whom, no circles, no loose modules, documented public functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
LAYERS = (
    ("errors",),
    ("options", "runtime"),
    ("artefacts",),
    ("data",),
    ("metrics", "pairwise"),
    ("labels", "models"),
    ("evaluation", "export", "interop"),
    ("training",),
    ("cosa",),
    ("scribble",),
    ("semi",),
    ("stages",),
    ("runs",),
    ("cli",),
)
"""A package imports itself and those in the lines above its own; two of one line know nothing of each other."""

LEVEL = {package: level for level, layer in enumerate(LAYERS) for package in layer}
LOOSE = {"__init__", "__main__", "errors"}
PLACES = {"pseudolabel": REPOSITORY / "pseudolabel", "pseudolabel.cli": REPOSITORY / "cli"}


def _modules() -> dict[str, Path]:
    """Dotted name to file of every module."""
    found = {}
    for package, folder in PLACES.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = _modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def _imports(module: str, *, late: bool = True) -> Iterator[str]:
    """The modules of this project that a module imports, in its functions too unless told otherwise."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(TREES[module]) if late else TREES[module].body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                ancestors = package.split(".")
                base = ".".join([*ancestors[: len(ancestors) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                found = f"{base}.{alias.name}"
                if found in MODULES or base in MODULES:
                    yield found if found in MODULES else base


def _package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_package_has_its_place_in_the_order() -> None:
    assert {_package(name) for name in MODULES} - {"", "__main__"} == set(LEVEL)


def test_the_root_holds_no_loose_modules() -> None:
    assert {path.stem for path in PLACES["pseudolabel"].glob("*.py")} == LOOSE


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"pseudolabel", "pseudolabel.__main__"}))
def test_imports_point_downwards(module: str) -> None:
    own = _package(module)
    for imported in _imports(module):
        other = _package(imported)
        assert not other or other == own or LEVEL[other] < LEVEL[own], f"{own} may not import {imported}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    # Imports in functions count, so that none of them hides a circle. A package's __init__ only hands names on.
    arrows = {
        name: {other for other in _imports(name) if MODULES[other].name != "__init__.py"}
        for name, path in MODULES.items()
        if path.name != "__init__.py"
    }
    while ends := {name for name, others in arrows.items() if not others & arrows.keys()}:
        arrows = {name: others for name, others in arrows.items() if name not in ends}
    assert sorted(arrows) == []


def test_no_module_imports_what_is_above_it_within_data() -> None:
    order = ("", "weak", "layouts", "simulate")
    for module in (name for name in MODULES if name.startswith("pseudolabel.data.")):
        parts = module.split(".")
        room = parts[2] if parts[2] in order else ""
        if not room and parts[2] in ("opening", "check"):
            continue  # what opens and checks any data set stands above the rooms
        for imported in _imports(module):
            if imported.startswith("pseudolabel.data."):
                part = imported.split(".")[2]
                assert order.index(part if part in order else "") <= order.index(room), f"{module}: {imported}"


@pytest.mark.parametrize("name", sorted(name for name, path in MODULES.items() if path.name == "__init__.py"))
def test_a_package_says_what_belongs_there_and_only_hands_names_on(name: str) -> None:
    tree = TREES[name]
    assert ast.get_docstring(tree)
    rest = [node for node in tree.body[1:] if not isinstance(node, ast.ImportFrom)]
    if name in ("pseudolabel", "pseudolabel.options"):  # those that hand names on only when they are asked for
        assert [ast.unparse(node).split("(")[0].splitlines()[0] for node in (rest[0], rest[-1])] == [
            "if TYPE_CHECKING:",
            "def __getattr__",
        ]
        rest = rest[1:-1]
    names = {target.id for node in rest if isinstance(node, ast.Assign) for target in node.targets}  # type: ignore[attr-defined]
    assert all(isinstance(node, ast.Assign) for node in rest)
    assert names <= {"__all__", "__version__"}


def _public(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Public functions, and public methods of public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            if not _overloads(node):
                yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
            yield from (
                item
                for item in node.body
                if isinstance(item, ast.FunctionDef) and not item.name.startswith("_") and not _overloads(item)
            )


def _overloads(node: ast.FunctionDef) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_public_functions_are_documented_and_annotated(module: str) -> None:
    for function in _public(TREES[module]):
        arguments = function.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        bare = [item.arg for item in named if item and item.annotation is None and item.arg not in ("self", "cls")]
        assert (bare, function.returns is None) == ([], False), f"{function.name} lacks annotations"
        commands = _package(module) == "cli"  # Typer would show a command's docstring as its help
        assert commands or ast.get_docstring(function), f"{function.name} has no docstring"


def test_files_and_functions_stay_short() -> None:
    for module, path in MODULES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, module
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 80, f"{module}.{node.name}"


PATHS = re.compile(
    r"(?<![\w./-])(?:benchmarks|cli|configs|docs|pseudolabel|tests)/[\w/-]+\.(?:py|md|json|csv|yaml|svg)\b"
)
TEXTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*", "configs/**/*.yaml", "pseudolabel/**/*.py", "*.toml")
    for path in REPOSITORY.glob(pattern)
    if path.suffix in (".md", ".json", ".csv", ".yaml", ".py", ".toml")
)
INVENTED = {"docs/stages/find-edges.md", "pseudolabel/stages/find_edges.py", "tests/stages/test_find_edges.py"}
"""Files of the stage that CONTRIBUTING.md takes as its example."""


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = {found for found in PATHS.findall(text) if not (REPOSITORY / found).exists()}
    assert named - INVENTED == set()
    scripts = set(re.findall(r"python -m (benchmarks(?:\.\w+)+)", text))
    assert {name for name in scripts if not (REPOSITORY / (name.replace(".", "/") + ".py")).exists()} == set()

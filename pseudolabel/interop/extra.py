"""Packages of the extra ``interop``, imported by the formats that need them and when they are needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from pseudolabel.errors import MissingExtraError


def require(module: str, package: str, what: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: Its dotted name.
        package: The package's name on PyPI.
        what: The format, as a flag.

    Raises:
        MissingExtraError: The package, or one that it needs, is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = str(error.name)
        same = missing.partition(".")[0] == module.partition(".")[0]
        reason = "which is not installed" if same else f"which needs {missing}"
        raise MissingExtraError(
            f'{what} needs the package {package}, {reason}; run: pip install "pseudolabel[interop]"'
        ) from error

"""One setting: how it is described, what it may be, how the command line spells it. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from pydantic_core import PydanticUndefined

from pseudolabel.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Role = Literal["input", "option", "execution"]
Panel = Literal["input", "option", "execution", "rare"]


def _split_commas(value: Any) -> Any:
    """Let ``"1,0.5"`` and a lone number stand for a list, as a flag must."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


def _pair(value: Any) -> Any:
    """Two numbers, as a list or with a comma between them."""
    parts = _split_commas(value)
    if not isinstance(parts, list | tuple) or len(parts) != 2:
        raise ValueError("wanted two numbers with a comma between them")
    return parts


def _alone(value: Any) -> Any:
    """Let one path stand for a list; commas are part of it."""
    return [value] if isinstance(value, str | Path) else value


def _meanings(value: Any) -> Any:
    """``VALUE=CLASS`` items of a flag, a list, or the mapping that YAML may hold."""
    if isinstance(value, Mapping):
        value = [f"{key}={name}" for key, name in value.items()]
    parts = _split_commas(value)
    if not isinstance(parts, list | tuple):
        return parts
    found: dict[int, str] = {}
    for part in parts:
        number, _, name = (word.strip() for word in str(part).partition("="))
        if not (number.isdecimal() and number.isascii() and int(number) <= 255 and name):
            raise ValueError("wanted VALUE=CLASS[,VALUE=CLASS...] with values from 0 to 255, such as 255=lesion")
        if found.setdefault(int(number), name) != name:
            raise ValueError(f"value {int(number)} stands for two classes")
    return [f"{number}={name}" for number, name in found.items()]


def _as_integer(value: Any) -> Any:
    """Let ``"16"`` be 16 where only certain integers are allowed, as a flag must."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Scales = Annotated[tuple[Annotated[float, Field(gt=0, le=8)], ...], Field(min_length=1), BeforeValidator(_split_commas)]
Dilations = Annotated[
    tuple[Annotated[int, Field(ge=1, le=512)], ...], Field(min_length=1), BeforeValidator(_split_commas)
]
Blocks = Annotated[tuple[int, ...], Field(min_length=1), BeforeValidator(_split_commas)]
Seconds = Annotated[
    tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=5, max_length=5), BeforeValidator(_split_commas)
]
Names = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_split_commas)]
Meanings = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_meanings)]
PixelValues = Annotated[
    tuple[Annotated[int, Field(ge=0, le=255)], ...], Field(min_length=1), BeforeValidator(_split_commas)
]
Paths = Annotated[tuple[Path, ...], Field(min_length=1), BeforeValidator(_alone)]
"""On the command line a flag that may be repeated."""
Range = Annotated[tuple[float, float], BeforeValidator(_pair)]
Stride = Annotated[Literal[8, 16, 32], BeforeValidator(_as_integer)]
Channels = Annotated[Literal[1, 3], BeforeValidator(_as_integer)]
Share = Annotated[float, Field(ge=0, le=1)]


def option(
    default: Any,
    help: str,
    *,
    role: Role = "option",
    panel: Panel | None = None,
    positional: bool = False,
    **bounds: Any,
) -> Any:
    """Describe one setting.

    Args:
        default: ``...`` makes it required.
        help: For the command line and the documents.
        role: See the package.
        panel: Where the help shows it; None for the panel of its role.
        positional: Whether the command line takes it by position.
        bounds: As pydantic takes them: ``ge``, ``gt``, ``le``, ``lt``, ``pattern``.
    """
    extra: dict[str, Any] = {"role": role, "panel": panel or role, "positional": positional}
    return Field(default, description=help, json_schema_extra=extra, **bounds)


def reads(
    help: str, *, positional: bool = True, default: Any = ..., kind: str | None = None, serves: str | None = None
) -> Any:
    """Describe a setting that says what a stage reads.

    Args:
        help: For the command line.
        positional: Whether the command line takes it by position.
        default: Its default; ``...`` makes it required.
        kind: The one kind of artefact that it can be, if there is one, as ``artefacts.open_artefact`` takes it.
        serves: As of ``artefacts.open_artefact``.
    """
    extra: dict[str, Any] = {
        "role": "input",
        "panel": "input",
        "positional": positional,
        "kind": kind,
        "serves": serves,
    }
    return Field(default, description=help, json_schema_extra=extra)


def role_of(model: type[BaseModel], name: str) -> Role:
    """The role of one field of an options model."""
    extra = model.model_fields[name].json_schema_extra
    return extra["role"] if isinstance(extra, dict) else "option"  # type: ignore[return-value]


def panel_of(model: type[BaseModel], name: str) -> Panel:
    """The panel of the help that shows one field."""
    extra = model.model_fields[name].json_schema_extra
    return extra["panel"] if isinstance(extra, dict) else "option"  # type: ignore[return-value]


def artefact_of(model: type[BaseModel], name: str) -> tuple[str | None, str | None]:
    """The kind of artefact that a field must name, and what it must serve as; None where that is not one alone."""
    extra = model.model_fields[name].json_schema_extra
    return (extra.get("kind"), extra.get("serves")) if isinstance(extra, dict) else (None, None)  # type: ignore[return-value]


def is_positional(model: type[BaseModel], name: str) -> bool:
    """Whether the command line takes this field by position."""
    extra = model.model_fields[name].json_schema_extra
    return bool(isinstance(extra, dict) and extra.get("positional"))


def is_optional(model: type[BaseModel], name: str) -> bool:
    """Whether None is a valid value of this field."""
    annotation = model.model_fields[name].annotation
    union = get_origin(annotation) is Union or type(annotation).__name__ == "UnionType"
    return union and type(None) in get_args(annotation)


def type_of(model: type[BaseModel], name: str) -> tuple[Any, dict[str, float]]:
    """The type of a field where it is not None, and its bounds by the names ``ge``, ``gt``, ``le`` and ``lt``."""
    field = model.model_fields[name]
    kind, metadata = field.annotation, list(field.metadata)
    if is_optional(model, name):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        metadata += [bound for item in more for bound in getattr(item, "metadata", [item])]
    bounds = {key: getattr(item, key) for item in metadata for key in ("ge", "gt", "le", "lt") if hasattr(item, key)}
    return kind, bounds


def is_repeated(model: type[BaseModel], name: str) -> bool:
    """Whether the command line takes this field's flag more than once, each time with one value."""
    return Path in get_args(type_of(model, name)[0])


def as_word(value: Any) -> str:
    """A value as the command line would be given it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return ",".join(as_word(item) for item in value) if isinstance(value, list | tuple) else str(value)


def flag_of(name: str) -> str:
    """A field's name as the command line spells it; one that Python reserves has an underscore behind it."""
    return name.rstrip("_").replace("_", "-")


def default_of(model: type[BaseModel], name: str) -> Any:
    """A field's default, or ``...`` where it is required."""
    default = model.model_fields[name].default
    return ... if default is PydanticUndefined else default


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """`` (did you mean 'x'?)`` for a misspelt word, or nothing where no known word is near."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def validated(model: type[Model], values: Mapping[str, Any], *, where: str) -> Model:
    """Settings as an options model.

    Raises:
        InputError: A value is wrong or missing, in one line that begins with ``where`` and names the setting.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {_describe(model, error)}") from None


def _describe(model: type[BaseModel], error: ValidationError) -> str:
    """What a validation complains of first, as one line: setting, what was wanted, what was found."""
    errors = error.errors()
    missing = [_spelt(model, str(found["loc"][0])) for found in errors if found["type"] == "missing"]
    if missing:
        return f"{' and '.join(sorted(missing))} {'is' if len(missing) == 1 else 'are'} required"
    first = errors[0]
    text = first["msg"].removeprefix("Value error, ").partition(", unable")[0]
    text = text[0].lower() + text[1:]
    if not first["loc"]:
        return text
    return f"{_spelt(model, str(first['loc'][0]))}: {text.removeprefix('input ')}, found {first['input']!r}"


def _spelt(model: type[BaseModel], name: str) -> str:
    """A setting as the command line spells it."""
    return name.upper() if is_positional(model, name) else f"--{flag_of(name)}"

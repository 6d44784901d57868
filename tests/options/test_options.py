"""The settings: described, bounded, spelt alike everywhere, and wrong ones refused in one line."""

from __future__ import annotations

import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

import pseudolabel.options
from pseudolabel.errors import InputError
from pseudolabel.options import (
    STAGES,
    DataCheckOptions,
    DataTagsOptions,
    StageOptions,
    SynthOptions,
    build_options,
    command_line,
)
from pseudolabel.options.fields import (
    as_word,
    default_of,
    is_optional,
    is_positional,
    nearest,
    panel_of,
    role_of,
    type_of,
)

MODELS: dict[str, type[BaseModel]] = {
    **STAGES,
    "data check": DataCheckOptions,
    "data tags": DataTagsOptions,
    "data synth": SynthOptions,
}
FIELDS = [(command, name) for command, model in MODELS.items() for name in model.model_fields]
NEEDED = {(stage, "keep", "best"): {"validate_on": "val"} for stage in ("train-cosa", "train-scribble", "train-semi")}
"""What a choice does not go without."""


def given(stage: str, **more: Any) -> dict[str, Any]:
    """The least that a stage needs, and more."""
    names = [name for name in STAGES[stage].model_fields if default_of(STAGES[stage], name) is ...]
    kinds = {name: type_of(STAGES[stage], name)[0] for name in names}
    return {name: get_args(kind)[0] if get_args(kind) else f"some/{name}" for name, kind in kinds.items()} | more


# Every setting


@pytest.mark.parametrize(("command", "name"), FIELDS)
def test_every_setting_is_described(command: str, name: str) -> None:
    model = MODELS[command]
    text = model.model_fields[name].description
    assert text is not None
    assert text.endswith((".", ";...]."))
    assert role_of(model, name) in ("input", "option", "execution")
    assert panel_of(model, name) in ("input", "option", "execution", "rare")
    assert "\n" not in text


@pytest.mark.parametrize(("command", "name"), FIELDS)
def test_every_optional_setting_says_what_none_means(command: str, name: str) -> None:
    """Where None stands for something else than "not given", the text says for what."""
    model = MODELS[command]
    kind, _ = type_of(model, name)
    if is_optional(model, name) and get_origin(kind) is None and kind is not Path:
        own_numbers = {"low", "high"} | set(getattr(MODELS["refine-crf"], "model_fields", {}))
        assert "none:" in str(model.model_fields[name].description) or name in own_numbers


@pytest.mark.parametrize("stage", list(STAGES))
def test_defaults_are_valid_and_survive_json(stage: str) -> None:
    options = build_options(stage, given(stage))
    again = build_options(stage, options.resolved())
    assert again == options
    assert pickle.loads(pickle.dumps(options)) == options
    assert options.meaning().keys().isdisjoint({"out", "device", "workers", "overwrite"})
    assert "seed" in options.meaning()


@pytest.mark.parametrize("stage", list(STAGES))
def test_positional_settings_are_what_is_read_first(stage: str) -> None:
    model = STAGES[stage]
    positional = [name for name in model.model_fields if is_positional(model, name)]
    none = ("train-cam", "train-cosa", "train-scribble", "train-semi", "make-regions")
    assert len(positional) == (0 if stage in none else 1)
    assert all(role_of(model, name) == "input" and default_of(model, name) is ... for name in positional)


@pytest.mark.parametrize(("command", "name"), [field for field in FIELDS if field[0] in STAGES])
def test_every_bound_is_kept(command: str, name: str) -> None:
    kind, bounds = type_of(STAGES[command], name)
    steps = {"ge": -1, "gt": 0, "le": 1, "lt": 0}
    for key, limit in bounds.items():
        beyond = limit + (steps[key] if kind is int else steps[key] * 1e-6)
        with pytest.raises(InputError, match=f"^{command}: --{name.replace('_', '-')}: should be "):
            build_options(command, given(command, **{name: beyond}))


@pytest.mark.parametrize(("command", "name"), [field for field in FIELDS if field[0] in STAGES])
def test_every_choice_is_taken_as_a_word_and_no_other(command: str, name: str) -> None:
    kind, _ = type_of(STAGES[command], name)
    words = [as_word(choice) for choice in get_args(kind)] if "Literal" in str(get_origin(kind)) else []
    for word in words:
        options = build_options(command, given(command, **NEEDED.get((command, name, word), {}), **{name: word}))
        assert as_word(getattr(options, name)) == word
    if words:
        with pytest.raises(InputError, match=r"should be .* found 'another'"):
            build_options(command, given(command, **{name: "another"}))


# Words of the command line


@pytest.mark.parametrize("stage", list(STAGES))
def test_none_is_a_word_wherever_none_is_allowed(stage: str) -> None:
    model = STAGES[stage]
    optional = [name for name in model.model_fields if is_optional(model, name)]
    options = build_options(stage, given(stage, **dict.fromkeys(optional, "none")))
    assert all(getattr(options, name) is None for name in optional)


def test_none_stays_a_choice_where_it_is_one() -> None:
    options = build_options("refine-crf", given("refine-crf", confidence="none", iterations="none"))
    assert (options.confidence, options.iterations) == ("none", None)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="--seed: should be a valid integer, found 'none'"):
        build_options("refine-crf", given("refine-crf", seed="none"))


@pytest.mark.parametrize("value", ["1,0.5", "1, 0.5,", [1, 0.5], (1.0, 0.5)])
def test_lists_are_words_with_commas_or_lists(value: Any) -> None:
    assert build_options("make-cams", given("make-cams", scales=value)).scales == (1.0, 0.5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [2, 2.0, "2"])
def test_a_lone_number_is_a_list_of_one(value: Any) -> None:
    assert build_options("make-cams", given("make-cams", scales=value)).scales == (2.0,)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1,a", "--scales: should be a valid number, found 'a'"),
        ("0", "--scales: should be greater than 0, found '0'"),
        ("", "--scales: tuple should have at least 1 item after validation, not 0, found []"),
        ("inf", "--scales: should be a finite number, found 'inf'"),
    ],
)
def test_lists_of_something_else(value: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        build_options("make-cams", given("make-cams", scales=value))
    assert str(caught.value) == f"make-cams: {said}"


def test_a_range_is_two_increasing_shares() -> None:
    options = build_options("train-cam", given("train-cam", crop_area="0.5,1"))
    assert options.crop_area == (0.5, 1.0)  # type: ignore[attr-defined]
    for value in ("1,0.5", "0,1", "0.5,2"):
        with pytest.raises(InputError) as caught:
            build_options("train-cam", given("train-cam", crop_area=value))
        said = f"--crop-area {value} is not an increasing pair of shares in (0, 1]"
        assert str(caught.value) == f"train-cam: {said}"
    for value in ("0.5", "0.1,0.5,1", 0.5):
        with pytest.raises(InputError, match="--crop-area: wanted two numbers with a comma between them, found "):
            build_options("train-cam", given("train-cam", crop_area=value))


@pytest.mark.parametrize(
    ("stage", "values", "said"),
    [
        ("make-cams", {"size": 100_000}, "--size: should be less than or equal to 4096, found 100000"),
        ("predict-masks", {"tile": 4097}, "--tile: should be less than or equal to 4096, found 4097"),
        (
            "import-regions",
            {"model": "SAM", "licence": "none"},
            "--model SAM needs --licence, to stand beside every score; say unknown if you do not know",
        ),
        (
            "import-regions",
            {"model": "none"},
            "--model none goes with --licence none and --trained-on none",
        ),
        ("import-cams", {"grid": 5000}, "--grid: should be less than or equal to 4096, found 5000"),
        ("make-cams", {"scales": "1,40"}, "--scales: should be less than or equal to 8, found '40'"),
    ],
)
def test_sides_and_scales_have_an_end(stage: str, values: dict[str, Any], said: str) -> None:
    """Beyond it a network's input would take more memory than machines have, long after the command began."""
    with pytest.raises(InputError) as caught:
        build_options(stage, given(stage, **values))
    assert str(caught.value) == f"{stage}: {said}"


def test_micro_batches_divide_the_batch() -> None:
    with pytest.raises(InputError) as caught:
        build_options("train-cam", given("train-cam", batch_size=8, micro_batch=3))
    assert str(caught.value) == "train-cam: --batch-size 8 is not a multiple of --micro-batch 3"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *((word, True) for word in ("auto", "cpu", "cuda", "cuda:1", "mps", "xpu", "xpu:0")),
        *((word, False) for word in ("cuda:", "cpu:0", "mps:0", "xpu:a", "gpu", "cuda:1 ")),
    ],
)
def test_devices(word: str, meant: bool) -> None:
    if meant:
        assert build_options("make-cams", given("make-cams", device=word)).device == word
    else:
        with pytest.raises(InputError, match=f"^make-cams: --device: .* found '{word}'$"):
            build_options("make-cams", given("make-cams", device=word))


# Mistakes


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("epochz", "unknown option 'epochz' (did you mean 'epochs'?)"),
        ("epoch-s", "unknown option 'epoch-s' (did you mean 'epochs'?)"),
        ("learning_rat", "unknown option 'learning-rat' (did you mean 'learning-rate'?)"),
        ("xyzzy", "unknown option 'xyzzy'"),
    ],
)
def test_unknown_names_come_with_the_nearest_known_one(name: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        build_options("train-cam", given("train-cam", **{name: 1}))
    assert str(caught.value) == f"train-cam: {said}; see 'pseudolabel train-cam --help'"


def test_the_place_that_a_mistake_came_from_begins_the_line() -> None:
    with pytest.raises(InputError, match=r"^small\.yaml: stage 'cam': --epochs: should be"):
        build_options("train-cam", given("train-cam", epochs=0), where="small.yaml: stage 'cam'")


def test_a_seed_fits_every_generator_and_the_artefact() -> None:
    assert build_options("train-cam", given("train-cam", seed=2**32 - 1)).seed == 2**32 - 1
    with pytest.raises(InputError, match=r"^train-cam: --seed: should be less than or equal to 4294967295, found"):
        build_options("train-cam", given("train-cam", seed=2**32))


@pytest.mark.parametrize(
    ("stage", "values"),
    [
        ("search-threshold", {"cams": "a/x.h5", "out": "a/../a/x.h5"}),
        ("refine-crf", {"cams": "a/cams.h5", "threshold": "a/x.h5", "out": "a/x.h5"}),
        ("train-cam", {"weights": "a/x.h5", "out": "a/x.h5"}),
        ("export-masks", {"labels": "a/masks.h5", "out": "a"}),
        ("evaluate-masks", {"masks": "a/masks.h5", "out": "a/masks.h5"}),
        ("evaluate-masks", {"masks": "a", "out": "a/masks.h5"}),
    ],
)
def test_an_input_is_never_replaced(stage: str, values: dict[str, str]) -> None:
    with pytest.raises(
        InputError, match=rf"^{stage}: --out would replace the input a(/\w+\.h5)?; choose another place$"
    ):
        build_options(stage, {**values, "overwrite": True})


def test_scores_may_lie_beside_their_masks() -> None:
    assert build_options("evaluate-masks", {"masks": "a"}).artefact == Path("a/scores.h5")


def test_everything_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        build_options("make-cams", {})
    assert str(caught.value) == "make-cams: --out and CHECKPOINT are required"
    with pytest.raises(InputError) as caught:
        build_options("make-cams", {"checkpoint": "cam.h5"})
    assert str(caught.value) == "make-cams: --out is required"


def test_dashes_and_underscores_are_the_same() -> None:
    assert build_options("make-cams", given("make-cams", **{"batch-size": 3})).batch_size == 3  # type: ignore[attr-defined]


def test_nearest_names_nothing_where_nothing_is_near() -> None:
    assert nearest("epoch", ["epochs", "seed"]) == " (did you mean 'epochs'?)"
    assert nearest("zzz", ["epochs", "seed"]) == ""


# Outputs and command lines


def test_where_the_artefact_of_each_stage_lies() -> None:
    for stage, model in STAGES.items():
        options = build_options(stage, given(stage, out="work/x"))
        folder = stage in ("export-masks", "predict-masks")
        assert model.writes_folder == folder
        assert options.artefact == (Path("work/x/masks.h5") if folder else Path("work/x"))


@pytest.mark.parametrize(
    ("masks", "scores"), [("work/masks", "work/masks/scores.h5"), ("work/masks/masks.h5", "work/masks/scores.h5")]
)
def test_scores_lie_beside_the_masks_unless_told_otherwise(masks: str, scores: str) -> None:
    assert build_options("evaluate-masks", {"masks": masks}).artefact == Path(scores)


@pytest.mark.parametrize(
    ("value", "word"),
    [(None, "none"), (True, "yes"), (False, "no"), (6e-5, "6e-05"), (0.1, "0.1"), (1 / 3, "0.3333333333333333"),
     (2, "2"), ((1.0, 0.5), "1,0.5"), (Path("a/b"), "a/b"), ("irn", "irn")],
)  # fmt: skip
def test_values_as_words(value: Any, word: str) -> None:
    assert as_word(value) == word


def words_to_settings(line: str) -> tuple[str, StageOptions]:
    """Read a command line back, without the command line's own parser."""
    program, stage, *words = shlex.split(line)
    assert program == "pseudolabel"
    model = STAGES[stage]
    settings: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            settings[next(name for name in model.model_fields if is_positional(model, name))] = word
            continue
        name = re.sub("^no-", "", word[2:]).replace("-", "_")
        name = f"{name}_" if f"{name}_" in model.model_fields else name
        if type_of(model, name)[0] is bool:
            settings[name] = not word.startswith("--no-")
        else:
            settings[word[2:]] = words.pop(0)
    return stage, build_options(stage, settings)


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_command_line_means_the_options_that_it_was_made_of(stage: str) -> None:
    model = STAGES[stage]
    changed: dict[str, Any] = {"out": "a folder/with spaces.h5"}
    for name in model.model_fields:
        default = default_of(model, name)
        if isinstance(default, bool):
            changed[name] = not default
        elif is_optional(model, name) and default is not None:
            changed[name] = None
    options = build_options(stage, given(stage, **changed))
    assert words_to_settings(command_line(stage, options)) == (stage, options)


def test_importing_the_settings_imports_nothing_heavy() -> None:
    heavy = "torch", "numpy", "h5py", "rich"
    code = f"import sys, pseudolabel.options; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_one_stage_imports_no_settings_of_others() -> None:
    code = (
        "import sys; from pseudolabel.options import STAGES; STAGES['train-cam']; "
        "print([name for name in ('data', 'masks', 'training') if f'pseudolabel.options.{name}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['training']\n"


def test_the_package_hands_on_every_name_and_no_other() -> None:
    for name in pseudolabel.options.__all__:
        assert getattr(pseudolabel.options, name) is not None
    with pytest.raises(AttributeError, match=r"^module 'pseudolabel.options' has no attribute 'import_module_of'$"):
        _ = pseudolabel.options.import_module_of

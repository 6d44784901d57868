"""search-crf: what is tried, what is chosen, what says oracle, going on after an interrupt, and each error's words."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from PIL import Image

from pseudolabel.artefacts import MapsReader, open_artefact, partial_path, read_header
from pseudolabel.artefacts.image_writer import StalePartialError
from pseudolabel.cli.app import main
from pseudolabel.data import Dataset, read_image
from pseudolabel.errors import ArtefactError, DatasetError, InputError
from pseudolabel.labels.assignment import assign, from_soft, probabilities
from pseudolabel.labels.crf_search import GT_PROB, ITERATIONS, RANGES, chosen_crf, draw_trials
from pseudolabel.metrics.agreement import area_agreement, edge_agreement
from pseudolabel.metrics.confusion import PixelCounter, class_counts
from pseudolabel.metrics.scores import class_mean, iou
from pseudolabel.options import RefineCrfOptions, SearchCrfOptions, build_options
from pseudolabel.pairwise import PRESETS, CrfSettings, dense_crf
from pseudolabel.runs.pipeline import read_pipeline
from pseudolabel.runs.runner import plan
from pseudolabel.runtime.progress import Progress
from pseudolabel.stages.search_crf import search_crf
from tests.helpers.artefacts import Interrupting, blurred_truth, interrupted, synthetic, write_maps, write_thresholds

COUNT, THRESHOLD = 4, 0.4
TRIALS = len(PRESETS) + 2


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


@pytest.fixture(scope="module")
def inputs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    cams = write_maps(folder / "cams.h5", "cams", dataset, blurred_truth(dataset, COUNT), protocol={"split": "train"})
    return {"cams": cams, "threshold": write_thresholds(folder / "t.h5", dataset.classes, THRESHOLD)}


@pytest.fixture(scope="module")
def made(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The result of both methods."""
    folder = tmp_path_factory.mktemp("made")
    return {method: search(inputs, folder / f"{method}.h5", method=method) for method in ("edges", "oracle")}


def options(inputs: dict[str, Path], out: Path, **values: Any) -> SearchCrfOptions:
    return SearchCrfOptions(**({**inputs, "out": out, "workers": 1, "trials": 2, "images": COUNT} | values))


def search(inputs: dict[str, Path], out: Path, progress: Progress | None = None, **values: Any) -> dict[str, Any]:
    found = search_crf(options(inputs, out, **values), progress or Progress())
    json.dumps(found, allow_nan=False)
    return found


def refusal(inputs: dict[str, Path], out: Path, **values: Any) -> str:
    with pytest.raises(InputError) as caught:
        search(inputs, out, **values)
    assert not out.exists()
    assert not out.with_suffix(".yaml").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def columns(path: Path) -> dict[str, Any]:
    """Every entry a trial: settings and scores."""
    with h5py.File(path) as file:
        every = {**file["settings"], **file["trials"]}
        return {name: item.asstr()[:].tolist() if item.dtype.kind == "S" else item[:] for name, item in every.items()}


def labels_of(cams: Path, dataset: Dataset, settings: CrfSettings | None) -> list[np.ndarray]:
    """Label maps after a CRF, or without one, image by image."""
    found = []
    with open_artefact(cams) as artefact:
        reader = MapsReader(artefact)
        for index in range(len(reader)):
            names, maps = reader.full_size(index)
            threshold = np.full(len(dataset.classes), THRESHOLD)
            if settings is None:
                found.append(assign(names, maps, threshold))
            else:
                image = read_image(dataset.records[index].image)
                refined = dense_crf(image, probabilities(names, maps, threshold), settings).probabilities
                found.append(np.concatenate([[0], names])[refined.argmax(axis=0)].astype(np.uint8))
    return found


def miou(labels: list[np.ndarray], dataset: Dataset) -> float:
    counter = PixelCounter(len(dataset.classes), boundary=None, ignored="background")
    tables = [counter.table(dataset.read_mask(r), found) for r, found in zip(dataset.records, labels, strict=False)]
    return float(class_mean(iou(class_counts(np.sum(tables, axis=0), "background"))))


def test_presets_come_first_and_more_trials_only_add() -> None:
    few, many = draw_trials(3, 7), draw_trials(40, 7)
    assert many[: len(few)] == few
    assert {trial.name: trial.settings for trial in few[: len(PRESETS)]} == PRESETS
    assert [trial.name for trial in few[len(PRESETS) :]] == ["random 1", "random 2", "random 3"]
    assert draw_trials(3, 8)[-1] != few[-1]


def test_random_settings_stay_in_their_ranges_and_have_three_digits() -> None:
    drawn = [trial.settings for trial in draw_trials(200, 0)[len(PRESETS) :]]
    for name, (low, high) in {**RANGES, "gt_prob": GT_PROB, "iterations": ITERATIONS}.items():
        values = [getattr(settings, name) for settings in drawn]
        assert low <= min(values) < low + 0.2 * (high - low)
        assert high - 0.2 * (high - low) < max(values) <= high
        assert all(float(f"{value:.3g}") == value for value in values)
    assert {settings.unary for settings in drawn} == {"soft", "hard"}


def test_the_criterion_is_the_mean_of_edges_times_areas(
    made: dict[str, dict[str, Any]], inputs: dict[str, Path], dataset: Dataset
) -> None:
    result, rows = made["edges"], columns(Path(made["edges"]["out"]))
    start = labels_of(inputs["cams"], dataset, None)
    images = [read_image(record.image) for record in dataset.records[:COUNT]]
    for name in ("toco", "random 2"):
        row = rows["name"].index(name)
        settings = CrfSettings(**{field: rows[field][row] for field in CrfSettings.__dataclass_fields__})
        labels = labels_of(inputs["cams"], dataset, settings)
        edges = np.array([edge_agreement(image, found) for image, found in zip(images, labels, strict=True)])
        areas = np.array([area_agreement(before, found) for before, found in zip(start, labels, strict=True)])
        for part, values in (("edges", edges), ("areas", areas), ("criterion", edges * areas)):
            assert rows[part][row] == pytest.approx(values.mean(), abs=1e-9), (name, part)
    edges = np.mean([edge_agreement(image, found) for image, found in zip(images, start, strict=True)])
    assert result["without_crf"] == {"criterion": round(edges, 6), "edges": round(edges, 6), "areas": 1.0}


def test_the_best_criterion_is_chosen_without_a_mask(made: dict[str, dict[str, Any]]) -> None:
    result = made["edges"]
    out = Path(result["out"])
    rows, header = columns(out), read_header(out, "crf-search")
    best = int(rows["criterion"].argmax())
    assert len(rows["name"]) == result["trials"] == TRIALS
    assert "miou" not in rows
    assert result["settings"]["bilateral_rgb"] == rows["bilateral_rgb"][best]
    assert result["criterion"] == round(rows["criterion"][best], 6)
    assert result["presets"] == {name: round(rows["criterion"][n], 6) for n, name in enumerate(PRESETS)}
    assert (result["oracle"], header.oracle) == ([], ())
    assert result["fitted_on"] == "edges and areas of 4 images of split train, no masks"
    assert header.protocol["crf_fitted_on"] == result["fitted_on"]
    assert [item.kind for item in header.inputs] == ["cams", "thresholds", "dataset"]


def test_without_masks_no_mask_is_opened(inputs: dict[str, Path], synthetic_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(synthetic_root, tmp_path / "bare")
    shutil.rmtree(root / "SegmentationClass")
    assert search(inputs, tmp_path / "crf.h5", root=root, trials=1, images=1)["oracle"] == []


def test_oracle_takes_the_best_miou_and_says_so(
    made: dict[str, dict[str, Any]], inputs: dict[str, Path], dataset: Dataset
) -> None:
    result = made["oracle"]
    out = Path(result["out"])
    rows, header = columns(out), read_header(out, "crf-search")
    for name in ("psa", "deeplab"):
        assert rows["miou"][rows["name"].index(name)] == pytest.approx(
            miou(labels_of(inputs["cams"], dataset, PRESETS[name]), dataset), abs=1e-9
        )
    assert result["miou"] == round(rows["miou"].max(), 6)
    assert result["without_crf"]["miou"] == round(miou(labels_of(inputs["cams"], dataset, None), dataset), 6)
    assert header.oracle == ("CRF settings searched against the masks of 4 images of split train",)
    assert header.protocol["crf_fitted_on"] == "masks of 4 images of split train (oracle)"
    np.testing.assert_array_equal(rows["criterion"], columns(Path(made["edges"]["out"]))["criterion"])


@pytest.mark.parametrize("method", ["edges", "oracle"])
def test_refine_crf_takes_the_yaml_and_passes_on_what_it_was_fitted_on(
    method: str, made: dict[str, dict[str, Any]], inputs: dict[str, Path], dataset: Dataset, tmp_path: Path
) -> None:
    result, soft = made[method], tmp_path / "soft.h5"
    words = [str(inputs["cams"]), "--threshold", str(inputs["threshold"]), "--out", str(soft), "--workers", "1"]
    assert main(["refine-crf", *words, "--config", result["yaml"], "--quiet"]) == 0
    header = read_header(soft)
    assert header.facts["crf"] == {"gt_prob": 0.7, **result["settings"]}
    assert header.protocol["crf"] == f"search-crf ({result['crf']})"
    assert header.protocol["crf_fitted_on"] == result["fitted_on"]
    assert list(header.oracle) == result["oracle"]
    assert [item.kind for item in header.inputs] == ["cams", "thresholds", "crf-search", "dataset"]
    if method == "oracle":
        with open_artefact(soft) as artefact:
            reader = MapsReader(artefact)
            labels = [from_soft(*reader.full_size(index)) for index in range(len(reader))]
        assert miou(labels, dataset) == pytest.approx(result["miou"], abs=1e-6)


def test_the_command_prints_what_the_stage_returns(
    inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(inputs["cams"]), "--threshold", str(inputs["threshold"]), "--images", "1", "--trials", "1", "--json"]
    assert main(["search-crf", *words, "--workers", "0", "--out", str(tmp_path / "crf.h5")]) == 0
    shown = json.loads(capsys.readouterr().out)
    again = search(inputs, tmp_path / "again.h5", images=1, trials=1)
    same = set(again) - {"out", "yaml"}
    assert {name: shown[name] for name in same} == {name: again[name] for name in same}
    assert (shown["out"], shown["yaml"]) == (str(tmp_path / "crf.h5"), str(tmp_path / "crf.yaml"))


def test_the_yaml_holds_options_of_refine_crf_alone(made: dict[str, dict[str, Any]], inputs: dict[str, Path]) -> None:
    result = made["edges"]
    text = Path(result["yaml"]).read_text()
    values = yaml.safe_load(text)
    assert values == {"settings": result["out"], **result["settings"]}
    assert text.startswith("# What search-crf chose on edges and areas of 4 images of split train, no masks.\n")
    refine = build_options("refine-crf", {**inputs, **values, "out": "soft.h5"})
    assert isinstance(refine, RefineCrfOptions)
    assert chosen_crf(refine).words == f"search-crf ({result['crf']})"


def test_numbers_override_the_settings_found(made: dict[str, dict[str, Any]], inputs: dict[str, Path]) -> None:
    result = made["oracle"]
    found = chosen_crf(RefineCrfOptions(**inputs, out="s.h5", settings=result["out"], spatial_xy=9, unary="soft"))
    assert (found.settings.spatial_xy, found.settings.unary) == (9, "soft")
    assert found.settings.bilateral_xy == result["settings"]["bilateral_xy"]
    assert found.words.startswith(f"search-crf ({result['crf']}), spatial xy 9.0")
    assert [header.oracle for header in found.parents.values()] == [tuple(result["oracle"])]
    engine = RefineCrfOptions(**inputs, out="s.h5", settings=result["out"], engine="exact")
    assert chosen_crf(engine).words == f"search-crf ({result['crf']}), engine exact"


def test_without_settings_the_preset_counts(inputs: dict[str, Path]) -> None:
    found = chosen_crf(RefineCrfOptions(**inputs, out="s.h5", preset="afa", iterations=3))
    assert (found.words, found.parents) == ("afa, iterations 3", {})


def test_seed_decides_and_workers_do_not(
    made: dict[str, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path
) -> None:
    digests = [read_header(Path(made["edges"]["out"])).digest]
    for name, more in {"workers": {"workers": 2}, "seed": {"seed": 1}}.items():
        search(inputs, tmp_path / f"{name}.h5", **more)
        digests.append(read_header(tmp_path / f"{name}.h5").digest)
    assert digests[0] == digests[1] != digests[2]


def test_images_are_drawn_by_the_seed_and_more_only_add(inputs: dict[str, Path], tmp_path: Path) -> None:
    ids = []
    for count in (1, 3):
        search(inputs, tmp_path / f"{count}.h5", images=count, trials=1)
        with h5py.File(tmp_path / f"{count}.h5") as file:
            ids.append(set(file["images/id"].asstr()[:]))
    assert [len(found) for found in ids] == [1, 3]
    assert ids[0] < ids[1]


def test_an_interrupted_search_goes_on_and_ends_the_same(inputs: dict[str, Path], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.h5", tmp_path / "broken.h5"
    search(inputs, whole, trials=1, method="oracle")
    interrupted(search_crf, options(inputs, broken, trials=1, method="oracle"), after=2)
    assert partial_path(broken).exists()
    assert not broken.exists()
    again = Interrupting()
    search(inputs, broken, again, trials=1, method="oracle")
    assert again.began == 2
    assert read_header(broken).digest == read_header(whole).digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.h5", "broken.yaml", "whole.h5", "whole.yaml"]


def test_a_search_begun_otherwise_is_not_gone_on_with(inputs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "crf.h5"
    interrupted(search_crf, options(inputs, out, trials=1), after=1)
    with pytest.raises(StalePartialError) as caught:
        search(inputs, out, trials=2)
    assert str(caught.value) == (
        f"{out}.partial was begun with another --trials (1, now 2); pass --overwrite to start anew, or another --out"
    )
    assert search(inputs, out, trials=2, overwrite=True)["trials"] == TRIALS


def test_soft_labels_are_searched_without_thresholds(dataset: Dataset, tmp_path: Path) -> None:
    maps = []
    for record in dataset.records[:2]:
        object_there = dataset.read_mask(record) == (record.tags or (1,))[0]
        likely = np.where(object_there, 200, 40).astype(np.uint8)
        maps.append({0: 255 - likely, (record.tags or (1,))[0]: likely})
    soft = write_maps(tmp_path / "soft.h5", "soft-labels", dataset, maps, stage="predict-masks")
    assert search({"cams": soft}, tmp_path / "crf.h5", trials=1)["images"] == 2


def test_images_without_an_object_or_skipped_are_not_drawn(
    dataset: Dataset, inputs: dict[str, Path], tmp_path: Path
) -> None:
    truth = blurred_truth(dataset, COUNT)
    cams = write_maps(tmp_path / "cams.h5", "cams", dataset, ["broken", {}, truth[2], {}])
    assert search({**inputs, "cams": cams}, tmp_path / "crf.h5", trials=1)["images"] == 1
    empty = write_maps(tmp_path / "empty.h5", "cams", dataset, [{}, {}])
    assert refusal({**inputs, "cams": empty}, tmp_path / "none.h5") == (
        f"{empty} has no map of an object, and without one a CRF has nothing to decide"
    )


def test_a_crf_that_only_does_harm_is_warned_about(
    dataset: Dataset, inputs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Maps that are the truth to the pixel: whatever a CRF changes is worse."""
    masks = [dataset.read_mask(record) for record in dataset.records[:2]]
    maps = [
        {c: (mask == c).astype(np.float16) for c in np.unique(mask).tolist() if c not in (0, 255)} for mask in masks
    ]
    exact = write_maps(tmp_path / "exact.h5", "cams", dataset, maps)
    found = search({**inputs, "cams": exact}, tmp_path / "crf.h5", trials=1)
    harm = found["criterion"] <= found["without_crf"]["criterion"]
    said = "warning: no CRF suits these images better than none does, by edges and areas; leave refine-crf out\n"
    assert harm
    assert capsys.readouterr().err == said


def test_oracle_without_masks_is_an_error(inputs: dict[str, Path], synthetic_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(synthetic_root, tmp_path / "bare")
    shutil.rmtree(root / "SegmentationClass")
    with pytest.raises(DatasetError) as caught:
        search(inputs, tmp_path / "crf.h5", method="oracle", root=root)
    photograph = root / "JPEGImages" / "scene_00000"
    assert str(caught.value).startswith(
        f"{inputs['cams']} does not fit the masks of split train: 4 faults: {photograph}"
    )
    assert "has no ground-truth mask; evaluation and tags from masks need one" in str(caught.value)


def test_masks_that_do_not_fit_or_say_nothing_are_errors(
    inputs: dict[str, Path], synthetic_root: Path, tmp_path: Path
) -> None:
    root, out = shutil.copytree(synthetic_root, tmp_path / "data"), tmp_path / "crf.h5"
    masks = sorted((root / "SegmentationClass").glob("*.png"))
    for path in masks:
        Image.fromarray(np.full_like(np.array(Image.open(path)), 255)).save(path)
    assert refusal(inputs, out, method="oracle", root=root) == (
        f"the ground truth of split train of {root} holds ignored pixels and no class in 4 images; "
        "if 255 stands for a class in its masks, pass --mask-values 255=CLASS"
    )
    Image.fromarray(np.zeros((3, 5), np.uint8)).save(masks[0])
    assert ", its ground truth has 5 x 3" in refusal(inputs, out, method="oracle", root=root)
    names = root / "classes.txt"
    names.write_text(names.read_text().strip() + "\ncow\n")
    assert refusal(inputs, out, method="oracle", root=root) == (
        f"{inputs['cams']} was made with other classes than {root} has: class 6 was 'none', is 'cow'; "
        "pass --root with the folder that it was made from"
    )


def test_inputs_that_mean_nothing_are_errors(inputs: dict[str, Path], dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "crf.h5"
    assert refusal({"cams": inputs["cams"]}, out) == (
        f"{inputs['cams']} holds CAMs, which need --threshold; run "
        f"'pseudolabel search-threshold {inputs['cams']} --out threshold.h5'"
    )
    other = write_thresholds(tmp_path / "other.h5", ("background", "cow"), THRESHOLD)
    assert f"{other} has thresholds for other classes" in refusal({**inputs, "threshold": other}, out)
    with pytest.raises(ArtefactError, match=r"holds thresholds .* wanted crf-search artefact"):
        chosen_crf(RefineCrfOptions(**inputs, out=out, settings=inputs["threshold"]))
    with pytest.raises(InputError, match="exists already; pass --overwrite"):
        search(inputs, inputs["threshold"].with_name("cams.h5"), cams=write_maps(out, "cams", dataset, [{}]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "0"], "search-crf: --trials: should be greater than or equal to 1, found '0'"),
        (["--images", "0"], "search-crf: --images: should be greater than or equal to 1, found '0'"),
        (["--out", "a.yaml"], "search-crf: --out a.yaml is where the settings go as YAML; end it in .h5"),
        (
            ["--method", "sweep"],
            "search-crf: --method: should be 'edges' or 'oracle', found 'sweep'",
        ),
    ],
)
def test_options_that_mean_nothing_are_errors(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search-crf", "cams.h5", "--out", "crf.h5", *words]) == 2
    assert capsys.readouterr().err.strip().removeprefix("error: ") == message


def test_a_pipeline_runs_it_and_finds_it_fresh(inputs: dict[str, Path], tmp_path: Path) -> None:
    config = tmp_path / "p.yaml"
    maps = {name: str(path) for name, path in inputs.items()}
    stages = {
        "crf": {"stage": "search-crf", **maps, "images": 1, "trials": 1, "method": "oracle"},
        "soft": {"stage": "refine-crf", **maps, "settings": "crf"},
    }
    config.write_text(yaml.safe_dump({"out": str(tmp_path / "out"), "defaults": {"workers": 0}, "stages": stages}))
    assert main(["run", str(config), "--only", "crf", "--quiet"]) == 0
    found = read_header(tmp_path / "out/crf.h5", "crf-search")
    assert found.oracle == ("CRF settings searched against the masks of 1 images of split train",)
    crf, soft = plan(read_pipeline(config))
    assert (crf["state"], soft["reason"]) == ("fresh", "has no output yet")
    assert f"--settings {tmp_path}/out/crf.h5" in soft["command"]
    main(shlex.split(soft["command"])[1:])
    again = plan(read_pipeline(config, {"crf.trials": "2"}))
    assert [(row["state"], row["reason"]) for row in again] == [
        ("run", "was made with another --trials (1, now 2)"),
        ("maybe", "if crf comes out different"),
    ]
    search_crf(options(inputs, tmp_path / "out/crf.h5", overwrite=True))
    assert plan(read_pipeline(config))[1]["reason"] == f"its input {tmp_path}/out/crf.h5 has changed"

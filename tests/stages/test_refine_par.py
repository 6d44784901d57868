"""``refine-par``: what is stored, rules, runs of several workers or batches, interruptions, whole errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pseudolabel.artefacts import MapsReader, open_artefact, read_header
from pseudolabel.data import Dataset, read_image
from pseudolabel.errors import InputError, PseudolabelError
from pseudolabel.labels.assignment import from_soft, softmax_probabilities
from pseudolabel.labels.inputs import MapsTask
from pseudolabel.options import RefineParOptions
from pseudolabel.pairwise.par import refine_reduced
from pseudolabel.stages import refine_par as stage
from pseudolabel.stages.refine_par import of_one_size, refine_par
from tests.helpers.artefacts import (
    Interrupting,
    interrupted,
    read_maps,
    refiner_inputs,
    synthetic,
    write_maps,
    write_thresholds,
)
from tests.helpers.cli import program

COUNT = 6


@pytest.fixture(scope="module")
def dataset(synthetic_root: Path) -> Dataset:
    return synthetic(synthetic_root)


@pytest.fixture(scope="module")
def inputs(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return refiner_inputs(tmp_path_factory.mktemp("inputs"), dataset, COUNT)


def options(inputs: dict[str, Path], out: Path, **values: Any) -> RefineParOptions:
    return RefineParOptions(**({**inputs, "out": out, "workers": 1, "device": "cpu", "dilations": (1, 2, 4)} | values))


def test_stored_labels_are_those_of_the_refinement(inputs: dict[str, Path], dataset: Dataset, tmp_path: Path) -> None:
    result = refine_par(options(inputs, tmp_path / "soft.h5"))
    assert (result["images"], result["skipped"]) == (COUNT, 0)
    with open_artefact(inputs["cams"]) as cams, open_artefact(tmp_path / "soft.h5") as soft:
        for index, record in enumerate(dataset.records[:COUNT]):
            labels, maps = MapsReader(cams).full_size(index)
            start = softmax_probabilities(labels, maps, np.full(len(dataset.classes), 0.4))
            image = torch.from_numpy(read_image(record.image)).permute(2, 0, 1)[None].float()
            refined = refine_reduced(image, torch.from_numpy(start)[None], (1, 2, 4), 10, 2)[0].numpy()
            found = from_soft(*MapsReader(soft).full_size(index))
            np.testing.assert_array_equal(found, np.concatenate([[0], labels])[refined.argmax(axis=0)])
            assert (found != np.concatenate([[0], labels])[start.argmax(axis=0)]).any()


def test_what_the_header_says(inputs: dict[str, Path], tmp_path: Path) -> None:
    refine_par(options(inputs, tmp_path / "soft.h5", confidence="irn", iterations=3))
    header = read_header(tmp_path / "soft.h5")
    assert (header.kind, header.stage) == ("soft-labels", "refine-par")
    assert header.protocol["par"] == "dilations 1, 2, 4, 3 iterations, 1/2 size"
    assert header.protocol["confidence"] == "irn, low 0.2, high 0.7"
    assert "crf" not in header.protocol


@pytest.mark.parametrize("rule", ["irn", "cosa", "posterior"])
def test_unlabelled_pixels_are_a_map_of_their_own(rule: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    refine_par(options(inputs, tmp_path / "soft.h5", confidence=rule, start="ratio", sure=0.7))
    for maps in read_maps(tmp_path / "soft.h5"):
        assert set(np.unique(maps[255])) == {0, 255}


def test_irn_refines_both_runs_as_if_alone(inputs: dict[str, Path], tmp_path: Path) -> None:
    refine_par(options(inputs, tmp_path / "both.h5", confidence="irn"))
    for name, value in {"high": 0.7, "low": 0.2}.items():
        own = write_thresholds(tmp_path / f"{name}-t.h5", read_header(inputs["cams"]).classes, value)
        refine_par(options(inputs, tmp_path / f"{name}.h5", threshold=own))
    high, low, both = (read_maps(tmp_path / f"{name}.h5") for name in ("high", "low", "both"))
    for sure, likely, found in zip(high, low, both, strict=True):
        sure_label, likely_label = (np.stack(list(maps.values())).argmax(axis=0) for maps in (sure, likely))
        np.testing.assert_array_equal(found[255] > 0, (sure_label == 0) & (likely_label > 0))
        for label, array in sure.items():
            np.testing.assert_array_equal(found[label], array)


def test_two_workers_write_the_same_as_one(inputs: dict[str, Path], tmp_path: Path) -> None:
    for workers in (1, 2):
        refine_par(options(inputs, tmp_path / f"{workers}.h5", workers=workers))
    one, two = (read_header(tmp_path / f"{workers}.h5") for workers in (1, 2))
    assert one.digest == two.digest


def test_images_in_batches_come_out_as_alone(
    inputs: dict[str, Path], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an accelerator images of one size are refined together; here the processor stands for one."""
    refine_par(options(inputs, tmp_path / "alone.h5"))
    sizes = []

    def batches(tasks: Any, most: int) -> Any:
        assert most == 1
        for batch in of_one_size(tasks, 4):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(stage, "of_one_size", batches)
    refine_par(options(inputs, tmp_path / "together.h5"))
    assert sum(sizes) == COUNT
    assert max(sizes) > 1
    for alone, together in zip(read_maps(tmp_path / "alone.h5"), read_maps(tmp_path / "together.h5"), strict=True):
        for label, array in alone.items():
            assert np.abs(array.astype(int) - together[label]).max() <= 1  # of 255


def test_batches_hold_neighbours_of_one_size(dataset: Dataset) -> None:
    sizes = [(4, 6)] * 3 + [(6, 4)] + [(4, 6)] * 5
    tasks = [(MapsTask(size, {}), dataset.records[0]) for size in sizes]
    batches = list(of_one_size(tasks, 2))
    assert [len(batch) for batch in batches] == [2, 1, 1, 2, 2, 1]
    assert [task for batch in batches for task in batch] == tasks


def test_a_killed_run_goes_on_and_ends_the_same(inputs: dict[str, Path], tmp_path: Path) -> None:
    refine_par(options(inputs, tmp_path / "whole.h5"))
    broken = options(inputs, tmp_path / "broken.h5")
    interrupted(refine_par, broken, after=3)
    again = Interrupting()
    refine_par(broken, again)
    assert again.began == 3
    assert read_header(broken.out).digest == read_header(tmp_path / "whole.h5").digest


def test_one_class_no_class_a_single_cell_and_skipped_images(
    inputs: dict[str, Path], dataset: Dataset, tmp_path: Path
) -> None:
    maps = [{}, {1: np.ones((1, 1))}, "is empty"]
    cams = write_maps(tmp_path / "cams.h5", "cams", dataset, maps)
    result = refine_par(options(inputs, tmp_path / "soft.h5", cams=cams))
    assert (result["images"], result["skipped"]) == (2, 1)
    with open_artefact(tmp_path / "soft.h5") as artefact:
        nothing, everything = (MapsReader(artefact).maps(index) for index in (0, 1))
        assert MapsReader(artefact).skipped == {dataset.records[2].id: "is empty"}
    assert list(nothing) == [0]
    assert (nothing[0] == 255).all()
    assert (everything[1] > everything[0]).all()


def test_a_photograph_too_large_for_the_memory_is_refused(
    inputs: dict[str, Path], dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "memory_free", lambda workers: 1000)
    with pytest.raises(PseudolabelError) as error:
        refine_par(options(inputs, tmp_path / "soft.h5"))
    assert str(error.value) == (
        f"{dataset.records[0].image}: its refinement needs about 0.0 GB and 0.0 GB are free; use fewer --workers, or "
        "make the photograph smaller"
    )


def test_a_rule_needs_its_thresholds(inputs: dict[str, Path], dataset: Dataset, tmp_path: Path) -> None:
    plain = write_thresholds(tmp_path / "t.h5", dataset.classes, 0.4)
    with pytest.raises(InputError) as error:
        refine_par(options(inputs, tmp_path / "soft.h5", threshold=plain, confidence="irn"))
    assert str(error.value) == (
        f"--confidence irn needs a low and a high threshold; {plain} lacks low and high: pass --low and --high to "
        "search-threshold"
    )
    assert not list(tmp_path.glob("soft*"))


def test_by_command(inputs: dict[str, Path], tmp_path: Path) -> None:
    words = f"refine-par {inputs['cams']} --threshold {inputs['threshold']} --out {tmp_path}/soft.h5 --workers 1"
    found = program(*words.split(), "--dilations", "1,2", "--device", "cpu", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["images"] == COUNT
    assert read_header(tmp_path / "soft.h5").options["dilations"] == [1, 2]
    failed = program(*words.split(), "--dilations", "0", "--overwrite")
    assert failed.returncode == 2
    assert failed.stderr == ("error: refine-par: --dilations: should be greater than or equal to 1, found '0'\n")

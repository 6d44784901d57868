"""IRN-style .npy dictionaries as CAMs, read without running what is in them."""

import os

import numpy as np
import pytest
from PIL import Image

from pseudolabel.artefacts import MapsReader, open_artefact
from pseudolabel.artefacts.inspection import lineage
from pseudolabel.data import open_dataset
from pseudolabel.data.pickled_arrays import read_arrays
from pseudolabel.errors import DatasetError, InputError
from pseudolabel.options import ImportCamsOptions, RefineCrfOptions, SearchThresholdOptions
from pseudolabel.runs.pipeline import Step
from pseudolabel.runs.runner import Freshness
from pseudolabel.stages.import_cams import fits, import_cams, reduced
from pseudolabel.stages.refine_crf import refine_crf
from pseudolabel.stages.search_threshold import search_threshold
from tests.helpers import irregular
from tests.helpers.artefacts import Meanwhile


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("created-by-a-pickle",))


def settings(root, tmp_path, **values):
    return ImportCamsOptions(
        dataset="voc", root=root, cams=tmp_path / "npy", out=tmp_path / "cams.h5", split="val", **values
    )


@pytest.fixture
def folder(synthetic_root, tmp_path):
    """A .npy dictionary for every image of the synthetic val split: the first tag's map is 0.75 on its left half."""
    (tmp_path / "npy").mkdir()
    dataset = open_dataset(settings(synthetic_root, tmp_path))
    for record in dataset.records:
        height, width = dataset.read_mask(record).shape
        maps = np.zeros((len(record.tags), height, width), dtype=np.float32)
        maps[0, :, : width // 2] = 0.75
        keys = np.array(record.tags) - 1
        np.save(tmp_path / "npy" / f"{record.id}.npy", {"keys": keys, "high_res": maps, "cam": maps}, allow_pickle=True)
    return dataset


def test_import_makes_a_cams_artefact(folder, synthetic_root, tmp_path):
    result = import_cams(settings(synthetic_root, tmp_path, grid=None))
    assert result["images"] == len(folder.records)
    with open_artefact(tmp_path / "cams.h5", "cams") as artefact:
        reader = MapsReader(artefact)
        assert reader.images.ids == tuple(record.id for record in folder.records)
        for index, record in enumerate(folder.records):
            labels, maps = reader.full_size(index)
            assert tuple(labels) == record.tags
            assert np.all(maps[0, :, : maps.shape[2] // 2] == 0.75)


def test_the_folder_is_an_input_that_lineage_and_freshness_see(folder, synthetic_root, tmp_path):
    options = settings(synthetic_root, tmp_path)
    import_cams(options)
    npy = next(node for node in lineage(options.out)["inputs"] if node["kind"] == "npy")
    assert (npy["path"], npy["state"]) == (str(tmp_path / "npy"), "recorded")
    step = Step("cams", "import-cams", options, ())
    assert Freshness().reason_to_run(step) is None
    victim = next((tmp_path / "npy").iterdir())
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # another map in as many bytes
    assert Freshness().reason_to_run(step) == f"its input {tmp_path / 'npy'} has changed"


def test_maps_are_reduced_to_the_grid(folder, synthetic_root, tmp_path):
    import_cams(settings(synthetic_root, tmp_path, grid=8))
    with open_artefact(tmp_path / "cams.h5", "cams") as artefact:
        assert max(next(iter(MapsReader(artefact).maps(0).values())).shape) == 8


def test_reducing_averages_areas():
    assert reduced(np.array([[0, 1], [1, 1]], dtype=np.float32), 1).tolist() == [[0.75]]


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "x.npy", {"keys": Evil()}, allow_pickle=True)
    with pytest.raises(
        DatasetError, match=r"x.npy is not an .npy dictionary of arrays: it names posix.mkdir, and only NumPy arrays"
    ):
        read_arrays(tmp_path / "x.npy")
    assert not (tmp_path / "created-by-a-pickle").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00"])
def test_files_that_are_no_npy(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DatasetError, match=r"x.npy is not an .npy dictionary of arrays"):
        read_arrays(tmp_path / "x.npy")


def test_a_plain_array_is_no_dictionary(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DatasetError) as error:
        read_arrays(tmp_path / "x.npy")
    assert str(error.value) == f"{tmp_path / 'x.npy'} holds an array (3,) of float64, not a dictionary of arrays"


def test_a_missing_file_is_named_or_skipped(folder, synthetic_root, tmp_path):
    gone = tmp_path / "npy" / f"{folder.records[1].id}.npy"
    gone.unlink()
    with pytest.raises(DatasetError) as error:
        import_cams(settings(synthetic_root, tmp_path))
    assert str(error.value) == f"{gone} does not exist; one .npy file is wanted for every image of the split"
    result = import_cams(settings(synthetic_root, tmp_path, on_error="skip", overwrite=True))
    assert result["skipped"] == 1
    with open_artefact(tmp_path / "cams.h5", "cams") as artefact:
        assert list(MapsReader(artefact).skipped) == [folder.records[1].id]


def test_a_folder_without_any_of_the_files_is_an_error_even_with_skip(folder, synthetic_root, tmp_path):
    files = sorted((tmp_path / "npy").iterdir())
    for file in files:
        file.unlink()
    with pytest.raises(DatasetError, match=rf"none of the 4 images could be used, .*; the first: {files[0]} does not"):
        import_cams(settings(synthetic_root, tmp_path, on_error="skip"))
    assert not list(tmp_path.glob("cams.h5*"))


def test_another_key_is_asked_for_by_name(folder, synthetic_root, tmp_path):
    with pytest.raises(
        DatasetError, match=r"has no entry 'maps', only 'keys', 'high_res', 'cam'; pass --array and --keys"
    ):
        import_cams(settings(synthetic_root, tmp_path, array="maps"))


def test_class_numbers_out_of_range(folder, synthetic_root, tmp_path):
    path = tmp_path / "npy" / f"{folder.records[0].id}.npy"
    np.save(path, {"keys": np.array([99]), "high_res": np.zeros((1, 4, 4))}, allow_pickle=True)
    with pytest.raises(DatasetError, match=r"keys \[99\] are not within 0 to \d+, the object classes from 0"):
        import_cams(settings(synthetic_root, tmp_path))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (np.array([np.nan]), "'keys' holds nan, which is no class number; wanted integers from 0"),
        ([None], "'keys' holds none, which is no class number; wanted integers from 0"),
        (None, "'keys' holds none, which is no class number; wanted integers from 0"),
        (["cat"], "'keys' holds cat, which is no class number; wanted integers from 0"),
        (np.array(["cat"]), "'keys' holds none, which is no class number; wanted integers from 0"),
        (np.array([1.5]), "'keys' holds 1.5, which is no class number; wanted integers from 0"),
        (np.array([True]), "'keys' holds yes, which is no class number; wanted integers from 0"),
        (np.array([1, 1]), "'keys' holds class 1 twice; wanted each class of the image once"),
        (np.array([0, 1]), "'high_res' has shape (1, 4, 4) for 2 keys; wanted finite (P, H, W)"),
    ],
)
def test_class_numbers_that_are_none_are_one_line(keys, said, folder, synthetic_root, tmp_path):
    path = tmp_path / "npy" / f"{folder.records[0].id}.npy"
    np.save(path, {"keys": keys, "high_res": np.zeros((1, 4, 4))}, allow_pickle=True)
    with pytest.raises(DatasetError) as caught:
        import_cams(settings(synthetic_root, tmp_path))
    assert str(caught.value) == f"{path}: {said}"


@pytest.mark.parametrize("maps", ["text", None, [np.zeros((2, 2)), np.zeros((3, 3))], np.array(["a"], dtype=object)])
def test_maps_that_are_none_are_one_line(maps, folder, synthetic_root, tmp_path):
    path = tmp_path / "npy" / f"{folder.records[0].id}.npy"
    np.save(path, {"keys": [0], "high_res": maps}, allow_pickle=True)
    with pytest.raises(DatasetError, match=rf"^{path}: 'high_res' .*; wanted finite \(P, H, W\)$"):
        import_cams(settings(synthetic_root, tmp_path))


def test_a_missing_folder(synthetic_root, tmp_path):
    with pytest.raises(InputError) as error:
        import_cams(settings(synthetic_root, tmp_path))
    assert str(error.value) == f"{tmp_path / 'npy'} is not a folder of ID.npy files"


@pytest.mark.parametrize(
    ("shape", "size", "wanted"),
    [
        ((48, 64), (48, 64), True),
        ((64, 48), (48, 64), False),
        ((12, 16), (48, 64), True),
        ((16, 12), (48, 64), False),
        ((375, 500), (375, 500), True),
        ((24, 32), (375, 500), True),  # of cells of 16: 23.4 and 31.25
        ((23, 31), (375, 500), True),
        ((32, 24), (375, 500), False),
        ((94, 125), (375, 500), True),
        ((14, 14), (375, 500), False),  # of a square crop, or squeezed: nobody can tell
        ((14, 14), (224, 224), True),
        ((14, 14), (220, 230), True),
        ((1, 1), (375, 500), True),
        ((512, 512), (375, 500), False),  # padded
        ((374, 500), (375, 500), True),
        ((370, 500), (375, 500), False),
    ],
)
def test_a_grid_must_have_the_shape_of_the_photograph(shape, size, wanted):
    assert fits(shape, size) is wanted


def refusal(folder, synthetic_root, tmp_path, change):
    """What is said of maps that ``change`` has made others of; and the photograph's height and width."""
    record = folder.records[0]
    path = tmp_path / "npy" / f"{record.id}.npy"
    maps = np.load(path, allow_pickle=True).item()
    np.save(path, maps | {"high_res": change(maps["high_res"])}, allow_pickle=True)
    with pytest.raises(DatasetError) as caught:
        import_cams(settings(synthetic_root, tmp_path))
    return str(caught.value).removeprefix(f"{path}: "), record.image, maps["high_res"].shape


def test_maps_of_a_part_are_refused(folder, synthetic_root, tmp_path):
    said, image, (_, tall, wide) = refusal(folder, synthetic_root, tmp_path, lambda maps: maps[:, :-9])
    assert said == (
        f"maps {tall - 9} high and {wide} wide are not of the shape of {image}, which is {tall} high and {wide} wide; "
        "wanted maps of the whole photograph, (P, H, W)"
    )


def test_transposed_maps_are_refused(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "tags.csv").write_text("a,dog\n")
    (tmp_path / "npy").mkdir()
    maps = {"keys": np.array([0]), "high_res": np.zeros((1, 64, 48), dtype=np.float32)}
    np.save(tmp_path / "npy" / "a.npy", maps, allow_pickle=True)
    options = ImportCamsOptions(
        dataset="folder", root=tmp_path, split="all", cams=tmp_path / "npy", out=tmp_path / "cams.h5"
    )
    with pytest.raises(DatasetError) as caught:
        import_cams(options)
    assert str(caught.value) == (
        f"{tmp_path}/npy/a.npy: maps 64 high and 48 wide are not of the shape of {tmp_path}/a.png, which is 48 high "
        "and 64 wide (they look transposed); wanted maps of the whole photograph, (P, H, W)"
    )


def test_maps_with_the_classes_last_are_refused(folder, synthetic_root, tmp_path):
    said, _, _ = refusal(folder, synthetic_root, tmp_path, lambda maps: maps.transpose(1, 2, 0))
    assert said.startswith("'high_res' has shape (")


def test_values_outside_0_to_1_are_counted_and_refused(folder, synthetic_root, tmp_path):
    def logits(maps):
        maps = maps.copy()
        maps[0, 0, :3] = -3, 9, 2
        return maps

    said, _, shape = refusal(folder, synthetic_root, tmp_path, logits)
    assert said == (
        f"3 of {np.prod(shape)} values of 'high_res' are outside [0, 1] (they go from -3 to 9); normalise the maps "
        "first: logits by a sigmoid, CAMs by setting negative values to 0 and dividing each map by its largest"
    )


def test_rounding_beyond_0_and_1_is_taken(folder, synthetic_root, tmp_path):
    path = tmp_path / "npy" / f"{folder.records[0].id}.npy"
    maps = np.load(path, allow_pickle=True).item()
    maps["high_res"][0, 0, :2] = -1e-4, 1.0005
    np.save(path, maps, allow_pickle=True)
    import_cams(settings(synthetic_root, tmp_path, grid=None))
    with open_artefact(tmp_path / "cams.h5", "cams") as artefact:
        first = MapsReader(artefact).full_size(0)[1][0, 0]
    assert first[:2].tolist() == [0, 1]


def test_how_photographs_are_read_is_stored_for_later_stages(tmp_path):
    """CRF on colours below an alpha that is data gives the same as on the colours alone."""
    rng = np.random.default_rng(0)
    colours, infrared = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), rng.integers(0, 200, (12, 16, 1))
    four = np.concatenate([colours, infrared.astype(np.uint8)], axis=2)
    (tmp_path / "npy").mkdir()
    maps = {"keys": np.array([0]), "high_res": rng.random((1, 12, 16), dtype=np.float32)}
    np.save(tmp_path / "npy" / "a.npy", maps, allow_pickle=True)
    found = {}
    for name, pixels, alpha in (("rgb", colours, "composite"), ("rgba", four, "drop"), ("white", four, "composite")):
        root = tmp_path / name
        root.mkdir()
        Image.fromarray(pixels).save(root / "a.png")
        (root / "tags.csv").write_text("a,dog\n")
        cams, soft = root / "cams.h5", root / "soft.h5"
        import_cams(ImportCamsOptions(
            dataset="folder", root=root, split="all", cams=tmp_path / "npy", out=cams, grid=None, alpha=alpha
        ))  # fmt: skip
        search_threshold(SearchThresholdOptions(cams=cams, method="fixed", out=root / "t.h5"))
        refine_crf(RefineCrfOptions(cams=cams, threshold=root / "t.h5", out=soft, workers=0))
        with open_artefact(soft, "soft-labels") as artefact:
            assert artefact.header.dataset.get("alpha") == ("drop" if alpha == "drop" else None)
            found[name] = MapsReader(artefact).maps(0)[1]
    np.testing.assert_array_equal(found["rgba"], found["rgb"])
    assert (found["white"] != found["rgb"]).any()


def test_a_file_that_something_else_takes_the_place_of_meanwhile(folder, synthetic_root, tmp_path):
    last = tmp_path / "npy" / f"{folder.records[-1].id}.npy"
    whole = last.read_bytes()
    with pytest.raises(DatasetError) as error:
        import_cams(settings(synthetic_root, tmp_path), Meanwhile(lambda: irregular.put("pipe", last)))
    assert str(error.value) == f"{last} cannot be read: it is a named pipe, not a regular file"
    last.unlink()
    last.write_bytes(whole)
    result = import_cams(settings(synthetic_root, tmp_path, on_error="skip"), Meanwhile(last.unlink))
    assert (result["images"], result["skipped"]) == (len(folder.records) - 1, 1)

"""Choosing among feature files: what --where knows, and what is said where several fit."""

import os
from dataclasses import replace

import pytest
from features import make_spec, write_file

from cache import CacheMiss, RequestError, open_features
from cache.catalogue import Wish, find_features
from cache.commands.names import encoder_label, short_label


@pytest.fixture
def stored(tmp_path):
    """write(name, notes, **key) -> a file of three rows; all are of one encoder, size and set."""

    def write(name, notes=None, **key):
        spec = replace(make_spec(n_rows=3, **key), notes=notes or {})
        return write_file(tmp_path / "toys" / f"toy_8_{name}.h5", spec)

    return write


def find(tmp_path, **where):
    found, troubles = find_features(tmp_path, Wish(where=where))
    assert troubles == []
    return [features.path for features in found]


def find_models(tmp_path, *models):
    found, troubles = find_features(tmp_path, Wish(models=models))
    assert troubles == []
    return [features.path for features in found]


def test_of_several_keys_one_must_be_chosen(tmp_path, stored):
    a, b = stored("a", precision="fp32"), stored("b", precision="bf16")
    with pytest.raises(RequestError) as error:
        find(tmp_path)
    lines = str(error.value).splitlines()
    assert lines[0] == "several features of toy at 8 px on toys; choose one of them:"
    assert lines[2] == "    precision: fp32 -> bf16"
    assert lines[3].endswith("or by --where precision=fp32, --where precision=bf16")
    assert find(tmp_path, precision="fp32") == [a]
    assert find(tmp_path, precision="bf16") == [b]


def test_of_images_that_changed_the_older_file_is_named_and_how_it_goes(tmp_path, stored):
    new, old = stored("a", images="sha256:9306"), stored("b", images="sha256:adcf")
    os.utime(old, (0, 0))
    with pytest.raises(RequestError) as error:
        find(tmp_path)
    (line,) = [line for line in str(error.value).splitlines() if "rows" in line]
    assert line.count("3 rows (") == 2
    assert line.endswith(f"delete that: cache rm {old}")
    os.utime(old, ns=(new.stat().st_mtime_ns,) * 2)  # nobody knows which is older
    with pytest.raises(RequestError) as error:
        find(tmp_path)
    assert "cache rm" not in str(error.value)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("features/toys/a.h5", "(a feature file is named without --data); here are: toys"),
        ("folder:x/toys", "(it is stored as toys); here are: toys"),
        ("csv:toys.csv", "(it is stored as toys); here are: toys"),
        ("folder:jpg", "folder:jpg is none; here are: toys"),
        ("*", "* is none; here are: toys"),
    ],
)
def test_what_names_no_data_set_is_no_command(tmp_path, stored, word, said):
    stored("a")
    with pytest.raises(CacheMiss) as error:
        find_features(tmp_path, Wish(datasets=(word,)))
    assert said in str(error.value)
    assert "extract" not in str(error.value)
    with pytest.raises(CacheMiss, match=rf"extract --model dinov2 --data folder:{tmp_path}$"):
        find_features(tmp_path, Wish(datasets=(f"folder:{tmp_path}",)))


def test_protocols_are_told_apart_by_their_names(tmp_path, stored):
    """Not by one of the dozen parts of a transform that they stand for."""
    plain = stored("a", transform={"resize": "scale", "interpolation": "bicubic"})
    wu = {"resize": "longest (PIL)", "interpolation": "bilinear"}
    as_in = stored("b", {"protocol": "wu2025"}, transform=wu)
    words = "wu2025, but interpolation nearest"
    nearly = stored("c", {"protocol": words}, transform=wu | {"interpolation": "nearest"})
    with pytest.raises(RequestError) as error:
        find(tmp_path)
    assert (
        "or by --where protocol=none, --where protocol=wu2025, --where 'protocol=wu2025, but "
        "interpolation nearest'" in str(error.value)
    )
    assert find(tmp_path, protocol="none") == [plain]
    assert find(tmp_path, protocol="wu2025") == [as_in]
    assert find(tmp_path, protocol=words) == [nearly]
    assert find(tmp_path, interpolation="bilinear") == [as_in]


def test_unknown_and_ambiguous_parts_are_refused(tmp_path, stored):
    stored("a", transform={"mean": [0.5]}, other={"mean": "x"})
    with pytest.raises(RequestError, match=r"no key has a part 'nose'; .* has protocol, .*store"):
        find(tmp_path, nose="1")
    with pytest.raises(RequestError, match=r"may mean other\.mean or transform\.mean"):
        find(tmp_path, mean="x")


def test_the_command_that_makes_what_is_missing_has_what_was_asked_for(tmp_path, stored):
    stored("a")
    where = {"protocol": "wu2025", "precision": "bf16", "transform.resize": "scale"}
    with pytest.raises(CacheMiss) as error:
        find_features(tmp_path, Wish(models=("toy",), where=where | {"store": "none"}))
    assert str(error.value).endswith("extract --model toy --protocol wu2025 --precision bf16")


OWN = {"own_weights": True}
TUNED = "encoder.safetensors, fine-tuned on toys (full, encoder lr 0.001, seed 0)"


@pytest.mark.parametrize(
    ("notes", "weights", "label"),
    [
        ({}, "sha256:3f2a00", "toy"),
        ({**OWN, "weights": TUNED}, "sha256:3f2a00", "toy (tuned on toys 3f2a)"),
        ({**OWN, "weights": "mine.pt"}, "sha256:3f2a00", "toy (mine.pt 3f2a)"),
        ({"random_weights": True}, "random, seed 0, sha256:3f2a00", "toy (random)"),
    ],
)
def test_other_weights_have_a_name_of_their_own(stored, notes, weights, label):
    assert open_features(stored("a", notes, weights=weights)).label == label


def test_random_weights_are_named_as_extract_names_them_and_values_that_are_there_are_said(
    tmp_path, stored
):
    plain = stored("a", weights="sha256:3f2a99")
    with pytest.raises(CacheMiss) as error:
        find_features(tmp_path, Wish(models=("toy",), where={"weights": "random"}))
    assert "; those that are there have weights 3f2a; make them with" in str(error.value)
    assert str(error.value).endswith("extract --model toy --weights random")
    random = stored("b", {"random_weights": True}, weights="random, seed 0, sha256:3f2a00")
    assert find(tmp_path, weights="random") == [random]
    assert find(tmp_path) == [plain]
    with pytest.raises(CacheMiss, match="those that are there have weights random, seed 0 or 3f2a"):
        find_features(tmp_path, Wish(models=("toy",), where={"weights": "4f2a"}))


def test_a_name_means_the_published_encoder_where_it_is_there(tmp_path, stored):
    tuned = {
        stored(d, {**OWN, "weights": TUNED}, weights=f"sha256:{d}") for d in ("3f2a00", "3f2b00")
    }
    assert {*find_models(tmp_path, "toy")} == tuned
    plain = stored("a", weights="sha256:3f2a99")
    assert {*find_models(tmp_path)} == {plain, *tuned}  # each under a name of its own
    assert find_models(tmp_path, "toy") == [plain]
    assert {*find_models(tmp_path, "toy (tuned on toys 3f2b)", "toy")} == {
        plain,
        tmp_path / "toys" / "toy_8_3f2b00.h5",
    }
    assert {*find_models(tmp_path, "toy.random")} == {plain, *tuned}  # the full name: all of it
    assert {*find(tmp_path, weights="3f2a")} == {plain, tmp_path / "toys" / "toy_8_3f2a00.h5"}
    assert find(tmp_path, weights="3f2a9") == [plain]
    with pytest.raises(CacheMiss):
        find(tmp_path, weights="3f")  # too short to mean one


def test_norm2_files_have_a_name_of_their_own(tmp_path, stored):
    usual = stored("a", layers={"of": 2, "stored": [0, 1], "norm": "tokens"})
    norm2 = stored("b", layers={"of": 2, "stored": [0, 1], "norm": "norm2", "last": "tokens"})
    assert find_models(tmp_path) == [usual, norm2]  # never two of one name
    assert find_models(tmp_path, "toy") == [usual]
    assert find_models(tmp_path, "toy (norm2)") == [norm2]
    assert (
        find(tmp_path, layer_norm="norm2") == find(tmp_path, **{"layers.norm": "norm2"}) == [norm2]
    )
    assert find(tmp_path, layer_norm="tokens") == [usual]
    norm2.unlink()
    for wish in (Wish(("toy (norm2)",)), Wish(("toy",), where={"layer_norm": "norm2"})):
        with pytest.raises(CacheMiss, match="extract --model toy --layer-norm norm2$"):
            find_features(tmp_path, wish)
    with pytest.raises(
        CacheMiss, match="have layer_norm tokens; make them with\n  extract --model toy$"
    ):
        find_features(tmp_path, Wish(("toy",), where={"layer_norm": "none"}))


FILE = "weights_of_my_own_training.pth"


@pytest.mark.parametrize(
    ("notes", "norm", "label", "short"),
    [
        ({}, "tokens", "toy", "toy"),
        ({}, "norm2", "toy (norm2)", "toy (norm2)"),
        ({"random_weights": True}, "norm2", "toy (random norm2)", "toy (random norm2)"),
        (OWN | {"weights": FILE}, "none", f"toy ({FILE} 3f2a)", "toy (3f2a)"),
        (OWN | {"weights": FILE}, "norm2", f"toy ({FILE} 3f2a norm2)", "toy (3f2a norm2)"),
    ],
)
def test_labels(notes, norm, label, short):
    assert (
        encoder_label("toy", notes, {"weights": "sha256:3f2a99", "layers": {"norm": norm}}) == label
    )
    assert short_label(label) == short


def test_digests_that_tell_files_apart_are_shown_in_short(tmp_path, stored):
    """The same published name, other weights: the hub has changed them."""
    stored("a", weights="sha256:" + "ab" * 32)
    stored("b", weights="sha256:" + "cd" * 32)
    with pytest.raises(RequestError, match=r"--where weights=abababab, --where weights=cdcdcdcd$"):
        find(tmp_path)

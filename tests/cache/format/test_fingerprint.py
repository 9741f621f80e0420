"""Fingerprints: what they see, how they are stored, and who is told when they moved."""

import hashlib
from dataclasses import replace

import h5py
import numpy as np
import pytest
from features import ARRAYS, make_spec, payload, write_file, write_units
from looking import some
from numpy.testing import assert_allclose

from cache import BrokenCache, RequestError, StaleCache, open_features
from cache.cli import main
from cache.format.fingerprint import describe_drift, drift, short_form, summarise, tolerance
from cache.format.key import canonical_json, partial_path
from cache.format.read import _plain, read_header
from cache.format.spec import attributes_crc
from cache.store import FeatureWriter


def vectors(scale=1.0, noise=0.0, names=tuple(ARRAYS), width=768):
    rng = np.random.default_rng(0)
    plain = {name: rng.normal(1, 1, width) for name in names}
    return {name: scale * x + noise * rng.normal(size=width) for name, x in plain.items()}


def fingerprinted(**changes):
    key = changes.pop("key", {})
    return replace(make_spec(**key), versions={"timm": "1.0.20", "torch": "2.6"}, **changes)


SOME = summarise(vectors())
MOVED = summarise(vectors(noise=0.1))
NOISY = summarise(vectors(noise=1e-5))


def test_the_numbers_are_the_same_forever():
    # Written down once: a change here makes every stored fingerprint look like drift.
    assert summarise({"head": np.arange(4, dtype=np.float32)}) == {
        "head": [3.741657, 0.0, 0.0, -2.0, -4.0, -2.0, 0.0, -2.0]
    }


def test_eight_numbers_as_the_format_page_has_them():
    x = vectors()["head"]
    stream = hashlib.shake_128(b"medprobe").digest(len(x))
    sums = [
        sum(-v if byte >> j & 1 else v for v, byte in zip(x, stream, strict=True)) for j in range(7)
    ]
    assert_allclose(SOME["head"], [np.sqrt((x**2).sum()), *sums], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("component", [0, 1, 500, 767])
def test_a_change_of_any_component_shows_in_every_projection(component):
    x = vectors()["head"]
    y = x.copy()
    y[component] += 0.01
    changes = np.subtract(summarise({"head": x})["head"], summarise({"head": y})["head"])
    assert_allclose(np.abs(changes[1:]), 0.01, atol=2e-5)


@pytest.mark.parametrize("relative", [1e-5, 1e-3, 0.1])
def test_drift_estimates_the_relative_change(relative):
    rng = np.random.default_rng(1)
    found = []
    for _ in range(50):
        x, change = rng.normal(1, 3, 768), rng.normal(size=768)
        y = x + relative * change * np.linalg.norm(x) / np.linalg.norm(change)
        found.append(drift(summarise({"head": x}), summarise({"head": y}))["head"])
    assert_allclose(np.mean(found), relative, rtol=0.2)
    assert min(found) > relative / 4


def test_what_turns_nothing_but_the_length_shows_too():
    moved = drift(SOME, summarise(vectors(scale=1.01)))
    assert moved.keys() == SOME.keys()
    assert all(0.0099 < value < 0.02 for value in some(moved.values()))
    constant = {"head": vectors()["head"] + 0.01}  # no sum over a Hadamard row would see it
    assert drift(SOME, summarise(constant))["head"] > 1e-3


def test_vectors_of_zeros_have_no_length_to_divide_by():
    zero, one = summarise({"head": np.zeros(4)}), summarise({"head": np.ones(4)})
    assert drift(zero, zero) == {"head": 0.0}
    assert drift(zero, one)["head"] == drift(one, zero)["head"] >= 1.0


def test_only_what_both_have_is_compared():
    assert drift({"head": SOME["head"]}, SOME) == {"head": 0.0}
    assert drift({}, SOME) == {} == drift(SOME, {})


def test_a_picture_that_overflows_is_refused():
    with pytest.raises(RequestError, match="layers/00/cls holds NaN or infinity.*--precision fp32"):
        summarise({"layers/00/cls": np.array([1.0, np.inf])})
    with pytest.raises(ValueError, match=r"expected one vector .* found shape \(1, 3\)"):
        summarise({"head": np.zeros((1, 3))})


def test_narrow_formats_may_move_farther():
    assert tolerance({"precision": "fp32"}) == tolerance({}) == 1e-3
    assert tolerance({"precision": "bf16"}) == 5e-2
    assert tolerance({"precision": "fp32"}, {"precision": "tf32"}) == 5e-2


# ---------------------------------------------------------------------------- in the file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "toys" / "toy_8_0123456789ab.h5"


def test_what_is_stored_is_read_back(path):
    features = open_features(write_file(path, fingerprinted(fingerprint=SOME)))
    assert features.fingerprint == SOME
    assert features.versions == {"timm": "1.0.20", "torch": "2.6"}


def test_a_file_without_one_has_no_such_attribute(path):
    features = open_features(write_file(path, make_spec()))
    assert features.fingerprint == {}
    assert "fingerprint" not in features.header.attributes


@pytest.mark.parametrize("n_arrays", [80, 1023])
def test_it_fits_however_many_arrays_there_are(path, n_arrays):
    """1023 arrays need more than the 64 KiB that HDF5 once allowed an attribute."""
    arrays = {f"layers/{i:02d}/mean": 2 for i in range(n_arrays)}
    print_of_all = summarise(vectors(names=arrays, width=64))
    n_bytes = len(canonical_json(print_of_all))
    assert n_bytes < 10_000 if n_arrays == 80 else n_bytes > 2**16
    spec = replace(make_spec(n_rows=3, arrays=arrays), fingerprint=print_of_all)
    assert open_features(write_file(path, spec)).fingerprint == print_of_all
    with h5py.File(path, "r") as file:  # at a fixed length, which has a place under a checksum
        kind = file.attrs.get_id("fingerprint").get_type()
        assert isinstance(kind, h5py.h5t.TypeStringID)
        assert not kind.is_variable_str()


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        '{"head":1}',
        '{"head":[1,2,3]}',
        '{"head":[1,2,3,4,5,6,7,NaN]}',
        '{"head":[-1,2,3,4,5,6,7,8]}',
        '{"head":[true,2,3,4,5,6,7,8]}',
        '{"head":["1",2,3,4,5,6,7,8]}',
        '{"layers/77/cls":[1,2,3,4,5,6,7,8]}',
        7,
    ],
)
def test_what_is_no_fingerprint_is_refused(path, value):
    write_file(path, make_spec())
    with h5py.File(path, "r+") as file:
        file.attrs["fingerprint"] = value
        attributes = {name: _plain(v) for name, v in file.attrs.items()}
        file.attrs["attributes_crc32"] = attributes_crc(attributes)
    with pytest.raises(BrokenCache, match="fingerprint should be as FORMAT.md has it"):
        read_header(path)


def test_a_flipped_bit_in_it_is_noticed(path):
    write_file(path, fingerprinted(fingerprint=SOME))
    content = path.read_bytes()
    place = content.index(f"{SOME['head'][0]}".encode())
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(BrokenCache):
        read_header(path)


# ---------------------------------------------------------------------------- resuming


def begin(path, **changes):
    with FeatureWriter(path, fingerprinted(fingerprint=SOME, **changes)) as writer:
        write_units(writer, [0])


def test_resuming_with_other_numbers_is_refused_in_one_line(path):
    begin(path)
    later = replace(fingerprinted(fingerprint=MOVED), versions={"timm": "1.0.31", "torch": "2.6"})
    with pytest.raises(StaleCache) as error:
        FeatureWriter(path, later)
    said = str(error.value)
    assert "same key, but other numbers" in said
    assert "fingerprint moved by up to 0." in said
    assert "versions: timm: 1.0.20 -> 1.0.31;" in said
    assert "torch" not in said
    assert "--overwrite starts anew, or install the versions the file was begun with" in said
    assert "\n" not in said
    assert partial_path(path).exists()
    with FeatureWriter(path, later, overwrite=True) as writer:
        assert writer.todo == [0, 1, 2]
        write_units(writer)
        assert writer.finish({})
    assert open_features(path).fingerprint == MOVED


@pytest.mark.parametrize("now", [SOME, NOISY, {}])
def test_resuming_with_the_same_numbers_goes_on(path, now):
    begin(path)
    with FeatureWriter(path, fingerprinted(fingerprint=now)) as writer:
        assert writer.todo == [1, 2]


def test_resuming_a_file_that_has_none_goes_on(path):
    with FeatureWriter(path, make_spec()) as writer:
        write_units(writer, [0])
    with FeatureWriter(path, fingerprinted(fingerprint=SOME)) as writer:
        assert writer.todo == [1, 2]


def test_a_narrow_format_is_given_more_room(path):
    begin(path, key={"precision": "bf16"})
    near = summarise(vectors(noise=0.02))
    assert 1e-3 < max(drift(SOME, near).values()) < 5e-2
    with FeatureWriter(path, fingerprinted(fingerprint=near, key={"precision": "bf16"})) as writer:
        assert writer.todo == [1, 2]
    with pytest.raises(StaleCache, match=r"up to 0\.05 is rounding"):
        FeatureWriter(path, fingerprinted(fingerprint=MOVED, key={"precision": "bf16"}))


def test_a_complete_file_is_left_alone_whatever_is_installed(path):
    write_file(path, fingerprinted(fingerprint=SOME))
    with FeatureWriter(path, fingerprinted(fingerprint=MOVED)) as writer:
        assert writer.was_complete
        writer.check_fingerprint(MOVED)


def test_a_damaged_file_is_not_mended_with_other_numbers(path):
    write_file(path, fingerprinted(fingerprint=SOME))
    before = payload(open_features(path))
    with path.open("r+b") as file:
        file.seek(read_header(path).arrays["head"].offset)
        file.write(b"\x01\x02\x03")
    with pytest.raises(StaleCache, match="other numbers"):
        FeatureWriter(path, fingerprinted(fingerprint=MOVED))
    assert path.exists()  # still under its name: nothing was taken back
    with FeatureWriter(path, fingerprinted()) as writer:  # the encoder isn't loaded yet
        with pytest.raises(StaleCache, match="other numbers"):
            writer.check_fingerprint(MOVED)
        writer.check_fingerprint(NOISY)
        write_units(writer)
        assert writer.finish({})
    assert payload(open_features(path)) == before


# ---------------------------------------------------------------------------- the command


def diff(capsys, a, b):
    status = main(["diff", str(a), str(b)])
    return status, capsys.readouterr().out.splitlines()


@pytest.fixture
def stored(tmp_path):
    """write(name, ...) -> a file of three rows."""

    def write(name, **changes):
        key = changes.pop("key", {})
        spec = replace(make_spec(n_rows=3, **key), **changes)
        return write_file(tmp_path / "toys" / f"{name}.h5", spec)

    return write


def test_diff_says_first_that_one_key_made_other_numbers(stored, capsys):
    a = stored("a", fingerprint=SOME, versions={"timm": "1.0.20", "numpy": "2.0"})
    b = stored("b", fingerprint=MOVED, versions={"timm": "1.0.31", "numpy": "2.0"})
    status, lines = diff(capsys, a, b)
    assert status == 1
    assert lines[0] == "the same key, other numbers:"
    most = max(drift(SOME, MOVED).items(), key=lambda item: item[1])
    assert f"({most[0]} {most[1]:.2g}, " in lines[1]
    assert "and 2 more; up to 0.001 is rounding" in lines[1]
    assert lines[2] == "versions: timm: 1.0.20 -> 1.0.31"


def test_diff_says_how_well_fingerprints_agree(stored, capsys):
    a, b = stored("a", fingerprint=SOME), stored("b", fingerprint=NOISY)
    status, lines = diff(capsys, a, b)
    assert (status, lines[0]) == (0, "the same key: the same features")
    assert lines[1].startswith("fingerprints agree to ")
    assert "e-0" in lines[1]


def test_diff_of_keys_that_differ_tells_what_it_made(stored, capsys):
    a = stored("a", fingerprint=SOME, key={"precision": "fp32"})
    b = stored("b", fingerprint=MOVED, key={"precision": "bf16"})
    status, lines = diff(capsys, a, b)
    assert (status, lines[0]) == (1, "precision: fp32 -> bf16")
    assert "up to 0.05 is rounding" in lines[1]
    assert lines[2] == "versions: all the same"


def test_diff_says_where_no_fingerprint_is_stored(stored, capsys):
    a, b, c = stored("a"), stored("b"), stored("c", fingerprint=SOME)
    other = stored("d", key={"precision": "bf16"})
    status, lines = diff(capsys, a, b)
    assert (status, lines[0]) == (0, "the same key: the same features")
    assert lines[1].startswith("no fingerprint in a.h5 and b.h5: ")
    assert diff(capsys, a, c)[1][1].startswith("no fingerprint in a.h5: ")
    assert diff(capsys, a, other) == (1, ["precision: (absent) -> bf16"])


def test_diff_compares_no_fingerprints_of_other_arrays(stored, capsys):
    a = stored("a", fingerprint=SOME)
    b = stored("b", fingerprint={}, arrays={"head": 3}, key={"stored": "head"})
    status, lines = diff(capsys, a, b)
    assert (status, lines[0]) == (1, "stored: (absent) -> head")
    assert lines[1].startswith("no fingerprint in b.h5")
    c = stored("c", fingerprint={"head": MOVED["head"]}, arrays={"head": 3}, key={"stored": "head"})
    assert diff(capsys, a, c) == (1, ["stored: (absent) -> head"])
    d = stored("d", fingerprint={"layers/00/cls": SOME["layers/00/cls"]})
    e = stored("e", fingerprint={"head": SOME["head"]})
    assert diff(capsys, d, e) == (0, ["the same key: the same features"])


def test_show_gives_the_fingerprint_in_short(stored, capsys):
    assert main(["show", str(stored("a", fingerprint=SOME))]) == 0
    assert f"fingerprint     {short_form(SOME)}\n" in capsys.readouterr().out
    assert main(["show", str(stored("b"))]) == 0
    assert "fingerprint" not in capsys.readouterr().out
    assert short_form(SOME).endswith(f", length of head {SOME['head'][0]:g}")
    assert short_form({"layers/00/cls": [2.5] * 8}).endswith("length of layers/00/cls 2.5")
    assert short_form({}) == ""


def test_few_arrays_are_all_named():
    assert "(head 0.2, proj 0.1; up to 0.001" in describe_drift({"proj": 0.1, "head": 0.2}, 1e-3)

"""The command `cache`: lists, shows, verifies, compares and deletes, and says what is wrong."""

import io
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from caching import answered, refused, run
from features import make_spec, make_text_spec, write_file, write_units
from here import REPOSITORY

from cache.catalogue import Wish, find_features
from cache.cli import main
from cache.commands.names import format_bytes
from cache.errors import BrokenCache, CacheMiss, RequestError
from cache.features import open_features
from cache.format.read import read_header
from cache.store import FeatureWriter


@pytest.fixture
def root(tmp_path):
    write_file(tmp_path / "toys" / "toy_8_aaaaaaaaaaaa.h5", make_spec())
    return tmp_path


def first(root):
    return next(root.glob("toys/toy_8_*.h5"))


def test_ls_lists_complete_incomplete_and_broken(root, capsys):
    with FeatureWriter(
        root / "toys" / "toy_8_bbbbbbbbbbbb.h5", make_spec(precision="bf16")
    ) as writer:
        write_units(writer, [0])
    (root / "toys" / "x.h5").write_text("no")
    status, out, err = run(capsys, "ls", "--features", root)
    assert status == 1
    assert "float16  complete  " in out
    assert "float16  1/3 units  " in out
    assert "BROKEN" in out
    assert "x.h5 is not a readable feature file" in err


def test_an_empty_folder_names_the_next_command(tmp_path, capsys):
    assert "extract --demo" in refused(capsys, "ls", "--features", tmp_path)


def test_show_tells_the_key(root, capsys):
    out = answered(capsys, "show", first(root))
    assert "layers.of" in out
    assert "made by         extract --model toy" in out


def test_verify_names_the_bad_unit_and_the_command(root, capsys):
    assert run(capsys, "verify", "--features", root)[:2] == (
        0,
        f"{first(root)}: all 3 units right\n",
    )
    header = read_header(first(root))
    with first(root).open("r+b") as file:
        file.seek(header.arrays["head"].offset + 600 * 6)
        file.write(b"\xff\xff")
    err = refused(capsys, "verify", first(root))
    assert "unit 2 (head)" in err
    assert "extract --model toy --data toys" in err


def test_verify_looks_at_labels_too(root, capsys):
    import h5py

    with h5py.File(first(root), "r") as file:
        labels = file["samples/labels"]
        assert isinstance(labels, h5py.Dataset)
        offset = labels.id.get_offset()
    with first(root).open("r+b") as file:
        file.seek(offset)
        file.write(b"\x01")
    assert "samples/labels doesn't match its checksum" in refused(capsys, "verify", first(root))


def test_diff_says_what_differs(root, capsys):
    one = first(root)
    other = write_file(root / "toys" / "other.h5", make_spec(precision="bf16"))
    assert run(capsys, "diff", one, one)[0] == 0
    status, out, _ = run(capsys, "diff", one, other)
    assert status == 1
    assert out == "precision: (absent) -> bf16\n"


def test_rm_deletes_feature_files_only(root, capsys, monkeypatch):
    note = root / "note.txt"
    note.write_text("mine")
    one = first(root)
    assert "no feature file" in run(capsys, "rm", "--yes", note)[2]
    assert note.exists()
    monkeypatch.setattr("sys.stdin", io.StringIO("y"))
    assert "--yes" in run(capsys, "rm", one)[2]
    assert run(capsys, "rm", "--yes", one)[0] == 0
    assert not list(root.glob("toys/*"))


def test_rm_leaves_what_is_being_written(root, capsys):
    path = root / "toys" / "toy_8_bbbbbbbbbbbb.h5"
    with FeatureWriter(path, make_spec()):
        err = refused(capsys, "rm", "--yes", f"{path}.partial")
    assert f"process {os.getpid()}" in err
    assert run(capsys, "rm", "--yes", f"{path}.partial")[0] == 0


@pytest.mark.parametrize("words", [["nonsense"], [], ["ls", "--unknown"]])
def test_wrong_usage_is_status_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "cache --help" in capsys.readouterr().err


def test_several_keys_are_never_mixed(root):
    for name in ("fp32", "bf16"):
        write_file(root / "more" / f"{name}.h5", make_spec(precision=name))
    first(root).unlink()
    with pytest.raises(RequestError, match=r"bf16 -> fp32(.|\n)*--where precision=bf16, --where"):
        find_features(root, Wish())
    found, _ = find_features(root, Wish(where={"precision": "fp32"}))
    assert [f.path.name for f in found] == ["fp32.h5"]
    write_file(root / "more" / "copy.h5", make_spec(precision="bf16"))
    with pytest.raises(RequestError, match="nothing: a copy"):
        find_features(root, Wish(where={"precision": "bf16"}))
    with pytest.raises(RequestError, match="no key has a part 'colour'"):
        find_features(root, Wish(where={"colour": "red"}))


def test_what_is_missing_is_named_and_the_rest_is_found(root):
    found, troubles = find_features(root, Wish(datasets=("toys", "others")))
    assert [f.dataset for f in found] == ["toys"]
    assert "extract --model dinov2 --data others" in troubles[0]
    with pytest.raises(CacheMiss, match="extract --model eva02 --size 224"):
        find_features(root, Wish(models=("eva02",), sizes=(224,)))


def test_where_chooses_by_the_whole_name_first_and_never_by_two(root):
    key = {"size": 8, "transform": {"size": 9, "mean": [0.5]}, "arguments": {"mean": 1}}
    write_file(root / "toys" / "other.h5", make_spec(key=key))
    found, _ = find_features(root, Wish(where={"size": "8"}))  # the other file has no such part
    assert [f.path.name for f in found] == ["other.h5"]
    with pytest.raises(RequestError, match=r"arguments\.mean or transform\.mean"):
        find_features(root, Wish(where={"mean": "1"}))


def test_each_model_size_and_set_that_is_named_is_found_or_missed(root):
    found, troubles = find_features(root, Wish(models=("toy",), sizes=(8, 16), datasets=("toys",)))
    assert len(found) == 1
    (trouble,) = troubles
    assert "extract --model toy --size 16 --data toys" in trouble
    with pytest.raises(CacheMiss, match=r"at 16 px among the 1 file "):
        find_features(root, Wish(sizes=(16,)))


def test_an_unfinished_file_is_found_by_what_it_says_not_by_its_name(root):
    with FeatureWriter(root / "toys" / "a_b_8_x.h5", make_spec(dataset="new_set")) as writer:
        write_units(writer, [0])
    with pytest.raises(CacheMiss, match="1 of 3 units are done"):
        find_features(root, Wish(models=("toy",), datasets=("new_set",)))


def test_hidden_files_are_not_ours(root):
    (root / "toys" / "._toy_8_aaaaaaaaaaaa.h5").write_text("left by macOS")
    assert find_features(root, Wish())[1] == []


@pytest.mark.posix
def test_what_cannot_be_read_does_not_hide_the_rest(root, capsys):
    (root / "toys" / "a.h5").symlink_to(root / "nowhere")
    (root / "toys" / "b.h5").mkdir()
    status, out, err = run(capsys, "ls", "--features", root)
    assert (status, out.count("BROKEN"), out.count("complete")) == (1, 2, 1)
    assert "nowhere" in err or "a.h5" in err
    status, out, _ = run(capsys, "verify", "--features", root)
    assert status == 1
    assert "all 3 units right" in out
    with pytest.raises(CacheMiss, match=r"is a folder; name feature files"):
        open_features(root / "toys")


def test_verify_takes_files_or_their_root(root, capsys):
    with pytest.raises(SystemExit) as end:
        main(["verify", str(first(root)), "--features", str(root)])
    assert end.value.code == 2
    assert "not both" in capsys.readouterr().err


def test_rm_twice_the_same_and_without_an_answer(root, capsys, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    one = first(root)
    size = format_bytes(one.stat().st_size)
    monkeypatch.setattr("sys.stdin", Terminal(""))  # Ctrl-D
    out = answered(capsys, "rm", one)
    assert out.endswith("nothing deleted\n")
    assert run(capsys, "rm", "--yes", one, one)[:2] == (0, f"deleted 1 file, {size}\n")


def test_a_reader_that_has_seen_enough_ends_it_quietly(root):
    child = subprocess.Popen(
        [sys.executable, "-m", "cache", "ls", "--features", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert child.stdout
    child.stdout.close()
    _, err = child.communicate()
    assert (child.returncode, err) == (1, b"")


def test_names_that_the_terminal_cannot_say_cost_nothing(root):
    result = subprocess.run(
        [sys.executable, "-m", "cache", "show", str(first(root))],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    assert rb"a, b, \xe9" in result.stdout


# ---------------------------------------------------------------------------- text files


@pytest.fixture
def text(root):
    spec = make_text_spec([0, 0, 1, 2], prompts=["a photo of {}"])
    return write_file(root / "toys" / "toy_text_cccccccccccc.h5", spec)


def test_text_files_are_listed_and_shown_as_such(root, text, capsys):
    out = answered(capsys, "ls", "--features", root)
    (line,) = (line.split() for line in out.splitlines() if line.endswith(text.name))
    assert line[2:] == ["4", "text", "proj", "float32", "complete", str(text)]
    out = answered(capsys, "show", text)
    assert "samples         4 prompts, no images\n" in out
    assert "a photo of {}" in out
    assert "logit_scale     100.0" in out
    assert "texts of toy · 4 prompts" in repr(open_features(text))


def test_text_files_are_verified_compared_and_deleted(root, text, capsys):
    assert run(capsys, "verify", text)[:2] == (0, f"{text}: all 1 units right\n")
    status, out, _ = run(capsys, "diff", first(root), text)
    assert status == 1
    assert out.startswith("features of: images -> texts\n")
    other = write_file(root / "toys" / "toy_text_d.h5", make_text_spec([0, 1, 2], prompts=["{}"]))
    status, out, _ = run(capsys, "diff", text, other)
    assert out == 'text.prompts: ["a photo of {}"] -> ["{}"]\n'
    assert run(capsys, "rm", "--yes", text)[0] == 0
    assert not text.exists()


def test_images_are_found_without_the_texts_beside_them(root, text):
    found, troubles = find_features(root, Wish())
    assert [f.is_text for f in found] == [False]
    assert troubles == []
    with FeatureWriter(root / "toys" / "toy_text_b.h5", make_text_spec([0] * 300)) as writer:
        write_units(writer, [0])
    assert find_features(root, Wish())[1] == []
    first(root).unlink()
    with pytest.raises(CacheMiss, match="no features in"):
        find_features(root, Wish())


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"size": 8}, "size"),
        ({"arrays": {"head": 6}}, "arrays"),
        ({"arrays": {"proj": 6, "head": 6}}, "arrays"),
        ({"task": "ordinal-regression"}, "task"),
        ({"key": {"layers": {"of": 2}, "text": "a photo of {}"}}, "key"),
    ],
)
def test_what_texts_cannot_have_is_refused(root, changes, wrong):
    spec = replace(make_text_spec([0, 1, 2]), **changes)
    with pytest.raises(BrokenCache, match=f"{wrong} should be as a file of texts has it"):
        write_file(root / "toys" / "toy_text_e.h5", spec)


def test_images_have_a_size(root):
    with pytest.raises(BrokenCache, match="size should be as a file of images has it"):
        write_file(root / "toys" / "e.h5", replace(make_spec(), size=0))

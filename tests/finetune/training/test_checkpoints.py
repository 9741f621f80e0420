"""What a training leaves on disk: whole at any moment, and read without pickled code."""

import pickle
import shutil

import pytest
import torch
from finetuning import read_log

from cache.errors import BrokenCache, RequestError
from finetune.ranks import Ranks
from finetune.training.checkpoints import LAST, LOG, Checkpoints, Position, save_tensors

ALONE = Ranks()


@pytest.fixture
def trial(tmp_path):
    trial = Checkpoints(tmp_path / "trial", {"seed": 0})
    trial.folder.mkdir()
    return trial


def state():
    return {"model": {"w": torch.arange(3.0)}, "optimiser": {"state": {0: {"step": torch.ones(1)}}}}


def test_what_is_saved_is_loaded(trial):
    place = Position(iteration=7, epoch=1, checks=[{"iteration": 7, "val": {"acc": 0.5}}], best=7)
    trial.save_best(7, {"w": torch.arange(3.0)})
    trial.save(place, state())
    found, content = trial.load()
    assert found == place
    torch.testing.assert_close(content["model"]["w"], torch.arange(3.0))
    torch.testing.assert_close(trial.load_best(found)["w"], torch.arange(3.0))


def test_only_the_best_weights_that_the_checkpoint_names_are_kept(trial):
    for iteration in (3, 7):
        trial.save_best(iteration, {"w": torch.zeros(1)})
    assert len([*trial.folder.glob("best-*")]) == 2  # until the checkpoint says which one counts
    trial.save(Position(iteration=7, best=7), state())
    assert [p.name for p in trial.folder.glob("best-*")] == ["best-0000007.safetensors"]


def test_another_question_is_refused(trial):
    trial.save(Position(), state())
    with pytest.raises(RequestError, match="other settings"):
        Checkpoints(trial.folder, {"seed": 1}).load()


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_torn_checkpoint_is_named(trial, cut):
    trial.save(Position(), state())
    path = trial.folder / LAST
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BrokenCache, match="last.pt is damaged.*; delete its folder and run again"):
        trial.load()


def test_pickled_code_never_runs(trial, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    (trial.folder / LAST).write_bytes(pickle.dumps({"question": Evil()}))
    with pytest.raises(BrokenCache):
        trial.load()
    torch.save({"question": Evil(), "place": "{}"}, trial.folder / LAST)
    with pytest.raises(BrokenCache):
        trial.load()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("at", [0.4, 0.6])
def test_a_flipped_bit_is_found(trial, at):
    """torch and safetensors compare no checksums of what they read."""
    tensors = {"n": torch.tensor(3), "w": torch.arange(5000.0)}
    trial.save_best(7, tensors)
    trial.save(Position(best=7), {"model": tensors})
    place, _ = trial.load()
    assert trial.load_best(place)["n"] == 3
    for path, load in [
        (trial.best_path(place), lambda: trial.load_best(place)),
        (trial.folder / LAST, trial.load),
    ]:
        content = bytearray(path.read_bytes())
        content[int(at * len(content))] ^= 1
        path.write_bytes(content)
        with pytest.raises(BrokenCache, match=f"{path.name}.*; delete its folder and run again"):
            load()


@pytest.mark.parametrize("content", ['{"iteration": 4, "lo', "\xff", "3\n[]\n"])
def test_a_log_is_written_anew_from_the_checkpoint(trial, content):
    checks = [{"iteration": 1}, {"iteration": 2}]
    for line in [*checks, {"iteration": 3}]:
        trial.log(line)
    with (trial.folder / LOG).open("a", encoding="latin-1") as file:
        file.write(content)
    assert read_log(trial.folder / LOG) == [*checks, {"iteration": 3}]
    trial.rewind_log(Position(checks=checks))
    assert (trial.folder / LOG).read_text() == '{"iteration": 1}\n{"iteration": 2}\n'


def test_a_disk_too_small_for_a_trial_is_told_before_it(trial):
    (trial.folder / LAST).write_bytes(bytes(1000))
    free = shutil.disk_usage(trial.folder).free
    trial.check_room(free // 2)
    with pytest.raises(RequestError, match="take up to .* has .*; free some space.*--runs DIR"):
        trial.check_room(10 * free)


def test_half_written_files_of_a_killed_run_are_removed(trial):
    left = trial.folder / ".last.pt.0123456789abcdef.medprobe"
    left.write_bytes(b"half")
    with trial.held(ALONE):
        assert not left.exists()


def test_two_runs_do_not_write_one_trial(trial):
    other = Checkpoints(trial.folder, {"seed": 0})
    with trial.held(ALONE), pytest.raises(RequestError, match="another process"), other.held(ALONE):
        pass


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(tensors, made, metadata):
        made.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("finetune.training.checkpoints.save_file", fail)
    with pytest.raises(OSError, match="No space left.*--runs DIR"):
        save_tensors(path, {})
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]

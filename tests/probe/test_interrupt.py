"""A whole `probe` over several files, interrupted: what was written stays, and the rest follows."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from answering import scores_file
from features import make_features

from probe.results import read_row

pytestmark = pytest.mark.posix
N_FILES = 3
# A probe that stands still at its second file for as long as the test wants, and says so.
SLOW = """
import os, time
from dataclasses import dataclass
from pathlib import Path
import numpy as np

HERE = Path(__file__).parent

@dataclass
class Slow:
    def fit(self, features, labels):
        with (HERE / "fits").open("a") as file:
            file.write("x")
        if os.environ.get("STAND_STILL") and (HERE / "fits").stat().st_size == 2:
            (HERE / "standing").touch()
            time.sleep(600)
        self.shares = np.bincount(labels) / len(labels)

    def predict_scores(self, features):
        return np.tile(self.shares, (len(features), 1))
"""
# The command, killed in the middle of writing the scores of its second row.
KILLED_IN_WRITING = """
import os, signal, sys
import numpy as np
from probe.cli import main

plain, calls = np.savez, []

def savez(file, **arrays):
    calls.append(1)
    if len(calls) == 2:
        file.write(b"half of a file")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    plain(file, **arrays)

np.savez = savez
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def folder(tmp_path):
    for i in range(N_FILES):
        make_features(tmp_path / "features", f"toys{i}", n=(60, 30, 30))
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path


def command(folder, *words):
    places = ["--features", folder / "features", "--results", folder / "results"]
    return [sys.executable, *map(str, words), "--resamples", "20", *map(str, places)]


def whole_rows(folder):
    """The data sets of the rows that are there, each whole with its scores beside it."""
    found = []
    for path in sorted((folder / "results").glob("*/*.json")):
        row = read_row(path)
        with np.load(scores_file(path), allow_pickle=False) as scores:
            assert len(scores["test_scores"]) == row["n"]["test"]
        found.append(row["features"]["dataset"])
    return found


def wait_for(path, process):
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_rows_of_finished_files_stay_and_the_next_command_does_the_rest(folder, how):
    words = command(folder, "-m", "probe", "--kind", f"{folder / 'slow.py'}:Slow")
    process = subprocess.Popen(
        words,
        env={**os.environ, "STAND_STILL": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(folder / "standing", process)
    assert len(whole_rows(folder)) == 1
    process.send_signal(getattr(signal, how))
    _, said = process.communicate(timeout=60)
    if how == "SIGINT":
        assert (process.returncode, said) == (
            130,
            "probe: interrupted; rows already written stay\n",
        )
    else:
        assert process.returncode == -signal.SIGKILL
    assert len(whole_rows(folder)) == 1
    again = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert (again.returncode, again.stderr) == (0, "")
    assert whole_rows(folder) == [f"toys{i}" for i in range(N_FILES)]


def test_killed_in_the_middle_of_writing(folder):
    words = command(folder, "-c", KILLED_IN_WRITING, "--kind", "knn", "--k", "5")
    killed = subprocess.run(words, capture_output=True, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(whole_rows(folder)) == 1  # half a file has no row
    assert [p for p in (folder / "results").rglob(".*")]  # else this test could not fail
    words = command(folder, "-m", "probe", "--kind", "knn", "--k", "5")
    again = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert (again.returncode, again.stderr) == (0, "")
    assert whole_rows(folder) == [f"toys{i}" for i in range(N_FILES)]
    for path in (folder / "results").glob("*/*"):
        assert path.name.startswith(".") or path.suffix in (".json", ".npz")
        if path.suffix == ".json":
            json.loads(path.read_text())

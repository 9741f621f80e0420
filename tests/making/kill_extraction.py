"""Kill an extraction at random, a hundred times, and look for damage.

    python tests/making/kill_extraction.py                  # 100 kills, one writer
    python tests/making/kill_extraction.py --processes 2    # 100 kills, two writers of one file
    python tests/making/kill_extraction.py --tokens         # of patch tokens, two units a block

Each round forks writers (torch is imported once, in the parent), sends SIGKILL a random time after
a random unit of theirs is done, and then checks that the file opens and that no unit marked done
differs from an uninterrupted run. A round that comes to its end is checked byte by byte and the file
is deleted. Where no unit was done at any kill nothing was checked, and that is a failure.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cache import CacheError, open_features
from cache.format.key import PARTIAL
from cache.format.read import read_header
from cache.stored import count_done
from extract import cli


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--images", type=int, help="(12,000; of tokens 1,500)")
    parser.add_argument("--tokens", action="store_true", help="patch tokens as int8, with pictures")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    torch.set_num_threads(1)  # two writers on two cores; thread pools don't survive a fork either
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "kills.npz", options.images or (1_500 if options.tokens else 12_000))
        whole, seconds = run_whole(folder, options.tokens)
        print(f"uninterrupted: {seconds:.1f} s, {whole.header.n_units} units")
        kills = completed = done_at_kill = n_done = 0
        while kills < options.kills:
            victims = [
                fork(folder, "killed", i, options.processes, options.tokens)
                for i in range(options.processes)
            ]
            wait_for(folder / "killed", n_done + rng.randrange(4), victims)
            time.sleep(rng.uniform(0, seconds / whole.header.n_units))
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            ends = [os.waitpid(victim, 0)[1] for victim in victims]
            assert all(os.WIFSIGNALED(end) or end == 0 for end in ends), "a writer failed"
            kills += sum(map(os.WIFSIGNALED, ends))
            path, n_done = check(folder / "killed", whole)
            done_at_kill += n_done
            if path and path.suffix == ".h5":
                completed += 1
                n_done = 0
                path.unlink()
        while not list((folder / "killed").glob("*/*.h5")):
            last = [
                fork(folder, "killed", i, options.processes, options.tokens)
                for i in range(options.processes)
            ]
            for process in last:
                assert os.waitpid(process, 0)[1] == 0, "a writer failed"
        check(folder / "killed", whole)
        assert done_at_kill, "no unit was done at any kill, so that nothing was looked at"
        print(
            f"{kills} kills, {completed + 1} files completed, {done_at_kill} done units looked at "
            f"after kills: 0 wrong; the last file equals the uninterrupted one"
        )
    return 0


def write_images(path: Path, n: int) -> None:
    rng = np.random.default_rng(0)
    counts = {"train": n - 2 * (n // 5), "val": n // 5, "test": n // 5}
    arrays = {}
    for split, count in counts.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (count, 1))
    np.savez_compressed(path, **arrays)


def arguments(folder: Path, where: str, shard: int, n_shards: int, tokens: bool) -> list[str]:
    words = "--model test_vit --weights random --batch-size 64 --device cpu".split()
    # Its six layers, 18 x 18 x 64 each: units of 128 rows.
    words += "--size 288 --tokens all --store int8".split() if tokens else ["--size", "32"]
    words += ["--data", f"npz:{folder / 'kills.npz'}", "--features", str(folder / where)]
    return [*words, "--shard", f"{shard}/{n_shards}"]


def run_whole(folder: Path, tokens: bool):
    started = time.monotonic()
    assert os.waitpid(fork(folder, "whole", 0, 1, tokens), 0)[1] == 0, (
        "the uninterrupted run failed"
    )
    (path,) = (folder / "whole").glob("*/*.h5")
    return open_features(path), time.monotonic() - started


def fork(folder: Path, where: str, shard: int, n_shards: int, tokens: bool) -> int:
    """Start a writer; its number of process."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
        status = cli.main(arguments(folder, where, shard, n_shards, tokens))
    finally:
        os._exit(status)


def wait_for(folder: Path, n_done: int, writers: list[int]) -> None:
    """Wait until so many units are done, or no writer is left."""

    def lives(writer: int) -> bool:
        return os.waitid(os.P_PID, writer, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    while count_units(folder) < n_done and any(map(lives, writers)):
        time.sleep(0.01)


def count_units(folder: Path) -> int:
    """How many units are done; while the file is being created, none."""
    for path in folder.glob(f"*/*.h5{PARTIAL}"):
        with contextlib.suppress(CacheError, OSError):  # finished since
            return count_done(read_header(path))
    return 0


def check(folder: Path, whole) -> tuple[Path | None, int]:
    """Compare every unit that is marked done; how many there were."""
    paths = [p for p in folder.glob("*/*") if p.name.endswith((".h5", f".h5{PARTIAL}"))]
    if not paths:
        return None, 0
    assert len(paths) == 1, f"one file expected, found {paths}"
    header = read_header(paths[0])
    records = np.memmap(paths[0], "<u4", "r", header.units.offset, header.units.shape)
    done = np.flatnonzero(records[:, 0])
    for name, extent in header.arrays.items():
        there = whole.header.arrays[name]
        right = np.memmap(whole.path, there.dtype, "r", there.offset, there.shape)
        found = np.memmap(paths[0], extent.dtype, "r", extent.offset, extent.shape)
        for unit in done:
            part = header.part(extent, int(unit))
            assert right[part].tobytes() == found[part].tobytes(), (name, unit)
    if paths[0].suffix == ".h5":
        assert len(done) == header.n_units, "complete by name, but not by its records"
    return paths[0], len(done)


if __name__ == "__main__":
    sys.exit(main())

"""Who writes a feature file: locks that are held as long as the process lives."""

import contextlib
import glob
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from cache.errors import CacheError
from cache.files import open_regular
from cache.format.key import partial_path

FINISH_TIMEOUT = 120.0  # s; reserving a large file on a slow disk is the longest of it


class Busy(CacheError):
    """Another process is writing this file."""


class Locks:
    """The gate (held for moments: create, finish) and one lock a shard (held for the run).

    Lock files lie beside the feature file, hidden, and go away with its completion.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shard: FileLock | None = None

    def _name(self, what: str) -> Path:
        return self._path.with_name(f".{self._path.name}.{what}.lock")

    @contextlib.contextmanager
    def gate(self) -> Iterator[None]:
        lock = FileLock(self._name("gate"), timeout=FINISH_TIMEOUT, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            raise Busy(
                f"another process has been creating or finishing {self._path.name} for "
                f"{FINISH_TIMEOUT:.0f} s; wait for it, then run again"
            ) from None
        try:
            yield
        finally:
            self._tidy(lock)

    def take_shard(self, index: int, count: int) -> None:
        """Hold shard ``index`` of ``count``; called with the gate held, so nobody else joins."""
        mine = self._name(f"shard-{index}-of-{count}")
        for other in self._files("shard-*"):
            if other == mine or not other.name.endswith(f"-of-{count}.lock"):
                self._refuse_if_held(other)
        lock = FileLock(mine, timeout=0, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            self._refuse_if_held(mine)
            raise Busy(f"another process is writing {self._path.name}; wait for it") from None
        self._shard = lock
        # A courtesy to whoever meets the lock; Windows lets nobody write into a locked file.
        with contextlib.suppress(OSError):
            mine.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))

    def _refuse_if_held(self, path: Path) -> None:
        lock = FileLock(path, timeout=0, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            shard = path.name.rsplit("shard-", 1)[1].removesuffix(".lock").replace("-of-", "/")
            raise Busy(
                f"{self._path.name} is being written by {_holder(path)} as shard {shard}; wait "
                "for it, or start all processes with --shard I/N, one N and different I"
            ) from None
        lock.release()

    def refuse_if_any_held(self) -> None:
        """Called with the gate held."""
        for other in self._files("shard-*"):
            self._refuse_if_held(other)

    def remove_shard_files(self) -> None:
        """Take away what kills left; called with the gate held and no shard's lock."""
        for path in self._files("shard-*"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _files(self, what: str) -> list[Path]:
        return sorted(self._path.parent.glob(f".{glob.escape(self._path.name)}.{what}.lock"))

    def release(self) -> None:
        if self._shard is not None:
            self._tidy(self._shard)
            self._shard = None

    def _tidy(self, lock: FileLock) -> None:
        """Let go, and take the lock file away where nothing is unfinished."""
        # Unlinked while held: whoever waits on it finds the file nameless and starts over.
        if not partial_path(self._path).exists():
            with contextlib.suppress(OSError):
                Path(lock.lock_file).unlink()
        lock.release()


def _holder(path: Path) -> str:
    try:
        with open_regular(path) as file:
            owner = json.load(file)
        return f"process {int(owner['pid'])} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"

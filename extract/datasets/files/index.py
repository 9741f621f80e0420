"""The check pass: every file opened, hashed and measured before the first forward pass.

So the number of rows is known, unreadable files are named before hours of work, and the digest is
over contents. What it found is remembered by size, modification time and inode, as git remembers
files; a later start only asks the file system for those. The digests decide under which key features
are stored, so each line has a checksum of its own; a line that was edited is as good as none.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import RequestError
from cache.files import append, open_regular
from extract.datasets.files.decode import ImageFacts, inspect
from extract.datasets.files.formats.stored import MAX_VOXELS, UnreadableImage
from extract.datasets.files.windows import Window
from extract.datasets.volumes import Slicing
from extract.machine.digests import file_sha256
from extract.machine.workers import map_ordered

INDEX_VERSION = 3  # another decoder that finds other facts needs another number
CHUNK_FILES = 32  # a task of a worker
# A file that was written this short before it was looked at may be written again within the same
# tick of the clock, and its time wouldn't tell: it isn't remembered.
FRESH_SECONDS = 2.0
SHA256 = re.compile("[0-9a-f]{64}")
SAVE_SECONDS = 10.0  # what a kill may cost

Stamp = tuple[int, int, int]  # size in bytes, modification time in ns, inode


@dataclass(frozen=True)
class CheckedFile:
    """What the check pass found: facts, or the error that stands in their place."""

    sha256: str  # of the file's bytes
    facts: ImageFacts | None
    error: str = ""
    stamp: Stamp | None = None  # before it was opened; None of what can't be read


@dataclass(frozen=True)
class Check:
    """Opens one chunk of files; sent to the workers."""

    root: Path
    window: Window | None
    slicing: Slicing | None

    def __call__(self, paths: Sequence[str]) -> list[CheckedFile]:
        return [self._check(self.root / path) for path in paths]

    def _check(self, path: Path) -> CheckedFile:
        try:
            stamp = file_stamp(path)
            sha256 = file_sha256(path)
        except OSError as error:
            return CheckedFile("", None, error.strerror or str(error))
        try:
            return CheckedFile(sha256, inspect(path, self.window, self.slicing), stamp=stamp)
        except UnreadableImage as error:
            return CheckedFile(sha256, None, str(error))


def check_files(
    check: Check,
    paths: Sequence[str],
    folder: Path,
    n_workers: int,
    report: Callable[[int], None] = lambda n: None,
) -> list[CheckedFile]:
    """Facts of every file, remembered ones where size and time are as they were.

    Args:
        check: how files are opened.
        paths: relative to the check's root.
        folder: of the index; made where it is missing. One that can't be written costs only time.
        n_workers: processes.
        report: told how many files were just opened.

    Returns:
        One for each path, in order. Errors are never remembered: a mended file, or an installed
        codec, is seen at once.

    Raises:
        RequestError: a file's kind needs a package that isn't installed.
    """
    index = _Index(folder / _index_name(check))
    known = index.read()
    found: dict[str, CheckedFile] = {}
    unknown: list[str] = []
    base = os.fspath(check.root)
    for path in paths:
        try:
            stamp = file_stamp(f"{base}{os.sep}{path}")  # a Path for each doubles the time
        except OSError:
            found[path] = CheckedFile("", None, "no such file")
            continue
        if path in known and known[path].stamp == stamp:
            found[path] = known[path]
        else:
            unknown.append(path)
    chunks = [unknown[i : i + CHUNK_FILES] for i in range(0, len(unknown), CHUNK_FILES)]
    started = time.time()
    # A few files aren't worth the start of processes.
    results = map_ordered(check, chunks, n_workers if len(chunks) > 2 else 0)
    with contextlib.closing(index):
        for chunk, checked in zip(chunks, results, strict=True):
            for path, file in zip(chunk, checked, strict=True):
                found[path] = file
                if file.stamp and started - file.stamp[1] / 1e9 > FRESH_SECONDS:
                    index.add(path, file)
            report(len(chunk))
    return [found[path] for path in paths]


def file_stamp(path: str | Path) -> Stamp:
    """What tells that a file isn't what it was."""
    status = os.stat(path)  # noqa: PTH116
    return status.st_size, status.st_mtime_ns, status.st_ino


def _index_name(check: Check) -> str:
    """One index for each root and way of reading: both decide what the facts are."""
    asked = {
        "version": INDEX_VERSION,
        "root": os.path.realpath(check.root),
        "window": str(check.window) if check.window else None,
        "slicing": check.slicing.key if check.slicing else None,
    }
    text = json.dumps(asked, sort_keys=True)
    return f"{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:16]}.jsonl"


class _Index:
    """One line a file, appended as files are checked; of two lines the later one counts.

    Several processes may append at once: each line is written whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []
        self._saved = time.monotonic()

    def read(self) -> dict[str, CheckedFile]:
        """Path -> what is remembered. Lines that a kill tore are passed over."""
        entries = {}
        try:
            with open_regular(self._path) as file:
                lines = file.read().splitlines()
        except OSError:
            return {}
        for line in lines:
            check, _, text = line.partition(b" ")
            if check != _checksum(text):
                continue
            try:
                path, size, time_ns, inode, sha256, facts = json.loads(text)
                stamp = (size, time_ns, inode)
                if SHA256.fullmatch(sha256):
                    entries[path] = CheckedFile(sha256, _parse_facts(facts), stamp=stamp)
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
        return entries

    def add(self, path: str, file: CheckedFile) -> None:
        assert file.stamp is not None
        assert file.facts is not None
        entry: list[Any] = [path, *file.stamp, file.sha256, dataclasses.asdict(file.facts)]
        text = json.dumps(entry)
        self._lines.append(f"{_checksum(text.encode()).decode()} {text}\n")
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.close()

    def close(self) -> None:
        """Save what was added."""
        self._saved = time.monotonic()
        text, self._lines = "".join(self._lines), []
        # One that can't be written costs only time.
        with contextlib.suppress(OSError):
            if text:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                append(self._path, text)


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)


def _parse_facts(facts: dict[str, Any]) -> ImageFacts:
    """What ``add`` wrote.

    Raises:
        ValueError, TypeError, KeyError: something else stands there.
    """
    span = facts["span"]
    if span is not None:
        black, white = span
        span = float(black), float(white)
    parsed = ImageFacts(**{**facts, "notes": tuple(facts["notes"]), "span": span})
    counts = (parsed.height, parsed.width, parsed.n_frames, parsed.decoder)
    if not all(isinstance(n, int) and 0 < n <= MAX_VOXELS for n in counts):
        raise ValueError(f"impossible sizes: {counts}")
    texts = (parsed.kind, parsed.patient, parsed.shown, *parsed.notes)
    if parsed.n_channels not in (1, 3) or not all(isinstance(text, str) for text in texts):
        raise ValueError("impossible facts")
    return dataclasses.replace(parsed, low=float(parsed.low), high=float(parsed.high))


def refuse_unreadable(
    name: str, paths: Sequence[str], checked: Sequence[CheckedFile], skip: bool
) -> list[int]:
    """Which files can be used.

    Args:
        name: of the data set.
        paths: as they were checked.
        checked: what was found.
        skip: leave unreadable files out; else they are refused.

    Returns:
        Positions of the readable ones.

    Raises:
        RequestError: some can't be read, or none is left.
    """
    bad = [i for i, file in enumerate(checked) if file.facts is None]
    if bad and not skip:
        listed = "; ".join(f"{paths[i]}: {checked[i].error}" for i in bad[:3])
        more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise RequestError(
            f"{name}: {len(bad)} of {len(paths)} files can't be read ({listed}{more}); mend them, "
            "or leave them out with --skip-errors, which the file and its key will say"
        )
    if len(bad) == len(paths):
        raise RequestError(
            f"{name}: none of {len(paths)} files can be read ({paths[0]}: {checked[0].error})"
        )
    return [i for i, file in enumerate(checked) if file.facts is not None]

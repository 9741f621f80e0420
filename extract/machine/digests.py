"""Digests of large files, computed once and remembered by path, size, time and inode.

A digest decides under which key features are stored. What is remembered therefore carries a checksum
of its own, and an entry that was edited or damaged, or that an older version wrote, is as good as
none: its digest is computed again. That finds accidents, and nobody who means to deceive.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.files import open_regular, write_whole
from cache.format.key import key_digest


class DigestMemory:
    """Remembers digests in a small JSON file. Losing it, or an entry of it, only costs time.

    Args:
        path: the JSON file; made with the first digest, where its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, kind: str, file: Path, compute: Callable[[Path], str]) -> str:
        """The digest of ``file``, computed if it isn't known or the file has changed.

        Args:
            kind: what digest, e.g. "md5".
            file: an existing file.
            compute: makes the digest.
        """
        known = self.recall(kind, file)
        if known is None:
            stamp = self._stamp(file)  # before: a file that changes meanwhile isn't remembered
            known = compute(file)
            self._keep(self._name(kind, file), _Entry(stamp, known))
        return known

    def get_of(self, kind: str, contents: str, compute: Callable[[], str]) -> str:
        """The same for what follows from a digest of contents, which no file's time can change.

        Args:
            kind: what is remembered.
            contents: the digest, and whatever else it follows from.
            compute: makes it.
        """
        name = f"{kind}:{contents}"
        entry = self._read().get(name)
        if entry is not None:
            return entry.digest
        known = compute()
        self._keep(name, _Entry((), known))
        return known

    def recall(self, kind: str, file: Path) -> str | None:
        """The remembered digest, if the file is still the same."""
        entry = self._read().get(self._name(kind, file))
        stamp = self._stamp(file)
        return entry.digest if entry and entry.stamp == stamp else None

    def _keep(self, name: str, entry: "_Entry") -> None:
        """Keep a digest. A folder that can't be written is no reason to stop."""
        entries = self._read() | {name: entry}
        content = {name: entry.as_json(name) for name, entry in entries.items()}
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with write_whole(self.path) as file:
                file.write(json.dumps(content, indent=1).encode())

    def _read(self) -> dict[str, "_Entry"]:
        try:
            with open_regular(self.path) as file:
                content = json.loads(file.read())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict):
            return {}
        entries = {name: _Entry.parse(name, said) for name, said in content.items()}
        return {name: entry for name, entry in entries.items() if entry is not None}

    @staticmethod
    def _name(kind: str, file: Path) -> str:
        return f"{kind}:{os.path.realpath(file)}"

    @staticmethod
    def _stamp(file: Path) -> tuple[int, ...]:
        status = file.stat()
        return status.st_size, status.st_mtime_ns, status.st_ino


@dataclass(frozen=True)
class _Entry:
    stamp: tuple[int, ...]  # size, modification time in ns and inode of a file; else nothing
    digest: str

    def as_json(self, name: str) -> dict[str, Any]:
        content = {"stamp": [*self.stamp], "digest": self.digest}
        return content | {"check": key_digest({"name": name, **content})}

    @classmethod
    def parse(cls, name: str, said: Any) -> "_Entry | None":
        """What ``as_json`` gave; None of anything else."""
        try:
            entry = cls(tuple(said["stamp"]), said["digest"])
            is_whole = isinstance(entry.digest, str) and entry.as_json(name) == said
            return entry if is_whole else None
        except (TypeError, KeyError, ValueError):
            return None


def file_md5(path: Path) -> str:
    """MD5 of a file's bytes, as many publish it: a checksum here, not a safeguard."""
    return _file_digest(path, hashlib.md5(usedforsecurity=False))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return _file_digest(path, hashlib.sha256())


def _file_digest(path: Path, digest: Any) -> str:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

"""Digests of large files, computed once and remembered by path, size and modification time."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache.files import write_whole


class DigestMemory:
    """Remembers digests in a small JSON file. Losing it only costs time.

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
            self._remember(kind, file, known, stamp)
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
            return entry["digest"]
        known = compute()
        self._keep(name, known, [])
        return known

    def recall(self, kind: str, file: Path) -> str | None:
        """The remembered digest, if the file is still the same."""
        entry = self._read().get(self._name(kind, file))
        stamp = self._stamp(file)
        return entry["digest"] if entry and entry["stamp"] == stamp else None

    def _remember(self, kind: str, file: Path, digest: str, stamp: list[int]) -> None:
        self._keep(self._name(kind, file), digest, stamp)

    def _keep(self, name: str, digest: str, stamp: list[int]) -> None:
        """Keep a digest. A folder that can't be written is no reason to stop."""
        entries = self._read()
        entries[name] = {"stamp": stamp, "digest": digest}
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with write_whole(self.path) as file:
                file.write(json.dumps(entries, indent=1).encode())

    def _read(self) -> dict[str, dict]:
        try:
            entries = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(entries, dict):
            return {}
        return {
            name: entry
            for name, entry in entries.items()
            if isinstance(entry, dict) and {"stamp", "digest"} <= entry.keys()
        }

    @staticmethod
    def _name(kind: str, file: Path) -> str:
        return f"{kind}:{file.resolve()}"

    @staticmethod
    def _stamp(file: Path) -> list[int]:
        status = file.stat()
        return [status.st_size, status.st_mtime_ns]


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

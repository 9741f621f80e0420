"""Files below one folder: found fast, and never outside it."""

import os
import posixpath
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.errors import RequestError


@dataclass(frozen=True)
class _Folder:
    """One folder's names, and those in their composed form -> their true paths below the root."""

    files: Mapping[str, str]
    folders: Mapping[str, str]
    names: frozenset[str] = frozenset()  # as they are spelt, of links to nothing too


NOTHING = _Folder({}, {})
DEEPEST = 500  # folders on the way to a file; each takes a call of Python's, which allows 1000


class Root:
    """A folder out of which no path leads: a link that does is refused when it is asked for.

    Each folder below it is read once, which for many files is far cheaper than asking for each.

    Args:
        path: the folder, which is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._real = os.path.realpath(path)
        self._folders: dict[str, _Folder] = {}
        self._links: set[str] = set()

    def place(self, text: str) -> str:
        """A path as a user wrote it, made relative to the root, in POSIX form.

        Raises:
            RequestError: it is empty, or leads out of the root by its words alone.
        """
        if "\\" in text:
            raise RequestError(f"{text!r} has backslashes; write / between folders")
        path = posixpath.normpath(text)
        if path.count("/") > DEEPEST:
            raise RequestError(f"{text[:40]!r}... lies more than {DEEPEST} folders deep")
        if posixpath.isabs(path):
            path = self._relative(path)
        if not text or path == "." or path.split("/", 1)[0] == "..":
            raise RequestError(f"{text!r} is no path below {self.path}")
        return path

    def _relative(self, path: str) -> str:
        for root in (str(self.path), self._real):
            folder = f"{root.rstrip('/')}/"
            if path.startswith(folder):
                return path[len(folder) :]
        return ".."

    def find(self, path: str) -> str | None:
        """The true path of a file, as the file system spells it; None where there is none.

        Accents may be composed or not: archives that were packed on a Mac spell them apart.

        Args:
            path: as ``place`` gives it.

        Raises:
            RequestError: a link on the way leads out of the root.
        """
        folder, _, name = path.rpartition("/")
        files = self._open(folder).files
        return self._check_link(files.get(name) or files.get(composed(name)))

    def names(self, folder: str) -> set[str]:
        """What lies in a folder, links to nothing too; none where it isn't there, or is a file."""
        self._check_link(folder)
        return {*self._open(folder).names}

    def __contains__(self, path: str) -> bool:
        """Whether a file or folder lies there."""
        folder, _, name = path.rpartition("/")
        inside = self._open(folder)
        true = inside.files.get(name) or inside.folders.get(name)
        self._check_link(true or path)
        # In this very spelling: who asks goes on with the path as it is.
        return true is not None and true.rpartition("/")[2] == name

    def first(self, *paths: str) -> str | None:
        """The first of some paths where something lies."""
        return next((path for path in paths if path in self), None)

    def _open(self, path: str) -> _Folder:
        known = self._folders.get(path)
        if known is None:
            parent, _, name = path.rpartition("/")
            folders = self._open(parent).folders if path else {}
            true = self._check_link(folders.get(name) or folders.get(composed(name)))
            known = self._folders[path] = self._read(true or "") if true or not path else NOTHING
        return known

    def _read(self, folder: str) -> _Folder:
        files: dict[str, str] = {}
        folders: dict[str, str] = {}
        listed: set[str] = set()
        with os.scandir(self.path / folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                true = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    self._links.add(true)
                    listed.add(entry.name)
                try:
                    names = folders if entry.is_dir() else files if entry.is_file() else None
                except OSError:  # a link that leads round in a circle is neither
                    continue
                if names is not None:
                    listed.add(entry.name)
                    names[entry.name] = true
                    names.setdefault(composed(entry.name), true)
        return _Folder(files, folders, frozenset(listed))

    def _check_link(self, path: str | None) -> str | None:
        if path in self._links:
            refuse_leading_out(self.path / path, self._real)
        return path


def refuse_leading_out(link: Path, real_root: str) -> None:
    """Refuse a link that ends outside the folder it lies in.

    Args:
        link: a symbolic link.
        real_root: the folder, itself without links.

    Raises:
        RequestError: it leads out, or nowhere.
    """
    target = os.path.realpath(link)
    if not target.startswith(f"{real_root.rstrip('/')}/"):
        raise RequestError(f"{link} is a link that leads out of {real_root}, to {target}")
    if not Path(target).exists():
        raise RequestError(f"{link} is a link to nothing; expected a file at {target}")


def composed(text: str) -> str:
    """One spelling for a name, the same on every file system (Unicode's NFC)."""
    return unicodedata.normalize("NFC", text)

"""Writing files: whole or not at all, whoever else writes beside us.

A new file is made under a hidden, random name, exclusively, so that no other writer and no link
can stand there; it takes its own name when all its bytes are on the disk. Process numbers would
not do: in containers every process is number 1.

What a kill leaves is deleted by whoever next writes into the folder. The rule: a name that only
this module gives, and a lock that nobody holds. A writer holds the kernel's lock on its file for as
long as it lives, so a lock that can be had proves that it is dead. Where a file system has no such
locks nothing is deleted.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cache.errors import RequestError

if sys.platform != "win32":  # which neither deletes nor renames what is open, and needs no locks
    import fcntl

LEFTOVER = re.compile(r"\..*\.[0-9a-f]{16}\.medprobe", re.DOTALL)
N_KEPT = 50  # characters of the final name in the temporary one: a file system takes 255 bytes
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
READ_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class NewFile:
    """A file that takes its name when it is whole; ``file`` is open for writing and reading bytes.

    For writers that take no open file there is ``work_folder``.

    Args:
        path: where it will be. What is there, a link too, is replaced and never written through.

    Raises:
        OSError: the folder can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        remove_leftovers(path.parent)
        while True:
            self._partial = _temporary(path)
            self.file = self._partial.open("x+b")
            if _hold(self.file.fileno(), self._partial):
                return
            self.file.close()

    def finish(self, path: Path | None = None) -> None:
        """Give the file its name, or another one in the same folder, once it is on the disk.

        Raises:
            OSError: the disk is full, or failed; what was there before is still there.
        """
        self.file.flush()
        os.fsync(self.file.fileno())
        if sys.platform == "win32":
            self.file.close()
        self.path = path or self.path
        self._partial.replace(self.path)  # still locked: nobody may take it for a leftover
        self.file.close()
        sync_folder(self.path.parent)

    def discard(self) -> None:
        """Delete what hasn't got its name."""
        with contextlib.suppress(OSError):  # of a full disk: close flushes what is left
            self.file.close()
        self._partial.unlink(missing_ok=True)


@contextlib.contextmanager
def write_whole(path: Path, *, overwrite: bool = True) -> Iterator[IO[bytes]]:
    """A file to write; at the end of the block it is at ``path``, after an error it never was.

    Args:
        path: where it will be.
        overwrite: replace the file, or the link to one, that is there.

    Raises:
        FileExistsError: something is there that isn't to be replaced.
        OSError: it can't be written.
    """
    new = NewFile(path)
    with contextlib.ExitStack() as stack:
        stack.callback(new.discard)
        yield new.file
        if not overwrite:
            path.open("xb").close()  # from here on the name is ours
            stack.callback(path.unlink, missing_ok=True)
        new.finish()
        stack.pop_all()


@contextlib.contextmanager
def write_asked(path: Path) -> Iterator[IO[bytes]]:
    """``write_whole`` for a file that -o names: whatever is wrong is a line about that name.

    Raises:
        RequestError: it can't be written.
    """
    if not path.name:
        raise RequestError(f"-o takes a file, not {str(path)!r}")
    try:
        _refuse_irregular(path)  # what is only remembered may take a pipe's place; this may not
        with write_whole(path) as file:
            yield file
    except OSError as error:
        why = error.strerror or str(error)
        if not path.parent.is_dir():
            why = f"there is no folder {path.parent}; make it, or name another"
        raise RequestError(f"can't write {path}: {why}") from error


@contextlib.contextmanager
def work_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path`` for as long as the block lasts; ``move_whole`` ends the work."""
    remove_leftovers(path.parent)
    while True:
        folder = _temporary(path)
        folder.mkdir()
        with contextlib.ExitStack() as stack:
            try:
                descriptor = stack.enter_context(_open_folder(folder))
            except FileNotFoundError:
                continue
            if not _hold(descriptor, folder):
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


def move_whole(made: Path, path: Path) -> None:
    """Give a file that is whole another name on the same file system, once it is on the disk."""
    with made.open("r+b") as file:
        os.fsync(file.fileno())
    made.replace(path)
    sync_folder(path.parent)


def open_no_link(path: Path, mode: str, buffering: int = -1) -> IO[bytes]:
    """``open`` for a name that stays, refusing a link that leads elsewhere.

    Raises:
        OSError: it can't be opened, or is a link.
    """
    return open(
        path, mode, buffering, opener=lambda name, flags: os.open(name, flags | NO_LINK, 0o666)
    )


def open_regular(path: Path) -> IO[bytes]:
    """Open a file to read; a pipe, which would be waited for, or a device is refused.

    Raises:
        OSError: it can't be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | READ_AT_ONCE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def no_file(path: Path) -> str:
    """Why there is no file to read: nothing is there, or a pipe, a folder, a link to nothing."""
    return f"{path} is not a regular file" if os.path.lexists(path) else f"no file at {path}"


def stream_sha256(file: IO[bytes]) -> str:
    """SHA-256 of an open file's bytes, from where it stands to its end."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def append(path: Path, text: str) -> None:
    """Add lines to a file that other processes may add to, in one write, and never through a link.

    Raises:
        OSError: it can't be written, or is a link.
    """
    with open_no_link(path, "ab", buffering=0) as file:
        write_all(file, text.encode())


def write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """Write all of it into a file without a buffer, whose writes may stop early: at 2 GiB, by a signal."""
    left = memoryview(data).cast("B")
    while left:
        left = left[file.write(left) :]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock for moments: files that belong together are changed by one at a time.

    Waits for whoever holds it. On a file system without locks it holds nothing.
    """
    with _open_folder(folder) as descriptor:
        _take_lock(descriptor, wait=True)
        yield


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in ``folder`` survive a power cut (POSIX only)."""
    with _open_folder(folder) as descriptor:
        if sys.platform != "win32":
            os.fsync(descriptor)


def find_leftovers(folder: Path) -> list[Path]:
    """What writers that are dead, or still at work, have in a folder beside whole files."""
    try:
        with os.scandir(folder) as entries:
            return sorted(folder / e.name for e in entries if LEFTOVER.fullmatch(e.name))
    except OSError:
        return []  # no folder, or none of ours


def remove_leftovers(folder: Path) -> None:
    """Delete what dead writers left in a folder; see above for what proves that they are dead."""
    for path in find_leftovers(folder):
        with contextlib.suppress(OSError):
            _remove_if_dead(path)


def _remove_if_dead(path: Path) -> None:
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        return  # nothing that this module makes
    if sys.platform == "win32":  # what a process has open can't be deleted there
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    descriptor = os.open(path, os.O_RDONLY | NO_LINK)
    try:
        if _take_lock(descriptor):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        os.close(descriptor)


def _refuse_irregular(path: Path) -> None:
    # /dev/stdout is a link to what the process has open, which may be a regular file.
    is_open = path.is_symlink() and path.readlink().is_relative_to("/proc")
    if is_open or (path.exists() and not path.is_file()):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[:N_KEPT]}.{secrets.token_hex(8)}.medprobe")


def _hold(descriptor: int, path: Path) -> bool:
    """Lock what was just made; False where another took it for a leftover before it was locked."""
    if sys.platform == "win32":
        return True
    _take_lock(descriptor, wait=True)  # for whoever has it is about to delete the file
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def _take_lock(descriptor: int, *, wait: bool = False) -> bool:
    """Take an open file's or folder's lock, which the kernel frees on any death.

    Returns:
        False where another process has it, or there are no locks.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    """A folder's descriptor; on Windows, where folders can't be opened, that of nothing."""
    descriptor = os.open(os.devnull if sys.platform == "win32" else folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

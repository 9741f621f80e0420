"""Files that owners publish at an address with an MD5: found, checked, fetched, in the sizes there are."""

import contextlib
import functools
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from cache import RequestError
from cache.commands.names import first_line, format_bytes
from cache.files import move_whole, open_no_link
from extract.machine.digests import file_md5
from extract.machine.network import FORBIDDEN, offline, open_url

CHUNK = 1 << 20


@dataclass(frozen=True)
class OfficialFile:
    """One file: what it should be, and where."""

    name: str  # of the data set, as typed after --data
    source_size: int
    path: Path
    md5: str
    url: str
    n_images: int
    raw_bytes: int = 0  # of its arrays, uncompressed: as large as a download can be
    usual_size: int | None = None  # the size that it stands in for, offline; None: for no other
    sizes: tuple[tuple[int, Path], ...] = ()  # that the set is published in, smallest first

    @property
    def exists(self) -> bool:
        return self.path.is_file()

    @property
    def here(self) -> dict[int, Path]:
        """The sizes that are on this machine."""
        return {size: path for size, path in self.sizes if path.is_file()}


def choose_size(
    name: str, paths: Mapping[int, Path], size: int, source_size: int | None
) -> tuple[int, int | None]:
    """Which of a set's sizes to take, and the usual one where it stands in for that.

    Args:
        name: of the data set.
        paths: of its files, by the size of their images, smallest first; all in one folder.
        size: side of the encoder's input.
        source_size: what the user said; None takes the smallest that is at least ``size``, else the
            largest; where that isn't here, the network is not to be used, and the set is here in
            just one size, that one.

    Raises:
        RequestError: there is no such size, or the folder is none.
    """
    usual_size, sizes = None, list(paths)
    if source_size is None:
        source_size = next((s for s in sizes if s >= size), sizes[-1])
        here = [s for s, path in paths.items() if path.is_file()]
        if offline() and len(here) == 1 and source_size not in here:
            usual_size, source_size = source_size, here[0]
    if source_size not in sizes:
        raise RequestError(
            f"--source-size takes {', '.join(map(str, sizes))} for {name}, not {source_size}"
        )
    root = paths[source_size].parent
    if root.exists() and not root.is_dir():
        raise RequestError(f"--data-root takes the folder of {name}'s files; {root} is a file")
    return source_size, usual_size


def check_file(
    file: OfficialFile,
    md5_of: Callable[[Path], str],
    why_not: Callable[[OfficialFile], str] = lambda file: "",
) -> None:
    """Compare a file's MD5.

    Args:
        file: present on the disk.
        md5_of: computes, or remembers, a file's MD5.
        why_not: what is known of a wrong one, in words.

    Raises:
        RequestError: it isn't the official file; expected and found are named.
    """
    found = md5_of(file.path)
    if found != file.md5:
        why = ""
        with contextlib.suppress(RequestError, LookupError, OSError):
            why = why_not(file)
        raise RequestError(
            f"{file.path} isn't the official file: expected MD5 {file.md5}, found {found}{why}; "
            f"delete it and let extract download it, or get it from {file.url}"
        )


# ---------------------------------------------------------------------------- downloading


def refuse_offline(file: OfficialFile) -> None:
    """Refuse a file that would have to be downloaded where the network is not to be used.

    Raises:
        RequestError: that is so; the message says what is here instead.
    """
    if offline() and not file.exists:
        raise RequestError(_no_download(file, FORBIDDEN))


def download(file: OfficialFile, report: Callable[[int, int | None], None]) -> None:
    """Fetch a file from its owner's address, resuming what an earlier try left.

    Args:
        file: what to fetch; its folder is made.
        report: called with the bytes had and the bytes in all (None: unknown).

    Raises:
        RequestError: no network, offline by request, or what came is not the file.
    """
    refuse_offline(file)
    file.path.parent.mkdir(parents=True, exist_ok=True)
    part = file.path.with_name(file.path.name + ".part")
    # Shards that start together all find the file missing: one fetches it, the others wait.
    lock = FileLock(f"{part}.lock", fallback_to_soft=False)
    with lock:
        try:
            if not file.exists:
                _fetch(file, part, report)
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)


def _fetch(file: OfficialFile, part: Path, report: Callable[[int, int | None], None]) -> None:
    had = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={had}-"} if had else {})
    try:
        with open_url(request) as response:
            resumed = response.status == 206
            had = had if resumed else 0
            length = response.headers.get("Content-Length")
            total = had + int(length) if length else None
            with open_no_link(part, "ab" if resumed else "wb") as out:
                while chunk := response.read(CHUNK):
                    out.write(chunk)
                    had += len(chunk)
                    report(had, total)
        if total is not None and had < total:  # urllib takes a cut connection for the end
            raise ConnectionError(f"it broke off after {had:_} of {total:_} bytes; run it again")
    except urllib.error.HTTPError as error:
        error.close()
        # 416: what is here is as long as the file already, or longer; its MD5 decides.
        if error.code != 416:
            raise RequestError(_no_download(file, f"{error.code} {error.reason}")) from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.filename:
            raise  # the disk, not the network
        raise RequestError(_no_download(file, first_line(error))) from error
    found = file_md5(part)
    if found != file.md5:
        part.unlink()
        raise RequestError(
            f"what came from {file.url} isn't the file: expected MD5 {file.md5}, found {found}; "
            "it was deleted, try again"
        )
    move_whole(part, file.path)


def _no_download(file: OfficialFile, reason: str) -> str:
    return (
        f"{file.name} at {file.source_size} px isn't at {file.path} and can't be downloaded "
        f"({reason}); get {file.url} and put it there, or name its folder with --data-root DIR"
        f"{_other_sizes(file)}"
    )


def _other_sizes(file: OfficialFile) -> str:
    """How to take the set in a size that is here; empty where there is none."""
    here = " or ".join(map(str, file.here))
    return f", or take one that is here: --source-size {here}" if here else ""


@functools.cache
def download_bytes(file: OfficialFile) -> int | None:
    """How large a download will be; None where the host doesn't say or can't be asked."""
    if offline():
        return None
    request = urllib.request.Request(file.url, method="HEAD")
    try:
        with open_url(request) as response:
            return int(response.headers.get("Content-Length") or 0) or None
    except urllib.error.HTTPError as error:
        error.close()
        return None
    except (OSError, http.client.HTTPException, ValueError):
        return None


def describe_download(file: OfficialFile) -> str:
    """What must be fetched and how large it is, for the plan."""
    size = download_bytes(file)
    if size is None:
        why = f"host not reached; at most {format_bytes(file.raw_bytes)}"
        return f"download {file.path.name} first ({why}){_other_sizes(file)}"
    return f"download {file.path.name} first ({format_bytes(size)})"

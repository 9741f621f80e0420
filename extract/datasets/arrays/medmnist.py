"""MedMNIST's sets: the official files, checked, from the disk or from their own addresses.

Facts (task, classes, sizes of the splits, MD5, addresses) come from ``medmnist.INFO``.
"""

import contextlib
import functools
import http.client
import importlib.util
import runpy
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from cache import RequestError
from cache.commands.names import first_line, format_bytes
from cache.files import move_whole, open_no_link
from cache.format.sample_tables import SPLITS
from extract.datasets.arrays.npz import open_npz, read_members
from extract.datasets.dataset import Dataset
from extract.datasets.volumes import Slicing
from extract.machine.digests import file_md5
from extract.machine.network import FORBIDDEN, offline, open_url

FLAGS_2D = (  # smallest first, so that a long run has something to show soon
    "breastmnist",
    "retinamnist",
    "pneumoniamnist",
    "dermamnist",
    "bloodmnist",
    "organcmnist",
    "organsmnist",
    "organamnist",
    "pathmnist",
    "octmnist",
    "chestmnist",
    "tissuemnist",
)
FLAGS_3D = (  # likewise
    "organmnist3d",
    "adrenalmnist3d",
    "nodulemnist3d",
    "fracturemnist3d",
    "synapsemnist3d",
    "vesselmnist3d",
)
FLAGS = (*FLAGS_2D, *FLAGS_3D)
SIZES_2D = (28, 64, 128, 224)
SIZES_3D = (28, 64)
# The second Zenodo edition (2022) had other Organ splits; medmnist 3 publishes the third.
OLD_EDITION = {
    "organamnist": (34581, 6491, 17778),
    "organcmnist": (13000, 2392, 8268),
    "organsmnist": (13940, 2452, 8829),
}
CHUNK = 1 << 20


@dataclass(frozen=True)
class MedmnistFile:
    """One official file: what it should be, and where."""

    flag: str
    source_size: int
    path: Path
    md5: str
    url: str
    n_images: int
    usual_size: int | None = None  # the size that it stands in for, offline; None: for no other

    @property
    def exists(self) -> bool:
        return self.path.is_file()


def info(flag: str) -> dict[str, Any]:
    """MedMNIST's own description of a set.

    Raises:
        RequestError: there is no such set.
    """
    every = _every_info()
    if flag not in every:
        raise RequestError(f"no data set {flag!r} among MedMNIST's; there are {', '.join(FLAGS)}")
    return every[flag]


@functools.cache
def _every_info() -> dict[str, Any]:
    """``medmnist.INFO``, from its file alone: to import the package is to import torch, seconds."""
    package = importlib.util.find_spec("medmnist")
    assert package is not None, "it is a dependency"
    assert package.origin is not None
    return runpy.run_path(str(Path(package.origin).with_name("info.py")))["INFO"]


def find_file(flag: str, size: int, source_size: int | None, root: Path | None) -> MedmnistFile:
    """Which official file belongs to a request.

    Args:
        flag: e.g. "pathmnist".
        size: side of the encoder's input: decides the source size if that is None.
        source_size: 28, 64, 128 or 224, of volumes 28 or 64; None takes the smallest that is at least ``size``, else
            the largest; where that isn't here, the network is not to be used, and the set is here in just
            one size, that one.
        root: the folder of the files; None is MedMNIST's own, ``~/.medmnist``.

    Raises:
        RequestError: unknown set or size.
    """
    facts = info(flag)
    sizes = SIZES_3D if flag in FLAGS_3D else SIZES_2D
    root = root or Path.home() / ".medmnist"
    usual_size = None
    if source_size is None:
        source_size = next((s for s in sizes if s >= size), sizes[-1])
        here = [s for s in sizes if _path(root, flag, s).is_file()]
        if offline() and len(here) == 1 and source_size not in here:
            usual_size, source_size = source_size, here[0]
    if source_size not in sizes:
        raise RequestError(
            f"--source-size takes {', '.join(map(str, sizes))} for {flag}, not {source_size}"
        )
    if root.exists() and not root.is_dir():
        raise RequestError(f"--data-root takes the folder of MedMNIST's files; {root} is a file")
    suffix = _suffix(source_size)
    return MedmnistFile(
        flag,
        source_size,
        _path(root, flag, source_size),
        facts[f"MD5{suffix}"],
        facts[f"url{suffix}"],
        sum(facts["n_samples"].values()),
        usual_size,
    )


def _path(root: Path, flag: str, size: int) -> Path:
    return root / f"{flag}{_suffix(size)}.npz"


def _suffix(size: int) -> str:
    return "" if size == 28 else f"_{size}"


def open_medmnist(
    file: MedmnistFile, md5_of: Callable[[Path], str], slicing: Slicing | None = None
) -> Dataset:
    """Check an official file and describe it.

    Args:
        file: present on the disk.
        md5_of: computes, or remembers, a file's MD5.
        slicing: how volumes are cut.

    Raises:
        RequestError: it isn't the official file; expected and found are named.
    """
    facts = info(file.flag)
    found = md5_of(file.path)
    if found != file.md5:
        raise RequestError(_wrong_file(file, found))
    return open_npz(
        file.path,
        file.flag,
        f"md5:{found}",
        task=facts["task"],
        class_names=tuple(facts["label"].values()),
        licence=facts["license"],
        slicing=slicing,
    )


def _wrong_file(file: MedmnistFile, found: str) -> str:
    """Why a file isn't the official one, as far as it tells."""
    message = f"{file.path} isn't the official file: expected MD5 {file.md5}, found {found}"
    expected = tuple(info(file.flag)["n_samples"].values())
    with contextlib.suppress(RequestError, LookupError, OSError):
        members = read_members(file.path)
        counts = tuple(members[f"{split}_images"].shape[0] for split in SPLITS)
        if counts == OLD_EDITION.get(file.flag):
            message += f" (it is the edition of 2022: {counts} images instead of {expected})"
        elif counts != expected:
            message += f" (it has {counts} images instead of {expected})"
    return f"{message}; delete it and let extract download it, or get it from {file.url}"


# ---------------------------------------------------------------------------- downloading


def refuse_offline(file: MedmnistFile) -> None:
    """Refuse a file that would have to be downloaded where the network is not to be used.

    Raises:
        RequestError: that is so; the message says what is here instead.
    """
    if offline() and not file.exists:
        raise RequestError(_no_download(file, FORBIDDEN))


def download(file: MedmnistFile, report: Callable[[int, int | None], None]) -> None:
    """Fetch a file from MedMNIST's own address, resuming what an earlier try left.

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


def _fetch(file: MedmnistFile, part: Path, report: Callable[[int, int | None], None]) -> None:
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


def _no_download(file: MedmnistFile, reason: str) -> str:
    return (
        f"{file.flag} at {file.source_size} px isn't at {file.path} and can't be downloaded "
        f"({reason}); get {file.url} and put it there, or name its folder with --data-root DIR"
        f"{_other_sizes(file)}"
    )


def _other_sizes(file: MedmnistFile) -> str:
    """How to take the set in a size that is here; empty where there is none."""
    here = [str(size) for size in SIZES_2D if _path(file.path.parent, file.flag, size).is_file()]
    return f", or take one that is here: --source-size {' or '.join(here)}" if here else ""


@functools.cache
def download_bytes(file: MedmnistFile) -> int | None:
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


def describe_download(file: MedmnistFile) -> str:
    """What must be fetched and how large it is, for the plan."""
    size = download_bytes(file)
    if size is None:
        channels = info(file.flag)["n_channels"]
        most = file.n_images * channels * file.source_size**2
        why = f"host not reached; at most {format_bytes(most)}"
        return f"download {file.path.name} first ({why}){_other_sizes(file)}"
    return f"download {file.path.name} first ({format_bytes(size)})"

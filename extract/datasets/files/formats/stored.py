"""What a file holds once it is decoded, and how a decoder's failure becomes one line."""

import contextlib
import errno
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import RequestError

# Pillow's own bound for one image, above which it suspects a decompression bomb: 2^30 bytes / 4 / 3.
MAX_PIXELS = 89_478_485
MAX_VOXELS = 2**30  # of a whole volume or series; 512 x 512 x 1000, a long CT, is a quarter of it
REASON_LENGTH = 120
# The machine's trouble, not the file's: it must not be remembered as a damaged file.
PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)


class UnreadableImage(RequestError):
    """A file that isn't a readable image. The message is the reason, without the file's name."""


@dataclass(frozen=True)
class Shown:
    """A file's frames by its header's own window."""

    levels: NDArray[np.float32]  # (n, H, W) of 0..255
    decoder: int = 1  # see Stored


@dataclass(frozen=True)
class Stored:
    """A decoded file, its values as stored but for the header's rescaling. n frames of H x W."""

    values: NDArray[Any]  # (n, H, W) grey or (n, H, W, 3) colour; what a window acts on
    kind: np.dtype[Any]  # of the stored values, before any rescaling
    span: tuple[float, float] | None  # the type's whole range, rescaled; None: it has no bounds
    natural: bool = True  # whether span says where black and white are, if nobody else does
    header: Callable[[], Shown] | None = None  # by the header's own window
    inverted: bool = False  # low values are bright
    is_stack: bool = False  # frames follow each other in space or time
    patient: str = ""
    notes: tuple[str, ...] = ()
    # The decoder that first read such a file as it is read now: 1, or a later one where an earlier
    # one was wrong.
    decoder: int = 1
    check: Callable[[], None] = lambda: None  # raises where the decoder said nothing of damage

    @property
    def in_colour(self) -> bool:
        return self.values.ndim == 4

    @staticmethod
    def whole_span(kind: np.dtype[Any], bits: int = 0) -> tuple[float, float]:
        """What whole numbers can be: of a type, or of so many bits of it."""
        bits = bits or 8 * kind.itemsize
        if kind.kind == "i":
            return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
        return 0, 2.0**bits - 1


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into ``UnreadableImage``, and keep its warnings quiet.

    Raises:
        UnreadableImage: the reason, in a few words.
        RequestError: as raised inside, e.g. a package is missing.
        OSError: the machine fails, not the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RequestError:
        raise
    except MemoryError as error:
        raise OSError(errno.ENOMEM, "not enough memory to read it", str(path)) from error
    except OSError as error:
        if error.errno in PASSING:
            raise
        raise UnreadableImage(error.strerror or _reason(error, path)) from error
    # The one broad except: parsers of damaged files raise anything, struct.error to RecursionError.
    except Exception as error:
        raise UnreadableImage(_reason(error, path)) from error


def _reason(error: Exception, path: Path) -> str:
    """First line of an exception's message (and second, if it ends in a colon), without the path."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else type(error).__name__
    text = text.replace(str(path), path.name)
    return text if len(text) <= REASON_LENGTH else text[: REASON_LENGTH - 3] + "..."


def check_size(height: int, width: int, n: int = 1) -> None:
    """Refuse images without pixels and those that no memory should be asked for.

    Raises:
        UnreadableImage: naming the size.
    """
    if min(height, width, n) < 1:
        raise UnreadableImage(f"{width} x {height} pixels: nothing to see")
    if height * width > MAX_PIXELS:
        raise UnreadableImage(
            f"{width} x {height} pixels, where at most {MAX_PIXELS // 10**6} million are read"
        )
    if height * width * n > MAX_VOXELS:
        raise UnreadableImage(
            f"{n} frames of {width} x {height}, where at most {MAX_VOXELS // 10**6} million values "
            "are read"
        )


def needs(path: Path, package: str) -> RequestError:
    """What to say where an optional package is missing."""
    return RequestError(f"{path.name} needs {package}: pip install 'medprobe[medical]'")

"""TIFF as Pillow doesn't read it, put before it so that it does.

Numbers that its decoder knows and its table doesn't, numbers whose bytes it turns twice, stacks that
have one directory for all their images, and channels in planes of their own.
"""

import io
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from PIL import TiffImagePlugin

from extract.datasets.files.formats.stored import UnreadableImage

# Tags of TIFF 6.0.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
FILL_ORDER, DESCRIPTION = 266, 270
ORIENTATION, SAMPLES, STRIP_ROWS, PLANES, PREDICTOR = 274, 277, 278, 284, 317
TILE_SIDES, EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES = (322, 323), 338, 339, 347
STRIPS, TILES = (273, 279), (324, 325)  # places in the file, and bytes of each
# Values: of COMPRESSION, PHOTOMETRIC, PLANES, SAMPLE_FORMAT and EXTRA_SAMPLES.
PLAIN, WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, SEPARATE, SIGNED = 1, 0, 1, 2, 2, 2
PREMULTIPLIED, ALPHA = 1, 2
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# What a plane has of its image.
SHARED = (WIDTH, HEIGHT, COMPRESSION, FILL_ORDER, ORIENTATION, STRIP_ROWS, PREDICTOR, *TILE_SIDES, JPEG_TABLES)  # fmt: skip

for _photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
    for _order, _format, _bits, _mode in (
        (b"MM", 1, 16, ("I;16B", "I;16B")),
        (b"II", 2, 16, ("I", "I;16S")),
        (b"MM", 2, 16, ("I", "I;16BS")),
        (b"II", 1, 32, ("I", "I;32")),
        (b"MM", 1, 32, ("I", "I;32B")),
        (b"II", 2, 32, ("I", "I;32S")),
        (b"MM", 2, 32, ("I", "I;32BS")),
        (b"II", 3, 64, ("F", "F;64F")),
        (b"MM", 3, 64, ("F", "F;64BF")),
    ):
        _kind = (_order, _photometric, (_format,), 1, (_bits,), ())
        TiffImagePlugin.OPEN_INFO.setdefault(_kind, _mode)

# libtiff has turned the bytes, and Pillow 13 turns only those of I;16B back.
NATIVE = {
    "I;16BS": "I;16NS",
    "I;32B": "I;32N",
    "I;32BS": "I;32NS",
    "F;32BF": "F;32NF",
    "F;64BF": "F;64NF",
}


def tag(image: Any, number: int, default: int) -> int:
    """One number, the first where there is one for each channel."""
    value = image.tag_v2.get(number, default)
    return value[0] if isinstance(value, tuple) else value


def with_rawmode(tile: Any, rawmode: str) -> Any:
    """A tile of Pillow's, unpacked otherwise."""
    args = rawmode if isinstance(tile[3], str) else (rawmode, *tile[3][1:])
    return _changed(tile, 3, args)


def _changed(tile: Any, field: int, value: Any) -> Any:
    fields = [*tile[:field], value, *tile[field + 1 :]]
    # Before 11.1 Pillow's tiles are plain tuples.
    return type(tile)(*fields) if hasattr(tile, "_replace") else tuple(fields)


def mend_byte_order(image: Any) -> bool:
    """Unpack compressed numbers in the order that they come in; whether anything was wrong."""
    rawmode = image.tile[0][3][0] if image.tile and image.tile[0][0] == "libtiff" else ""
    if rawmode not in NATIVE:
        return False
    image.tile = [with_rawmode(tile, NATIVE[rawmode]) for tile in image.tile]
    return True


def describe(file: IO[bytes]) -> str:
    """What kind of image a TIFF's first directory tells of."""
    tags = _first_directory(file)
    file.seek(tags.next)
    tags.load(file)
    bits, formats = (tags.get(t, (1,)) for t in (BITS, SAMPLE_FORMAT))
    kinds = {1: "whole numbers", 2: "signed numbers", 3: "floating-point numbers"}
    kind = kinds.get(formats[0], "numbers of an unknown kind")
    return f"{len(bits)} x {bits[0]}-bit {kind}, photometric {tags.get(PHOTOMETRIC)}"


def _first_directory(file: IO[bytes]) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Not loaded: ``next`` is where it stands."""
    file.seek(0)
    head = file.read(16)
    return TiffImagePlugin.ImageFileDirectory_v2(head if 43 in head[2:4] else head[:8])


# ---------------------------------------------------------------- stacks with one directory


def count_hidden(image: Any) -> int:
    """Images of a stack whose first alone has a directory; 1 of any other TIFF.

    ImageJ writes so beyond 4 GB, and tifffile where it is asked to (``truncate``).

    Raises:
        UnreadableImage: they can't be found.
    """
    said = str(image.tag_v2.get(DESCRIPTION, ""))
    n = 1
    if said.startswith("ImageJ=") and (
        count := re.search(r"^images=(\d+)\s*$", said, re.MULTILINE)
    ):
        n = int(count[1])
    elif said.startswith("{") and '"truncated": true' in said:
        n = _count_values(said) // (image.height * image.width * tag(image, SAMPLES, 1))
    if n > 1 and tag(image, COMPRESSION, PLAIN) != PLAIN:
        raise UnreadableImage(f"a stack of {n} images, of which only the first can be found")
    return max(n, 1)


def _count_values(said: str) -> int:
    """Of tifffile's stack, by its description; 0 where that is somebody's own text."""
    try:
        shape = json.loads(said)["shape"]
        return math.prod(shape) if all(isinstance(side, int) for side in shape) else 0
    except (ValueError, LookupError, TypeError):
        return 0


def skip_images(image: Any, n: int) -> None:
    """Let a stack's first directory tell of image n.

    Raises:
        UnreadableImage: the file ends before it.
    """
    starts, sizes = (image.tag_v2[number] for number in STRIPS)
    page_bytes = sum(sizes)
    directory = _first_directory(image.fp).next
    end = directory if directory > starts[0] else image.fp.seek(0, io.SEEK_END)
    if starts[0] + (n + 1) * page_bytes > end:
        raise UnreadableImage(f"a stack of more than {n} images that ends with image {n}")
    image.tile = [_changed(tile, 2, tile[2] + n * page_bytes) for tile in image.tile]


def piece_bytes(image: Any) -> int:
    """Of a strip or tile, uncompressed; a tile may be larger than its image."""
    rows = min(tag(image, STRIP_ROWS, image.height), image.height)
    tile = [tag(image, number, 0) for number in TILE_SIDES]
    n_pixels = math.prod(tile) if TILES[0] in image.tag_v2 else rows * image.width
    return n_pixels * tag(image, SAMPLES, 1) * tag(image, BITS, 1) // 8


# ------------------------------------------------------------------------------- planes


def needs_planes(image: Any) -> bool:
    """Whether its channels lie in planes and Pillow doesn't read them right, or not at all."""
    n = tag(image, SAMPLES, 1)
    return (
        tag(image, PLANES, 1) == SEPARATE
        and n > 1
        and (n == 2 or tag(image, BITS, 1) > 8)
        and tag(image, PHOTOMETRIC, 0) == (BLACK_IS_ZERO if n == 2 else RGB)
    )


def split_planes(image: Any, path: Path) -> Iterator[io.BytesIO]:
    """Each channel's plane as a grey TIFF of its own: the same bytes under another directory."""
    tags, n = image.tag_v2, tag(image, SAMPLES, 1)
    content = path.read_bytes()
    content += bytes(-len(content) % 2)  # directories begin at even places
    order = "<" if content[:2] == b"II" else ">"
    head = struct.pack(f"{order}2sHI", content[:2], 42, len(content))
    shared = {number: tags[number] for number in SHARED if number in tags}
    shared |= {number: tag(image, number, 1) for number in (BITS, SAMPLE_FORMAT)}
    shared |= {PHOTOMETRIC: BLACK_IS_ZERO, SAMPLES: 1}
    for channel in range(n):
        own = {}
        for number in TILES if TILES[0] in tags else STRIPS:
            of_plane = len(tags[number]) // n
            own[number] = tags[number][channel * of_plane : (channel + 1) * of_plane]
        directory = _directory(order, shared | own, len(content))
        yield io.BytesIO(head + content[len(head) :] + directory)


def _directory(order: str, tags: Mapping[int, Any], start: int) -> bytes:
    """A directory at a place in a file: numbers of 32 bit, and bytes."""
    entries, behind = [], b""
    end = start + 2 + 12 * len(tags) + 4
    for number, value in sorted(tags.items()):
        if isinstance(value, bytes):
            kind, n, data = 7, len(value), value
        else:
            numbers = value if isinstance(value, tuple) else (value,)
            kind, n, data = 4, len(numbers), struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(data) > 4:
            place = struct.pack(f"{order}I", end + len(behind))
            behind, data = behind + data, place
        entries.append(struct.pack(f"{order}HHI4s", number, kind, n, data))
    return struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4) + behind

"""PNG, JPEG, TIFF, BMP, WebP and GIF, through Pillow.

Where Pillow would silently show less than the file holds, this file goes round it: colour of 16 bit
comes as 8 bit, signed bytes come as unsigned, and "white is zero" is ignored beyond 8 bit.
"""

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from extract.datasets.files.formats import tiff
from extract.datasets.files.formats.damage import (
    check_deflate,
    check_fax,
    check_jpeg,
    heeding_complaints,
)
from extract.datasets.files.formats.stored import Stored, UnreadableImage, check_size

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif")
# Named, because Pillow would also run Ghostscript on anything that looks like PostScript.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")

FAX, JPEG = (2, 3, 4), 7  # values of TIFF's COMPRESSION
DEFLATE = (8, 32946)
CHECKS = {2: check_fax, 4: check_fax, JPEG: check_jpeg}  # what a strip is searched with

TO_ALPHA = {"1": "LA", "L": "LA", "P": "RGBA", "RGB": "RGBA"}  # where one colour is transparent
TO_PLAIN = {
    "1": "L",
    "La": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGBX": "RGB",
    "RGBa": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}


@dataclass(frozen=True)
class _Page:
    values: NDArray[Any]  # (H, W) or (H, W, 3), on black
    opaque: bool
    span: tuple[float, float] | None
    notes: tuple[str, ...] = ()
    decoder: int = 1  # see Stored


def read(path: Path) -> Stored:
    """Read an image, or the pages of a TIFF."""
    with _open(path) as image:
        n = _count_pages(image)
        n_hidden = tiff.count_hidden(image) if image.format == "TIFF" and n == 1 else 1
        check_size(image.height, image.width, max(n, n_hidden))
        inverted = _is_white_zero(image)
        if n_hidden == 1:
            pages = [_read_page(path, image, number) for number in range(n)]
        else:
            n, pages = n_hidden, [_read_hidden(path, number) for number in range(n_hidden)]
    if len({(page.values.shape, page.values.dtype) for page in pages}) > 1:
        raise UnreadableImage(f"its {n} pages differ in size or kind; store each in its own file")
    first = pages[0]
    # A view where there is one page: stacking would copy it.
    values = first.values[None] if n == 1 else np.stack([page.values for page in pages])
    return Stored(
        values,
        first.values.dtype,
        first.span,
        # A signed or 32-bit image, say of Hounsfield units, fills next to nothing of its type.
        natural=first.values.dtype in (np.uint8, np.uint16),
        inverted=inverted,
        is_stack=n > 1,
        notes=tuple(dict.fromkeys(note for page in pages for note in page.notes)),
        decoder=max(page.decoder for page in pages),
        check=functools.partial(_check_damage, path),
    )


def read_numbers(path: Path) -> NDArray[Any]:
    """Values as a mask has them, (n, H, W) or in colour (n, H, W, 3): nothing is scaled.

    A palette's indices stay what they are, and so do grey levels of 1, 2 and 4 bit.
    """
    with _open(path) as image:
        rawmode = _rawmode(image)
        if image.mode in ("P", "1") and _count_pages(image) == 1:
            check_size(image.height, image.width)
            _turn_upright(image)
            return np.asarray(image)[None].astype(np.uint8)
        if image.mode in ("LA", "RGBA"):
            check_size(image.height, image.width)
            if any(image.getchannel("A").histogram()[1:-1]):
                raise UnreadableImage(
                    "it is half transparent, so values are mixed; store it opaque"
                )
    values = read(path).values
    if rawmode in ("L;2", "L;4"):  # which Pillow stretches to 0..255
        values = values // (255 // (2 ** int(rawmode[2:]) - 1))
    return values


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    # Given a path, Pillow maps uncompressed files into memory, and garbles those that are to be
    # turned by a right angle (seen with Pillow 13: TIFF, orientation 5 to 8). Given a file, it reads.
    with path.open("rb") as file, _identify(file) as image:
        yield image


def _identify(file: IO[bytes]) -> Any:
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        file.seek(0)
        if file.read(4) in tiff.MAGIC:
            kind = tiff.describe(file)
            raise UnreadableImage(f"a TIFF of a kind that isn't supported: {kind}") from error
        raise UnreadableImage("not an image, or of a kind that Pillow can't read") from error


def _check_damage(path: Path) -> None:
    """Look at coded data that a decoder made a picture of, whatever they held.

    Raises:
        UnreadableImage: they are damaged.
    """
    with _open(path) as image:
        if image.format in ("JPEG", "MPO"):
            check_jpeg(path.read_bytes())
        for number in range(_count_pages(image) if image.format == "TIFF" else 0):
            image.seek(number)
            _check_page(path, image)


def _check_page(path: Path, image: Any) -> None:
    """Each strip or tile of a TIFF's page."""
    tags, compression = image.tag_v2, tiff.tag(image, tiff.COMPRESSION, 1)
    places = tiff.TILES if tiff.TILES[0] in tags else tiff.STRIPS
    starts, sizes = (tags.get(number, ()) for number in places)
    check = CHECKS.get(compression)
    if compression in DEFLATE:
        check = functools.partial(check_deflate, n_bytes=tiff.piece_bytes(image))
    if check is None:
        return
    tables = bytes(tags.get(tiff.JPEG_TABLES, b""))[:-2]  # without their end marker
    with path.open("rb") as file:
        for start, size in zip(starts, sizes, strict=False):
            file.seek(start)
            data = file.read(size)
            check(tables + data[2:] if tables else data)  # whose start marker the tables have


def _count_pages(image: Any) -> int:
    n = getattr(image, "n_frames", 1)
    if n == 1 or image.format == "TIFF":
        return n
    if image.format == "MPO":  # a camera's JPEG; what follows is its preview or depth
        return 1
    raise UnreadableImage(f"an animation of {n} frames, where one image was expected")


def _read_page(path: Path, image: Any, number: int) -> _Page:
    if number:
        image.seek(number)
    check_size(image.height, image.width)
    is_fax = image.format == "TIFF" and tiff.tag(image, tiff.COMPRESSION, 1) in FAX
    # Of fax alone libtiff decodes on where it finds no code.
    with heeding_complaints() if is_fax else contextlib.nullcontext():
        return _decode_page(path, image, number)


def _read_hidden(path: Path, number: int) -> _Page:
    """An image of a TIFF's stack that has one directory."""
    with _open(path) as image:
        tiff.skip_images(image, number)
        page = _decode_page(path, image, 0)
    return dataclasses.replace(page, decoder=2)  # the first one read the first image only


def _decode_page(path: Path, image: Any, number: int) -> _Page:
    mended = image.format == "TIFF" and tiff.mend_byte_order(image)
    # Both are asked before loading, which forgets them.
    rawmode = _rawmode(image)
    turned = _is_turned(image)
    if image.format == "TIFF" and tiff.needs_planes(image):
        page = _join_planes(path, image)
        # Grey of 8 bit with alpha; others were refused.
        mended = [tiff.tag(image, t, 1) for t in (tiff.SAMPLES, tiff.BITS)] == [2, 8]
    elif ";16" in rawmode and not image.mode.startswith("I"):
        page = _Page(*_read_colour16(path, number, rawmode), (0, 65535))
        mended |= rawmode.startswith("RGBX")  # whose X was taken for alpha
    else:
        if turned:
            _turn_upright(image)
        mended |= _mend_transparency(image, rawmode)
        page = _convert(image)
    notes = {"exif-orientation": turned, "transparency": not page.opaque}
    given = tuple(note for note, is_so in notes.items() if is_so)
    return dataclasses.replace(page, notes=given, decoder=2 if mended else 1)


def _mend_transparency(image: Any, rawmode: str) -> bool:
    """Scale a PNG's transparent level as Pillow scales grey of 2 and 4 bit; whether it did."""
    if not rawmode.startswith("L;") or "transparency" not in image.info:
        return False
    highest = 2 ** int(rawmode[2:]) - 1
    image.info["transparency"] = (image.info["transparency"] & highest) * 255 // highest
    return True


def _join_planes(path: Path, image: Any) -> _Page:
    """Channels that lie in planes, each read as a grey image."""
    pages = []
    for file in tiff.split_planes(image, path):
        with _identify(file) as plane:
            pages.append(_decode_page(path, plane, 0))
    values = np.stack([page.values for page in pages], axis=-1)
    n_colours = 1 if len(pages) == 2 else 3
    alpha = tiff.tag(image, tiff.EXTRA_SAMPLES, 0) if len(pages) > n_colours else 0
    if alpha == tiff.ALPHA:
        plain, opaque = _on_black(values[..., : n_colours + 1])
    else:  # premultiplied: on black already
        plain = values[..., 0] if n_colours == 1 else values[..., :3]
        white = np.iinfo(values.dtype).max
        opaque = alpha != tiff.PREMULTIPLIED or bool((values[..., n_colours] == white).all())
    return _Page(plain, opaque, pages[0].span)


def _is_turned(image: Any) -> bool:
    tags = image.tag_v2 if image.format == "TIFF" else image.getexif()
    return tags.get(tiff.ORIENTATION, 1) in range(2, 9)


def _turn_upright(image: Any) -> None:
    image.load()
    # Pillow has turned a TIFF by now; the older ones still say that it is to be turned.
    if image.format != "TIFF":
        ImageOps.exif_transpose(image, in_place=True)


def _rawmode(image: Any) -> str:
    """How Pillow unpacks the stored bytes, e.g. "RGB;16B"; "" where its decoder doesn't say."""
    if image.format not in ("PNG", "TIFF") or not image.tile:
        return ""
    args = image.tile[0][3]
    return args if isinstance(args, str) else args[0]


# ------------------------------------------------------------------------- 16 bit in colour


def _read_colour16(path: Path, number: int, rawmode: str) -> tuple[NDArray[Any], bool]:
    """Colour of 16 bit, and whether it is opaque.

    Pillow has no such mode and keeps the high bytes. Told that the bytes stand in the other order
    it keeps the low ones, so two readings are the whole: its own inflating and unfiltering, and no
    other library.
    """
    layout, _, order = rawmode.partition(";")
    if layout == "LA":  # each value of 16 bit comes as two of 8
        parts = _unpack(path, number, "RGBA").astype(np.uint16)
        values = parts[..., 0::2] << 8 | parts[..., 1::2]
    elif layout in ("RGB", "RGBX", "RGBA"):
        if order.endswith("N"):
            order = "16L" if sys.byteorder == "little" else "16B"
        other = "16B" if order == "16L" else "16L"
        high = _unpack(path, number, rawmode).astype(np.uint16)
        values = high << 8 | _unpack(path, number, f"{layout};{other}")
    else:
        raise UnreadableImage(f"{layout} of 16 bit isn't supported; store it as RGB or grey")
    with _open(path) as image:
        transparent = image.info.get("transparency")
    if transparent is not None:
        return _blacken(values, np.all(values == transparent, axis=-1))
    if layout in ("RGB", "RGBX"):  # whose fourth channel isn't alpha
        return values[..., :3], True
    return _on_black(values)


def _unpack(path: Path, number: int, rawmode: str) -> NDArray[np.uint8]:
    with _open(path) as image:
        image.seek(number)
        image.tile = [tiff.with_rawmode(tile, rawmode) for tile in image.tile]
        _turn_upright(image)
        return np.asarray(image)


# ------------------------------------------------------------------------------- other modes


def _convert(image: Any) -> _Page:
    """An upright image as numbers."""
    if image.mode.startswith(("I", "F")):
        return _convert_wide(image)
    if (
        image.format == "TIFF"
        and image.mode == "L"
        and tiff.tag(image, tiff.SAMPLE_FORMAT, 1) == tiff.SIGNED
    ):
        return _Page(np.asarray(image).view(np.int8), True, (-128, 127))
    grey = image.mode == "P" and _has_grey_palette(image)
    if "transparency" in image.info:
        image = image.convert(TO_ALPHA.get(image.mode, image.mode))
    image = image.convert(TO_PLAIN[image.mode]) if image.mode in TO_PLAIN else image
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise UnreadableImage(f"colours as {image.mode} aren't supported; store it as RGB or grey")
    values, opaque = np.asarray(image), True
    if image.mode in ("LA", "RGBA"):
        values, opaque = _on_black(values)
    return _Page(values[..., 0] if grey and values.ndim == 3 else values, opaque, (0, 255))


def _convert_wide(image: Any) -> _Page:
    """Grey of more than 8 bit: Pillow's modes I;16, I and F."""
    values = np.asarray(image)
    if image.mode == "F":
        return _Page(values, True, None)
    bits, signed = 16, False
    if image.format == "TIFF":
        bits = tiff.tag(image, tiff.BITS, 1)
        signed = tiff.tag(image, tiff.SAMPLE_FORMAT, 1) == tiff.SIGNED
    # Mode I is int32, whatever was stored; so is a PNG of 16 bit with the older Pillows.
    values = values.astype(f"{'int' if signed else 'uint'}{16 if bits <= 16 else 32}")
    span = Stored.whole_span(values.dtype, bits)
    transparent = image.info.get("transparency")
    opaque = True
    if transparent is not None:
        values, opaque = _blacken(values, values == transparent)
    return _Page(values, opaque, span)


def _on_black(values: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Lay (H, W, 2 or 4), whose last channel is alpha, on black; and whether all was opaque."""
    alpha = values[..., -1:]
    plain = values[..., :-1]
    white = np.iinfo(values.dtype).max
    opaque = bool((alpha == white).all())
    if not opaque:
        laid = plain.astype(np.uint32) * alpha  # 65535 squared still fits
        plain = ((laid + white // 2) // white).astype(values.dtype)
    return (plain[..., 0] if plain.shape[-1] == 1 else plain), opaque


def _blacken(values: NDArray[Any], transparent: NDArray[np.bool_]) -> tuple[NDArray[Any], bool]:
    values = values.copy()
    values[transparent] = 0
    return values, not transparent.any()


def _has_grey_palette(image: Any) -> bool:
    image.load()
    palette = np.array(image.getpalette()).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _is_white_zero(image: Any) -> bool:
    """Whether low values are bright and Pillow left them so: it inverts 1 and 8 bit itself."""
    return (
        image.format == "TIFF"
        and image.mode.startswith(("I", "F"))
        and (tiff.tag(image, tiff.PHOTOMETRIC, 1) == tiff.WHITE_IS_ZERO)
    )

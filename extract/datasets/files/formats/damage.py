"""Damage that decoders pass over: they invent what is missing, and give back a whole picture.

libjpeg counts what it had to invent, and Pillow has no way to ask it: simplejpeg, around the same
library, reads the coded data once more and tells. Other decoders write a line to standard error.

What can't be known: uncompressed, PackBits and LZW TIFF, BMP, GIF, WebP and JPEG 2000 have no
checksums, and other bytes are another picture. In a JPEG, changed bytes that happen to hold as many
blocks as before are other coefficients: a flipped bit mostly is, and the picture may be brighter or
darker from there on. Arithmetic coding has no wrong end, a lossless JPEG may go on too long, and a
JPEG of unusual subsampling isn't judged. Rows that are missing at the end of a fax are white.
"""

import contextlib
import os
import re
import tempfile
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg

from extract.datasets.files.formats.stored import UnreadableImage

# ITU-T T.81, table B.1, the byte behind 0xFF. Not matched: stuffed zeros, fill, and the markers
# without a segment that stand inside of coded data (restarts) or tell nothing.
MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
END, SCAN, TABLES = 0xD9, 0xDA, 0xC4
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
DCT_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # sequential and progressive; Huffman, arithmetic
HUFFMAN_SEQUENTIAL = (0xC0, 0xC1)
AC = 0x10  # class of a Huffman table, beside its number
REMARKS = (*range(0xE0, 0xF0), 0xFE)  # metadata, of which libjpeg warns too
N_COEFFICIENTS = 64  # of a block

# libjpeg's words, of jerror.h. The first warning of a picture is the one that is told.
CORRUPT = "Corrupt JPEG data: "
PADDING = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
# 256 bits. The annex's tables make them most of a block of 63 coefficients with three bits each;
# what other components have between takes two bits and two for each of their blocks.
VOID = re.compile(rb"\0{32}")
BUFFERED = 8  # bytes that libjpeg has taken behind the last block, and doesn't count
# What gdcm (libjpeg again) and libtiff write where they decode all the same.
COMPLAINT = re.compile(rb"Corrupt JPEG data: .*|Fax\w+: .*")
FAX_VOID = bytes(3)
INFLATE_BYTES = 1 << 16  # at once
SPARE = 4  # times what a strip should have: writers may fill up its last rows
STDERR = 2  # its descriptor, which libraries in C write to
_stderr_lock = threading.Lock()


# ----------------------------------------------------------------------------------- JPEG


def check_jpeg(data: bytes) -> None:
    """Refuse a JPEG whose coded data don't make up its whole picture, and no more.

    Only 8-bit DCT, sequential or progressive, is judged. Decodes it at an eighth of its size, which
    leaves out most of the work.

    Args:
        data: one JPEG; what stands behind its end doesn't matter.

    Raises:
        UnreadableImage: its data end early or late, or hold what isn't a code.
    """
    try:
        _judge_jpeg(data)
    except (IndexError, ValueError) as error:
        if isinstance(error, UnreadableImage):
            raise
        raise UnreadableImage(f"{CORRUPT}a segment is shorter than it says") from error


def _judge_jpeg(data: bytes) -> None:
    segments = _read_segments(data)
    frame = next((s for s in segments if s.code in FRAMES), None)
    if frame is None or frame.code not in DCT_FRAMES or data[frame.payload] != 8:
        return
    coded = _strip(data, segments)
    told = _ask_libjpeg(coded)
    padding = PADDING.search(told)
    if padding is not None:
        n, n_zeros = int(padding[1]), len(coded) - len(coded.rstrip(b"\0"))
        # Some encoders pad with zeros. Where more of them are in use, the rest was overwritten.
        if n <= n_zeros <= n + BUFFERED:
            coded = coded[:-n]
            told = _ask_libjpeg(coded)
    if told.startswith(CORRUPT):
        raise UnreadableImage(told)
    if frame.code in HUFFMAN_SEQUENTIAL and _has_void(data, segments, coded):
        raise UnreadableImage(f"{CORRUPT}zeros in the place of codes")
    if not _has_every_scan(data, frame, segments):
        raise UnreadableImage(f"{CORRUPT}it ends before its last scan")


@dataclass(frozen=True)
class _Segment:
    code: int
    start: int  # of the marker
    payload: int  # behind marker and length
    end: int


def _read_segments(data: bytes) -> list[_Segment]:
    """Every marker that has a segment, up to the first end; coded data are passed over."""
    segments: list[_Segment] = []
    at = 0
    while (marker := MARKER.search(data, at)) is not None:
        code, behind = marker[1][0], marker.end()
        length = 0 if code == END else int.from_bytes(data[behind : behind + 2], "big")
        at = max(behind + length, behind)
        segments.append(_Segment(code, marker.start(), behind + 2, at))
        if code == END:
            break
    return segments


def _strip(data: bytes, segments: list[_Segment]) -> bytes:
    """The JPEG without metadata, without what stands between its tables, and without its end."""
    parts = [b"\xff\xd8"]
    at = None  # of what isn't copied yet, behind the first scan's header
    for segment in segments:
        if at is not None:
            parts.append(data[at : segment.start])
        if segment.code not in (*REMARKS, END):
            parts.append(data[segment.start : segment.end])
        if at is not None or segment.code == SCAN:
            at = segment.end
    is_open = segments[-1].code != END
    return b"".join([*parts, data[at:] if is_open else b""])


def _ask_libjpeg(open_data: bytes) -> str:
    """The first warning about a JPEG that lacks its end marker only; "" of a good one."""
    try:
        # Every picture can be made grey; the smallest scale is an eighth.
        simplejpeg.decode_jpeg(
            open_data + bytes([0xFF, END]), "GRAY", min_height=1, min_width=1, min_factor=8
        )
    except ValueError as error:
        return str(error)
    return ""


def _has_void(data: bytes, segments: list[_Segment], coded: bytes) -> bool:
    """Whether zeros stand for what no picture has: the same coefficient all over a block.

    A table's first code is all zeros (T.81, annex C). Of tables that were made for their picture it
    may mean that the rest of a block is 0, and zeros are a black border; of those that encoders
    usually take (annex K), it is a coefficient of -1.
    """
    scans = [s for s in segments if s.code == SCAN]
    if len(scans) > 1 or VOID.search(coded) is None:
        return False
    first_symbols = {}
    for tables in (s for s in segments if s.code == TABLES):
        at = tables.payload
        while at < tables.end:  # several may share a segment
            first_symbols[data[at]] = data[at + 17]
            at += 17 + sum(data[at + 1 : at + 17])
    header = data[scans[0].payload : scans[0].end]
    used = [AC | selectors & 15 for selectors in header[2 : 1 + 2 * header[0] : 2]]
    return any(first_symbols.get(table, 0) & 15 for table in used)


def _has_every_scan(data: bytes, frame: _Segment, segments: list[_Segment]) -> bool:
    """Whether each coefficient of each component came, down to its last bit (T.81, G.1.1.1)."""
    n = data[frame.payload + 5]
    components = [data[frame.payload + 6 + 3 * i] for i in range(n)]
    missing = np.full((n, N_COEFFICIENTS), True)
    for scan in (s for s in segments if s.code == SCAN):
        header = data[scan.payload : scan.end]
        chosen, (first, last, bits) = header[1 : 1 + 2 * header[0] : 2], header[-3:]
        if bits & 15 == 0:
            rows = [i for i, name in enumerate(components) if name in chosen]
            missing[rows, first : last + 1] = False
    return not missing.any()


# -------------------------------------------------------------------------------- deflate


def check_deflate(data: bytes, n_bytes: int) -> None:
    """Refuse a damaged strip of a deflated TIFF: libtiff stops where it is full, before the checksum.

    Args:
        data: the strip.
        n_bytes: what it should inflate to. Much more is a bomb, and isn't.

    Raises:
        UnreadableImage: it holds what isn't a code, its checksum doesn't fit, or it goes on and on.
    """
    stream = zlib.decompressobj()
    left = SPARE * n_bytes + INFLATE_BYTES
    try:
        while data and not stream.eof:
            left -= len(stream.decompress(data, INFLATE_BYTES))
            data = stream.unconsumed_tail
            if left < 0:
                raise UnreadableImage("corrupt deflated data: far more than its image has")
    except zlib.error as error:
        raise UnreadableImage(f"corrupt deflated data: {error}") from error


# ------------------------------------------------------------------------------------ fax


def check_fax(data: bytes) -> None:
    """Refuse zeros in a fax without room for them: libtiff takes them for its end.

    Args:
        data: a strip of CCITT RLE or T.6, but not of T.4, whose lines may be filled with zeros.

    Raises:
        UnreadableImage: three bytes of zeros; codes hold 14 of them in a row at most, and a byte's
            rest.
    """
    if FAX_VOID in data.rstrip(b"\0"):
        raise UnreadableImage("corrupt fax: zeros in the place of codes")


# ------------------------------------------------------------------------- standard error


@contextlib.contextmanager
def heeding_complaints() -> Iterator[None]:
    """Refuse what a decoder in C only complains of on standard error.

    Lines of others, of other threads for instance, are passed on behind the block.

    Raises:
        UnreadableImage: the first complaint.
    """
    with _stderr_lock, tempfile.TemporaryFile() as heard:
        try:
            usual = os.dup(STDERR)
        except OSError:  # closed: nothing can be heard, nor could be said
            yield
            return
        os.dup2(heard.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(usual, STDERR)
            os.close(usual)
            heard.seek(0)
            lines = heard.read().splitlines(keepends=True)
            complaints = [line for line in lines if COMPLAINT.match(line)]
            others = [line for line in lines if not COMPLAINT.match(line)]
            if others:
                os.write(STDERR, b"".join(others))
        if complaints:
            raise UnreadableImage(complaints[0].decode(errors="replace").strip())

"""What a compressed frame says of itself: its size, components and precision."""

import struct
from dataclasses import dataclass

# The first bytes of a JPEG or JPEG-LS stream (SOI and the next marker), of a JPEG 2000 one (SOC and
# SIZ) and of one in a JP2 file's boxes.
STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
JPEG_2000 = STARTS[1]

# ITU-T T.81, table B.1: the markers SOF0 to SOF15, which C4, C8 and CC aren't; T.87: JPEG-LS's.
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
SCAN = 0xDA


@dataclass(frozen=True)
class Codestream:
    height: int  # pixels
    width: int
    n_components: int
    precision: int  # bits of a sample


def starts_stream(data: bytes) -> bool:
    """Whether a fragment is the first one of a frame."""
    return data.startswith(STARTS)


def read_codestream(data: bytes) -> Codestream | None:
    """Read the header of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K stream; None of anything else."""
    try:
        return _read_jpeg(data) if data.startswith(STARTS[0]) else _read_jpeg_2000(data)
    except (struct.error, IndexError):
        return None


def _read_jpeg(data: bytes) -> Codestream | None:
    """By the frame header: ITU-T T.81, B.2.2; T.87, C.2.2."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker in FRAMES:
            precision, height, width, n_components = struct.unpack_from(">BHHB", data, at + 4)
            return Codestream(height, width, n_components, precision)
        if marker == SCAN:
            return None
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _read_jpeg_2000(data: bytes) -> Codestream | None:
    """By the marker SIZ: ITU-T T.800, A.5.1."""
    at = data.find(JPEG_2000)
    if at < 0:
        return None
    width, height, left, top = struct.unpack_from(">4I", data, at + 8)
    n_components, depth = struct.unpack_from(">HB", data, at + 40)
    return Codestream(height - top, width - left, n_components, (depth & 0x7F) + 1)

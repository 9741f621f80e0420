"""The stored values of a DICOM file: frames by one decoder each, bits where the header says."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.datasets.files.formats.codestreams import Codestream, read_codestream, starts_stream
from extract.datasets.files.formats.damage import heeding_complaints
from extract.datasets.files.formats.dicom_files import count_frames
from extract.datasets.files.formats.stored import UnreadableImage, needs

RLE_HEADER = 64  # bytes; PS3.5, G.5
LEAST_RUNS = 1024  # bytes, for very small images and padding
LOSSY = (
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-Lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.203",  # HTJ2K
)
SWING = 1 / 8  # of the range that lossy streams may leave it by; of 12 bits said 13 are twice it


@dataclass(frozen=True)
class _Plugin:
    """What decodes one kind of pixels, and nothing else does.

    Left alone, pydicom takes what it finds, and two decoders of lossy JPEG differ by a grey level:
    the same file would have other features elsewhere.
    """

    name: str  # pydicom's
    packages: str


GDCM = _Plugin("gdcm", "python-gdcm")
LIBJPEG = _Plugin("pylibjpeg", "pylibjpeg pylibjpeg-libjpeg")
OPENJPEG = _Plugin("pylibjpeg", "pylibjpeg pylibjpeg-openjpeg")
CHARLS = _Plugin("pyjpegls", "pyjpegls")


def read_pixels(path: Path, dataset: Any) -> tuple[NDArray[Any], int]:
    """Decode every frame.

    Args:
        path: of the file, for messages.
        dataset: as ``open_dataset`` gives it.

    Returns:
        (n, H, W) or (n, H, W, 3), where colour is RGB; and the decoder, see ``Stored``.

    Raises:
        UnreadableImage: frames, sizes or bits aren't what the header says, or can't be decoded.
        RequestError: gdcm is needed and isn't installed.
    """
    from pydicom.uid import RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    n = count_frames(dataset)
    stored, high = _read_bits(dataset)
    precision = 0  # of compressed values
    codec = ""
    # Only compressed pixels have no length of their own: PS3.5, A.4.
    if (
        "PixelData" in dataset
        and dataset["PixelData"].is_undefined_length != syntax.is_encapsulated
    ):
        are = "aren't compressed" if syntax.is_encapsulated else "are compressed"
        raise UnreadableImage(f"its pixels {are}, and its header says {syntax.name}")
    if syntax.is_encapsulated:
        frames = split_frames(dataset)
        _refuse_other_number(len(frames), n)
        if syntax == RLELossless:
            _refuse_long_runs(frames, dataset)
        else:
            streams = [_read_stream(frame, dataset) for frame in frames]
            precision = max(stream.precision for stream in streams)
            codec = _choose_codec(path, dataset, streams)
    values = _decode(dataset, codec, max(stored, precision))
    shape = (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
    _refuse_other_number(values.size // int(np.prod(shape)), n)
    values = values.reshape(n, *(shape if dataset.SamplesPerPixel > 1 else shape[:2]))
    if values.dtype.kind == "f" or dataset.BitsAllocated == 1:
        return values, 1
    if codec:
        return _fit(values, stored, precision, syntax in LOSSY), 1
    return _take_bits(values, stored, high)


def _decode(dataset: Any, codec: str, bits: int) -> NDArray[Any]:
    """Every value, with so many bits of each: pydicom takes the lowest, and gdcm loses the others."""
    from pydicom.pixels.utils import pixel_array

    heed = heeding_complaints if codec else contextlib.nullcontext
    try:
        with heed():
            values = pixel_array(
                dataset, decoding_plugin=codec, correct_unused_bits=False, bits_stored=bits
            )
    except (NotImplementedError, RuntimeError, ValueError) as error:
        if not codec or isinstance(error, UnreadableImage):
            raise
        # pydicom's own words tell of plugins.
        raise _undecodable(dataset) from error
    return values.astype(values.dtype.newbyteorder("="), copy=False)


# ------------------------------------------------------------------------------- compressed


def split_frames(dataset: Any) -> list[bytes]:
    """The compressed frames, each a whole stream; a frame's first fragment shows where it begins.

    Not by the offset table, which may be missing, nor by the header's number, which may be wrong.
    """
    from pydicom.encaps import generate_fragments, parse_basic_offsets
    from pydicom.uid import RLELossless

    is_rle = dataset.file_meta.TransferSyntaxUID == RLELossless
    n_segments = max(dataset.SamplesPerPixel * dataset.BitsAllocated // 8, 1)
    rle_start = n_segments.to_bytes(4, "little") + RLE_HEADER.to_bytes(4, "little")
    frames: list[list[bytes]] = []
    buffer = io.BytesIO(dataset.PixelData)
    parse_basic_offsets(buffer)
    for fragment in generate_fragments(buffer):
        starts = fragment.startswith(rle_start) if is_rle else starts_stream(fragment)
        if starts or not frames:
            frames.append([])
        frames[-1].append(fragment)
    return [b"".join(fragments) for fragments in frames]


def _refuse_long_runs(frames: Sequence[bytes], dataset: Any) -> None:
    """Refuse frames that would unfold to many times the header's size, and only then be refused.

    Run lengths take at most 129 bytes for 128 (PS3.5, G.4.1).
    """
    size = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
    if max(map(len, frames)) > RLE_HEADER + 2 * size + LEAST_RUNS:
        raise UnreadableImage("its run lengths are far longer than the pixels of its header")


def _read_stream(frame: bytes, dataset: Any) -> Codestream:
    """What a frame says of itself, where the header says the same."""
    stream = read_codestream(frame)
    if stream is None:
        raise _undecodable(dataset)
    found = (stream.width, stream.height, stream.n_components)
    said = (dataset.Columns, dataset.Rows, dataset.SamplesPerPixel)
    if found != said:
        raise UnreadableImage(
            "a frame of {} x {} pixels and {} samples, where its header says {} x {} and {}".format(
                *found, *said
            )
        )
    if stream.precision > dataset.BitsAllocated:  # pydicom would cut them
        raise UnreadableImage(
            f"a frame of {stream.precision} bits, where its header says {dataset.BitsAllocated}"
        )
    return stream


def _choose_codec(path: Path, dataset: Any, streams: Sequence[Codestream]) -> str:
    """pydicom's name of the plug-in that decodes a file's streams."""
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    bits = {dataset.get("BitsStored"), *(stream.precision for stream in streams)}
    plugin = GDCM
    if syntax == uid.JPEGExtended12Bit and bits != {8}:
        plugin = LIBJPEG
    elif syntax in (uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL):
        plugin = OPENJPEG
    elif syntax in uid.JPEGLSTransferSyntaxes and (
        bits & {6, 7} or (syntax == uid.JPEGLSNearLossless and min(bits) < 8)
    ):
        plugin = CHARLS
    if plugin is GDCM:
        _quieten_gdcm(path, syntax)
    try:
        available = get_decoder(syntax).available_plugins
    except NotImplementedError:
        raise _undecodable(dataset) from None
    if plugin.name not in available:
        if plugin is GDCM:
            raise _undecodable(dataset)
        most = max(stream.precision for stream in streams)
        raise UnreadableImage(
            f"its pixels ({syntax.name} of {most} bits) need: pip install {plugin.packages}"
        )
    return plugin.name


def _quieten_gdcm(path: Path, syntax: Any) -> None:
    try:
        import gdcm
    except ImportError:
        raise needs(path, f"python-gdcm ({syntax.name})") from None
    for silence in (gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff, gdcm.Trace.DebugOff):
        silence()


def _undecodable(dataset: Any) -> UnreadableImage:
    name = dataset.file_meta.TransferSyntaxUID.name
    return UnreadableImage(f"its pixels ({name}) can't be decoded")


def _refuse_other_number(found: int, said: int) -> None:
    if found != said:
        frames = "1 frame" if found == 1 else f"{found} frames"
        raise UnreadableImage(f"pixels of {frames}, where its header says {said}")


# ------------------------------------------------------------------------------------- bits


def _read_bits(dataset: Any) -> tuple[int, int]:
    """How many bits of a sample count, and the number of the highest one: PS3.5, 8.1.1."""
    allocated, stored = dataset.BitsAllocated, dataset.get("BitsStored")
    if "PixelData" not in dataset:  # but floats, all of them
        return allocated, allocated - 1
    if stored is None:
        raise UnreadableImage("its header lacks BitsStored")
    high = dataset.get("HighBit")
    high = stored - 1 if high is None else high
    if not 0 < stored <= high + 1 <= allocated:
        raise UnreadableImage(
            f"of {allocated} bits {stored} are stored up to number {high}: that can't be"
        )
    return stored, high


def _lowest(values: NDArray[Any], n: int) -> NDArray[Any]:
    """The lowest n bits of each value, of which the highest one is the sign where there is one."""
    unused = 8 * values.itemsize - n
    return (values << unused) >> unused if unused else values


def _fit(values: NDArray[Any], stored: int, precision: int, lossy: bool) -> NDArray[Any]:
    """Decoded values in the header's bits.

    Many encoders write 16 bits whatever the header says, which does no harm while values fit.
    Lossy ones swing over by a little at edges.
    """
    kept = _lowest(values, stored)
    if kept is values:
        return kept
    low, over = (-(2 ** (stored - 1)) if values.dtype.kind == "i" else 0), SWING * 2**stored
    if lossy and low - over <= values.min() and values.max() < low + 2**stored + over:
        return values
    lost = np.unique(values.astype(np.int64) - kept)
    # Streams of JPEG know no sign: that of a negative value was cut at one length or the other.
    harmless = {0, 2**stored, 2**precision} if values.dtype.kind == "i" else {0}
    if not harmless.issuperset(lost.tolist()):
        raise UnreadableImage(
            f"its pixels fill up to {precision} bits, where its header says {stored}"
        )
    return kept


def _take_bits(values: NDArray[Any], stored: int, high: int) -> tuple[NDArray[Any], int]:
    """The header's bits of each value, and the decoder; others may hold overlays.

    A highest bit other than stored - 1 has been retired. Where a header has one, its writer meant
    it, or wrote a wrong number: by the bits that are used it can be told, or the file is refused.
    """
    kept = _lowest(values, stored)
    if high == stored - 1 or not values.any():
        return kept, 1
    size, mask = 8 * values.itemsize, (1 << stored) - 1
    below = high + 1 - stored
    bits = values.view(f"u{values.itemsize}")
    in_place = not (bits & ((1 << size) - 1 ^ mask << below)).any()
    at_bottom = np.array_equal(kept, values) or not (bits & ((1 << size) - 1 ^ mask)).any()
    if in_place == at_bottom:
        raise UnreadableImage(
            f"{stored} bits stored up to number {high}, and others are used or it can't be told"
        )
    return (kept, 1) if at_bottom else ((values << size - 1 - high) >> size - stored, 2)

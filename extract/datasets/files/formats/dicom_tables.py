"""DICOM's lookup tables: those of grey values (PS3.3, C.11.1 and C.11.2) and palettes (C.7.6.3.1.5).

pydicom's own functions take the first value's sign from its VR, which implicit files don't have;
index in as few bits as an entry has; and know neither the byte order of palettes nor entries of
8 bit in words of 16.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extract.datasets.files.formats.stored import UnreadableImage

CHANNELS = ("Red", "Green", "Blue")
WORD = 2**16
DISCRETE, LINEAR, INDIRECT = 0, 1, 2  # kinds of a palette's segments


@dataclass(frozen=True)
class Table:
    entries: NDArray[Any]  # (n,) uint8 or uint16
    first: int  # the value that takes the first entry
    bits: int  # of an entry
    decoder: int  # see Stored

    def look_up(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values below the table take its first entry, those above its last."""
        return self.entries[np.clip(values.astype(np.int64) - self.first, 0, len(self.entries) - 1)]


@dataclass(frozen=True)
class _Descriptor:
    """The three numbers before a table."""

    n: int  # entries
    first: int  # as the file's VR has its sign
    bits: int

    def first_value(self, low: float, high: float) -> int:
        """The value that takes the first entry, by the range that the table's input can have.

        It is signed where that range is (C.11.1.1, C.11.2.1.1, C.7.6.3.1.5), whatever VR a file
        gives it. Where the table would then cover nothing of the range, and does when it is read
        the other way, its writer meant that one.
        """
        unsigned = self.first % WORD
        signed = unsigned - WORD if unsigned >= WORD // 2 else unsigned
        meant, other = (signed, unsigned) if low < 0 else (unsigned, signed)

        def covers(first: int) -> bool:
            return first <= high and first + self.n > low

        return other if covers(other) and not covers(meant) else meant


def read_table(item: Any, dataset: Any, span: tuple[float, float]) -> Table:
    """The table of a Modality or VOI LUT.

    Args:
        item: the sequence's.
        dataset: the file's.
        span: what the table's input can be.

    Raises:
        UnreadableImage: it is shorter, or its entries are larger, than its descriptor says.
    """
    said = _read_descriptor(item.get("LUTDescriptor"), "LUT")
    if "LUTData" not in item:
        raise UnreadableImage("a LUT without entries")
    entries = _read_entries(item["LUTData"], said, dataset, "LUT")
    # One above the largest value is a usual slip, and white all the same.
    if entries.max() > 2**said.bits:
        raise UnreadableImage(
            f"a LUT with entries up to {entries.max()}, where its header says {said.bits} bits"
        )
    first = said.first_value(*span)
    swapped = entries.dtype == np.uint8 and _is_big(dataset)
    return Table(entries, first, said.bits, 2 if first != said.first or swapped else 1)


def read_palette(dataset: Any, span: tuple[float, float]) -> list[Table]:
    """The tables of red, green and blue, alike in all but their entries.

    Args:
        dataset: the file's.
        span: what pixels can be.

    Raises:
        UnreadableImage: one is missing or contradicts itself or the others.
    """
    tables = []
    for channel in CHANNELS:
        said = _read_descriptor(
            dataset.get(f"{channel}PaletteColorLookupTableDescriptor"), f"{channel.lower()} palette"
        )
        tables.append(_read_channel(dataset, channel, said, span))
    if len({(len(t.entries), t.first, t.bits) for t in tables}) > 1:
        raise UnreadableImage("its red, green and blue palettes differ in length, start or bits")
    return tables


def _read_channel(
    dataset: Any, channel: str, said: _Descriptor, span: tuple[float, float]
) -> Table:
    what = f"{channel.lower()} palette"
    if said.bits not in (8, 16):
        raise UnreadableImage(f"a {what} of {said.bits} bits, where DICOM knows 8 and 16")
    segments = f"Segmented{channel}PaletteColorLookupTableData"
    plain = f"{channel}PaletteColorLookupTableData"
    if plain not in dataset and segments not in dataset:
        raise UnreadableImage(f"no {what}")
    if plain in dataset:
        entries = _read_entries(dataset[plain], said, dataset, what)
        is_new = _is_big(dataset)
    else:
        expanded = _expand(dataset[segments], said, dataset)
        entries = expanded.entries
        is_new = expanded.is_new
    # Some writers pad entries of 8 bit to words (C.7.6.3.1.5); others say 8 bit and use 16.
    if said.bits == 8 and entries.dtype == np.uint16 and entries.max() < 256:
        entries = entries.astype(np.uint8)
        is_new = True
    first = said.first_value(*span)
    is_new |= first != said.first
    return Table(entries, first, 8 * entries.itemsize, 2 if is_new else 1)


def _read_descriptor(value: Any, what: str) -> _Descriptor:
    try:
        n, first, bits = value
    except (TypeError, ValueError):
        raise UnreadableImage(f"a {what} without the three numbers of a descriptor") from None
    return _Descriptor(n % WORD or WORD, first, bits)


def _read_entries(element: Any, said: _Descriptor, dataset: Any, what: str) -> NDArray[Any]:
    """(n,) entries: uint8 where two stand in a word, else uint16."""
    if isinstance(element.value, bytes):
        packed = said.bits <= 8 and len(element.value) < 2 * said.n
        entries = _read_numbers(element, dataset, packed)
    else:
        entries = np.atleast_1d(np.asarray(element.value)).astype(np.uint16)
    if len(entries) < said.n:
        raise UnreadableImage(f"a {what} of {len(entries)} entries, where its header says {said.n}")
    return entries[: said.n]


def _read_numbers(element: Any, dataset: Any, packed: bool) -> NDArray[Any]:
    """Words, or the bytes in them, the first one in the low half (PS3.5, 8.1.2)."""
    if packed and element.VR != "OW":
        return np.frombuffer(element.value, np.uint8)
    order = ">" if _is_big(dataset) else "<"
    words = np.frombuffer(element.value, f"{order}u2").astype("<u2")
    return words.view(np.uint8) if packed else words.astype(np.uint16)


def _is_big(dataset: Any) -> bool:
    return dataset.original_encoding[1] is False


def _expand(element: Any, said: _Descriptor, dataset: Any) -> "_Segments":
    """A palette in segments, as entries: C.7.9.2."""
    codes = _read_numbers(element, dataset, said.bits == 8)
    segments = _Segments(codes, said.n)
    try:
        segments.expand()
    except IndexError:
        raise UnreadableImage("a palette whose segments are cut short") from None
    segments.is_new |= said.bits == 8 and _is_big(dataset)
    return segments


class _Segments:
    """Expands segments.

    Args:
        codes: bytes or words.
        n: entries that they shall make.
    """

    def __init__(self, codes: NDArray[Any], n: int) -> None:
        self.is_new = False  # see Stored.decoder
        self._codes = codes.tolist()
        self._kind = codes.dtype
        self._n = n
        self._made: list[int] = []

    @property
    def entries(self) -> NDArray[Any]:
        """(n,)

        Raises:
            UnreadableImage: there are fewer.
        """
        if len(self._made) < self._n:
            raise UnreadableImage(
                f"a palette whose segments make {len(self._made)} entries, where its header says "
                f"{self._n}"
            )
        return np.array(self._made[: self._n], self._kind)

    def expand(self) -> None:
        at = 0
        # A padding byte may follow; every segment has two codes and more.
        while len(self._made) < self._n and at + 1 < len(self._codes):
            at = self._copy(at) if self._codes[at] == INDIRECT else self._append(at)

    def _copy(self, at: int) -> int:
        """Append earlier segments once more, from an offset in bytes; where the next one is."""
        n_parts = 4 // self._kind.itemsize  # of an offset, the low one first
        parts = self._codes[at + 2 : at + 2 + n_parts]
        offset = sum(part << 8 * self._kind.itemsize * i for i, part in enumerate(parts))
        # pydicom counts words as bytes.
        self.is_new |= offset > 0 and self._kind.itemsize > 1
        place = offset // self._kind.itemsize
        for _ in range(self._codes[at + 1]):
            if len(self._made) < self._n:
                place = self._append(place)
        return at + 2 + n_parts

    def _append(self, at: int) -> int:
        """Append the entries of one segment; where the next one is."""
        kind, length = self._codes[at], self._codes[at + 1]
        if kind == DISCRETE:
            self._made += self._codes[at + 2 : at + 2 + length]
            return at + 2 + length
        if kind != LINEAR or not self._made:
            raise UnreadableImage(f"a palette with a segment of kind {kind} that can't stand there")
        if length:
            start, end = self._made[-1], self._codes[at + 2]
            step = (end - start) / length
            self._made += np.around(np.linspace(start + step, end, length)).astype(int).tolist()
        return at + 3

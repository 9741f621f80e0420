"""Contact sheets: small pictures on white with words beside them, for a person to look at.

Pillow alone draws them, with the font that it brings, so a sheet needs nothing installed.
"""

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Picture = NDArray[np.uint8]  # (H, W) or (H, W, 3)

# Pixels.
MARGIN = 32
GAP = 8  # between the pictures of a row
ROW_GAP = 20
LABEL_WIDTH = 196  # of the words beside a row
SEAM = 4  # between the two of a pair
PAIR_GAP, PAIR_COLUMNS = 28, 5
STRIP_GAP, STRIP_COLUMNS = 40, 2
RIM_GAP = 12  # between pictures that may have rims
SMALL, LARGE = 128, 256  # sides between which a picture is shown as it is
MIN_WIDTH = 640  # of a sheet: captions want room
TITLE, BODY, FINE = 26, 16, 13  # heights of the fonts

INK, GREY, LINE = "#1a1a1a", "#6e6e6e", "#d4d4d4"
RIM = 3  # pixels, of a picture that has a colour

# Pillow's own font has the letters of ASCII and little else. The first of these that has all of a
# text's letters writes it; where none is installed, letters lose their accents.
OTHER_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc")
SPELLED = str.maketrans(
    {
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{MINUS SIGN}": "-",
        "\N{LESS-THAN OR EQUAL TO}": "<=",
        "\N{GREATER-THAN OR EQUAL TO}": ">=",
        "\N{MICRO SIGN}": "u",
        "\N{LATIN SMALL LETTER SHARP S}": "ss",
    }
)
NO_GLYPH = "\uffff"  # a code point that no font has: how a font draws what it lacks


@dataclass(frozen=True)
class Row:
    """One class: words, and pictures beside them."""

    name: str
    details: tuple[str, ...]  # in grey below the name
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Pair:
    """Two pictures side by side, words under both, and in grey below them words under each."""

    left: Picture
    right: Picture
    words: str
    left_words: tuple[str, ...]
    right_words: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """A picture, and words under it or beside it."""

    picture: Picture | None  # None: there is none, and its place is empty
    words: tuple[str, ...]  # the first in black, the others in grey below it
    rim: str = ""  # a colour around it


@dataclass(frozen=True)
class Strip:
    """A picture with words beside it, and others that belong to it."""

    first: Shown
    others: tuple[Shown, ...] = ()


def shown_side(size: int) -> int:
    """The side, pixels, at which a picture of ``size`` px is shown: a whole multiple if enlarged."""
    if size < SMALL:
        return size * -(-SMALL // size)
    return min(size, LARGE)


def draw_rows(title: str, caption: Sequence[str], rows: Sequence[Row], side: int) -> Image.Image:
    """A sheet with one row a class.

    Args:
        title: what is shown.
        caption: grey lines below the title; long ones are wrapped.
        rows: from above; a row without pictures says so.
        side: of the squares that the pictures fit in, pixels.

    Returns:
        RGB, on white. Nothing in it is cut off or lies over something else.
    """
    n_columns = max((len(row.pictures) for row in rows), default=0)
    width = LABEL_WIDTH + n_columns * (side + GAP) - GAP
    sheet = _Sheet(title, caption, width)
    for row in rows:
        details = [(detail, FINE, GREY) for detail in row.details]
        words = _Words(LABEL_WIDTH - 2 * GAP, [(row.name, BODY, INK), *details])
        top = sheet.reserve(max(words.height, side if len(row.pictures) else 0), ROW_GAP)
        sheet.place_words(words, MARGIN, top)
        for column, picture in enumerate(row.pictures):
            left = MARGIN + LABEL_WIDTH + column * (side + GAP)
            sheet.place_picture(picture, left, top, side)
    return sheet.finish()


def draw_pairs(title: str, caption: Sequence[str], pairs: Sequence[Pair], side: int) -> Image.Image:
    """A sheet of pairs, side by side in columns.

    Args:
        title: what is shown.
        caption: grey lines below the title; long ones are wrapped.
        pairs: from above, line by line.
        side: of the squares that the pictures fit in, pixels.

    Returns:
        RGB, on white.
    """
    width = 2 * side + SEAM
    n_columns = max(1, min(len(pairs), PAIR_COLUMNS))
    sheet = _Sheet(title, caption, n_columns * (width + PAIR_GAP) - PAIR_GAP)
    for first in range(0, len(pairs), n_columns):
        line = [(pair, *_pair_words(pair, side)) for pair in pairs[first : first + n_columns]]
        under = max(both.height for _, both, *_ in line)
        lowest = max(words.height for _, _, *each in line for words in each)
        top = sheet.reserve(side + SEAM + under + lowest, ROW_GAP)
        for column, (pair, both, at_left, at_right) in enumerate(line):
            left = MARGIN + column * (width + PAIR_GAP)
            right, below = left + side + SEAM, top + side + SEAM
            sheet.place_picture(pair.left, left, top, side)
            sheet.place_picture(pair.right, right, top, side)
            sheet.place_words(both, left, below)
            sheet.place_words(at_left, left, below + under)
            sheet.place_words(at_right, right, below + under)
    return sheet.finish()


def draw_strips(
    title: str, caption: Sequence[str], strips: Sequence[Strip], side: int
) -> Image.Image:
    """A sheet of strips, two beside each other: a picture, its words, and pictures that belong to it.

    Args:
        title: what is shown.
        caption: grey lines below the title; long ones are wrapped.
        strips: from above, line by line.
        side: of the squares that the pictures fit in, pixels.

    Returns:
        RGB, on white.
    """
    n_others = max((len(strip.others) for strip in strips), default=0)
    width = side + GAP + LABEL_WIDTH + n_others * (side + RIM_GAP) - RIM_GAP
    n_columns = max(1, min(len(strips), STRIP_COLUMNS))
    sheet = _Sheet(title, caption, n_columns * (width + STRIP_GAP) - STRIP_GAP)
    for first in range(0, len(strips), n_columns):
        line = [
            (strip, _shown_words(strip.first, LABEL_WIDTH - 2 * GAP), _under(strip, side))
            for strip in strips[first : first + n_columns]
        ]
        lowest = max((words.height for *_, under in line for words in under), default=0)
        height = max(side + SEAM + lowest, *(beside.height for _, beside, _ in line))
        top = sheet.reserve(height, ROW_GAP)
        for column, (strip, beside, under) in enumerate(line):
            left = MARGIN + column * (width + STRIP_GAP)
            sheet.place_shown(strip.first, left, top, side)
            sheet.place_words(beside, left + side + GAP, top)
            left += side + GAP + LABEL_WIDTH
            for shown, words in zip(strip.others, under, strict=True):
                sheet.place_shown(shown, left, top, side)
                sheet.place_words(words, left, top + side + SEAM)
                left += side + RIM_GAP
    return sheet.finish()


def _under(strip: Strip, side: int) -> list["_Words"]:
    return [_shown_words(shown, side) for shown in strip.others]


def _shown_words(shown: Shown, width: int) -> "_Words":
    first, *rest = shown.words
    return _Words(width, [(first, FINE, INK), *((line, FINE, GREY) for line in rest)])


def _pair_words(pair: Pair, side: int) -> tuple["_Words", "_Words", "_Words"]:
    left, right = (
        _Words(side - GAP, [(line, FINE, GREY) for line in lines])
        for lines in (pair.left_words, pair.right_words)
    )
    return _Words(2 * side + SEAM, [(pair.words, FINE, INK)], centred=True), left, right


# ---------------------------------------------------------------------------- words


_own_font = functools.cache(ImageFont.load_default)


@functools.cache
def _other_font(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:  # not installed
        return None


@functools.cache
def _drawn(font: Font, letter: str) -> bytes:
    square = Image.new("L", (2 * TITLE, 2 * TITLE))
    ImageDraw.Draw(square).text((0, 0), letter, fill=255, font=font)
    return square.tobytes()


def _has_letters(font: Font, text: str) -> bool:
    lacking = _drawn(font, NO_GLYPH)
    return all(letter == " " or _drawn(font, letter) != lacking for letter in set(text))


def choose_font(text: str, size: int) -> tuple[Font, str]:
    """A font that has all of a text's letters, and the text as that font can write it.

    Accents go before a letter does; a letter that no font here has becomes "?".
    """
    own = _own_font(size)
    # Also what has no place in a line: line breaks, and marks that turn the writing round.
    text = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", text))
    spelled = text.translate(SPELLED)
    if _has_letters(own, spelled):
        return own, spelled
    for name in OTHER_FONTS:
        font = _other_font(name, size)
        if font is not None and _has_letters(font, text):
            return font, text
    bare = "".join(
        c for c in unicodedata.normalize("NFKD", spelled) if not unicodedata.combining(c)
    )
    return own, "".join(c if _has_letters(own, c) else "?" for c in bare)


def is_writable(text: str) -> bool:
    """Whether some font here has all of a text's letters, accents aside."""
    return choose_font(text, BODY)[1].count("?") == text.count("?")


def wrap(text: str, font: Font, width: float) -> list[str]:
    """Lines of at most ``width`` px; a word that is longer than a line is broken."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


class _Words:
    """Lines of text below each other.

    Args:
        width: that they are wrapped to, pixels.
        lines: text, height of its font, and colour of each.
        centred: not at the left.
    """

    def __init__(
        self, width: int, lines: Sequence[tuple[str, int, str]], centred: bool = False
    ) -> None:
        self._width, self._centred = width, centred
        self._lines: list[tuple[str, Font, str, int]] = []  # text, font, colour, height
        for line, size, colour in lines:
            font, text = choose_font(line, size)
            for part in wrap(text, font, width):
                self._lines.append((part, font, colour, round(size * 1.4)))

    @property
    def height(self) -> int:
        return sum(height for *_, height in self._lines)

    def draw(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        for text, font, colour, height in self._lines:
            shift = (self._width - font.getlength(text)) / 2 if self._centred else 0
            draw.text((left + shift, top), text, fill=colour, font=font)
            top += height


# ---------------------------------------------------------------------------- paper


class _Sheet:
    """White paper that grows downwards: places are reserved first and drawn on at the end."""

    def __init__(self, title: str, caption: Sequence[str], width: int) -> None:
        self._width = max(width, MIN_WIDTH)
        self._height = MARGIN
        self._words: list[tuple[_Words, int, int]] = []
        self._pictures: list[tuple[Picture | None, int, int, int, str]] = []
        below = [(line, FINE, GREY) for line in caption]
        head = _Words(self._width, [(title, TITLE, INK), *below])
        self.place_words(head, MARGIN, self.reserve(head.height, ROW_GAP))

    def reserve(self, height: int, gap: int) -> int:
        """Room for something; returns its top."""
        top = self._height
        self._height += height + gap
        return top

    def place_words(self, words: _Words, left: int, top: int) -> None:
        self._words.append((words, left, top))

    def place_picture(
        self, picture: Picture | None, left: int, top: int, side: int, rim: str = ""
    ) -> None:
        self._pictures.append((picture, left, top, side, rim))

    def place_shown(self, shown: Shown, left: int, top: int, side: int) -> None:
        self.place_picture(shown.picture, left, top, side, shown.rim)

    def finish(self) -> Image.Image:
        size = (self._width + 2 * MARGIN, self._height - ROW_GAP + MARGIN)
        paper = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(paper)
        for picture, left, top, side, rim in self._pictures:
            width = height = side
            if picture is not None:
                fitted = fit(picture, side)
                width, height = fitted.size
                left += (side - width) // 2
                top += (side - height) // 2
                paper.paste(fitted, (left, top))
            # Around the picture, not on it: what is white to its rim must show where it ends.
            for out in range(1, RIM + 1 if rim else 2):
                corners = left - out, top - out, left + width + out - 1, top + height + out - 1
                draw.rectangle(corners, outline=rim or LINE)
        for words, left, top in self._words:
            words.draw(draw, left, top)
        return paper


def fit(picture: Picture, side: int) -> Image.Image:
    """A picture whose longer side is ``side`` px: pixels are repeated, or averaged to be smaller."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    by = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return Image.fromarray(picture).convert("RGB").resize(size, by)

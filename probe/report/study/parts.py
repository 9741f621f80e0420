"""What a study's page is made of."""

from dataclasses import dataclass
from typing import Any

from probe.report.figures.frame import Frame
from probe.report.formats.cells import Page
from probe.report.maps.sheet import Sheet
from probe.report.pages.gallery import Gallery


@dataclass(frozen=True)
class Figure:
    """A picture, drawn by the reader's browser, with its data frame."""

    name: str  # of figures.catalogue; with more where there are several of it
    title: str
    frame: Frame[Any]


@dataclass(frozen=True)
class Image:
    """One small picture."""

    png: bytes
    words: str  # what it is, for who can't see it
    lines: tuple[str, ...] = ()  # below it


@dataclass(frozen=True)
class Strip:
    """Small pictures beside each other."""

    title: str
    images: tuple[Image, ...]
    note: str = ""


@dataclass(frozen=True)
class MapSheet:
    """Maps of patch tokens."""

    title: str
    sheet: Sheet


@dataclass(frozen=True)
class Commands:
    """Lines of a shell."""

    lines: tuple[str, ...]
    title: str = ""
    note: str = ""


Block = Page | Figure | Strip | MapSheet | Gallery | Commands


@dataclass(frozen=True)
class Section:
    """What stands under one heading of the contents."""

    name: str  # of its anchor
    title: str
    blocks: tuple[Block, ...]
    told: str = ""  # one sentence: how to read it


@dataclass(frozen=True)
class Study:
    """The whole page."""

    title: str
    lead: tuple[str, ...]  # the question and the headline
    facts: tuple[str, ...]  # how much of what
    sections: tuple[Section, ...]
    foot: str  # what made it, and when

"""What a user says of a table or a folder of images, besides where it is."""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cache.commands.settings import changed, check, flags_of, setting
from cache.errors import RequestError
from cache.task import ASKED

OF_FOLDERS = {"samples", "task", "positive", "unlabelled"}  # the others are a table's only
OF_MASKS = {"mask_col", "mask_classes", "mask_ignore", "mask_background", "mask_spacing"}
OF_LABELS = {"label_cols", "label_sep", "task", "positive"}
SAMPLES = ("files", "folders")


@dataclass(frozen=True)
class TableOptions:
    """Which column is what. Hashable; as JSON it holds only what isn't a default."""

    path_col: str | None = setting(  # None: the first of csvs.PATH_COLUMNS that the table has
        None, "of the images' paths", metavar="COLUMN", shown="path, image, file or filename"
    )
    label_cols: tuple[str, ...] = setting(
        ("label",),
        "of the labels: one column of names or numbers, or several of 0 and 1, comma separated",
        flag="--label-col",
        metavar="COLUMNS",
    )
    label_sep: str | None = setting(
        None, "between several labels in one cell, such as '|'", metavar="TEXT", shown="none"
    )
    split_col: str | None = setting(
        None,
        "of train, val and test; rows where it is empty are left out",
        metavar="COLUMN",
        shown="split, if it is there",
    )
    group_col: str | None = setting(
        None, "of patients: no split divides one", metavar="COLUMN", shown="none"
    )
    meta_cols: tuple[str, ...] = setting(
        (),
        "kept beside the labels, comma separated: age, sex, site...",
        metavar="COLUMNS",
        shown="none",
    )
    id_col: str | None = setting(None, "of the images' ids", metavar="COLUMN", shown="the path")
    sample_col: str | None = setting(
        None,
        "rows that share its value are one sample, as slices or views",
        metavar="COLUMN",
        shown="each row is one",
    )
    root: str | None = setting(
        None, "folder that paths are relative to", metavar="DIR", shown="the table's own"
    )
    suffix: str = setting("", "added to each path, such as .png for lists of ids", metavar="TEXT")
    samples: str = setting(
        "files",
        "of folder:PATH: each file is a sample, or each folder below its class's: the slices of "
        "a series, the views of a patient",
        among=SAMPLES,
    )
    mask_col: str | None = setting(
        None,
        "of masks' paths: labels of pixels, for --tokens; other labels are then no must",
        metavar="COLUMN",
        shown="none",
    )
    mask_classes: tuple[str, ...] = setting(
        (),
        "of masks, comma separated: the names of values 0, 1, ..; or VALUE=NAME of any, as in "
        "0=background,255=lesion, or of colours, '#ff0000=lesion'",
        metavar="NAMES",
        shown="0 is background, the one other value foreground",
    )
    mask_ignore: str | None = setting(
        None, "of masks: pixels that count nowhere", metavar="VALUE", shown="none"
    )
    mask_background: str | None = setting(
        None,
        "the class of masks that is left out of means over classes, or none",
        metavar="NAME",
        shown="the one called background",
    )
    mask_spacing: tuple[str, ...] = setting(
        (),
        "mm of a pixel, or of its height and width, and between slices, where no header says: "
        "distances of masks are measured in it",
        metavar="MM",
        shown="as NIfTI and DICOM say",
    )
    task: str | None = setting(
        None,
        "what the labels are; ordinal and regression only by request",
        among=tuple(ASKED),
        shown="inferred, and shown",
    )
    positive: str | None = setting(
        None,
        "label 1 of two classes",
        metavar="CLASS",
        shown="the one that isn't normal, benign, no ...; else the second",
    )
    missing: tuple[str, ...] = setting(
        (),
        "cells that mean that nobody knows, comma separated, as in --missing=N/A,-",
        metavar="WORDS",
        shown="beside empty ones: nan, NA, null",
    )
    unlabelled: bool = setting(
        False,
        "images without labels: for `probe apply`, or for labels that come later, by `probe --labels`",
    )
    # Without a flag: the former only in definitions, the latter is `extract`'s own.
    licence: str = ""
    window: str | None = None  # how values beyond 8 bit become grey levels

    def __post_init__(self) -> None:
        check(self)
        if not self.label_cols:
            raise RequestError("--label-col takes one or more columns, comma separated")
        if self.sample_col and self.id_col:
            raise RequestError("--sample-col names the samples already; leave --id-col out")
        if self.mask_background and self.mask_classes == ():
            raise RequestError("--mask-background is one of the names of --mask-classes; give both")
        if self.unlabelled:
            said = changed(self, TableOptions())
            wrong = [f.name for f in flags_of(TableOptions) if f.field in said.keys() & OF_LABELS]
            if wrong:
                raise RequestError(f"{', '.join(wrong)} is of labels, and --unlabelled has none")

    def as_json(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON has it."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TableOptions":
        """The inverse of ``as_json``; nothing unknown is passed over.

        Raises:
            RequestError: an unknown field, or one of the wrong type.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for name, value in content.items():
            if name not in defaults:
                raise RequestError(f"unknown option {name!r}")
            if isinstance(defaults[name], tuple):
                right = isinstance(value, list) and all(isinstance(text, str) for text in value)
                value = tuple(value) if right else value
            else:
                right = isinstance(value, bool if name == "unlabelled" else str)
            if not right:
                raise RequestError(f"option {name!r} can't be {value!r}")
            values[name] = value
        return cls(**values)

    def refuse_columns(self, where: str, has: Collection[str] = OF_FOLDERS) -> None:
        """Refuse what is said of columns, where there are none.

        Args:
            where: is meant.
            has: the fields that make sense there.

        Raises:
            RequestError: an option that only a table has.
        """
        said = changed(self, TableOptions())
        wrong = [f.name for f in flags_of(TableOptions) if f.field in said.keys() - {*has}]
        of_masks = (
            " and seg-folder:PATH" if any(name.startswith("--mask-") for name in wrong) else ""
        )
        if wrong:
            raise RequestError(
                f"{where} is a folder, and {', '.join(wrong)} is for tables{of_masks}; leave it out, or "
                "name a table: --data csv:FILE"
            )

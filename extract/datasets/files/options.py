"""What a user says of a table or a folder of images, besides where it is."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cache.errors import RequestError

TASK_WORDS = ("binary", "multi-class", "multi-label", "ordinal", "regression")
OF_FOLDERS = ("samples", "task", "positive", "licence", "window")  # the others are a table's only
SAMPLES = ("files", "folders")


@dataclass(frozen=True)
class TableOptions:
    """Which column is what. Hashable; as JSON it holds only what isn't a default."""

    path_col: str | None = None  # None: the first of csvs.PATH_COLUMNS that the table has
    label_cols: tuple[str, ...] = ("label",)
    label_sep: str | None = None  # between several labels of one cell
    split_col: str | None = None  # None: "split" where the table has it
    group_col: str | None = None  # patients
    meta_cols: tuple[str, ...] = ()
    id_col: str | None = None  # None: the path is the id
    sample_col: str | None = None  # rows that share its value are one sample: slices, views
    root: str | None = None  # folder that paths are relative to; None: the table's own
    suffix: str = ""  # added to each path, e.g. ".png"
    task: str | None = None  # one of TASK_WORDS; None: inferred
    positive: str | None = None  # the class that is label 1 of a binary task
    missing: tuple[str, ...] = ()  # cells that say nothing, beside empty ones, nan, NA and null
    samples: str = "files"  # of class folders: what is one sample, see SAMPLES
    licence: str = ""
    window: str | None = None  # how values beyond 8 bit become grey levels

    def __post_init__(self) -> None:
        if not self.label_cols:
            raise RequestError("--label-col takes one or more columns, comma separated")
        if self.sample_col and self.id_col:
            raise RequestError("--sample-col names the samples already; leave --id-col out")
        if self.samples not in SAMPLES:
            raise RequestError(f"--samples takes {', '.join(SAMPLES)}, not {self.samples!r}")
        if self.task is not None and self.task not in TASK_WORDS:
            raise RequestError(f"--task takes {', '.join(TASK_WORDS)}, not {self.task!r}")

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
                right = isinstance(value, str)
            if not right:
                raise RequestError(f"option {name!r} can't be {value!r}")
            values[name] = value
        return cls(**values)

    def refuse_columns(self, where: str) -> None:
        """Refuse what is said of columns, where there are none.

        Raises:
            RequestError: an option that only a table has.
        """
        wrong = [name for name in self.as_json() if name not in OF_FOLDERS]
        if wrong:
            raise RequestError(
                f"{where} is a folder, and {', '.join(map(flag_of, wrong))} is for tables; leave it "
                "out, or name a table: --data csv:FILE"
            )


def flag_of(name: str) -> str:
    """The flag that sets an option."""
    return "--label-col" if name == "label_cols" else f"--{name.replace('_', '-')}"

"""Which labels and splits to lay over a feature file's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import RequestError
from cache.labels.columns import UNCERTAIN_RULES
from cache.splits.rules import SplitRule

if TYPE_CHECKING:
    pass


META = "meta:"  # a target that begins with it is a stored column: "meta:sex"


@dataclass(frozen=True)
class OverlayConfig:
    """Which labels and splits to lay over a feature file's own; nothing: those."""

    labels: Path | None = None  # CSV: ids in the column id, or the first; labels in the others
    target: str | None = None  # columns of labels; or stored labels; or META and a stored column
    task: str | None = None  # see cache.labels.columns.ASKED; None: what the values look like
    positive: str | None = None  # of a binary task: the class that becomes label 1
    separator: str | None = None  # of one column that lists several labels
    missing: tuple[str, ...] = ()  # cells that are no label, beside empty ones, nan, NA and null
    uncertain: str | None = None  # one of UNCERTAIN_RULES; needed where labels are uncertain
    split: SplitRule | None = None
    split_seed: int = 0
    split_file: Path | None = None  # read; with a rule, written first where it isn't there

    def __post_init__(self) -> None:
        is_meta = bool(self.target and self.target.startswith(META))
        if self.target is not None and not self.target.strip(" ,"):
            raise RequestError(f"--target takes one or more, comma separated; not {self.target!r}")
        if is_meta and self.labels:
            raise RequestError(
                f"--target {self.target} is stored with the features; leave out --labels"
            )
        said = {"--task": self.task, "--positive": self.positive, "--missing": self.missing or None}
        for flag, value in said.items():
            if value is not None and not (self.labels or is_meta):
                raise RequestError(
                    f"{flag} says how to read --labels FILE or --target {META}COLUMN; stored labels "
                    "are read already"
                )
        if self.separator is not None and not self.labels:
            raise RequestError("--label-sep belongs to --labels FILE")
        if self.uncertain is not None and self.uncertain not in UNCERTAIN_RULES:
            raise RequestError(
                f"--uncertain takes {', '.join(UNCERTAIN_RULES)}, not {self.uncertain!r}"
            )
        if self.split_seed < 0:
            raise RequestError(f"--split-seed takes 0 and more, not {self.split_seed}")
        if self.split_file and self.split and self.split.makes_several:
            raise RequestError(
                f"--split {self.split} makes several splits and a file holds one; name one of them, "
                "as in kfold:5:1 or site-out:COLUMN=VALUE"
            )

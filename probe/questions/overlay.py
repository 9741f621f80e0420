"""Which labels and splits to lay over a feature file's own."""

from dataclasses import dataclass
from pathlib import Path

from cache.commands.settings import check, setting
from cache.errors import RequestError
from cache.labels.target import UNCERTAIN_RULES
from cache.splits.rules import RULES, SplitRule
from cache.task import ASKED

META = "meta:"  # a target that begins with it is a stored column: "meta:sex"


@dataclass(frozen=True)
class LabelsConfig:
    """Which labels; nothing: the data set's own."""

    labels: Path | None = setting(
        None,
        "CSV: ids in the column id or the first, labels in the others; samples that it doesn't "
        "name are left out",
        metavar="FILE",
    )
    target: str | None = setting(
        None,
        "a column of --labels, one of several stored labels, or a stored column, as in "
        f"{META}sex; several comma separated",
        metavar="NAME",
    )
    masks: Path | None = setting(
        None,
        "a masks file, of kinds that segment",
        metavar="FILE",
        shown="the only one beside the token file",
    )
    uncertain: str | None = setting(
        None,
        "what uncertain labels count as",
        among=UNCERTAIN_RULES,
        shown="must be said where there are any",
    )


@dataclass(frozen=True)
class CellsConfig:
    """How a table's labels are read."""

    task: str | None = setting(None, "", among=ASKED, shown="what the values look like")
    positive: str | None = setting(None, "which of two classes is label 1", metavar="CLASS")
    separator: str | None = setting(
        None, "between several labels in one cell, e.g. '|'", flag="--label-sep", metavar="TEXT"
    )
    missing: tuple[str, ...] = setting(
        (),
        "cells that are no label, comma separated, as in --missing=N/A,-",
        metavar="WORDS",
        shown="beside empty ones: nan, NA, null",
    )


@dataclass(frozen=True)
class SplitConfig:
    """Which split; nothing: the data set's own."""

    split: SplitRule | None = setting(
        None,
        f"{RULES}; stratified by label, no group divided. Of folds and sites each is a row",
        metavar="RULE",
        read=SplitRule.parse,
    )
    split_seed: int = setting(0, "of the rule", metavar="SEED", least=0)
    split_file: Path | None = setting(
        None,
        "CSV of id,split and, if it says so, dataset: read; with --split written, where it isn't "
        "there",
        metavar="FILE",
    )


@dataclass(frozen=True)
class OverlayConfig(SplitConfig, CellsConfig, LabelsConfig):
    """Which labels and splits to lay over a feature file's own; nothing: those."""

    def __post_init__(self) -> None:
        check(self)
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
        if self.split_file and self.split and self.split.makes_several:
            raise RequestError(
                f"--split {self.split} makes several splits and a file holds one; name one of them, "
                "as in kfold:5:1 or site-out:COLUMN=VALUE"
            )

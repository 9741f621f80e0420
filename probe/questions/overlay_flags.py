"""The flags that lay other labels and splits over a data set's own: of ``probe`` and ``finetune``."""

import argparse
from pathlib import Path

from cache.commands.terminal import split_words
from cache.labels.columns import ASKED, UNCERTAIN_RULES
from cache.splits.rules import RULES, SplitRule
from probe.questions.overlay import META, OverlayConfig


def add_overlay_flags(parser: argparse.ArgumentParser, *, reading: bool = True) -> None:
    """Add the flags.

    Args:
        parser: of the command.
        reading: with those that say how a table's labels are read; a command that reads tables of
            images has them already.
    """
    labels = parser.add_argument_group("which labels (the data set's own)")
    labels.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="CSV: ids in the column id or the first, labels in the others; samples that it "
        "doesn't name are left out",
    )
    labels.add_argument(
        "--target",
        metavar="NAME",
        help=f"a column of --labels, one of several stored labels, or a stored column, as in "
        f"{META}sex; several comma separated",
    )
    if reading:
        labels.add_argument("--task", choices=ASKED, help="(what the values look like)")
        labels.add_argument("--positive", metavar="CLASS", help="which of two classes is label 1")
        labels.add_argument(
            "--label-sep", metavar="TEXT", help="between several labels in one cell, e.g. '|'"
        )
        labels.add_argument(
            "--missing",
            metavar="WORDS",
            help="cells that are no label, comma separated, as in --missing=N/A,- (beside empty "
            "ones: nan, NA, null)",
        )
    labels.add_argument(
        "--uncertain",
        choices=UNCERTAIN_RULES,
        help="what uncertain labels count as (must be said where there are any)",
    )
    splits = parser.add_argument_group("which split (the data set's own)")
    splits.add_argument(
        "--split",
        metavar="RULE",
        help=f"{RULES}; stratified by label, no group divided. Of folds and sites each is a row",
    )
    splits.add_argument(
        "--split-seed",
        type=int,
        metavar="SEED",
        default=OverlayConfig.split_seed,
        help="of the rule (%(default)s)",
    )
    splits.add_argument(
        "--split-file",
        type=Path,
        metavar="FILE",
        help="CSV of id,split and, if it says so, dataset: read; with --split written, where it "
        "isn't there",
    )


def read_overlay(options: argparse.Namespace) -> OverlayConfig:
    """What the flags say.

    Raises:
        RequestError: they contradict each other.
    """
    return OverlayConfig(
        labels=options.labels,
        target=options.target,
        task=options.task,
        positive=options.positive,
        separator=options.label_sep,
        missing=split_words("--missing", options.missing),
        uncertain=options.uncertain,
        split=None if options.split is None else SplitRule.parse(options.split),
        split_seed=options.split_seed,
        split_file=options.split_file,
    )

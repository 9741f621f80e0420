"""The command ``probe``: its flags, its output, its exit status."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cache.aggregate import AGGREGATES
from cache.errors import RequestError
from cache.labels import ASKED, UNCERTAIN_RULES
from cache.split_rules import RULES, SplitRule
from cache.terminal import Parser, complain, run_command, split_words
from probe.config import KINDS, META, POOLS, TEST_SPLITS, OverlayConfig, ProbeConfig
from probe.knn import METRICS, VOTES, KnnConfig
from probe.linear import FORMS, LinearConfig
from probe.ridge import RidgeConfig

EXAMPLES = """\
examples:
  probe --kind knn --k 200                              all features found, one k
  probe --kind linear --model dinov2 --data breastmnist
  probe --kind knn --k 11 --metric euclidean            Doerrich et al. 2024
  probe --kind linear --layer all                       val numbers of every layer
  probe --kind zeroshot --data breastmnist              for encoders with `extract --text`
  probe features/demo/*.h5 --kind knn --k 10,20         files by path
  probe --kind linear --data breastmnist --split kfold:5       other splits, no forward pass
  probe --kind linear --data mine --split 80/10/10 --split-file mine_split.csv
  probe --kind linear --data chexpert --target Edema --uncertain zeros
  probe --kind knn --data mine --labels grades.csv --target grade --task ordinal
  probe --kind ridge --data mine --target meta:age --task regression
  probe --kind linear --train-data chexpert --test-data chestxray14 --target Edema
"""

# Which flags belong to which kinds; the others are refused, not ignored.
OWN_FLAGS = {
    **dict.fromkeys(("k", "metric", "vote", "temperature"), ("knn",)),
    **dict.fromkeys(("strengths", "form"), ("linear",)),
    "penalties": ("ridge",),
    **dict.fromkeys(("layer", "all_test"), ("knn", "linear", "ridge")),
    "text": ("zeroshot",),
}


def make_parser() -> argparse.ArgumentParser:
    """The flags; their defaults are ProbeConfig's and those of the kinds."""
    parser = Parser(
        prog="probe",
        description="Answer questions from cached features: fit on train, choose on val, read "
        "test once; or ask texts, with nothing fitted. Every answer is one JSON row with its "
        "scores beside it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kind", required=True, choices=KINDS, help="which probe")
    which = parser.add_argument_group("which features")
    which.add_argument("files", nargs="*", type=Path, help="feature files (all that are found)")
    which.add_argument("--model", "-m", metavar="NAMES", help="encoders, comma separated")
    which.add_argument("--size", metavar="PX", help="input sizes, comma separated")
    which.add_argument("--data", metavar="NAMES", help="data sets, comma separated")
    which.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="PART=VALUE",
        help="a part of the key, e.g. precision=bf16, where several files fit",
    )
    which.add_argument(
        "--layer",
        help="number of the block or stage, -1 the last, or all: val numbers of every layer (-1)",
    )
    which.add_argument(
        "--pool",
        choices=POOLS,
        help="(cls where there is one, else head at the last layer, else mean; zeroshot: proj)",
    )
    which.add_argument(
        "--aggregate",
        choices=AGGREGATES,
        default=ProbeConfig.aggregate,
        help="what the slices of a volume become before the probe (%(default)s)",
    )
    which.add_argument(
        "--all-test", action="store_true", help="with --layer all: read test for every layer"
    )
    _add_overlay_flags(parser)
    k = ",".join(map(str, KnnConfig.k))
    of_knn = parser.add_argument_group("kind knn")
    of_knn.add_argument("--k", help=f"numbers of neighbours, comma separated ({k})")
    of_knn.add_argument("--metric", choices=METRICS, help=f"({KnnConfig.metric})")
    of_knn.add_argument(
        "--vote",
        choices=VOTES,
        help="weighted by exp(similarity / temperature), or one vote each (weighted; majority "
        "with --metric euclidean)",
    )
    of_knn.add_argument("--temperature", type=float, help=f"({KnnConfig.temperature})")
    of_linear = parser.add_argument_group("kind linear")
    strengths = ",".join(f"{c:g}" for c in LinearConfig.strengths)
    of_linear.add_argument(
        "--strengths",
        metavar="C",
        help=f"scikit-learn's C, comma separated; the best on val is taken ({strengths})",
    )
    of_linear.add_argument(
        "--form", choices=FORMS, help=f"for several classes ({LinearConfig.form})"
    )
    penalties = RidgeConfig.penalties
    of_ridge = parser.add_argument_group("kind ridge, for continuous labels")
    of_ridge.add_argument(
        "--penalties",
        metavar="P",
        help="scikit-learn's alpha over the number of training images, comma separated; the best "
        f"on val is taken ({len(penalties)} from {min(penalties):g} to {max(penalties):g})",
    )
    of_zeroshot = parser.add_argument_group("kind zeroshot")
    of_zeroshot.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="text features of the same encoder and data set, where several fit (the one beside "
        "the images)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--strict",
        action="store_true",
        help="refuse files whose splits share exact copies or patients, or that can't tell",
    )
    how.add_argument("--seed", type=int, default=0, help="of the bootstrap (%(default)s)")
    how.add_argument("--resamples", type=int, default=1000, help="of the bootstrap (%(default)s)")
    how.add_argument("--name", default="", help="a tag for the rows of this run")
    how.add_argument(
        "--features", type=Path, metavar="DIR", help="($MEDPROBE_FEATURES or ./features)"
    )
    how.add_argument("--results", type=Path, metavar="DIR", help="($MEDPROBE_RESULTS or ./results)")
    return parser


def _add_overlay_flags(parser: argparse.ArgumentParser) -> None:
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
    labels.add_argument("--task", choices=ASKED, help="(what the values look like)")
    labels.add_argument("--positive", metavar="CLASS", help="which of two classes is label 1")
    labels.add_argument(
        "--label-sep", metavar="TEXT", help="between several labels in one cell, e.g. '|'"
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
        help="CSV of id,split: read; with --split written, where it isn't there",
    )
    external = parser.add_argument_group("external validation")
    external.add_argument(
        "--train-data", metavar="NAME", help="fit on its train, choose on its val (or a file)"
    )
    external.add_argument("--test-data", metavar="NAMES", help="and test on this, comma separated")
    external.add_argument(
        "--test-split",
        choices=TEST_SPLITS,
        help=f"of --test-data: its test split, or all of it ({ProbeConfig.test_split})",
    )


def read_config(arguments: Sequence[str] | None) -> ProbeConfig:
    """Flags -> settings; a wrong flag ends the process with status 2."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    for flag, kinds in OWN_FLAGS.items():
        if options.kind not in kinds and getattr(options, flag) not in (None, False):
            name = flag.replace("_", "-")
            parser.error(f"--{name} belongs to --kind {' or '.join(kinds)}, not to {options.kind}")
    for flag in ("model", "size", "data", "where", "features", "test_data"):
        if options.files and getattr(options, flag):
            name = flag.replace("_", "-")
            parser.error(f"name feature files by path or by --{name}, not both")
    if options.data and options.test_data:
        parser.error("external validation takes --train-data and --test-data, and no --data")
    if options.train_data and not (options.test_data or options.files):
        parser.error("--train-data says what to fit on; add --test-data, what to test on")
    for flag in ("test_data", "test_split"):
        if getattr(options, flag) and not options.train_data:
            name = flag.replace("_", "-")
            parser.error(f"--{name} belongs to external validation; add --train-data")
    try:
        return ProbeConfig(
            kind=options.kind,
            knn=_knn(options) if options.kind == "knn" else None,
            linear=_linear(options) if options.kind == "linear" else None,
            ridge=_ridge(options) if options.kind == "ridge" else None,
            layer=-1 if options.layer is None else _layer(options.layer),
            pool=options.pool,
            aggregate=options.aggregate,
            text=options.text,
            all_test=options.all_test,
            strict=options.strict,
            seed=options.seed,
            n_resamples=options.resamples,
            name=options.name,
            files=tuple(options.files),
            models=split_words("--model", options.model),
            sizes=_numbers("--size", options.size, int),
            data=split_words("--data", options.data)
            or split_words("--test-data", options.test_data),
            where=tuple(_part(text) for text in options.where),
            overlay=_overlay(options),
            train_data=options.train_data,
            test_split=options.test_split or ProbeConfig.test_split,
            features=options.features,
            results=options.results,
        )
    except RequestError as error:
        parser.error(str(error))


def _overlay(options: argparse.Namespace) -> OverlayConfig:
    return OverlayConfig(
        labels=options.labels,
        target=options.target,
        task=options.task,
        positive=options.positive,
        separator=options.label_sep,
        uncertain=options.uncertain,
        split=None if options.split is None else SplitRule.parse(options.split),
        split_seed=options.split_seed,
        split_file=options.split_file,
    )


def _knn(options: argparse.Namespace) -> KnnConfig:
    given = {name: getattr(options, name) for name in ("metric", "vote", "temperature")}
    given["k"] = _numbers("--k", options.k, int) or None
    config = KnnConfig(**_given(given))
    if options.temperature is not None and config.rule == "majority":
        raise RequestError("--temperature belongs to the weighted vote, not to the majority")
    return config


def _linear(options: argparse.Namespace) -> LinearConfig:
    strengths = _numbers("--strengths", options.strengths, float) or None
    return LinearConfig(**_given({"strengths": strengths, "form": options.form}))


def _ridge(options: argparse.Namespace) -> RidgeConfig:
    penalties = _numbers("--penalties", options.penalties, float) or None
    return RidgeConfig(**_given({"penalties": penalties}))


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _layer(text: str) -> int | None:
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise RequestError(
            f"--layer takes a number, -1 for the last, or all; not {text!r}"
        ) from None


def _numbers(flag: str, text: str | None, kind: type) -> tuple[Any, ...]:
    words = split_words(flag, text)
    try:
        return tuple(kind(word) for word in words)
    except ValueError:
        raise RequestError(f"{flag} takes numbers, comma separated; not {text!r}") from None


def _part(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise RequestError(f"--where takes PART=VALUE, e.g. precision=bf16; not {text!r}")
    return name, value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    config = read_config(arguments)
    return run_command("probe", lambda: run(config), "interrupted; rows already written stay")


def run(config: ProbeConfig) -> int:
    """Find the features, ask them, print the table."""
    # Here, not above: h5py is a quarter of the time that --help may take.
    from probe.run import choose_files, run_probe
    from probe.table import format_table

    found, problems = choose_files(config)
    rows, more = run_probe(config, found, say=lambda line: print(line, flush=True))
    if rows:
        print(f"\n{format_table(rows)}\n")
        if config.layer is None and not config.all_test:
            print("Test wasn't read: choose a layer by val, then ask for it with --layer N.")
        rows_word = "row" if len(rows) == 1 else "rows"
        print(f"{len(rows)} {rows_word} with scores in {config.results_dir}")
    for what, why in [*problems, *more]:
        complain("probe", f"{what}: {why}")
    return 1 if problems or more else 0

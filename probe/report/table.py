"""One table over data sets, for a terminal or a log: plain text, one line a row."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cache.commands.terminal import in_line
from cache.format.key import canonical_json
from probe.folds import count_splits, describe_choices, how_chosen
from probe.metrics import classification, regression
from probe.metrics.intervals import Interval
from probe.metrics.metric import INTERVAL, REST, SD, VAL, Metric
from probe.metrics.prepared import METRICS
from probe.report.rows.comparable import NOT_TO_COMPARE, describe_block, make_blocks
from probe.report.rows.contenders import Contender
from probe.report.rows.stored import StoredRow
from probe.results import Row

SPREAD = (
    "mean ± standard deviation over folds or sites, whose training images overlap: no 95 % interval"
)
LACKING = (
    "a mean over classes is, in folds whose test images lack a class, over those that they have"
)
OVER_SEEDS = (
    "mean ± standard deviation (ddof {ddof}) over training seeds: no 95 % interval, which "
    "is of the test images"
)
UNLIKE = "folds of this mean were not all chosen alike: {}"
LEAKS = (
    "leaks: exact copies + near twins in an earlier split; p: patients there; ?: unknown (?p: "
    "patients unknown); w/o: without those test samples"
)
# Column "scale" of few-shot rows: by what features are standardised, as the flag has it.
SCALES = {"train-unlabelled": "train", "by each episode": "episode", "none (L2)": "none"}
EMPTY = {
    "leaks": ("", "0", "0 ?p"),
    "scale": ("", "train"),
}  # what a column that isn't shown may hold; others: nothing


def format_table(rows: Sequence[Row], *, with_kind: bool = False) -> str:
    """Rows as an aligned table; marks are numbered and explained below it.

    Folds of one question stand below one another, with their mean and standard deviation. Rows of
    one data set that were asked about different samples are a table each, under what differs.

    Args:
        rows: in order.
        with_kind: whether a column tells the kinds apart.
    """
    blocks = make_blocks([Contender((StoredRow(row),)) for row in rows])
    tables = [_format_rows([c.first.row for c in b.contenders], with_kind) for b in blocks]
    if len(tables) < 2:
        return "".join(tables)
    headed = [f"{describe_block(i, blocks)}\n{table}" for i, table in enumerate(tables, start=1)]
    return "\n\n".join([*headed, NOT_TO_COMPARE])


def _format_rows(rows: Sequence[Row], with_kind: bool) -> str:
    notes: dict[str, int] = {}
    records = []
    for alike in _by_question(rows):
        records += [_record(row, notes) for row in alike]
        if len(alike) > 1:
            records.append(_summary(alike, _n_asked(alike, rows), notes))
    records = [
        {n: in_line(r.get(n, "")) for n in COLUMNS if with_kind or n != "kind"} for r in records
    ]
    columns = [n for n in records[0] if any(r[n] not in EMPTY.get(n, ("",)) for r in records)]
    widths = {name: max(len(name), *(len(r[name]) for r in records)) for name in columns}
    lines = ["  ".join(_cell(name, name, widths) for name in columns).rstrip()]
    lines.append("  ".join("-" * widths[name] for name in columns))
    lines += ["  ".join(_cell(r[name], name, widths) for name in columns).rstrip() for r in records]
    lines += [f"  [{number}] {in_line(text)}" for text, number in notes.items()]
    lines += [f"  {LEAKS}"] if "leaks" in columns else []
    return "\n".join(lines)


def _by_question(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that differ only in the fold, the site or the training seed together; others alone.

    Folds that were chosen in several ways stand together only where no fold was asked in two of
    them: that is --choose auto, and else each way is a question of its own.
    """
    alike: dict[tuple[str, str, int], list[Row]] = {}
    seen: Counter[tuple[str, str, Fold]] = Counter()
    for row in rows:
        question = row.question, canonical_json(how_chosen(row.answered.settings))
        # The same fold twice is of two files of one key, not of two folds.
        asked = (*question, _fold(row))
        alike.setdefault((*question, seen[asked]), []).append(row)
        seen[asked] += 1
    joined: dict[str, list[list[Row]]] = defaultdict(list)
    for part in sorted(alike.values(), key=len, reverse=True):
        folds = {_fold(row) for row in part}
        there = joined[part[0].question]
        apart = [whole for whole in there if folds.isdisjoint(map(_fold, whole))]
        apart[0].extend(part) if apart else there.append(part)
    place = {id(row): number for number, row in enumerate(rows)}
    wholes = [sorted(whole, key=lambda row: place[id(row)]) for w in joined.values() for whole in w]
    return sorted(wholes, key=lambda whole: place[id(whole[0])])


Fold = tuple[str, Any]  # name of the fold or site, training seed


def _fold(row: Row) -> Fold:
    return row.posed.fold, row.answered.training_seed


def _n_asked(alike: Sequence[Row], rows: Sequence[Row]) -> int:
    """Rows that a mean over all folds or sites, of as many training seeds, would be of.

    Rows of sites didn't always hold how many there are: then as many as the table has rows of.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        names[_rule(row)].add(_fold(row)[0])
    n_splits = max(
        1, *(count_splits(row.posed.split) for row in alike), len(names[_rule(alike[0])])
    )
    return n_splits * len({_fold(row)[1] for row in alike})


def _rule(row: Row) -> str:
    split = row.posed.split
    return canonical_json([row.encoded.dataset, split.get("rule"), split.get("seed")])


def _record(row: Row, notes: dict[str, int]) -> dict[str, str]:
    numbers = [notes.setdefault(mark, len(notes) + 1) for mark in row.marks]
    test, val = row.measured.test, _val(row)
    chosen = row.answered.chosen
    cells = {
        column: _interval(test[metric], write) if "[" in column else write(test[metric].value)
        for column, (metric, write) in OF_TEST.items()
        if metric in test
    }
    for columns, found in ((OF_VAL, val), (OF_REST, row.measured.without_twins)):
        cells |= {c: write(found[m]) for c, (m, write) in columns.items() if m in found}
    return {
        **_asked(row),
        "k": str(row.answered.settings.get("k", chosen.get("k", ""))),
        "set": ", ".join(f"{name}={v}" for name, v in chosen.get("settings", {}).items()),
        "split": row.posed.fold,
        "seed": str(row.answered.settings.get("training_seed", "")),
        **{column: f"{chosen[n]:g}" for column, n in OF_CHOSEN.items() if n in chosen},
        **cells,
        **{c: _episodes_sd(row, metric, write) for c, (metric, write) in OF_EPISODES.items()},
        "leaks": _leaks(row.posed.leaks),
        "note": " ".join(f"[{number}]" for number in numbers),
    }


def _summary(rows: Sequence[Row], n_asked: int, notes: dict[str, int]) -> dict[str, str]:
    """Each metric's mean and standard deviation over folds or sites, or training seeds.

    Of seeds it is divided as the protocol's paper has it; of both together by n - 1.
    """
    over_seeds = len({row.posed.fold for row in rows}) == 1
    ddof = rows[0].answered.chosen.get("ddof", 1) if over_seeds else 1
    note = OVER_SEEDS.format(ddof=ddof) if over_seeds else SPREAD
    of_test = [{name: m.value for name, m in row.measured.test.items()} for row in rows]
    said = [note]
    if not over_seeds:
        filled = [values | _over_classes(row) for values, row in zip(of_test, rows, strict=True)]
        said += [LACKING] if str(filled) != str(of_test) else []  # as text: nan is no other nan
        of_test = filled
        unlike = describe_choices([row.answered.settings for row in rows])
        said += [UNLIKE.format(unlike)] if unlike else []
    n = f"mean of {len(rows)}"
    if not over_seeds and len(rows) < n_asked:
        n += f" of {n_asked}"
    asked = [_asked(row) for row in rows]
    numbers = [notes.setdefault(text, len(notes) + 1) for text in said]
    cells: dict[str, str] = {}
    for columns, found in [
        (OF_TEST, of_test),
        (OF_VAL, [_val(row) for row in rows]),
        (OF_REST, [row.measured.without_twins for row in rows]),
    ]:
        for column, (metric, write) in columns.items():
            if all(metric in values for values in found):
                cells[column] = _spread([values[metric] for values in found], write, ddof)
    return {
        # A layer that each fold chose for itself is none of all.
        **{c: v if all(a[c] == v for a in asked) else "" for c, v in asked[0].items()},
        "seed" if over_seeds else "split": n,
        **cells,
        "note": " ".join(f"[{number}]" for number in numbers),
    }


def _over_classes(row: Row) -> dict[str, float]:
    """Means over the classes, or labels, that test has, where it lacks some and so has none of all.

    Else one class with fewer samples than there are folds would leave no mean over folds at all.
    """
    found, m = {}, row.measured
    for metric in ("auc", "average_precision"):
        each = [v for v in m.per_class.get(metric, ()) if v is not None and not math.isnan(v)]
        if each and metric in m.test and math.isnan(m.test[metric].value):
            found[metric] = statistics.fmean(each)
    return found


def _asked(row: Row) -> dict[str, str]:
    """What rows of one question share."""
    e, settings, shots = row.encoded, row.answered.settings, row.answered.shots
    return {
        "data": e.dataset,
        "model": e.label,
        "size": str(e.size or ""),
        "kind": row.answered.kind,
        "mode": _mode(settings),
        "layer": str(settings.get("layer", "")),  # controls have none
        "pool": str(settings.get("pool", "")),
        "shots": "" if shots is None else str(shots),
        "scale": SCALES.get(str(settings.get("standardised")), ""),
        "k": str(settings.get("k", "")),
        "prompts": str(settings["text"]["n_prompts"]) if "text" in settings else "",
    }


def _val(row: Row) -> Mapping[str, float]:
    """The numbers of val, where they stand in the place of test's."""
    return {} if row.measured.test else row.measured.val


def _mode(settings: Mapping[str, Any]) -> str:
    """What trained of a fine-tuned encoder: "full", "partial from 8", "head, deit"."""
    words = str(settings.get("mode", ""))
    if settings.get("freeze_until") is not None:
        words += f" from {settings['freeze_until']}"
    return words + (", deit" if settings.get("head") == "deit" else "")


def _episodes_sd(row: Row, metric: str, write: Callable[[float], str]) -> str:
    """Standard deviation over episodes, of n - 1."""
    values = row.measured.episodes.get(metric, ())
    if len(values) < 2:
        return ""
    return write(math.nan if any(map(math.isnan, values)) else statistics.stdev(values))


def _leaks(leaks: Mapping[str, int | None] | None) -> str:
    """Exact copies + near twins, then patients, of test or else of val.

    "?" where nobody knows, "?p" where nobody knows patients.
    """
    if leaks is None:
        return "?"
    of = "" if leaks["n"] else "val_"
    exact, near, groups = (leaks[f"{of}{what}"] for what in ("exact", "near", "groups"))
    twins = f"{exact}+{near}" if exact or near else "0"
    if groups is None:
        return f"{twins} ?p"
    return f"{twins} {groups}p" if groups else twins


def _cell(text: str, name: str, widths: dict[str, int]) -> str:
    return text.rjust(widths[name]) if name in RIGHT else text.ljust(widths[name])


def _interval(interval: Interval, write: Callable[[float], str]) -> str:
    value, low, high = map(write, interval)
    return f"{value} [{low} {high}]"


def _spread(values: Sequence[float], write: Callable[[float], str], ddof: int = 1) -> str:
    """Mean and standard deviation, of n - ddof; undefined where one value is."""
    if any(map(math.isnan, values)):
        return write(math.nan)
    deviation = statistics.stdev if ddof else statistics.pstdev
    return f"{write(statistics.fmean(values))} ± {write(deviation(values))}"


def _number(value: float) -> str:
    """.846 as "0.846"; an undefined metric as a dash."""
    return f"{value:.3f}" if value == value else "  -  "


def _in_unit(value: float) -> str:
    """A length or an age, in the labels' unit: four digits, wherever the point is."""
    return f"{value:.4g}" if value == value else "  -  "


Columns = dict[
    str, tuple[str, Callable[[float], str]]
]  # -> the metric in it, and how it is written


def _columns(form: str, metrics: Sequence[Metric]) -> Columns:
    return {
        form.format(m.column): (m.name, _in_unit if m.has_unit else _number)
        for m in metrics
        if form in m.also
    }


def _of_test(metrics: Sequence[Metric]) -> Columns:
    """Those with an interval first."""
    alone = {m.column: (m.name, _in_unit if m.has_unit else _number) for m in metrics if m.column}
    shown = {m.column for m in metrics if INTERVAL in m.also}
    return _columns(INTERVAL, metrics) | {c: of for c, of in alone.items() if c not in shown}


OF_TEST = _of_test(classification.METRICS) | _of_test(regression.METRICS)
OF_VAL = _columns(VAL, METRICS)  # where test wasn't read
OF_EPISODES = _columns(SD, METRICS)  # of few-shot episodes, the standard deviation
OF_REST = _columns(REST, METRICS)  # of the test samples that have no twin
OF_CHOSEN = {
    "encoder lr": "encoder_lr",
    "head lr": "head_lr",
    "C": "strength",
    "penalty": "penalty",
}
COLUMNS = (
    *("data", "model", "size", "kind", "mode", "layer", "pool", "shots", "scale", "k", "prompts"),
    *("encoder lr", "head lr", "set", "split", "seed", "C", "penalty"),
    *(*OF_TEST, *OF_VAL, *OF_EPISODES, "leaks", *OF_REST, "note"),
)  # in order; those in which no row has anything aren't shown
RIGHT = {"size", "layer", "k", "C", "seed", "prompts", "shots", "encoder lr", "head lr", "penalty"}
RIGHT |= {c for c in (*OF_TEST, *OF_VAL, *OF_EPISODES, *OF_REST) if "[" not in c}

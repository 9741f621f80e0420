"""One table over data sets, for a terminal or a log: plain text, one line a row."""

from collections.abc import Sequence

from probe.intervals import Interval
from probe.results import Row

RIGHT = {"size", "layer", "k", "C", "prompts", "bal. acc", "f1", "val acc", "val auc"}


def format_table(rows: Sequence[Row]) -> str:
    """Rows as an aligned table; marks are numbered and explained below it."""
    if not rows:
        return ""
    notes: dict[str, int] = {}
    records = [_record(row, notes) for row in rows]
    columns = [name for name in records[0] if any(record[name] for record in records)]
    widths = {name: max(len(name), *(len(r[name]) for r in records)) for name in columns}
    lines = ["  ".join(_cell(name, name, widths) for name in columns).rstrip()]
    lines.append("  ".join("-" * widths[name] for name in columns))
    lines += ["  ".join(_cell(r[name], name, widths) for name in columns).rstrip() for r in records]
    lines += [f"  [{number}] {text}" for text, number in notes.items()]
    return "\n".join(lines)


def _record(row: Row, notes: dict[str, int]) -> dict[str, str]:
    numbers = [notes.setdefault(mark, len(notes) + 1) for mark in row.marks]
    m, v = row.metrics, row.val_metrics
    only_val = not m
    return {
        "data": str(row.features["dataset"]),
        "model": str(row.features["model"]),
        "size": str(row.features["size"]),
        "layer": str(row.probe["layer"]),
        "pool": str(row.probe["pool"]),
        "k": str(row.probe.get("k", "")),
        "C": f"{row.chosen['strength']:g}" if "strength" in row.chosen else "",
        "prompts": str(row.probe["text"]["n_prompts"]) if "text" in row.probe else "",
        "acc [95 %]": _interval(m.get("acc")),
        "auc [95 %]": _interval(m.get("auc")),
        "bal. acc": _number(m["balanced_accuracy"].value) if m else "",
        "f1": _number(m["f1_macro"].value) if m else "",
        "val acc": _number(v["acc"]) if v and only_val else "",
        "val auc": _number(v["auc"]) if v and only_val else "",
        "note": " ".join(f"[{number}]" for number in numbers),
    }


def _cell(text: str, name: str, widths: dict[str, int]) -> str:
    return text.rjust(widths[name]) if name in RIGHT else text.ljust(widths[name])


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{_number(interval.value)} [{_number(interval.low)} {_number(interval.high)}]"


def _number(value: float) -> str:
    """.846 as "0.846"; an undefined metric as a dash."""
    return f"{value:.3f}" if value == value else "  -  "

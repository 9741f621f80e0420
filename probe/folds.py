"""What of a row was asked of every fold or site, and what one fold's own data made of it.

A fold's question is the same as the others' where its settings are. How many exact copies it holds,
whether its val is large enough to choose on, which k fit, and which layer won are facts of its
data: they are in the row's id, but divide no mean.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

JUDGE = re.compile(r"(val|(pooled )?out-of-fold) ")  # see probe.metrics.losses.judged_by
OF_A_FOLD = ("folds", "refit", "groups")  # folds or val choose; whether train names patients
OF_EPISODES = ("digest", "images")  # each fold has a train, and so episodes, of its own
OF_A_PLACE = ("layer", "pool", "n_last")  # where one was chosen


def asked_of_all(probe: Mapping[str, Any]) -> dict[str, Any]:
    """A row's settings without what a fold's data made of them; those of all folds are equal."""
    asked = {name: value for name, value in probe.items() if name not in OF_A_FOLD}
    if "chosen_by" in asked:
        asked["chosen_by"] = JUDGE.sub("", str(asked["chosen_by"]))
    if "k_among" in asked:  # those that a fold has too few images for are missing
        asked["k_among"] = min(asked["k_among"])
    if "few_shot" in asked:
        asked["few_shot"] = _without(asked["few_shot"], OF_EPISODES)
    if "place_chosen" in asked:
        chosen = asked["place_chosen"]
        asked["place_chosen"] = {**chosen, "by": JUDGE.sub("", str(chosen["by"]))}
        asked = _without(asked, OF_A_PLACE)
    return asked


def how_chosen(probe: Mapping[str, Any]) -> dict[str, str]:
    """What may differ among folds of one question, and be said of their mean: words -> value."""
    among = probe.get("k_among", ())
    found = {
        "chosen by": probe.get("chosen_by", ""),
        "layer chosen by": probe.get("place_chosen", {}).get("by", ""),
        "fitted on": probe.get("refit", "train"),
        "k among": ", ".join(map(str, among)),
    }
    return {words: str(value) for words, value in found.items() if value}


def describe_choices(probes: Sequence[Mapping[str, Any]]) -> str:
    """In what folds differ: "chosen by val log-loss (3), out-of-fold log-loss (2)"; or nothing."""
    each = [how_chosen(probe) for probe in probes]
    said = []
    for words in dict.fromkeys(words for how in each for words in how):
        counts = Counter(how.get(words, "none") for how in each)
        if len(counts) > 1:
            said.append(f"{words} " + ", ".join(f"{value} ({n})" for value, n in counts.items()))
    return "; ".join(said)


def count_splits(split: Mapping[str, Any]) -> int:
    """How many folds or sites a row's rule makes; 0 where the row doesn't tell."""
    if isinstance(split.get("of"), int):
        return split["of"]
    fold = re.fullmatch(r"fold \d+/(\d+)", str(split.get("name", "")))
    return int(fold[1]) if fold else 0  # rows of sites didn't always hold it


def _without(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}

"""Printed tables of rows, read back: by what a column is called, wherever it stands."""

import re
from itertools import pairwise

from probe.report.rows.fields import FIELDS

TITLES = "|".join(sorted((field.title for field in FIELDS), key=len, reverse=True))


def printed(text):
    """The lines of all tables of a page, means among them: column -> what is shown.

    What stands once above a table is in each of its lines. What isn't shown isn't there.
    """
    found, lines = [], text.splitlines()
    for i, rule in enumerate(lines):
        if not re.fullmatch("-+(  -+)*", rule):
            continue
        columns = [slice(*m.span()) for m in re.finditer("-+", rule)]
        names = [lines[i - 1][part].strip() for part in columns]
        facts = dict(re.findall(rf"(?:^|, )({TITLES}) (.*?)(?=$|, (?:{TITLES}) )", lines[i - 2]))
        for line in lines[i + 1 :]:
            cells = [line[part].strip() for part in columns]
            if not line or any(line[a.stop : b.start].strip() for a, b in pairwise(columns)):
                break
            if len(line) > columns[-1].stop:
                break
            shown = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
            found.append(facts | shown)
    return found


def rows_printed(text):
    """The same without means."""
    return [line for line in printed(text) if not is_mean(line)]


def means_printed(text):
    """The lines that are means over folds, sites or seeds."""
    return [line for line in printed(text) if is_mean(line)]


def is_mean(line):
    return any(line.get(name, "").startswith("mean of") for name in ("fold", "seed"))

"""The papers' tables: what stands in their rows and columns, and where they are printed.

Page numbers aren't known: what the numbers were typed from has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cache.errors import RequestError

MODE_BLOCKS = ("mode", "model")  # rows: models below one another, once for each mode


@dataclass(frozen=True)
class PrintedTable:
    """One table of a paper. Rows, headings and columns are named by fields of ``Number``."""

    paper: str
    name: str  # in the paper's CSV
    place: str  # what it is and where it is printed, in words
    rows: tuple[str, ...]
    over: str  # heading that neighbouring columns share; "": none
    column: str
    alias: str = ""  # short name, where the CSV's is long

    @property
    def called(self) -> str:
        """What a user types: "wu2025:results1"."""
        return f"{self.paper}:{self.alias or self.name}"


def _wu(name: str, place: str, over: str = "dataset") -> PrintedTable:
    return PrintedTable("wu2025", name, f"{name} of {place}", MODE_BLOCKS, over, "metric")


def _doerrich(dataset: str) -> PrintedTable:
    name = f"benchmark_results_{dataset}.png"
    place = f"assets/{name} of its repository"
    return PrintedTable("doerrich2024", name, place, MODE_BLOCKS, "metric", "size", dataset)


def _huix(n: int) -> PrintedTable:
    return PrintedTable("huix2024", f"table{n}", f"table {n}", MODE_BLOCKS, "dataset", "metric")


def _baharoon(
    n: int, rows: tuple[str, ...] = ("model",), over: str = "", column: str = "dataset"
) -> PrintedTable:
    return PrintedTable("baharoon2023", f"table{n}", f"table {n}", rows, over, column)


TABLES = (
    _wu("results1", "section 3.2"),
    *(_wu(f"results{n}", "appendix C") for n in (2, 3, 4)),
    *(_wu(f"results_sizes_{how}", "appendix D", "size") for how in ("pad", "scale")),
    *(
        _doerrich(f"{name}mnist")
        for name in (
            *("derma", "breast", "blood", "chest", "oct", "organa", "organc", "organs"),
            *("path", "pneumonia", "retina", "tissue"),
        )
    ),
    *map(_huix, (1, 2, 3)),
    _baharoon(3),
    _baharoon(4, over="dataset", column="mode"),
    *(_baharoon(n, rows=("model", "size")) for n in (5, 6, 7)),
    _baharoon(8),
    _baharoon(9, rows=("mode",)),
    PrintedTable(
        "baharoon2023",
        "figure5(generate_vis.ipynb)",
        "figure 5, from dinov2/visualization/generate_vis.ipynb of its repository",
        ("model",),
        "dataset",
        "mode",
        "figure5",
    ),
)
BY_NAME: Mapping[str, PrintedTable] = {
    **{f"{table.paper}:{table.name}": table for table in TABLES},
    **{table.called: table for table in TABLES},
}


def find_table(name: str) -> PrintedTable:
    """A table by its paper's name and its own: "wu2025:results1".

    Raises:
        RequestError: there is none; with the list of those that there are.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    paper = name.partition(":")[0]
    of_paper = [table.called for table in TABLES if table.paper == paper]
    known = of_paper or [table.called for table in TABLES]
    raise RequestError(f'no published table "{name}"; there are {", ".join(known)}')

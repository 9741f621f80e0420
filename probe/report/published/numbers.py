"""Published numbers, as papers printed them, each with where it stands and what is wrong with it.

A paper is one CSV beside this file: table, quoting (whose number the paper repeats; empty: its
own), model, dataset, size, resize, mode, metric, mean, std. Values are as printed, digit by digit,
for the last digit says how far a number was rounded.

None is chosen or corrected here: what is known to be wrong stands in ``notes.py``, as footnotes.
"""

import csv
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from cache.errors import RequestError
from probe.report.published.modes import MODES, Mode
from probe.report.published.names import METRICS, dataset_of, encoder_of
from probe.report.published.notes import NOTES
from probe.report.published.tables import find_table

PERCENT, FRACTION = "percent", "fraction"
STORED, INPUT = "stored", "input"  # images whose side a number's size is


@dataclass(frozen=True)
class Paper:
    """Where numbers were printed."""

    name: str  # of its CSV, and what a user types
    title: str
    url: str
    units: str  # PERCENT or FRACTION
    read_from: str  # what the CSV was typed or read from
    ddof: int | None  # of its standard deviations; None: nobody outside knows
    size_of: str  # STORED images' or the encoder's INPUT's


WU = Paper(
    "wu2025",
    "Wu & Papież 2025, Rethinking Foundation Models for Medical Image Classification through a "
    "Benchmark Study on MedMNIST",
    "https://arxiv.org/abs/2501.14685",
    PERCENT,
    "the paper's result tables: results1 is of its main text, results2 to 4 of appendix C",
    0,  # np.std of three runs, in its code
    STORED,
)
DOERRICH = Paper(
    "doerrich2024",
    "Doerrich et al. 2024, Rethinking Model Prototyping through the MedMNIST+ Dataset Collection",
    "https://arxiv.org/abs/2404.15786",
    PERCENT,
    "the pictures assets/benchmark_results_*.png of its repository; means over the twelve sets "
    "equal its own picture of averages",
    None,
    STORED,
)
HUIX = Paper(
    "huix2024",
    "Huix et al. 2024, Are Natural Domain Foundation Models Useful for Medical Image "
    "Classification?",
    "https://arxiv.org/abs/2310.19522",
    FRACTION,
    "the paper's tables 1 to 3",
    None,
    INPUT,
)
BAHAROON = Paper(
    "baharoon2023",
    "Baharoon et al. 2023, Towards General Purpose Vision Foundation Models for Medical Image "
    "Analysis: An Experimental Study of DINOv2 on Radiology Benchmarks",
    "https://arxiv.org/abs/2312.02366",
    FRACTION,
    "the paper's tables 3 to 9; figure 5 from its notebook dinov2/visualization/generate_vis.ipynb",
    None,
    INPUT,
)
PAPERS = {paper.name: paper for paper in (WU, DOERRICH, HUIX, BAHAROON)}


@dataclass(frozen=True)
class Number:
    """One printed number."""

    paper: Paper
    table: str  # of the paper
    quoting: str  # the paper that it repeats; "": its own
    model: str  # as printed
    dataset: str  # as printed, in small letters
    size: int | None  # pixels of a side; None: unknown, or of no one size
    resize: str
    mode: str  # what was trained: "linear", "finetune", "knn", "frozen/deit-b", ...
    metric: str  # as printed: "ACC", "AUC", "AUROC", "quadratic_kappa", "recall", ...
    printed: str  # "81.80"
    printed_std: str  # "" where it has none

    @property
    def value(self) -> float:
        """0..1, whatever the paper's units."""
        return float(self._scaled(self.printed))

    @property
    def std(self) -> float | None:
        """Over runs, in the units of ``value``; None: one run, or nobody says."""
        return float(self._scaled(self.printed_std)) if self.printed_std else None

    @property
    def half_digit(self) -> float:
        """How far the value may be from the number that was rounded: half of its last digit."""
        return float(self._scaled(f"0.5e{Decimal(self.printed).as_tuple().exponent}"))

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean over runs: of one run there is no standard deviation.

        What huix2024 prints without is a mean too: the whole paper repeats five times.
        """
        return bool(self.printed_std) or self.paper is HUIX

    @property
    def encoder(self) -> str | None:
        """Our full name of the same encoder; None: we have none with these weights."""
        return encoder_of(self.quoting or self.paper.name, self.model)

    @property
    def our_dataset(self) -> str | None:
        """Our name of the data set, split as the paper did; None: we have none."""
        return dataset_of(self.paper.name, self.dataset)

    @property
    def our_metric(self) -> str | None:
        """Our name of the metric; None: we have none that is computed so."""
        return METRICS.get(self.metric)

    @property
    def our_mode(self) -> Mode:
        """What the paper calls its way of answering, and which of ours are the same."""
        return MODES[self.quoting or self.paper.name][self.mode]

    @property
    def notes(self) -> tuple[str, ...]:
        """Footnotes: what is known to be wrong, or unknown."""
        return tuple(n.text for n in NOTES if n.paper == self.paper.name and self.is_of(n.where))

    @property
    def source(self) -> str:
        """Where it is printed, in words: "wu2025, results1 of section 3.2 (https://...)"."""
        quoting = f", quoting {self.quoting}" if self.quoting else ""
        place = find_table(f"{self.paper.name}:{self.table}").place
        return f"{self.paper.name}, {place}{quoting} ({self.paper.url})"

    def is_of(self, where: Mapping[str, Collection[Any]]) -> bool:
        """Whether each named field has one of its values."""
        return all(getattr(self, field) in values for field, values in where.items())

    def _scaled(self, printed: str) -> Decimal:
        return Decimal(printed) / (100 if self.paper.units == PERCENT else 1)


def published(paper: str | None = None, **wanted: Any) -> tuple[Number, ...]:
    """The printed numbers, in the papers' order.

    Args:
        paper: one of ``PAPERS``; None: of all.
        wanted: fields and properties of ``Number`` -> the value that they have: ``table="results1"``,
            ``encoder="vgg16.tv_in1k"``.

    Raises:
        RequestError: there is no such paper.
    """
    if paper is not None and paper not in PAPERS:
        raise RequestError(f'no numbers of "{paper}": there are those of {", ".join(PAPERS)}')
    found = (n for name in PAPERS if paper in (None, name) for n in _read(name))
    return tuple(n for n in found if n.is_of({f: (value,) for f, value in wanted.items()}))


@cache
def _read(name: str) -> tuple[Number, ...]:
    text = (files("probe.report.published") / f"{name}.csv").read_text(encoding="utf-8")
    return tuple(_parse(PAPERS[name], text))


def _parse(paper: Paper, text: str) -> Iterator[Number]:
    for row in csv.DictReader(text.splitlines()):
        size, mean, std = row.pop("size"), row.pop("mean"), row.pop("std")
        yield Number(paper, size=int(size) if size else None, printed=mean, printed_std=std, **row)

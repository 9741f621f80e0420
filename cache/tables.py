"""Tables of text: CSV files as users have them, read strictly."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """A CSV file, column after column. Values are text, stripped; empty where nothing stands."""

    path: Path
    columns: Mapping[str, tuple[str, ...]]

    @property
    def n_rows(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def read_csv(path: Path) -> Table:
    raise NotImplementedError

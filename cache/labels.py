"""Labels out of columns of text: which task they make, which classes, what is missing.

Both ``extract --data csv:FILE`` and ``probe --labels FILE --target COLUMN`` read them here, so a
column means the same wherever it is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

MISSING = -1  # nobody says; of continuous labels NaN
UNCERTAIN = -2  # somebody says that it isn't clear: CheXpert's -1. Labels that stand side by side only

REGRESSION = "regression"  # the one task that MedMNIST has no word for: continuous labels


@dataclass(frozen=True)
class Target:
    """What is to be predicted, for S samples."""

    task: str  # one of cache.layout.TASKS
    class_names: tuple[str, ...]  # of regression: the one column's name
    labels: NDArray[Any]  # int64 (S,) or (S, C), of regression float64 (S,); MISSING, UNCERTAIN, NaN

    @property
    def positive_class(self) -> str | None:
        """The name of label 1 of a binary task."""
        return self.class_names[1] if self.task == "binary-class" else None


def read_target(
    columns: Mapping[str, Sequence[str]],
    *,
    where: str,
    task: str | None = None,
    separator: str | None = None,
    positive: str | None = None,
) -> Target:
    raise NotImplementedError

"""Which feature files are compared layer by layer: one with itself, two, or before and after tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache.commands.names import TUNED, counted, short_label
from cache.errors import RequestError
from probe.report.figures.files import AskedOfFiles

if TYPE_CHECKING:
    from cache.features import Features


@dataclass(frozen=True)
class Both:
    """Two files of one data set."""

    one: Features
    other: Features  # may be the same
    is_tuned: bool = False  # whether it is the same encoder after a training

    @property
    def title(self) -> str:
        """Both in words, one after the other."""
        one, other = short_label(self.one.label), short_label(self.other.label)
        if self.is_tuned and TUNED.search(weights := str(self.other.notes.get("weights"))):
            return f"{one}, {weights.partition(', ')[2]}"
        return one if self.other is self.one else f"{one} and {other}"


def pairs_of(asked: AskedOfFiles) -> tuple[list[Both], tuple[str, ...]]:
    """A pair of each data set; of more files each encoder before and after tuning.

    Returns:
        The pairs, and what is left out.

    Raises:
        RequestError: more than two files of a data set, none of which is another's tuned.
    """
    found: list[Both] = []
    notes: list[str] = []
    for dataset, files in asked.of_datasets().items():
        tuned = tuned_pairs(files)
        if len(files) > 2 and not tuned:
            names = ", ".join(f"{short_label(file.label)} at {file.size} px" for file in files)
            raise RequestError(
                f"layers of one or two encoders are compared; of {dataset} there are {names}: name "
                "two by --model or --files, or compare one layer of all by --layer -1"
            )
        if not tuned:
            found.append(Both(files[0], files[-1]))
            continue
        found += tuned
        used = {file.path for both in tuned for file in (both.one, both.other)}
        notes += [
            f"Left out: {short_label(file.label)} on {dataset}, of which there is no tuned one"
            for file in files
            if file.path not in used
        ]
    return found, tuple(notes)


def tuned_only(asked: AskedOfFiles) -> tuple[list[Both], tuple[str, ...]]:
    """The same where all pairs must be an encoder before and after tuning.

    Raises:
        RequestError: there is none.
    """
    found = [both for files in asked.of_datasets().values() for both in tuned_pairs(files)]
    if found:
        return found, pairs_of(asked)[1]
    names = ", ".join(dict.fromkeys(file.label for file in asked.files))
    raise RequestError(
        f"nothing to draw: it needs features of one encoder before and after tuning, found "
        f"{counted(len(asked.files), 'file')} ({names}); `finetune --model M --data D` trains it, and "
        "`extract --model M --data D --weights RUN/TRIAL/encoder.safetensors` makes the second"
    )


def tuned_pairs(files: Sequence[Features]) -> list[Both]:
    """Each tuned encoder's file, with that of the same encoder before: all but its weights is the same.

    Where none is of ``finetune``, files of own weights count as tuned, and published ones as before.
    """
    tuned = [file for file in files if TUNED.search(str(file.notes.get("weights")))]
    tuned = tuned or [file for file in files if file.notes.get("own_weights")]
    return [
        Both(one, other, is_tuned=True)
        for one in files
        for other in tuned
        if one not in tuned and _but_weights(one) == _but_weights(other)
    ]


def _but_weights(file: Features) -> dict[str, Any]:
    """All that changes features, but for them; an encoder's name has a tag of published ones."""
    rest = {part: value for part, value in file.key.items() if part != "weights"}
    return rest | {"encoder": str(file.key.get("encoder")).partition(".")[0]}

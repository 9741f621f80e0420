"""From answers about images to answers about patients: the mean of their scores, of masks sums."""

from typing import NamedTuple

import numpy as np

from cache.errors import RequestError
from cache.task import MISSING
from probe.arrays import Array, Floats, Indices, Texts
from probe.metrics import overlap


class Scored(NamedTuple):
    """What metrics are computed of. n samples, or patients."""

    scores: Floats  # (n, C), of episodes (E, n, C); of masks 6 C
    labels: Array  # (n,) or (n, C)
    ids: Texts  # (n,)
    groups: Texts | None  # (n,) patients, where known; an empty text is nobody


def by_patient(scored: Scored, is_dense: bool = False) -> Scored:
    """One answer for each patient: the mean over the patient's samples.

    Of probabilities the mean is again one; of margins and of predictions in a unit, too. Of masks
    pixels add up, and distances are means: see ``overlap.together``. A sample of nobody is a patient
    of its own.

    Returns:
        In the order in which patients first occur. Their ids are patients' names, a sample's own
        where there is none, and no group is left. Of several labels each must agree where it is
        known.

    Raises:
        RequestError: patients are unknown, or a patient's samples have different labels.
    """
    if not len(scored.ids):
        return scored
    if scored.groups is None:
        raise RequestError(
            "--aggregate patient needs to know the patients, and these features don't: name their "
            "column with `extract --group-col`"
        )
    alone = scored.groups == ""
    # Prefixed, as an id may equal the name of a patient.
    units = np.where(alone, np.char.add("id ", scored.ids), np.char.add("of ", scored.groups))
    _, first, patient = np.unique(units, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.intp)
    place[np.argsort(first)] = np.arange(len(first))
    patient, first = place[patient], np.sort(first)
    names = np.where(alone, scored.ids, scored.groups)[first]
    if is_dense:
        members = [np.flatnonzero(patient == number) for number in range(len(first))]
        labels = np.stack([scored.labels[each].sum(axis=0) for each in members])
        parts = np.moveaxis(overlap.shaped(scored.scores), -3, 0)  # (n, 6, C) or (n, E, 6, C)
        sums = np.stack([overlap.together(parts[each]) for each in members], axis=-3)
        return Scored(sums.reshape(*sums.shape[:-2], -1), labels, names, None)
    labels = _agreed(scored, patient, first)
    by_sample = np.moveaxis(scored.scores, -2, 0)  # (n, C) or (n, E, C)
    sums = np.zeros((len(first), *by_sample.shape[1:]))
    np.add.at(sums, patient, by_sample)
    means = np.moveaxis(sums, 0, -1) / np.bincount(patient)
    return Scored(np.moveaxis(means, -1, -2), labels, names, None)


def _agreed(scored: Scored, patient: Indices, first: Indices) -> Array:
    """Each patient's label: that of all of the patient's samples.

    Raises:
        RequestError: they differ.
    """
    labels = scored.labels
    agreed = labels[first]
    if labels.ndim == 2:
        # MISSING is below every label: the largest is one that is known, where any is.
        np.maximum.at(agreed, patient, labels)
    differs = labels != agreed[patient]
    if labels.ndim == 2:
        differs = (differs & (labels != MISSING)).any(axis=1)
    if differs.any():
        name = str(scored.groups[int(np.argmax(differs))]) if scored.groups is not None else ""
        n = len(np.unique(patient[differs]))
        raise RequestError(
            f"--aggregate patient needs one label for all samples of a patient; {n:_} of "
            f"{len(first):_} patients have several, {name!r} for one. Give each one label with "
            "--labels FILE, or leave the flag out: intervals then leave out whole patients"
        )
    return agreed

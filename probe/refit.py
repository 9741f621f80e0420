"""A row's probe fitted again, where the row keeps no weights: on the features that it names.

It must give the scores that stand beside the row, or it isn't that probe.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.catalogue import list_files
from cache.errors import CacheError, RequestError
from cache.features import Features, open_features
from cache.format.key import PARTIAL
from cache.format.read import read_header
from cache.splits.rules import SplitRule
from cache.task import ASKED, ORDINAL, REGRESSION, Task
from probe.arrays import Doubles, Floats
from probe.kinds.knn import Knn
from probe.kinds.linear import Linear
from probe.kinds.ridge import Ridge
from probe.metrics.patients import Scored, by_patient
from probe.places import Place, places_in, read_side_by_side
from probe.questions.external import only_test
from probe.questions.laying import lay_over
from probe.questions.overlay import META, OverlayConfig
from probe.questions.question import Question, Split, divide, join
from probe.results import read_scores
from probe.solvers.head import Head

NEAR = 1e-6  # of a score
KEPT = ("adamw", "heads")  # kinds that aren't fitted again: it takes long
OLDER = "ask the probe anew, for rows keep their weights since row_version 3"
LATER = "ask the probe anew with --keep-heads, or see in its marks why none are kept"


@dataclass(frozen=True)
class Voter:
    """A kNN probe as a classifier."""

    kind: Knn
    k: int
    bank: Split
    task: Task
    places: tuple[Place, ...] = ()
    aggregate: str = "mean"

    def scores(self, features: Floats) -> Doubles:
        """(Q, D) features at ``places`` -> (Q, C) scores, of numbers (Q, 1)."""
        return self.kind.ask(self.bank, features, self.task)[self.k]


Classifier = Head | Voter


def fit_again(path: Path, row: Mapping[str, Any], ask: Callable[[], Question]) -> Classifier:
    """The probe of a row, from what it learnt from.

    Args:
        path: of the row.
        row: as ``probe.results.read_row`` gave it.
        ask: finds the row's question, of the features that it names; see ``question_of``.

    Raises:
        RequestError: a kind whose fit isn't repeated, or a fit that gives other scores than were
            stored.
        BrokenCache: the features are damaged.
    """
    probe, name = row["probe"], path.stem
    refuse_many(row, name)
    if probe["kind"] not in FITTED:
        cure = f"name a row of {', '.join((*FITTED, *KEPT))}"
        if probe["kind"] in KEPT:
            cure = LATER if row["row_version"] >= 3 else OLDER
        raise RequestError(f"{name} is of kind {probe['kind']} and keeps no weights; {cure}")
    try:
        places = places_in(probe)
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"{name} doesn't say where it took features; ask it anew") from error
    if "parts" in probe or any(place.file for place in places):
        raise RequestError(
            f"{name} saw several places side by side, and isn't fitted again; {LATER}"
        )
    question, aggregate = ask(), probe.get("aggregate", "mean")
    splits = divide(question, lambda one: read_side_by_side(places, one.files, aggregate))
    train = splits["train"]
    if probe.get("refit") == "train+val":
        train = join(train, splits["val"])
    fitted = FITTED[probe["kind"]](row, train, question.task)
    # Of folds the stored val is of other fits.
    answered = ["test"] if "folds" in probe or "refit" in probe else ["val", "test"]
    _compare(path, row, {word: splits[word] for word in answered}, fitted)
    return dataclasses.replace(fitted, places=places, aggregate=aggregate)


def refuse_many(row: Mapping[str, Any], name: str) -> None:
    """Refuse a row that no one model is of, or one whose model nothing is told of.

    Raises:
        RequestError: it is of few-shot episodes, or didn't read test.
    """
    if "test" not in row["probe"].get("read", ["test"]):
        raise RequestError(
            f"{name} compares layers or pools and didn't read test; name a row of one, or one that "
            "was asked with --all-test"
        )
    if "few_shot" in row["probe"]:
        raise RequestError(
            f"{name} learnt from episodes, each its own head; name a row of all of train"
        )


def _linear(row: Mapping[str, Any], train: Split, task: Task) -> Head:
    probe = row["probe"]
    names = ("form", "tolerance", "max_iter", "max_products")
    rest = {name: probe[name] for name in names if name in probe}
    # All of them: each strength starts where the one before ended.
    kind = Linear(strengths=tuple(probe["strengths"]), **rest)
    fitted = kind.fit(train, task)
    place = [fit.strength for fit in fitted.fits].index(row["chosen"]["strength"])
    return kind.head(fitted, place, task)


def _ridge(row: Mapping[str, Any], train: Split, task: Task) -> Head:
    kind = Ridge(penalties=(row["chosen"]["penalty"],))
    return kind.head(kind.fit(train, task), 0, task)


def _knn(row: Mapping[str, Any], train: Split, task: Task) -> Voter:
    probe = row["probe"]
    k = probe["k"] if "k" in probe else row["chosen"]["k"]
    widest = probe.get("cut_off_from")
    names = ("metric", "vote", "temperature", "self_counts")
    settings = {name: probe[name] for name in names if name in probe}
    ks = tuple(sorted({k, widest or k}))
    return Voter(Knn(k=ks, cut_off=widest is not None, **settings), k, train, task)


FITTED: Mapping[str, Callable[[Mapping[str, Any], Split, Task], Classifier]] = {
    "linear": _linear,
    "ridge": _ridge,
    "knn": _knn,
}


def _compare(
    path: Path, row: Mapping[str, Any], splits: Mapping[str, Split], fitted: Classifier
) -> None:
    """Refuse a fit that gives other scores than stand beside the row."""
    name, n_compared = path.stem, 0
    try:
        stored = read_scores(path, row)
    except (OSError, ValueError) as error:
        raise RequestError(
            f"the scores of {name} can't be read ({error}); ask the probe anew"
        ) from error
    for split, own in splits.items():
        wanted = stored.get(f"{split}_scores", np.empty(0))
        if not len(wanted):  # not read: layers were compared
            continue
        found = Scored(fitted.scores(own.x), own.y, own.ids, own.groups)
        found = by_patient(found) if row["probe"].get("scores_of") == "patients" else found
        if not np.array_equal(found.ids, stored[f"{split}_ids"]):
            raise RequestError(f"{name} scored other {split} samples than there are now")
        apart = float(np.abs(found.scores - wanted).max())
        if not apart <= NEAR * max(1, float(np.abs(wanted).max())):  # a NaN is no answer
            raise RequestError(
                f"fitted again, {name} gives other scores on {split}, {apart:.2g} apart; "
                "libraries or the device are others than then, so ask the probe anew"
            )
        n_compared += len(wanted)
    if not n_compared:
        raise RequestError(f"{name} has no scores to compare with; it didn't read test")


# ---------------------------------------------------------------------------- what was asked


def find_by_digest(digest: str, folder: Path) -> Features | None:
    """The complete feature file of a key, by its digest; None where there is none."""
    for path in list_files(folder):
        with contextlib.suppress(CacheError, OSError):  # another file's trouble
            if not path.name.endswith(PARTIAL) and read_header(path).digest == digest:
                return open_features(path)
    return None


def features_of(name: str, digest: str, folder: Path) -> Features:
    """What a row learnt from.

    Args:
        name: of the row, for messages.
        digest: of the features' key.
        folder: where they are looked for.

    Raises:
        RequestError: they aren't there.
    """
    if not (features := find_by_digest(digest, folder)):
        raise RequestError(
            f"the features of {name} aren't in {folder}, and its weights are fitted on them "
            "again; name their folder with --features DIR, or extract them"
        )
    return features


def question_of(row: Mapping[str, Any], folder: Path, name: str, laid: OverlayConfig) -> Question:
    """A row's question, of the feature files that it names.

    Args:
        row: as ``probe.results.read_row`` gave it.
        folder: where the features are looked for.
        name: of the row, for messages.
        laid: tables of labels and of a split, which a row names and doesn't hold.

    Raises:
        RequestError: they aren't there, or their labels and split aren't the row's.
    """
    own, train = row["features"], row["trained_on"]
    of_test = dataclasses.replace(laid, split_file=None) if train else laid
    test = _lay_again(row, own["digest"], {} if train else row["split"], folder, name, of_test)
    if train:
        learnt = _lay_again(train, train["digest"], train.get("split", {}), folder, name, laid)
        question = only_test(test, learnt, row["split"]["rule"].partition(":")[2])
    else:
        question = test
    samples = {what: own["samples"].get(what) for what in question.samples}
    if question.samples != samples or question.task.word != own["task"]:
        raise RequestError(
            f"{name} is of other labels or another split than its features, or these tables, have; "
            "read the tables as they were read then (--task, --positive, --missing), or ask the probe "
            "anew"
        )
    return question


def _lay_again(
    said: Mapping[str, Any],
    digest: str,
    split: Mapping[str, Any],
    folder: Path,
    name: str,
    laid: OverlayConfig,
) -> Question:
    """A file's samples with the labels and split that a row says of it."""
    features = features_of(name, digest, folder)
    target = said.get("target", {})
    is_of_file = split.get("rule") == "file"
    for flag, table, of in (
        ("--labels", laid.labels, target.get("file")),
        ("--split-file", laid.split_file, split.get("file") if is_of_file else None),
    ):
        if of and not table:
            raise RequestError(f"{name} is of {of}; name that table with {flag}")
        if table and not of:
            raise RequestError(f"{name} is of no table that {flag} could name; leave it out")
    words = {word: text for text, word in ASKED.items()}
    is_meta = str(target.get("target", "")).startswith(META)
    is_asked = is_meta or target.get("task") in (ORDINAL, REGRESSION)  # never inferred
    config = dataclasses.replace(
        laid,
        target=target.get("target"),
        uncertain=target.get("uncertain"),
        task=laid.task or (words[target["task"]] if is_asked else None),
        split=SplitRule.parse(split["rule"]) if split and not is_of_file else None,
        split_seed=split.get("seed", 0),
    )
    asked = {question.name: question for question in lay_over(config, features)}
    if split.get("name", "") not in asked:
        raise RequestError(
            f"{name} is of {split['name']}, which its features no longer have; {OLDER}"
        )
    return asked[split.get("name", "")]

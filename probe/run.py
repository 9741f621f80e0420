"""Stage two: ask one question of feature files, and keep the answers as rows."""

import contextlib
import dataclasses
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.catalogue import Wish, find_features
from cache.commands.names import format_bytes
from cache.errors import CacheError, RequestError
from cache.features import Features, open_features
from probe.answer import Answer
from probe.choosing.place import Best, Compared
from probe.choosing.plan import N_FOLDS
from probe.config import ProbeConfig
from probe.encoded import encoded_of
from probe.kinds.controls import KIND as CONTROL
from probe.kinds.controls import advise_random, ask_controls, encoded_control, find_random
from probe.kinds.few_shot import ask_episodes
from probe.kinds.head_answers import DivergedError, ask_adamw_at_once
from probe.kinds.kind import ask_kind, check_kind, check_known
from probe.kinds.knn import KnnConfig
from probe.places import (
    AUTO,
    Place,
    default_pool,
    find_places,
    lacking_pools,
    last_place,
    read_place,
    rows_are_samples,
)
from probe.questions.describe import describe_questions
from probe.questions.external import choose_training, only_test
from probe.questions.leaks import refuse_leaks, with_leaks
from probe.questions.question import Asked, lay_over
from probe.questions.samples import Split, divide_samples, pick
from probe.results import Row, check_folder, write_row
from probe.row import make_row, of_patients, version_of
from probe.solvers.epochs import MAX_BYTES
from probe.solvers.faiss_library import faiss_versions
from probe.solvers.neighbours import bytes_held

Problem = tuple[str, str]  # what couldn't be done, and why
TOLD_BYTES = 10**9  # of memory that a search takes; less is not worth a line


def choose_files(config: ProbeConfig) -> tuple[list[Features], list[Problem]]:
    """The feature files that the settings name, and what can't be had.

    Raises:
        CacheError: none can be had.
        RequestError: several keys fit one request.
    """
    if config.files:
        found, problems = [], []
        for path in {os.path.realpath(path): path for path in config.files}.values():
            try:
                found.append(_open_images(path))
            except (CacheError, RequestError, OSError) as error:
                problems.append((path.name, str(error)))
        if not found:
            raise CacheError("; ".join(why for _, why in problems))
        return found, problems
    wish = Wish(config.models, config.sizes, config.data, dict(config.where))
    found, troubles = find_features(config.features_dir, wish)
    return found, [("features", trouble) for trouble in troubles]


def _open_images(path: Path) -> Features:
    features = open_features(path)
    if features.is_text:
        raise RequestError(f"{path} holds text features; use --kind zeroshot with the image file")
    return features


def run_probe(
    config: ProbeConfig, found: list[Features], say: Callable[[str], None]
) -> tuple[list[Row], list[Problem]]:
    """Ask every file; what doesn't fit is noted and the others go on.

    Args:
        config: the question.
        found: the files.
        say: told a line about each data set.

    Returns:
        The rows, already written, and what couldn't be done.

    Raises:
        RequestError: the folder of results can't be written, or ids of --labels, --split-file or
            --episodes-file are ids of several data sets.
    """
    by_ids = config.overlay.split_file or (config.few_shot and config.few_shot.file)
    if config.overlay.labels or (by_ids and not config.train_data):
        _refuse_shared_ids(found)
    check_folder(config.results_dir)
    rows: list[Row] = []
    problems: list[Problem] = []
    told: set[str] = set()
    alike = Counter(map(_named, found))
    asked_of: dict[str, list[Asked]] = {}  # data set -> questions, for the controls
    for features in _with_random(config, found, say) if config.controls else found:
        try:
            questions = make_questions(config, features)
            for line in [*describe_questions(questions), *describe_lacking(config, features)]:
                if line not in told:  # twice for one data set: its labels or splits were changed
                    say(line)
                    told.add(line)
            search = None if config.few_shot else config.knn  # the bank of an episode is small
            if search and (line := _memory_words(search, features, questions)):
                say(line)
            questions = count_all(config, questions, say)
            for row in ask_all(config, features, questions):
                if alike[_named(features)] > 1:
                    row = dataclasses.replace(row, marks=(*row.marks, str(features.path)))
                write_row(config.results_dir, row, config.name)
                rows.append(row)
            asked_of.setdefault(features.dataset, questions)
        except BrokenPipeError:  # of say: nobody listens any more
            raise
        except (CacheError, RequestError, OSError) as error:
            problems.append((f"{features.label} on {features.dataset}", str(error)))
    for dataset, questions in asked_of.items() if config.controls else ():
        try:
            for row in control_rows(config, questions):
                write_row(config.results_dir, row, config.name)
                rows.append(row)
        except (CacheError, RequestError, OSError) as error:
            problems.append((f"controls on {dataset}", str(error)))
    return rows, problems


def _memory_words(config: KnnConfig, features: Features, questions: list[Asked]) -> str:
    """What the largest search will hold in memory, where a machine may not have that."""
    stored = [e for e in features.header.arrays.values() if e.dtype.kind == "f"]
    widest, held = max(stored, key=lambda extent: extent.row_bytes), 0
    for asked in questions:
        n_bank = int(
            sum((asked.trained_on or asked).is_in(name).sum() for name in ("train", "val"))
        )
        n_queries = int(sum(asked.is_in(name).sum() for name in ("val", "test")))
        searched = bytes_held(n_bank, n_queries, widest.shape[1], max(config.k))
        held = max(held, searched + (n_bank + n_queries) * widest.row_bytes)
    if held < TOLD_BYTES:
        return ""
    return f"kNN on {features.dataset} will hold about {format_bytes(held)} in memory"


def _with_random(
    config: ProbeConfig, found: list[Features], say: Callable[[str], None]
) -> Iterator[Features]:
    """The files, each followed by that of the same architecture with random weights, once."""
    there = {os.path.realpath(features.path) for features in found}
    for features in found:
        yield features
        if features.notes.get("random_weights"):
            continue
        other = find_random(features, config.features_dir)
        if other is None:
            say(advise_random(features, config.features_dir))
        elif (
            os.path.realpath(other.path) not in there
        ):  # by path, or of another encoder that is built alike
            there.add(os.path.realpath(other.path))
            yield other


def control_rows(config: ProbeConfig, questions: list[Asked]) -> Iterator[Row]:
    """The rows of the controls that need no encoder, for each question.

    Raises:
        CacheError, RequestError: what can't be answered; after the rows of what can.
    """
    config = dataclasses.replace(config, protocol=None)
    for asked in questions:
        started = time.perf_counter()
        one_to_one = rows_are_samples(asked.features)
        for control, splits, answer in ask_controls(config, asked):
            probe = {
                "kind": CONTROL,
                "control": control,
                **({} if one_to_one else {"aggregate": config.aggregate}),
                **of_patients(config.measuring, asked, config.reads_test),
                **answer.settings,
                "read": read_splits(config),
                "n_resamples": config.n_resamples,
            }
            answer = dataclasses.replace(answer, settings=probe)
            encoded = encoded_control(asked, control)
            yield make_row(
                asked,
                answer,
                encoded,
                config.measuring,
                splits,
                started,
                versions=libraries(config),
            )
            started = time.perf_counter()


def _refuse_shared_ids(found: Sequence[Features]) -> None:
    """Refuse to join a table by ids that mean other samples in another data set.

    MedMNIST's sets all begin with train/000000, and folders with 001.png.

    Raises:
        RequestError: two data sets have an id in common.
    """
    datasets: dict[str, set[str]] = {}
    for features in found:
        with contextlib.suppress(CacheError):  # it is refused when it is asked
            datasets.setdefault(features.dataset, set()).update(features.ids.tolist())
    for (a, ids), (b, others) in itertools.combinations(datasets.items(), 2):
        if shared := min(ids & others, default=None):
            raise RequestError(
                f"{a} and {b} both have an id {shared!r}, so no table can tell their samples "
                "apart; ask one data set alone, with --data"
            )


def _named(features: Features) -> tuple[str, str, int]:
    """What a row of the table names; files by path may share it, and say so in a mark."""
    return features.dataset, features.label, features.size


def probe_file(config: ProbeConfig, features: Features) -> Iterator[Row]:
    """The rows of one file, layer by layer.

    Raises:
        CacheError, RequestError: what can't be answered; after the rows of what can.
    """
    questions = count_all(config, make_questions(config, features))
    yield from ask_all(config, features, questions)


def make_questions(config: ProbeConfig, features: Features) -> list[Asked]:
    """The labels and splits to ask a file with: one, or one for each fold or site.

    Raises:
        CacheError: there are no features of the training data.
        RequestError: labels or a split that can't be laid over the file, or training features that
            don't fit it.
    """
    if not config.train_data:
        return lay_over(config.overlay, features)
    # Of the data to test on nothing is divided: it is its test split, or all of it.
    undivided = dataclasses.replace(config.overlay, split=None, split_file=None)
    training = choose_training(config, features)
    if config.overlay.labels:
        _refuse_shared_ids([features, training])
    (test,) = lay_over(undivided, features)
    (train,) = lay_over(config.overlay, training)
    return [only_test(test, train, config.test_split)]


def count_all(
    config: ProbeConfig, questions: list[Asked], say: Callable[[str], None] = lambda line: None
) -> list[Asked]:
    """The questions, with what their splits share counted.

    Raises:
        RequestError: they share something that ``strict`` refuses.
        BrokenCache: a file is damaged.
    """
    # Where nothing is fitted or chosen, nothing can leak.
    read = ["test"] if config.kind == "zeroshot" else read_splits(config)
    counted = [with_leaks(asked, read, say) for asked in questions]
    if config.strict:
        for asked in counted:
            refuse_leaks(asked)
    return counted


def ask_all(config: ProbeConfig, features: Features, questions: list[Asked]) -> Iterator[Row]:
    """The rows of one file, layer by layer, and of each layer every question.

    Raises:
        CacheError, RequestError: what can't be answered; after the rows of what can.
    """
    for asked in questions:
        check_kind(config.kind, asked)
    if config.kind == "zeroshot" and "proj" not in features.pools:
        raise RequestError(
            f"{features.path.name} has no proj, only {', '.join(features.pools)}: {features.encoder} "
            "has no projection into a space that it shares with texts, as CLIP-like encoders have"
        )
    config = name_pools(config, features)
    places = find_places(features, config.layer, _pools(config), config.reading)
    if config.layer == AUTO:
        rows = ask_best(config, features, questions, places)
    elif config.kind == "adamw" and not config.few_shot:
        rows = ask_together(config, features, questions, places)
    else:
        rows = ask_each(config, features, questions, places)
    answered = set()
    for row in rows:
        answered.add(row.answered.settings.get("k"))
        yield row
    if config.knn:
        n_train = min(int((asked.trained_on or asked).is_in("train").sum()) for asked in questions)
        large = [str(k) for k in config.knn.k if k + config.knn.n_needed > n_train]
        # Of a list that one is chosen of, the row names those that were compared.
        if large and not (config.knn.one_k and len(large) < len(config.knn.k)):
            raise RequestError(f"{n_train} training images are too few for k = {', '.join(large)}")
        in_folds = [str(k) for k in config.knn.k if k not in answered]
        if in_folds and not (config.knn.one_k or config.few_shot):
            raise RequestError(
                f"without one of {N_FOLDS} folds too few images are left for k = "
                f"{', '.join(in_folds)}; --choose val compares on val"
            )


def ask_each(
    config: ProbeConfig, features: Features, questions: list[Asked], places: list[Place]
) -> Iterator[Row]:
    """The rows of one place after the other, each matrix read once."""
    for place in places:
        started = time.perf_counter()
        x = read_place(features, place, config.aggregate)
        for asked in questions:
            splits = _divide(config, asked, x, place, config.reads_test)
            yield from ask_one(config, asked, splits, place, started)
            started = time.perf_counter()


def ask_together(
    config: ProbeConfig, features: Features, questions: list[Asked], places: list[Place]
) -> Iterator[Row]:
    """The rows of places whose heads are trained in one loop, as many as memory allows.

    Raises:
        CacheError, RequestError: what can't be answered. Heads that diverged are named after the
            rows of all the others.
    """
    started = time.perf_counter()
    diverged: list[str] = []
    cure = ""
    held: list[tuple[Place, NDArray[np.floating]]] = []
    for number, place in enumerate(places, start=1):
        held.append((place, read_place(features, place, config.aggregate)))
        # In training they are float32.
        if number < len(places) and 4 * sum(x.size for _, x in held) < MAX_BYTES:
            continue
        for asked in questions:
            splits = [_divide(config, asked, x, at, config.reads_test) for at, x in held]
            answers = ask_adamw_at_once(config, asked, splits)
            for (at, _), own, found in zip(held, splits, answers, strict=True):
                try:
                    yield from ask_one(config, asked, own, at, started, answers=found)
                except DivergedError as error:
                    which = f"{asked.name}, {at}" if asked.name else f"{at}"
                    diverged.append(f"{which} ({error.seeds})")
                    cure = error.cure
                started = time.perf_counter()
        held.clear()
    if diverged:
        raise RequestError(f"training diverged at {'; '.join(diverged)}; {cure}")


def ask_best(
    config: ProbeConfig, features: Features, questions: list[Asked], places: list[Place]
) -> Iterator[Row]:
    """The rows of the last layer, and of the place that is best without test.

    Test is read for these two alone.

    Raises:
        CacheError, RequestError: what can't be answered; or a place has no answer, so that none can
            be chosen.
    """
    compared = [Compared(places) for _ in questions]
    for place in places:
        x = read_place(features, place, config.aggregate)
        for asked, found in zip(questions, compared, strict=True):
            splits = _divide(config, asked, x, place, with_test=False)
            try:
                found.add(asked, splits, ask_kind(config, asked, splits))
            except DivergedError as error:
                raise RequestError(
                    f"no layer can be chosen, for at {place} {error}, or name one --layer"
                ) from None
    last = last_place(features, config.pools, config.reading)
    for asked, found in zip(questions, compared, strict=True):
        started = time.perf_counter()
        splits = _divide(config, asked, read_place(features, last, config.aggregate), last)
        yield from ask_one(config, asked, splits, last, started)
        for number, best in enumerate(found.choose(first=last)):
            started = time.perf_counter()
            x = read_place(features, best.place, config.aggregate)
            splits = _divide(config, asked, x, best.place)
            yield from ask_one(config, asked, splits, best.place, started, best, number)


def name_pools(config: ProbeConfig, features: Features) -> ProbeConfig:
    """The same, whose protocol says which pools a user has it read that the paper doesn't."""
    if not config.protocol or not config.pools:
        return config
    usual = default_pool(features, -1, config.reading)
    if config.pools == (usual,) and not (config.kind == "heads" and usual == "cls"):
        return config  # of the grid, one pool is a part
    changed = config.protocol.but(f"pool {'/'.join(config.pools)}")
    return dataclasses.replace(config, protocol=changed)


def _pools(config: ProbeConfig) -> tuple[str, ...]:
    return ("proj",) if config.kind == "zeroshot" else config.pools


def _divide(
    config: ProbeConfig,
    asked: Asked,
    x: NDArray[np.floating],
    place: Place,
    with_test: bool = True,
) -> dict[str, Split]:
    """Train and val of what is fitted on, test of what is asked; what isn't read is empty.

    Raises:
        RequestError: a split that is needed has no images, or no labels.
    """
    fitted_on = asked.trained_on or asked
    splits = divide_samples(x, asked)
    if asked.trained_on:
        own = read_place(fitted_on.features, place, config.aggregate)
        splits = {**divide_samples(own, fitted_on), "test": splits["test"]}
    if config.kind != "zeroshot":
        if not len(splits["train"]):
            raise RequestError(f"{fitted_on.title} has no training images")
        check_known(fitted_on, splits["train"])
    if not with_test:
        return {**splits, "test": _empty(splits["test"])}
    if not len(splits["test"]):
        raise RequestError(f"{asked.title} has no test images")
    return splits


def read_splits(config: ProbeConfig) -> list[str]:
    """The splits that are read, by word."""
    reads = {
        "train": config.kind != "zeroshot",
        "val": not config.few_shot or config.few_shot.chosen_on == "val",
        "test": config.reads_test,
    }
    return [name for name, is_read in reads.items() if is_read]


def ask_one(
    config: ProbeConfig,
    asked: Asked,
    splits: dict[str, Split],
    place: Place,
    started: float,
    best: Best | None = None,
    only: int | None = None,
    answers: Iterator[Answer] | None = None,
) -> Iterator[Row]:
    """The rows of one place and question: one for each k or training seed, else one.

    Args:
        config: the question.
        asked: labels and splits.
        splits: what ``_divide`` makes of them.
        place: where the features are from.
        started: when their reading began.
        best: why this place, where it was chosen.
        only: of several answers the number of the one that it was chosen for.
        answers: what the kind answers, where that is known already.
    """
    one_to_one = rows_are_samples(asked.features)
    ask = ask_episodes if config.few_shot else ask_kind
    answers = answers or ask(config, asked, splits)
    for number, answer in enumerate(answers):
        if only not in (None, number):
            continue
        if best:
            answer = dataclasses.replace(
                answer,
                settings={**answer.settings, "place_chosen": best.settings},
                chosen={**answer.chosen, "place": best.said},
                marks=[*answer.marks, best.mark],
            )
        probe = {
            "kind": config.kind,
            **place.settings,
            **({} if one_to_one else {"aggregate": config.aggregate}),
            **of_patients(config.measuring, asked, config.reads_test),
            **answer.settings,
            "read": read_splits(config),
            "n_resamples": config.n_resamples,
        }
        yield make_row(
            asked,
            dataclasses.replace(answer, settings=probe),
            encoded_of(asked, config.protocol),
            config.measuring,
            splits,
            started,
            protocol=config.protocol,
            versions=libraries(config),
        )
        started = time.perf_counter()


def libraries(config: ProbeConfig) -> dict[str, str]:
    """Versions of what a kind computes with, beside numpy."""
    found = (
        {"scikit-learn": version_of("scikit-learn")} if config.kind.startswith("sklearn.") else {}
    )
    return found | (faiss_versions() if config.kind == "knn" else {})


def _empty(split: Split) -> Split:
    return pick(split, np.zeros(len(split), bool))


def describe_lacking(config: ProbeConfig, features: Features) -> list[str]:
    """A line on pools that an encoder hasn't, where it has others that are asked for.

    Raises:
        RequestError: the file doesn't hold the layer.
    """
    lacking = lacking_pools(features, config.layer, config.pools)
    asked = [pool for pool in config.pools if pool not in lacking]
    if not (lacking and asked):
        return []
    return [f"{features.model} has no {', '.join(lacking)} there: asked is {', '.join(asked)}"]

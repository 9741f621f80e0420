"""Stage two: ask one question of feature files, and keep the answers as rows."""

import contextlib
import dataclasses
import importlib.metadata
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.catalogue import Wish, find_features
from cache.errors import CacheError, RequestError
from cache.features import Features, open_features
from cache.labels import REGRESSION
from cache.layout import SPLITS
from cache.splits import LEFT_OUT
from probe import metrics
from probe.answers import ASK, check_kind, check_known
from probe.config import ProbeConfig
from probe.external import choose_training, only_test
from probe.features import (
    Split,
    default_pool,
    divide_samples,
    read_samples,
    rows_are_samples,
)
from probe.measure import measure
from probe.overlay import Asked, lay_over
from probe.results import Row, check_folder, write_row
from probe.twins import refuse_leaks, with_leaks, without_twins

LISTED = 14  # classes in a line; ChestMNIST has so many
Problem = tuple[str, str]  # what couldn't be done, and why
N_TOLD = 10  # folds or sites whose shares are told


def choose_files(config: ProbeConfig) -> tuple[list[Features], list[Problem]]:
    """The feature files that the settings name, and what can't be had.

    Raises:
        CacheError: none can be had.
        RequestError: several keys fit one request.
    """
    if config.files:
        found, problems = [], []
        for path in {path.resolve(): path for path in config.files}.values():
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
        RequestError: the folder of results can't be written, or ids of --labels or --split-file
            are ids of several data sets.
    """
    if config.overlay.labels or (config.overlay.split_file and not config.train_data):
        _refuse_shared_ids(found)
    check_folder(config.results_dir)
    rows: list[Row] = []
    problems: list[Problem] = []
    told: set[str] = set()
    alike = Counter(map(_named, found))
    for features in found:
        try:
            questions = make_questions(config, features)
            for line in describe_questions(questions):
                if line not in told:  # twice for one data set: its labels or splits were changed
                    say(line)
                    told.add(line)
            questions = count_all(config, questions, say)
            for row in ask_all(config, features, questions):
                if alike[_named(features)] > 1:
                    row = dataclasses.replace(row, marks=(*row.marks, str(features.path)))
                write_row(config.results_dir, row, config.name)
                rows.append(row)
        except BrokenPipeError:  # of say: nobody listens any more
            raise
        except (CacheError, RequestError, OSError) as error:
            problems.append((f"{features.model} on {features.dataset}", str(error)))
    return rows, problems


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
    return features.dataset, features.model, features.size


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
    if config.layer is None:
        layers = sorted(features.layers) or [features.last_layer]
    else:
        layers = [features.find_layer(config.layer)]
    for layer in layers:
        pool = config.pool or (
            "proj" if config.kind == "zeroshot" else default_pool(features, layer)
        )
        started = time.perf_counter()
        x = read_samples(features, layer, pool, config.aggregate)
        for asked in questions:
            splits = _divide(config, asked, x, layer, pool)
            yield from ask_one(config, asked, splits, layer, pool, started)
            started = time.perf_counter()
    if config.knn:
        n_train = min(int((asked.trained_on or asked).is_in("train").sum()) for asked in questions)
        if large := [str(k) for k in config.knn.k if k > n_train]:
            raise RequestError(f"{n_train} training images are too few for k = {', '.join(large)}")


def _divide(
    config: ProbeConfig, asked: Asked, x: NDArray[np.floating], layer: int, pool: str
) -> dict[str, Split]:
    """Train and val of what is fitted on, test of what is asked; what isn't read is empty.

    Raises:
        RequestError: a split that is needed has no images, or no labels.
    """
    fitted_on = asked.trained_on or asked
    splits = divide_samples(x, asked)
    if asked.trained_on:
        own = read_samples(fitted_on.features, layer, pool, config.aggregate)
        splits = {**divide_samples(own, fitted_on), "test": splits["test"]}
    if config.kind != "zeroshot":
        if not len(splits["train"]):
            raise RequestError(f"{fitted_on.title} has no training images")
        check_known(fitted_on, splits["train"])
    if reads_test(config):
        if not len(splits["test"]):
            raise RequestError(f"{asked.title} has no test images")
        return splits
    if not len(splits["val"]):
        raise RequestError(
            f"{fitted_on.title} has no val images to compare layers on; name one layer"
        )
    return {**splits, "test": _empty(splits["test"])}


def reads_test(config: ProbeConfig) -> bool:
    """Whether test is read: not while layers are compared, unless asked for."""
    return config.layer is not None or config.all_test


def read_splits(config: ProbeConfig) -> list[str]:
    """The splits that are read, by word."""
    reads = {"train": config.kind != "zeroshot", "val": True, "test": reads_test(config)}
    return [name for name, is_read in reads.items() if is_read]


def ask_one(
    config: ProbeConfig,
    asked: Asked,
    splits: dict[str, Split],
    layer: int,
    pool: str,
    started: float,
) -> Iterator[Row]:
    """The rows of one layer and question: one for each k, else one."""
    one_to_one = rows_are_samples(asked.features)
    for settings, chosen, scores, marks in ASK[config.kind](config, asked, splits):
        probe = {
            "kind": config.kind,
            "layer": layer,
            "pool": pool,
            **({} if one_to_one else {"aggregate": config.aggregate}),
            **settings,
            "read": read_splits(config),
            "n_resamples": config.n_resamples,
        }
        yield make_row(config, asked, splits, probe, chosen, scores, marks, started)
        started = time.perf_counter()


def _empty(split: Split) -> Split:
    return Split(split.x[:0], split.y[:0], split.ids[:0])


def make_row(
    config: ProbeConfig,
    asked: Asked,
    splits: dict[str, Split],
    probe: dict[str, Any],
    chosen: dict[str, Any],
    scores: dict[str, NDArray[np.float64]],
    marks: list[str],
    started: float,
) -> Row:
    """Score the answer and put it into a row."""
    features, task = asked.features, asked.task
    labels = {name: splits[name].y for name in scores}
    resampling = config.n_resamples, config.seed
    measured = measure(scores, labels, task, asked.class_names, *resampling)
    marks = [*asked.marks, *marks, *measured.marks]
    notes = features.notes
    # Files from before these notes: nobody knows, and the images were prepared the usual way.
    seen, protocol = str(notes.get("seen") or "unknown"), str(notes.get("protocol") or "")
    if seen.startswith("yes"):
        how = seen.removeprefix("yes").lstrip(":, ")
        marks = [*marks, "the encoder saw these images in pretraining" + (how and f": {how}")]
    if protocol:
        marks = [*marks, f"preprocessed as {protocol}"]
    if notes.get("random_weights"):
        marks = [*marks, "random weights"]
    if notes.get("own_weights"):
        marks = [*marks, f"weights from {notes.get('weights') or 'a file'}"]
    if notes.get("raw_layers"):
        marks = [*marks, "layers without a norm rule"]
    return Row(
        features={
            "model": features.model,
            "encoder": features.encoder,
            "size": features.size,
            "dataset": features.dataset,
            "task": task,
            "digest": features.digest,
            "key": features.key,
            # Checksums, or digests of what lies over them: other labels or splits are another
            # question of the same features.
            "samples": _samples(asked),
        },
        probe=probe,
        seed=config.seed,
        metrics=measured.test,
        val_metrics=measured.val,
        n={name: len(split) for name, split in splits.items()},
        seconds=round(time.perf_counter() - started, 4),
        versions=_versions(),
        marks=tuple(marks),
        seen=seen,
        target=asked.target,
        split=asked.division,
        trained_on=_trained_on(asked.trained_on),
        leaks=None if asked.leaks is None else asked.leaks.summary(),
        without_twins=without_twins(asked, splits["test"], scores["test"]),
        protocol=protocol,
        chosen=chosen,
        scores={
            # Probabilities; predictions in a unit of the user's keep every digit.
            **{
                f"{name}_scores": s if task == REGRESSION else s.astype(np.float32)
                for name, s in scores.items()
            },
            **{f"{name}_labels": y for name, y in labels.items()},
            **{f"{name}_ids": splits[name].ids for name in scores},
            "class_names": np.array(asked.class_names),
        },
    )


def _samples(asked: Asked) -> dict[str, int | str]:
    """What makes labels and split another question, and which rows make a sample."""
    tables = asked.features.header.tables
    rows = {} if rows_are_samples(asked.features) else {"rows": tables["rows/sample"]}
    return {**asked.samples, **rows}


def _trained_on(train: Asked | None) -> dict[str, Any]:
    if train is None:
        return {}
    samples = {"samples": _samples(train), "target": train.target, "split": train.division}
    return {"dataset": train.dataset, "digest": train.features.digest, **samples}


def _versions() -> dict[str, str]:
    found = {}
    for name in ("medprobe", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def describe_questions(questions: Sequence[Asked]) -> list[str]:
    """The shares of every question's splits, of many folds those of the first.

    Raises:
        RequestError: labels that don't fit the task or the class names.
    """
    told = [asked for q in questions[:N_TOLD] for asked in (q.trained_on, q) if asked]
    more = len(questions) - N_TOLD
    return [*map(describe_shares, told), *([f"... and {more} more splits"] if more > 0 else [])]


def describe_shares(asked: Asked) -> str:
    """How many images of which class each split has: they differ a lot in some sets.

    Of continuous labels their mean and standard deviation.

    Raises:
        RequestError: labels that don't fit the task or the class names.
    """
    is_continuous, n_classes = asked.task == REGRESSION, len(asked.class_names)
    parts = []
    for name in SPLITS:
        labels = asked.labels[asked.is_in(name)]
        if not is_continuous:
            metrics.check_labels(labels, asked.task, n_classes)
        listed = _spread(labels) if is_continuous else _shares(labels, n_classes)
        is_told = name != "val" and len(labels)
        parts.append(f"{name} {len(labels):_}" + (f" ({listed})" if is_told else ""))
    if n_left_out := int((asked.split == LEFT_OUT).sum()):
        parts.append(f"{n_left_out:_} left out")
    names = [name if len(name) <= 24 else name[:22] + ".." for name in asked.class_names]
    what = "labels" if is_continuous else "classes"
    if len(names) > LISTED:
        names = [*names[:LISTED], f"... ({len(names)})"]
    return f"{asked.title}: {' · '.join(parts)} · {what}: {', '.join(names)}"


def _shares(labels: NDArray[np.integer], n_classes: int) -> str:
    """The share of each class, or of each label's ones among what is known; "?" where nothing is."""
    if labels.ndim == 2:
        shares = metrics.label_shares(labels)
    else:
        shares = np.bincount(labels, minlength=n_classes) / max(len(labels), 1)
    listed = ["?" if np.isnan(share) else f"{share:.0%}" for share in shares]
    return " ".join(listed[:LISTED] + (["..."] if len(listed) > LISTED else []))


def _spread(labels: NDArray[np.floating]) -> str:
    """Mean and standard deviation of continuous labels."""
    return f"{labels.mean():.4g} ± {labels.std():.4g}" if len(labels) else "none"

"""Stage two: ask one question of feature files, and keep the answers as rows."""

import dataclasses
import importlib.metadata
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.catalogue import Wish, find_features, find_text, text_differences
from cache.errors import CacheError, RequestError
from cache.features import Features, open_features
from cache.labels import REGRESSION
from cache.layout import SPLITS
from cache.splits import LEFT_OUT
from probe import knn, linear, metrics, ridge, zeroshot
from probe.config import ProbeConfig
from probe.external import choose_training, only_test
from probe.features import (
    Split,
    default_pool,
    divide_samples,
    read_prompts,
    read_samples,
    rows_are_samples,
)
from probe.measure import measure
from probe.overlay import Asked, lay_over
from probe.results import Row, check_folder, write_row
from probe.twins import leak_marks, refuse_leaks, with_leaks, without_twins

Problem = tuple[str, str]  # what couldn't be done, and why
LARGE_K = 0.1  # of the training set: a larger k asks most of the images, not the near ones


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
        RequestError: the folder of results can't be written.
    """
    check_folder(config.results_dir)
    rows: list[Row] = []
    problems: list[Problem] = []
    told: set[str] = set()
    alike = Counter(map(_named, found))
    for features in found:
        try:
            questions = make_questions(config, features)
            for asked in [x for q in questions for x in (q.trained_on, q) if x]:
                shares = describe_shares(asked)
                if shares not in told:  # twice for one data set: its labels or splits were changed
                    say(shares)
                    told.add(shares)
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
    (test,) = lay_over(undivided, features)
    (train,) = lay_over(config.overlay, choose_training(config, features))
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
    """The rows of one file, layer by layer, of each all questions.

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


def check_kind(kind: str, asked: Asked) -> None:
    """Refuse a kind that has no answer to this task.

    Raises:
        RequestError: it hasn't.
    """
    is_continuous = asked.task == REGRESSION
    if is_continuous and kind not in ("ridge", "knn"):
        raise RequestError(
            f"{asked.dataset} has continuous labels, and --kind {kind} tells classes apart; use "
            "--kind ridge, or knn"
        )
    if kind == "ridge" and not is_continuous:
        raise RequestError(
            f"--kind ridge predicts continuous labels, and {asked.dataset} has the task "
            f'"{asked.task}"; use --kind linear'
        )


def check_known(asked: Asked, train: Split) -> None:
    """Refuse to train on several labels of which one is never known.

    Raises:
        RequestError: one isn't.
    """
    if asked.task != metrics.MULTI_LABEL:
        return
    shares = metrics.label_shares(train.y)
    unknown = [n for n, s in zip(asked.class_names, shares, strict=True) if np.isnan(s)]
    if unknown:
        raise RequestError(
            f"{asked.dataset} has no training image of which {', '.join(unknown[:3])} is known; "
            "ask for another label by itself with --target NAME"
        )


def _empty(split: Split) -> Split:
    return Split(split.x[:0], split.y[:0], split.ids[:0])


# What a kind answers: its settings, what val chose, scores of val and test, marks.
Answer = tuple[dict[str, Any], dict[str, Any], dict[str, NDArray[np.float64]], list[str]]


def ask_knn(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer for each k that the training images allow, from one search for val and test."""
    settings = config.knn or knn.KnnConfig()
    train, val, test = splits["train"], splits["val"], splits["test"]
    fitting = tuple(k for k in settings.k if k <= len(train))
    if not fitting:
        return
    settings = dataclasses.replace(settings, k=fitting)
    queries = np.concatenate([val.x, test.x])
    if asked.task == REGRESSION:
        by_k = knn.predictions(settings, train.x, train.y[:, None], queries)
    else:
        n_classes = len(asked.class_names)
        by_k = knn.scores(settings, train.x, train.y, queries, asked.task, n_classes)
    for k, scores in by_k.items():
        marks = []
        if k > LARGE_K * len(train):
            share = k / len(train)
            marks.append(f"k is {share:.0%} of the {len(train)} training images")
        yield (
            {
                "k": k,
                "metric": settings.metric,
                "vote": settings.rule,
                **({"temperature": settings.temperature} if settings.rule == "weighted" else {}),
            },
            {},
            {"val": scores[: len(val)], "test": scores[len(val) :]},
            marks,
        )


def ask_linear(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer: the whole path is fitted on train, the strength is chosen on val."""
    settings = config.linear or linear.LinearConfig()
    train, val, test = splits["train"], splits["val"], splits["test"]
    check_val(asked, val)
    task, n_classes = asked.task, len(asked.class_names)
    fits = linear.fit_path(train.x, train.y, task, n_classes, settings)
    best, losses = linear.choose(fits, val.x, val.y, task)
    fit = fits[best]
    marks = []
    if not fit.converged:
        marks.append(f"the solver stopped after {fit.n_iter} steps, short of its tolerance")
    if len(fits) > 1 and best in (0, len(fits) - 1):
        marks.append(f"the chosen strength {fit.strength:g} is the end of the grid")
    yield (
        {
            "strengths": [float(f.strength) for f in fits],
            # Of several classes only: two have one form, and several labels no other.
            **({"form": settings.form} if task in (metrics.MULTI_CLASS, metrics.ORDINAL) else {}),
            "tolerance": settings.tolerance,
            "max_iter": settings.max_iter,
            "standardised": True,
            "chosen_by": "val log-loss",
        },
        {"strength": float(fit.strength), "val_log_loss": [float(loss) for loss in losses]},
        {
            "val": fit.predict_scores(val.x),
            "test": fit.predict_scores(test.x) if len(test) else np.empty((0, n_classes)),
        },
        marks,
    )


def ask_ridge(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer: every penalty is fitted on train, one is chosen on val."""
    settings = config.ridge or ridge.RidgeConfig()
    train, val, test = splits["train"], splits["val"], splits["test"]
    check_val(asked, val)
    fits = ridge.fit_path(train.x, train.y[:, None], settings)
    best, errors = ridge.choose(fits, val.x, val.y[:, None])
    fit = fits[best]
    marks = []
    if len(fits) > 1 and best in (0, len(fits) - 1):
        marks.append(f"the chosen penalty {fit.penalty:g} is the end of the grid")
    yield (
        {
            "penalties": [f.penalty for f in fits],
            "standardised": True,
            "chosen_by": "val squared error",
        },
        {"penalty": fit.penalty, "val_squared_error": [float(error) for error in errors]},
        {"val": fit.predict(val.x), "test": fit.predict(test.x)},
        marks,
    )


def check_val(asked: Asked, val: Split) -> None:
    """Refuse to choose on nothing.

    Raises:
        RequestError: val has no images.
    """
    if not len(val):
        raise RequestError(
            f"{asked.dataset} has no val images to choose the strength on, and it is never "
            "chosen on test"
        )


def ask_zeroshot(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer, from the text file of these images; nothing is fitted, nothing chosen."""
    text = choose_text(config, asked.features)
    prompts = read_prompts(text, asked)
    vectors = zeroshot.class_vectors(prompts.x, prompts.y, prompts.n_classes)
    yield (
        {
            # The digest of the text's key: other prompts are another question.
            "text": {
                "key": text.digest,
                "n_prompts": len(prompts.y),
                "logit_scale": prompts.logit_scale,
            }
        },
        {},
        {
            name: zeroshot.scores(splits[name].x, vectors, prompts.logit_scale, asked.task)
            for name in ("val", "test")
        },
        [],
    )


ASK = {"knn": ask_knn, "linear": ask_linear, "ridge": ask_ridge, "zeroshot": ask_zeroshot}


def choose_text(config: ProbeConfig, features: Features) -> Features:
    """The text file that is named, or the one that belongs to these images.

    Raises:
        CacheError: there is none, or it can't be read.
        RequestError: several belong to them; or the named one doesn't.
    """
    if config.text is None:
        return find_text(features)
    text = open_features(config.text)
    if not text.is_text:
        raise RequestError(f"--text takes a text file, and {config.text} holds images")
    if differences := text_differences(features, text):
        raise RequestError(
            f"{config.text} doesn't belong to {features.path.name} ({'; '.join(differences)})"
        )
    return text


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
    marks = [*asked.marks, *marks, *measured.marks, *leak_marks(asked)]
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
            # Their checksums: other labels or splits are another question of the same features.
            "samples": dict(asked.samples),
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


def _trained_on(train: Asked | None) -> dict[str, Any]:
    if train is None:
        return {}
    samples = {"samples": dict(train.samples), "target": train.target, "split": train.division}
    return {"dataset": train.dataset, "digest": train.features.digest, **samples}


def _versions() -> dict[str, str]:
    found = {}
    for name in ("medprobe", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


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
        parts.append(f"{name} {len(labels):_}" + (f" ({listed})" if name != "val" else ""))
    if n_left_out := int((asked.split == LEFT_OUT).sum()):
        parts.append(f"{n_left_out:_} left out")
    names = [name if len(name) <= 24 else name[:22] + ".." for name in asked.class_names]
    what = "labels" if is_continuous else "classes"
    return f"{asked.title}: {' · '.join(parts)} · {what}: {', '.join(names)}"


def _shares(labels: NDArray[np.integer], n_classes: int) -> str:
    """The share of each class, or of each label's ones among what is known; "?" where nothing is."""
    if labels.ndim == 2:
        shares = metrics.label_shares(labels)
    else:
        shares = np.bincount(labels, minlength=n_classes) / max(len(labels), 1)
    return " ".join("?" if np.isnan(share) else f"{share:.0%}" for share in shares)


def _spread(labels: NDArray[np.floating]) -> str:
    """Mean and standard deviation of continuous labels."""
    return f"{labels.mean():.4g} ± {labels.std():.4g}" if len(labels) else "none"

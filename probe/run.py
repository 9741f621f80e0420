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
from probe import knn, linear, metrics, zeroshot
from probe.config import ProbeConfig
from probe.features import Split, default_pool, read_prompts, read_splits, rows_are_samples
from probe.intervals import bootstrap
from probe.results import Row, check_folder, write_row

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
            shares = describe_shares(features)
            if shares not in told:  # twice for one data set: its labels or splits were changed
                say(shares)
                told.add(shares)
            for row in probe_file(config, features):
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
    if config.kind == "zeroshot" and "proj" not in features.pools:
        raise RequestError(
            f"{features.path.name} has no proj, only {', '.join(features.pools)}: {features.encoder} "
            "has no projection into a space that it shares with texts, as CLIP-like encoders have"
        )
    if config.layer is None:
        layers = sorted(features.layers) or [features.last_layer]
    else:
        layers = [features.find_layer(config.layer)]
    read_test = config.layer is not None or config.all_test
    is_fitted = config.kind != "zeroshot"
    one_to_one = rows_are_samples(features)
    reads = {"train": is_fitted, "val": True, "test": read_test}
    for layer in layers:
        pool = config.pool or (default_pool(features, layer) if is_fitted else "proj")
        started = time.perf_counter()
        splits = read_splits(features, layer, pool, config.aggregate)
        if is_fitted and not len(splits["train"]):
            raise RequestError(f"{features.dataset} has no training images")
        if read_test and not len(splits["test"]):
            raise RequestError(f"{features.dataset} has no test images")
        if not read_test:
            splits["test"] = _empty(splits["test"])
            if not len(splits["val"]):
                raise RequestError(
                    f"{features.dataset} has no val images to compare layers on; name one layer"
                )
        ask = {"knn": ask_knn, "linear": ask_linear, "zeroshot": ask_zeroshot}[config.kind]
        for settings, chosen, scores, marks in ask(config, features, splits):
            probe = {
                "kind": config.kind,
                "layer": layer,
                "pool": pool,
                **({} if one_to_one else {"aggregate": config.aggregate}),
                **settings,
                "read": [name for name, is_read in reads.items() if is_read],
                "n_resamples": config.n_resamples,
            }
            yield make_row(config, features, splits, probe, chosen, scores, marks, started)
            started = time.perf_counter()
    n_train = int((features.split == "train").sum())
    if config.knn and (large := [str(k) for k in config.knn.k if k > n_train]):
        raise RequestError(f"{n_train} training images are too few for k = {', '.join(large)}")


def _empty(split: Split) -> Split:
    return Split(split.x[:0], split.y[:0], split.ids[:0])


# What a kind answers: its settings, what val chose, scores of val and test, marks.
Answer = tuple[dict[str, Any], dict[str, Any], dict[str, NDArray[np.float64]], list[str]]


def ask_knn(config: ProbeConfig, features: Features, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer for each k that the training images allow, from one search for val and test."""
    settings = config.knn or knn.KnnConfig()
    train, val, test = splits["train"], splits["val"], splits["test"]
    fitting = tuple(k for k in settings.k if k <= len(train))
    if not fitting:
        return
    settings = dataclasses.replace(settings, k=fitting)
    queries = np.concatenate([val.x, test.x])
    by_k = knn.scores(settings, train.x, train.y, queries, features.task, len(features.class_names))
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


def ask_linear(
    config: ProbeConfig, features: Features, splits: dict[str, Split]
) -> Iterator[Answer]:
    """One answer: the whole path is fitted on train, the strength is chosen on val."""
    settings = config.linear or linear.LinearConfig()
    train, val, test = splits["train"], splits["val"], splits["test"]
    if not len(val):
        raise RequestError(
            f"{features.dataset} has no val images to choose the strength on, and it is never "
            "chosen on test"
        )
    task, n_classes = features.task, len(features.class_names)
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


def ask_zeroshot(
    config: ProbeConfig, features: Features, splits: dict[str, Split]
) -> Iterator[Answer]:
    """One answer, from the text file of these images; nothing is fitted, nothing chosen."""
    text = choose_text(config, features)
    prompts = read_prompts(text, features)
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
            name: zeroshot.scores(splits[name].x, vectors, prompts.logit_scale, features.task)
            for name in ("val", "test")
        },
        [],
    )


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
    features: Features,
    splits: dict[str, Split],
    probe: dict[str, Any],
    chosen: dict[str, Any],
    scores: dict[str, NDArray[np.float64]],
    marks: list[str],
    started: float,
) -> Row:
    """Score the answer and put it into a row."""
    task = features.task
    val, test = splits["val"], splits["test"]
    intervals, val_metrics = {}, {}
    if len(val):
        val_metrics = metrics.evaluate(scores["val"], val.y, task)
    if len(test):
        intervals = bootstrap(scores["test"], test.y, task, config.n_resamples, config.seed)
        rate = metrics.larger_class_rate(test.y, task)
        if abs(intervals["acc"].value - rate) < 1e-12:
            marks = [*marks, "accuracy equals the larger-class rate"]
    aucs = {
        "val": val_metrics.get("auc", 0.0),
        "test": intervals["auc"].value if intervals else 0.0,
    }
    absent = [name for name, auc in aucs.items() if np.isnan(auc)]
    if absent:
        marks = [*marks, f"no AUC on {' and '.join(absent)}: a class is absent there"]
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
            "samples": {
                name: features.header.tables[f"samples/{name}"] for name in ("labels", "split")
            },
        },
        probe=probe,
        seed=config.seed,
        metrics=intervals,
        val_metrics=val_metrics,
        n={name: len(split) for name, split in splits.items()},
        seconds=round(time.perf_counter() - started, 4),
        versions=_versions(),
        marks=tuple(marks),
        seen=seen,
        protocol=protocol,
        chosen=chosen,
        scores={
            **{f"{name}_scores": s.astype(np.float32) for name, s in scores.items()},
            **{f"{name}_labels": splits[name].y for name in scores},
            **{f"{name}_ids": splits[name].ids for name in scores},
            "class_names": np.array(features.class_names),
        },
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in ("medprobe", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def describe_shares(features: Features) -> str:
    """How many images of which class each split has: they differ a lot in some sets.

    Raises:
        RequestError: labels that don't fit the task or the class names.
    """
    metrics.check_labels(features.labels, features.task, len(features.class_names))
    parts = []
    for name in ("train", "val", "test"):
        labels = features.labels[features.split == name]
        if labels.ndim == 2:
            shares = labels.mean(axis=0) if len(labels) else np.zeros(labels.shape[1])
        else:
            counts = np.bincount(labels, minlength=len(features.class_names))
            shares = counts / max(len(labels), 1)
        listed = " ".join(f"{share:.0%}" for share in shares)
        parts.append(f"{name} {len(labels):_}" + (f" ({listed})" if name != "val" else ""))
    names = [name if len(name) <= 24 else name[:22] + ".." for name in features.class_names]
    return f"{features.dataset}: {' · '.join(parts)} · classes: {', '.join(names)}"

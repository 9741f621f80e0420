"""What each kind of probe answers: from splits to scores, with what val chose."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.catalogue import find_text, text_differences
from cache.errors import RequestError
from cache.features import Features, open_features
from cache.labels import REGRESSION
from probe import knn, linear, metrics, ridge, zeroshot
from probe.config import ProbeConfig
from probe.features import Split, read_prompts
from probe.overlay import Asked

LARGE_K = 0.1  # of the training set: a larger k asks most of the images, not the near ones

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

"""What each kind of probe answers: from splits to scores, with what val chose."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.catalogue import find_text, text_differences
from cache.errors import RequestError
from cache.features import Features, open_features
from cache.task import MULTI_CLASS, MULTI_LABEL, ORDINAL, REGRESSION
from probe.answer import Answer
from probe.choosing.candidates import Choice, choose
from probe.choosing.plan import Plan, fit_and_choose, make_plan
from probe.config import KINDS, ProbeConfig
from probe.episodes.prior import class_shares
from probe.kinds import knn, linear, ridge, zeroshot
from probe.kinds.estimator import N_WARNED, FittedProbes, Question, fit_all
from probe.kinds.head_answers import ask_adamw, ask_heads
from probe.kinds.zeroshot import read_prompts
from probe.metrics import classification as metrics
from probe.metrics.calibration import Votes
from probe.metrics.losses import loss_name, loss_of
from probe.questions.question import Asked
from probe.questions.samples import Split

LARGE_K = 0.1  # of the training set: a larger k asks most of the images, not the near ones


def ask_knn(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer for each k that the training images allow, or for the best of these.

    One search serves them all.
    """
    settings = config.knn or knn.KnnConfig()
    plan = plan_choice(config, asked, splits, len(settings.k) if settings.one_k else 1)
    fitting = tuple(k for k in settings.k if k + settings.n_needed <= plan.n_fitted)
    if not fitting:
        return
    if settings.one_k:  # the first of equals is taken: the most neighbours, the smoothest vote
        fitting = tuple(sorted(fitting, reverse=True))
    settings = dataclasses.replace(settings, k=fitting)
    by_k, test = _votes(settings, asked, plan, splits["test"].x)
    common, said, answered = {**settings.settings, **plan.rounds_settings}, {}, fitting
    if settings.one_k:
        loss = loss_name(asked.task)
        common |= {"k_among": list(fitting), **plan.settings(loss)}
        choice = _choose_k(settings, asked, plan, by_k)
        answered = (fitting[choice.place],)
        said = {"k": answered[0], **plan.said(choice, loss)}
    n_bank = len(plan.final)
    for k in answered:
        marks = list(plan.marks)
        if k > LARGE_K * n_bank:
            marks.append(f"k is {k / n_bank:.0%} of the {n_bank} training images")
        if settings.one_k and len(fitting) > 1 and k in (fitting[0], fitting[-1]):
            marks.append(f"the chosen k {k} is the end of the list")
        yield Answer(
            {**({} if settings.one_k else {"k": k}), **common},
            said,
            {plan.held_out_name: by_k[k], "test": test[k]},
            marks,
            votes_of(settings, k, plan.final.y, asked),
        )


ByK = dict[int, NDArray[np.float64]]  # k -> scores


def votes_of(
    settings: knn.KnnConfig, k: int, bank_labels: NDArray[Any], asked: Asked
) -> Votes | None:
    """What the scores of kNN are shares of; ML-kNN smooths by itself, and numbers have no shares."""
    if asked.task == REGRESSION or settings.rule == knn.MLKNN:
        return None
    return Votes(k, class_shares(bank_labels, asked.task, len(asked.class_names)))


def _choose_k(settings: knn.KnnConfig, asked: Asked, plan: Plan, by_k: ByK) -> Choice:
    """The k with the smallest loss on what the plan holds out, of equals the first."""
    labels = plan.held_out.y
    if not len(labels):  # one k, and no val: plan_choice refuses more
        return Choice(0, np.empty(0), np.empty(0, np.int64))
    fold = np.zeros(len(labels), np.intp) if plan.fold is None else plan.fold
    losses = [
        [
            loss_of(
                by_k[k][fold == part],
                labels[fold == part],
                asked.task,
                votes=votes_of(settings, k, bank.y, asked),
            )
            for k in settings.k
        ]
        for part, (bank, _) in enumerate(plan.rounds())
    ]
    return choose(np.array(losses), plan.n_held_out)


def _votes(
    settings: knn.KnnConfig, asked: Asked, plan: Plan, test: NDArray[np.floating]
) -> tuple[ByK, ByK]:
    """What the plan holds out, and test; one search where both ask the same bank."""

    def ask(bank: Split, queries: NDArray[np.floating]) -> ByK:
        if asked.task == REGRESSION:
            return knn.predictions(settings, bank.x, bank.y[:, None], queries)
        n_classes = len(asked.class_names)
        return knn.scores(settings, bank.x, bank.y, queries, asked.task, n_classes)

    if not plan.is_refitted:
        n_val = len(plan.val)
        both = ask(plan.train, np.concatenate([plan.val.x, test]))
        return {k: s[:n_val] for k, s in both.items()}, {k: s[n_val:] for k, s in both.items()}
    rounds = [ask(bank, held_out.x) for bank, held_out in plan.rounds()]
    by_k = {k: plan.gather([votes[k] for votes in rounds]) for k in settings.k}
    return by_k, ask(plan.final, test)


@dataclasses.dataclass(frozen=True)
class _Strengths:
    """The path of a linear probe as candidates."""

    fits: list[linear.LinearFit]
    task: str

    def losses(self, x: NDArray[np.floating], y: NDArray[Any]) -> NDArray[np.float64]:
        return linear.path_losses(self.fits, x, y, self.task)

    def scores(self, x: NDArray[np.floating], place: int) -> NDArray[np.float64]:
        return self.fits[place].predict_scores(x)


def ask_linear(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer: the whole path is fitted, one strength is chosen."""
    settings = config.linear or linear.LinearConfig()
    task, n_classes = asked.task, len(asked.class_names)
    plan = plan_choice(config, asked, splits, len(settings.strengths))
    chosen = fit_and_choose(
        plan,
        lambda split: _Strengths(
            linear.fit_path(split.x, split.y, task, n_classes, settings), task
        ),
    )
    fits, place = chosen.fitted.fits, chosen.choice.place
    fit = fits[place]
    marks = list(plan.marks)
    if not fit.converged:
        marks.append(f"the solver stopped after {fit.n_iter} steps, short of its tolerance")
    if len(fits) > 1 and place in (0, len(fits) - 1):
        marks.append(f"the chosen strength {fit.strength:g} is the end of the grid")
    yield Answer(
        {
            "strengths": [float(f.strength) for f in fits],
            # Of several classes only: two have one form, and several labels no other.
            **({"form": settings.form} if task in (MULTI_CLASS, ORDINAL) else {}),
            "tolerance": settings.tolerance,
            "max_iter": settings.max_iter,
            "max_products": settings.max_products,
            "standardised": True,
            **plan.settings("log-loss"),
        },
        {"strength": float(fit.strength), **plan.said(chosen.choice, "log-loss")},
        {
            plan.held_out_name: chosen.held_out,
            "test": chosen.scores(splits["test"].x),
        },
        marks,
    )


@dataclasses.dataclass(frozen=True)
class _Penalties:
    """The path of a ridge probe as candidates."""

    fits: list[ridge.RidgeFit]
    task: str
    n_classes: int

    def losses(self, x: NDArray[np.floating], y: NDArray[Any]) -> NDArray[np.float64]:
        return ridge.path_errors(self.fits, x, ridge.ridge_targets(y, self.task, self.n_classes))

    def scores(self, x: NDArray[np.floating], place: int) -> NDArray[np.float64]:
        return ridge.as_scores(self.fits[place].predict(x), self.task)


def ask_ridge(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer: every penalty is fitted, one is chosen."""
    settings = config.ridge or ridge.RidgeConfig()
    plan = plan_choice(config, asked, splits, len(settings.at(1)))
    task, n_classes = asked.task, len(asked.class_names)

    def fit(split: Split) -> _Penalties:
        targets = ridge.ridge_targets(split.y, task, n_classes)
        return _Penalties(ridge.fit_path(split.x, targets, settings), task, n_classes)

    chosen = fit_and_choose(plan, fit)
    fits, place = chosen.fitted.fits, chosen.choice.place
    marks = list(plan.marks)
    if len(fits) > 1 and place in (0, len(fits) - 1):
        marks.append(f"the chosen penalty {fits[place].penalty:g} is the end of the grid")
    yield Answer(
        {
            **({"penalties": [f.penalty for f in fits]} if settings.alpha is None else {}),
            **({} if settings.alpha is None else {"alpha": settings.alpha}),
            "standardised": True,
            **plan.settings("squared error"),
            # Outputs for +1 and -1 aren't probabilities.
            **({} if task == REGRESSION else {"score_type": metrics.MARGIN}),
        },
        {"penalty": fits[place].penalty, **plan.said(chosen.choice, "squared error")},
        {plan.held_out_name: chosen.held_out, "test": chosen.scores(splits["test"].x)},
        marks,
    )


def ask_estimator(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer: each combination of settings is fitted, one is chosen."""
    assert config.estimator
    settings, question = config.estimator, Question(asked.task, len(asked.class_names))
    plan = plan_choice(config, asked, splits, len(settings.candidates))
    chosen = fit_and_choose(plan, lambda split: fit_all(settings, split.x, split.y, question))
    fitted: FittedProbes = chosen.fitted
    is_continuous = asked.task == REGRESSION
    loss = loss_name(asked.task, metrics.PROBABILITY if is_continuous else fitted.score_type)
    yield Answer(
        {
            "settings": {name: list(values) for name, values in settings.grid.items()},
            **settings.facts,
            **({} if is_continuous else {"score_type": fitted.score_type}),
            **plan.settings(loss),
        },
        {"settings": settings.candidates[chosen.choice.place], **plan.said(chosen.choice, loss)},
        {plan.held_out_name: chosen.held_out, "test": chosen.scores(splits["test"].x)},
        [*plan.marks, *(f"{settings.name} warns: {text}" for text in fitted.warned[:N_WARNED])],
    )


def plan_choice(
    config: ProbeConfig, asked: Asked, splits: dict[str, Split], n_candidates: int
) -> Plan:
    """How a kind chooses among its candidates; compared layers and pools are candidates, too.

    Raises:
        RequestError: see ``probe.choosing.plan.make_plan``.
    """
    n_candidates = max(n_candidates, 2) if config.is_comparing else n_candidates
    return make_plan(config.choosing, asked.trained_on or asked, splits, n_candidates)


def ask_zeroshot(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer, from the text file of these images; nothing is fitted, nothing chosen."""
    text = choose_text(config, asked.features)
    prompts = read_prompts(text, asked)
    vectors = zeroshot.class_vectors(prompts.x, prompts.y, prompts.n_classes)
    yield Answer(
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


ASK = {
    "knn": ask_knn,
    "linear": ask_linear,
    "adamw": ask_adamw,
    "heads": ask_heads,
    "ridge": ask_ridge,
    "zeroshot": ask_zeroshot,
}


def ask_kind(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """The answers of the kind, or the estimator, that is asked."""
    return (ask_estimator if config.estimator else ASK[config.kind])(config, asked, splits)


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
    if is_continuous and kind in KINDS and kind not in ("ridge", "knn"):
        raise RequestError(
            f"{asked.dataset} has continuous labels, and --kind {kind} tells classes apart; use "
            "--kind ridge, or knn"
        )


def check_known(asked: Asked, train: Split) -> None:
    """Refuse to train on several labels of which one is never known.

    Raises:
        RequestError: one isn't.
    """
    if asked.task != MULTI_LABEL:
        return
    shares = metrics.label_shares(train.y)
    unknown = [n for n, s in zip(asked.class_names, shares, strict=True) if np.isnan(s)]
    if unknown:
        raise RequestError(
            f"{asked.dataset} has no training image of which {', '.join(unknown[:3])} is known; "
            "ask for another label by itself with --target NAME"
        )

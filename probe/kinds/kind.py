"""What every kind of probe is: its settings are a frozen dataclass, and this is its class.

    @dataclass(frozen=True)
    class Nearest(Kind):
        '''Each class is the mean of its training images.'''

        power: float = setting(1.0, "of the distance", above=0)

        name = "nearest"
        score_type = MARGIN

        def fit(self, train, task): ...  # a Fitted, see probe.choosing.plan

From that it has its flag, its section in ``--help`` and in KINDS.md, an answer with val or folds,
and few-shot by fitting each episode anew. One that has ``candidates`` is fitted with each of them,
and the best without test answers. What knows a better way (one search for every k, all episodes in
one solve, all seeds in one loop) overrides ``answer``, ``answer_together`` or ``answer_episodes``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cache.commands.settings import given
from cache.errors import RequestError
from cache.places import runs_root
from cache.task import Task
from probe.answer import Answer
from probe.arrays import Doubles, Indices
from probe.choosing.in_episode import (
    NAME_ONE,
    by_patient_settings,
    choose_by_folds,
    mark_of,
    said_of,
)
from probe.choosing.left_out import by_folds, has_room
from probe.choosing.plan import (
    FOLD_SEED,
    N_FOLDS,
    ChoosingConfig,
    Fitted,
    LossOfScores,
    Plan,
    fit_and_choose,
    make_plan,
)
from probe.episodes.draw import FewShotConfig
from probe.joins import find_joins, find_token_places
from probe.maps import Maps
from probe.metrics.classification import PROBABILITY, label_shares
from probe.metrics.losses import is_of_ranks, loss_name, loss_of
from probe.places import TOKENS, Place, last_place, settings_of, width_of
from probe.protocols import Reading
from probe.questions.question import Question, Split, pick
from probe.solvers.head import Head
from probe.solvers.standardise import AS_STORED, Prepare, Standard, Standardising, standardising

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it

Episodes = Sequence[Indices]  # for each its rows of train
N_TOLD = 3  # marks of single fits that a row repeats
POOLED = "pooled"  # what a kind reads: an image's one vector, or TOKENS


class DivergedError(RequestError):
    """Some of what was asked has no answer, as training diverged; raised after the others.

    Attributes:
        what: which, and when that was seen: "seed 0 after 240 iterations".
        cure: the next thing to try.
    """

    def __init__(self, what: str, cure: str) -> None:
        self.what, self.cure = what, cure
        super().__init__(f"training diverged: {what}; {cure}")


@dataclass(frozen=True)
class Problem:
    """One question at places of one encoder: all that a kind is given."""

    question: Question
    places: tuple[Place, ...]  # one, or several side by side
    splits: Mapping[str, Split]  # train, val and test at all places; what isn't read is empty
    choosing: ChoosingConfig
    few_shot: FewShotConfig | None = None
    is_compared: bool = False  # with other places: then this one's loss is needed, too
    aggregate: str = "mean"  # what a sample's several rows become
    pools: tuple[str, ...] = ()  # as they were named; (): what the kind reads by itself
    keep_heads: bool = False  # of few-shot episodes, too
    # What several places' features were standardised by, for kinds that don't do so themselves.
    standard: Standard | None = None
    nsd_tolerance: float = 1.0  # of segmentation, mm; see ``probe.metrics.metric.Measuring``
    say: Callable[[str], None] = field(default=lambda line: None, compare=False)  # told progress

    @property
    def task(self) -> Task:
        return self.question.task

    @property
    def fitted_on(self) -> Question:
        """Whose train and val they are: of external validation another data set's."""
        return self.question.trained_on or self.question

    def keeps_left_out(self, plan: Plan) -> bool:
        """Whether train is to be scored by what is fitted without it; folds have done so."""
        train, n_test = self.splits["train"], len(self.splits["test"])
        return plan.fold is None and has_room(self.question, train, n_test)

    def plan(self, n_candidates: int) -> Plan:
        """How to choose among so many candidates.

        Raises:
            RequestError: see ``probe.choosing.plan.make_plan``.
        """
        n = max(n_candidates, 2) if self.is_compared else n_candidates
        return make_plan(self.choosing, self.fitted_on, self.splits, n)

    def val_to_choose(self, what: str) -> Split:
        """The val that something is chosen on.

        Raises:
            RequestError: val has no images, or a label is known of none.
        """
        val, fitted_on = self.splits["val"], self.fitted_on
        if not len(val):
            raise RequestError(
                f"{fitted_on.dataset} has no val images to choose {what} on, and it is never chosen "
                "on test; divide it anew, as with --split 80/10/10"
            )
        if self.task.has_several_labels and np.isnan(label_shares(val.y)).any():
            raise RequestError(f"{fitted_on.dataset} has a label that is known of no val image")
        return val

    def val_of_paper(self, what: str) -> Split | None:
        """The val that few-shot choices are made on, where a paper makes them there.

        Raises:
            RequestError: see ``val_to_choose``.
        """
        assert self.few_shot
        return self.val_to_choose(what) if self.few_shot.chosen_on == "val" else None

    def standardising(self) -> Standardising:
        """How few-shot episodes' features are standardised."""
        assert self.few_shot
        return standardising(self.few_shot.standardise_word, self.splits["train"].x)

    @property
    def maps(self) -> Maps:
        """The tokens, and the masks, of a kind that reads them."""
        return Maps.of(self.question, self.places)

    @property
    def runs(self) -> Path:
        """The folder where a training leaves what it goes on from after a kill."""
        return runs_root()

    @property
    def widths(self) -> tuple[int, ...]:
        """How many features are of each place, in their order."""
        return tuple(width_of(place, self.question.files) for place in self.places)

    def seen_by(self, head: Head | None, places: tuple[Place, ...] = ()) -> Head | None:
        """A head that is told what it sees: all places, or some of them, as they are stored."""
        if head and self.standard:
            folded = self.standard.folded(head.weights, head.intercept)
            head = replace(head, weights=folded[0], intercept=folded[1], centre=self.standard.mean)
        seen = places or self.places
        return head and replace(head, places=seen, aggregate=self.aggregate)


class Kind:
    """A probe idea. Subclasses are frozen dataclasses of its settings."""

    name: ClassVar[str]
    section: ClassVar[str] = ""  # of --help, which several kinds may share; "": "kind NAME"
    told: ClassVar[str | None] = None  # below its heading there
    candidate: ClassVar[str] = ""  # what differs between candidates: "strength"
    is_ordered: ClassVar[bool] = False  # candidates are a grid, whose end is worth a mark
    score_type: ClassVar[str] = PROBABILITY  # of classes; see probe.metrics.classification
    takes_numbers: ClassVar[bool] = False  # continuous labels, too
    # Which of the common flags it has a use for.
    learns: ClassVar[bool] = True  # from train: --shots, --train-data, --controls
    takes_shots: ClassVar[bool] = True  # --shots
    has_layers: ClassVar[bool] = True  # --layer and --all-test; else it knows its places itself
    is_chosen: ClassVar[bool] = True  # --choose: its candidates are compared, by val or folds
    refits: ClassVar[bool] = True  # --refit
    standardises: ClassVar[bool] = False  # --standardise: features of few-shot episodes
    reads_rows: ClassVar[bool] = (
        False  # of each sample, see ``probe.bags``: it takes no --aggregate
    )
    pools: ClassVar[tuple[str, ...]] = ()  # that it reads; (): those that are asked for
    reads: ClassVar[str] = POOLED  # or TOKENS: patches, one by one, see ``probe.maps``
    segments: ClassVar[bool] = False  # it learns from masks
    joins_encoders: ClassVar[bool] = True  # --model a+b
    has_baselines: ClassVar[bool] = False  # --beside: see ``probe.beside``
    own_scale: ClassVar[bool] = False  # it standardises, or not, of several places each by itself
    # Of PlacesConfig, where it is asked at another than the last layer unless one is named.
    usual_places: ClassVar[Mapping[str, Any]] = {}
    # Of features of several places, that ``answer_together`` may hold; 0: one place at a time.
    bytes_together: ClassVar[int] = 0
    paper: ClassVar[str | None] = None  # that says which pool is meant where none is named
    name_one: ClassVar[str] = NAME_ONE  # the cure where an episode can't choose

    def running(self) -> AbstractContextManager[None]:
        """Where its methods are called: what a user's own does wrong is one line there."""
        return nullcontext()

    # ------------------------------------------------------------ what a subclass writes

    @property
    def candidates(self) -> Sequence[Any]:
        """What is compared; of ordered ones the strongest regularisation first, as ``fit`` has it."""
        return (None,)

    def fit(self, train: Split, task: Task) -> Fitted:
        """Fit every candidate to the same samples."""
        raise NotImplementedError

    def settings(self, fitted: Fitted, task: Task) -> dict[str, Any]:
        """What changes its numbers, for the row's question."""
        return {}

    def value(self, fitted: Fitted, place: int) -> Any:
        """The chosen candidate, for the row."""
        return self.candidates[place]

    def marks(self, fitted: Fitted, place: int) -> list[str]:
        """What a reader of the numbers must know of the chosen candidate."""
        return []

    def head(self, fitted: Fitted, place: int, task: Task) -> Head | None:
        """The chosen candidate's weights on features as they are, where it is a linear head."""
        return None

    def left_out(
        self, fitted: Fitted, place: int, train: Split, fold: Indices, task: Task
    ) -> Doubles | None:
        """(n, C) scores of train by the chosen candidate, each by the other folds.

        None: to fit it so often would take too long.

        Args:
            fitted: what was chosen from.
            place: of the chosen one.
            train: n samples.
            fold: (n,) of each.
            task: of C classes.
        """
        return None

    def scores_of(self, fitted: Fitted) -> str:
        """The type of its scores of classes, where that is known only then."""
        return self.score_type

    def loss_name(self, fitted: Fitted, task: Task) -> str:
        """By which loss candidates are compared, in words."""
        return loss_name(task.word, self.scores_of(fitted))

    # ------------------------------------------------------------ what it may say more of

    @classmethod
    def heading(cls) -> str:
        """Of its section in --help."""
        return cls.section or f"kind {cls.name}"

    @classmethod
    def read(cls, options: argparse.Namespace, base: Mapping[str, Any]) -> Kind:
        """Flags over a protocol's settings.

        Raises:
            RequestError: what its settings refuse.
        """
        return cls(**{**base, **given(options, cls)})

    def check_places(self, layer: int | str, pools: tuple[str, ...]) -> None:
        """Refuse --layer or --pool that it has no use for."""

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        """Refuse what its few-shot form can't do."""

    def check_question(self, question: Question) -> None:
        """Refuse labels that it can't answer.

        Raises:
            RequestError: they are continuous, and it tells classes apart.
        """
        if question.task.is_continuous and not self.takes_numbers:
            raise RequestError(
                f"{question.dataset} has continuous labels, and --kind {self.name} tells classes "
                "apart; use --kind ridge, or knn"
            )

    def find_places(
        self, files: Sequence[Features], layer: int | str, pools: Sequence[str], reading: Reading
    ) -> list[tuple[Place, ...]]:
        """Where it is asked: each answer's places.

        Raises:
            RequestError: a file doesn't hold them.
        """
        if self.reads == TOKENS:
            return find_token_places(files[0], layer, pools)
        return find_joins(files, layer, self.pools or pools, reading)

    def last_place(self, features: Features, pools: Sequence[str], reading: Reading) -> Place:
        """Where it is asked where nobody chooses."""
        if self.reads == TOKENS:
            return find_token_places(features, -1, pools)[0][0]
        return last_place(features, pools, reading)

    def place_settings(self, places: tuple[Place, ...]) -> dict[str, Any]:
        """What a row's question holds of an answer's places."""
        return settings_of(places)

    @property
    def versions(self) -> dict[str, str]:
        """Of libraries that make its numbers, beside numpy."""
        return {}

    def describe_memory(self, questions: Sequence[Question]) -> str:
        """A line, where it will hold more than a machine may have."""
        return ""

    def describe_width(self, questions: Sequence[Question], width: int) -> str:
        """A line, where so many features side by side will take long, or much memory."""
        return ""

    def check_answered(
        self, questions: Sequence[Question], settings: Sequence[Mapping[str, Any]]
    ) -> None:
        """Refuse what none of a file's rows, whose settings these are, is of; told after them."""

    # ------------------------------------------------------------ what it gets

    def answer(self, problem: Problem) -> Iterator[Answer]:
        """Every candidate fitted, one chosen, val and test answered by it.

        Raises:
            RequestError: what can't be answered; after the answers that there are.
        """
        task, plan = problem.task, problem.plan(len(self.candidates))
        n = len(self.candidates)

        def ranked_loss(fitted: Fitted) -> LossOfScores | None:
            if not is_of_ranks(self.loss_name(fitted, task)):
                return None
            return partial(loss_of, task=task.word, score_type=self.scores_of(fitted))

        chosen = fit_and_choose(plan, lambda split: self.fit(split, task), n, ranked_loss)
        fitted, place = chosen.fitted, chosen.choice.place
        value, loss = self.value(fitted, place), self.loss_name(fitted, task)
        marks = [*plan.marks, *self.marks(fitted, place)]
        if self.is_ordered and n > 1 and place in (0, n - 1):
            marks.append(f"the chosen {self.candidate} {value:g} is the end of the grid")
        left_out, train = None, problem.splits["train"]
        if problem.keeps_left_out(plan):
            left_out = by_folds(
                problem.fitted_on,
                train,
                lambda fold: self.left_out(fitted, place, train, fold, task),
            )
        yield Answer(
            {**self.settings(fitted, task), **plan.settings(loss), **self._scored(fitted, task)},
            {**self._named(value), **plan.said(chosen.choice, loss)},
            {
                plan.held_out_name: chosen.held_out,
                "test": chosen.scores(problem.splits["test"].x),
            },
            marks,
            head=problem.seen_by(self.head(fitted, place, task)),
            left_out=left_out,
        )

    def answer_together(self, problems: Sequence[Problem]) -> list[Iterator[Answer]]:
        """The answers of one question at several places; a loop for all of them may be faster."""
        return [self.answer(problem) for problem in problems]

    def answer_episodes(self, problem: Problem, episodes: Episodes) -> Iterator[Answer]:
        """Each episode fitted by itself; one of several candidates is chosen by its own folds.

        Answers hold scores of test (E, n, C), before any correction of class shares.

        Raises:
            TooFewError: an episode is too small to choose on.
            RequestError: what can't be answered; after the answers that there are.
        """
        task, train, test = problem.task, problem.splits["train"], problem.splits["test"]
        how = problem.standardising() if self.standardises else AS_STORED
        candidates, places, scores = self.candidates, [], []
        told: dict[str, None] = {}
        for rows in episodes:
            part, place = pick(train, rows), 0
            if len(candidates) > 1:
                place = choose_by_folds(
                    lambda split: self.fit_part(split, task, how.prepare),
                    len(candidates),
                    part,
                    task.word,
                    self.scores_of,
                    self.name_one,
                )
            fitted, number = self.fit_one(place, part, task, how.prepare)
            places.append(place)
            scores.append(fitted.scores(test.x, number))
            told |= dict.fromkeys(self.marks(fitted, number))
        settings = {**self.settings(fitted, task), **how.settings, **self._scored(fitted, task)}
        settings["chosen_by"] = "fixed"
        chosen, marks = self._named(candidates[0]), [*told][:N_TOLD]
        if len(candidates) > 1:
            settings["chosen_by"] = f"in-episode {self.loss_name(fitted, task)}"
            folds = {"n": N_FOLDS, "seed": FOLD_SEED}
            settings["folds"] = {**folds, **by_patient_settings(problem.question, train)}
            chosen = said_of(self.candidate, candidates, places)
            marks = [mark_of(f"{self.candidate} are", "folds of its own", chosen), *marks]
        yield Answer(settings, chosen, {"test": np.stack(scores)}, [*how.marks, *marks])

    def fit_part(self, part: Split, task: Task, prepare: Prepare | None) -> Fitted:
        """``fit`` of a part of an episode, whose features ``prepare`` standardises."""
        return self.fit(part, task)

    def fit_one(
        self, place: int, part: Split, task: Task, prepare: Prepare | None
    ) -> tuple[Fitted, int]:
        """An episode fitted with one candidate, and where that stands in what was fitted."""
        return self.fit_part(part, task, prepare), place

    @staticmethod
    def chosen_on_val(what: str, val: Split) -> str:
        """The mark of few-shot choices that are made on val."""
        n = f"{len(val):_} val images"
        return f"{what} chosen on all {n}, as the paper does: more than the shots"

    def _named(self, value: Any) -> dict[str, Any]:
        return {self.candidate: value} if self.candidate else {}

    def _scored(self, fitted: Fitted, task: Task) -> dict[str, Any]:
        score_type = self.scores_of(fitted)
        usual = task.is_continuous or score_type == PROBABILITY
        return {} if usual else {"score_type": score_type}

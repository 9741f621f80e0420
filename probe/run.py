"""Stage two: ask one question of feature files, and keep the answers as rows.

A run is a plan, a ``Job`` for each feature file; ``answer`` makes a job's rows and writes nothing;
``run_probe`` is the one writer. Another engine may take its place: jobs can be pickled, and a job's
rows don't depend on the others.

Long because plan, answer and writer are read together.
"""

import contextlib
import dataclasses
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.commands.names import format_bytes
from cache.errors import CacheError, Failure, RequestError
from cache.features import Features, open_features
from probe.answer import Answer, check_answer
from probe.arrays import Floats
from probe.beside import plan_runs
from probe.choosing.place import Best, Compared
from probe.config import ProbeConfig
from probe.cost import UNKNOWN, Cost, cost_of
from probe.finding import Files
from probe.kinds.controls import KIND as CONTROL
from probe.kinds.controls import advise_random, answer_controls, encoded_control, find_random
from probe.kinds.few_shot import answer_few_shot
from probe.kinds.kind import DivergedError, Kind, Problem
from probe.places import (
    AUTO,
    TOKENS,
    Place,
    default_pool,
    lacking_pools,
    name_places,
    read_side_by_side,
    width_of,
)
from probe.protocols import Followed
from probe.questions.describe import describe_questions
from probe.questions.external import choose_training, only_test
from probe.questions.joining import LABELS, SPLIT, align
from probe.questions.laying import lay_over
from probe.questions.leaks import refuse_leaks, with_leaks
from probe.questions.masks import lay_masks
from probe.questions.overlay import OverlayConfig
from probe.questions.question import Question, Split, check_known, divide, pick
from probe.results import Encoded, Row, check_folder, write_row
from probe.row import encoded_of, make_row, of_patients
from probe.solvers.head import MAX_BYTES
from probe.solvers.standardise import UNLABELLED, Standard

Say = Callable[[str], None]  # told a line
MOST_STANDARDISED = 2**32  # bytes of places side by side in float32, for kinds that take them whole


@dataclass(frozen=True)
class Job:
    """What is asked of one feature file, or of several encoders side by side."""

    config: ProbeConfig
    paths: tuple[Path, ...]  # one file, or those of encoders side by side


def run_probe(config: ProbeConfig, found: list[Files], say: Say) -> tuple[list[Row], list[Failure]]:
    """Ask every file and write its rows; what doesn't fit is noted and the others go on.

    Args:
        config: the question.
        found: the files; of encoders side by side, all of theirs together.
        say: told a line about each data set.

    Returns:
        The rows, already written, and what couldn't be done.

    Raises:
        RequestError: the folder of results can't be written, or ids of --labels, --split-file or
            --episodes-file are ids of several data sets.
    """
    by_ids = config.overlay.split_file or (config.few_shot and config.few_shot.file)
    if config.overlay.labels or (by_ids and not config.external.train_data):
        _refuse_shared_ids([files[0] for files in found])
    check_folder(config.run.folder)
    rows: list[Row] = []
    failures: list[Failure] = []
    told: set[str] = set()
    alike = Counter(map(_named, found))
    of_datasets: dict[str, Features] = {}  # the first of each that was answered, for the controls

    def say_once(line: str) -> None:
        if line not in told:  # twice for one data set: its labels or splits were changed
            say(line)
            told.add(line)

    def keep(answers: Iterator[Row], what: str, *marks: str) -> bool:
        """Write rows as they come; whether all came."""
        try:
            for row in answers:
                row = dataclasses.replace(row, marks=(*row.marks, *marks))
                write_row(config.run.folder, row, config.run.name)
                rows.append(row)
        except BrokenPipeError:  # of say: nobody listens any more
            raise
        except (CacheError, RequestError, OSError) as error:
            failures.append(Failure(what, str(error)))
            return False
        return True

    asked = _with_random(config, found, say) if config.run.controls else found
    for own, files in plan_runs(config, asked, say):
        paths = [" + ".join(str(f.path) for f in files)] if alike[_named(files)] > 1 else []
        names, dataset = "+".join(features.label for features in files), files[0].dataset
        if config.run.beside or config.run.pairs:
            say(f"{dataset}: {own.kind.name} of {names}, layer {own.places.layer}")
        answers = answer(Job(own, tuple(f.path for f in files)), say_once, files)
        if keep(answers, f"{names} on {dataset}", *paths):
            of_datasets.setdefault(dataset, files[0])
    for dataset, features in of_datasets.items() if config.run.controls else ():
        keep(control_rows(config, features), f"controls on {dataset}")
    return rows, failures


def answer(job: Job, say: Say = lambda line: None, files: Files = ()) -> Iterator[Row]:
    """The rows of one file, layer by layer, and of each layer every question.

    Args:
        job: the file and what is asked of it.
        say: told what a reader of the rows must know before them.
        files: the file, or files side by side, where they are open already.

    Raises:
        CacheError, RequestError: what can't be answered; after the rows of what can.
    """
    config, files = job.config, files or tuple(map(open_features, job.paths))
    questions = make_questions(config, files)
    with config.kind.running():
        lines = [*describe_questions(questions), *describe_lacking(config, files)]
        # The bank of an episode is small.
        lines += [] if config.few_shot else [config.kind.describe_memory(questions)]
        for line in filter(None, lines):
            say(line)
        counted = count_all(config, questions, say)
        yield from _Asking(config, questions[0].files, counted, say).rows()


def _with_random(config: ProbeConfig, found: list[Files], say: Say) -> Iterator[Files]:
    """The files, each followed by that of the same architecture with random weights, once."""
    there = {os.path.realpath(features.path) for features, *_ in found}
    for files in found:
        yield files
        features = files[0]
        if len(files) > 1:
            say("of encoders side by side there is no control with random weights")
        if len(files) > 1 or features.notes.get("random_weights"):
            continue
        other = find_random(features, config.find.folder)
        if other is None:
            say(advise_random(features, config.find.folder))
        # By path, or of another encoder that is built alike.
        elif os.path.realpath(other.path) not in there:
            there.add(os.path.realpath(other.path))
            yield (other,)


def control_rows(config: ProbeConfig, features: Features) -> Iterator[Row]:
    """The rows of the controls that need no encoder, for each question.

    Raises:
        CacheError, RequestError: what can't be answered; after the rows of what can.
    """
    aggregate = config.places.aggregate
    for question in count_all(config, make_questions(config, (features,))):
        started = time.perf_counter()
        for control, splits, answer in answer_controls(question, config.choosing, aggregate):
            start = {"kind": CONTROL, "control": control}
            encoded = encoded_control(question, control)
            yield _as_row(config, question, answer, start, encoded, splits, started)
            started = time.perf_counter()


def _as_row(
    config: ProbeConfig,
    question: Question,
    answer: Answer,
    start: Mapping[str, object],
    encoded: Encoded,
    splits: Mapping[str, Split],
    started: float,
    protocol: Followed | None = None,
    cost: Cost = UNKNOWN,
) -> Row:
    """The row of an answer, whose settings are all that changes its numbers, with the head it keeps."""
    one_to_one, head, marks = question.rows_are_samples, answer.head, answer.marks
    if not (head and head.places and config.places.reads_test):
        head = None  # of pixels, or of a model without scores of test
    if question.name and not config.run.keep_heads:
        head = None  # of one split among several, whose models are many
    if head and (head.n_bytes > MAX_BYTES or not head.is_finite):
        why = f"{format_bytes(head.n_bytes)} of them" if head.is_finite else "beyond float32"
        marks, head = [*marks, f"its weights aren't kept: {why}"], None
    reads_rows = config.kind.reads_rows and start["kind"] == config.kind.name  # no control does
    is_averaged = not (one_to_one or reads_rows)
    settings = {
        **start,
        **({"aggregate": config.places.aggregate} if is_averaged else {}),
        **of_patients(config.measuring, question, config.places.reads_test),
        **answer.settings,
        "read": config.reads,
        "n_resamples": config.measuring.n_resamples,
    }
    answer = dataclasses.replace(answer, settings=settings, marks=marks, head=head)
    facts = {"protocol": protocol, "versions": config.kind.versions}
    return make_row(
        question, answer, encoded, config.measuring, splits, started, **facts, cost=cost
    )


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


def _named(files: Files) -> tuple[tuple[str, str, int], ...]:
    """What a row of the table names; files by path may share it, and say so in a mark."""
    return tuple((f.dataset, f.label, f.size) for f in files)


def make_questions(config: ProbeConfig, files: Files) -> list[Question]:
    """The labels and splits to ask a file with: one, or one for each fold or site.

    Raises:
        CacheError: there are no features of the training data.
        RequestError: labels or a split that can't be laid over the file, training features that
            don't fit it, or encoders side by side that aren't of the same samples.
    """
    overlay, train_data = config.overlay, config.external.train_data
    laid_over = [LABELS] if overlay.labels else []
    laid_over += [SPLIT] if (overlay.split or overlay.split_file) and not train_data else []
    files = align(files, laid_over)
    first, *_ = files
    if config.kind.segments:
        return lay_masks(config.overlay, first)
    if config.overlay.masks:
        raise RequestError(f"--masks belongs to kinds that segment, not to {config.kind.name}")
    if not train_data:
        return _lay_over(config.overlay, files)
    # Of the data to test on nothing is divided: it is its test split, or all of it.
    undivided = dataclasses.replace(config.overlay, split=None, split_file=None)
    if len(files) > 1 and train_data.endswith(".h5"):
        raise RequestError(
            "of encoders side by side name the data to train on, as --train-data NAME"
        )
    folder, where = config.find.folder, dict(config.find.where)
    training = align([choose_training(train_data, f, folder, where) for f in files])
    if config.overlay.labels:
        _refuse_shared_ids([first, training[0]])
    (test,) = _lay_over(undivided, files)
    (train,) = _lay_over(config.overlay, training)
    return [only_test(test, train, config.external.test_split)]


def _lay_over(overlay: OverlayConfig, files: Files) -> list[Question]:
    """The first file's labels and split, or others; the other files bring features alone."""
    return [dataclasses.replace(q, beside=files[1:]) for q in lay_over(overlay, files[0])]


def count_all(
    config: ProbeConfig, questions: list[Question], say: Say = lambda line: None
) -> list[Question]:
    """The questions, with what their splits share counted.

    Raises:
        RequestError: they share something that ``strict`` refuses.
        BrokenCache: a file is damaged.
    """
    # Where nothing is fitted or chosen, nothing can leak.
    read = config.reads if config.kind.learns else ["test"]
    counted = [with_leaks(question, read, say) for question in questions]
    if config.run.strict:
        for question in counted:
            refuse_leaks(question)
    return counted


@dataclass
class _Asking:
    """One file, or several side by side, asked every question at every place."""

    config: ProbeConfig
    files: Files
    questions: list[Question]
    say: Say

    def rows(self) -> Iterator[Row]:
        config, kind = self.config, self.config.kind
        for question in self.questions:
            kind.check_question(question)
        self.config = config = _name_pools(config, self.files[0])
        where = config.places
        places = kind.find_places(self.files, where.layer, where.pools, config.reading)
        if not config.few_shot:
            widest = max(sum(width_of(place, self.files) for place in at) for at in places)
            if line := kind.describe_width(self.questions, widest):
                self.say(line)
        rows = self._best(places) if where.layer == AUTO else self._each(places)
        settings = []
        for row in rows:
            settings.append(row.answered.settings)
            yield row
        if not config.few_shot:
            kind.check_answered(self.questions, settings)

    def _each(self, places: list[tuple[Place, ...]]) -> Iterator[Row]:
        """The rows of one place after the other, each matrix read once.

        Heads that diverged are named after the rows of all the others.
        """
        config, kind = self.config, self.config.kind
        started = time.perf_counter()
        diverged: list[str] = []
        cure = ""
        held: list[tuple[tuple[Place, ...], Floats]] = []
        for number, at in enumerate(places, start=1):
            held.append((at, _read(kind, at, self.files, config.places.aggregate)))
            # In training they are float32.
            n_bytes = 4 * sum(x.size for _, x in held)
            if number < len(places) and n_bytes < kind.bytes_together and not config.few_shot:
                continue
            for question in self.questions:
                problems = [
                    self._problem(question, x, at, config.places.reads_test) for at, x in held
                ]
                if config.few_shot:
                    found = [answer_few_shot(kind, problem) for problem in problems]
                else:
                    found = kind.answer_together(problems)
                for problem, answers in zip(problems, found, strict=True):
                    try:
                        yield from self._measured(problem, answers, started)
                    except DivergedError as error:
                        where = name_places(problem.places)
                        which = f"{question.name}, {where}" if question.name else where
                        diverged.append(f"{which} ({error.what})")
                        cure = error.cure
                    started = time.perf_counter()
            held.clear()
        if diverged:
            raise RequestError(f"training diverged at {'; '.join(diverged)}; {cure}")

    def _best(self, places: list[tuple[Place, ...]]) -> Iterator[Row]:
        """The rows of the last layer, and of the place that is best without test.

        Test is read for these two alone.

        Raises:
            CacheError, RequestError: what can't be answered; or a place has no answer, so that none
                can be chosen.
        """
        config, kind = self.config, self.config.kind
        where = config.places
        compared = [Compared([at[-1] for at in places]) for _ in self.questions]
        for at in places:
            x = _read(kind, at, self.files, where.aggregate)
            for question, found in zip(self.questions, compared, strict=True):
                problem = self._problem(question, x, at, with_test=False)
                try:
                    found.add(question, problem.splits, kind.answer(problem))
                except DivergedError as error:
                    raise RequestError(
                        f"no layer can be chosen, for at {at[-1]} {error}, or name one --layer"
                    ) from None
        last = kind.last_place(self.files[0], where.pools, config.reading)
        for question, found in zip(self.questions, compared, strict=True):
            yield from self._at(question, last)
            for number, best in enumerate(found.choose(first=last)):
                yield from self._at(question, best.place, best, number)

    def _at(
        self, question: Question, place: Place, best: Best | None = None, only: int | None = None
    ) -> Iterator[Row]:
        started = time.perf_counter()
        x = _read(self.config.kind, (place,), self.files, self.config.places.aggregate)
        problem = self._problem(question, x, (place,))
        answers = self.config.kind.answer(problem)
        yield from self._measured(problem, answers, started, best, only)

    def _problem(
        self, question: Question, x: Floats, at: tuple[Place, ...], with_test: bool = True
    ) -> Problem:
        """Train and val of what is fitted on, test of what is asked; what isn't read is empty.

        Raises:
            RequestError: a split that is needed has no images, or no labels.
        """
        config = self.config
        fitted_on, where = question.trained_on or question, config.places

        def read(one: Question) -> Floats:
            return x if one is question else _read(config.kind, at, one.files, where.aggregate)

        splits = divide(question, read)
        if config.kind.learns:
            if not len(splits["train"]):
                raise RequestError(f"{fitted_on.title} has no training images")
            check_known(fitted_on, splits["train"])
        if not with_test:
            splits["test"] = _empty(splits["test"])
        elif not len(splits["test"]):
            raise RequestError(f"{question.title} has no test images")
        # Of one row a sample there is nothing to aggregate, and any word means the same.
        aggregate = "mean" if question.rows_are_samples else where.aggregate
        wish = config.choosing, config.few_shot, where.is_comparing, aggregate, where.pools
        standard = None
        if len(at) > 1 and not config.kind.own_scale and config.kind.reads != TOKENS:
            standard, splits = _standardised(splits, config.kind.name)
        more = config.run.keep_heads, standard, config.measuring.nsd_tolerance, self.say
        return Problem(question, at, splits, *wish, *more)

    def _measured(
        self,
        problem: Problem,
        answers: Iterator[Answer],
        started: float,
        best: Best | None = None,
        only: int | None = None,
    ) -> Iterator[Row]:
        """The rows of one place and question: one for each k or training seed, else one.

        Args:
            problem: what was asked.
            answers: what the kind answers.
            started: when the reading of features began.
            best: why this place, where it was chosen.
            only: of several answers the number of the one that it was chosen for.
        """
        config, question = self.config, problem.question
        for number, answer in enumerate(answers):
            if only not in (None, number):
                continue
            check_answer(answer, config.kind.name, question.task, len(problem.splits["test"]))
            if best:
                answer = dataclasses.replace(
                    answer,
                    settings={**answer.settings, "place_chosen": best.settings},
                    chosen={**answer.chosen, "place": best.said},
                    marks=[*answer.marks, best.mark],
                )
            start = {"kind": config.kind.name, **config.kind.place_settings(problem.places)}
            if problem.standard:
                start["parts"] = f"standardised by {UNLABELLED if config.few_shot else 'train'}"
            encoded = encoded_of(question, config.protocol)
            seen = (answer.head and answer.head.places) or problem.places
            cost = cost_of(question.files, seen, answer.head)
            if answer.trained_parameters and cost is not UNKNOWN:
                cost = dataclasses.replace(cost, trained_parameters=answer.trained_parameters)
            yield _as_row(
                *(config, question, answer, start, encoded, problem.splits, started),
                config.protocol,
                cost,
            )
            started = time.perf_counter()


def _read(kind: Kind, at: Sequence[Place], files: Files, aggregate: str) -> Floats:
    """(S, D) features of every sample; of kinds that read patches (S, 1) the samples' numbers."""
    if kind.reads == TOKENS:
        return np.arange(len(files[0].ids), dtype=float)[:, None]
    return read_side_by_side(at, files, aggregate)


def _standardised(splits: Mapping[str, Split], kind: str) -> tuple[Standard, dict[str, Split]]:
    """Each place's features by train's mean and scale, so that none outweighs the others.

    Raises:
        RequestError: they would take too much memory.
    """
    n_bytes = 4 * sum(split.x.size for split in splits.values())
    if n_bytes > MOST_STANDARDISED:
        raise RequestError(
            f"standardised for --kind {kind}, these places side by side take {format_bytes(n_bytes)}; "
            "name fewer, or use --kind linear, ridge or fusion, which read them in chunks"
        )
    standard = Standard.of(splits["train"].x)
    return standard, {n: dataclasses.replace(s, x=standard(s.x)) for n, s in splits.items()}


def _name_pools(config: ProbeConfig, features: Features) -> ProbeConfig:
    """The same, whose protocol says which pools a user has it read that the paper doesn't."""
    pools = config.places.pools
    if not config.protocol or not pools or pools == config.kind.usual_places.get("pools"):
        return config
    usual = default_pool(features, -1, config.reading)
    if pools == (usual,) and (config.kind.has_layers or usual != "cls"):
        return config  # of the grid, one pool is a part
    return dataclasses.replace(config, protocol=config.protocol.but(f"pool {'/'.join(pools)}"))


def _empty(split: Split) -> Split:
    return pick(split, np.zeros(len(split), bool))


def describe_lacking(config: ProbeConfig, files: Files) -> list[str]:
    """A line on pools that an encoder hasn't, where it has others that are asked for.

    Raises:
        RequestError: a file doesn't hold the layer.
    """
    lines, pools = [], config.places.single_pools
    for features in files if config.kind.reads != TOKENS else ():
        lacking = lacking_pools(features, config.places.layer, pools)
        there = [pool for pool in pools if pool not in lacking]
        if lacking and there:
            lines.append(
                f"{features.model} has no {', '.join(lacking)}: {', '.join(there)} is read alone"
            )
    return lines

"""Few-shot episodes: which training samples an episode may learn from.

A shot is one labelled sample of a class; where patients are known, one patient with all of its
images. Episodes are drawn from train alone, by ids: every encoder of a data set gets the same.

Chance is SHA-256 of seed and id, mixed with the episode's own, so that every machine and every
version of numpy draws alike, whatever the order of the rows.
"""

import hashlib
import heapq
import itertools
from collections.abc import Sequence
from dataclasses import MISSING as MISSING_DEFAULT
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.commands.settings import check, setting
from cache.errors import RequestError
from cache.labels.tables import DATASET, check_dataset, column, read_csv, write_csv
from cache.task import MISSING, Task
from probe.arrays import Bools, Indices, Texts
from probe.episodes.prior import PRIORS
from probe.solvers.standardise import STANDARDISE

# Rule -> how many episodes when nobody says; None: the rule leaves nothing to chance.
DRAWS: dict[str, int | None] = {
    "balanced": 100,
    "natural": 100,
    "first": None,
    "patients": None,
    "bigvision": 3,  # big_vision evaluators/fewshot_lsr.py: num_seeds
}
HEADER = ("shots", "episode", "id", DATASET)  # of an episodes file; the last may be missing

Queues = list[Indices]  # for each class the units that stand for it, the next one first
Draws = dict[int, list[Indices]]  # shots -> for each episode its rows, ascending


@dataclass(frozen=True)
class FewShotConfig:
    """Which episodes to draw, what they know of features' scales and of classes' shares.

    Raises:
        RequestError: shots that are missing, below 1 or named twice; no episodes, or several of a
            rule without chance; a negative seed; an unknown rule, prior or way to standardise; a
            new file that isn't called .csv.
    """

    shots: tuple[int, ...] = setting(  # samples, or patients
        MISSING_DEFAULT,
        "learn from so many images of each class, or patients where they are known; comma separated",
        metavar="S",
        least=1,
        unlike=True,
        takes="numbers from 1 up, each once",
        shown="all of train",
    )
    n_episodes: int | None = setting(
        None,
        "draws of each",
        flag="--episodes",
        metavar="E",
        least=1,
        shown=f"{DRAWS['balanced']}; of bigvision {DRAWS['bigvision']}",
    )
    seed: int | None = setting(
        None, "of the draw", flag="--episode-seed", metavar="SEED", least=0, shown="0"
    )
    draw: str | None = setting(
        None,
        "evenly by class, or in the classes' shares; or as a paper: first of the file (wu2025), "
        "patients by name (baharoon2023), bigvision",
        among=tuple(DRAWS),
        shown="balanced",
    )
    standardise: str | None = setting(
        None,
        "features, by the means and scales of train's images, whose labels stay unknown; by an "
        "episode's own; or none: each image's features have one length",
        among=STANDARDISE,
        shown="train; a paper's own",
    )
    # None: see ``prior_word``.
    prior: str | None = setting(
        None,
        "class shares that scores are corrected to: those of the whole of train, equal ones, those "
        "that test scores make likeliest (em: transductive), or the episode's",
        among=PRIORS,
        shown="train; none with a paper's draw; ridge has no probabilities to correct",
    )
    file: Path | None = setting(
        None,
        "CSV of shots,episode,id and, if it says so, dataset: read; written where it isn't there",
        flag="--episodes-file",
        metavar="FILE",
    )
    chosen_on: str = ""  # "val": checkpoints and rates are chosen there, as a paper does

    def __post_init__(self) -> None:
        check(self)
        if self.file and self.file.suffix.lower() != ".csv" and not self.file.exists():
            raise RequestError(
                f"--episodes-file {self.file}: there is none, and a new one is a table; end its name "
                "in .csv"
            )
        if DRAWS[self.rule] is None and (self.n_episodes not in (None, 1) or self.seed):
            raise RequestError(
                f"--draw {self.rule} leaves nothing to chance and makes one episode; leave out "
                "--episodes and --episode-seed"
            )

    @property
    def names_rule(self) -> bool:
        """Whether anything of the draw is asked for by name, be it the default."""
        return (self.draw, self.n_episodes, self.seed) != (None, None, None)

    @property
    def rule(self) -> str:
        """The rule that is meant, one of DRAWS."""
        return "balanced" if self.draw is None else self.draw

    @property
    def first_seed(self) -> int:
        """The seed that is meant."""
        return self.seed or 0

    @property
    def count(self) -> int:
        """How many episodes there are of each number of shots."""
        return self.n_episodes or DRAWS[self.rule] or 1

    @property
    def standardise_word(self) -> str:
        """How features are standardised, by kinds that do so."""
        return self.standardise or "train"

    @property
    def prior_word(self) -> str:
        """The prior that is meant: the papers' rules come as published, without a correction."""
        return self.prior or ("train" if self.rule in ("balanced", "natural") else "none")


def draw_episodes(
    config: FewShotConfig,
    ids: Texts,
    labels: NDArray[np.number],
    task: Task,
    groups: Texts | None = None,
) -> Draws:
    """Draw every episode. S training samples, C classes.

    A sample, or a patient, stands for a class that all of its images have. (Paper 003: the class
    must be in the intersection of the patient's label sets.) So a patient with images of several
    classes stands for none. A class of fewer than the shots gives all. The rules:

    balanced
        The shots of each class. Several labels: round after round each label, the rarest first,
        takes the next sample that has it and isn't taken. Samples that have none of them are one
        label more: else nothing would ever be drawn that is negative all over.
    natural
        Shots times C in all: one of each class, for a class that isn't there can't be learnt, and
        the others as the classes' shares in train say, by the method of Sainte-Lague, which never
        takes back a seat when there are more. Several labels: shots times C at random.
    first
        The first of each class in the order of the file, whoever the patients are: paper 000,
        dataset.py:234-249. Single labels only.
    patients
        The first patients of each class by name, one class after the other, skipping those already
        taken: paper 003, dinov2/data/utils.py:4-28.
    bigvision
        The first of ``default_rng(seed).permutation`` of each class, for seeds from 0 on:
        big_vision, evaluators/fewshot_lsr.py:215-222. Single labels only.

    Continuous labels have no classes, and masks several: the shots are samples or patients in all,
    at random.

    The few shots lie within the more, except for paper 003's rule on several labels.

    Args:
        config: shots, rule, seed.
        ids: (S,) unique.
        labels: (S,); (S, C) zeros, ones and MISSING for the multi-label task; or continuous.
        task: of C classes.
        groups: (S,) patients; an empty text is one by itself. None: nobody knows.

    Returns:
        shots -> for each episode the places of its samples in ``ids``, ascending.

    Raises:
        RequestError: a rule that the task has no classes for.
    """
    single = task.is_classification and not task.has_several_labels
    if config.rule in ("first", "bigvision"):
        if not single:
            raise RequestError(
                f"--draw {config.rule} counts images of single classes, and the task is "
                f'"{task.word}"; use --draw natural'
            )
        groups = None
    if config.rule == "patients" and not task.is_classification:
        what = "labels are continuous" if task.is_continuous else "a mask has several"
        raise RequestError(f"--draw patients counts patients of a class, and {what}")

    names, unit_of = np.unique(_units(ids, groups), return_inverse=True)
    place = np.unique(unit_of, return_index=True)[1]  # (U,) of a unit's first sample in the file
    shows = _shows(labels, task, unit_of, len(names))
    draws: Draws = {}
    if config.rule == "patients":
        for shots in config.shots:
            taken = _one_after_another(shows, np.arange(len(names)), shots)
            draws[shots] = [_rows(taken, unit_of)]
        return draws

    at_random = not task.is_classification or (task.has_several_labels and config.rule == "natural")
    if config.rule == "first":
        episodes = [_by_class(shows, np.argsort(place))]
    elif config.rule == "bigvision":
        seeds = range(config.first_seed, config.first_seed + config.count)
        episodes = [_permuted(shows, np.argsort(place), seed) for seed in seeds]
    elif at_random:
        episodes = [[order] for order in _orders(names, config.first_seed, config.count)]
    elif task.has_several_labels:
        orders = _orders(names, config.first_seed, config.count)
        episodes = [_in_rounds(shows, order, max(config.shots)) for order in orders]
    else:
        episodes = [_by_class(shows, o) for o in _orders(names, config.first_seed, config.count)]
    for shots in config.shots:
        if at_random:
            quotas = [shots * (task.n_classes if task.is_classification else 1)]
        elif config.rule == "natural":
            quotas = seats(shows.sum(axis=0).tolist(), shots * task.n_classes)
        else:
            quotas = [shots] * len(episodes[0])
        draws[shots] = [
            _rows(np.concatenate([q[:n] for q, n in zip(queues, quotas, strict=True)]), unit_of)
            for queues in episodes
        ]
    return draws


# ------------------------------------------------------------------------------- who stands for whom


def _units(ids: Texts, groups: Texts | None) -> Texts:
    """(S,) what a shot is: a patient, or a sample; prefixed, as an id may equal a patient's name."""
    alone = np.char.add("sample ", ids)
    return alone if groups is None else np.where(groups == "", alone, np.char.add("group ", groups))


def _shows(labels: NDArray[np.number], task: Task, unit_of: Indices, n_units: int) -> Bools:
    """(U, C) which classes a unit stands for: those that all of its samples have.

    Several labels have a last column more: none of them.
    """
    if not task.is_classification:
        return np.ones((n_units, 1), bool)
    if task.has_several_labels:
        has = labels == 1
        nothing = ~has.any(axis=1) & (labels != MISSING).all(axis=1)
        has = np.column_stack([has, nothing])
    else:
        has = labels[:, None] == np.arange(task.n_classes)
    shows = np.ones((n_units, has.shape[1]), bool)
    np.logical_and.at(shows, unit_of, has)
    return shows


def _rows(units: Indices, unit_of: Indices) -> Indices:
    """The samples of some units, ascending."""
    is_taken = np.zeros(int(unit_of.max()) + 1, bool)
    is_taken[units] = True
    return np.flatnonzero(is_taken[unit_of])


# ------------------------------------------------------------------------------- chance


def _orders(names: Texts, seed: int, n_episodes: int) -> list[Indices]:
    """The units shuffled, for each episode.

    One SHA-256 for each name and one for each episode, mixed by splitmix64's finaliser (Steele et
    al. 2014, https://doi.org/10.1145/2714064.2660195): 90,000 names times 100 episodes of SHA-256
    would take ten seconds. A name's place hangs on no other name.
    """
    of_names = _bits([f"{seed}\n{name}" for name in names.tolist()])
    of_episodes = _bits([f"{seed}\nepisode {e}" for e in range(n_episodes)])
    return [np.argsort(_mixed(of_names ^ bits), kind="stable") for bits in of_episodes]


def _bits(texts: Sequence[str]) -> NDArray[np.uint64]:
    """The first eight bytes of each text's SHA-256."""
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:8] for text in texts)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser: a one-to-one map of 64 bits in which every bit moves every other."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


# ------------------------------------------------------------------------------- the rules


def _by_class(shows: Bools, order: Indices) -> Queues:
    """For each class the units that stand for it, in this order."""
    return [order[column] for column in shows[order].T]


def _permuted(shows: Bools, order: Indices, seed: int) -> Queues:
    """big_vision's: one generator, which permutes the classes one after another."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(queue) for queue in _by_class(shows, order)]


def _in_rounds(shows: Bools, order: Indices, n_rounds: int) -> Queues:
    """Round after round each label, the rarest first, takes its next unit that isn't taken."""
    waiting = [iter(queue.tolist()) for queue in _by_class(shows, order)]
    rarest = sorted(range(len(waiting)), key=lambda c: (int(shows[:, c].sum()), c))
    taken: set[int] = set()
    queues: list[list[int]] = [[] for _ in waiting]
    for _ in range(n_rounds):
        for c in rarest:
            unit = next((unit for unit in waiting[c] if unit not in taken), None)
            if unit is not None:
                taken.add(unit)
                queues[c].append(unit)
    return [np.array(queue, np.intp) for queue in queues]


def _one_after_another(shows: Bools, order: Indices, shots: int) -> Indices:
    """Paper 003's: each class takes its first units that aren't taken, then the next class does."""
    is_taken = np.zeros(len(shows), bool)
    for queue in _by_class(shows, order):
        is_taken[queue[~is_taken[queue]][:shots]] = True
    return np.flatnonzero(is_taken)


def seats(counts: Sequence[int], n_seats: int) -> list[int]:
    """Share out seats to classes: one each, then by Sainte-Lague (divisors 1, 3, 5, ...).

    Largest remainders may take a seat back when there are more to share out (Alabama's paradox);
    divisors never do, so few shots lie within more.

    Args:
        counts: of each class; none has more seats than its count.
        n_seats: in all; fewer where all have theirs.
    """
    got = [min(1, count) for count in counts]
    # By whole numbers: count / divisor is compared as a fraction, ties to the first class.
    heap = [(-count / 3, c) for c, count in enumerate(counts) if count > 1]
    heapq.heapify(heap)
    for _ in range(n_seats - sum(got)):
        if not heap:
            break
        _, c = heapq.heappop(heap)
        got[c] += 1
        if got[c] < counts[c]:
            heapq.heappush(heap, (-counts[c] / (2 * got[c] + 1), c))
    return got


# ------------------------------------------------------------------------------- as a file


def read_episodes(path: Path, shots: Sequence[int], ids: Texts, dataset: str) -> Draws:
    """The episodes of a file.

    Args:
        path: CSV of shots, episode (any word) and id, a line for each sample of each episode; it
            may name its data set in a column dataset.
        shots: those that are wanted.
        ids: (S,) of the training samples; a sample of val or test is none.
        dataset: whose they are.

    Returns:
        As ``draw_episodes``, the episodes in the order in which the file first names them.

    Raises:
        RequestError: not such a file, one of another data set, shots that it hasn't, an id twice in
            one episode, or one that isn't a training sample's.
    """
    table = read_csv(path)
    check_dataset(table, dataset)
    place = {name: row for row, name in enumerate(ids.tolist())}
    found: dict[str, dict[str, set[int]]] = {}
    cells = (column(table, name) for name in HEADER if name != DATASET)
    for n, episode, name, line in zip(*cells, table.lines, strict=True):
        if name not in place:
            raise RequestError(
                f"{path}, line {line}: {name!r} isn't a training sample; episodes are drawn from "
                f"train alone, whose ids look like {next(iter(place))!r}"
            )
        rows = found.setdefault(n, {}).setdefault(episode, set())
        if place[name] in rows:
            raise RequestError(f"{path}, line {line}: {name!r} stands twice in episode {episode}")
        rows.add(place[name])
    if missing := [str(n) for n in shots if str(n) not in found]:
        raise RequestError(
            f"{path} has episodes of {', '.join(found)} shots, and none of {', '.join(missing)}"
        )
    return {n: [np.array(sorted(rows)) for rows in found[str(n)].values()] for n in shots}


def write_episodes(path: Path, draws: Draws, ids: Texts, dataset: str) -> None:
    """Write episodes, to keep and to publish.

    Raises:
        RequestError: the file can't be written.
    """
    cells = (
        (shots, number, name, dataset)
        for shots, episodes in draws.items()
        for number, rows in enumerate(episodes)
        for name in ids[rows].tolist()
    )
    try:
        write_csv(path, itertools.chain([HEADER], cells))
    except OSError as error:
        raise RequestError(f"can't write {path}: {error.strerror}; name another file") from error


def digest_of(episodes: Sequence[Indices], ids: Texts) -> str:
    """SHA-256 of the ids of each episode, sorted: the same for every encoder and order of rows."""
    whole = hashlib.sha256()
    for rows in episodes:
        whole.update("\n".join(sorted(ids[rows].tolist())).encode() + b"\0")
    return f"sha256:{whole.hexdigest()}"

"""Claims "A is better than B", held against what accuracies of a test set can say.

Of n images A alone answers x1 rightly and B alone x2; the chance that A isn't better all the same,
under a flat prior over the four kinds of images, is

    P(false) = I_1/2(x1 + 1, x2 + 1)          (arXiv 2505.04720; I is the incomplete beta function)

From both models' answers x1 and x2 are counted. From two published accuracies only their difference
is known, n (pA - pB): how often both are right may lie anywhere between

    most agreement      B is right nowhere else than A: x2 = 0, P(false) = 2^-(x1 + 1)
    least agreement     both are wrong, or both right, as rarely as the accuracies allow

and each accuracy is known to half of its last digit. A claim *holds* where P(false) is at most 0.05
at both ends; at neither, no answers would save it. So a lead of three images or fewer never holds.
*Contradicted* is a claim only by answers, where P(false) is at least 0.95.

A claim of scores that is no share of independent images goes by the one-sided p of their paired test,
which is no P(false): it holds at .025, where the two-sided p is .05, and is contradicted from .975.

The rest is of one run's accuracy on independent images. A mean over seeds isn't a number of images, and
AUC, kappa or balanced accuracy are no shares of images: these need the scores.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.commands.names import counted
from cache.errors import RequestError
from probe.arrays import Bools
from probe.report.published.numbers import Number

HOLDS, UNTOLD, CONTRADICTED, NEEDS_SCORES = (
    *("holds", "can't be told", "contradicted", "needs the scores"),
)
A_MEAN = "a mean over seeds"
SEEDS_AS_ONE = "means over seeds, taken for one run's"
FALSE, SURE = 0.05, 0.95  # P(false) at most, for a claim to hold; at least, to be contradicted
# The same of a one-sided p: half of the two-sided .05 of `report compare`, so that both say the same.
P_FALSE, P_SURE = 0.025, 0.975
BETTER = re.compile(r"\s>\s")
TEST_IMAGES = {  # of MedMNIST's test splits (medmnist 3), where one label an image is asked
    "pathmnist": 7180,
    "dermamnist": 2005,
    "octmnist": 1000,
    "pneumoniamnist": 624,
    "retinamnist": 400,
    "breastmnist": 156,
    "bloodmnist": 3421,
    "tissuemnist": 47280,
    "organamnist": 17778,
    "organcmnist": 8216,
    "organsmnist": 8827,
}


@dataclass(frozen=True)
class Claim:
    """That A is better than B, and what is to be made of it."""

    a: str
    b: str
    dataset: str
    verdict: str  # HOLDS, UNTOLD, CONTRADICTED or NEEDS_SCORES
    why: str = ""  # of NEEDS_SCORES, and of a claim against the printed numbers
    lead: float = math.nan  # of A over B, in accuracy
    n: int | None = None  # images
    best: float = math.nan  # P(false) where all that isn't known favours the claim
    worst: float = math.nan  # and where it favours none
    p: float = math.nan  # one-sided, of a paired test; then there is no P(false)
    setting: str = ""  # of printed numbers: paper, mode, size, way of resizing

    @property
    def is_beyond_answers(self) -> bool:
        """Whether no answers with these accuracies would make it hold."""
        return self.verdict == UNTOLD and self.best > FALSE

    def describe(self) -> str:
        """In words, one line."""
        setting = f" [{self.setting}]" if self.setting else ""
        claim = f"{self.a} > {self.b} on {self.dataset}{setting}: {self.verdict}"
        if not math.isnan(self.p):
            return f"{claim} (one-sided p {self.p:.2g})"
        if math.isnan(self.best):
            return f"{claim} ({self.why})"
        chance = f"P(false) {self.best:.2g}"
        if self.worst - self.best > 5e-3 * self.worst:
            chance += f" to {self.worst:.2g}"
        facts = f"{chance}, accuracy {self.lead:+.4f} on {self.n} images"
        return f"{claim} ({facts}{'; ' + self.why if self.why else ''})"


@dataclass(frozen=True)
class Asked:
    """A claim as a user types it."""

    better: str
    other: str
    datasets: tuple[str, ...] = ()  # (): all that both were asked on
    metric: str = ""  # as it was typed; "": nobody said

    def __str__(self) -> str:
        by = f" by {self.metric}" if self.metric else ""
        on = f" on {', '.join(self.datasets)}" if self.datasets else ""
        return f"{self.better} > {self.other}{by}{on}"


def read_claim(text: str) -> Asked:
    """Read "dinov2 > vit on breastmnist, dermamnist", or "dinov2 > vit by auc on breastmnist".

    A and B may take conditions, as ``sides.read_side`` understands them: "vit and kind=linear and
    shots>=5 > lite and kind=linear and shots>=5 by auc". The sign between them then has spaces
    around it.

    Raises:
        RequestError: it isn't of that form.
    """
    claimed, has_on, listed = text.partition(" on ")
    pair, has_by, metric = f"{claimed} ".partition(" by ")
    sides = BETTER.split(pair)
    if len(sides) == 1 and "<" not in pair and ">=" not in pair:
        sides = pair.split(">")
    names = [*sides, *([metric] if has_by else []), *(listed.split(",") if has_on else [])]
    names = [name.strip() for name in names]
    if len(sides) != 2 or not all(names):
        raise RequestError(
            'a claim reads "A > B by METRIC on DATA, DATA", such as "dinov2 > vit on breastmnist" or '
            f'"vit and kind=linear > lite and kind=linear by auc"; found "{text}"'
        )
    return Asked(names[0], names[1], tuple(names[2 + bool(has_by) :]), metric.strip())


def of_answers(a: str, b: str, dataset: str, right: Bools, other: Bools) -> Claim:
    """A claim by both models' answers to the same independent images.

    Args:
        a: the model that is claimed to be better.
        b: the other.
        dataset: its name.
        right: (N,) which answers of A are right.
        other: (N,) of B.
    """
    chance = false_chance(int((right & ~other).sum()), int((other & ~right).sum()))
    verdict = HOLDS if chance <= FALSE else CONTRADICTED if chance >= SURE else UNTOLD
    lead = float(right.mean() - other.mean())
    return Claim(a, b, dataset, verdict, "", lead, len(right), chance, chance)


def of_accuracies(
    a: str, b: str, dataset: str, p_a: float, p_b: float, n: int, half_digit: float = 0.0
) -> Claim:
    """A claim by two accuracies of one run each, on the same n independent images.

    Args:
        a: the model that is claimed to be better.
        b: the other.
        dataset: its name.
        p_a: accuracy of A, 0..1.
        p_b: of B.
        n: images.
        half_digit: how far each may be from what was rounded.
    """
    best, _ = ends_of_agreement(min(p_a + half_digit, 1), max(p_b - half_digit, 0), n)
    _, worst = ends_of_agreement(max(p_a - half_digit, 0), min(p_b + half_digit, 1), n)
    why = "the numbers say the reverse" if p_a < p_b else ""
    if best >= SURE:
        why += " and no answers could make it hold, but only answers contradict a claim"
    return Claim(a, b, dataset, HOLDS if worst <= FALSE else UNTOLD, why, p_a - p_b, n, best, worst)


def of_numbers(better: Number, other: Number, *, seeds_as_one: bool = False) -> Claim:
    """A claim by two printed numbers of one table.

    Args:
        better: of the model that is claimed to be better.
        other: of the other model.
        seeds_as_one: whether a mean over seeds is taken for one run's accuracy, which it isn't;
            the claim says so.
    """
    n = TEST_IMAGES.get(better.our_dataset or "")
    is_mean = better.is_mean or other.is_mean
    parts = better.paper.name, better.mode, better.size, better.resize
    setting = ", ".join(str(part) for part in parts if part)
    why = ""
    if better.metric != "ACC":
        why = f"{better.metric} is no share of images"
    elif n is None:
        why = "not one answer an image, or their number is unknown"
    elif is_mean and not seeds_as_one:
        why = A_MEAN
    names = better.model, other.model, better.dataset
    if n is None or why:
        return Claim(*names, NEEDS_SCORES, why, setting=setting)
    half_digit = max(better.half_digit, other.half_digit)
    claim = of_accuracies(*names, better.value, other.value, n, half_digit)
    seeds = SEEDS_AS_ONE if is_mean else ""
    return replace(claim, why="; ".join(filter(None, [claim.why, seeds])), setting=setting)


def best_against_second(
    numbers: Iterable[Number], *, seeds_as_one: bool = False
) -> tuple[Claim, ...]:
    """What each column of a paper's tables says by its order: the best is better than the second.

    A column is what models are compared in: one table's data set, size, way of resizing, mode and
    metric. What a paper quotes is compared with nothing.
    """
    columns: dict[tuple[object, ...], list[Number]] = {}
    for n in numbers:
        asked = n.paper.name, n.table, n.quoting, n.dataset, n.size, n.resize, n.mode, n.metric
        columns.setdefault(asked, []).append(n)
    claims = []
    for column in columns.values():
        ordered = sorted(column, key=lambda n: -n.value)
        if len(ordered) > 1 and not ordered[0].quoting:
            claims.append(of_numbers(ordered[0], ordered[1], seeds_as_one=seeds_as_one))
    return tuple(claims)


def summarise(claims: Sequence[Claim]) -> str:
    """How many hold, in words, with the number of false ones to expect among them."""
    counts = {v: sum(c.verdict == v for c in claims) for v in (HOLDS, UNTOLD, CONTRADICTED)}
    n_by_p = sum(c.verdict == HOLDS and not math.isnan(c.p) for c in claims)
    beyond = sum(c.is_beyond_answers and c.setting != "" for c in claims)
    scores = sum(c.verdict == NEEDS_SCORES for c in claims)
    parts = [f"{counts[HOLDS]} hold"]
    if counts[HOLDS] > n_by_p:
        which = f"the {counts[HOLDS] - n_by_p} by P(false)" if n_by_p else "these"
        parts[0] += f" (of {which} at most {expected_false(claims):.2g} are false, by expectation)"
    parts.append(f"{counts[UNTOLD]} can't be told")
    if beyond:
        parts[-1] += f" ({beyond} not even at best agreement)"
    if counts[CONTRADICTED]:
        parts.append(f"{counts[CONTRADICTED]} contradicted")
    if scores:
        parts.append(f"{scores} need the scores")
    notes = ["images are taken to be independent"] if scores < len(claims) else []
    if of_seeds := sum(SEEDS_AS_ONE in c.why for c in claims):
        notes.append(f"{of_seeds} are of {SEEDS_AS_ONE}")
    return "; ".join([f"{counted(len(claims), 'claim')}: {', '.join(parts)}", *notes])


def expected_false(claims: Iterable[Claim]) -> float:
    """False claims to expect at most among those that hold: the sum of their P(false), the worst.

    A p is no chance of that: claims that go by one aren't counted.
    """
    return sum(c.worst for c in claims if c.verdict == HOLDS and math.isnan(c.p))


def ends_of_agreement(p_a: float, p_b: float, n: float) -> tuple[float, float]:
    """P(false) at its least and at its most, over all answers with these accuracies.

    Args:
        p_a: accuracy of the model that is claimed to be better, 0..1.
        p_b: of the other.
        n: images.
    """
    both = min(p_a, p_b), max(0.0, p_a + p_b - 1)
    most, least = (false_chance(n * (p_a - share), n * (p_b - share)) for share in both)
    return min(most, least), max(most, least)


def false_chance(x_a: float, x_b: float) -> float:
    """P(false) of "A is better", where A alone is right on x_a images and B alone on x_b.

    Args:
        x_a: 0 and more; need not be whole.
        x_b: likewise.
    """
    return half_beta(max(x_a, 0.0) + 1, max(x_b, 0.0) + 1)


def half_beta(a: float, b: float) -> float:
    """The incomplete beta function I_1/2(a, b): how often a Beta(a, b) variable is below a half.

    Lentz's continued fraction (Press et al., Numerical Recipes, 6.4), on the side where it is quick.
    scipy would take longer to start than all of `report`.

    Args:
        a: above 0.
        b: above 0.
    """
    if a < b:  # the fraction is quick where 1/2 <= (a + 1) / (a + b + 2)
        return 1 - half_beta(b, a)
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - (a + b) * math.log(2)
    tiny = float(np.finfo(np.float64).tiny)
    x, c, d = 0.5, 1.0, 1 / (1 - (a + b) * 0.5 / (a + 1))
    found = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d = 1 / (1 + step * d or tiny)
            c = 1 + step / c or tiny
            found *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return math.exp(logs) * found / a

"""What rows and files say of the items of a checklist, in words, and which tables say more."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.commands.names import counted
from cache.errors import RequestError
from probe.metrics import overlap
from probe.metrics.classification import PROBABILITY
from probe.report.findings.cohort import count_splits
from probe.report.findings.headline import leads
from probe.report.findings.leading import compared_by
from probe.report.findings.reported import Reported, Reports
from probe.report.pages.reported import METHODS, imbalance, leaks_of, unit_of
from probe.report.rows.fields import written

EXTERNAL = "External test: "
OPERATIONS = "Thresholds and 2 x 2 counts"
QUESTIONS = "Questions named beforehand"
NO_EXTERNAL = "no external test set among these rows"
# Settings that other items tell, or that say nothing to a reader.
TOLD = frozenset(
    "kind layer pool n_last places parts read groups n_resamples place_chosen chosen_by folds refit "
    "scores_of training_seed few_shot control aggregate score_type k_among left_out head_from head_weights".split()
)


@dataclass(frozen=True)
class Statement:
    """What is known of an item."""

    each: Callable[[Reported], str] | None = None  # of each test set; "": nothing
    tables: Sequence[str] = ()  # titles
    whole: Callable[[Reports], Iterable[str]] | None = None  # of all together
    always: str = ""  # of any rows

    def of(self, reports: Reports) -> tuple[str, ...]:
        """In words."""
        found = [*self.whole(reports)] if self.whole else []
        found += per_set(reports.reported, self.each) if self.each else []
        return tuple(filter(None, [*found, self.always]))


def per_set(reported: Sequence[Reported], said: Callable[[Reported], str]) -> list[str]:
    """One statement where all test sets have the same, else one for each."""
    words = {f"{of.name}{' (external)' * of.is_external}": said(of) for of in reported}
    if len(set(words.values())) == 1:
        return [*set(words.values())]
    return [f"{name}: {word}" for name, word in words.items() if word]


def _file(of: Reported, name: str) -> str:
    """What the feature file notes."""
    return "" if of.features is None else str(of.features.notes.get(name) or "")


def _joined(*words: str) -> str:
    return ", ".join(filter(None, words))


def _question(reports: Reports) -> Iterable[str]:
    sets = [each.beside for each in reports.reported]
    compared = compared_by(reports.metric, reports.question)
    return leads(sets, compared, reports.record, reports.question, reports.people)


def _data(of: Reported) -> str:
    return f"licence of the data: {_file(of, 'licence') or 'unknown'}"


def _exclusions(of: Reported) -> str:
    skipped = (_key(of).get("reading") or {}).get("skipped")
    notes = of.division.notes if of.division else ()
    unread = "" if skipped is None else f"{counted(skipped, 'file')} that can't be read left out"
    return _joined(unread, *notes)


def _missing(of: Reported) -> str:
    unlabelled = [s.n_unlabelled for s in count_splits(of) if s.n_unlabelled is not None]
    if not unlabelled:
        return ""
    n = sum(unlabelled)
    return f"{counted(n, 'sample')} without a label, left out" if n else "no sample lacks a label"


def _preprocessing(of: Reported) -> str:
    protocol = of.row.encoded.protocol
    return _joined(f"preparation of {protocol}" if protocol else "", _file(of, "transform"))


def _acquisition(of: Reported) -> str:
    key = _key(of)
    window, source = (key.get("reading") or {}).get("window"), key.get("source_size")
    return _joined(
        f"images of {source} px were read" if source else "",
        f"intensity window: {window}" if window else "",
    )


def _reference(of: Reported) -> str:
    words = of.row.posed.target_words
    return f"labels laid over those of the data: {words}" if words else ""


def _split(of: Reported) -> str:
    rule, seed = of.row.posed.split_words, of.row.posed.split.get("seed")
    if not rule and of.division and of.division.is_stored:
        drawn = of.division.features.notes.get("drawn_split") or {}
        rule, seed = drawn.get("rule", ""), drawn.get("seed")
    sizes = ", ".join(f"{split.split} {split.n}" for split in count_splits(of))
    seeded = "" if seed is None else f"seed {seed}"
    return _joined(f"split {rule or 'as the data set has it'}", seeded, f"samples: {sizes}")


def _imbalance(of: Reported) -> str:
    shares = [f"{s.split}: {imbalance(s)}" for s in count_splits(of) if s.by_class]
    return f"shares of classes, {'; '.join(shares)}" if shares else ""


def _disjoint(of: Reported) -> str:
    found = leaks_of(of)
    if not found:
        return "nobody counted what test shares with train and val"
    level = "patients are unknown, so disjoint by image at most"
    if "groups" in found:
        level = f"{counted(found['groups'], 'patient')} of test in train or val"
    copies, twins = counted(found["exact"], "exact twin"), counted(found["near"], "near twin")
    return f"{level}, {copies} and {twins} of test images there"


def _unit(of: Reported) -> str:
    return f"unit of analysis: {unit_of(of)}" if unit_of(of) else ""


def _model(of: Reported) -> str:
    encoder = of.row.encoded.encoder or of.row.encoded.label
    if of.row.answered.kind == "finetune":
        return f"{encoder}, fine-tuned with a classifier"
    return f"{encoder}, frozen, and a probe on its features: {of.row.answered.kind}"


def _specification(of: Reported) -> str:
    row = of.contender.first
    try:
        has_head = "head" in row.scores()
    except RequestError:
        has_head = False
    if has_head:
        return f"row {row.id[:8]} holds the classifier's weights: `probe apply` answers new images"
    return f"row {row.id[:8]} holds no weights; its question asked again fits the same"


def _initial(of: Reported) -> str:
    if of.row.encoded.joined:
        each = [f"{part.label} ({_weights(part.key)})" for part in of.row.encoded.joined]
        return f"weights of {', '.join(each)}; `report page` has their licences"
    licence = _file(of, "weights_licence") or "unknown"
    digest = _weights(of.row.encoded.key)
    return f"weights {_file(of, 'weights') or 'unknown'} ({digest}), licence {licence}"


def _weights(key: Mapping[str, Any]) -> str:
    return str(key.get("weights"))[:19]


def _key(of: Reported) -> Mapping[str, Any]:
    """Of the feature file; of encoders side by side the first one's."""
    return of.row.encoded.parts[0].key


def _overlap(of: Reported) -> str:
    return f"pretraining of the encoder saw these images: {of.row.encoded.seen}"


def _training(of: Reported) -> str:
    answered = of.row.answered
    named = answered.protocol.get("name")
    asked = [f"{n} {_short(v)}" for n, v in answered.settings.items() if n not in TOLD]
    chosen = [
        f"{n} {written(v)}" for n, v in answered.chosen.items() if isinstance(v, str | int | float)
    ]
    words = [f"protocol {named}" if named else "", ", ".join(asked)]
    words.append(f"chosen: {', '.join(chosen)}" if chosen else "")
    return "; ".join(filter(None, words))


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        if len(value) > 3:
            return f"{written(value[0])} to {written(value[-1])} ({len(value)} values)"
        return " ".join(map(written, value))
    if isinstance(value, Mapping):
        return " ".join(f"{n} {_short(v)}" for n, v in value.items())
    return written(value)


def _selection(of: Reported) -> str:
    settings = of.row.answered.settings
    place = settings.get("place_chosen")
    return _joined(
        f"settings chosen by {settings['chosen_by']}" if "chosen_by" in settings else "",
        f"layer chosen {_short(place)}" if place else "layer named beforehand",
        f"fitted on {settings.get('refit', 'train')}",
    )


def _ensemble(of: Reported) -> str:
    n = len(of.contender.rows)
    if of.contender.is_of_seeds:
        return f"no ensemble; {n} trainings, of whose metrics the mean is told"
    return "no ensemble" if n == 1 else f"no ensemble; means over {n} folds or sites"


def _metrics(reports: Reports) -> Iterable[str]:
    names = dict.fromkeys(name for of in reports.reported for name in of.row.measured.test)
    return [f"measured: {', '.join(names)}"]


def _tests(reports: Reports) -> Iterable[str]:
    used: dict[str, dict[str, None]] = {}
    for of in reports.reported:
        for metric, method in of.row.measured.intervals.items():
            used.setdefault(METHODS[method], {})[metric] = None
    words = [f"{', '.join(metrics)}: {method}" for method, metrics in used.items()]
    return [f"95 % intervals of {'; '.join(words)}"] if words else []


def _robustness(of: Reported) -> str:
    kinds = dict.fromkeys(c.first.row.answered.kind for c in of.rivals)
    encoders = {c.model for c in of.rivals}
    answers, models = counted(len(of.rivals), "answer"), counted(len(encoders), "encoder")
    return f"asked of this test set by these rows: {answers}, {models}, {', '.join(kinds)}"


def _numbers(reported: Sequence[Reported], metric: str) -> list[str]:
    def said(of: Reported) -> str:
        found = of.contender.value(metric)
        if found is None or found.value != found.value:
            return ""
        ends = f" [{found.low:.3f} {found.high:.3f}]" if found.low == found.low else ""
        ends += f" ± {found.sd:.3f}" if len(of.contender.rows) > 1 and found.sd == found.sd else ""
        value = f"{metric} {found.value:.3f}{ends} on {'external ' * of.is_external}test"
        return ", ".join([value, *of.asked]) + f" ({of.standing})"

    return per_set(reported, said)


def _internal(reports: Reports) -> Iterable[str]:
    return _numbers(reports.internal, reports.metric)


def _external(reports: Reports) -> Iterable[str]:
    return _numbers(reports.external, reports.metric) or [NO_EXTERNAL]


def _uncalibrated(of: Reported) -> str:
    kind = of.row.answered.score_type
    is_told = kind in (PROBABILITY, "prediction", overlap.SCORE_TYPE) or of.lacking
    return "" if is_told else f"no calibration: scores are {kind}, no probabilities"


def _subgroups(reports: Reports) -> Iterable[str]:
    meta = dict.fromkeys(c for of in reports.reported if of.features for c in of.features.meta)
    flags = ", ".join(f"meta:{column}" for column in meta)
    return [f"gaps, beside those of chance: `report table --by` {flags}"] if meta else []


def _heterogeneity(of: Reported) -> str:
    if str(of.row.posed.split.get("rule", "")).startswith("site-out"):
        return f"{len(of.folds)} sites, each left out of training once"
    return "no site was left out of training: `probe --split site-out:COLUMN` does that"


def _ledger(reports: Reports) -> Iterable[str]:
    def said(of: Reported) -> str:
        n = reports.record.ledger.looked_at(of.row.test_set)
        if not n:
            return ""
        more = ""
        if n != len(of.rivals):
            more = f", {len(of.rivals)} of them by the rows that this is of"
        return f"test was asked {counted(n, 'question')}{more}: its best is a best of {n}"

    return per_set(reports.reported, said)


def _availability(of: Reported) -> str:
    return f"{_data(of)}; {_initial(of)}"


_OUTSIDE = ("flow", "characteristics", "performance", OPERATIONS.lower(), "calibration")

STATEMENTS: Mapping[str, Statement] = {
    "accuracy": Statement(tables=[OPERATIONS]),
    "acquisition": Statement(_acquisition),
    "audit": Statement(
        always="each sample's scores, labels and ids are kept beside every row, with checksums"
    ),
    "availability": Statement(_availability),
    "calibration": Statement(_uncalibrated, tables=["Calibration", "Calibration curve"]),
    "data": Statement(_data, ["Flow"]),
    "demographics": Statement(tables=["Characteristics"]),
    "disjoint": Statement(_disjoint, ["Leaks"]),
    "ensemble": Statement(_ensemble),
    "exclusions": Statement(_exclusions),
    "external": Statement(whole=_external, tables=[f"{EXTERNAL}{title}" for title in _OUTSIDE]),
    "failures": Statement(tables=["Confusion matrix", "Wrong answers by stratum"]),
    "flow": Statement(tables=["Flow"]),
    "heterogeneity": Statement(_heterogeneity),
    "imbalance": Statement(_imbalance),
    "initial": Statement(_initial),
    "internal": Statement(whole=_internal, tables=["Performance"]),
    "ledger": Statement(whole=_ledger, tables=["Ledger"]),
    "metrics": Statement(whole=_metrics),
    "missing": Statement(_missing, ["Characteristics"]),
    "model": Statement(_model, ["Model"]),
    "overlap": Statement(_overlap, ["Leaks"]),
    "preprocessing": Statement(_preprocessing),
    "protocol": Statement(tables=[QUESTIONS]),
    "question": Statement(whole=_question, tables=[QUESTIONS]),
    "reference": Statement(_reference, always="reference standard: unknown to rows and files"),
    "robustness": Statement(
        _robustness, always="`report sensitivity` says whether the order depends on the probe"
    ),
    "sample_size": Statement(
        tables=["Smallest differences"],
        always="no intended size is stored; what these test sets can show instead",
    ),
    "selection": Statement(_selection),
    "software": Statement(
        tables=["Software"],
        always="the commands that made rows and feature files are in those files",
    ),
    "specification": Statement(_specification),
    "split": Statement(_split, ["Flow"]),
    "subgroups": Statement(whole=_subgroups, tables=["Wrong answers by stratum"]),
    "tests": Statement(
        whole=_tests,
        always="differences of models: as `report compare` and `report table --metric` test them",
    ),
    "threshold": Statement(
        tables=[OPERATIONS],
        always="fixed on val; of several classes the class with the largest score",
    ),
    "training": Statement(_training),
    "unit": Statement(_unit),
}

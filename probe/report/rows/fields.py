"""Every field of a row by name: what --where, --by, --sort, --columns and load_results call it.

Metrics are fields too, by their names in rows; ``val:auc`` is val's, and ``probe.k`` or
``features.key.precision`` any other value of the row's JSON, by its path.
"""

import datetime
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cache.commands.names import near_names
from cache.errors import RequestError
from probe.metrics.intervals import Interval
from probe.metrics.prepared import METRICS
from probe.report.rows.beside import is_joined, layer_of, pool_of, short_name, sizes_of
from probe.report.rows.stored import StoredRow
from probe.results import as_json

ENCODER, SAMPLES, QUESTION, FOUND, RECORD = "encoder", "samples", "question", "found", "record"
DIGESTS, N_DIGITS = ("id", "features"), 4
VAL_PREFIX = "val:"
# Column "scale" of few-shot rows: by what features are standardised, as the flag has it.
SCALES = {"train-unlabelled": "train", "by each episode": "episode", "none (L2)": "none"}
OPERATOR = re.compile(r"^([A-Za-z_][\w:. ]*?)\s*(!=|<=|>=|=|<|>)\s*(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Field:
    """One thing that a row says."""

    name: str
    told: str  # what it is, for pages and --help
    of: Callable[[StoredRow], Any]  # None: the row has none
    part: str  # of a row: ENCODER, SAMPLES, QUESTION, FOUND (val's or folds' choice), RECORD
    heading: str = ""  # of its column, where that isn't the name

    @property
    def title(self) -> str:
        return self.heading or self.name


def _setting(*path: str) -> Callable[[StoredRow], Any]:
    return lambda of: _follow(of.row.answered.settings, path)


def _chosen(name: str) -> Callable[[StoredRow], Any]:
    return lambda of: of.row.answered.chosen.get(name)


def _follow(value: Any, path: Iterable[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _cost(name: str) -> Callable[[StoredRow], Any]:
    return lambda of: getattr(of.row.cost, name)


def _mode(of: StoredRow) -> str | None:
    """What trained of a fine-tuned encoder: "full", "partial from 8, cut after 9", "head, deit"."""
    settings = of.row.answered.settings
    words = str(settings.get("mode", ""))
    if settings.get("freeze_until") is not None:
        words += f" from {settings['freeze_until']}"
    if settings.get("cut_after") is not None:
        words += f", cut after {settings['cut_after']}"
    return words + (", deit" if settings.get("head") == "deit" else "") or None


def _weights(of: StoredRow) -> str | None:
    found = [str(part.key.get("weights") or "?")[:19] for part in of.row.encoded.parts]
    return "/".join(found) if set(found) != {"?"} else None


def _set(of: StoredRow) -> str | None:
    found = of.row.answered.chosen.get("settings", {})
    return ", ".join(f"{name}={value}" for name, value in found.items()) or None


def _protocol(of: StoredRow) -> str | None:
    protocol = of.row.answered.protocol
    if not protocol:
        return None
    words = [str(protocol.get("name", ""))]
    words += ["as published"] if protocol.get("as_published") else []
    words += ["but " + ", ".join(map(str, protocol["changed"]))] if protocol.get("changed") else []
    return ", ".join(filter(None, words)) or None


def _place(of: StoredRow) -> str | None:
    settings = of.row.answered.settings
    if "place_chosen" in settings:
        return "chosen"
    if is_joined(of.row):
        return "joined"
    return "named" if "layer" in settings else None


def _fitted(of: StoredRow) -> str | None:
    settings = of.row.answered.settings
    if "few_shot" in settings or "train" not in settings.get("read", ()):
        return None
    return str(settings["refit"]) if isinstance(settings.get("refit"), str) else "train"


def _n(split: str) -> Callable[[StoredRow], Any]:
    return lambda of: of.row.n.get(split)


def leaks_of(of: StoredRow) -> str:
    """Exact copies + near twins, then patients, of test or else of val.

    "?" where nobody knows, "?p" where nobody knows patients.
    """
    leaks = of.row.posed.leaks
    if leaks is None:
        return "?"
    which = "" if leaks["n"] else "val_"
    exact, near, groups = (leaks[f"{which}{what}"] for what in ("exact", "near", "groups"))
    twins = f"{exact}+{near}" if exact or near else "0"
    if groups is None:
        return f"{twins} ?p"
    return f"{twins} {groups}p" if groups else twins


def _date(of: StoredRow) -> str | None:
    if not of.written:
        return None
    return datetime.datetime.fromtimestamp(of.written).strftime("%Y-%m-%d %H:%M")


FIELDS = (
    Field("data", "data set", lambda of: of.row.encoded.dataset, SAMPLES),
    Field("model", "encoder, as it is called beside others", lambda of: short_name(of.row.encoded), ENCODER),
    Field("encoder", "its full name", lambda of: of.row.encoded.encoder or None, ENCODER),
    Field("weights", "digest of its weights", _weights, ENCODER),
    Field("size", "of its input, in pixels", lambda of: sizes_of(of.row.encoded), ENCODER),
    Field("layer_norm", "how its layers are normed", lambda of: _follow(of.row.encoded.key, ("layers", "norm")), ENCODER, "layer norm"),
    Field("prepared", "paper whose image preparation it is", lambda of: of.row.encoded.protocol or None, ENCODER),
    Field("seen", "whether pretraining saw the images", lambda of: of.row.encoded.seen, ENCODER),
    Field("task", "kind of labels", lambda of: of.row.encoded.task, SAMPLES),
    Field("target", "labels laid over the stored ones", lambda of: of.row.posed.target_words or None, SAMPLES),
    Field("split", "split laid over the stored one", lambda of: of.row.posed.split_words or None, SAMPLES),
    Field("fold", "fold or site", lambda of: of.row.posed.fold or None, SAMPLES),
    Field("trained", "data set that was learnt from, where it is another", lambda of: of.row.posed.trained_on.dataset if of.row.posed.trained_on else None, SAMPLES, "trained on"),
    Field("kind", "kind of probe, or finetune", lambda of: of.row.answered.kind, QUESTION),
    Field("protocol", "paper whose probe or training it is", _protocol, QUESTION),
    Field("mode", "what was trained of the encoder", _mode, QUESTION),
    Field("layer", "layer, from 0; of several side by side 0..11 or 2+5", lambda of: layer_of(of.row), QUESTION),
    Field("pool", "pool", lambda of: pool_of(of.row), QUESTION),
    Field("depth", "layers side by side", _setting("n_last"), QUESTION, "layers"),
    Field("place", "whether layer and pool were chosen, or named; joined: several side by side", _place, QUESTION),
    Field("aggregate", "how a sample's rows become one", _setting("aggregate"), QUESTION),
    Field("pooling", "of abmil: how rows become one, gated attention or the mean", _setting("pooling"), QUESTION),
    Field("averaging", "of stack: equal weights of the places, or stacked ones, chosen without test", _setting("weights"), QUESTION),
    Field("measured", "what is measured, where not samples", _setting("scores_of"), QUESTION),
    Field("shots", "few-shot: labelled samples of a class", lambda of: of.row.answered.shots, QUESTION),
    Field("episodes", "few-shot: how many draws", _setting("few_shot", "episodes"), QUESTION),
    Field("scale", "few-shot: by what features are standardised", lambda of: SCALES.get(str(of.row.answered.settings.get("standardised"))), QUESTION),
    Field("prompts", "prompts of a class", _setting("text", "n_prompts"), QUESTION),
    Field("control", "what stands in an encoder's place", _setting("control"), QUESTION),
    Field("seed", "of the training", lambda of: of.row.answered.training_seed, QUESTION),
    Field("fitted", "what was fitted on", _fitted, FOUND, "fitted on"),
    Field("k", "neighbours, asked or chosen", lambda of: of.row.answered.settings.get("k", of.row.answered.chosen.get("k")), FOUND),
    Field("encoder_lr", "learning rate of the encoder, chosen", _chosen("encoder_lr"), FOUND, "encoder lr"),
    Field("head_lr", "learning rate of the head, chosen", _chosen("head_lr"), FOUND, "head lr"),
    Field("set", "settings of an estimator, chosen", _set, FOUND),
    Field("C", "inverse strength of the penalty, chosen", _chosen("strength"), FOUND),
    Field("penalty", "penalty, chosen", _chosen("penalty"), FOUND),
    Field("leaks", "copies + near twins, and patients, that test has in an earlier split", leaks_of, RECORD),
    Field("n_train", "samples learnt from", _n("train"), RECORD),
    Field("n_val", "of val", _n("val"), RECORD),
    Field("n_test", "of test", _n("test"), RECORD),
    Field("seconds", "that it took", lambda of: of.row.seconds, RECORD),
    Field("parameters", "of the encoder; of a training with its adapters and its head", _cost("parameters"), RECORD),
    Field("trained_parameters", "of the probe's linear head, or all that trained", _cost("trained_parameters"), RECORD, "trained parameters"),
    Field("images_per_second", "as features were extracted: reading and storing included", _cost("images_per_second"), RECORD, "images/s"),
    Field("inference_seconds", "forward pass of one image", _cost("inference_seconds_per_image"), RECORD, "s/image"),
    Field("training_seconds", "of a training, to the tested weights", _cost("training_seconds"), RECORD, "training s"),
    Field("bytes", "an image's features that the answer is made from, as stored", _cost("bytes_per_image"), RECORD, "bytes/image"),
    Field("device", "that times are of", _cost("device"), RECORD),
    Field("written", "when", _date, RECORD),
    Field("names", "tags", lambda of: ", ".join(of.names) or None, RECORD),
    Field("id", "SHA-256 of the question", lambda of: of.id, RECORD),
    Field("features", "digest of the feature file's key", lambda of: of.row.encoded.digest, RECORD),
    Field("path", "the row's file", lambda of: str(of.path) if of.path else None, RECORD),
)  # fmt: skip
BY_NAME = {field.name: field for field in FIELDS}
METRIC_NAMES = tuple(metric.name for metric in METRICS)
USUAL_METRICS = ("auc", "mae", "dice")  # where none is typed, the first that rows have
METRIC_WORDS = {m.column: m.name for m in METRICS if m.column} | {"ap": "average_precision"}


@cache
def find_field(name: str) -> Field:
    """A field by its name, a metric's or val's, or the path of a value in the row's JSON.

    Raises:
        RequestError: there is none of this name.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    prefix, is_val, metric = name.rpartition(VAL_PREFIX)
    metric = METRIC_WORDS.get(metric, metric)
    if metric in METRIC_NAMES and not prefix:
        if is_val:
            return Field(
                name, f"{metric} on val", lambda of: _known(of.row.measured.val.get(metric)), RECORD
            )
        return Field(
            name, f"{metric} on test", lambda of: _value(of.row.measured.test.get(metric)), RECORD
        )
    if "." in name:
        path = name.split(".")
        return Field(
            name,
            "of the row's JSON",
            lambda of: _follow(of.content or as_json(of.row), path),
            RECORD,
        )
    names = [*BY_NAME, *METRIC_NAMES]
    raise RequestError(
        f"no field {name!r} of a row; {near_names(name, names, 'fields are ' + ', '.join(names))}"
    )


def _value(of: Interval | None) -> float | None:
    return None if of is None else _known(of.value)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def metric_named(word: str) -> str:
    """A metric by its name in rows or its column in tables.

    Raises:
        RequestError: there is none.
    """
    name = METRIC_WORDS.get(word, word)
    if name not in METRIC_NAMES:
        raise RequestError(
            f"no metric {word!r}; {near_names(word, METRIC_NAMES, 'metrics are ' + ', '.join(METRIC_NAMES))}"
        )
    return name


def usual_metric(rows: Iterable[StoredRow]) -> str:
    """The metric where none is typed: AUC; where only numbers were predicted the mean error, and of
    masks Dice.
    """
    known = metrics_of(rows)
    return next((name for name in USUAL_METRICS if name in known), USUAL_METRICS[0])


def no_metric(name: str, rows: Sequence[StoredRow]) -> RequestError:
    """The error where no row has a metric on test, which names what rows have."""
    known = metrics_of(rows)
    there = [each for each in dict.fromkeys((*USUAL_METRICS, *METRIC_NAMES)) if each in known]
    if name in there or not there:
        return RequestError(f"no row has {name} on test: these rows haven't read it")
    return RequestError(
        f"no row has {name} on test; they have {', '.join(there)}: --metric {there[0]}"
    )


def metrics_of(rows: Iterable[StoredRow]) -> set[str]:
    """Metrics that any row has: of those that read test on test, of others on val."""
    return {name for of in rows for name in of.row.measured.test or of.row.measured.val}


def written(value: Any) -> str:
    """A field's value as text; nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping | list | tuple):
        from cache.format.key import canonical_json

        return canonical_json(value)
    return str(value)


def read_condition(text: str) -> Callable[[StoredRow], bool]:
    """What --where says: "kind=knn", "k>=20", "data!=octmnist", "model=vit,dinov2" (one of them).

    Numbers are compared as numbers; a row that hasn't the field fits "!=" alone, and "shots=" those
    that have none.

    Raises:
        RequestError: it isn't of that form, or there is no such field.
    """
    found = OPERATOR.match(text.strip())
    if not found:
        raise RequestError(f"--where takes FIELD=VALUE, or with != < <= > >=; not {text!r}")
    name, sign, wanted = found[1].strip(), found[2], found[3].strip()
    field = find_field(name)
    if sign in ("=", "!="):
        words = [word.strip() for word in wanted.split(",")]
        is_equal = sign == "="
        same = _begins if field.name in DIGESTS else _equals
        return lambda of: any(same(field.of(of), word) for word in words) == is_equal
    if field.name == "written":  # dates and times, whose order is that of their letters
        return lambda of: _compare(written(field.of(of)), sign, wanted)
    try:
        limit = float(wanted)
    except ValueError:
        raise RequestError(f"--where {text}: {sign} takes a number, not {wanted!r}") from None

    def compare(of: StoredRow) -> bool:
        value = field.of(of)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return _compare(value, sign, limit)

    return compare


def _compare(value: Any, sign: str, limit: Any) -> bool:
    return {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[sign](
        value, limit
    )


def _begins(value: Any, word: str) -> bool:
    """Whether a digest is meant by its first digits, at least four."""
    text = written(value)
    return text == word or (len(word) >= N_DIGITS and text.startswith(word))


def _equals(value: Any, word: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(word) == value
        except ValueError:
            return False
    return written(value) == word


def sorted_by(
    rows: Iterable[Any], names: Sequence[str], of: Callable[[Any], StoredRow]
) -> list[Any]:
    """In the order of fields; "-auc" from the largest. What hasn't a field stands last.

    Raises:
        RequestError: there is no such field.
    """
    found = list(rows)
    for name in reversed(names):
        field, is_down = find_field(name.removeprefix("-")), name.startswith("-")
        known = [row for row in found if field.of(of(row)) is not None]
        rest = [row for row in found if field.of(of(row)) is None]
        found = sorted(known, key=lambda row: _order(field.of(of(row))), reverse=is_down) + rest
    return found


def is_number(word: str) -> bool:
    """Whether a word is one."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def natural(word: str) -> tuple[float, str]:
    """For sorting words, of which some are numbers; those first."""
    return (float(word), "") if is_number(word) else (math.inf, word)


def _order(value: Any) -> tuple[int, float, str]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if is_number else (1, 0.0, written(value))

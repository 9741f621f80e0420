"""Lines of ``probe`` and ``finetune`` that ask again what rows answer, made of rows' settings.

A row holds every setting that changes its numbers, and no line. What the defaults are is declared
with the flags, in classes that ``report`` doesn't load: here they stand once more, and a test holds
both together.

Long because a row's settings are one question, which is typed as one line.
"""

import math
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cache.task import ASKED
from probe.report.rows.beside import is_joined, short_name, sized_name, typed_places
from probe.report.rows.fields import natural
from probe.report.rows.stored import StoredRow
from probe.results import Row

Values = tuple[str, ...]  # behind a flag, comma separated; (): it is a switch

CONTROL, FINETUNE, STACK = "control", "finetune", "stack"  # kinds of rows
# Settings of a kind -> their defaults, under the names that rows have.
USUAL: Mapping[str, Mapping[str, Any]] = {
    "knn": {"metric": "cosine", "vote": None, "temperature": 0.07},
    "linear": {
        "strengths": [10 ** (-6 + place / 2) for place in range(17)],
        "form": "multinomial",
    },
    "stack": {
        "strengths": [10 ** (-6 + place / 2) for place in range(17)],
        "form": "multinomial",
    },
    "ridge": {"penalties": [10 ** (-6 + place / 2) for place in range(25)]},
    "adamw": {
        "lr": 1e-3,
        "weight_decay": 1e-2,
        "batch_size": 64,
        "iterations": 15_000,
        "epochs": None,
        "choose_by": "acc",
    },
    "abmil": {
        "lrs": [1e-3, 3e-3, 1e-2, 3e-2],
        "weight_decays": [1.0, 1e-2],
        "hidden": 128,
        "dropout": 0.25,
        "batch_size": 32,
        "iterations": None,
    },
    "heads": {
        "lrs": [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1],
        "batch_size": 128,
        "epochs": 10,
        "iterations": 1250,
        "choose_by": "acc",
        "seed": 0,
    },
    "fusion": {
        "lrs": [1e-4, 1e-3, 1e-2],
        "weight_decays": [1.0, 1e-2],
        "dropouts": [0.3, 0.0],
        "batch_size": 2048,
        "iterations": 200,
        "epochs": 10,
        "noise": 0.0,
        "class_weights": "balanced",
    },
    "attentive": {
        "lrs": [1e-3, 3e-3, 1e-2, 3e-2],
        "weight_decays": [1.0, 1e-2],
        "queries": None,
        "batch_size": 128,
        "iterations": 400,
        "epochs": 10,
        "class_weights": "balanced",
    },
    "segment": {"strengths": [10.0**power for power in range(-6, 3)], "solver": "logistic"},
    "segment-knn": {"temperature": 0.07, "bank": 100_000},
    "decoder": {
        "head": "linear",
        "loss": "ce+dice",
        "optimiser": "adamw",
        "lrs": [1e-3, 1e-2, 1e-1],
        "weight_decay": 1e-3,
        "batch_size": 16,
        "iterations": 300,
        "epochs": None,
        "warmup": None,
        "class_weights": "none",
        "dropout": 0.0,
    },
    FINETUNE: {
        "head": "linear",
        "pool": "head",
        "freeze_until": None,
        "freeze_norm": False,
        "cut_after": None,
        "batchnorm": "auto",
        "drop_path": 0.0,
        "optimiser": "adamw",
        "head_lr": 1e-3,
        "encoder_lr": [1e-5],
        "weight_decay": 1e-2,
        "decay_1d": True,
        "momentum": 0.9,
        "layer_decay": 1.0,
        "clip": None,
        "batch_size": 64,
        "iterations": 15_000,
        "epochs": None,
        "schedule": "decay",
        "warmup": 0,
        "warmup_epochs": None,
        "n_checks": 10,
        "patience": None,
        "choose_by": "acc",
        "augment": "none",
        "refit": "train",
        "precision": "fp32",
        "lora_rank": 16,
        "lora_alpha": 16.0,
        "lora_dropout": 0.0,
        "lora_targets": [],
        "lora_train_bias": False,
    },
}
USUAL_SEEDS = ("0", "1", "2")  # of trainings
USUAL_STRENGTH = [0.01]  # of linear probes in episodes
SEGMENTING = ("segment", "segment-knn", "decoder")
USUAL_K = {False: [10, 20, 100, 200], True: [10]}  # of segment-knn, and of it in episodes
EACH = ("--freeze-until", "--cut-after", "--encoder-lr", "--lr")  # finetune --each joins their rows
RENAMED = {
    **{
        "head_lr": "--lr",
        "lrs": "--lr",
        "weight_decays": "--weight-decay",
        "dropouts": "--dropout",
        "n_checks": "--checks",
        "seed": "--seeds",
    },
    **{"how": "--choose", "pools": "--pool"},
}
# Flags that say which question it is, whatever is asked of it.
OF_QUESTION = (
    *("--labels", "--target", "--uncertain", "--task", "--split", "--split-seed", "--split-file"),
    *("--train-data", "--test-data", "--test-split", "--aggregate", "--shots", "--episodes"),
    *(
        "--episode-seed",
        "--draw",
        "--prior",
        "--standardise",
        "--resamples",
        "--nsd-tolerance",
        "--seed",
    ),
)
STANDARDISE = {"by each episode": "episode", "none (L2)": "none"}  # a row's words -> the flag's
FEW_OF_VAL = 500  # samples, below which folds are taken anyway


@dataclass(frozen=True)
class Line:
    """A command with its flags, and how many rows it makes."""

    command: str  # "probe" or "finetune"
    flags: Mapping[str, Values]  # --set NAME: one of several --set
    n: int = 1

    def __str__(self) -> str:
        return shlex.join(self.words())

    def words(self) -> list[str]:
        found = [self.command]
        for flag, values in self.flags.items():
            text = ",".join(values)
            if self.command == FINETUNE and flag in EACH and len(values) > 1:
                found += ["--each", f"{flag[2:]}={text}"]
            elif flag.startswith("--set "):
                found += ["--set", f"{flag[6:]}={text}"]
            elif not values:
                found.append(flag)
            else:  # one word where the value might pass for a flag
                found += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
        return found

    def asking(self, flags: Mapping[str, Values]) -> "Line":
        """The same with other flags beside its own."""
        return replace(self, flags={**self.flags, **flags})

    def of(self, *flags: str) -> dict[str, Values]:
        """Those of its flags."""
        return {name: values for name, values in self.flags.items() if name in flags}

    def without(self, *flags: str) -> "Line":
        return replace(self, flags={n: of for n, of in self.flags.items() if n not in flags})


def lines_of(rows: Sequence[StoredRow]) -> list[Line]:
    """The lines that make rows, as few as say it; of controls, which another line adds, none."""
    places: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    sizes: dict[tuple[str, str], set[int]] = defaultdict(set)
    asked = [of for of in rows if of.row.answered.kind != CONTROL]
    for of in asked:
        if of.row.answered.kind != FINETUNE and not of.row.encoded.joined:  # they say it anyway
            sizes[_file(of)].add(of.row.encoded.size)
        if _is_compared(of):
            layer, pool = _asked_at(of.row)
            places[_compared(of)][layer].append(pool)
    lines = []
    for of in asked:
        line = line_of(of, places[_compared(of)] if _is_compared(of) else None)
        if len(sizes.get(_file(of), ())) > 1:
            line = line.asking({"--size": (str(of.row.encoded.size),)})
        lines.append(line)
    return join(lines)


def join(lines: Iterable[Line]) -> list[Line]:
    """As few lines as say the same."""
    found = list(lines)
    for flag in ("--k", "--shots", "--seeds", *EACH, "--data", "--model"):
        found = _join(found, flag)
    return [_usual_seeds(line) for line in found]


def line_of(of: StoredRow, compared: Mapping[str, Sequence[str]] | None = None) -> Line:
    """The line that makes one row.

    Args:
        of: it.
        compared: of a row that didn't read test: layer -> pools of all that were compared with it.
    """
    row, settings = of.row, of.row.answered.settings
    kind = row.answered.kind
    is_tuned = kind == FINETUNE
    flags: dict[str, Values] = {}
    flags |= {"--mode": (str(settings.get("mode")),)} if is_tuned else {"--kind": (kind,)}
    changed = None
    if name := row.answered.protocol.get("name"):
        flags["--protocol"] = (str(name),)
        flags |= {"--as-published": ()} if row.answered.protocol.get("as_published") else {}
        changed = tuple(row.answered.protocol.get("changed", ()))
    own = dict(_of_kind(kind, settings))
    if not is_tuned:
        own |= _place(row, compared)
        own |= _of_choice(row.n.get("val", 0), settings)
    elif _is_of_masks(settings) and settings["layer"] != row.encoded.key["layers"]["of"] - 1:
        own["--cut-after"] = (str(settings["layer"]),)
    if kind == STACK and is_joined(row) and "--pool" not in own:
        # Its own pools are others; `--pairs` averages those of the joined row.
        flags |= {"--kind": ("linear",), "--pairs": ()}
    if changed is not None:  # the others are the paper's
        own = {flag: v for flag, v in own.items() if _is_changed(flag, changed)}
    flags |= own
    if "training_seed" in settings:  # where val chose a rate, all seeds had a say
        seeds = settings.get("seeds", (settings["training_seed"],))
        flags["--seeds"] = tuple(map(str, seeds))
    few = settings.get("few_shot", {})
    if is_tuned and few:
        flags |= {"--episodes-like": ("ROW",), "--episodes": (_text(few.get("episodes")),)}
    elif few:
        flags |= _of_episodes(few, settings, changed)
    flags |= _of_data(of)
    if is_tuned:
        flags["--size"] = (str(row.encoded.size),)
        own_weights = row.encoded.label.removeprefix(row.encoded.model).strip(" ()")
        if own_weights:
            flags["--weights"] = ("random" if own_weights == "random" else "FILE",)
    flags |= {} if row.seed == 0 else {"--seed": (str(row.seed),)}
    if settings.get("nsd_tolerance", 1.0) != 1.0:
        flags["--nsd-tolerance"] = (str(settings["nsd_tolerance"]),)
    if settings.get("n_resamples", 1000) != 1000:
        flags["--resamples"] = (str(settings["n_resamples"]),)
    external = row.posed.trained_on
    where = {"--test-data" if external else "--data": (row.encoded.dataset,)}
    return Line(
        "finetune" if is_tuned else "probe",
        {**flags, "--model": (row.encoded.model if is_tuned else _model(of),), **where},
    )


def _of_kind(kind: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, Values]]:
    """What isn't the kind's default."""
    if kind == "knn":
        if "k_among" in settings:
            yield "--k", (f"auto:{','.join(map(str, sorted(settings['k_among'])))}",)
        elif "k" in settings:
            yield "--k", (str(settings["k"]),)
    if kind == "segment-knn" and "k_among" in settings:
        if (ks := sorted(settings["k_among"])) != USUAL_K["few_shot" in settings]:
            yield "--k", tuple(map(str, ks))
    is_of_masks = kind == FINETUNE and _is_of_masks(settings)
    usual = {**USUAL.get("decoder" if is_of_masks else kind, {})}
    if kind == "knn":
        usual["vote"] = "weighted" if settings.get("metric") == "cosine" else "majority"
    if kind in ("linear", STACK, "segment") and "few_shot" in settings:
        usual["strengths"] = USUAL_STRENGTH
    lora = settings.get("lora") or {}
    held = {**settings, **{f"lora_{name}": value for name, value in lora.items()}}
    for name, default in usual.items():
        value = held.get(name, default)
        if value is None or _same(value, default):
            continue
        flag = RENAMED.get(name, f"--{name.replace('_', '-')}")
        if isinstance(value, bool):
            yield (flag if value else f"--no-{flag[2:]}"), ()
        else:  # several rates of an encoder are one value: val chooses
            yield flag, (_text(value),)
    if kind not in USUAL and isinstance(settings.get("settings"), Mapping):
        for name, values in settings["settings"].items():
            yield f"--set {name}", tuple(map(str, values))


def _is_of_masks(settings: Mapping[str, Any]) -> bool:
    """Of finetune's rows: on masks it has the settings of the probe's heads."""
    return settings.get("pool") in ("tokens", "joined")


def _asked_at(row: Row) -> tuple[str, str]:
    """Words of ``--layer`` and ``--pool``."""
    if is_joined(row):
        return typed_places(row)
    settings = row.answered.settings
    n_last = settings.get("n_last", 1)
    return f"last{n_last}" if n_last > 1 else str(settings["layer"]), str(settings["pool"])


def _place(row: Row, compared: Mapping[str, Sequence[str]] | None) -> dict[str, Values]:
    """Which layers and pools."""
    settings = row.answered.settings
    if settings["kind"] in ("heads", "zeroshot") or "layer" not in settings:
        return {}  # they know theirs
    if "place_chosen" in settings:
        among: dict[str, list[str]] = defaultdict(list)
        for layer, pool in settings["place_chosen"].get("among", ()):
            among[str(layer)].append(pool)
        return _several(among, "auto")
    if compared and all(layer.isdigit() for layer in compared):
        return _several(compared, "all")
    if compared:  # some side by side
        pools = dict.fromkeys(pool for of in compared.values() for pool in of if pool)
        return {"--layer": tuple(compared), **({"--pool": tuple(pools)} if pools else {})}
    layer, pool = _asked_at(row)
    return {"--layer": (layer,), **({"--pool": (pool,)} if pool else {})}


def _several(pools: Mapping[str, Sequence[str]], word: str) -> dict[str, Values]:
    """``--layer auto`` or ``all``, with pools where a layer was asked at others than its usual one."""
    named = tuple(dict.fromkeys(pool for of in pools.values() for pool in of))
    is_of_one = word == "all" and len(pools) == 1 and len(named) > 1
    layer = {"--layer": (next(iter(pools)) if is_of_one else word,)}
    is_usual = all(len(set(of)) == 1 for of in pools.values()) and named not in (
        ("mean",),
        ("proj",),
        ("concat",),
    )
    return layer if is_usual else {**layer, "--pool": named}


def _of_choice(n_val: int, settings: Mapping[str, Any]) -> dict[str, Values]:
    """``--choose`` and ``--refit``, where they aren't what anybody would get."""
    by, refit = str(settings.get("chosen_by", "")), settings.get("refit")
    if "few_shot" in settings or settings["kind"] in ("heads", *SEGMENTING):
        # Heads and kinds that segment choose as they do; decoders alone may be fitted again.
        is_fitted_again = refit == "train+val" and settings["kind"] == "decoder"
        return {"--refit": (str(refit),)} if is_fitted_again else {}
    if "folds" in settings:
        found = {} if n_val < FEW_OF_VAL else {"--choose": ("cv",)}
        return found if refit else {**found, "--refit": ("train",)}
    found = {"--choose": ("val",)} if by.startswith("val ") else {}
    return {**found, "--refit": (str(refit),)} if by.startswith("val ") and refit else found


def _of_episodes(
    few: Mapping[str, Any], settings: Mapping[str, Any], changed: Sequence[str] | None
) -> dict[str, Values]:
    found = {"--shots": (_text(few.get("shots")),)}
    if changed is not None and not any("episodes" in words for words in changed):
        return found
    found["--episodes"] = (_text(few.get("episodes")),)
    if few.get("episode_seed"):
        found["--episode-seed"] = (_text(few["episode_seed"]),)
    draw = few.get("draw", "balanced")
    if draw == "file":
        found["--episodes-file"] = ("FILE",)
    elif draw != "balanced":
        found["--draw"] = (str(draw),)
    if few.get("prior", "train") != "train" and draw in ("balanced", "natural"):
        found["--prior"] = (str(few["prior"]),)
    if word := STANDARDISE.get(str(settings.get("standardised"))):
        found["--standardise"] = (word,)
    return found


def _of_data(of: StoredRow) -> dict[str, Values]:
    """Labels, split and what is measured."""
    posed, settings = of.row.posed, of.row.answered.settings
    external = posed.trained_on
    target = external.target if external else posed.target
    found: dict[str, Values] = {}
    is_dense = "masks" in target  # the newest masks beside the features
    if target.get("file") and not is_dense:
        found["--labels"] = (str(target["file"]),)
    for name in ("target", "uncertain"):
        if target.get(name):
            found[f"--{name}"] = (str(target[name]),)
    if found.keys() & {"--labels"} or str(target.get("target", "")).startswith("meta:"):
        words = {task: word for word, task in ASKED.items()}
        found["--task"] = (words[of.row.encoded.task],)
    split = external.split if external else posed.split
    if split.get("file"):
        found["--split-file"] = (str(split["file"]),)
    elif split.get("rule"):
        found["--split"] = (str(split["rule"]),)
        found |= {"--split-seed": (str(split["seed"]),)} if split.get("seed") else {}
    if external:
        found["--train-data"] = (external.dataset,)
        which = str(posed.split.get("rule", "")).removeprefix("external:")
        found |= {"--test-split": (which,)} if which else {}
    words = [str(settings["aggregate"])] if settings.get("aggregate", "mean") != "mean" else []
    words += ["patient"] if settings.get("scores_of") == "patients" else []
    return {**found, **({"--aggregate": tuple(words)} if words else {})}


def _is_changed(flag: str, changed: Sequence[str]) -> bool:
    """Whether a paper's setting was changed by this flag: "encoder lr 0.001", "no refit"."""
    names = {name for name, of in RENAMED.items() if of == flag}
    names |= {flag.split()[0][2:].removeprefix("no-")}
    words = [f"{name.replace('_', ' ').replace('-', ' ')} " for name in names]
    return any(f"{of.removeprefix('no ')} ".startswith(word) for of in changed for word in words)


def _is_compared(of: StoredRow) -> bool:
    """Whether it was compared with other layers and pools, and test wasn't read."""
    settings = of.row.answered.settings
    return "layer" in settings and "test" not in settings.get("read", ("test",))


def _compared(of: StoredRow) -> tuple[str, str]:
    line = line_of(of)
    return of.row.encoded.digest, str(line.without("--layer", "--pool", "--k", "--seeds"))


def _file(of: StoredRow) -> tuple[str, str]:
    return _model(of), of.row.encoded.dataset


def _model(of: StoredRow) -> str:
    e = of.row.encoded
    return sized_name(e) if e.joined else short_name(e)


def _join(lines: Sequence[Line], flag: str) -> list[Line]:
    """Lines that differ in one flag's value as one, with all values."""
    found: dict[tuple[str, tuple[tuple[str, Values], ...]], Line] = {}
    for line in lines:
        values = line.flags.get(flag, ())
        # "auto:1,5", and rates that val chooses from, are one value.
        is_whole = any(mark in value for value in values for mark in ",:")
        is_whole |= flag in EACH and line.command != FINETUNE
        rest = tuple((n, of) for n, of in line.flags.items() if n != flag)
        key = line.command, (*rest, (flag, values if is_whole or not values else ("",)))
        there = found.get(key)
        if there is None:
            found[key] = line
        elif is_whole or not values:
            found[key] = replace(there, n=there.n + line.n)
        else:
            values = dict.fromkeys((*there.flags[flag], *values))
            ordered = list(values) if flag in ("--data", "--model") else sorted(values, key=natural)
            joined = {**there.flags, flag: tuple(ordered)}
            found[key] = replace(there, flags=joined, n=there.n + line.n)
    return list(found.values())


def _usual_seeds(line: Line) -> Line:
    return line.without("--seeds") if line.flags.get("--seeds") == USUAL_SEEDS else line


def _same(value: Any, default: Any) -> bool:
    """Whether two settings are equal: of lists in any order, as rounding leaves them."""
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        pairs = zip(sorted(value), sorted(default), strict=False)
        return len(value) == len(default) and all(_same(a, b) for a, b in pairs)
    if isinstance(value, int | float) and isinstance(default, int | float):
        return math.isclose(value, default)
    return value == default


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

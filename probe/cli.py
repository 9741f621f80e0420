"""The command ``probe``: its flags, its output, its exit status."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.aggregate import AGGREGATES
from cache.commands.names import counted
from cache.commands.settings import add_flags, given
from cache.commands.terminal import Parser, complain, run_command, show, split_words
from cache.errors import RequestError
from probe.choosing.candidates import CHOOSE, FEW, FEW_OF_A_CLASS, REFIT, ChoosingConfig
from probe.config import KINDS, TEST_SPLITS, ProbeConfig
from probe.episodes.draw import DRAWS, FewShotConfig
from probe.episodes.prior import PRIORS
from probe.kinds import adamw, heads
from probe.kinds.adamw import AdamWConfig
from probe.kinds.heads import HeadsConfig
from probe.kinds.knn import K_OF_EPISODES, KnnConfig
from probe.kinds.linear import FORMS, STRENGTHS, LinearConfig
from probe.kinds.protocols import PROTOCOL_NAMES, Followed, Preset, find_preset, follow, settings_of
from probe.kinds.ridge import RidgeConfig
from probe.places import AUTO, POOLS
from probe.questions.overlay import CellsConfig, LabelsConfig, OverlayConfig, SplitConfig
from probe.solvers.episodes import STRENGTH
from probe.solvers.neighbours import METRICS
from probe.solvers.standardise import STANDARDISE
from probe.solvers.votes import VOTES

if TYPE_CHECKING:
    from probe.kinds.estimator import EstimatorConfig

EXAMPLES = """\
examples:
  probe --kind knn --k 200                              all features found, one k
  probe --kind linear --model dinov2 --data breastmnist
  probe --protocol doerrich2024                         a paper's probe, with all its settings
  probe --protocol wu2025 --lr 0.01                     ... but one: the row says so
  probe --kind sklearn.svm.LinearSVC --set C=0.01,0.1,1 --data breastmnist
  probe --kind my_probe.py:MyProbe                      your own: fit and predict_scores
  probe --kind linear --layer all                       val numbers of every layer
  probe --kind zeroshot --data breastmnist              for encoders with `extract --text`
  probe features/demo/*.h5 --kind knn --k 10,20         files by path
  probe --kind linear --data breastmnist --split kfold:5       other splits, no forward pass
  probe --kind linear --data mine --split 80/10/10 --split-file mine_split.csv
  probe --kind linear --data chexpert --target Edema --uncertain zeros
  probe --kind knn --data mine --labels grades.csv --target grade --task ordinal
  probe --kind ridge --data mine --target meta:age --task regression
  probe --kind linear --data breastmnist --shots 1,5,10,25     100 episodes of each
  probe --kind linear --train-data chexpert --test-data chestxray14 --target Edema
  probe table --data breastmnist                        stored rows, finetune's too, as one table
"""

ESTIMATOR = "sklearn.MODULE.CLASS or FILE.py:CLASS"  # as messages name what is none of KINDS
PATIENT = "patient"  # the word of --aggregate that is about scores, not features

# Which flags belong to which kinds; the others are refused, not ignored.
OWN_FLAGS = {
    **dict.fromkeys(("k", "metric", "vote", "temperature"), ("knn",)),
    **dict.fromkeys(("strengths", "form"), ("linear",)),
    "penalties": ("ridge",),
    "weight_decay": ("adamw",),
    **dict.fromkeys(
        ("lr", "batch_size", "iterations", "epochs", "choose_by", "seeds", "device"),
        ("adamw", "heads"),
    ),
    **dict.fromkeys(("layer", "all_test"), ("knn", "linear", "adamw", "ridge", ESTIMATOR)),
    "choose": ("knn", "linear", "ridge", ESTIMATOR),
    "refit": ("knn", "linear", "heads", "ridge", ESTIMATOR),
    **dict.fromkeys(
        ("shots", "episodes", "episode_seed", "draw", "prior", "episodes_file"),
        ("knn", "linear", "ridge", "adamw", "heads", ESTIMATOR),
    ),
    "standardise": ("linear", "ridge", ESTIMATOR),
    "text": ("zeroshot",),
    "set": (ESTIMATOR,),
}


def make_parser() -> argparse.ArgumentParser:
    """The flags; their defaults are ProbeConfig's and those of the kinds."""
    parser = Parser(
        prog="probe",
        commands=("table",),
        description="Answer questions from cached features: fit on train, choose on val, read "
        "test once; or ask texts, with nothing fitted. Every answer is one JSON row with its "
        "scores beside it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--kind",
        help=f"which probe: {', '.join(KINDS)}; sklearn.MODULE.CLASS; your own FILE.py:CLASS; or an "
        "entry point of a package",
    )
    parser.add_argument(
        "--set",
        action="append",
        metavar="NAME=VALUES",
        help="a setting of an estimator, e.g. C=0.1,1,10; of several values, or several --set, the "
        "best combination without test is taken, with --shots in each episode by its own folds",
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOL_NAMES,
        help="a paper's probe with all its settings; flags change single ones, and the row says so",
    )
    parser.add_argument(
        "--as-published",
        action="store_true",
        help="with --protocol: with the faults of its release, too",
    )
    which = parser.add_argument_group("which features")
    which.add_argument("files", nargs="*", type=Path, help="feature files (all that are found)")
    which.add_argument("--model", "-m", metavar="NAMES", help="encoders, comma separated")
    which.add_argument("--size", metavar="PX", help="input sizes, comma separated")
    which.add_argument("--data", metavar="NAMES", help="data sets, comma separated")
    which.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="PART=VALUE",
        help="a part of the key, e.g. precision=bf16, where several files fit",
    )
    which.add_argument(
        "--layer",
        help="number of the block or stage, -1 the last; last4: the last four side by side; all: "
        "val numbers of every layer; auto: test of the best by val, and of the last (-1)",
    )
    which.add_argument(
        "--pool",
        metavar="NAMES",
        help=f"{', '.join(POOLS)}; several comma separated are compared on val (cls where there is one, else head at the last layer, else mean; with --protocol what its paper reads; zeroshot: proj)",
    )
    which.add_argument(
        "--aggregate",
        metavar="WORDS",
        help=f"{' or '.join(AGGREGATES)}: what the slices of a volume become before the probe "
        f"({ProbeConfig.aggregate}); {PATIENT}: measure patients, by the mean of their samples' "
        f"scores; both as in max,{PATIENT}",
    )
    which.add_argument(
        "--all-test",
        action="store_true",
        help="where layers or pools are compared: read test for each",
    )
    labels = parser.add_argument_group("which labels (the data set's own)")
    add_flags(labels, LabelsConfig, CellsConfig)
    add_flags(parser.add_argument_group("which split (the data set's own)"), SplitConfig)
    _add_external_flags(parser)
    choosing = parser.add_argument_group("choosing strengths, penalties, layers and pools")
    choosing.add_argument(
        "--choose",
        choices=CHOOSE,
        help="on val, or by five folds of train and val, no patient or copy divided; auto: folds "
        f"where val has under {FEW} samples, or under {FEW_OF_A_CLASS} of some class ({ChoosingConfig.how})",
    )
    choosing.add_argument(
        "--refit",
        choices=REFIT,
        help="what the chosen one is fitted on (train where val decides, train+val after folds)",
    )
    k = ",".join(map(str, KnnConfig.k))
    of_knn = parser.add_argument_group("kind knn")
    of_knn.add_argument(
        "--k",
        help=f"numbers of neighbours, comma separated ({k}; with --shots 1); {AUTO}: the best of these without "
        f"test, {AUTO}:1,5,25 of others; with --shots each episode's own, by leaving one out "
        f"({','.join(map(str, K_OF_EPISODES))})",
    )
    of_knn.add_argument("--metric", choices=METRICS, help=f"({KnnConfig.metric})")
    of_knn.add_argument(
        "--vote",
        choices=VOTES,
        help="weighted by exp(similarity / temperature), one vote each, or of several labels "
        "Zhang & Zhou's ML-kNN (weighted; majority with --metric euclidean)",
    )
    of_knn.add_argument("--temperature", type=float, help=f"({KnnConfig.temperature})")
    of_linear = parser.add_argument_group("kind linear")
    strengths = ",".join(f"{c:g}" for c in LinearConfig.strengths)
    of_linear.add_argument(
        "--strengths",
        metavar="C",
        help="scikit-learn's C, comma separated, or dinov2: 45 from 1e-6 to 1e5; one is chosen "
        f"({strengths}; with --shots {STRENGTH:g})",
    )
    of_linear.add_argument(
        "--form", choices=FORMS, help=f"for several classes ({LinearConfig.form})"
    )
    penalties = RidgeConfig.penalties
    of_ridge = parser.add_argument_group("kind ridge, for continuous labels")
    of_ridge.add_argument(
        "--penalties",
        metavar="P",
        help="scikit-learn's alpha over the number of training images, comma separated; the best "
        f"on val is taken ({len(penalties)} from {min(penalties):g} to {max(penalties):g})",
    )
    _add_head_flags(parser)
    _add_few_shot_flags(parser)
    of_zeroshot = parser.add_argument_group("kind zeroshot")
    of_zeroshot.add_argument(
        "--text",
        type=Path,
        metavar="FILE",
        help="text features of the same encoder and data set, where several fit (the one beside "
        "the images)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--controls",
        action="store_true",
        help="add rows of the larger class, of pixel statistics, and of random weights where such "
        "features are there",
    )
    how.add_argument(
        "--strict",
        action="store_true",
        help="refuse files whose splits share exact copies or patients, or that can't tell",
    )
    how.add_argument(
        "--seed", type=int, default=0, help="of few-shot episodes' bootstrap (%(default)s)"
    )
    how.add_argument(
        "--resamples", type=int, default=1000, help="of few-shot episodes' bootstrap (%(default)s)"
    )
    how.add_argument("--name", default="", help="a tag for the rows of this run")
    how.add_argument(
        "--features", type=Path, metavar="DIR", help="($MEDPROBE_FEATURES or ./features)"
    )
    how.add_argument("--results", type=Path, metavar="DIR", help="($MEDPROBE_RESULTS or ./results)")
    return parser


def _add_head_flags(parser: argparse.ArgumentParser) -> None:
    of_heads = parser.add_argument_group(
        "kinds adamw and heads, trained step by step; heads is a grid over --lr and the last layers",
        "All seeds and layers of a file are one loop of adamw, and its rows one work: interrupted, "
        "it leaves none of them. Heads that diverge are named after the rows of the others.",
    )
    of_heads.add_argument(
        "--lr",
        metavar="RATES",
        help=f"learning rates, comma separated; adamw takes one ({AdamWConfig.lr:g}; "
        f"{len(HeadsConfig.lrs)} from {min(HeadsConfig.lrs):g} to {max(HeadsConfig.lrs):g})",
    )
    of_heads.add_argument(
        "--weight-decay", type=float, metavar="W", help=f"of adamw ({AdamWConfig.weight_decay:g})"
    )
    of_heads.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help=f"({AdamWConfig.batch_size}; {HeadsConfig.batch_size})",
    )
    of_heads.add_argument(
        "--iterations",
        type=int,
        metavar="N",
        help=f"of adamw in all ({AdamWConfig.iterations}), of heads in an epoch "
        f"({HeadsConfig.iterations})",
    )
    of_heads.add_argument(
        "--epochs", type=int, metavar="N", help=f"(as many as fit; {HeadsConfig.epochs})"
    )
    of_heads.add_argument(
        "--choose-by",
        choices=sorted({*adamw.CHOSEN_BY, *heads.CHOSEN_BY}),
        help=f"what val decides by ({AdamWConfig.choose_by}; {HeadsConfig.choose_by})",
    )
    of_heads.add_argument(
        "--seeds",
        metavar="SEEDS",
        help="of first weights and order, comma separated: a row each; heads takes one "
        f"({','.join(map(str, AdamWConfig.seeds))}; {HeadsConfig.seed})",
    )
    of_heads.add_argument("--device", help="where to train, e.g. cuda (cpu)")


def _add_few_shot_flags(parser: argparse.ArgumentParser) -> None:
    few = parser.add_argument_group("few-shot, of every kind that learns")
    few.add_argument(
        "--shots",
        metavar="S",
        help="learn from so many images of each class, or patients where they are known; comma "
        "separated (all of train)",
    )
    few.add_argument(
        "--episodes",
        type=int,
        metavar="E",
        help=f"draws of each ({DRAWS['balanced']}; of bigvision {DRAWS['bigvision']})",
    )
    few.add_argument("--episode-seed", type=int, metavar="SEED", help="of the draw (0)")
    few.add_argument(
        "--draw",
        choices=DRAWS,
        help="evenly by class, or in the classes' shares; or as a paper: first of the file "
        "(wu2025), patients by name (baharoon2023), bigvision (balanced)",
    )
    few.add_argument(
        "--standardise",
        choices=STANDARDISE,
        help="features, by the means and scales of train's images, whose labels stay unknown; by an "
        "episode's own; or none: each image's features have one length (train; a paper's own)",
    )
    few.add_argument(
        "--prior",
        choices=PRIORS,
        help="class shares that scores are corrected to: those of the whole of train, equal ones, "
        "those that test scores make likeliest (em: transductive), or the episode's (train; none "
        "with a paper's draw; ridge has no probabilities to correct)",
    )
    few.add_argument(
        "--episodes-file",
        type=Path,
        metavar="FILE",
        help="CSV of shots,episode,id and, if it says so, dataset: read; written where it isn't there",
    )


def _add_external_flags(parser: argparse.ArgumentParser) -> None:
    external = parser.add_argument_group("external validation")
    external.add_argument(
        "--train-data", metavar="NAME", help="fit on its train, choose on its val (or a file)"
    )
    external.add_argument("--test-data", metavar="NAMES", help="and test on this, comma separated")
    external.add_argument(
        "--test-split",
        choices=TEST_SPLITS,
        help="of --test-data: its test split, or all of it (test; all where its owner has no split)",
    )


def read_config(arguments: Sequence[str] | None) -> ProbeConfig:
    """Flags -> settings; a wrong flag ends the process with status 2."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    preset = _preset(parser, options)
    kind = options.kind if options.kind in KINDS else ESTIMATOR
    for flag, kinds in OWN_FLAGS.items():
        if kind not in kinds and getattr(options, flag) not in (None, False):
            name = flag.replace("_", "-")
            parser.error(f"--{name} belongs to --kind {' or '.join(kinds)}, not to {options.kind}")
    for flag in ("model", "size", "data", "where", "features", "test_data"):
        if options.files and getattr(options, flag):
            name = flag.replace("_", "-")
            parser.error(f"name feature files by path or by --{name}, not both")
    if options.data and options.test_data:
        parser.error("external validation takes --train-data and --test-data, and no --data")
    if options.train_data and not (options.test_data or options.files):
        parser.error("--train-data says what to fit on; add --test-data, what to test on")
    for flag in ("test_data", "test_split"):
        if getattr(options, flag) and not options.train_data:
            name = flag.replace("_", "-")
            parser.error(f"--{name} belongs to external validation; add --train-data")
    pools = split_words("--pool", options.pool)
    choosing = _given({"how": options.choose, "refit": options.refit})
    try:
        of_kind, protocol = _settings(options, preset, choosing)
        estimator = _estimator(options)
        return ProbeConfig(
            kind=estimator.name if estimator else options.kind,
            estimator=estimator,
            **{options.kind: of_kind} if of_kind else {},
            protocol=protocol,
            device=options.device or ProbeConfig.device,
            few_shot=_few_shot(options, preset.few_shot),
            layer=-1 if options.layer is None else _layer(options.layer),
            pools=pools,
            choosing=ChoosingConfig(**{**preset.choosing, **choosing}),
            **_aggregate(options.aggregate),
            text=options.text,
            all_test=options.all_test,
            controls=options.controls,
            strict=options.strict,
            seed=options.seed,
            n_resamples=options.resamples,
            name=options.name,
            files=tuple(options.files),
            models=split_words("--model", options.model),
            sizes=_numbers("--size", options.size, int),
            data=split_words("--data", options.data)
            or split_words("--test-data", options.test_data),
            where=tuple(_part(text) for text in options.where),
            overlay=OverlayConfig(**given(options, OverlayConfig)),
            train_data=options.train_data,
            test_split=options.test_split,
            features=options.features,
            results=options.results,
        )
    except RequestError as error:
        parser.error(str(error))


def _preset(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Preset:
    """The protocol's probe, or one that changes nothing; settles the kind."""
    if options.protocol is None:
        if options.as_published:
            parser.error("--as-published belongs to --protocol")
        if options.kind is None:
            parser.error(
                f"name a probe with --kind ({', '.join(KINDS)}) or a paper's by --protocol"
            )
        return Preset()
    try:
        options.kind, preset = find_preset(options.protocol, options.kind, options.as_published)
        if options.shots is not None and preset.choosing:
            raise RequestError(
                f"{options.protocol} chooses on val and refits on it, whose labels are more than the "
                f"shots; take --kind {options.kind} --shots without --protocol"
            )
    except RequestError as error:
        parser.error(str(error))
    return preset


def _settings(
    options: argparse.Namespace, preset: Preset, choosing: dict[str, str]
) -> tuple[Any, Followed | None]:
    """The kind's own settings, flags over the protocol's; and what the row says of that."""
    if options.kind not in READ:
        return None, None
    base = settings_of(preset, options.as_published)
    found = READ[options.kind](options, base)
    if options.protocol is None:
        return found, None
    plain = type(found)(**base)
    changed = {
        field.name: getattr(found, field.name)
        for field in dataclasses.fields(found)
        if getattr(found, field.name) != getattr(plain, field.name)
    }
    if options.layer not in (None, "-1"):
        changed["layer"] = options.layer
    if options.kind != "heads":  # whose refit is among its own settings
        changed |= {word: v for word, v in choosing.items() if v != preset.choosing.get(word)}
    few_shot = _few_shot(options, preset.few_shot)
    if few_shot is not None:
        usual = (
            FewShotConfig(**{"shots": few_shot.shots, **preset.few_shot})
            if preset.few_shot
            else None
        )
        changed |= {
            name: value
            for name in FEW_SHOT_FLAGS
            if (value := getattr(few_shot, name)) != getattr(usual, name, None)
            and (usual or getattr(options, FEW_SHOT_FLAGS[name]) is not None)
        }
    return found, follow(options.protocol, preset, options.as_published, changed)


def _estimator(options: argparse.Namespace) -> EstimatorConfig | None:
    """What --kind names beyond our own kinds; it is imported here, once a run."""
    if options.kind in KINDS:
        return None
    from probe.kinds.custom import find_estimator

    return find_estimator(options.kind, options.set or ())


def _knn(options: argparse.Namespace, base: dict[str, Any]) -> KnnConfig:
    given = {name: getattr(options, name) for name in ("metric", "vote", "temperature")}
    is_auto, listed = _one_of(options.k)
    given["one_k"] = is_auto or None
    given["k"] = _numbers("--k", listed, int) or (
        _k_of_episodes(is_auto) if options.shots and "k" not in base else None
    )
    config = KnnConfig(**{**base, **_given(given)})
    if options.temperature is not None and config.rule != "weighted":
        raise RequestError(f"--temperature belongs to the weighted vote, not to {config.rule}")
    return config


def _k_of_episodes(is_auto: bool) -> tuple[int, ...]:
    """An episode has few images: the nearest one, or a choice among few."""
    return K_OF_EPISODES if is_auto else (1,)


def _one_of(text: str | None) -> tuple[bool, str | None]:
    """ "auto:1,5" as True and "1,5"; "auto" as True and None: one of a list is to be chosen."""
    word, colon, listed = (text or "").partition(":")
    if word.strip() != AUTO:
        return False, text
    return True, listed if colon else None


def _linear(options: argparse.Namespace, base: dict[str, Any]) -> LinearConfig:
    strengths = STRENGTHS.get(options.strengths) or _numbers(
        "--strengths", options.strengths, float
    )
    strengths = strengths or ((STRENGTH,) if options.shots else None)
    return LinearConfig(**{**base, **_given({"strengths": strengths, "form": options.form})})


def _ridge(options: argparse.Namespace, base: dict[str, Any]) -> RidgeConfig:
    penalties = _numbers("--penalties", options.penalties, float) or None
    if penalties:
        base = {**base, "alpha": None}  # they are multiples of it, and stand in its place
    return RidgeConfig(**{**base, **_given({"penalties": penalties})})


def _adamw(options: argparse.Namespace, base: dict[str, Any]) -> AdamWConfig:
    lrs = _numbers("--lr", options.lr, float)
    if len(lrs) > 1:
        raise RequestError(
            f"--kind adamw takes one learning rate, not {options.lr!r}; --kind heads chooses among "
            "several"
        )
    given = {name: getattr(options, name) for name in ("weight_decay", "batch_size", "choose_by")}
    given |= {
        "lr": lrs[0] if lrs else None,
        "seeds": _numbers("--seeds", options.seeds, int) or None,
    }
    lasting = _given({"iterations": options.iterations, "epochs": options.epochs})
    if lasting:  # of a pair, one of which is None
        lasting = {"iterations": None, "epochs": None, **lasting}
    return AdamWConfig(**{**base, **_given(given), **lasting})


def _heads(options: argparse.Namespace, base: dict[str, Any]) -> HeadsConfig:
    names = ("batch_size", "iterations", "epochs", "choose_by")
    given = {name: getattr(options, name) for name in names}
    seeds = _numbers("--seeds", options.seeds, int)
    if len(seeds) > 1:
        raise RequestError(f"--kind heads takes one seed at a time, not {options.seeds!r}")
    given |= {
        "lrs": _numbers("--lr", options.lr, float) or None,
        "seed": seeds[0] if seeds else None,
    }
    given["refit"] = None if options.refit is None else options.refit != "train"
    return HeadsConfig(**{**base, **_given(given)})


FEW_SHOT_FLAGS = {
    "shots": "shots",
    "n_episodes": "episodes",
    "draw": "draw",
    "prior": "prior",
    "standardise": "standardise",
}
READ = {"knn": _knn, "linear": _linear, "ridge": _ridge, "adamw": _adamw, "heads": _heads}


def _few_shot(options: argparse.Namespace, preset: Mapping[str, Any]) -> FewShotConfig | None:
    """The draw of episodes, flags over the protocol's."""
    given = {
        "n_episodes": options.episodes,
        "seed": options.episode_seed,
        "draw": options.draw,
        "prior": options.prior,
        "standardise": options.standardise,
        "file": options.episodes_file,
    }
    given["shots"] = _numbers("--shots", options.shots, int) or None
    if not _given(given) and "shots" not in preset:
        return None  # a paper's draw is for those who ask for shots
    found = {**preset, **_given(given)}
    if "shots" not in found:
        raise RequestError("episodes are drawn for --shots; say how many, as in --shots 1,5,10")
    return FewShotConfig(**found)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _aggregate(text: str | None) -> dict[str, Any]:
    words = split_words("--aggregate", text)
    of_rows = [word for word in words if word != PATIENT]
    if len(set(words)) < len(words) or len(of_rows) > 1:
        raise RequestError(
            f"--aggregate takes one of {', '.join(AGGREGATES)}, and {PATIENT}; not {text!r}"
        )
    return {"per_patient": PATIENT in words, **({"aggregate": of_rows[0]} if of_rows else {})}


def _layer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _numbers(flag: str, text: str | None, kind: type) -> tuple[Any, ...]:
    words = split_words(flag, text)
    try:
        return tuple(kind(word) for word in words)
    except ValueError:
        raise RequestError(f"{flag} takes numbers, comma separated; not {text!r}") from None


def _part(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise RequestError(f"--where takes PART=VALUE, e.g. precision=bf16; not {text!r}")
    return name, value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["table"]:
        from probe.report.stored import main as show_stored

        return show_stored(words[1:])
    config = read_config(words)
    return run_command("probe", lambda: run(config), "interrupted; rows already written stay")


def run(config: ProbeConfig) -> int:
    """Find the features, ask them, print the table."""
    # Here, not above: h5py is a quarter of the time that --help may take.
    from probe.report.table import format_table
    from probe.run import choose_files, run_probe

    found, problems = choose_files(config)
    rows, more = run_probe(config, found, say=lambda line: show(line, flush=True))
    if rows:
        show(f"\n{format_table(rows)}\n")
        if not config.reads_test:
            show("Test wasn't read: --layer auto chooses layer and pool, or name one of each.")
        show(f"{counted(len(rows), 'row')} with scores in {config.results_dir}")
    for what, why in [*problems, *more]:
        complain("probe", f"{what}: {why}")
    return 1 if problems or more else 0

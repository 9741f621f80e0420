"""The command ``probe``: its flags, its output, its exit status."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.aggregate import AGGREGATES
from cache.commands.names import counted
from cache.commands.settings import add_flags, given, refuse_others
from cache.commands.terminal import Parser, complain, run_command, show, split_words
from cache.errors import Failure, RequestError
from probe.choosing.plan import ChoosingConfig
from probe.config import ExternalConfig, ProbeConfig, RunConfig
from probe.episodes.draw import FewShotConfig
from probe.finding import FindConfig
from probe.kinds.estimator import Estimator
from probe.kinds.kind import Kind
from probe.kinds.table import KINDS, TABLE
from probe.metrics.metric import Measuring
from probe.places import ALL, AUTO, PATIENT, TOKENS, PlacesConfig
from probe.protocols import PROTOCOL_NAMES, Followed, Preset, find_preset, follow, settings_of
from probe.questions.overlay import CellsConfig, LabelsConfig, OverlayConfig, SplitConfig

if TYPE_CHECKING:  # both read HDF5
    from cache.features import Features
    from probe.results import Row

EXAMPLES = """\
examples:
  probe --kind knn --k 200                              all features found, one k
  probe --kind linear --model dinov2 --data breastmnist
  probe --protocol doerrich2024                         a paper's probe, with all its settings
  probe --protocol wu2025 --lr 0.01                     ... but one: the row says so
  probe --kind sklearn.svm.LinearSVC --set C=0.01,0.1,1 --data breastmnist
  probe --kind my_probe.py:MyProbe                      your own: fit and predict_scores
  probe --kind linear --layer all                       val numbers of every layer
  probe --kind linear --layer all+ --pool cls+mean      every layer and both pools side by side
  probe --kind linear --model dinov2+clip               two encoders side by side
  probe --kind zeroshot --data breastmnist              for encoders with `extract --text`
  probe features/demo/*.h5 --kind knn --k 10,20         files by path
  probe --kind linear --data breastmnist --split kfold:5       other splits, no forward pass
  probe --kind linear --data mine --split 80/10/10 --split-file mine_split.csv
  probe --kind linear --data chexpert --target Edema --uncertain zeros
  probe --kind knn --data mine --labels grades.csv --target grade --task ordinal
  probe --kind ridge --data mine --target meta:age --task regression
  probe --kind linear --data mine --by meta:sex         each subgroup, too
  probe --kind linear --data breastmnist --shots 1,5,10,25     100 episodes of each
  probe --kind linear --train-data chexpert --test-data chestxray14 --target Edema
  probe table --data breastmnist                        stored rows, finetune's too, as one table
  probe apply ROW.json new.h5                           scores of new images, by a stored row
"""

ESTIMATOR = "sklearn.MODULE.CLASS or FILE.py:CLASS"  # as messages name what is none of KINDS
CLASSES: dict[str, type[Kind]] = {**KINDS, ESTIMATOR: Estimator}
# Common flags that some kinds have no use for, and what says whether a kind has.
SHARED = {
    **dict.fromkeys(("layer", "all_test"), "has_layers"),
    "choose": "is_chosen",
    "refit": "refits",
    "standardise": "standardises",
}


def make_parser() -> argparse.ArgumentParser:
    """The flags; each is a field of ProbeConfig's parts or of a kind."""
    parser = Parser(
        prog="probe",
        commands=("table", "apply"),
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
    add_flags(which, FindConfig, PlacesConfig)
    labels = parser.add_argument_group("which labels (the data set's own)")
    add_flags(labels, LabelsConfig, CellsConfig)
    add_flags(parser.add_argument_group("which split (the data set's own)"), SplitConfig)
    add_flags(parser.add_argument_group("external validation"), ExternalConfig)
    add_flags(
        parser.add_argument_group("choosing strengths, penalties, layers and pools"),
        ChoosingConfig,
    )
    for section in dict.fromkeys(kind.heading() for kind in TABLE):
        kinds = [kind for kind in TABLE if kind.heading() == section]
        add_flags(parser.add_argument_group(section, kinds[0].told), *kinds)
    add_flags(parser.add_argument_group("few-shot, of every kind that learns"), FewShotConfig)
    add_flags(parser.add_argument_group("how"), RunConfig, Measuring)
    return parser


def read_config(arguments: Sequence[str] | None) -> ProbeConfig:
    """Flags -> settings; a wrong flag ends the process with status 2."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        preset = _preset(options)
        _refuse_unused(options)
        kind = _read_kind(options, preset)
        _refuse_shared(options, kind)
        few_shot = _few_shot(options, preset)
        choosing = given(options, ChoosingConfig)
        places, per_patient = _read_places(options, kind)
        return ProbeConfig(
            kind,
            FindConfig(files=tuple(options.files), **_read_find(options)),
            OverlayConfig(**given(options, OverlayConfig)),
            places,
            ChoosingConfig(**{**preset.choosing, **choosing}),
            few_shot,
            ExternalConfig(**given(options, ExternalConfig)),
            Measuring(**given(options, Measuring), per_patient=per_patient),
            _followed(options, preset, kind, few_shot) if options.protocol else None,
            RunConfig(**given(options, RunConfig)),
        )
    except RequestError as error:
        parser.error(str(error))


def _preset(options: argparse.Namespace) -> Preset:
    """The protocol's probe, or one that changes nothing; settles the kind."""
    if options.protocol is None:
        if options.as_published:
            raise RequestError("--as-published belongs to --protocol")
        if options.kind is None:
            raise RequestError(
                f"name a probe with --kind ({', '.join(KINDS)}) or a paper's by --protocol"
            )
        return Preset()
    options.kind, preset = find_preset(options.protocol, options.kind, options.as_published)
    if options.shots is not None and preset.choosing:
        raise RequestError(
            f"{options.protocol} chooses on val and refits on it, whose labels are more than the "
            f"shots; take --kind {options.kind} --shots without --protocol"
        )
    return preset


def _refuse_unused(options: argparse.Namespace) -> None:
    """Refuse flags that the kind, or what else is asked, has no use for; none is ignored."""
    if options.set and options.kind in KINDS:
        raise RequestError(f"--set belongs to --kind {ESTIMATOR}, not to {options.kind}")
    refuse_others(options, "--kind", options.kind, CLASSES)
    for flag in ("model", "size", "data", "where", "features", "test_data"):
        if options.files and getattr(options, flag):
            name = flag.replace("_", "-")
            raise RequestError(f"name feature files by path or by --{name}, not both")
    if options.data and options.test_data:
        raise RequestError("external validation takes --train-data and --test-data, and no --data")
    if options.train_data and not (options.test_data or options.files):
        raise RequestError("--train-data says what to fit on; add --test-data, what to test on")
    for flag in ("test_data", "test_split"):
        if getattr(options, flag) and not options.train_data:
            name = flag.replace("_", "-")
            raise RequestError(f"--{name} belongs to external validation; add --train-data")


def _refuse_shared(options: argparse.Namespace, kind: Kind) -> None:
    """Refuse common flags that the kind has no use for; a user's own says of itself which it has."""
    for flag, fact in SHARED.items():
        if getattr(options, flag) is not None and not getattr(type(kind), fact):
            homes = [name for name, of in CLASSES.items() if getattr(of, fact)]
            name, kinds = flag.replace("_", "-"), " or ".join(homes)
            raise RequestError(f"--{name} belongs to --kind {kinds}, not to {options.kind}")


def _read_kind(options: argparse.Namespace, preset: Preset) -> Kind:
    """The kind with its own settings, flags over the protocol's."""
    if options.kind in KINDS:
        return KINDS[options.kind].read(options, settings_of(preset, options.as_published))
    from probe.kinds.custom import find_kind  # a user's code is imported here, once a run

    return find_kind(options.kind, options.set or (), tuple(KINDS))


def _read_find(options: argparse.Namespace) -> dict[str, Any]:
    found = given(options, FindConfig)
    test_data = given(options, ExternalConfig).get("test_data", ())
    return {**found, "data": test_data} if test_data else found


def _read_places(options: argparse.Namespace, kind: Kind) -> tuple[PlacesConfig, bool]:
    """Where to take features, and whether patients are measured: --aggregate says both."""
    typed = given(options, PlacesConfig)
    if kind.usual_places and typed.get("layer") in (ALL, AUTO):
        raise RequestError(
            f"--kind {kind.name} sees layers side by side, all of them unless some are named as 2+5; "
            f"not --layer {typed['layer']}, which compares single ones"
        )
    typed = {**kind.usual_places, **typed}
    words = split_words("--aggregate", typed.pop("aggregate", None))
    of_rows = [word for word in words if word != PATIENT]
    if len(set(words)) < len(words) or len(of_rows) > 1:
        raise RequestError(
            f"--aggregate takes one of {', '.join(AGGREGATES)}, and {PATIENT}; not "
            f"{options.aggregate!r}"
        )
    typed |= {"aggregate": of_rows[0]} if of_rows else {}
    return PlacesConfig(**typed), PATIENT in words


def _few_shot(options: argparse.Namespace, preset: Preset) -> FewShotConfig | None:
    """The draw of episodes, flags over the protocol's."""
    typed = given(options, FewShotConfig)
    if not typed and "shots" not in preset.few_shot:
        return None  # a paper's draw is for those who ask for shots
    found = {**preset.few_shot, **typed}
    if "shots" not in found:
        raise RequestError("episodes are drawn for --shots; say how many, as in --shots 1,5,10")
    return FewShotConfig(**found)


def _followed(
    options: argparse.Namespace, preset: Preset, kind: Kind, few_shot: FewShotConfig | None
) -> Followed:
    """What the row says of the protocol: which of its settings flags change."""
    plain = type(kind)(**settings_of(preset, options.as_published))
    differs = {
        field.name: getattr(kind, field.name)
        for field in fields(plain)  # type: ignore[arg-type]
        if getattr(kind, field.name) != getattr(plain, field.name)
        and field.name != "device"
        and getattr(kind, field.name) not in preset.also.get(field.name, ())
    }
    if options.layer not in (None, "-1"):
        differs["layer"] = options.layer
    if "refit" not in {field.name for field in fields(plain)}:  # type: ignore[arg-type]
        choosing = given(options, ChoosingConfig)
        differs |= {word: v for word, v in choosing.items() if v != preset.choosing.get(word)}
    if few_shot:
        usual = None
        if preset.few_shot:
            usual = FewShotConfig(**{"shots": few_shot.shots, **preset.few_shot})
        typed = given(options, FewShotConfig)
        for name in ("shots", "n_episodes", "draw", "prior", "standardise"):
            value = getattr(few_shot, name)
            if value != getattr(usual, name, None) and (usual or name in typed):
                differs[name] = value
    return follow(options.protocol, preset, options.as_published, differs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["table"]:
        from probe.report.cli import run_named

        return run_named("table", words[1:], "probe table")
    if words[:1] == ["apply"]:
        from probe.apply import main as apply_stored

        return apply_stored(words[1:])
    config = read_config(words)
    return run_command("probe", lambda: run(config), "interrupted; rows already written stay")


def run(config: ProbeConfig) -> int:
    """Find the features, ask them, print the table."""
    # Here, not above: h5py is a quarter of the time that --help may take.
    from probe.finding import choose_asked
    from probe.report.pages.listing import format_rows
    from probe.run import run_probe

    of_tokens = config.kind.reads == TOKENS
    found, failures = choose_asked(
        config.find, say=lambda line: show(line, flush=True), tokens=of_tokens
    )
    rows, more = run_probe(config, found, say=lambda line: show(line, flush=True))
    if rows:
        show(f"\n{format_rows(rows)}\n")
        files = [features for each in found for features in each]
        more += _show_subgroups(config, rows, files) if config.run.by else []
        if not config.places.reads_test:
            show("Test wasn't read: --layer auto chooses layer and pool, or name one of each.")
        show(f"{counted(len(rows), 'row')} with scores in {config.run.folder}")
    for what, why in [*failures, *more]:
        complain("probe", f"{what}: {why}")
    return 1 if failures or more else 0


def _show_subgroups(
    config: ProbeConfig, rows: "Sequence[Row]", found: "Sequence[Features]"
) -> list[Failure]:
    """Print what ``report table --by`` does of these rows; or why it can't."""
    from probe.report.formats.write import write
    from probe.report.pages.subgroups import page_of_subgroups
    from probe.report.rows.people import People
    from probe.report.rows.stored import StoredRow
    from probe.report.statistics.bands import parse_by

    by, people = parse_by(config.run.by), People(config.find.folder, tuple(found))
    try:
        show(write(page_of_subgroups([StoredRow(row) for row in rows], by, people)))
    except RequestError as error:
        return [Failure(f"--by {config.run.by}", str(error))]
    return []

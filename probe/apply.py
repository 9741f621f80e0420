"""``probe apply``: a stored row's classifier on new images, whether or not they have labels."""

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.commands.names import counted
from cache.commands.settings import add_flags, given
from cache.commands.terminal import Parser, run_command, show
from cache.errors import RequestError
from cache.features import Features, open_features
from cache.files import write_asked
from cache.format.key import file_stem, key_differences
from cache.places import features_root, results_root
from cache.task import Task
from probe.arrays import Doubles, Texts
from probe.finding import parts_of
from probe.metrics.classification import THRESHOLD
from probe.places import read_side_by_side
from probe.questions.external import of_encoder
from probe.questions.joining import LABELS, SPLIT, align
from probe.questions.overlay import CellsConfig, OverlayConfig
from probe.refit import Classifier, fit_again, question_of, refuse_many
from probe.results import BrokenRow, find_head
from probe.row import joined_digest
from probe.row_names import find_row

BETWEEN = "|"  # several predicted labels
STORED = "layers.stored"  # of a key: other layers beside those that are read change nothing

EXAMPLES = """\
examples:
  probe apply results/scans/dinov2_224_linear_538d92308c594f0d.json features/new/dinov2_224_0a1b2c3d4e5f.h5
  probe apply ROW.json NEW.h5 --out new.csv          new.csv and new.npz
"""


def make_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = Parser(
        prog="probe apply",
        description="Score images by the classifier of a stored row; labels and splits of theirs "
        "aren't read. Rows of linear, ridge, adamw and heads keep its weights. kNN, and linear "
        "and ridge rows from before that, are fitted again on the features that they name.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "row",
        help="its JSON file, or in $MEDPROBE_RESULTS or ./results its name, or its id's start",
    )
    parser.add_argument(
        "images",
        metavar="FEATURES",
        type=Path,
        nargs="+",
        help="a feature file; of encoders side by side one of each, as A.h5 B.h5 or A.h5+B.h5",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="a CSV of id, predicted class and scores; the same as .npz beside it (the row's name "
        "and the data set's, here)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="where a row without weights finds what it learnt from "
        "($MEDPROBE_FEATURES or ./features)",
    )
    for flag, what in (("--labels", "labels"), ("--split-file", "split")):
        parser.add_argument(
            flag,
            type=Path,
            metavar="FILE",
            help=f"of a row without weights: the table of its {what}, where they were a table's",
        )
    add_flags(parser.add_argument_group("how the table of labels was read"), CellsConfig)
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = make_parser().parse_args(arguments)
    return run_command("probe apply", lambda: run(options))


def run(options: argparse.Namespace) -> int:
    """Read the row, score the images, write what it says of them."""
    path, row = find_row(options.row, results_root(), "")
    images = [part for each in options.images for part in parts_of(each)]
    files = files_of(row, [open_features(image) for image in images], path.stem)
    features = files[0]
    out = options.out or Path(f"{path.stem}_{file_stem(features.dataset)}.csv")
    _check_place(out, options.overwrite)
    tables = {"labels": options.labels, "split_file": options.split_file}
    laid = OverlayConfig(**tables, **given(options, CellsConfig))
    classifier = classifier_of(path, row, options.features or features_root(), laid)
    x = read_side_by_side(classifier.places, files, classifier.aggregate)
    scores = classifier.scores(x)
    write_scores(out, features.ids, scores, classifier.task, row["score_type"])
    if joined_digest(files) in (row["features"]["digest"], row["trained_on"].get("digest")):
        show(f"{path.stem} was made of these features: it has learnt from some of them")
    n = counted(len(scores), "sample")
    show(f"{n} of {features.dataset} scored by {path.stem}: {out} and .npz")
    return 0


def _check_place(out: Path, overwrite: bool) -> None:
    """Refuse a place that can't be written, or that holds something, before anything is read."""
    if out.suffix != ".csv":
        raise RequestError(f"--out takes a name that ends in .csv, not {out}")
    if not out.absolute().parent.is_dir():
        raise RequestError(f"no folder at {out.parent}; make it, or name another place with --out")
    for path in (out, out.with_suffix(".npz")):
        if path.exists() and not overwrite:
            raise RequestError(
                f"{path} is there already; name another place with --out, or --overwrite"
            )


def files_of(row: Mapping[str, Any], files: Sequence[Features], name: str) -> tuple[Features, ...]:
    """The feature files in the order of the row's encoders, their samples in one order.

    Raises:
        RequestError: there is not one of each encoder, another encoder made one, or the same in
            another way; the message says in what they differ.
    """
    own = row["features"]
    parts = [(part["model"], part["key"]) for part in own.get("joined", ())]
    parts = parts or [(own["model"], own.get("key", {}))]
    if len(files) != len(parts):
        names = " and ".join(model for model, _ in parts)
        raise RequestError(
            f"{name} is of {names}: name {len(parts)} feature files of the new images, not {len(files)}"
        )
    found = []
    for model, key in parts:
        of_model = [features for features in files if features.model == model]
        fits = [f for f in of_model if not _differences(key, f)] or of_model or files
        refuse_other_encoder(key, fits[0], name)
        found.append(fits[0])
    return align(found, (LABELS, SPLIT))


def _differences(key: Mapping[str, Any], features: Features) -> list[str]:
    """In what features were made in another way than a key says."""
    keys = of_encoder(key, features.key), of_encoder(features.key, key)
    return [line for line in key_differences(*keys) if not line.startswith(f"{STORED}:")]


def refuse_other_encoder(learnt: Mapping[str, Any], features: Features, name: str) -> None:
    """Refuse features that another encoder made, or the same in another way.

    Args:
        learnt: the key of the features that were learnt from.
        features: the new ones.
        name: of the row, for messages.

    Raises:
        RequestError: they are; the message says in what they differ.
    """
    if features.is_text:
        raise RequestError(f"{features.path} holds text features, and images are scored")
    if lines := _differences(learnt, features):
        raise RequestError(
            f"{features.path.name} was made in another way than the features of {name} "
            f"({'; '.join(lines[:3])}); extract it as those"
        )


def classifier_of(
    path: Path, row: Mapping[str, Any], folder: Path, laid: OverlayConfig
) -> Classifier:
    """The classifier that a row keeps, or one that is fitted again.

    Args:
        path: of the row.
        row: as ``probe.results.read_row`` gave it.
        folder: where the features that it learnt from are looked for.
        laid: tables of labels and of a split, where it is of such.

    Raises:
        RequestError: it has none, and isn't fitted again.
    """
    refuse_many(row, path.stem)
    try:
        head = find_head(path, row)
    except (OSError, BrokenRow) as error:
        raise RequestError(
            f"the scores of {path.stem}, which hold its weights, can't be read ({error}); ask the "
            "probe anew"
        ) from error
    return head or fit_again(path, row, lambda: question_of(row, folder, path.stem, laid))


def write_scores(out: Path, ids: Texts, scores: Doubles, task: Task, score_type: str) -> None:
    """Write what is predicted as CSV and as .npz.

    Args:
        out: the CSV; the other stands beside it.
        ids: (S,) of the samples.
        scores: (S, C), of numbers (S, 1).
        task: C class names.
        score_type: of the row.

    Raises:
        RequestError: they can't be written.
    """
    names = np.array(task.class_names)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["id", *([] if task.is_continuous else ["predicted"]), *task.class_names])
    predicted: list[list[str]] = [[] for _ in ids]
    if task.has_several_labels:
        predicted = [[BETWEEN.join(names[s > THRESHOLD[score_type]])] for s in scores]
    elif not task.is_continuous:
        predicted = [[name] for name in names[scores.argmax(axis=1)].tolist()]
    for name, said, of_sample in zip(ids.tolist(), predicted, scores.tolist(), strict=True):
        writer.writerow([name, *said, *of_sample])
    with write_asked(out) as file:
        file.write(table.getvalue().encode())
    with write_asked(out.with_suffix(".npz")) as file:
        np.savez(file, ids=ids, scores=scores, class_names=names)

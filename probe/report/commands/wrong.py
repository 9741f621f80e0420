"""``report wrong``: the most confident wrong answers of one row, or hints of wrong labels."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cache.commands.names import counted
from cache.commands.terminal import Parser, show
from cache.errors import RequestError
from cache.files import write_asked
from probe.report.commands.which import add_rows, people_of, read_rows
from probe.report.findings.headline import chosen_one
from probe.report.findings.hints import label_hints
from probe.report.findings.wrong import MOST, NEAREST, SPLITS, TEST, TRAIN, VAL, find_wrong, why_not
from probe.report.formats.write import write
from probe.report.pages.gallery import draw, gallery_of, table_page, write_html
from probe.report.rows.contenders import Contender, contenders_of
from probe.report.rows.fields import usual_metric
from probe.report.rows.sides import describe, facts

FORMATS = (".png", ".html")
FLAGS = {"data": "--data", "encoder": "--model", "kind": "--kind", "trainings": "--where seed=..."}
OTHERS = "haven't read test, or measure patients or numbers"
LISTED = 5  # of the answers that there are
EXAMPLES = """\
examples:
  report wrong --data breastmnist --model dinov2 --kind linear
  report wrong --data breastmnist --model dinov2 --kind linear -o wrong.png
  report wrong --data breastmnist --model dinov2 --kind linear --labels -o labels.html --csv labels.csv
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Show the most confident wrong answers of one row, or of its folds or trainings "
        "together, each beside the training images that are nearest to it in the layer and pool "
        "that the row reads. Pictures are the thumbnails of the feature file. --labels: labels that may "
        "be wrong, by confident learning (Northcutt et al. 2021) on scores of models that weren't "
        "fitted to them: test, val, and train where a row keeps its out-of-fold scores, or folds "
        "decided.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_rows(parser)
    what = parser.add_argument_group("what is shown")
    what.add_argument("--labels", action="store_true", help="hints of wrong labels instead")
    what.add_argument("--split", choices=SPLITS, help=f"whose wrong answers ({TEST})")
    what.add_argument("--most", type=int, default=MOST, metavar="N", help="(%(default)s)")
    what.add_argument(
        "--nearest", type=int, default=NEAREST, metavar="K", help="training images (%(default)s)"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help="a file.png or file.html of pictures"
    )
    how.add_argument("--csv", type=Path, metavar="FILE", help="the same as a table, unrounded")
    parser.set_defaults(prog=prog)
    return parser


def check(options: argparse.Namespace) -> None:
    """Refuse flags that don't go together.

    Raises:
        RequestError: numbers out of range, another ending, or a split of hints.
    """
    if options.labels and options.split:
        raise RequestError("--labels looks at every split that was scored; leave --split out")
    if options.most < 1:
        raise RequestError(f"--most takes 1 and more, not {options.most}")
    if not 0 <= options.nearest <= 10:
        raise RequestError(f"--nearest takes 0 to 10, not {options.nearest}")
    if options.output is not None and options.output.suffix.lower() not in FORMATS:
        raise RequestError(
            f"-o takes a file that ends in {' or '.join(FORMATS)}, not {str(options.output)!r}"
        )


def run(options: argparse.Namespace) -> int:
    """Find them, print them, draw them.

    Raises:
        RequestError: several answers fit and none of them was chosen, or what ``find_wrong`` and ``label_hints`` refuse.
    """
    rows, status = read_rows(options, options.prog)
    if not rows:
        return status
    contender, which = _the_one(
        contenders_of(rows), "" if options.labels else options.split or TEST
    )
    if which:
        show(which)
    shared = {"most": options.most, "k": options.nearest}
    people = people_of(options)
    if options.labels:
        found = label_hints(contender, people, **shared)
    else:
        found = find_wrong(contender, people, split=options.split or TEST, **shared)
    if options.csv is not None:
        with write_asked(options.csv) as file:
            file.write(write(table_page(found, is_whole=True), "csv").encode())
    if options.output is None:
        show(write(table_page(found), "terminal"))
        return status
    gallery = gallery_of(found)
    if not gallery.cards:
        show(f"{gallery.lead[0]} There is nothing to draw: {options.output} isn't written.")
        return status
    with write_asked(options.output) as file:
        if options.output.suffix.lower() == ".png":
            draw(gallery).save(file, "PNG")
        else:
            file.write(write_html(gallery).encode())
    for text in (*gallery.lead, *gallery.notes):
        show(text)
    show(f"{options.output}: {counted(len(gallery.cards), 'sample')}")
    return status


def _the_one(contenders: Sequence[Contender], split: str) -> tuple[Contender, str]:
    """The contender that is asked for, and which of several it is, in words.

    Of several that can be shown it is the one that was chosen without test.

    Args:
        contenders: that flags fit.
        split: whose answers are shown; "": of any.

    Raises:
        RequestError: none of several has read test, or none of those that can be shown was chosen.
    """
    n, tested = len(contenders), [c for c in contenders if c.first.row.measured.test]
    if split == TEST and n > 1 and not tested:
        raise RequestError(
            f"none of the {n} answers that fit has read test; --split {VAL}, or --all-test"
        )
    fit = contenders if split in (VAL, TRAIN) else tested or contenders
    can = [c for c in fit if not why_not(c)]
    if n == 1 or not can:
        return contenders[0], ""
    of = f"Of {n} answers that fit"
    if len(can) == 1:
        return can[0], f"{of} this is the only one that can be shown: others {OTHERS}."
    if len({c.first.row.test_set for c in can}) == 1:
        if chosen := chosen_one(can, usual_metric([c.first for c in can])):
            one, how = chosen
            left = f", {n - len(can)} of which {OTHERS}" if len(can) < n else ""
            return one, f"{of}{left}, this is {how}; --where names another."
    said = [f"{c.dataset}: {describe(c)}" for c in can]
    more = [f"and {len(said) - LISTED} more"] if len(said) > LISTED else []
    told = [facts(c) | {"data": c.dataset} for c in can]
    names = dict.fromkeys(name for of in told for name in of)
    differ = [
        FLAGS.get(n, f"--where {n}=...") for n in names if len({of.get(n) for of in told}) > 1
    ]
    raise RequestError(
        f"{len(said)} answers fit, and a gallery is of one; name it by {', '.join(differ[:4])} or "
        f"its file, as in `report wrong {can[0].first.path}`:\n  "
        + "\n  ".join([*said[:LISTED], *more])
    )

"""Pages for the tests of formats: an ordinary one, and one whose texts mean something to each."""

import math

from probe.report.formats.cells import (
    COUNT,
    P_VALUE,
    SIGNED,
    UNIT,
    Cell,
    Column,
    Page,
    Table,
)

MODELS = (
    "dinov2-b14", "vit-s16", "clip-b16", "resnet50", "densenet121", "efficientnet-b4", "vgg16",
    "sam-b16", "dino-b16", "alexnet", "eva02-b16", "biomedclip",
)  # fmt: skip
SETS = ("breastmnist", "dermamnist", "pneumoniamnist", "organamnist")
FEW = "few patients: 2 to 4 of a class"


def usual_page(models=MODELS, sets=SETS):
    """Models x data sets, AUC with intervals, the average and rank sets, and a foot."""
    columns = [Column("model")]
    columns += [Column("AUC [95 %]", name) for name in sets]
    columns += [Column("average", is_right=True), Column("ranks")]
    rows = []
    for i, model in enumerate(models):
        values = [0.94 - 0.011 * i - 0.007 * j for j in range(len(sets))]
        cells = [
            Cell(value=v, low=v - 0.034, high=v + 0.021, is_marked=i < 3 and j != 1)
            for j, v in enumerate(values)
        ]
        average = Cell(value=sum(values) / len(values), notes=(FEW,) if i == 1 else ())
        rows.append((Cell(model), *cells, average, Cell(f"{max(1, i - 2)} to {i + 4}")))
    feet = Cell("test images"), *(Cell(value=n, form=COUNT) for n in (156, 2005, 624, 17778))
    rows.append((*feet[: len(sets) + 1], Cell(), Cell()))
    table = Table(
        columns=tuple(columns),
        rows=tuple(rows),
        title="AUC on test",
        above=(("kind", "linear"), ("size", "224"), ("layer", "11")),
        below=("Family: 66 pairs on each of 4 data sets, one metric; Holm.",),
        feet=1,
    )
    return Page(
        tables=(table,),
        title="12 encoders on 4 data sets",
        lead=(
            "Exploratory: best of 48 looked at on these test sets. No comparison was named in "
            "--question, and none was chosen on val.",
        ),
        notes=("Intervals are of single values; whether two differ is said by the marks alone.",),
    )


# Means something to a table of Markdown, to LaTeX, HTML, a terminal, CSV; and letters of others.
HOSTILE = (
    "a|b & <script>alert('1')</script>",
    "two\nlines\tand\x1b[31mred\x9b0m",
    "100 % of #1_{x}^2 ~ \\input{/etc/passwd} $x$",
    '=1+2,"quoted"; `code` **bold** [link](javascript:1)',
    "Müller ± ≥ 0.5 µm, Łódź, 中文, \u202etxt, Ω, \udcff",
    "a-very-long-name-" + "x" * 70,
)
SHARED = "shared | by & both <b>tables</b> 50 %_"
ALONE = "of one cell\nonly"


def hostile_page():
    """Two tables of HOSTILE texts, lacking numbers, marks, feet and notes they share."""
    first = Table(
        columns=(
            Column(HOSTILE[0]),
            Column("auc [95 %]", HOSTILE[2]),
            Column("auc", HOSTILE[2], is_right=True),
            Column("p", is_right=True),
            Column("change", "other|over"),
        ),
        rows=(
            *(
                (
                    Cell(text, notes=(ALONE,) if i == 1 else ()),
                    Cell(value=0.1234 + i / 10, low=0.0512, high=0.9871 - i / 100, is_marked=i < 2),
                    Cell(value=0.7654 - i / 10, sd=0.0123 * (i + 1), notes=(SHARED,) * (i == 2)),
                    Cell(value=10.0**-i, form=P_VALUE),
                    Cell(value=-0.0412 * i, form=SIGNED),
                )
                for i, text in enumerate(HOSTILE)
            ),
            (
                Cell("lacking"),
                Cell(value=0.4321, low=math.nan, high=math.nan, notes=(SHARED, ALONE)),
                Cell(value=math.nan, low=math.nan, high=math.nan),
                Cell("needs the scores | all"),
                Cell(),
            ),
            (
                Cell("mean"),
                Cell(value=0.3579),
                Cell(value=0.2468, sd=math.nan),
                Cell(value=math.nan, form=P_VALUE),
                Cell("*[0.1 0.2]"),
            ),
        ),
        title="First & <i>foremost</i> | 1 %",
        above=(("kind", "linear"), ("size_px", "224 | 518 & more")),
        below=("family_of {tests} & 50 % of <all>",),
        feet=1,
    )
    second = Table(
        columns=(Column("n", is_right=True), Column("age"), Column("[who]")),
        rows=(
            (
                Cell(value=1234567, form=COUNT),
                Cell(value=63.218, low=1.2344, high=99.123, form=UNIT, notes=(SHARED,)),
                Cell("*starred", is_marked=True),
            ),
        ),
        title="Second",
    )
    empty = Table(columns=(Column("nothing"),), rows=(), title="No rows")
    return Page(
        tables=(first, second, empty),
        title="# Page | of <all> & {everything}",
        lead=("- Exploratory: best of 48 | <looked> at & 100 % \\sure", "1. not a list"),
        notes=("a note of no cell | & <u> 3 %",),
    )

"""Parts of pages that are made from the code: ``python tests/making/pages.py`` writes them anew.

A part stands in its page between ``<!-- made: NAME -->`` and ``<!-- /made -->``.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

import medmnist
from here import REPOSITORY

from cache.commands.settings import as_table
from extract.config import PreparingConfig, ProtocolConfig
from extract.datasets.arrays.medmnist import FLAGS
from extract.datasets.arrays.medsegbench import WHOLES
from extract.datasets.files.formats import dicom, mat, nifti, pillow
from extract.datasets.files.options import TableOptions
from extract.datasets.recipes import RECIPES
from finetune.config import LoraConfig, NetworkConfig, TrainConfig
from probe.choosing.plan import ChoosingConfig
from probe.config import ExternalConfig, RunConfig
from probe.episodes.draw import FewShotConfig
from probe.finding import FindConfig
from probe.kinds.table import TABLE
from probe.metrics.metric import Measuring
from probe.places import PlacesConfig
from probe.questions.overlay import OverlayConfig
from probe.report.rows.fields import FIELDS

MADE = re.compile(r"(<!-- made: (\S+) -->\n).*?(<!-- /made -->)", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |"


def of_medmnist() -> Iterator[str]:
    infos = [(flag, medmnist.INFO[flag]) for flag in FLAGS]
    yield from table(
        ("name", "task", "classes", "train", "val", "test", "licence"),
        (
            (
                f"`{flag}`",
                info["task"],
                str(len(info["label"])),
                *(str(info["n_samples"][split]) for split in ("train", "val", "test")),
                info["license"],
            )
            for flag, info in infos
        ),
    )


def of_medsegbench() -> Iterator[str]:
    yield from table(
        ("name", "images", "classes of pixels", "train", "val", "test", "licence", "parts"),
        (
            (
                f"`{name}`",
                w.of.modality,
                str(len(w.mask_classes)),
                *map(str, w.counts),
                w.of.licence,
                ", ".join(f"{p.key} {p.name}" for p in w.of.parts) or "-",
            )
            for name, w in WHOLES.items()
        ),
    )


def of_formats() -> Iterator[str]:
    readers = (
        (pillow, "8 and 16 bit; grey, colour, palettes", ""),
        (dicom, "also without an ending; windows as the file says", "`.[medical]`"),
        (nifti, "volumes, turned upright; asks for `--window`", "`.[medical]`"),
        (mat, "MATLAB 7.3, as the brain tumour set has it", ""),
    )
    yield from table(
        ("endings", "what", "needs"),
        ((" ".join(f"`{s}`" for s in reader.SUFFIXES), *words) for reader, *words in readers),
    )


def of_recipes() -> Iterator[str]:
    yield from table(
        ("name", "what", "task", "images", "archives", "licence", "needs first"),
        (
            (
                f"`{r.name}`",
                f"[{r.title}]({r.url})",
                r.task,
                str(r.n_images or "?"),
                r.size,
                r.licence,
                r.access or "-",
            )
            for r in RECIPES
        ),
    )
    yield ""
    yield from table(
        ("name", "what is expected in its folder", "split"),
        ((f"`{r.name}`", ", ".join(f"`{path}`" for path in r.layout), r.split) for r in RECIPES),
    )


def as_lines(*classes: type) -> Iterator[str]:
    """The flags of settings."""
    yield from as_table(*classes).splitlines()


def first_sentence(of: type) -> str:
    """Of its docstring."""
    return " ".join((of.__doc__ or "").split("\n\n")[0].split())


def of_kinds() -> Iterator[str]:
    yield from table(("kind", "what it is"), ((f"`{k.name}`", first_sentence(k)) for k in TABLE))
    yield "| `sklearn.MODULE.CLASS` | any estimator of scikit-learn, on standardised features |"
    yield "| `FILE.py:CLASS` | your own, see below; or an entry point of a package |"


def of_kind_settings() -> Iterator[str]:
    for kind in TABLE:
        yield from ("", f"### {kind.name}", "")
        yield from as_lines(kind)
    yield ""


def of_fields() -> Iterator[str]:
    yield from table(("field", "of", "what"), ((f"`{f.name}`", f.part, f.told) for f in FIELDS))


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "medmnist": of_medmnist,
    "medsegbench": of_medsegbench,
    "formats": of_formats,
    "recipes": of_recipes,
    "fields": of_fields,
    "kinds": of_kinds,
    "kind-settings": of_kind_settings,
    "questions": lambda: as_lines(PlacesConfig, ChoosingConfig, OverlayConfig, ExternalConfig),
    "few-shot": lambda: as_lines(FewShotConfig),
    "run": lambda: as_lines(FindConfig, RunConfig, Measuring),
    "table": lambda: as_lines(TableOptions),
    "preparing": lambda: as_lines(ProtocolConfig, PreparingConfig),
    "network": lambda: as_lines(NetworkConfig, LoraConfig),
    "training": lambda: as_lines(TrainConfig),
}
PAGES = (
    "extract/DATA.md",
    "extract/README.md",
    "finetune/README.md",
    "probe/KINDS.md",
    "probe/README.md",
    "probe/report/README.md",
)


def remade(text: str) -> str:
    """A page with every part as the code would make it now."""
    return MADE.sub(lambda part: part[1] + "\n".join([*PARTS[part[2]](), part[3]]), text)


if __name__ == "__main__":
    for page in PAGES:
        path = REPOSITORY / page
        path.write_text(remade(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")

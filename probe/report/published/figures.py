"""The papers' figures: what stands in their panels, by name.

A figure is places, each a number: one that a table prints, or one that was only ever drawn, whose
printed digits are empty. What no text says is chosen here and told in ``unknown``: values on an axis, say.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from cache.commands.names import near_names
from cache.errors import RequestError
from probe.report.published.modes import BLOCKS, CUTS, DECADES, MODES, SHOTS, STAGES
from probe.report.published.numbers import PAPERS, Number, published

CURVES, DOTS, RANKS = "curves", "dots", "cost"  # shapes
METRIC, ITERATIONS, INFERENCE = "metric", "chosen.iteration", "chosen.seconds_per_test_image"


@dataclass(frozen=True)
class Place:
    """One mark of a figure."""

    panel: str
    line: str  # or what a dot is of
    number: Number
    x: float = math.nan  # of curves; inf: all
    name: str = ""  # of dots: where it stands
    base: Number | None = None  # that it is drawn relative to
    what: str = METRIC  # that is drawn, or the path of a value in rows


@dataclass(frozen=True)
class PrintedFigure:
    """One figure of a paper."""

    paper: str
    name: str
    place: str  # what it is and where it is printed, in words
    shape: str
    places: Callable[[], Iterator[Place]]
    x: str = ""  # of curves: its label
    y: str = ""  # "": the metric's
    is_log: bool = False
    unknown: str = ""  # what the text doesn't say
    against: Callable[[], Iterator[Number]] | None = None  # of ranks: what those along x are of

    @property
    def called(self) -> str:
        """What a user types: "huix2024:fig4"."""
        return f"{self.paper}:{self.name}"


@cache
def _printed(paper: str) -> Mapping[tuple[str, str, str, str], Sequence[Number]]:
    """A paper's own numbers by model, data set, mode and metric."""
    found: dict[tuple[str, str, str, str], list[Number]] = {}
    for n in published(paper, quoting=""):
        found.setdefault((n.model, n.dataset, n.mode, n.metric), []).append(n)
    return found


def _drawn(
    paper: str, model: str, dataset: str, mode: str, metric: str, size: int | None = 224
) -> Number:
    """The printed number there is, else one of which the paper only drew a mark."""
    for number in _printed(paper).get((model, dataset, mode, metric), ()):
        if number.size in (size, None):
            return number
    return Number(PAPERS[paper], "", "", model, dataset, size, "", mode, metric, "", "")


# ---------------------------------------------------------------------------- wu2025

WU_SETS = (
    *("dermamnist", "pneumoniamnist", "breastmnist", "bloodmnist", "chestmnist", "octmnist"),
    *("organamnist", "organcmnist", "organsmnist", "pathmnist", "retinamnist", "tissuemnist"),
)
WU_WAYS = {"finetune": "end-to-end", "linear": "linear probing"}
WU_SIZES = (28, 64, 128)


@cache
def _wu_models() -> Sequence[str]:
    """In the order of its tables."""
    numbers = published("wu2025", table="results1", quoting="")
    return tuple(dict.fromkeys(number.model for number in numbers))


def _wu_rates() -> Iterator[Place]:
    for model in _wu_models():
        for dataset in WU_SETS:
            for rate in DECADES:
                number = _drawn("wu2025", model, dataset, f"encoder-lr/{rate}", "ACC")
                yield Place(model, dataset, number, float(rate))


def _wu_of_sizes(mode: str, how: str) -> Iterator[Number]:
    wanted = {"dataset": "dermamnist", "mode": mode, "metric": "ACC", "quoting": ""}
    yield from published("wu2025", table=f"results_sizes_{how}", **wanted)
    yield from published("wu2025", table="results1", size=224, **wanted)


def _wu_sizes() -> Iterator[Place]:
    for mode, told in WU_WAYS.items():
        for how in ("scale", "pad"):
            numbers = sorted(_wu_of_sizes(mode, how), key=lambda number: number.size or 0)
            for n in numbers:
                yield Place(f"{told}, {how}", n.model, n, float(n.size or 0))


def _wu_resize() -> Iterator[Place]:
    for size in WU_SIZES:
        for mode, told in WU_WAYS.items():
            for how in ("scale", "pad"):
                for n in _wu_of_sizes(mode, how):
                    if n.size == size:
                        yield Place(f"{told}, {size} px", how, n, name=n.model)


def _wu_few() -> Iterator[Place]:
    for model in _wu_models():
        for mode, told in WU_WAYS.items():
            for shots in SHOTS:
                number = _drawn("wu2025", model, "dermamnist", f"few/{mode}/{shots}", "ACC")
                yield Place(model, told, number, float(shots))


# ---------------------------------------------------------------------------- huix2024

BASELINE = "ImNet-1k-Sup"
BASELINES = (BASELINE, "DINOv1", "ResNet152")
FOUNDATIONS = ("SAM", "SEEM", "OPENCLIP", "DINOv2", "BLIP")
HUIX_SETS = {  # data set -> metric
    "aptos2019": "quadratic_kappa",
    "ddsm": "AUC",
    "isic2019": "recall",
    "chexpert": "AUC",
}
SETTINGS = ("frozen/linear", "frozen/deit-b", "unfrozen/linear", "unfrozen/deit-b")
COMPLEXITY = {  # millions of parameters of the encoders that stand for each
    "DINOv2 small": 22.0,
    "DINOv2": 87.0,
    "DINOv2 large": 304.0,
    "DINOv2 giant": 1136.0,
}


def _told(mode: str) -> str:
    return MODES["huix2024"][mode].printed


def _huix_settings(what: str, panel: str = "{}") -> Iterator[Place]:
    """Foundations x settings, relative to the tuned baseline with a linear head."""
    for dataset, metric in HUIX_SETS.items():
        base = _drawn("huix2024", BASELINE, dataset, "unfrozen/linear", metric)
        title = panel.format(f"{dataset}, {metric}" if what == METRIC else dataset)
        for model in (*FOUNDATIONS, BASELINE):
            for mode in SETTINGS:
                number = _drawn("huix2024", model, dataset, mode, metric)
                if model in FOUNDATIONS or mode == "frozen/linear":
                    yield Place(title, _told(mode), number, name=model, base=base, what=what)


def _huix_knn() -> Iterator[Place]:
    for dataset, metric in HUIX_SETS.items():
        for model in (*FOUNDATIONS, *BASELINES):
            number = _drawn("huix2024", model, dataset, "knn", metric)
            yield Place(f"{dataset}, {metric}", "k-NN", number, name=model)


def _huix_times() -> Iterator[Place]:
    yield from _huix_settings(ITERATIONS, "{}: training")
    yield from _huix_settings(INFERENCE, "{}: inference")


def _steps(model: str, usual: Sequence[str]) -> Iterator[tuple[str, float]]:
    """What is typed, and where it stands: a stage of four where as much of twelve blocks is."""
    yield from zip(STAGES if model == "SEEM" else usual, map(float, usual), strict=True)


def _huix_freezing() -> Iterator[Place]:
    for dataset, metric in HUIX_SETS.items():
        for model in (*FOUNDATIONS, BASELINE):
            for block, x in _steps(model, BLOCKS):
                number = _drawn("huix2024", model, dataset, f"freeze-until/{block}", metric)
                yield Place(f"{dataset}, {metric}", model, number, x)


def _huix_cutting() -> Iterator[Place]:
    for tuned, told in {"unfrozen": "tuned", "frozen": "frozen"}.items():
        for dataset, metric in HUIX_SETS.items():
            for model in FOUNDATIONS:
                for block, x in _steps(model, CUTS):
                    number = _drawn(
                        "huix2024", model, dataset, f"{tuned}/cut-after/{block}", metric
                    )
                    yield Place(f"{dataset}, {metric}, {told}", model, number, x)


def _huix_complexity() -> Iterator[Place]:
    for mode in ("frozen/linear", "unfrozen/linear"):
        for dataset, metric in HUIX_SETS.items():
            base = _drawn("huix2024", "DINOv2", dataset, mode, metric)
            for model, millions in COMPLEXITY.items():
                number = _drawn("huix2024", model, dataset, mode, metric)
                yield Place(_told(mode), f"{dataset}, {metric}", number, millions, base=base)


# ---------------------------------------------------------------------------- baharoon2023

SELF_TAUGHT = (  # and taught by captions
    *("DINOv2 ViT-L/14", "MAE ViT-L/16", "MSN ViT-L/16", "CLIP ViT-L/14", "OpenCLIP ViT-H/14"),
)
SUPERVISED = ("DINOv2 ViT-L/14", "DenseNet201", "ResNet152", "Supervised ViT-L/16", "VGG19")
BAHAROON_SETS = ("nih_chestxray", "chexpert", "braintumor", "sarscov2ct")
PATIENTS = {"1": 1.0, "2": 2.0, "4": 4.0, "8": 8.0, "16": 16.0, "all": math.inf}
ADAPTERS = {"linear": "1,500", "bitfit": "0.8M", "lora": "8M", "finetune": "1,100M"}  # that train


def _baharoon_tasks() -> Iterator[Place]:
    for dataset in BAHAROON_SETS:
        for model in ("DINOv2 ViT-g/14", *SELF_TAUGHT):
            yield Place("", model, _drawn("baharoon2023", model, dataset, "linear", "AUROC"))


def _baharoon_segmentation() -> Iterator[Number]:
    yield from published("baharoon2023", table="table5", size=224)


def _baharoon_linear() -> Iterator[Place]:
    for dataset in BAHAROON_SETS:
        for model in ("DINOv2 ViT-g/14", *SELF_TAUGHT):
            number = _drawn("baharoon2023", model, dataset, "linear", "AUROC")
            yield Place(dataset, "linear probing", number, name=model)


def _baharoon_few() -> Iterator[Place]:
    rows: Mapping[str, Sequence[str]] = {"self-supervised": SELF_TAUGHT, "supervised": SUPERVISED}
    for told, models in rows.items():
        for model in models:
            for n, x in PATIENTS.items():
                mode = f"fewshot/linear/{n}patients"
                number = _drawn("baharoon2023", model, "nih_chestxray", mode, "AUROC")
                yield Place(f"nih_chestxray, {told}", model, number, x)


def _baharoon_adapters() -> Iterator[Place]:
    for dataset in BAHAROON_SETS[:2]:
        for mode, n in ADAPTERS.items():
            number = _drawn("baharoon2023", "DINOv2 ViT-g/14", dataset, mode, "AUROC")
            name = f"{MODES['baharoon2023'][mode].printed}, {n}"
            yield Place(dataset, "DINOv2 ViT-g/14", number, name=name)


FIGURES = (
    PrintedFigure(
        *("wu2025", "lr", "learning rates of the encoder, appendix B", CURVES, _wu_rates),
        *("learning rate of the encoder", "", True),
        "the rates are decades from 1e-3 to 1e-7: the text lacks the paper's",
    ),
    PrintedFigure(
        *("wu2025", "sizes", "sizes of DermaMNIST's images, appendices D and E", CURVES),
        *(_wu_sizes, "side of the stored image, pixels", "", True),
    ),
    PrintedFigure(
        *("wu2025", "resize", "scaling and zero-padding, appendices D and E", DOTS, _wu_resize),
    ),
    PrintedFigure(
        *("wu2025", "few", "few images of DermaMNIST, figure few1 and appendix F", CURVES),
        *(_wu_few, "training images of each class", "", True),
        "the numbers of images are ours: the text lacks the paper's",
    ),
    PrintedFigure(
        *("huix2024", "fig1", "gain over the baseline, figure 1", DOTS),
        *(lambda: _huix_settings(METRIC), "gain over the baseline, %"),
        unknown=f"the baseline is {BASELINE}, tuned, with a linear head",
    ),
    PrintedFigure("huix2024", "fig2", "k nearest neighbours, figure 2", DOTS, _huix_knn),
    PrintedFigure(
        *("huix2024", "fig3", "training and inference times, figure 3", DOTS, _huix_times),
        x="more than the baseline, %",
        unknown=f"training is iterations to the best val; the baseline is {BASELINE}, tuned, with a "
        "linear head",
    ),
    PrintedFigure(
        *("huix2024", "fig4", "gradual freezing, figure 4", CURVES, _huix_freezing),
        "first block that trains, from 0",
        unknown="the blocks are ours; SEEM's four stages stand among them",
    ),
    PrintedFigure(
        *("huix2024", "fig5", "subsets of layers below a DeiT, figure 5", CURVES, _huix_cutting),
        "last block that is left, from 0",
        unknown="the blocks are ours; SEEM's four stages stand among them",
    ),
    PrintedFigure(
        *("huix2024", "fig6", "sizes of DINOv2, figure 6", CURVES, _huix_complexity),
        *("millions of parameters", "gain over the base model, %", True),
    ),
    PrintedFigure(
        *("baharoon2023", "fig1", "ranks in two tasks, figure 1", RANKS, _baharoon_tasks),
        *("rank in segmentation, as printed", "rank in classification"),
        unknown="segmentation isn't ours: its ranks are those of table 5",
        against=_baharoon_segmentation,
    ),
    PrintedFigure(
        *("baharoon2023", "fig3", "linear probing, figure 3", DOTS, _baharoon_linear),
    ),
    PrintedFigure(
        *("baharoon2023", "fig5", "few patients, figure 5", CURVES, _baharoon_few),
        *("patients of each class", "", True),
        "segmentation, its other half, isn't ours",
    ),
    PrintedFigure(
        *("baharoon2023", "table9", "adapters and how many parameters they train, table 9", DOTS),
        _baharoon_adapters,
    ),
)
BY_NAME: Mapping[str, PrintedFigure] = {figure.called: figure for figure in FIGURES}


def find_figure(name: str) -> PrintedFigure:
    """A figure by its paper's name and its own: "huix2024:fig4".

    Raises:
        RequestError: there is none; with the list of those that there are.
    """
    if name in BY_NAME:
        return BY_NAME[name]
    near = near_names(name, BY_NAME, f"there are {', '.join(BY_NAME)}")
    raise RequestError(f"no published figure {name!r}; {near}")

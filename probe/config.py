"""The settings of ``probe`` that every kind shares. A kind's own are beside its method."""

from dataclasses import dataclass
from pathlib import Path

from cache.aggregate import AGGREGATES
from cache.errors import RequestError
from cache.labels import UNCERTAIN_RULES
from cache.places import features_root, results_root
from cache.split_rules import SplitRule
from probe.knn import KnnConfig
from probe.linear import LinearConfig
from probe.ridge import RidgeConfig

KINDS = ("knn", "linear", "ridge", "zeroshot")
POOLS = ("cls", "mean", "head", "proj", "concat")
META = "meta:"  # a target that begins with it is a stored column: "meta:sex"
TEST_SPLITS = ("test", "all")


@dataclass(frozen=True)
class OverlayConfig:
    """Which labels and splits to lay over a feature file's own; nothing: those."""

    labels: Path | None = None  # CSV: ids in the column id, or the first; labels in the others
    target: str | None = None  # columns of labels; or stored labels; or META and a stored column
    task: str | None = None  # see cache.labels.ASKED; None: what the values look like
    positive: str | None = None  # of a binary task: the class that becomes label 1
    separator: str | None = None  # of one column that lists several labels
    uncertain: str | None = None  # one of UNCERTAIN_RULES; needed where labels are uncertain
    split: SplitRule | None = None
    split_seed: int = 0
    split_file: Path | None = None  # read; with a rule, written first where it isn't there

    def __post_init__(self) -> None:
        is_meta = bool(self.target and self.target.startswith(META))
        if self.target is not None and not self.target.strip(" ,"):
            raise RequestError(f"--target takes one or more, comma separated; not {self.target!r}")
        if is_meta and self.labels:
            raise RequestError(
                f"--target {self.target} is stored with the features; leave out --labels"
            )
        for flag, value in {"--task": self.task, "--positive": self.positive}.items():
            if value is not None and not (self.labels or is_meta):
                raise RequestError(
                    f"{flag} says how to read --labels FILE or --target {META}COLUMN; stored labels "
                    "are read already"
                )
        if self.separator is not None and not self.labels:
            raise RequestError("--label-sep belongs to --labels FILE")
        if self.uncertain is not None and self.uncertain not in UNCERTAIN_RULES:
            raise RequestError(
                f"--uncertain takes {', '.join(UNCERTAIN_RULES)}, not {self.uncertain!r}"
            )
        if self.split_seed < 0:
            raise RequestError(f"--split-seed takes 0 and more, not {self.split_seed}")
        if self.split_file and self.split and self.split.makes_several:
            raise RequestError(
                f"--split {self.split} makes several splits and a file holds one; name one of them, "
                "as in kfold:5:1 or site-out:COLUMN=VALUE"
            )


@dataclass(frozen=True)
class ProbeConfig:
    """What to ask of which features."""

    kind: str  # one of KINDS
    knn: KnnConfig | None = None  # of kind "knn"
    linear: LinearConfig | None = None  # of kind "linear"
    ridge: RidgeConfig | None = None  # of kind "ridge"
    layer: int | None = -1  # negative from the end; None: each stored layer, read on val only
    # None: cls where there is one, else head (last layer), else mean; of kind "zeroshot" proj
    pool: str | None = None
    aggregate: str = "mean"  # or "max": what a volume's slices become
    text: Path | None = None  # of kind "zeroshot"; None: the text file beside the images
    all_test: bool = False  # read test for each of several layers
    strict: bool = False  # refuse files whose splits share samples or patients
    seed: int = 0  # of the bootstrap
    n_resamples: int = 1000  # of the test set, for the 95 % intervals
    name: str = ""  # a tag for the rows of this run

    files: tuple[Path, ...] = ()  # feature files by path; empty: found by the wishes below
    models: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    data: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()  # part of the key, value
    overlay: OverlayConfig = OverlayConfig()
    train_data: str | None = None  # external validation: fit on this data set, or file
    test_split: str = "test"  # of the data tested on then: its test split, or "all" of it
    features: Path | None = None  # None: $MEDPROBE_FEATURES or ./features
    results: Path | None = None  # None: $MEDPROBE_RESULTS or ./results

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RequestError(f"--kind takes {', '.join(KINDS)}, not {self.kind!r}")
        if self.pool is not None and self.pool not in POOLS:
            raise RequestError(f"--pool takes {', '.join(POOLS)}, not {self.pool!r}")
        if self.aggregate not in AGGREGATES:
            raise RequestError(f"--aggregate takes {', '.join(AGGREGATES)}, not {self.aggregate!r}")
        if self.kind == "zeroshot" and self.layer != -1:
            raise RequestError("--kind zeroshot has no choice of layers: proj belongs to the last")
        if self.kind == "zeroshot" and self.pool not in (None, "proj"):
            raise RequestError(
                f"--kind zeroshot takes --pool proj, not {self.pool}: only proj lies in one space "
                "with texts"
            )
        if self.kind != "zeroshot" and self.text:
            raise RequestError(f"--text belongs to --kind zeroshot, not to {self.kind}")
        if self.all_test and self.layer is not None:
            raise RequestError("--all-test belongs to --layer all; one layer reads test anyway")
        if self.n_resamples < 1:
            raise RequestError(f"--resamples takes 1 and more, not {self.n_resamples}")
        if self.test_split not in TEST_SPLITS:
            raise RequestError(
                f"--test-split takes {', '.join(TEST_SPLITS)}, not {self.test_split!r}"
            )
        if self.train_data and self.kind == "zeroshot":
            raise RequestError("--kind zeroshot fits nothing, so it takes no --train-data")
        if self.train_data and self.overlay.split and self.overlay.split.makes_several:
            raise RequestError(
                f"--split {self.overlay.split} makes several splits of the training data; external "
                "validation takes one, as 90/10/0"
            )
        if self.seed < 0:
            raise RequestError(f"--seed takes 0 and more, not {self.seed}")

    @property
    def features_dir(self) -> Path:
        return self.features or features_root()

    @property
    def results_dir(self) -> Path:
        return self.results or results_root()

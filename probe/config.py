"""The settings of ``probe`` that every kind shares. A kind's own are beside its method."""

from dataclasses import dataclass
from pathlib import Path

from cache.aggregate import AGGREGATES
from cache.errors import RequestError
from cache.places import features_root, results_root
from probe.knn import KnnConfig
from probe.linear import LinearConfig

KINDS = ("knn", "linear", "zeroshot")
POOLS = ("cls", "mean", "head", "proj", "concat")


@dataclass(frozen=True)
class ProbeConfig:
    """What to ask of which features."""

    kind: str  # one of KINDS
    knn: KnnConfig | None = None  # of kind "knn"
    linear: LinearConfig | None = None  # of kind "linear"
    layer: int | None = -1  # negative from the end; None: each stored layer, read on val only
    # None: cls where there is one, else head (last layer), else mean; of kind "zeroshot" proj
    pool: str | None = None
    aggregate: str = "mean"  # or "max": what a volume's slices become
    text: Path | None = None  # of kind "zeroshot"; None: the text file beside the images
    all_test: bool = False  # read test for each of several layers
    seed: int = 0  # of the bootstrap
    n_resamples: int = 1000  # of the test set, for the 95 % intervals
    name: str = ""  # a tag for the rows of this run

    files: tuple[Path, ...] = ()  # feature files by path; empty: found by the wishes below
    models: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    data: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()  # part of the key, value
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
        if self.seed < 0:
            raise RequestError(f"--seed takes 0 and more, not {self.seed}")

    @property
    def features_dir(self) -> Path:
        return self.features or features_root()

    @property
    def results_dir(self) -> Path:
        return self.results or results_root()

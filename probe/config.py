"""The settings of ``probe`` that every kind shares. A kind's own are beside its method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cache.aggregate import AGGREGATES
from cache.errors import RequestError
from cache.places import features_root, results_root
from probe.choosing.candidates import ChoosingConfig
from probe.episodes.draw import FewShotConfig
from probe.kinds.adamw import AdamWConfig
from probe.kinds.heads import HeadsConfig
from probe.kinds.knn import KnnConfig
from probe.kinds.linear import LinearConfig
from probe.kinds.protocols import Followed
from probe.kinds.ridge import RidgeConfig
from probe.metrics.measure import Measuring
from probe.paper_encoders import Reading, reading_of
from probe.places import ALL, AUTO, POOLS, check_layer
from probe.questions.overlay import OverlayConfig

if TYPE_CHECKING:
    from probe.kinds.estimator import EstimatorConfig

KINDS = ("knn", "linear", "adamw", "heads", "ridge", "zeroshot")
TEST_SPLITS = ("test", "all")


@dataclass(frozen=True)
class ProbeConfig:
    """What to ask of which features."""

    kind: str  # one of KINDS, or the name of the estimator
    estimator: EstimatorConfig | None = None  # see probe.kinds.custom.find_estimator
    knn: KnnConfig | None = None  # of kind "knn"
    linear: LinearConfig | None = None  # of kind "linear"
    ridge: RidgeConfig | None = None  # of kind "ridge"
    adamw: AdamWConfig | None = None  # of kind "adamw"
    heads: HeadsConfig | None = None  # of kind "heads"
    protocol: Followed | None = None  # the paper whose probe this is; its settings stand above
    device: str = "cpu"  # of kinds "adamw" and "heads", as torch names it
    few_shot: FewShotConfig | None = None  # learn from episodes of train; None: from all of it
    # A number, negative from the end; "all": each stored layer, test unread; "auto": the one that
    # is best without test, and the last; "last4": the last four side by side. See layers.py.
    layer: int | str = -1
    # Empty: cls where there is one, else head (last layer), else mean; of kind "zeroshot" proj
    pools: tuple[str, ...] = ()
    choosing: ChoosingConfig = ChoosingConfig()  # noqa: RUF009
    aggregate: str = "mean"  # or "max": what a volume's slices become
    per_patient: bool = False  # measure patients, by the mean of their samples' scores
    text: Path | None = None  # of kind "zeroshot"; None: the text file beside the images
    all_test: bool = False  # read test for each of several layers or pools
    controls: bool = False  # add rows without a trained encoder; see controls.py
    strict: bool = False  # refuse files whose splits share samples or patients
    seed: int = 0  # of the bootstrap
    n_resamples: int = 1000  # of the test set, for the 95 % intervals
    name: str = ""  # a tag for the rows of this run

    files: tuple[Path, ...] = ()  # feature files by path; empty: found by the wishes below
    models: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    data: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()  # part of the key, value
    overlay: OverlayConfig = OverlayConfig()  # noqa: RUF009
    train_data: str | None = None  # external validation: fit on this data set, or file
    # Of the data tested on then: its "test" split, or "all" of it. None: test, where its owner has
    # a split; else all, for nothing of it was ever set apart.
    test_split: str | None = None
    features: Path | None = None  # None: $MEDPROBE_FEATURES or ./features
    results: Path | None = None  # None: $MEDPROBE_RESULTS or ./results

    def __post_init__(self) -> None:
        if self.kind not in KINDS and (not self.estimator or self.estimator.name != self.kind):
            raise RequestError(
                f"--kind takes {', '.join(KINDS)}, or an estimator's name; not {self.kind!r}"
            )
        check_layer(self.layer)
        if unknown := [pool for pool in self.pools if pool not in POOLS]:
            raise RequestError(f"--pool takes {', '.join(POOLS)}, not {unknown[0]!r}")
        if len(set(self.pools)) < len(self.pools):
            raise RequestError(f"each pool may be named once, found {', '.join(self.pools)}")
        if self.aggregate not in AGGREGATES:
            raise RequestError(f"--aggregate takes {', '.join(AGGREGATES)}, not {self.aggregate!r}")
        if self.kind == "zeroshot" and self.layer != -1:
            raise RequestError("--kind zeroshot has no choice of layers: proj belongs to the last")
        if self.kind == "zeroshot" and self.pools not in ((), ("proj",)):
            raise RequestError(
                f"--kind zeroshot takes --pool proj, not {', '.join(self.pools)}: only proj lies in "
                "one space with texts"
            )
        if self.kind == "heads" and (self.layer != -1 or len(self.pools) > 1):
            raise RequestError(
                "--kind heads chooses among the last layers itself, and their pools; leave out "
                "--layer, and name one --pool at most"
            )
        if self.kind != "zeroshot" and self.text:
            raise RequestError(f"--text belongs to --kind zeroshot, not to {self.kind}")
        if self.all_test and (not self.is_comparing or self.layer == AUTO):
            raise RequestError(
                "--all-test belongs to --layer all, or to several pools; one layer reads test anyway"
            )
        if self.n_resamples < 1:
            raise RequestError(f"--resamples takes 1 and more, not {self.n_resamples}")
        if self.test_split not in (None, *TEST_SPLITS):
            raise RequestError(
                f"--test-split takes {', '.join(TEST_SPLITS)}, not {self.test_split!r}"
            )
        if self.few_shot:
            self._check_few_shot()
        if self.controls and (self.few_shot or self.kind == "zeroshot" or not self.reads_test):
            raise RequestError(
                "--controls stands beside numbers on test of a probe that learns from all of train; "
                "leave out --shots, zeroshot, or --layer all without --all-test"
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

    def _check_few_shot(self) -> None:
        if self.kind == "zeroshot":
            raise RequestError("--shots belongs to kinds that learn, not to zeroshot")
        if self.heads and (self.heads.test_every or (self.heads.refit and not self.protocol)):
            raise RequestError(
                "few shots are not refitted on val, whose labels are more, nor chosen on test; leave "
                "out --refit and --as-published"
            )
        if self.is_comparing and not self.all_test:
            raise RequestError(
                "several layers or pools are compared on val, whose labels are more than the shots; "
                "name one layer and pool, or add --all-test to --layer all"
            )
        if self.choosing != ChoosingConfig():
            raise RequestError(
                "--choose and --refit take val, whose labels are more than the shots; leave them "
                "out"
            )
        assert self.few_shot
        if self.kind == "ridge" and self.few_shot.prior not in (None, "none"):
            raise RequestError(
                f"--prior {self.few_shot.prior} corrects probabilities, and --kind ridge has none; "
                "use --kind linear"
            )
        if self.few_shot.standardise and self.estimator and not self.estimator.standardises:
            raise RequestError(
                f"{self.kind} gets features as they are stored; standardise them in its fit, and "
                "leave --standardise out"
            )
        if self.linear and len(self.linear.strengths) > 1:
            raise RequestError(
                f"an episode has nothing to choose one of {len(self.linear.strengths)} strengths "
                "on: name one with --strengths, or use --kind ridge, which leaves one sample out"
            )

    @property
    def measuring(self) -> Measuring:
        return Measuring(self.n_resamples, self.seed, self.per_patient)

    @property
    def is_comparing(self) -> bool:
        """Whether several layers or pools are compared, and one may be chosen."""
        return self.layer in (ALL, AUTO) or len(self.pools) > 1

    @property
    def reads_test(self) -> bool:
        """Whether test is read: not while layers or pools are compared, unless asked for."""
        return not self.is_comparing or self.layer == AUTO or self.all_test

    @property
    def reading(self) -> Reading:
        """Which pool is meant where none is named."""
        name = self.protocol.name if self.protocol else None
        # The grid is DINOv2's, whoever named it.
        return reading_of("dinov2" if self.kind == "heads" and name is None else name)

    @property
    def features_dir(self) -> Path:
        return self.features or features_root()

    @property
    def results_dir(self) -> Path:
        return self.results or results_root()

"""What ``probe`` is asked to do: which features, which question, which kind, how it is measured."""

from dataclasses import dataclass, field
from pathlib import Path

from cache.commands.settings import check, setting
from cache.errors import RequestError
from cache.places import results_root
from probe.choosing.plan import ChoosingConfig
from probe.episodes.draw import FewShotConfig
from probe.finding import FindConfig, encoders_of, parts_of
from probe.kinds.kind import Kind
from probe.metrics.metric import Measuring
from probe.places import AUTO, PlacesConfig
from probe.protocols import Followed, Reading, reading_of
from probe.questions.overlay import OverlayConfig
from probe.report.statistics.bands import parse_by

TEST_SPLITS = ("test", "all")


@dataclass(frozen=True)
class ExternalConfig:
    """External validation: on which data to fit, and on which to test."""

    train_data: str | None = setting(
        None, "fit on its train, choose on its val (or a file)", metavar="NAME", shown=""
    )
    test_data: tuple[str, ...] = setting((), "and test on this, comma separated", metavar="NAMES")
    # None: test, where its owner has a split; else all, for nothing of it was ever set apart.
    test_split: str | None = setting(
        None,
        "of --test-data: its test split, or all of it",
        among=TEST_SPLITS,
        shown="test; all where its owner has no split",
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class RunConfig:
    """What stands beside the answers, and where they go."""

    controls: bool = setting(
        False,
        "add rows of the larger class, of pixel statistics, and of random weights where such "
        "features are there",
    )
    strict: bool = setting(
        False, "refuse files whose splits share exact copies or patients, or that can't tell"
    )
    beside: bool = setting(
        False,
        "of fusion or stack: also linear probes of the last layer and of the best by val, of all "
        "places joined, and averaged; of attentive: of the class token, and of the patches' mean",
    )
    pairs: bool = setting(
        False,
        "of linear and encoders side by side: each by itself, and every pair joined and averaged",
    )
    name: str = setting("", "a tag for the rows of this run")
    keep_heads: bool = setting(
        False, "with the scores keep the weights of heads of folds, sites and episodes, too"
    )
    by: str = setting(
        "",
        "print each subgroup, too, as report table does: meta:sex, or of numbers meta:age:40,60",
        metavar="meta:COLUMN",
    )
    results: Path | None = setting(None, "", metavar="DIR", shown="$MEDPROBE_RESULTS or ./results")

    def __post_init__(self) -> None:
        check(self)
        if self.by:
            parse_by(self.by)

    @property
    def folder(self) -> Path:
        return self.results or results_root()


@dataclass(frozen=True)
class ProbeConfig:
    """What to ask of which features.

    Raises:
        RequestError: what two of these may not be together.
    """

    kind: Kind
    find: FindConfig = field(default_factory=FindConfig)
    overlay: OverlayConfig = field(default_factory=OverlayConfig)
    places: PlacesConfig = field(default_factory=PlacesConfig)
    choosing: ChoosingConfig = field(default_factory=ChoosingConfig)
    few_shot: FewShotConfig | None = None  # learn from episodes of train; None: from all of it
    external: ExternalConfig = field(default_factory=ExternalConfig)
    measuring: Measuring = field(default_factory=Measuring)
    protocol: Followed | None = None  # the paper whose probe this is
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        kind, places = self.kind, self.places
        joins = [model for model in self.find.models if len(encoders_of(model)) > 1]
        joins += [str(path) for path in self.find.files if len(parts_of(path)) > 1]
        if joins and not kind.joins_encoders:
            raise RequestError(f"--kind {kind.name} takes one encoder at a time, not {joins[0]}")
        self._check_beside(bool(joins))
        if kind.segments and (self.run.controls or self.external.train_data or self.run.by):
            raise RequestError(
                f"--kind {kind.name} takes no --controls, --train-data or --by; leave them out"
            )
        with kind.running():
            kind.check_places(places.layer, places.pools)
        if self.measuring.nsd_tolerance != Measuring().nsd_tolerance and not kind.segments:
            raise RequestError(
                f"--nsd-tolerance is about masks, and --kind {kind.name} makes none; leave it out"
            )
        if kind.reads_rows and places.aggregate != "mean":
            raise RequestError(
                f"--kind {kind.name} reads each row of a sample, so --aggregate {places.aggregate} has "
                "no use; leave it out"
            )
        if places.all_test and (not places.is_comparing or places.layer == AUTO):
            raise RequestError(
                "--all-test belongs to --layer all, or to several pools; one layer reads test anyway"
            )
        if self.few_shot:
            self._check_few_shot(self.few_shot)
        if self.run.controls and (self.few_shot or not kind.learns or not places.reads_test):
            raise RequestError(
                "--controls stands beside numbers on test of a probe that learns from all of train; "
                "leave out --shots, zeroshot, or --layer all without --all-test"
            )
        if self.external.train_data and not kind.learns:
            raise RequestError(f"--kind {kind.name} fits nothing, so it takes no --train-data")
        split = self.overlay.split
        if self.external.train_data and split and split.makes_several:
            raise RequestError(
                f"--split {split} makes several splits of the training data; external validation "
                "takes one, as 90/10/0"
            )

    def _check_beside(self, is_joining: bool) -> None:
        if self.run.pairs and not (is_joining and self.kind.name == "linear"):
            raise RequestError(
                "--pairs takes --kind linear and encoders that a plus joins, as --model all+ or a+b+c"
            )
        if self.run.beside and (self.run.pairs or self.few_shot or not self.kind.has_baselines):
            raise RequestError(
                "--beside belongs to kinds that read all layers, as fusion, and to attentive, without "
                "--shots and --pairs"
            )

    def _check_few_shot(self, few_shot: FewShotConfig) -> None:
        if not self.kind.learns:
            raise RequestError(f"--shots belongs to kinds that learn, not to {self.kind.name}")
        if self.places.is_comparing and not self.places.all_test:
            raise RequestError(
                "several layers or pools are compared on val, whose labels are more than the shots; "
                "name one layer and pool, or add --all-test to --layer all"
            )
        if self.choosing != ChoosingConfig():
            raise RequestError(
                "--choose and --refit take val, whose labels are more than the shots; leave them "
                "out"
            )
        with self.kind.running():
            self.kind.check_few_shot(few_shot, self.protocol is not None)

    @property
    def reading(self) -> Reading:
        """Which pool is meant where none is named."""
        name = self.protocol.name if self.protocol else self.kind.paper
        return reading_of(name)

    @property
    def reads(self) -> list[str]:
        """The splits that are read, by word."""
        reads = {
            "train": self.kind.learns,
            "val": not self.few_shot or self.few_shot.chosen_on == "val",
            "test": self.places.reads_test,
        }
        return [name for name, is_read in reads.items() if is_read]

"""What an extraction will do and take, before it does anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cache import RequestError
from cache.errors import Failure
from cache.header_index import INDEX
from cache.places import memory_root
from extract.config import ExtractConfig
from extract.datasets.arrays.official import refuse_offline
from extract.datasets.drawn import SplitWish
from extract.datasets.files.images import Reading
from extract.datasets.sources import FileWishes, Source, expand_names, find_source
from extract.encoders.encoder import Description, describe, find_weights
from extract.encoders.outline_memory import OutlineMemory
from extract.encoders.resolve import find_entry
from extract.encoders.sizes import SizeError
from extract.job import Job
from extract.key import NEUTRAL, make_slicing, make_transform
from extract.machine.workers import default_workers
from extract.prepare.protocols import preprocess, wished_norm, wished_size

Report = Callable[[str, int, int], None]  # of a data set: files just opened, and all


J = TypeVar("J", bound=Job)
E = TypeVar("E")


@dataclass
class Plan(Generic[J]):
    """All jobs in order, and what can already be seen to fail."""

    config: ExtractConfig
    jobs: list[J] = field(default_factory=list)
    problems: list[Failure] = field(default_factory=list)

    def checked(self) -> Plan[J]:
        """The plan, with each problem once.

        Raises:
            RequestError: nothing at all can be done; the message says why.
        """
        self.problems = list(dict.fromkeys(self.problems))
        if not self.jobs:
            raise RequestError("; ".join(why for _, why in self.problems))
        return self


def plan_jobs(
    config: ExtractConfig, describe: Callable[[str], E], make: Callable[[E, str], J]
) -> Plan[J]:
    """A job for each encoder on each data set; one that can't be had doesn't stop the others.

    Args:
        config: the user's wishes.
        describe: an encoder by its name.
        make: the job of an encoder and a data set's name.

    Raises:
        RequestError: nothing at all can be done; the message says why.
    """
    plan: Plan[J] = Plan(config)
    for model in dict.fromkeys(config.models):
        try:
            encoder = describe(model)
        except (RequestError, OSError) as error:
            plan.problems.append(Failure(model, str(error)))
            continue
        for name in expand_names(config.data):
            try:
                plan.jobs.append(make(encoder, name))
            except (RequestError, OSError) as error:
                plan.problems.append(Failure(name, str(error)))
    return plan.checked()


def make_plan(config: ExtractConfig, report: Report = lambda name, n, n_all: None) -> Plan[Job]:
    """Resolve every name: see ``plan_jobs``.

    Args:
        config: the user's wishes.
        report: told of files of images that were just opened for the first time.
    """
    find = SourceFinder(config, report)

    def describe_checked(model: str) -> tuple[Description, int | None]:
        entry = find_entry(model)
        size, norm = wished_size(config, entry), wished_norm(config, entry)
        description, content = describe_fitting(model, size, norm, config)
        usual = preprocess(config, entry, description.statistics)
        make_transform(description.size, usual, 1, NEUTRAL)
        find_weights(description, config.weights, config.seed, download=False)
        return description, content

    def make_job(encoder: tuple[Description, int | None], name: str) -> Job:
        description, content = encoder
        source = find(name, description.size)
        usual = source.usual_resize
        settled = preprocess(config, description.entry, description.statistics, usual)
        return Job(description, source, dataclasses.replace(settled, content=content))

    return plan_jobs(config, describe_checked, make_job)


def leave_out_missing(plan: Plan[Job]) -> Plan[Job]:
    """The plan without the jobs whose images aren't here while the network is not to be used.

    Raises:
        RequestError: none is left.
    """
    left: Plan[Job] = Plan(plan.config, problems=list(plan.problems))
    for job in plan.jobs:
        try:
            if job.source.file:
                refuse_offline(job.source.file)
            left.jobs.append(job)
        except RequestError as error:
            left.problems.append(Failure(job.source.name, str(error)))
    return left.checked()


def describe_fitting(
    model: str, size: int | None, norm: str, config: ExtractConfig
) -> tuple[Description, int | None]:
    """An encoder at a size, or at one that takes its place as ``--fit-size`` says.

    Returns:
        What it would give, and the side that images are prepared at, where that isn't its input's.

    Raises:
        RequestError: see ``extract.encoders.encoder.describe``.
    """
    root = memory_root()
    memory = OutlineMemory(root / "encoders.json") if root else None
    asked = (config.tokens or config.layers, norm, memory, config.tokens is not None)
    try:
        return describe(model, size, *asked), None
    except SizeError as error:
        if config.fit_size is None:
            raise RequestError(f"{error}{error.cure}") from error
        side = error.fitting(config.fit_size)
    description = describe(model, side, *asked)
    return description, None if config.fit_size == "nearest" else size


class SourceFinder:
    """Finds what ``--data`` names, and files of images only once: no encoder changes them."""

    def __init__(self, config: ExtractConfig, report: Report) -> None:
        self._config = config
        self._wishes = FileWishes(
            Reading(
                config.window,
                None,
                config.skip_errors,
                SplitWish(config.split, config.split_seed, config.keep_split),
                default_workers() if config.workers is None else config.workers,
            ),
            config.table,
            config.root / INDEX,
            report,
            config.root,
        )
        self._found: dict[str, Source | RequestError] = {}

    def __call__(self, name: str, size: int) -> Source:
        c = self._config
        found = self._found.get(name)
        if isinstance(found, Source):
            return found
        if found is not None:
            raise found
        try:
            source = find_source(
                name, size, c.source_size, c.data_root, make_slicing(c), self._wishes
            )
        except RequestError as error:
            self._found[name] = error
            raise
        if source.files:
            self._found[name] = source
        return source

"""What kinds that segment have in common: from maps of logits to masks, and from masks to an answer.

Such a kind writes ``fit_maps``. Each image's logits are upsampled to its own size (bilinear) and the
largest wins; masks are compared with the true ones image by image, of volumes slice by slice into one
sample, and the counts stand where other kinds have scores: see ``probe.metrics.overlap``. So
intervals, paired tests and few-shot are those of every kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from cache.errors import RequestError
from probe.answer import Answer
from probe.arrays import Array, Doubles, Indices, Singles
from probe.episodes.draw import FewShotConfig
from probe.kinds.kind import Episodes, Kind, Problem
from probe.maps import Maps
from probe.metrics.overlap import (
    IMAGES,
    IMAGES_PIXELS,
    N_OF_CLASS,
    PATCH_PIXELS,
    TOLERANCE,
    image_overlap,
    together,
)
from probe.places import TOKENS
from probe.questions.question import Question, Split, pick

MOST_KEPT = 1 << 26  # runs of predicted masks that a row keeps: 320 MB
N_TOLD = 3  # marks of single fits that a row repeats


class Segmenter(Protocol):
    """One fitted head, and what the row says of it."""

    settings: dict[str, Any]  # what changes its numbers
    chosen: dict[str, Any]  # what val chose
    marks: list[str]
    trained_parameters: int | None

    def logits(self, rows: Indices) -> Iterator[Singles]:
        """(n, h', w', C) of some rows after the others, in their order; any monotone scale will do."""
        ...


class Segmenting(Kind):
    """A kind that tells the class of each pixel from tokens; subclasses write ``fit_maps``."""

    reads: ClassVar[str] = TOKENS
    segments: ClassVar[bool] = True
    reads_rows = True
    joins_encoders = False
    own_scale = True
    is_chosen = False
    refits = False

    def fit_maps(
        self, problem: Problem, train: Indices, val: Indices | None
    ) -> Iterator[Segmenter]:
        """Fit, and choose without test.

        Args:
            problem: the question; ``problem.maps`` has tokens and masks.
            train: rows to learn from.
            val: rows to choose on; None: an episode, which has none: by folds of its own images, or
                with a fixed setting.

        Yields:
            One head, or one for each seed.
        """
        raise NotImplementedError

    def check_question(self, question: Question) -> None:
        if len(question.task.class_names) < 2:
            raise RequestError(
                f"{question.dataset} has one class of pixels alone; name the background, too"
            )

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        if few_shot.draw not in (None, "natural", "balanced"):
            raise RequestError(
                f"--draw {few_shot.draw} counts images of a class, and a mask has several; leave it out"
            )
        if few_shot.prior not in (None, "none"):
            raise RequestError("--prior is about classes of images; leave it out of segmentation")

    # ------------------------------------------------------------------ answers

    def answer(self, problem: Problem) -> Iterator[Answer]:
        """The answer of each head that ``fit_maps`` gives.

        Raises:
            RequestError: train has no image with a mask, or what the kind refuses.
        """
        maps, splits = problem.maps, problem.splits
        train, val = (maps.rows_of(splits[name]) for name in ("train", "val"))
        for head in self.fit_maps(problem, train, val):
            found = {
                name: _Answered.of(maps, head, splits[name], nsd_tolerance=tolerance)
                for name, tolerance in (("val", None), ("test", problem.nsd_tolerance))
            }
            yield Answer(
                {**head.settings, **_measured_by(problem)},
                head.chosen,
                {name: answered.scores for name, answered in found.items()},
                [*head.marks, *_unseen(maps, splits), *found["test"].marks],
                trained_parameters=head.trained_parameters,
                extras=found["test"].extras,
            )

    def answer_episodes(self, problem: Problem, episodes: Episodes) -> Iterator[Answer]:
        """Each episode fitted by itself on its own images.

        Raises:
            RequestError: what the kind refuses.
        """
        maps, train = problem.maps, problem.splits["train"]
        heads = [
            list(self.fit_maps(problem, maps.rows_of(pick(train, rows)), None)) for rows in episodes
        ]
        for of_seed in zip(*heads, strict=True):
            found = [_Answered.of(maps, head, problem.splits["test"]) for head in of_seed]
            each = {name: [head.chosen[name] for head in of_seed] for name in of_seed[0].chosen}
            chosen = {name: v[0] if v.count(v[0]) == len(v) else v for name, v in each.items()}
            told = dict.fromkeys(mark for head in of_seed for mark in head.marks)
            yield Answer(
                {**of_seed[0].settings, **_measured_by(problem)},
                chosen,
                {"test": np.stack([answered.scores for answered in found])},
                [*told][:N_TOLD],
                trained_parameters=of_seed[0].trained_parameters,
            )


def _measured_by(problem: Problem) -> dict[str, Any]:
    """What the row's question holds of how masks are measured."""
    maps = problem.maps
    assert maps.masks is not None
    spacing = maps.masks.spacing[:, :2]
    known = not (problem.few_shot or np.isnan(spacing).any(axis=1).all())  # of some, at least
    return {"nsd_tolerance": problem.nsd_tolerance} if known else {}


@dataclass(frozen=True)
class _Answered:
    """What one head says of a split: n samples, of which R images have masks."""

    scores: Doubles  # (n, 6 C), see probe.metrics.overlap
    marks: list[str] = field(default_factory=list)
    extras: dict[str, Array] = field(default_factory=dict)

    @staticmethod
    def of(
        maps: Maps, head: Segmenter, split: Split, *, nsd_tolerance: float | None = None
    ) -> _Answered:
        """Ask a head; without a tolerance distances aren't measured, and masks aren't kept."""
        rows = maps.rows_of(split)
        sizes = [len(maps.rows_of_sample(int(sample))) for sample in split.x[:, 0]]
        predicted = _Runs()
        scores = np.empty((len(split), N_OF_CLASS * maps.n_classes))
        images: list[Doubles] = []
        masks = _masks(maps, head, rows)
        start = 0
        for number, size in enumerate(sizes):
            own = rows[start : start + size]
            start += size
            said = [next(masks) for _ in own]
            scores[number] = sample_overlap(maps, own, said, nsd_tolerance).ravel()
            if nsd_tolerance is not None:
                images += [
                    sample_overlap(maps, own[i : i + 1], [mask], None).ravel()
                    for i, mask in enumerate(said)
                    if len(rows) > len(split)
                ]
                for mask in said:
                    predicted.add(mask)
        if nsd_tolerance is None:
            return _Answered(scores)
        extras: dict[str, Array] = {PATCH_PIXELS: maps.patch_pixels(rows)}
        if images:
            extras |= {IMAGES: np.array(images), IMAGES_PIXELS: maps.counts(rows)}
        if predicted.is_full:
            why = ["its masks aren't kept: they have too many borders"]
            return _Answered(scores, why, extras)
        return _Answered(scores, [], {**extras, **predicted.arrays(maps.row_ids[rows])})


def _unseen(maps: Maps, splits: Mapping[str, Split]) -> list[str]:
    """A mark, where images are cut: what the encoder doesn't see gets the nearest answer."""
    shapes = {shape for split in splits.values() for shape in maps.shapes(maps.rows_of(split))}
    share = max((maps.geometry.unseen(shape) for shape in shapes), default=0.0)
    if not share:
        return []
    return [
        f"the encoder doesn't see up to {share:.0%} of an image, which its crop leaves out: what it "
        "answers beside is answered there"
    ]


def sample_overlap(
    maps: Maps, rows: Indices, predicted: Sequence[Array], tolerance: float | None
) -> Doubles:
    """(6, C) what is known of one sample: see ``probe.metrics.overlap``.

    Slices of a volume, whose distance is known, are measured in 3D; other images of a sample one by
    one.

    Args:
        maps: of the sample's file.
        rows: its rows, in order.
        predicted: the mask of each.
        tolerance: of the normalised surface distance, mm; None: distances aren't measured.
    """
    assert maps.masks is not None
    truths = maps.truths(rows)
    bounds = [maps.bound(truth) for truth in truths]
    steps = np.array([maps.spacing(int(row)) for row in rows])
    how = {
        "background": maps.masks.background,
        "ignore": maps.masks.ignore,
        "tolerance": tolerance or TOLERANCE,
    }
    is_volume = tolerance is not None and len({truth.shape for truth in truths}) == 1
    is_volume &= len(rows) > 1 and bool(np.all(np.diff(rows) == 1))
    if is_volume and np.isfinite(steps).all() and (steps == steps[0]).all():
        stacks = [np.stack(masks) for masks in (predicted, truths, bounds)]
        of_volume = {**how, "spacing": steps[0]}
        return image_overlap(stacks[0], stacks[1], stacks[2], maps.n_classes, **of_volume)
    return together(
        [
            image_overlap(
                *(p, t, b, maps.n_classes), **how, spacing=None if tolerance is None else step
            )
            for p, t, b, step in zip(predicted, truths, bounds, steps, strict=True)
        ]
    )


def _masks(maps: Maps, head: Segmenter, rows: Indices) -> Iterator[Array]:
    """The predicted mask of each row, as large as its image."""
    shapes = iter(maps.shapes(rows))
    for logits in head.logits(rows):
        for one in logits:
            yield maps.to_mask(one, next(shapes))


@dataclass
class _Runs:
    """Predicted masks as runs of one class, row by row of pixels, image after image."""

    values: list[Array] = field(default_factory=list)
    lengths: list[Array] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    n: int = 0

    def add(self, mask: Array) -> None:
        self.shapes.append(mask.shape)
        if self.is_full:
            return
        flat = mask.ravel()
        starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
        self.values.append(flat[starts])
        self.lengths.append(np.diff(starts, append=len(flat)).astype(np.uint32))
        self.n += len(starts)

    @property
    def is_full(self) -> bool:
        return self.n > MOST_KEPT

    def arrays(self, ids: Array) -> dict[str, Array]:
        """For the row's file; see ROW.md."""
        return {
            "masks_ids": ids,
            "masks_shapes": np.array(self.shapes, np.int32).reshape(-1, 2),
            "masks_values": np.concatenate(self.values or [np.empty(0, np.uint8)]),
            "masks_lengths": np.concatenate(self.lengths or [np.empty(0, np.uint32)]),
        }

"""Training heads on maps: heads of several learning rates side by side on the same batches.

What is trained on is read by the batch, whether it lies in a file or is made by an encoder on the
way; a thread reads the next batch while this one is learnt from. Batches follow one another through
shuffled epochs, each of the same size. Which images a step sees, and which features it drops, follow
from the seed and the step's number alone, so a training that goes on from a checkpoint takes the same
steps.
"""

from __future__ import annotations

import io
import itertools
import math
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.files import write_whole
from probe.arrays import Array, Indices, Ints, Singles
from probe.solvers.decoders import IGNORED, Form, MapHead, loss_of, value_of
from probe.solvers.epochs import epoch_orders

if TYPE_CHECKING:
    import torch

MOMENTUM = 0.9  # of SGD
MASK_BYTES = 2**30  # of masks that are held at one time
SAVE_SECONDS = 60.0  # between checkpoints
ANSWERED = 16  # rows that are answered at one time: logits of 448 x 448 and 15 classes are 190 MB


@dataclass(frozen=True)
class Ground:
    """What is trained on and asked: a file's maps, or an encoder's. N rows."""

    parts: Callable[[Indices], Sequence[Any]]  # of some rows, of each layer (n, h, w, D)
    masks: Callable[[Indices], Array]  # (n, size, size) uint8, as the encoder sees its images
    widths: tuple[int, ...]  # D of each layer
    n_classes: int
    size: int  # of the encoder's square input
    background: int | None  # a class that isn't counted where settings are compared
    device: str = "cpu"

    def maps(self, rows: Indices) -> list[torch.Tensor]:
        """Of each layer (n, h, w, D) float32 on the device."""
        import torch

        return [torch.as_tensor(part).to(self.device, torch.float32) for part in self.parts(rows)]

    def n_pixels(self, rows: Indices) -> Ints:
        """(C,) pixels of each class."""
        found = np.zeros(256, np.int64)
        for part in chunks_of(rows):
            found += np.bincount(self.masks(part).ravel(), minlength=256)
        return found[: self.n_classes]


def chunks_of(rows: Indices) -> Iterator[Indices]:
    """The same rows in parts that are answered together."""
    return (rows[start : start + ANSWERED] for start in range(0, len(rows), ANSWERED))


class HeldMasks:
    """Masks that are kept once they were made, as long as all of them take little memory."""

    def __init__(self, make: Callable[[Indices], Array], n_rows: int, size: int) -> None:
        """
        Args:
            make: (n, size, size) masks of some rows.
            n_rows: how many different rows will be asked for.
            size: of a mask's side.
        """
        self._make, self._held = make, dict[int, Array]()
        self._keeps = n_rows * size**2 <= MASK_BYTES

    def __call__(self, rows: Indices) -> Array:
        if not self._keeps:
            return self._make(rows)
        new = np.unique([row for row in rows.tolist() if row not in self._held]).astype(rows.dtype)
        if len(new):
            self._held.update(zip(new.tolist(), self._make(new), strict=True))
        return np.stack([self._held[row] for row in rows.tolist()])


@dataclass(frozen=True)
class Course:
    """How heads are trained, but for what they differ in."""

    form: Form
    loss: str  # one of probe.solvers.decoders.LOSSES
    optimiser: str  # "adamw" or "sgd"
    weight_decay: float
    batch_size: int  # fewer where there are fewer images
    n_steps: int
    warmup: int = 0  # steps to the full rate
    clip: float | None = None  # of the gradient's norm

    def factor(self, step: int) -> float:
        """Of the full rate, falling to 0 by a cosine.

        With a warm-up as ``WarmupOneCycleLR`` of facebookresearch/dinov3 has it, whose ratio is 1e-6.
        """
        if step < self.warmup:
            return max(step / self.warmup, 1e-6) * (1 - step / self.n_steps)
        return (1 + math.cos(math.pi * step / self.n_steps)) / 2


class Checkpoint:
    """One file that a killed training goes on from; damaged or foreign ones are as if not there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, state: dict[str, Any]) -> None:
        """Write it whole, with its checksum before it."""
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(self.path) as file:
            file.write(zlib.crc32(content).to_bytes(4, "big") + content)

    def load(self) -> dict[str, Any] | None:
        """What was saved last; None: there is nothing, or it is damaged."""
        import torch

        if not self.path.is_file():
            return None
        content = self.path.read_bytes()
        if zlib.crc32(content[4:]).to_bytes(4, "big") != content[:4]:
            return None
        return torch.load(io.BytesIO(content[4:]), map_location="cpu", weights_only=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class Training:
    """Heads of one seed and several learning rates, trained on the same batches.

    A head's numbers don't depend on those beside it.
    """

    def __init__(
        self,
        ground: Ground,
        rows: Indices,
        course: Course,
        lrs: Sequence[float],
        seed: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        """
        Args:
            ground: what rows are of.
            rows: to learn from.
            course: what all heads have in common.
            lrs: full learning rates, a head each.
            seed: of first weights, order and dropout.
            weights: (C,) of classes in the loss; None: alike.
        """
        import torch

        self.ground, self.rows, self.course, self.lrs, self.seed = ground, rows, course, lrs, seed
        self.heads = [
            MapHead(course.form, ground.widths, ground.n_classes, seed, ground.device) for _ in lrs
        ]
        self._steps = [self._optimiser(head) for head in self.heads]
        self._weights = None
        if weights is not None:
            self._weights = torch.tensor(weights, dtype=torch.float32, device=ground.device)
        self.n_done = 0

    def _optimiser(self, head: MapHead) -> torch.optim.Optimizer:
        import torch

        course, weights = self.course, head.modules.parameters()
        if course.optimiser == "sgd":
            return torch.optim.SGD(
                weights, lr=1.0, momentum=MOMENTUM, weight_decay=course.weight_decay
            )
        return torch.optim.AdamW(weights, lr=1.0, weight_decay=course.weight_decay, fused=True)

    # ------------------------------------------------------------ steps

    def _batches(self) -> Iterator[Indices]:
        """Rows of each step from the next one on."""
        size = min(self.course.batch_size, len(self.rows))

        def endless() -> Iterator[Indices]:
            rest = np.empty(0, np.int64)
            for order in epoch_orders(len(self.rows), self.seed):
                rest = np.concatenate([rest, order])
                while len(rest) >= size:
                    yield self.rows[rest[:size]]
                    rest = rest[size:]

        return itertools.islice(endless(), self.n_done, self.course.n_steps)

    def _read(self, rows: Indices) -> tuple[list[torch.Tensor], torch.Tensor]:
        import torch

        wanted = torch.from_numpy(self.ground.masks(rows)).to(self.ground.device)
        return self.ground.maps(rows), wanted.long()

    def go_on(self, checkpoint: Checkpoint) -> bool:
        """Begin where a killed training stopped; returns whether there was one."""
        state = checkpoint.load()
        if state:
            self._load(state)
        return state is not None

    def run(self, until: int | None = None, checkpoint: Checkpoint | None = None) -> None:
        """Take steps, up to the last one or this one.

        Args:
            until: steps in all.
            checkpoint: to write now and then.
        """
        until = self.course.n_steps if until is None else until
        saved, has_saved = time.monotonic(), False
        with closing(ahead(self._read, self._batches())) as batches:
            while self.n_done < until:
                self._step(*next(batches))
                is_last = self.n_done == until
                is_due = time.monotonic() - saved >= SAVE_SECONDS
                if checkpoint and (is_due or (is_last and has_saved)):
                    checkpoint.save(self._state())
                    saved, has_saved = time.monotonic(), True

    def _step(self, maps: Sequence[torch.Tensor], wanted: torch.Tensor) -> None:
        import torch

        course, factor = self.course, self.course.factor(self.n_done)
        for head, step, lr in zip(self.heads, self._steps, self.lrs, strict=True):
            draw = None
            if course.form.dropout:  # the same features of each head
                draw = torch.Generator().manual_seed((self.seed << 32) + self.n_done)
            head.modules.train()
            logits = head.on_input(head(maps, draw), self.ground.size)
            loss = loss_of(logits, wanted, course.loss, self._weights)
            step.zero_grad(set_to_none=True)
            loss.backward()
            if course.clip is not None:
                torch.nn.utils.clip_grad_norm_(head.modules.parameters(), course.clip)
            for group in step.param_groups:
                group["lr"] = lr * factor
            step.step()
        self.n_done += 1

    def _state(self) -> dict[str, Any]:
        return {
            "n_done": self.n_done,
            "heads": [head.modules.state_dict() for head in self.heads],
            "steps": [step.state_dict() for step in self._steps],
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.n_done = state["n_done"]
        for head, own in zip(self.heads, state["heads"], strict=True):
            head.modules.load_state_dict(own)
        for step, own in zip(self._steps, state["steps"], strict=True):
            step.load_state_dict(own)


# ---------------------------------------------------------------------------- answers


def answer(
    ground: Ground, heads: Sequence[MapHead], rows: Indices
) -> Iterator[tuple[Indices, list[torch.Tensor]]]:
    """Some rows after the others, and of each head their (n, C, h', w') logits."""
    import torch

    for head in heads:
        head.modules.eval()
    for part in chunks_of(rows):
        with torch.no_grad():
            maps = ground.maps(part)
            found = [head(maps) for head in heads]
        yield part, found


def values(ground: Ground, heads: Sequence[MapHead], rows: Indices, by: str) -> list[float]:
    """How well the heads' masks fit on the encoder's input, see ``value_of``; nan: not finite."""
    import torch

    size, n = ground.size, ground.n_classes
    counts = np.zeros((len(heads), len(rows), 3, n), np.int64)
    is_finite, start = np.ones(len(heads), bool), 0
    for part, each in answer(ground, heads, rows):
        true = torch.from_numpy(ground.masks(part)).to(ground.device)
        for number, (head, logits) in enumerate(zip(heads, each, strict=True)):
            is_finite[number] &= bool(logits.isfinite().all())
            said = head.on_input(logits, size).argmax(dim=1)
            for row, (one, wanted) in enumerate(zip(said, true, strict=True), start):
                counts[number, row] = _count(one[wanted != IGNORED], wanted[wanted != IGNORED], n)
        start += len(part)
    found = [value_of(own, by, ground.background) for own in counts]
    return [v if ok else math.nan for v, ok in zip(found, is_finite, strict=True)]


def _count(said: torch.Tensor, true: torch.Tensor, n: int) -> Array:
    """(3, C) pixels that are both, said, and true."""
    both = said[said == true]
    return np.stack(
        [part.long().bincount(minlength=n).cpu().numpy() for part in (both, said, true)]
    )


def ahead(make: Callable[[Any], Any], tasks: Iterator[Any]) -> Generator[Any, None, None]:
    """What ``make`` makes of each task, in order, one of them ahead in another thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for task in tasks:
            following = pool.submit(make, task)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def as_singles(logits: torch.Tensor) -> Singles:
    """(n, C, h, w) as (n, h, w, C)."""
    return logits.permute(0, 2, 3, 1).float().cpu().numpy()

"""Heads of segmentation that are trained by the batch on cached maps: a convolution, or a U-Net.

The heads, their losses and their training are in ``probe.solvers.decoders`` and
``probe.solvers.decoder_training``. A head is trained on the encoder's square input, to which logits
are upsampled and masks are brought by nearest, as papers do; it is measured on each image's own
pixels. Learning rates are compared on val, with one seed, by the last step's weights; each seed then
trains with the best. An episode has no val: of several rates it takes the middle one.

A training of more than a minute leaves a checkpoint below ``runs`` and goes on from it when it is
asked again; the last row removes it. ``finetune --mode head --head unet`` is the same with the
encoder run on the way, where its tokens are too large to keep.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.commands.names import version_of
from cache.commands.settings import check, given, setting
from cache.errors import RequestError
from cache.format.key import N_DIGEST, file_stem, key_digest
from probe.arrays import Array, Indices, Singles
from probe.episodes.draw import FewShotConfig
from probe.joins import find_token_places
from probe.kinds.adamw import SECTION
from probe.kinds.fusion_settings import ALIKE, BALANCED, SEARCH_SEED
from probe.kinds.kind import DivergedError, Problem
from probe.kinds.segmenting import Segmenting
from probe.maps import Maps
from probe.places import Place
from probe.protocols import Reading
from probe.solvers.decoder_training import (
    Checkpoint,
    Course,
    Ground,
    HeldMasks,
    Training,
    answer,
    as_singles,
    values,
)
from probe.solvers.decoders import (
    HEADS,
    LINEAR,
    LOSSES,
    N_LAYERS,
    UNET,
    Form,
    MapHead,
    balanced_weights,
)
from probe.solvers.epochs import check_device

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it

CHOSEN_BY = ("dice", "dice_jaccard", "miou")
OPTIMISERS = ("adamw", "sgd")
ASIDE = ("seeds", "device")  # settings that no row's question holds


@dataclass(frozen=True)
class Decoder(Segmenting):
    """A head on maps of tokens, trained step by step; val chooses its learning rate.

    Raises:
        RequestError: a number out of its range, an unknown word, or something named twice.
    """

    head: str = setting(
        LINEAR,
        "of decoder. linear: a 1 x 1 convolution; ms: the same on the last layers side by side; unet: "
        "four blocks that double the grid, on the last five layers",
        among=HEADS,
    )
    loss: str = setting("ce+dice", "of decoder", among=LOSSES)
    optimiser: str = setting("adamw", "of decoder", among=OPTIMISERS)
    lrs: tuple[float, ...] = setting((1e-3, 1e-2, 1e-1), "", flag="--lr", above=0, unlike=True)
    weight_decay: float = setting(1e-3, "", least=0)
    batch_size: int = setting(16, "", least=1)
    iterations: int | None = setting(300, "of decoder in all", least=1)
    epochs: int | None = setting(None, "", least=1, shown="")
    warmup: int | None = setting(
        None,
        "iterations of decoder to the full rate",
        metavar="N",
        least=0,
        shown="a tenth of all",
    )
    clip: float | None = None  # of the gradient's norm
    class_weights: str = setting(ALIKE, "", among=(BALANCED, ALIKE))
    batch_norm: bool = True  # of linear and ms, before the weights
    dropout: float = setting(0.0, "of the features of decoder's linear and ms", least=0, below=1)
    ends_in_relu: bool = False  # of unet, see ``Form``
    choose_by: str = "dice"  # on val, see ``value_of``
    refit: bool = False  # a new head with the chosen rate, on train and val
    # Of so many checkpoints, evenly spaced, the best on test: a choice on test, for comparison with
    # papers alone. None: the last step's.
    n_test_checks: int | None = None
    seeds: tuple[int, ...] = setting(
        (0, 1, 2), "", least=0, unlike=True, takes="different numbers from 0 up"
    )
    device: str = setting("cpu", "", shown="")

    name = "decoder"
    section = SECTION
    refits = True

    def __post_init__(self) -> None:
        check(self)
        if (self.iterations is None) == (self.epochs is None):
            raise RequestError("training lasts for iterations or for epochs, and not for both")
        if self.choose_by not in CHOSEN_BY:
            raise RequestError(f"choose_by is {', '.join(CHOSEN_BY)}, found {self.choose_by!r}")

    @classmethod
    def read(cls, options: argparse.Namespace, base: Mapping[str, Any]) -> Decoder:
        typed = given(options, cls)
        if "iterations" in typed or "epochs" in typed:  # of a pair, one of which is None
            typed = {"iterations": None, "epochs": None, **typed}
        refit = {} if options.refit is None else {"refit": options.refit != "train"}
        return cls(**{**base, **typed, **refit})

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        super().check_few_shot(few_shot, by_protocol)
        if self.n_test_checks or (self.refit and not by_protocol):
            raise RequestError(
                "few shots are not refitted on val, whose labels are more, nor chosen on test; leave "
                "out --refit and --as-published"
            )

    def find_places(
        self, files: Sequence[Features], layer: int | str, pools: Sequence[str], reading: Reading
    ) -> list[tuple[Place, ...]]:
        """Of ms and unet the last layers that are stored, unless others are named."""
        if layer == -1 and self.head != LINEAR:
            stored = sorted(files[0].layers)[-N_LAYERS[self.head] :]
            return find_token_places(files[0], "+".join(map(str, stored)), pools)
        found = super().find_places(files, layer, pools, reading)
        if self.head == LINEAR and any(len(at) > 1 for at in found):
            raise RequestError("--head linear sees one layer; several side by side are --head ms")
        return found

    # ------------------------------------------------------------ fits

    def fit_maps(self, problem: Problem, train: Indices, val: Indices | None) -> Iterator[Fitted]:
        """One head for each seed.

        Raises:
            RequestError: val has no images to choose a learning rate on, or train one class alone.
            DivergedError: all rates, or the chosen one with some seed; after the others.
        """
        fit = _Fit(self, problem, train, self._val(problem, val))
        place, said = fit.choose()
        diverged = []
        for seed in self.seeds:
            try:
                yield fit.fitted(place, said, seed)
            except DivergedError as error:
                diverged.append(error.what)
        fit.forget()
        if diverged:
            raise DivergedError(", ".join(diverged), f"try --lr {min(self.lrs) / 10:g}")

    def _val(self, problem: Problem, val: Indices | None) -> Indices | None:
        """The rows to choose on, and those of a paper that chooses for episodes there, too."""
        if val is None and (split := problem.val_of_paper("a learning rate")):
            return problem.maps.rows_of(split)
        if val is not None and not len(val) and len(self.lrs) > 1:
            problem.val_to_choose("a learning rate")
        return val

    def course(self, n_rows: int) -> Course:
        """How heads are trained on so many images."""
        n_steps = self.iterations or 0
        if self.epochs:
            n_steps = self.epochs * -(-n_rows // min(self.batch_size, n_rows))
        form = Form(self.head, self.batch_norm, self.dropout, self.ends_in_relu)
        warmup = n_steps // 10 if self.warmup is None else self.warmup
        how = self.optimiser, self.weight_decay, self.batch_size, n_steps, warmup, self.clip
        return Course(form, self.loss, *how)

    @property
    def row_settings(self) -> dict[str, Any]:
        """What a row's question holds: all but what doesn't change its numbers."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ASIDE}
        found = {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}
        refit = {"refit": "train+val"} if found.pop("refit") else {}  # as other kinds say it
        return found | refit | ({"search_seed": SEARCH_SEED} if len(self.lrs) > 1 else {})


@dataclass(frozen=True)
class Fitted:
    """A trained head, see ``probe.kinds.segmenting.Segmenter``."""

    ground: Ground
    head: MapHead
    settings: dict[str, Any]
    chosen: dict[str, Any]
    marks: list[str]
    # Of a refit: the head before it, which alone hasn't seen these rows.
    before: tuple[MapHead, Indices] | None = None

    @property
    def trained_parameters(self) -> int:
        return self.head.n_parameters

    def logits(self, rows: Indices) -> Iterator[Singles]:
        """Of a U-Net on the encoder's input, of others on the grid."""
        head = self.head
        if self.before and np.isin(rows, self.before[1]).all():
            head = self.before[0]
        for _, (logits,) in answer(self.ground, [head], rows):
            is_fine = head.form.name == UNET
            yield as_singles(head.on_input(logits, self.ground.size) if is_fine else logits)


class _Fit:
    """The trainings of one problem, or of one episode of it."""

    def __init__(
        self, kind: Decoder, problem: Problem, train: Indices, val: Indices | None
    ) -> None:
        self.kind, self.problem, self.train, self.val = kind, problem, train, val
        self.maps, self._searched, self._weights = problem.maps, None, None
        n_rows = len(train) + (0 if val is None else len(val))
        if kind.n_test_checks:  # test is looked at again and again, too
            n_rows += len(self.maps.rows_of(problem.splits["test"]))
        self.ground = ground_of(self.maps, n_rows, check_device(kind.device))
        self._checkpoints: list[Checkpoint] = []
        n_pixels, names = self.ground.n_pixels(train), problem.task.class_names
        absent = [name for name, n in zip(names, n_pixels, strict=True) if not n]
        if len(absent) > len(names) - 2:
            raise RequestError(
                f"{problem.fitted_on.dataset} has pixels of one class alone in the masks of train, and "
                "a head needs two; divide it anew, as with --split 80/10/10"
            )
        self._marks = [f"no pixel of train is {', '.join(absent)}"] if absent else []
        if kind.class_weights == BALANCED:
            self._weights = balanced_weights(n_pixels).tolist()

    def choose(self) -> tuple[int, dict[str, Any]]:
        """The number of the best learning rate, and how each did; test isn't read.

        Raises:
            DivergedError: all did.
        """
        kind, lrs = self.kind, self.kind.lrs
        if len(lrs) == 1:
            return 0, {}
        if self.val is None:
            return sorted(range(len(lrs)), key=lrs.__getitem__)[len(lrs) // 2], {}
        self._say(f"choosing among {len(lrs)} learning rates")
        self._searched = self._run(self.train, lrs, SEARCH_SEED)
        found = values(self.ground, self._searched.heads, self.val, kind.choose_by)
        if np.isnan(found).all():
            raise DivergedError("every learning rate", f"try --lr {min(lrs) / 10:g}")
        each = [[lr, None if np.isnan(v) else v] for lr, v in zip(lrs, found, strict=True)]
        return int(np.nanargmax(found)), {f"val_{kind.choose_by}": each}

    def fitted(self, place: int, said: dict[str, Any], seed: int) -> Fitted:
        """The head of one seed.

        Args:
            place: of its learning rate.
            said: how that was chosen.
            seed: of first weights, order and dropout.

        Raises:
            DivergedError: it did.
        """
        kind, lr, before = self.kind, self.kind.lrs[place], None
        rows, chosen = self.train, {"lr": lr, **said}
        if kind.refit and self.val is not None and not self.problem.few_shot:
            before = self._head(rows, place, seed), self.val
            rows = np.concatenate([rows, self.val])
        if kind.n_test_checks and not self.problem.few_shot:
            head, chosen[f"test_{kind.choose_by}"] = self._best_on_test(rows, lr, seed)
        else:
            head = self._head(rows, place, seed)
        if not all(bool(part.isfinite().all()) for part in head.modules.state_dict().values()):
            raise DivergedError(f"seed {seed}", "")
        by = f"val {kind.choose_by}" if said else "fixed"
        settings = {**kind.row_settings, "chosen_by": by, "training_seed": seed}
        return Fitted(self.ground, head, settings, chosen, self._marks_of(lr, bool(said)), before)

    def _head(self, rows: Indices, place: int, seed: int) -> MapHead:
        """Trained on some rows, unless it was while rates were compared."""
        if self._searched and seed == SEARCH_SEED and rows is self.train:
            return self._searched.heads[place]
        self._say(f"training with seed {seed}" + ("" if rows is self.train else ", train and val"))
        return self._run(rows, [self.kind.lrs[place]], seed).heads[0]

    def _run(self, rows: Indices, lrs: Sequence[float], seed: int) -> Training:
        """A whole training, or the rest of one."""
        training = self._training(rows, lrs, seed)
        checkpoint = Checkpoint(self._path(training))
        self._checkpoints.append(checkpoint)
        if training.go_on(checkpoint):
            self._say(
                f"going on after {training.n_done:_} of {training.course.n_steps:_} iterations"
            )
        training.run(checkpoint=checkpoint)
        return training

    def _training(self, rows: Indices, lrs: Sequence[float], seed: int) -> Training:
        course = self.kind.course(len(rows))
        return Training(self.ground, rows, course, lrs, seed, self._weights)

    def _best_on_test(
        self, rows: Indices, lr: float, seed: int
    ) -> tuple[MapHead, list[float | None]]:
        """The best checkpoint on test, and how each did: published so, and said in a mark."""
        assert self.kind.n_test_checks
        self._say(f"training with seed {seed}, looking at test")
        training, n_checks = self._training(rows, [lr], seed), self.kind.n_test_checks
        test = self.maps.rows_of(self.problem.splits["test"])
        found: list[float] = []
        states = []
        for number in range(1, n_checks + 1):
            training.run(number * training.course.n_steps // n_checks)
            found += values(self.ground, training.heads, test, self.kind.choose_by)
            states.append(copy.deepcopy(training.heads[0].modules.state_dict()))
        best = int(np.argmax(np.nan_to_num(found, nan=-1)))
        training.heads[0].modules.load_state_dict(states[best])
        return training.heads[0], [None if np.isnan(v) else v for v in found]

    def forget(self) -> None:
        """Remove what a killed run would have gone on from."""
        for checkpoint in self._checkpoints:
            checkpoint.remove()

    # ------------------------------------------------------------ words

    def _say(self, what: str) -> None:
        if not self.problem.few_shot:  # of episodes there are many
            self.problem.say(f"decoder {self.kind.head} on {self.problem.question.title}: {what}")

    def _marks_of(self, lr: float, is_chosen: bool) -> list[str]:
        lrs, marks = self.kind.lrs, list(self._marks)
        n_layers = len(self.ground.widths)
        if self.kind.head == UNET and n_layers < N_LAYERS[UNET]:
            marks.append(
                f"a U-Net on {n_layers} of {N_LAYERS[UNET]} layers: the first stands for those before it"
            )
        if is_chosen and len(lrs) > 2 and lr in (min(lrs), max(lrs)):
            marks.append(f"the chosen learning rate {lr:g} is the end of the grid")
        if self.problem.few_shot and is_chosen:
            marks.append(Decoder.chosen_on_val("learning rates are", self.problem.splits["val"]))
        elif self.problem.few_shot and len(lrs) > 1:
            marks.append(f"an episode has no val: learning rate {lr:g}, the middle of the grid")
        return marks

    def _path(self, training: Training) -> Path:
        """Of what this training alone would write."""
        features, masks = self.maps.features, self.maps.masks
        assert masks is not None
        what = {
            "features": key_digest(self.maps.key),
            "masks": masks.digest,
            "layers": self.maps.layers,
            "rows": hashlib.sha256(training.rows.astype(np.int64).tobytes()).hexdigest(),
            "course": dataclasses.asdict(training.course),
            "lrs": list(training.lrs),
            "seed": training.seed,
            "weights": self._weights,
            "versions": [version_of("medprobe"), version_of("torch")],
        }
        name = f"{file_stem(features.model)}_decoder_{key_digest(what)[:N_DIGEST]}.pt"
        return self.problem.runs / file_stem(features.dataset) / name


def ground_of(maps: Maps, n_rows: int, device: str) -> Ground:
    """What heads are trained on and asked.

    Args:
        maps: of a question.
        n_rows: whose masks are asked for more than once.
        device: where heads work.
    """
    size = maps.geometry.size

    def masks(rows: Indices) -> Array:
        return np.stack([maps.input_mask(truth) for truth in maps.truths(rows)])

    return Ground(
        maps.parts,
        HeldMasks(masks, n_rows, size),
        maps.widths,
        maps.n_classes,
        size,
        maps.masks.background if maps.masks else None,
        device,
    )

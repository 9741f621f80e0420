"""One training: steps, checks on val, checkpoints, and going on after a kill.

A batch is a number of samples that every step learns from, whatever the hardware takes at once: it
is cut into micro batches, and over the ranks that torchrun starts, and the gradients are summed.
Which samples a step sees follows from the seed and the step's number alone.

Long because one class holds what a step, a check and a checkpoint are, each of which needs the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cache.errors import RequestError
from extract.machine.progress import Progress, per_second
from finetune.config import FinetuneConfig
from finetune.data.batches import Batch, Draw
from finetune.model.classifier import (
    Classifier,
    check_gradients,
    load_trained,
    parameter_groups,
    trained_tensors,
    updates_batchnorm,
)
from finetune.setting import Setting, Trial
from finetune.training.checkpoints import LAST, Checkpoints, Position
from finetune.training.objective import Objective
from finetune.training.predict import CURE, free_cache, is_out_of_memory, predict
from finetune.training.rates import count_drops, measure_length, rate_factor
from probe.questions.question import Question
from probe.solvers.epochs import check_epochs, epoch_orders

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
LOG_SECONDS = 1.0  # between two looks at the loss, each of which waits for the device
ON_CPU = 16  # images that go through a CPU at once; more take memory and no less time
SYNC_STEPS = 50  # between two agreements of several ranks on whether to save


@dataclass(frozen=True)
class Learned:
    """What is learned from which samples. S samples of a data set."""

    question: Question
    objective: Objective
    train: NDArray[np.int64]  # positions of samples
    val: NDArray[np.int64]  # empty: nothing is chosen, the last weights are taken

    @property
    def labels(self) -> NDArray[Any]:
        """(S,) or (S, C)."""
        return self.question.labels


class Training:
    """One training of one network.

    Args:
        setting: images, settings, processes, and whom to tell what a person must know.
        learned: what from.
        trial: its full rate and seed; the latter is of the order of samples, of dropout and of
            augmentation, too.
        classifier: with its first weights, on its device.
        files: where checkpoints are.
        label: what it is called while it runs.

    Raises:
        RequestError: fewer samples than a batch, or settings that can't be followed here.
    """

    def __init__(
        self,
        setting: Setting,
        learned: Learned,
        trial: Trial,
        classifier: Classifier,
        files: Checkpoints,
        label: str,
    ) -> None:
        self.classifier, self.loader, self.plain = classifier, setting.augmented, setting.plain
        self.learned, self.files, self.label = learned, files, label
        self.config, self.ranks, self.say = setting.config, setting.ranks, setting.say
        self.seed, self.encoder_lr = trial.seed, trial.encoder_lr
        t = self.config.train
        self.device = next(classifier.parameters()).device
        self.head_lr = t.head_lr or self.encoder_lr
        self.length = measure_length(t, len(learned.train), len(learned.val))
        self.targets = torch.from_numpy(learned.objective.targets(learned.labels))
        self.place = Position(micro_batch=self._first_micro_batch())
        groups = parameter_groups(classifier, t, self.encoder_lr)
        self.full_rates = [group["lr"] for group in groups]
        self.optimiser = _make_optimiser(groups, self.config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=t.precision == "fp16")
        self.model: nn.Module = self._wrapped()
        self.board: Any = None  # TensorBoard's writer, while training
        self._n_drops = 0
        self._is_new = True  # no backward pass yet
        # Of dropout; ranks see other images.
        torch.manual_seed(self.seed + self.ranks.rank * 1_000_003)

    def _first_micro_batch(self) -> int:
        """How many images at once: as asked for, else what fits the device best."""
        wish, whole = self.config.run.micro_batch, -(-self.length.batch_size // self.ranks.size)
        if updates_batchnorm(self.classifier):
            # BatchNorm's statistics are of the images that go through at once.
            if wish is not None and wish < whole:
                raise RequestError(
                    f"--micro-batch {wish} would change the numbers: BatchNorm trains on the "
                    f"statistics of what goes through at once; take --batch-size {wish}, or leave "
                    "BatchNorm alone with --batchnorm eval"
                )
            if self.ranks.size > 1 and self.device.type != "cuda":
                raise RequestError(
                    "several processes can share BatchNorm's statistics on CUDA alone; use one "
                    "process, or --batchnorm eval"
                )
            return whole
        at_once = max(1, ON_CPU // self.plain.most_rows)
        usual = whole if self.device.type == "cuda" else min(whole, at_once)
        return min(wish or usual, whole)

    def _wrapped(self) -> nn.Module:
        model: nn.Module = self.classifier
        if self.ranks.size > 1:
            if updates_batchnorm(self.classifier):
                model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
            model = nn.parallel.DistributedDataParallel(
                model,
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
                broadcast_buffers=False,  # what the head's input doesn't depend on doesn't train
            )
        return torch.compile(model) if self.config.model.compile else model  # type: ignore

    # ------------------------------------------------------------------ the way through

    def run(self) -> Position:
        """Train to the end, from where an earlier run stopped.

        Returns:
            Where it ended; ``trial`` has the best weights.

        Raises:
            RequestError: the loss isn't finite any more, or memory is too small.
            BrokenCache: a checkpoint is damaged.
        """
        self._resume()
        place = self.place
        if place.done:
            return place
        if self.ranks.is_first:
            self.files.check_room(self._most_bytes())
        checked = set(check_epochs(self.length.n_epochs, self.config.train.n_checks))
        # Each rank sums what its share of a batch adds to the loss; the first one goes on.
        self._loss = torch.tensor(place.loss if self.ranks.is_first else 0.0, device=self.device)
        self._saved = time.monotonic()
        progress = Progress(self.label, self.length.n_iterations, "iterations", place.iteration)
        with self._writing_board(place.iteration), progress as self._progress:
            while not place.done:
                try:
                    self._run_on(checked)
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    self._halve(error)
        return place

    @contextlib.contextmanager
    def _writing_board(self, iteration: int) -> Iterator[None]:
        """Write TensorBoard's files, where they are asked for; what follows ``iteration`` is new."""
        if not (self.config.run.tensorboard and self.ranks.is_first):
            yield
            return
        self.board = _make_board(self.files.folder, iteration)
        try:
            yield
        finally:
            self.board.close()

    def _most_bytes(self) -> int:
        """How much disk the trial's files take at most: last and best, each twice, and the encoder."""
        trained = sum(t.nbytes for t in trained_tensors(self.classifier).values())
        n_moments = 2 if self.config.train.optimiser == "adamw" else 1
        exported = sum(p.nbytes for p in self.classifier.parameters())
        return 2 * (2 + n_moments) * trained + exported

    def _run_on(self, checked: set[int]) -> None:
        """From the present place to the end; a batch that memory is too small for ends it, too."""
        place = self.place
        draws = self._draws(place.epoch, place.batch, place.micro_batch)
        with contextlib.closing(self.loader.batches(draws, self.seed)) as batches:
            while not place.done:
                self.classifier.set_training()
                while place.batch < self.length.n_batches:
                    self._advance(batches)
                if place.epoch in checked:
                    self._check()
                place.epoch, place.batch = place.epoch + 1, 0
                place.done = place.done or place.epoch == self.length.n_epochs
                if place.done or place.epoch - 1 in checked:
                    self._save()

    def _draws(self, epoch: int, batch: int, at_most: int) -> Iterator[Draw]:
        """The micro batches of this rank, from a place on to the end."""
        length, train, ranks = self.length, self.learned.train, self.ranks
        size, orders = length.batch_size, epoch_orders(len(train), self.seed)
        for e, order in zip(range(length.n_epochs), orders, strict=False):
            for b in range(batch if e == epoch else 0, length.n_batches if e >= epoch else 0):
                own = train[order[b * size : (b + 1) * size]][ranks.rank :: ranks.size]
                # A rank without a sample takes part with one that counts nothing.
                own = own if len(own) else train[:1]
                yield from (Draw(e, own[i : i + at_most]) for i in range(0, len(own), at_most))

    def _advance(self, batches: Iterator[Batch]) -> None:
        """One step, and what is due after it."""
        place, started = self.place, time.monotonic()
        n_chunks, weight = self._plan(place.batch, place.micro_batch)
        self._step(batches, n_chunks, weight)
        place.iteration += 1
        place.batch += 1
        stepped = time.monotonic()
        place.seconds += stepped - started
        self._look()
        place.seconds += time.monotonic() - stepped  # looking at the loss waits for the device
        if self._is_due() and place.batch < self.length.n_batches:
            self._save()

    def _plan(self, batch: int, at_most: int) -> tuple[int, float]:
        """How many micro batches a step has on this rank, and each sample's weight in the loss."""
        size, ranks = self.length.batch_size, self.ranks
        n_whole = min(size, len(self.learned.train) - batch * size)
        n_own = len(range(ranks.rank, n_whole, ranks.size))
        weight = self.learned.objective.weight(n_whole) if n_own else 0.0
        return -(-max(n_own, 1) // at_most), weight

    def _step(self, batches: Iterator[Batch], n_chunks: int, weight: float) -> None:
        """One step of the optimiser, from all micro batches of this rank.

        Args:
            batches: gives the micro batches.
            n_chunks: how many of them are this step's.
            weight: of each sample's loss.
        """
        t, objective = self.config.train, self.learned.objective
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for chunk in range(n_chunks):
            batch = next(batches)
            targets = self.targets[batch.samples].to(self.device, non_blocking=True)
            is_last = chunk == n_chunks - 1
            with self._unsynced(is_last):
                with self._autocast(), self._one_line(len(batch.images)):
                    logits = self.model(batch.images, batch.sample)
                loss = objective.losses(logits, targets).sum() * weight
                # DDP takes the mean over ranks of what is a sum.
                self.scaler.scale(loss * self.ranks.size).backward()
            total += loss.detach()
            self.place.n_images += len(batch.images)
        self._loss += total
        self.place.n_losses += 1
        if self._is_new:
            check_gradients(self.classifier)
            self._is_new = False
        if t.clip is not None:
            self.scaler.unscale_(self.optimiser)
            trained = [p for group in self.optimiser.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(trained, t.clip)
        factors = {part: self._factor(part) for part in ("head", "encoder")}
        for group, full in zip(self.optimiser.param_groups, self.full_rates, strict=True):
            group["lr"] = full * factors[group["part"]]
        self.scaler.step(self.optimiser)
        self.scaler.update()

    def _factor(self, part: str) -> float:
        t, iteration = self.config.train, self.place.iteration
        return rate_factor(t, self.length, part, iteration, self._n_drops)

    def _unsynced(self, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Ranks exchange gradients once a step, with its last micro batch."""
        if self.ranks.size > 1 and not is_last:
            return self.model.no_sync()  # type: ignore
        return contextlib.nullcontext()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = DTYPES.get(self.config.train.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    @contextlib.contextmanager
    def _one_line(self, n_images: int) -> Iterator[None]:
        """BatchNorm's refusal of a single value to take statistics of, in a user's words."""
        try:
            yield
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise RequestError(
                f"BatchNorm can't train on the statistics of {n_images} image at once; take a "
                "larger --batch-size, or --batchnorm eval"
            ) from error

    # ------------------------------------------------------------------ looks, checks, saves

    def _look(self) -> None:
        """Show how it goes, now and then, and stop where it went wrong.

        Several ranks must stop at one step, or the others would wait for ever: they agree after the
        same steps, and between them the first one shows its own share.
        """
        now, place, n_ranks = time.monotonic(), self.place, self.ranks.size
        is_last = place.iteration == self.length.n_iterations
        is_agreed = n_ranks > 1 and (is_last or place.iteration % SYNC_STEPS == 0)
        if not is_agreed and not is_last and now - self._looked < LOG_SECONDS:
            return
        self._looked = now
        if n_ranks == 1 or is_agreed:
            loss = self._mean_loss()
            self._refuse_divergence(loss)
        else:
            loss = n_ranks * float(self._loss) / max(place.n_losses, 1)
        best = ""
        if place.checks:
            name = self.learned.objective.choose_by
            values = {
                check["iteration"]: check["val"].get(name, math.nan) for check in place.checks
            }
            last = [*values.values()][-1]
            best = "" if math.isnan(last) else f" · val {name} {last:.3f}"  # an episode has no val
            if place.best in values and not math.isnan(values[place.best]):
                best += f" (best {values[place.best]:.3f} at {place.best:_})"
        rates = ", ".join(
            f"{part} {rate * self._factor(part):.2g}"
            for part, rate in (("head", self.head_lr), ("encoder", self.encoder_lr))
            if part == "head" or self.config.model.encoder_trains
        )
        speed = place.n_images * self.ranks.size / max(place.seconds, 1e-9)
        note = f"lr: {rates} · loss {loss:.4f}{best} · {per_second(speed, 'images')}"
        if self.ranks.is_first:
            self._progress.reach(place.iteration, note=note)

    def _mean_loss(self) -> float:
        """A step's loss in the mean since the last check, the same on every rank."""
        return sum(self.ranks.gather(float(self._loss))) / max(self.place.n_losses, 1)

    def _is_due(self) -> bool:
        """Whether it is time to save; several ranks go by the first one's clock, now and then."""
        is_due = time.monotonic() - self._saved >= self.config.run.checkpoint_seconds
        if self.ranks.size == 1:
            return is_due
        return self.place.iteration % SYNC_STEPS == 0 and self.ranks.gather(is_due)[0]

    def _refuse_divergence(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        found = self.files.load() if self.ranks.is_first else None
        last = (
            f"the last good checkpoint is {self.files.folder / LAST}, after "
            f"{found[0].iteration} iterations"
            if found
            else "no checkpoint was written yet"
        )
        if self.ranks.is_first:  # curves over rates show where learning ends
            place = self.place
            line = {"tried": self._tried, "iteration": place.iteration, "epoch": place.epoch}
            self.files.log({**line, "loss": None, "val": {}, "diverged": True})
        has_name = self.config.rate_name is not None
        lr, flag = (self.encoder_lr, "--encoder-lr") if has_name else (self.head_lr, "--lr")
        raise Diverged(
            f"training diverged: the loss isn't finite after {self.place.iteration} iterations; "
            f"{last}; try {flag} {lr / 10:g}"
        )

    @property
    def _tried(self) -> dict[str, Any]:
        """Which of several trainings a line of the log is of: its full rate, and its seed."""
        name = self.config.rate_name
        return {**({name: self.encoder_lr} if name else {}), "seed": self.seed}

    def rank(self, judged: Mapping[str, float | None]) -> float:
        """A check's value by what is chosen, higher is better."""
        values = {name: math.nan if v is None else v for name, v in judged.items()}
        return self.learned.objective.rank(values)

    def _check(self) -> None:
        """Score val, and keep the weights if they are the best so far."""
        place, learned = self.place, self.learned
        loss = self._mean_loss()
        self._refuse_divergence(loss)
        trains = self.config.model.encoder_trains
        line: dict[str, Any] = {
            "tried": self._tried,
            "iteration": place.iteration,
            "epoch": place.epoch,
            "seconds": round(place.seconds, 2),
            "images_per_s": round(place.n_images * self.ranks.size / max(place.seconds, 1e-9), 2),
            **({"encoder_lr": self.encoder_lr * self._factor("encoder")} if trains else {}),
            "head_lr": self.head_lr * self._factor("head"),
            "loss": loss,
            "val": {},
        }
        is_best = True
        if len(learned.val):
            found = predict(self.classifier, self.plain, learned.val, place.micro_batch, self.ranks)
            judged = learned.objective.judge(found.logits, learned.labels[learned.val])
            self._refuse_divergence(judged["loss"])
            value = learned.objective.rank(judged)
            if math.isnan(value):
                raise RequestError(
                    f"val has no {learned.objective.choose_by} after {place.iteration} iterations: "
                    "a class is missing there, or a label is known of no val image; choose another "
                    "--choose-by"
                )
            before = [self.rank(check["val"]) for check in place.checks]
            is_best = value > max(before, default=-math.inf)
            line["val"] = {name: v if math.isfinite(v) else None for name, v in judged.items()}
        # Not before: where memory is too small for val, this is done once more.
        self._loss.zero_()
        place.n_losses = 0
        place.checks.append(line)
        self._count_drops()
        if is_best:
            place.best = place.iteration
            if self.ranks.is_first:
                self.files.save_best(place.iteration, trained_tensors(self.classifier))
        if self.ranks.is_first:
            self.files.log(line)
            if self.board:
                for name in {"loss", "encoder_lr", "head_lr", "images_per_s"} & line.keys():
                    self.board.add_scalar(name, line[name], place.iteration)
                for name, value in line["val"].items():
                    shown = math.nan if value is None else value
                    self.board.add_scalar(f"val/{name}", shown, place.iteration)
        n_worse = len([c for c in place.checks if place.best and c["iteration"] > place.best])
        if learned.val.size and n_worse == self.config.train.patience:
            place.done = True

    def _count_drops(self) -> None:
        ranks = [self.rank(check["val"]) for check in self.place.checks]
        self._n_drops = count_drops(self.config.train, ranks)

    def _save(self) -> None:
        tensors = trained_tensors(self.classifier)
        if not all(t.isfinite().all() for t in tensors.values()):  # between two looks at the loss
            self._refuse_divergence(math.nan)
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        every = self.ranks.gather(random)
        self.place.loss = sum(self.ranks.gather(float(self._loss)))
        if self.ranks.is_first:
            state: dict[str, Any] = {"model": tensors}
            if not self.place.done:  # nobody goes on from the end: two thirds of the file less
                state["optimiser"] = self.optimiser.state_dict()
                state["scaler"] = self.scaler.state_dict()
                state["random"] = every
            self.files.save(self.place, state)
        self.ranks.wait()
        self._saved = time.monotonic()

    def _resume(self) -> None:
        """Go on from ``last.pt``, if there is one."""
        self._looked = 0.0
        found = self.files.load()
        if found is None:
            if self.ranks.is_first:
                self.files.forget()
            return
        place, state = found
        if self.ranks.is_first:
            self.files.rewind_log(place)
        if place.done:
            self.place = place
            return
        micro = min(self.place.micro_batch, place.micro_batch if place.halved else 2**31)
        self.place = dataclasses.replace(place, micro_batch=micro)
        self._count_drops()
        load_trained(self.classifier, state["model"], self.files.folder)
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if len(state["random"]) == self.ranks.size:
            random = state["random"][self.ranks.rank]
            torch.set_rng_state(random["cpu"])
            if self.device.type == "cuda" and "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"], self.device)
        self.say(f"  {self.label}: going on after {place.iteration:_} iterations")

    def _halve(self, error: RuntimeError) -> None:
        """Take half as many samples at once; the batch, and so the numbers, stay.

        Raises:
            RequestError: that isn't possible here.
        """
        place, micro = self.place, self.place.micro_batch
        self.optimiser.zero_grad(set_to_none=True)
        what = "images" if self.plain.most_rows == 1 else "samples"
        if micro == 1:
            n = self.plain.most_rows
            one = "one image" if n == 1 else f"one sample of {n} images"
            raise RequestError(f"the device's memory is too small for {one}; {CURE}") from error
        if updates_batchnorm(self.classifier):
            raise RequestError(
                f"the device's memory is too small for {micro} {what} at once, and halves would "
                f"change BatchNorm's statistics; {CURE}, or leave BatchNorm alone with "
                "--batchnorm eval"
            ) from error
        if self.ranks.size > 1:
            raise RequestError(
                f"rank {self.ranks.rank}'s memory is too small for {micro} {what} at once; run "
                f"again with --micro-batch {micro // 2}"
            ) from error
        free_cache(self.device)
        place.halved.append(micro)
        place.micro_batch = micro // 2
        self.say(
            f"  {self.label}: the device's memory is too small for {micro} {what} at once: "
            f"{place.micro_batch} at once from now on, and as many a step as before"
        )


class Diverged(RequestError):
    """A loss that isn't finite any more: of several rates, this one is out of the race."""


def _make_optimiser(groups: list[dict[str, Any]], config: FinetuneConfig) -> torch.optim.Optimizer:
    t = config.train
    if t.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=t.momentum)
    return torch.optim.AdamW(groups, lr=1.0, fused=True)


def _make_board(folder: Path, iteration: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RequestError(
            "--tensorboard needs tensorboard: pip install 'medprobe[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder), purge_step=iteration + 1)

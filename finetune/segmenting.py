"""Heads on masks with the encoder run on the way: ``probe --kind decoder`` without a token file.

The encoder is frozen, so each batch's tokens are those that ``extract --tokens`` would store as
float32, to rounding; the head, its batches, its choice and its row are the probe's own. It takes the
encoder's time in every step, and no disk.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.errors import RequestError
from cache.format.key import file_stem
from cache.masks import write_masks
from extract.encoders.encoder import Encoder, describe, find_weights, load_encoder
from extract.job import Job
from extract.key import feature_key, weights_words
from extract.machine.devices import set_precision
from extract.machine.digests import DigestMemory
from extract.machine.stopwatch import describe_device
from extract.prepare.transforms import Transform
from extract.spec import encoder_notes
from finetune.config import FinetuneConfig, ModelConfig, Request
from finetune.data.batches import Loader
from finetune.data.images import Images, find_transform, open_images
from finetune.decoder import layers_seen, settle_decoder
from finetune.ranks import Ranks
from finetune.rows import as_row
from finetune.setting import KIND, READ, Say, Setting
from probe.arrays import Indices
from probe.choosing.plan import ChoosingConfig
from probe.cost import Cost
from probe.kinds.decoder import Decoder
from probe.kinds.kind import Problem
from probe.maps import Maps
from probe.places import TOKENS, Place, settings_of
from probe.questions.describe import describe_questions
from probe.questions.leaks import refuse_leaks, with_leaks
from probe.questions.masks import lay_masks
from probe.questions.question import Question, divide_samples
from probe.results import Row
from probe.row import of_patients

AT_ONCE = {"cpu": 16, "cuda": 64}  # images that go through the encoder together


@dataclass(frozen=True)
class LiveMaps(Maps):
    """Token maps that the encoder makes when they are asked for."""

    encoder: Encoder = field(kw_only=True)
    images: Images = field(kw_only=True)
    transform: Transform = field(kw_only=True)
    feature_key: Mapping[str, Any] = field(kw_only=True)

    @property
    def key(self) -> Mapping[str, Any]:
        return self.feature_key

    @property
    def grid(self) -> tuple[int, int]:
        return self.encoder.description.grids[0]

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(width for *_, width in self.encoder.description.token_shapes)

    def parts(self, rows: Indices) -> list[Any]:
        """Of each layer (n, h, w, D) float32 tokens, on the encoder's device."""
        device = next(self.encoder.model.parameters()).device
        at_once, found = AT_ONCE.get(device.type, AT_ONCE["cpu"]), []
        for start in range(0, len(rows), at_once):
            pixels = self.images.pixels.take(rows[start : start + at_once])
            inputs = [self.transform(torch.from_numpy(part).to(device)) for part in pixels]
            arrays = self.encoder(torch.cat(inputs))
            found.append([tokens.clone() for tokens in arrays.values()])  # out of inference mode
        return [torch.cat(parts) for parts in zip(*found, strict=True)]


@dataclass(frozen=True)
class LiveProblem(Problem):
    """A question of masks whose maps are made on the way."""

    live: LiveMaps = field(kw_only=True)
    folder: Path = field(kw_only=True)

    @property
    def maps(self) -> Maps:
        return self.live

    @property
    def runs(self) -> Path:
        return self.folder


def run_decoder(
    request: Request, job: Job, memory: DigestMemory, device: torch.device, ranks: Ranks, say: Say
) -> Iterator[Row]:
    """One encoder on one data set with masks: a row for each seed, and each split.

    Raises:
        RequestError, CacheError, OSError: as the message says; rows and checkpoints stay.
    """
    kind, followed = settle_decoder(request)
    kind = dataclasses.replace(kind, device=str(device))
    if ranks.size > 1:
        raise RequestError("heads on masks are trained by one process; leave torchrun out")
    d = job.description
    layers = layers_seen(request, kind, d.typed, d.anatomy.n_layers)
    job.description = describe(d.typed, d.size, layers, d.layer_norm, tokens=True)
    set_precision("fp32", device)
    weights = find_weights(d, request.images.weights, request.images.seed, download=True)
    transform = find_transform(job, memory, say)
    images = open_images(job, request.images, transform, memory, say)
    encoder, digest = load_encoder(job.description, weights)
    encoder.to(device)
    stored = dataclasses.replace(request.images, tokens=layers, store="float32")
    words, pixels = weights_words(weights, digest), images.dataset.images_digest
    setting = Setting(
        request,
        job,
        FinetuneConfig(ModelConfig(mode="head", head=kind.head), run=request.run),
        followed,
        weights,
        images,
        Loader(images, transform, None, device),
        Loader(images, transform, None, device),
        feature_key(job, stored, transform, weights=words, images=pixels),
        encoder_notes(job, weights, request.images),
        device,
        ranks,
        say,
    )
    overlay = request.overlay
    if overlay.masks is None:
        overlay = dataclasses.replace(overlay, masks=_masks_of(request, images))
    questions = lay_masks(overlay, images.features)
    for line in describe_questions(questions):
        say(line)
    questions = [with_leaks(question, READ, say) for question in questions]
    for question in questions:
        kind.check_question(question)
        if request.strict:
            refuse_leaks(question)
    for question in questions:
        places = tuple(Place(layer, TOKENS) for layer in job.description.layers)
        made = {"encoder": encoder, "images": images, "transform": transform}
        maps = LiveMaps(images.features, places, question.masks, feature_key=setting.key, **made)
        yield from _answer(setting, kind, question, maps)


def _masks_of(request: Request, images: Images) -> Path:
    """The data set's own masks, written where ``extract --tokens`` would write them.

    Raises:
        RequestError: it has none.
    """
    dataset = images.dataset
    if dataset.masks is None:
        raise RequestError(
            f"{dataset.name} has no masks to learn from; name a masks file with --masks FILE, or "
            "images with masks: demo-masks, seg-folder:PATH"
        )
    folder = request.images.root / file_stem(dataset.name)
    return write_masks(folder, dataset.name, dataset.row_ids, dataset.masks)


def _answer(setting: Setting, kind: Decoder, question: Question, maps: LiveMaps) -> Iterator[Row]:
    """A row for each seed.

    Raises:
        RequestError: a split that is needed is empty, or what the kind refuses.
    """
    started = time.perf_counter()
    numbers = np.arange(len(question.labels), dtype=float)[:, None]
    splits = divide_samples(numbers, question)
    for name in ("train", "test"):
        if not len(splits[name]):
            raise RequestError(f"{question.title} has no {name} images; --split makes some")
    request, d = setting.request, setting.job.description
    runs = request.runs_dir
    problem = LiveProblem(
        *(question, maps.places, splits, ChoosingConfig()), say=setting.say, live=maps, folder=runs
    )
    for answer in kind.answer(problem):
        settings = {
            "kind": KIND,
            "mode": "head",
            **settings_of(maps.places),
            **answer.settings,
            **of_patients(request, question, reads_test=True),
            "read": READ,
            "n_resamples": request.n_resamples,
        }
        trained = answer.trained_parameters or 0
        cost = Cost(
            parameters=d.anatomy.n_parameters + trained,
            trained_parameters=trained,
            device=describe_device(setting.device),
            precision="fp32",
        )
        answer = dataclasses.replace(answer, settings=settings)
        yield as_row(setting, question, answer, cost, started)
        started = time.perf_counter()

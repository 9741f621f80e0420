"""The text side of open_clip's models: prompts to the vectors that images are compared with."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from open_clip import SimpleTokenizer
from open_clip.model import (
    CLIPTextCfg,
    _build_text_tower,  # the one function that builds it alone; under test
)
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn

from cache import RequestError
from extract.encoders.from_open_clip import find_configuration
from extract.encoders.from_transformers import import_transformers
from extract.encoders.table import ENTRIES, Entry
from extract.names import first_line

BATCH = 64  # prompts at once


class TextTower:
    """A text encoder and its tokenizer.

    Args:
        module: gives (B, D) for (B, T) token numbers.
        tokenize: texts -> (B, T).
        logit_scale: what cosines are multiplied by before the softmax; already exponentiated.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenize: Callable[[Sequence[str]], Tensor],
        logit_scale: float,
    ) -> None:
        self.module = module.requires_grad_(False).eval()
        self.tokenize = tokenize
        self.logit_scale = logit_scale

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(P, D) float32 projected features of P texts, not normalised."""
        device = next(self.module.parameters()).device
        parts = []
        for first in range(0, len(texts), BATCH):
            tokens = self.tokenize(list(texts[first : first + BATCH]))
            vectors = self.module(tokens.to(device))
            parts.append(vectors.float().cpu())
        return torch.cat(parts)


def has_text_tower(entry: Entry) -> bool:
    """Whether an encoder's texts can be had."""
    return entry.library == "open_clip"


def build_text_tower(
    entry: Entry, tensors: Mapping[str, Tensor] | None, source: str, seed: int = 0
) -> TextTower:
    """The text tower of an entry.

    Args:
        entry: one of open_clip's.
        tensors: of the whole checkpoint, image tower and all; None: random weights.
        source: its file, for messages.
        seed: of random weights.

    Raises:
        RequestError: the encoder has no text tower, its parts can't be had, or the weights don't
            fit.
    """
    if not has_text_tower(entry):
        names = ", ".join(e.name for e in ENTRIES if has_text_tower(e))
        raise RequestError(
            f"{entry.encoder} has no text tower that medprobe can run; those of open_clip have: "
            f"{names}, open_clip:MODEL/TAG, or an hf-hub: name of open_clip's"
        )
    config = find_configuration(entry)
    text = dict(config.get("text_cfg") or {})
    if not text:
        raise RequestError(f"{entry.encoder}: its configuration describes no text tower")
    text["hf_model_pretrained"] = False  # its weights are in the checkpoint
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        import_transformers()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = _build_text_tower(
                config["embed_dim"], CLIPTextCfg(**text), config.get("quick_gelu", False)
            )
        tokenize = _tokenizer(text, module)
    except Exception as error:  # the hub's client and transformers have dozens of kinds
        part = text.get("hf_model_name") or text.get("hf_tokenizer_name") or "its text tower"
        raise RequestError(
            f"{entry.encoder} needs {part} for its texts, and that can't be had "
            f"({first_line(error)}); fetch it once with network"
        ) from error
    if tensors is None:
        return TextTower(module, tokenize, 1 / 0.07)  # CLIP's value before training
    _load(module, tensors, source)
    scale = tensors.get("logit_scale")
    if scale is None:
        raise RequestError(f"{source} holds no logit_scale, so it isn't an open_clip checkpoint")
    return TextTower(module, tokenize, float(scale.float().exp()))


def _tokenizer(text: Mapping[str, Any], module: Any) -> Callable[[Sequence[str]], Tensor]:
    options = dict(text.get("tokenizer_kwargs") or {})
    length = text.get("context_length") or getattr(module, "context_length", 77)
    name = text.get("hf_tokenizer_name")
    if name:
        tokenizer: Any = HFTokenizer(
            name, context_length=length, tokenizer_mode=text.get("tokenizer_mode"), **options
        )
    else:
        tokenizer = SimpleTokenizer(context_length=length, **options)
    return tokenizer


def _load(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """All of the text tower, strictly: its names begin with "text.", or stand beside "visual."."""
    prefixed = any(name.startswith("text.") for name in tensors)
    found = {
        name.removeprefix("text."): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if (name.startswith("text.") if prefixed else not name.startswith("visual."))
    }
    # Numbers of positions that older transformers saved: 0, 1, 2...
    for name in [n for n in found if n.endswith("position_ids") or n in BESIDE]:
        del found[name]
    own = module.state_dict()
    missing = [name for name in own if name not in found and not name.endswith("position_ids")]
    extra = [name for name in found if name not in own]
    wrong = [n for n in own if n in found and found[n].shape != own[n].shape]
    if missing or extra or wrong:
        name = [*missing, *extra, *wrong][0]
        raise RequestError(
            f"{source} doesn't fit the text tower: {len(missing)} tensors are missing, "
            f"{len(extra)} don't belong, {len(wrong)} are misshapen (first: {name})"
        )
    module.load_state_dict({**{n: v for n, v in own.items() if n not in found}, **found})


BESIDE = ("logit_scale", "logit_bias")

"""The text side of open_clip's models: prompts to the vectors that images are compared with.

Built alone, as the image side is. A tower of transformers' needs that library, and two small
things of its own repository that no open_clip checkpoint holds: configuration and tokenizer.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip import SimpleTokenizer
from open_clip.model import (
    CLIPTextCfg,
    _build_text_tower,  # the one function that builds it alone; under test
)
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer
from torch import Tensor, nn

from cache import RequestError
from cache.commands.names import first_line
from extract.encoders.libraries.open_clip import find_configuration
from extract.encoders.libraries.transformers import import_transformers, network_values
from extract.encoders.table.entries import ENTRIES
from extract.encoders.table.entry import Entry
from extract.encoders.weights.checkpoints import compare
from extract.encoders.weights.published import Local, config_file
from extract.encoders.weights.tensor_names import Misfit
from extract.encoders.weights.wrappings import unwrap
from extract.machine.network import FORBIDDEN, offline

BATCH = 64  # prompts at once
PRETRAINED = "hf_model_pretrained"  # whether its weights are the hub's; here the checkpoint's
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.txt")  # each has one of these

# Beside the towers at the root of a checkpoint; the last three are of OpenAI's own files.
BESIDE = ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size")

Tokenize = Callable[[Sequence[str]], Tensor]  # P texts -> (P, T) int64


@dataclass(frozen=True)
class TextOutline:
    """A text tower before any weight is read."""

    entry: Entry
    config: Mapping[str, Any]  # of the whole model
    n_layers: int
    width: int  # of its vectors
    n_tokens: int  # different ones that it knows
    arguments: Mapping[str, Any]  # what builds it; part of the key
    hf_folder: Path | None  # that has transformers' configuration; None: open_clip's own tower

    @property
    def text(self) -> dict[str, Any]:
        """Of the configuration, what describes the text tower."""
        return dict(self.config["text_cfg"])


class TextTower:
    """A text tower with its weights.

    Args:
        module: gives (B, D) for (B, T) token numbers.
        logit_scale: what cosines are multiplied by before the softmax; already exponentiated.
        logit_bias: what a model of the sigmoid loss adds then; a softmax doesn't see it.
    """

    def __init__(
        self, module: nn.Module, logit_scale: float, logit_bias: float | None = None
    ) -> None:
        self.module = module.requires_grad_(False).eval()
        self.logit_scale = logit_scale
        self.logit_bias = logit_bias

    @torch.inference_mode()
    def __call__(self, tokens: Tensor) -> Tensor:
        """(P, D) float32 projected features of P texts, on the CPU, not normalised.

        Args:
            tokens: (P, T), as the outline's tokenizer gives them.
        """
        device = next(self.module.parameters()).device
        parts = [self.module(part.to(device)).float().cpu() for part in tokens.split(BATCH)]
        return torch.cat(parts)


def refuse_textless(entry: Entry) -> None:
    """Refuse an encoder without a text tower.

    Raises:
        RequestError: it has none; the message names those that have.
    """
    if entry.library != "open_clip":
        names = ", ".join(e.name for e in ENTRIES if e.library == "open_clip")
        raise RequestError(
            f"{entry.encoder} has no text tower that medprobe can run; those of open_clip have: "
            f"{names}, open_clip:MODEL/TAG, or an hf-hub: or local-dir: name of open_clip's"
        )


def outline_text(entry: Entry) -> TextOutline:
    """What the text tower of an encoder is, without its weights.

    Raises:
        RequestError: the encoder has none, or a part of it can't be had.
    """
    refuse_textless(entry)
    config = find_configuration(entry)
    text = config.get("text_cfg")
    if not isinstance(text, dict) or not text:
        raise RequestError(f"{entry.encoder}: its configuration describes no text tower")
    text = dict(text)
    with _unbuildable(entry):
        own = CLIPTextCfg(**text)
    name = text.pop("hf_model_name", None)
    # A name may be a folder's, and isn't what makes the numbers: its configuration is.
    arguments = {
        "text": {n: v for n, v in text.items() if n not in ("hf_tokenizer_name", PRETRAINED)},
        "embed_dim": config["embed_dim"],
        "quick_gelu": config.get("quick_gelu", False),
    }
    if not name:
        width = own.width if own.proj_type == "none" else config["embed_dim"]
        return TextOutline(entry, config, own.layers, width, own.vocab_size, arguments, None)
    if not text.get("hf_tokenizer_name"):
        raise RequestError(f"{entry.encoder}: its configuration names no tokenizer for {name}")
    transformers = import_transformers()
    folder = _hf_folder(entry, name, ("config.json",))
    with _unbuildable(entry):
        # Without this word it would ask the user whether to run code of the repository.
        found = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        arguments["hf"] = {"model_type": found.model_type, **network_values(found)}
        n_layers, n_tokens = found.num_hidden_layers, found.vocab_size
    return TextOutline(entry, config, n_layers, config["embed_dim"], n_tokens, arguments, folder)


@contextmanager
def _unbuildable(entry: Entry) -> Iterator[None]:
    """Whatever open_clip and transformers stumble over becomes one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of transformers, about names of its own
            yield
    except RequestError:
        raise
    except Exception as error:  # a configuration can be wrong in any way
        raise RequestError(
            f"{entry.encoder}: its text tower can't be built as its configuration says "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error


def _hf_folder(entry: Entry, name: str, files: Sequence[str]) -> Path:
    """The folder that holds one of some files of transformers': the name itself, or the hub's cache.

    Raises:
        RequestError: none of them can be had; the message names the first.
    """
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    found, why = None, "its repository has none"
    if offline():
        why = f"{FORBIDDEN}, and it isn't in the hub's cache"
    try:
        found = next(filter(None, (config_file(name, file) for file in files)), None)
    except RequestError as error:
        why = first_line(error)
    if found is None:
        raise RequestError(
            f"{entry.encoder}: its text tower needs {name}/{files[0]}, and that can't be had "
            f"({why}); fetch it once with network"
        )
    return found.parent


# ---------------------------------------------------------------------------- tokens


def make_tokenizer(outline: TextOutline) -> Tokenize:
    """The tokenizer that a model was trained with.

    Raises:
        RequestError: it can't be had, or isn't this tower's.
    """
    entry, text = outline.entry, outline.text
    # As open_clip does: its own default, not the tower's longest text.
    length = text.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = {"context_length": length, **(text.get("tokenizer_kwargs") or {})}
    options.pop("reduction_mask", None)  # of training: shortens long texts at random
    name = text.get("hf_tokenizer_name")
    tokenizer: Any
    if not name:
        with _unbuildable(entry):
            tokenizer = SimpleTokenizer(**options)
            n_words = tokenizer.vocab_size
    else:
        import_transformers()
        source = _tokenizer_source(entry, name)
        options["tokenizer_mode"] = text.get("tokenizer_mode")
        options["trust_remote_code"] = False  # whatever a published configuration asks for
        with _unbuildable(entry):
            tokenizer = HFTokenizer(source, **options)
            n_words = len(tokenizer.tokenizer)
    # transformers makes a tokenizer of next to nothing where its vocabulary isn't in the cache.
    if not outline.n_tokens / 2 < n_words:
        raise RequestError(
            f"{entry.encoder}: the tokenizer {name or 'of CLIP'} knows {n_words} tokens and the "
            f"text tower {outline.n_tokens}: a file of it is missing; fetch it once with network"
        )

    def tokenize(texts: Sequence[str]) -> Tensor:
        tokens = tokenizer(list(texts))
        if tokens.max() >= outline.n_tokens:
            raise RequestError(
                f"{entry.encoder}: the tokenizer {name or 'of CLIP'} gives token {tokens.max()}, "
                f"and the text tower knows {outline.n_tokens}: they don't belong together"
            )
        return tokens

    return tokenize


def _tokenizer_source(entry: Entry, name: str) -> str:
    """A folder, or a name of the hub's whose files are in its cache or can be fetched."""
    if isinstance(entry.weights, Local):  # saved beside the weights, as open_clip does
        folder = entry.weights.path.parent
        if any((folder / file).is_file() for file in TOKENIZER_FILES):
            return str(folder)
    folder = _hf_folder(entry, name, TOKENIZER_FILES)
    return str(folder) if Path(name).expanduser().is_dir() or offline() else name


# ---------------------------------------------------------------------------- weights


def load_text_tower(
    outline: TextOutline, tensors: Mapping[str, Tensor] | None, source: str, seed: int = 0
) -> TextTower:
    """Build the tower with its weights, on the CPU in float32.

    Args:
        outline: what to build.
        tensors: of the whole checkpoint, image tower and all; None: random weights.
        source: its file, for messages.
        seed: of random weights.

    Raises:
        RequestError: the weights don't fit.
    """
    text, config = outline.text, outline.config
    text[PRETRAINED] = False
    text["output_tokens"] = False  # of CoCa: its caption's, beside the vector
    if outline.hf_folder:
        text["hf_model_name"] = str(outline.hf_folder)
    with _unbuildable(outline.entry), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _build_text_tower(
            config["embed_dim"], CLIPTextCfg(**text), config.get("quick_gelu", False)
        )
    if tensors is None:
        scale = math.exp(config.get("init_logit_scale", math.log(1 / 0.07)))
        return TextTower(module, scale, config.get("init_logit_bias"))

    def fit(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        if "logit_scale" not in tensors:
            raise Misfit(f"{source} holds no logit_scale, so it isn't an open_clip checkpoint")
        return _fit(module, tensors, source) | {n: tensors[n] for n in SCALES if n in tensors}, []

    fitting, _ = unwrap(dict(tensors), fit, source)  # the image side says what was done
    scales = {n: float(fitting.pop(n).float()) for n in SCALES if n in fitting}
    module.load_state_dict(fitting, strict=False)
    return TextTower(module, math.exp(scales["logit_scale"]), scales.get("logit_bias"))


SCALES = ("logit_scale", "logit_bias")  # beside the towers


def _fit(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """All of the text tower: its names begin with "text.", or stand at the root beside "visual.".

    Raises:
        Misfit: names, shapes or types don't fit.
    """
    prefix = "text." if any(name.startswith("text.") for name in tensors) else ""
    found = {
        name.removeprefix(prefix): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and not name.startswith("visual.")
    }
    # position_ids: numbers 0, 1, 2... that older transformers saved.
    for name in [n for n in found if n in BESIDE or n.endswith("position_ids")]:
        del found[name]
    own = {n: value for n, value in module.state_dict().items() if not n.endswith("position_ids")}
    faults, n_fitting = compare(found, own)
    if faults:
        raise Misfit(
            f"{source} doesn't fit the text tower: {'; '.join(faults)}; "
            "give the file of this very model, text tower and all",
            n_fitting,
        )
    return found

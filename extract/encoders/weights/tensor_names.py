"""How published weight files name an image encoder's tensors, and how those names become timm's.

The table decides what is loaded, so it is literal. Each entry was read from the code that writes
the files; the source stands beside it. Whatever lies outside a layout's prefix (text towers,
momentum copies, decoders) is dropped by name and counted, never silently; whatever lies inside must
fit the model exactly, which ``checkpoints.load_strictly`` checks.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cache import RequestError

Tensors = dict[str, Tensor]


class Misfit(RequestError):
    """A file's tensors aren't a model's.

    Args:
        message: why.
        n_fitting: how many of them are.
    """

    def __init__(self, message: str, n_fitting: int = 0) -> None:
        super().__init__(message)
        self.n_fitting = n_fitting


# torch.nn.DataParallel's prefix of every name. It may come on top of any other layout.
MODULE = "module."
STRIP_MODULE = "strip 'module.'"


@dataclass(frozen=True)
class Layout:
    """How one kind of file names its tensors."""

    name: str
    what: str  # whose files are written so
    marks: tuple[str, ...] = ()  # regular expressions; a file in which each begins a name has it
    container: str | None = None  # sub-dictionary of a training checkpoint that holds the tensors
    prefix: str = ""  # kept and stripped; whatever lies outside is dropped
    prefix_optional: bool = False  # whether files without the prefix have this layout, too
    drops: tuple[str, ...] = ()  # beginnings of names, after the prefix, that timm's encoder lacks
    renames: tuple[tuple[str, str], ...] = ()  # (regular expression, replacement), in this order
    # What renaming can't do, last: from stripped and renamed tensors and the model that they go to.
    special: Callable[[Tensors, nn.Module], Tensors] | None = None


# ---------------------------------------------------------------------------- special functions


def _in_order(tensors: Tensors, model: nn.Module) -> Tensors:
    """The i-th tensor of the file is the i-th of the model with its classifier."""
    names = list(model.state_dict())
    extra = list(tensors)[len(names) :]  # what a headless model lacks comes last
    names += [f"classifier.{name}" for name in extra]
    return dict(zip(names, tensors.values(), strict=False))  # a short file is refused as missing


def _strip_module(tensors: Tensors, model: nn.Module | None = None) -> Tensors:
    return {name.removeprefix(MODULE): value for name, value in tensors.items()}


def _fuse_qkv(tensors: Tensors, model: nn.Module) -> Tensors:
    """Put ``attn.q``, ``attn.k`` and ``attn.v`` of a block on top of one another, as timm has them.

    An incomplete triple is left as it is, and then refused as not belonging.
    """
    fused = dict(tensors)
    for name in tensors:
        found = re.fullmatch(r"(.+\.attn\.)q\.(weight|bias)", name)
        triple = [f"{found[1]}{part}.{found[2]}" for part in "qkv"] if found else []
        if found and len({tensors[n].shape for n in triple if n in tensors}) == 1:
            if all(n in tensors for n in triple):
                values = [fused.pop(n) for n in triple]
                fused[f"{found[1]}qkv.{found[2]}"] = torch.cat(values)  # (3 D, ...)
    return fused


def _linear_to_conv(tensors: Tensors, model: nn.Module) -> Tensors:
    """A linear layer over channels is a 1x1 convolution where the model keeps maps (B, D, H, W)."""
    maps = {name for name, value in model.state_dict().items() if value.ndim == 4}
    return {
        name: value[:, :, None, None] if name in maps and value.ndim == 2 else value
        for name, value in tensors.items()
    }


def _tower_or_timm(tensors: Tensors, model: nn.Module) -> Tensors:
    """Names for whichever model an open_clip file goes to: open_clip's own tower, or timm's."""
    if tensors.keys() & model.state_dict().keys():
        return tensors  # open_clip's tower
    if any(name.startswith("trunk.") for name in tensors):
        return {name.removeprefix("trunk."): value for name, value in tensors.items()}
    # timm's own filter maps OpenAI's names, and knows them by this prefix.
    return {f"visual.{name}": value for name, value in tensors.items()}


# ---------------------------------------------------------------------------- the table


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            name="in order",
            what="a timm architecture under other names, its tensors in the same order",
            special=_in_order,
        ),
        Layout(
            name=STRIP_MODULE,
            what="a model saved from inside torch.nn.DataParallel",
            special=_strip_module,
        ),
        # github.com/bowang-lab/MedSAM segment_anything/modeling/{image_encoder,common}.py, the
        # same as github.com/facebookresearch/segment-anything.
        Layout(
            name="medsam",
            what="MedSAM's and Segment Anything's own release",
            marks=(
                r"image_encoder\.patch_embed\.proj\.weight$",
                r"image_encoder\.neck\.0\.weight$",
            ),
            prefix="image_encoder.",
            renames=((r"\.mlp\.lin([12])\.", r".mlp.fc\1."),),
        ),
        # github.com/salesforce/BLIP models/{blip_pretrain,vit}.py. The momentum copy of the encoder
        # is `visual_encoder_m.`; the dot of the prefix keeps it out.
        Layout(
            name="blip",
            what="BLIP's own release",
            marks=(r"visual_encoder\.cls_token$", r"visual_encoder\.patch_embed\.proj\.weight$"),
            prefix="visual_encoder.",
        ),
        # github.com/facebookresearch/msn src/{deit,msn_train}.py: `fc` is the projection head,
        # `pred` a prediction head that published files lack; `encoder` beside `target_encoder` is
        # the student.
        Layout(
            name="msn",
            what="MSN's own release",
            marks=(r"cls_token$", r"fc\.fc1\.weight$"),
            container="target_encoder",
            drops=("fc.", "pred."),
        ),
        # github.com/facebookresearch/mae models_mae.py, and so github.com/rmaphoh/RETFound_MAE; the
        # decoder's names go beside the encoder's. With `mask_token` in it, timm's own filter would
        # take the file for DINOv2's.
        Layout(
            name="mae",
            what="MAE's and RETFound's own release, with or without its decoder",
            marks=(r"cls_token$", r"mask_token$", r"decoder_embed\.weight$"),
            drops=("mask_token", "decoder_"),
        ),
        # github.com/facebookresearch/dino main_dino.py (save_dict), utils.py (MultiCropWrapper) and
        # vision_transformer.py (DINOHead); `student` beside `teacher` isn't what is evaluated.
        Layout(
            name="dino",
            what="DINO's full training checkpoint",
            marks=(r"backbone\.(cls_token|conv1\.weight)$", r"head\.last_layer\.weight_v$"),
            container="teacher",
            prefix="backbone.",
        ),
        # github.com/facebookresearch/dinov2 dinov2/train/ssl_meta_arch.py (student and teacher) and
        # models/vision_transformer.py: with block_chunks, blocks lie in chunks under their own
        # numbers, and a chunk's places before its first block are empty.
        Layout(
            name="dinov2",
            what="DINOv2's and DINOv3's full training checkpoint",
            marks=(r"backbone\.cls_token$", r"(dino|ibot)_head\."),
            container="teacher",
            prefix="backbone.",
            renames=((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),),
        ),
        # github.com/facebookresearch/moco moco/builder.py, and main_lincls.py for what of it is
        # evaluated: `encoder_q` without its `fc`.
        Layout(
            name="moco",
            what="MoCo's full training checkpoint",
            marks=(r"encoder_q\.(conv1|patch_embed\.proj)\.weight$",),
            prefix="encoder_q.",
            drops=("fc.",),
        ),
        # github.com/facebookresearch/moco-v3 moco/builder.py and main_lincls.py: `base_encoder`
        # without its projector, which is called `head` in a ViT and `fc` in a ResNet.
        Layout(
            name="moco v3",
            what="MoCo v3's full training checkpoint",
            marks=(r"base_encoder\.(conv1|patch_embed\.proj)\.weight$",),
            prefix="base_encoder.",
            drops=("head.", "fc."),
        ),
        # github.com/mlfoundations/open_clip src/open_clip/model.py: `visual` is a tower of
        # open_clip's own, or `trunk` and `head` around a timm model (timm_model.py).
        Layout(
            name="open_clip",
            what="OpenAI's CLIP and open_clip's models",
            marks=(r"visual\.(trunk\.|conv1\.weight$)",),
            prefix="visual.",
            special=_tower_or_timm,
        ),
        # github.com/UX-Decoder/Segment-Everything-Everywhere-All-At-Once
        # demo_code/xdecoder/backbone/focal_dw.py (commit be64340).
        Layout(
            name="seem",
            what="SEEM's own release with a FocalNet",
            marks=(r"backbone\.layers\.0\.blocks\.0\.dw1\.weight$",),
            prefix="backbone.",
            renames=(
                (r"^patch_embed\.", "stem."),
                # Downsampling ends a stage there and begins the next here. The highest first, or a
                # renamed one would be renamed again.
                (r"^layers\.2\.downsample\.", "layers.3.downsample."),
                (r"^layers\.1\.downsample\.", "layers.2.downsample."),
                (r"^layers\.0\.downsample\.", "layers.1.downsample."),
                (r"\.norm([12])\.", r".norm\1_post."),
                (r"\.gamma_([12])$", r".ls\1.gamma"),
                (r"^norm([0-3])\.", r"stage_norms.\1."),
            ),
            special=_linear_to_conv,
        ),
        # github.com/taokz/BiomedGPT models/ofa/unify_transformer.py (TransformerEncoder),
        # github.com/OFA-Sys/OFA models/ofa/resnet.py.
        Layout(
            name="biomedgpt",
            what="BiomedGPT's and OFA's own release",
            marks=(r"encoder\.embed_images\.conv1\.weight$",),
            prefix="encoder.embed_images.",
        ),
        # github.com/huggingface/transformers models/{vit,vit_msn,vit_mae}. `layers`, `q_proj` and
        # their like are what version 5 calls them in memory; its files keep the older names.
        Layout(
            name="transformers vit",
            what="ViT, ViT-MSN and ViT-MAE of Hugging Face transformers",
            marks=(
                r"(vit\.)?embeddings\.patch_embeddings\.projection\.weight$",
                r"(vit\.)?(encoder\.layer|layers)\.0\.layernorm_before\.weight$",
            ),
            prefix="vit.",
            prefix_optional=True,
            drops=("classifier.", "decoder.", "pooler.", "embeddings.mask_token"),
            renames=(
                (r"^embeddings\.cls_token$", "cls_token"),
                (r"^embeddings\.position_embeddings$", "pos_embed"),
                (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
                (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
                (r"\.attention\.(attention\.query|q_proj)\.", ".attn.q."),
                (r"\.attention\.(attention\.key|k_proj)\.", ".attn.k."),
                (r"\.attention\.(attention\.value|v_proj)\.", ".attn.v."),
                (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
                (r"\.intermediate\.dense\.", ".mlp.fc1."),
                (r"\.output\.dense\.", ".mlp.fc2."),  # after the attention's output.dense
                (r"\.layernorm_before\.", ".norm1."),
                (r"\.layernorm_after\.", ".norm2."),
                (r"^layernorm\.", "norm."),
            ),
            special=_fuse_qkv,
        ),
        # github.com/huggingface/transformers models/sam/modeling_sam.py (SamVisionEncoder).
        Layout(
            name="transformers sam",
            what="Segment Anything (and MedSAM) of Hugging Face transformers",
            marks=(
                r"vision_encoder\.layers\.0\.attn\.qkv\.weight$",
                r"vision_encoder\.neck\.conv1\.weight$",
            ),
            prefix="vision_encoder.",
            renames=(
                (r"^patch_embed\.projection\.", "patch_embed.proj."),
                (r"^layers\.(\d+)\.", r"blocks.\1."),
                (r"^(blocks\.\d+)\.layer_norm([12])\.", r"\1.norm\2."),
                (r"\.mlp\.lin([12])\.", r".mlp.fc\1."),
                (r"^neck\.conv1\.", "neck.0."),
                (r"^neck\.layer_norm1\.", "neck.1."),
                (r"^neck\.conv2\.", "neck.2."),
                (r"^neck\.layer_norm2\.", "neck.3."),
            ),
        ),
    )
}


# ---------------------------------------------------------------------------- using it


def detect_layout(tensors: Tensors) -> str | None:
    """The layout of a file by its distinctive names; None for timm's own, and for unknown ones."""
    in_module = _all_in_module(tensors)
    names = [name.removeprefix(MODULE) for name in tensors] if in_module else list(tensors)
    for layout in LAYOUTS.values():
        patterns = [re.compile(mark) for mark in layout.marks]
        if patterns and all(any(map(pattern.match, names)) for pattern in patterns):
            return layout.name
    return STRIP_MODULE if in_module else None


def apply_layout(
    name: str, tensors: Tensors, model: nn.Module, *, source: str = "the file"
) -> tuple[Tensors, list[str]]:
    """Turn a file's names into those of a timm model.

    A file that has timm's own names already is taken as it is. Whether everything fits the model is
    checked afterwards, by ``checkpoints.load_strictly``.

    Args:
        name: one of LAYOUTS.
        tensors: as ``checkpoints.read_checkpoint`` gives them.
        model: where they go; only its names and shapes are read.
        source: the file, for messages.

    Returns:
        The tensors under timm's names, and what was done, in words.

    Raises:
        RequestError: nothing in the file has the layout's prefix, or two names become one.
    """
    layout, said = LAYOUTS[name], []
    if name != STRIP_MODULE and _all_in_module(tensors):
        tensors = _strip_module(tensors)
        said.append(_mapped_by(STRIP_MODULE))
    if _has_timms_names(tensors, model, layout):
        return tensors, [*said, f"the names are timm's own already; no layout {name!r} needed"]
    prefix = layout.prefix
    if not any(n.startswith(prefix) for n in tensors):
        if not layout.prefix_optional:
            raise _no_prefix(layout, tensors, source)
        prefix = ""
    said.append(_mapped_by(name))
    kept: Tensors = {}
    dropped: list[str] = []  # the group of each tensor that is left out
    came_from: dict[str, str] = {}
    for old, value in tensors.items():
        inside = old.removeprefix(prefix)
        if not old.startswith(prefix):
            dropped.append(group(old, prefix))
        elif inside.startswith(layout.drops):
            # A drop that is a whole name stays whole; others are named by their first part.
            dropped.append(prefix + (inside if inside in layout.drops else group(inside, "")))
        else:
            new = inside
            for pattern, replacement in layout.renames:
                new = re.sub(pattern, replacement, new)
            if new in kept:
                raise RequestError(
                    f"{source} names one tensor twice: {came_from[new]} and {old} both are {new} "
                    f"in the layout {name!r}; leave one out and save it anew"
                )
            kept[new] = value
            came_from[new] = old
    if dropped:
        said.append(f"dropped: {counted(dropped)}")
    if layout.special is not None:
        kept = layout.special(kept, model)
    return kept, said


def _mapped_by(name: str) -> str:
    return f"names mapped by the layout {name!r}"


def _all_in_module(tensors: Tensors) -> bool:
    return bool(tensors) and all(name.startswith(MODULE) for name in tensors)


def _has_timms_names(tensors: Tensors, model: nn.Module, layout: Layout) -> bool:
    """Whether every tensor of the model is there by name, and nothing for the layout to do."""
    strippable = (layout.prefix,) if layout.prefix else ()
    if any(name.startswith(strippable + layout.drops) for name in tensors):
        return False
    own = (n for n in model.state_dict() if not n.endswith("num_batches_tracked"))
    return all(name in tensors for name in own)


def _no_prefix(layout: Layout, tensors: Tensors, source: str) -> Misfit:
    groups = counted(group(name, layout.prefix) for name in tensors)
    other = detect_layout(tensors)
    looks = f", which looks like the layout {other!r}" if other else ""
    return Misfit(
        f"{source} has no names under {layout.prefix}, which the layout {layout.name!r} "
        f"({layout.what}) keeps; found: {groups}{looks}; give a file of that layout, or choose "
        "the --model this one belongs to"
    )


def group(name: str, prefix: str) -> str:
    """The part of a name that says what it belongs to: the first one where the prefix's differs."""
    parts, ours = name.split("."), prefix.split(".")
    n = next((i for i, pair in enumerate(zip(parts, ours, strict=False)) if len({*pair}) > 1), 0)
    return name if n + 1 >= len(parts) else ".".join(parts[: n + 1]) + "."


def name_faults(missing: list[str], n_own: int, extra: list[str]) -> list[str]:
    """Which of a model's tensors a file lacks, and which it has besides, in words."""
    said = []
    if missing:
        said.append(f"{len(missing)} of {n_own} tensors are missing ({some(missing)})")
    if extra:
        said.append(f"{len(extra)} don't belong ({some(extra)})")
    return said


def some(names: list[str]) -> str:
    """ "a, b, c, ...": the first three."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


MAX_GROUPS = 12  # named in one message


def counted(groups: Iterable[str]) -> str:
    """Each group with how many tensors it has, in the order of the file."""
    counts: dict[str, int] = {}
    for name in groups:
        counts[name] = counts.get(name, 0) + 1
    words = [f"{g} ({n} tensor{'s' if n > 1 else ''})" for g, n in counts.items()]
    more = len(words) - MAX_GROUPS
    return ", ".join(words[:MAX_GROUPS] + ([f"{more} more"] if more > 0 else []))

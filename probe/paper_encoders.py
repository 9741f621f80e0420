"""What papers' released code reads of single encoders: one answer, for ``probe`` and ``finetune``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reading:
    """Which vector of an encoder a paper takes.

    Encoders are meant by a part of their full name: "samvit_" is SAM of any width and weights.
    """

    usual: tuple[str, ...] = ("cls", "head", "mean")  # of the last layer, the first that it has
    special: Mapping[str, str] = field(default_factory=dict)  # part of a name -> pool
    notes: Mapping[str, str] = field(
        default_factory=dict
    )  # part of a name -> what is otherwise here

    def pool(self, encoder: str, there: Collection[str], is_last: bool = True) -> str:
        """The pool that is meant where none is named.

        Args:
            encoder: its full name.
            there: the pools that the layer has.
            is_last: whether it is the last layer. Papers ask no other; there it is cls, else mean.

        Returns:
            The pool; one that isn't there where nothing takes its place.
        """
        special = [pool for part, pool in self.special.items() if part in encoder]
        if is_last:
            wanted = special[:1] or self.usual
        else:
            wanted = [*special, "cls", "mean"]
        return next((pool for pool in wanted if pool in there), wanted[-1])

    def notes_on(self, encoder: str) -> tuple[str, ...]:
        """In what this encoder isn't the paper's, or the release does otherwise with it."""
        return tuple(note for part, note in self.notes.items() if part in encoder)


USUAL = Reading()
# Without a class token: the mean over the patch tokens of the last block, without the neck.
SAM = {"samvit_": "mean"}

READINGS: Mapping[str, Reading] = {
    # Common_Main.py:117: what timm's own classifier sees.
    "wu2025": Reading(
        ("head",),
        notes={
            "vit_base_patch16_clip_quickgelu_224": "OpenAI's CLIP has QuickGELU, with which it was "
            "trained; the release runs it with GELU (--model vit_base_patch16_clip_224.openai)"
        },
    ),
    "doerrich2024": Reading(
        ("head",)
    ),  # forward_head(pre_logits=True): evaluate.py, utils.py:80-105
    "dinov2": Reading(special=SAM),
    # eval/utils.py:204 and :265-277; table 8 of the paper.
    "baharoon2023": Reading(special={**SAM, "BiomedCLIP": "proj"}),
    # Section 3.3 and defaults/models.py: open_clip's 512-d output, SAM's 768-d mean.
    "huix2024": Reading(
        special={**SAM, "open_clip:": "proj"},
        notes={
            # utils/transformers/vit.py:196; defaults/models.py:132-133
            ".blip": "BLIP is its own encoder with its class token; the release reads the first patch "
            "token of a mix with the momentum encoder",
        },
    ),
    "bigvision": Reading(("head",)),  # pre_logits
}


def reading_of(protocol: str | None) -> Reading:
    """What a paper reads; without one, or of one that isn't here, the usual."""
    return READINGS.get(protocol or "", USUAL)

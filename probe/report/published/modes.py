"""How papers call their ways of answering, and which of our rows answer so.

A row fits a mode whoever's protocol it follows: a linear head on frozen features is one, be it
trained by AdamW or fitted by logistic regression. That it was asked otherwise than in the paper is
said beside its number (``probe.report.findings.fits``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Way:
    """One of our ways of answering."""

    kind: str  # of probe, or finetune
    settings: Mapping[str, Any] = field(default_factory=dict)  # that a row's ``probe`` has
    shots: int | None = None  # few-shot: of each class; None: all of train was learnt from

    def is_of(self, settings: Mapping[str, Any], shots: int | None) -> bool:
        """Whether a row with these settings answers so."""
        return (
            settings.get("kind") == self.kind
            and shots == self.shots
            and all(settings.get(name) == value for name, value in self.settings.items())
        )


@dataclass(frozen=True)
class Mode:
    """What a paper calls a way of answering."""

    printed: str
    ways: tuple[Way, ...]  # ours that are the same; (): we have none
    command: str = ""  # that asks it as the paper did
    # Where neighbouring modes differ in one value alone: its flag, as "--shots ", and the value; one
    # command asks all of them.
    varied: tuple[str, str] = ("", "")


def _tuned(mode: str, head: str = "linear") -> tuple[Way, ...]:
    return (Way("finetune", {"mode": mode, "head": head}),)


def _linear(shots: int | None = None) -> tuple[Way, ...]:
    """A linear classifier on frozen features. Ridge is none: it regresses on +1 and -1."""
    probes = (Way("adamw", shots=shots), Way("heads", shots=shots), Way("linear", shots=shots))
    return (*probes, Way("finetune", {"mode": "head", "head": "linear"}, shots))


def _each(
    name: str,
    values: Sequence[str],
    command: str,
    number: Callable[[str], Any] = int,
    **settings: Any,
) -> Mapping[str, Mode]:
    """Fine-tuning with each value of a setting: "freeze-until/3"; with a linear head of full mode.

    Args:
        name: as ``--each`` has it.
        values: as they are typed.
        command: that asks it as the paper did, without the value.
        number: a value as rows have it.
        settings: that rows have, too.
    """
    setting = name.replace("-", "_")
    return {
        f"{name}/{value}": Mode(
            f"{name} {value}",
            (
                Way(
                    "finetune",
                    {"mode": "full", "head": "linear", **settings, setting: number(value)},
                ),
            ),
            command,
            (f"--each {name}=", value),
        )
        for value in values
    }


KNN = (Way("knn"),)
BLOCKS, CUTS = ("0", "3", "6", "9"), ("2", "5", "8", "11")  # of twelve
STAGES = ("0", "1", "2", "3")  # SEEM's
DECADES = ("1e-3", "1e-4", "1e-5", "1e-6", "1e-7")
SHOTS = (1, 5, 10, 25)
MODES: Mapping[str, Mapping[str, Mode]] = {
    "wu2025": {
        "finetune": Mode("end-to-end", _tuned("full"), "finetune --protocol wu2025"),
        "linear": Mode("linear probing", _linear(), "probe --protocol wu2025"),
        **_each("encoder-lr", DECADES, "finetune --protocol wu2025", lambda text: [float(text)]),
        **{
            f"few/linear/{n}": Mode(
                f"linear probing, {n} of a class",
                _linear(n),
                "probe --protocol wu2025",
                ("--shots ", str(n)),
            )
            for n in SHOTS
        },
        **{
            f"few/finetune/{n}": Mode(
                f"end-to-end, {n} of a class",
                (Way("finetune", {"mode": "full", "head": "linear"}, n),),
                f"finetune --protocol wu2025 --shots {n} --episodes-like ROW",
            )
            for n in SHOTS
        },
    },
    "zhang2024": {"finetune": Mode("end-to-end", _tuned("full"), "finetune --mode full")},
    "doerrich2024": {
        "finetune": Mode("end-to-end", _tuned("full"), "finetune --protocol doerrich2024"),
        "linear": Mode("linear probing", _linear(), "probe --protocol doerrich2024 --kind adamw"),
        "knn": Mode("k-NN (k = 11)", KNN, "probe --protocol doerrich2024 --kind knn"),
    },
    "huix2024": {
        "frozen/linear": Mode(
            "frozen, linear", _linear(), "finetune --protocol huix2024 --mode head"
        ),
        "frozen/deit-b": Mode(
            "frozen, DeiT-B",
            _tuned("head", "deit"),
            "finetune --protocol huix2024 --mode head --head deit",
        ),
        "unfrozen/linear": Mode("unfrozen, linear", _tuned("full"), "finetune --protocol huix2024"),
        "unfrozen/deit-b": Mode(
            "unfrozen, DeiT-B",
            _tuned("full", "deit"),
            "finetune --protocol huix2024 --head deit",
        ),
        "knn": Mode("k-NN (k = 200)", KNN, "probe --protocol huix2024 --kind knn"),
        **_each(
            "freeze-until",
            sorted({*BLOCKS, *STAGES}),
            "finetune --protocol huix2024 --mode partial",
            mode="partial",
        ),
        **{
            f"{name}/{each}": mode
            for name, (flags, settings) in {
                "unfrozen": ("", {}),
                "frozen": (" --mode head", {"mode": "head"}),
            }.items()
            for each, mode in _each(
                "cut-after",
                sorted({*CUTS, *STAGES}),
                f"finetune --protocol huix2024{flags} --head deit",
                head="deit",
                **settings,
            ).items()
        },
    },
    "baharoon2023": {
        "knn": Mode("kNN", KNN, "probe --protocol baharoon2023 --kind knn"),
        "linear": Mode("linear probing", _linear(), "probe --protocol baharoon2023"),
        "finetune": Mode("fine-tuning", _tuned("full"), "finetune --protocol baharoon2023"),
        "lora": Mode("LoRA", _tuned("lora"), "finetune --protocol baharoon2023 --mode lora"),
        "bitfit": Mode(
            "BitFit", _tuned("bitfit"), "finetune --protocol baharoon2023 --mode bitfit"
        ),
        **{
            f"fewshot/linear/{n}patients": Mode(
                f"{n} patients", _linear(n), "probe --protocol baharoon2023", ("--shots ", str(n))
            )
            for n in (1, 2, 4, 8, 16)
        },
        "fewshot/linear/allpatients": Mode(
            "all patients", _linear(), "probe --protocol baharoon2023"
        ),
        **{
            f"fewshot/seg/{n}images": Mode(f"{n} images", ())
            for n in ("1", "2", "4", "8", "16", "all")
        },
        "frozen+unet": Mode("U-Net decoder on a frozen encoder", ()),
        "scratch": Mode("from scratch", ()),
    },
}

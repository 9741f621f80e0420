"""Where features, results and runs live unless a flag says otherwise. Never inside the package."""

import os
from pathlib import Path

# Below the features: images unpacked for training, their labels and splits, by ``finetune``. Hidden,
# and a folder deeper than features are looked for.
IMAGES = ".images"


def features_root() -> Path:
    """``$MEDPROBE_FEATURES`` or ``./features``."""
    return Path(os.environ.get("MEDPROBE_FEATURES") or "features")


def results_root() -> Path:
    """``$MEDPROBE_RESULTS`` or ``./results``."""
    return Path(os.environ.get("MEDPROBE_RESULTS") or "results")


def runs_root() -> Path:
    """``$MEDPROBE_RUNS`` or ``./runs``: the checkpoints of ``finetune``."""
    return Path(os.environ.get("MEDPROBE_RUNS") or "runs")


def memory_root() -> Path | None:
    """What commands remember of programs, not of data; may be deleted. None for a user without a home.

    Not below the features: a folder that came from somebody else must not say where weights are.
    """
    named = os.environ.get("MEDPROBE_MEMORY") or "~/.cache/medprobe"
    try:
        return Path(named).expanduser()
    except RuntimeError:
        return None

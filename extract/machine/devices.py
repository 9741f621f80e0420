"""Devices: which one is used, and how exactly it multiplies."""

import os

import torch

from cache import RequestError


def set_precision(precision: str, device: torch.device) -> None:
    """Switch TF32 and algorithm choice so that a precision means the same thing everywhere.

    Raises:
        RequestError: tf32 without CUDA, where it would silently be fp32.
    """
    if precision == "tf32" and device.type != "cuda":
        raise RequestError(f"--precision tf32 needs a CUDA device, found {device.type}; use fp32")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    # Trying algorithms out would pick others from run to run, and with them other roundings.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def choose_device(wish: str) -> torch.device:
    """Turn ``--device`` into a device that is there.

    Args:
        wish: "auto" (CUDA, else Apple's MPS, else the CPU), "cpu", "cuda", "cuda:1", "mps".

    Raises:
        RequestError: the named device isn't there.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wish == "auto":
        if n_cuda:
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % n_cuda)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wish)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise RequestError(f"--device takes auto, cpu, cuda, cuda:I or mps, not {wish!r}")
    if device.type == "cuda" and (device.index or 0) >= n_cuda:
        raise RequestError(f"--device {wish}: {n_cuda} CUDA devices are here; use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RequestError("--device mps: no such device here; use --device cpu")
    return device

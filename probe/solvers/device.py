"""The device that heads are trained on."""

from cache.errors import RequestError


def check_device(device: str) -> str:
    """Refuse a device that isn't there.

    Raises:
        RequestError: torch can't use it.
    """
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = str(error).splitlines()[0]
        raise RequestError(f"--device {device} can't be used ({reason}); leave it out") from None
    return device

"""What is done where the device's memory is too small."""

import torch

CURE = "take a smaller --size or --batch-size, --grad-checkpointing, or --precision bf16"


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says so; torch has a class of its own for accelerators alone."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def free_cache(device: torch.device) -> None:
    """Give back what torch keeps of earlier tensors, which may be in pieces too small to use."""
    if device.type == "cuda":
        torch.cuda.empty_cache()

"""Several processes that train one model: what torchrun starts, or this process alone."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from cache.errors import RequestError

# Rank 0 may write a large checkpoint, or open the images of a large set, while the others wait.
PATIENCE = timedelta(hours=4)

# In what gloo and NCCL raise where another process is gone.
PEER_GONE = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe"),
    "remote process exited",
)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one model."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def gather(self, own: Any) -> list[Any]:
        """What every rank gives, in the order of ranks, on every rank."""
        if self.size == 1:
            return [own]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, own)
        return found

    def wait(self) -> None:
        """Go on when every rank has come here."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def join_ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the other processes that ``torchrun`` has started; alone where it hasn't.

    Raises:
        RequestError: torchrun's variables are incomplete, its ranks can't be reached, or one of
            them has ended before this one.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        yield Ranks()
        return
    missing = [
        n for n in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ
    ]
    if missing or not size.isdecimal():
        raise RequestError(
            f"WORLD_SIZE={size} says that there are other processes, but {', '.join(missing)} isn't "
            "set; start them with `torchrun --nproc-per-node N -m finetune ...`, or unset WORLD_SIZE"
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RequestError(f"the other ranks can't be reached: {error}") from error
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(word in str(error) for word in PEER_GONE):
            raise RequestError(
                f"rank {os.environ['RANK']} stops, for another one has ended (its own line says why); "
                "the same command goes on from the last checkpoint"
            ) from error
        raise
    finally:
        dist.destroy_process_group()

"""How long a device works on something, and what it is called."""

import contextlib
import platform
import time
from collections.abc import Iterator

import torch


def describe_device(device: torch.device) -> str:
    """ "cuda (NVIDIA H200)", "cpu (x86_64)"."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name})"


class Stopwatch:
    """Adds up what a device spends in some blocks of code; it never makes the device wait.

    Args:
        device: "cpu" or "cuda"; of others nothing is known.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._seconds = device, 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []  # begin, end

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count what is in it."""
        if self._device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            stream = torch.cuda.current_stream(self._device)
            begin.record(stream)
            yield
            end.record(stream)
            self._events.append((begin, end))
        else:
            started = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - started

    @property
    def seconds(self) -> float | None:
        """So far, when the device has done it all; None: it can't be told."""
        if self._device.type not in ("cpu", "cuda"):
            return None
        if self._events:
            torch.cuda.synchronize(self._device)
        return self._seconds + sum(begin.elapsed_time(end) for begin, end in self._events) / 1000

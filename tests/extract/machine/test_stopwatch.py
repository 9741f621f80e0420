"""How long a device works: by the clock on a CPU, by a GPU's own marks on one."""

import time

import pytest
import torch

from extract.machine.stopwatch import Stopwatch, describe_device


def test_a_cpus_blocks_are_added_up():
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with watch.running():
            time.sleep(0.02)
        time.sleep(0.05)  # isn't counted
    assert 0.04 <= watch.seconds < 0.09


def test_a_gpu_is_asked_when_it_has_done_all(monkeypatch):
    """Without a GPU: what is marked on its stream, and that nothing waits before the end."""
    told = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            told.append(stream)
            self.at = len(told)

        def elapsed_time(self, end):
            assert told[-1] == "waited"
            return 1000.0 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "stream")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: told.append("waited"))
    watch = Stopwatch(torch.device("cuda"))
    for _ in range(3):
        with watch.running():
            told.append("work")
    assert "waited" not in told
    assert watch.seconds == pytest.approx(3 * 2)
    assert told.count("work") == 3


def test_of_other_devices_nothing_is_known():
    assert Stopwatch(torch.device("mps")).seconds is None


def test_a_device_has_a_name():
    assert describe_device(torch.device("cpu")).startswith("cpu (")

"""What a forward pass on the CPU loses where others use its cores, by how its threads wait.

    python benchmarks/busy_cores.py            # two minutes

A ViT-S at 224 px runs alone and beside as many busy processes as there are cores, with threads that
spin while they wait (libgomp's default) and with those that sleep (what the commands ask for).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence

FORWARD = """
import sys, time, timm, torch
model = timm.create_model("vit_small_patch16_224").eval()
images = torch.zeros(8, 3, 224, 224)
with torch.inference_mode():
    model(images)
    started, n = time.monotonic(), 0
    while time.monotonic() - started < float(sys.argv[1]):
        model(images)
        n += len(images)
    print(n / (time.monotonic() - started))
"""
BUSY = "import sys, time\nend = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass"


def images_per_s(policy: str, seconds: float, n_busy: int) -> float:
    """Speed of one process beside busy ones, which end by themselves."""
    busy = [
        subprocess.Popen([sys.executable, "-c", BUSY, str(6 * seconds + 60)]) for _ in range(n_busy)
    ]
    try:
        done = subprocess.run(
            [sys.executable, "-c", FORWARD, str(seconds)],
            env={**os.environ, "OMP_WAIT_POLICY": policy},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return float(done.stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cases = [(policy, n) for n in (0, n_cores or 1) for policy in ("ACTIVE", "PASSIVE")]
    rounds = [
        {case: images_per_s(case[0], options.seconds, case[1]) for case in cases}
        for _ in range(options.rounds)
    ]
    found = {case: statistics.median(speeds[case] for speeds in rounds) for case in cases}
    for n in (0, n_cores or 1):
        spinning, sleeping = found["ACTIVE", n], found["PASSIVE", n]
        print(
            f"beside {n} busy processes: spinning {spinning:.1f} images/s, sleeping {sleeping:.1f}: "
            f"{sleeping / spinning:.2f} times as fast"
        )


if __name__ == "__main__":
    main()

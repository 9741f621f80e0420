"""Work spread over processes, results in order."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from cache import RequestError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 16  # decoding for one device: more only wait for it
AHEAD = 2  # items a process that are done or under way before they are asked for


def default_workers() -> int:
    """As many processes as there are cores for us, at most MOST_WORKERS; 0 where there is one."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    n_cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return 0 if n_cores == 1 else min(n_cores, MOST_WORKERS)


def map_ordered(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    n_workers: int,
    ahead: int = AHEAD,
    preload: Sequence[str] = (),
) -> Generator[Result, None, None]:
    """``work(item)`` of each item, in order, done ahead by processes.

    Args:
        work: sent to each process once, so it and its results must be picklable. What it raises
            is raised here.
        items: small, since each is sent to a process.
        n_workers: processes; 0 does everything here.
        ahead: at most ahead x n_workers results wait.
        preload: modules that take long to load: of forked processes all share one copy, unless
            some were started before without it.

    Raises:
        RequestError: a process died.
    """
    if n_workers == 0:
        yield from map(work, items)
        return
    # Processes that don't inherit this one: a copy of torch's threads and locks may hang.
    method = "spawn" if sys.platform in ("win32", "darwin") else "forkserver"
    context = multiprocessing.get_context(method)
    if preload and method == "forkserver":
        context.set_forkserver_preload([*preload])
    pool = ProcessPoolExecutor(n_workers, context, _begin, initargs=(work,))
    waiting: deque[Future[Any]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_do, item))
            if len(waiting) >= ahead * n_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RequestError(
            "a process that decodes images died, perhaps for want of memory; use fewer with "
            "--workers N, or --workers 0 to see which image it was"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_work: Callable[[Any], Any] | None = None  # of a worker process


def _begin(work: Callable[[Any], Any]) -> None:
    """Get a worker process ready."""
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed can't stop its workers: each watches for that itself."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(item: Any) -> Any:
    assert _work is not None
    return _work(item)

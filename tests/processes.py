"""Processes of one group, forked from a test; each sends back what it found."""

from __future__ import annotations

import os
import pickle
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

SECONDS = 60


def fork(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What ``work(rank)`` returns or raises in each process, or the signal that ended it."""
    read, write = zip(*(os.pipe() for _ in range(count)), strict=True)
    children = []
    for number in range(count):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that a test runner has threads
            child = os.fork()
        if not child:
            try:
                found = work(number)
            except BaseException as error:
                found = error
            with os.fdopen(write[number], "wb") as pipe:
                pickle.dump(found, pipe)
            os._exit(0)
        os.close(write[number])
        children.append(child)
    results: list[Any] = []
    alarm = signal.signal(signal.SIGALRM, lambda *_: [os.kill(c, signal.SIGKILL) for c in children])
    signal.alarm(SECONDS)
    try:
        for child, end in zip(children, read, strict=True):
            with os.fdopen(end, "rb") as pipe:
                sent = pipe.read()
            status = os.waitpid(child, 0)[1]
            results.append(pickle.loads(sent) if sent else os.WTERMSIG(status))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, alarm)
    return results


def together(count: int, work: Callable[[], Any], folder: Path) -> list[Any]:
    """The same in processes of one group."""
    store = folder / f"store-{time.monotonic_ns()}"

    def joined(number: int) -> Any:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=number,
                                world_size=count)  # fmt: skip
        return work()

    return fork(count, joined)

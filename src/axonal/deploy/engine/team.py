"""Threads that help a stream with its heavy nodes, as `loop` has it."""

import ctypes
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from . import codegen


class Team:
    """The memory that a stream's threads share, and the threads.

    They come when the stream works, and go soon after it has ended, without any having to wait.

    Args:
        threads: with the one that calls; 1 where the system has no POSIX clock.
        edges: of the graph.
    """

    def __init__(self, threads: int, edges: int):
        system = _system()
        self.threads = threads if system else 1
        loop = codegen.loop()
        self.running = loop.RUNNING
        self.words = np.zeros(loop.BEGUN + 8 * self.threads, np.int64)
        self.room = np.zeros((self.threads, edges)), np.zeros((self.threads, 8))
        self.helpers: list[Future | None] = [None] * (self.threads - 1)
        if system:
            self.words[[loop.CLOCK, loop.NUMBER, loop.SLEEP]] = system

    def call(self, calls: Any, words: Any, tables: Any, memory: Any, scale: Any) -> None:
        """Have the threads ready until `release`, and for a little while after."""
        loop = codegen.loop()
        self.words[loop.RUNNING] = 1
        for i, helper in enumerate(self.helpers):
            if helper is None or helper.done():
                arguments = calls, words, tables, memory, self.room, scale, i + 1
                self.helpers[i] = _pool(self.threads - 1).submit(loop.assist, *arguments)

    def release(self) -> None:
        """Let the threads go when they like."""
        self.words[self.running] = 0


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="axonal")


@lru_cache(maxsize=1)
def _system() -> tuple[int, int, int] | None:
    """The addresses of clock_gettime and of usleep, with the clock's number between."""
    try:
        library, number = ctypes.CDLL(None), time.CLOCK_MONOTONIC
        found = [
            ctypes.cast(getattr(library, n), ctypes.c_void_p) for n in ("clock_gettime", "usleep")
        ]
    except (OSError, TypeError, AttributeError):
        return None
    clock, sleep = (int(address.value or 0) for address in found)
    return clock, number, sleep

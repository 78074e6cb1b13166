"""Threads for kernels that hold no lock: those of torch where it has any."""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from typing import Any

THREAD = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@lru_cache(maxsize=1)
def _openmp() -> Any:
    """The OpenMP library whose threads torch computes with, if it is GNU's, else None."""
    try:
        library = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)
        library.GOMP_parallel.argtypes = (THREAD, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    except (OSError, AttributeError):  # not loaded, or not this platform
        return None
    return library


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="axonal")


def run_in_threads(work: Callable[[], None], threads: int) -> None:
    """Run `work` in so many threads at once, this one among them.

    They are torch's own if possible: these spin for a while after each of torch's operations, and
    would leave others half of their cores.
    """
    if library := _openmp():
        errors: list[BaseException] = []

        def call(_: int | None) -> None:
            try:
                work()
            except BaseException as error:  # OpenMP knows no exceptions; it is raised below
                errors.append(error)

        library.GOMP_parallel(THREAD(call), None, threads, 0)
        if errors:
            raise errors[0]
        return
    helpers = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for helper in helpers:  # one that never began has nothing left to do, or no thread after a fork
        if not helper.cancel():
            helper.result()


def run_in_parts(
    work: Callable[[int, int, int], Any], total: int, parts: int, threads: int
) -> list[Any]:
    """Run `work(part, first, last)` for so many parts of `total`; who is faster does more.

    Returns:
        What it returned, part by part.
    """
    results, numbers = {}, count()

    def run() -> None:
        while (i := next(numbers)) < parts:
            results[i] = work(i, total * i // parts, total * (i + 1) // parts)

    run_in_threads(run, threads)
    return [results[i] for i in range(parts)]

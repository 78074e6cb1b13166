"""A check that no test leaves a thread running."""

import threading

import pytest


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    """Threads that a test starts end with it."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread.name

"""The same tests on every machine: one thread, fixed examples, no data from outside."""

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # before torch and numba are imported
os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["TRITON_INTERPRET"] = "1"  # kernels of GPUs run here, in Python
os.environ.pop("AXONAL_DATA", None)

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "axonal",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("axonal")


@pytest.fixture(autouse=True)
def seed():
    """Weights that a test draws do not depend on the tests before it."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture
def broker(tmp_path_factory):
    """A real MQTT broker that runs and remembers nothing: host, port, start, stop, restart."""
    from benchmarks.harness.processes import Broker

    one = Broker(tmp_path_factory.mktemp("broker"), persistent=False)
    one.start()
    yield one
    one.stop(kill=True)

"""The same tests on every machine: one thread, fixed examples, no data from outside."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch and numba are imported
os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["TRITON_INTERPRET"] = "1"  # kernels of GPUs run here, in Python
os.environ.pop("AXONAL_DATA", None)

from hypothesis import HealthCheck, settings

settings.register_profile(
    "axonal",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("axonal")

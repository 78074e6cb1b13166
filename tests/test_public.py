"""The public face: what `import axonal` and its rooms give, and what that takes."""

import importlib
import subprocess
import sys

import pytest

import axonal

NAMES = [
    "AdaptiveThreshold",
    "AxonalError",
    "Certificate",
    "Counts",
    "Engine",
    "Generator",
    "Graph",
    "IF",
    "LI",
    "LIF",
    "Meter",
    "Neuron",
    "Recipe",
    "Recurrent",
    "Sequential",
    "SpikingClassifier",
    "SpikingConfig",
    "certify",
    "examine",
    "fit",
    "price",
    "sigma_delta",
    "trace",
]
LAZY = ["axonal", *(f"axonal.{room}" for room in ("deploy", "graph", "learn", "models", "sense"))]


def test_the_names_at_the_top():
    assert axonal.__all__ == NAMES == dir(axonal)


@pytest.mark.parametrize("package", LAZY)
def test_every_name_is_there_and_no_module_hides_it(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        assert getattr(value, "__name__", name) == name or not callable(value)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"{package}.{name}")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_importing_it_loads_nothing_heavy():
    heavy = ("torch", "numba", "numpy", "rich")
    code = f"import axonal, sys; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]"

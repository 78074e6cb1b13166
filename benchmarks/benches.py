"""The table of benches: a row each, in the order of the index."""

from .convert import encodings
from .convert import run as convert
from .engine import run as engine
from .generate import run as generate
from .harness.bench import Bench
from .learn import run as learn
from .neurons import parity
from .neurons import run as neurons
from .nir import run as nir
from .watch import run as watch

BENCHES = {
    name: Bench(name=name, measure=module.measure, tables=module.tables)
    for name, module in {
        "generate": generate,
        "neurons": neurons,
        "parity": parity,
        "convert": convert,
        "encodings": encodings,
        "learn": learn,
        "engine": engine,
        "nir": nir,
        "watch": watch,
    }.items()
}

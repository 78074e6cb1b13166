"""`axonal bench NAME`: each measures figures of the README again on this machine."""

from pathlib import Path

from cyclopts import App
from rich.console import Console

bench = App(name="bench", help="Measure the README's figures again on this machine.")
# Brackets and colons in messages are paths and shapes, not markup.
console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


@bench.command(name="generate")
def bench_generate(
    *, out: Path = Path("benchmarks/results"), samples: int = 10_000, seed: int = 0
) -> None:
    """Every sampler, step count and error budget of the generators; takes hours.

    Args:
        out: folder for generate.json and the report; the README's table is renewed if it is here.
        samples: images of each run.
        seed: of the noise.
    """
    from . import render
    from .generate import run

    console.print(run.bench(out, samples, seed))
    render.renew(Path("README.md"), out)


@bench.command(name="parity")
def bench_parity(*, out: Path = Path("benchmarks/results"), seed: int = 0) -> None:
    """Whether the presets fire as the frameworks they are named after.

    Args:
        out: folder for parity.json; the README's table is renewed if it is here.
        seed: of the drives.
    """
    from . import render
    from .neurons import parity

    console.print(parity.bench(out, seed))
    render.renew(Path("README.md"), out)


@bench.command(name="nir")
def bench_nir(*, out: Path = Path("benchmarks/results"), seed: int = 0) -> None:
    """Whether other frameworks fire as we do from the same NIR file, there and back.

    Args:
        out: folder for nir.json; the README's table is renewed if it is here.
        seed: of weights and drives.
    """
    from . import render
    from .nir import run as roundtrip

    console.print(roundtrip.bench(out, seed))
    render.renew(Path("README.md"), out)


@bench.command(name="engine")
def bench_engine(
    *,
    out: Path = Path("benchmarks/results"),
    rounds: int = 7,
    seed: int = 0,
    threads: int = 2,
) -> None:
    """How fast the engine is beside torch, and whether its spikes are the same.

    Args:
        out: folder for engine.json and engine.svg, with generate.json in it.
        rounds: of timing, at least 3.
        seed: of weights and drives.
        threads: of torch and of the engine.
    """
    from . import render
    from .engine import run as engine

    console.print(engine.bench(out, rounds, seed, threads))
    render.renew(Path("README.md"), out)


@bench.command(name="neurons")
def bench_neurons(
    *,
    out: Path = Path("benchmarks/results"),
    rounds: int = 7,
    seed: int = 0,
    threads: int = 2,
    compile_limit: float = 0,
) -> None:
    """How fast a spiking layer trains, and in how much memory, beside other frameworks.

    Args:
        out: folder for neurons.json; the README's table is renewed if it is here.
        rounds: of timing, at least 3.
        seed: of the drives.
        threads: of every framework.
        compile_limit: seconds that torch.compile may take for each of the others; 0: not tried.
    """
    from . import render
    from .neurons import run as neurons

    console.print(neurons.bench(out, rounds, seed, threads=threads, compile_limit=compile_limit))
    render.renew(Path("README.md"), out)


@bench.command(name="learn")
def bench_learn(
    *,
    out: Path = Path("benchmarks/results"),
    seed: int = 0,
    rounds: int = 5,
    threads: int = 2,
) -> None:
    """What training with spikes reaches, and what it takes; about an hour and a half.

    Args:
        out: folder for learn.json and its drawings; the README's table is renewed if it is here.
        seed: of weights, order and noise.
        rounds: of timing, at least 3.
        threads: of every framework.
    """
    from . import render
    from .learn import run as learning

    console.print(learning.bench(out, seed, rounds, threads))
    render.renew(Path("README.md"), out)


@bench.command(name="convert")
def bench_convert(
    *,
    out: Path = Path("benchmarks/results"),
    seed: int = 0,
    count: int = 10_000,
    threads: int = 2,
) -> None:
    """What conversion keeps of trained networks; half an hour, and two more to train them.

    Args:
        out: folder for convert.json, encodings.json and drawings; README and docs are renewed.
        seed: of weights, order and noise.
        count: test images of each network.
        threads: of ours and of SpikingJelly.
    """
    from . import render
    from .convert import run as conversion

    console.print(conversion.bench(out, seed, count, threads))
    for page in (Path("README.md"), Path("docs/encodings.md")):
        render.renew(page, out)


@bench.command(name="watch")
def bench_watch(
    *,
    out: Path = Path("benchmarks/results"),
    seed: int = 0,
    rounds: int = 7,
    hours: float = 24,
) -> None:
    """What an always-on front end reads, keeps, notices and saves; takes about half an hour.

    Args:
        out: folder for watch.json; the README's table is renewed if it is here.
        seed: of noise, order, weights and the simulated day.
        rounds: of timing, at least 3.
        hours: of the simulated day.
    """
    from . import render
    from .watch import run as sensing

    console.print(sensing.bench(out, seed, rounds, hours))
    render.renew(Path("README.md"), out)

"""The command line: each command imports its room when it runs."""

import io
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from .commands.console import console, show
from .core.errors import AxonalError, InputError

app = App(
    name="axonal",
    help="Makes neural networks spike, and proves what that saves.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
watch = App(name="watch", help="Watch a sensor stream, and wake a larger model when it pays.")
app.command(watch)


@app.command
def demo(
    out: Path = Path("demo"), *, samples: int = 1000, seed: int = 0, table: str = "cmos45"
) -> None:
    """Generate digits with every form of the generator, and write a report with pictures.

    Args:
        out: folder for the report.
        samples: images of each run; more make the quality figures firmer.
        seed: of the noise.
        table: costs of a datapath: cmos45, or a TOML file.
    """
    from .commands import demo as command

    console.print(command.demo(out, samples, seed, table))


@app.command
def generate(
    name: str = "mnist-sigma-delta",
    *,
    classes: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    steps: int | None = None,
    sampler: str | None = None,
    budget: float | None = None,
    seed: int = 0,
    backend: Literal["torch", "engine"] = "torch",
    out: Path = Path("generated.png"),
) -> None:
    """Generate images: a PNG grid, and a JSON of what was executed beside it.

    Args:
        name: generator: mnist, mnist-sigma-delta, mnist-spiking, or a folder that train made.
        classes: one for each image; ten of every class by default.
        steps: of the sampler.
        sampler: euler, heun or multistep.
        budget: output error of a sigma-delta generator; its card lists them.
        seed: of the noise.
        backend: what runs it: torch in batches, or the engine, image by image, following events.
        out: the picture.
    """
    from .commands import generate as command

    options = {"steps": steps, "sampler": sampler, "budget": budget, "seed": seed}
    console.print(command.generate(name, classes, out, backend=backend, **options))


@app.command
def inspect(
    model: str,
    *,
    dt: float | None = None,
    discretisation: str | None = None,
    shape: str | None = None,
    out: Path | None = None,
) -> None:
    """Show the layers, neurons and synapses of a network, and draw it.

    Args:
        model: a NIR or ONNX file, a network that ships, a folder of train or of graph.save, or
            package.module:function.
        dt: seconds of a step, of a NIR file.
        discretisation: how a NIR file's equations are cut into steps: exact, euler, norse, ...
        shape: of a sample, for a spiking network of your own code, as 1,28,28.
        out: a Markdown file (.md) for the drawing, a Mermaid diagram.
    """
    from .commands import inspect as command

    if shape and not re.fullmatch(r"\d{1,6}(,\d{1,6})*", shape):
        raise InputError(f"--shape {shape}: write it as 1,28,28")
    sizes = [int(size) for size in shape.split(",")] if shape else None
    shown, graph = command.inspect(model, dt, discretisation, sizes)
    show(shown)
    if out is not None:
        console.print(command.picture(graph, out))


@app.command
def train(
    name: str,
    *,
    out: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    tensorboard: bool = False,
) -> None:
    """Run a training, or go on with one that was interrupted.

    On several processes or machines: torchrun --nproc-per-node 2 -m axonal.cli train NAME

    Args:
        name: recipe: mnist-fc, mnist-conv, nmnist, fsdd, mnist, mnist-sigma-delta, ...
        out: folder of the run; runs/NAME by default.
        seed: of everything random.
        device: cpu or cuda.
        tensorboard: write the log for TensorBoard too, into a folder of that name.
    """
    from .commands import train as command

    if sentence := command.train(name, out, seed, device, tensorboard):
        console.print(sentence)


@app.command
def assess(
    model: str,
    data: str,
    *,
    samples: int = 500,
    steps: int = 8,
    stream: bool = False,
    seed: int = 0,
    out: Path = Path("assessment.html"),
    table: str = "cmos45",
) -> None:
    """Say before any work is done whether spiking would pay for a trained network, and where.

    Args:
        model: a folder that train made, a classifier that ships, a .onnx file, or
            package.module:function.
        data: mnist, cifar10, or a .npz or .safetensors with x [N, ...] and, if known, label [N],
            integers, or target [N, ...], real numbers.
        samples: how many to look at.
        steps: of binary spikes.
        stream: whether samples follow each other in time, as the frames of a video do.
        seed: of the draw of samples.
        out: the page.
        table: costs of a datapath: cmos45, or a TOML file.
    """
    from .commands import assess as command

    result, sentence = command.assess(model, data, samples, steps, stream, seed, out, table)
    show(result)
    console.print(sentence)


@app.command
def convert(
    model: str,
    data: str,
    *,
    method: str = "graded",
    steps: int = 8,
    samples: int = 500,
    held_out: int = 1000,
    seed: int = 0,
    out: Path = Path("conversion"),
    **options: str,
) -> None:
    """Make a trained network spike, with a certificate of what that changed, layer by layer.

    Args:
        model: a folder that train made, a classifier that ships, a .onnx file, or
            package.module:function.
        data: mnist, cifar10, or a .npz or .safetensors with x [N, ...] and, if known, label [N],
            integers, or target [N, ...], real numbers.
        method: graded, qcfs, transformer, signed, sigma-delta, balanced, corrected, ...
        steps: in which the answer is given.
        samples: to calibrate with.
        held_out: samples for the certificate.
        seed: of the draw of samples.
        out: folder for the plan, its certificate and the network; the same command goes on there.
        options: of the method: bits (graded, transformer), schedule (qcfs), budget (sigma-delta).
    """
    from .commands import convert as command

    counts = samples, held_out
    result, sentence = command.convert(model, data, counts, method, steps, options, seed, out)
    show(result)
    console.print(sentence)


@watch.default
def watch_stream(
    source: str,
    *,
    state: Path | None = None,
    report: Path | None = None,
    quiet: bool = False,
    fresh: bool = False,
    columns: str = "",
    time: str | None = None,
    unit: str | None = None,
    rate: float | None = None,
    size: str | None = None,
    lenient: bool = False,
    window: float | None = None,
    wakes_per_hour: float | None = None,
    labels: str | None = None,
    webhook: str = "",
) -> None:
    """Watch until the stream ends; the same command goes on where an interrupted one stopped.

    Args:
        source: a TOML file of settings, or a recording, wav or CSV, watched with default settings,
            which the options from `columns` on change.
        state: folder for state, wakes and clips; by default named like the settings or recording.
        report: an HTML page with the timeline and all wakes.
        quiet: without the live view.
        fresh: begin anew, and forget what an earlier run has learned.
        columns: of a CSV that are watched, with commas between; by default all but labels.
        time: the column of a CSV that is the time.
        unit: of its times: s, ms, us or ns.
        rate: rows a second, of a table without times.
        size: of a camera whose recording doesn't say it, as 640x480.
        lenient: leave out and count what is damaged, instead of ending there.
        window: seconds over which features are taken; by default each row of a table, and a tenth
            of a second of anything else.
        wakes_per_hour: the budget of false wakes; by default 6; of samples, one in 2,000 windows.
        labels: the column of a CSV that marks anomalies, to which wakes are compared.
        webhook: an address that wakes are posted to.
    """
    from .commands import watch as command

    options = {"columns": [c.strip() for c in columns.split(",")] if columns else None}
    if size and not re.fullmatch(r"\d{1,5}x\d{1,5}", size):
        raise InputError(f"--size {size}: write it as 640x480")
    options |= {
        "size": [int(side) for side in size.split("x")] if size else None,
        "time": time,
        "unit": unit,
        "rate": rate,
        "strict": False if lenient else None,
    }
    chosen = {name: value for name, value in options.items() if value is not None}
    settings = {"window": window, "wakes_per_hour": wakes_per_hour, "webhook": webhook}
    sentence = command.watch(
        source, state, report, not quiet, fresh, labels, options=chosen, **settings
    )
    console.print(sentence)


@watch.command(name="calibrate")
def watch_calibrate(
    source: str, sample: str, *, out: Path = Path("calibrated"), noise: float = 0.05
) -> None:
    """Learn what is normal from a sample, and write settings that begin from there.

    Args:
        source: a TOML file of settings, or the sample again for default settings.
        sample: a recording of normal life.
        out: folder for watch.toml and what was learned.
        noise: events a second and pixel that filters may pass by chance.
    """
    from .commands import watch as command

    console.print(command.calibrate(source, sample, out, noise))


@app.command
def doctor(model: str, *, fix: bool = False, out: Path | None = None) -> None:
    """Find what keeps a spiking network from learning, in one batch of its data.

    Args:
        model: a recipe, or a folder that train made.
        fix: rescale weights and widen surrogates where that helps, and show before and after.
        out: folder for the mended network.
    """
    from .commands import doctor as command

    show(command.doctor(model, fix, out))


def main() -> None:
    """Run the command line; an error is one sentence, with exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where only ASCII can be written, "?" can
    try:
        app(sys.argv[1:])
    except AxonalError as error:
        console.print("axonal:", style="red", end=" ")
        console.print(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("\nInterrupted; what was finished is kept, and the same command goes on.")
        sys.exit(130)

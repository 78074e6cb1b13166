"""`python -m benchmarks NAME` measures a bench's figures on this machine, and writes its page."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from axonal.commands.console import console
from axonal.core.errors import AxonalError

from .benches import BENCHES
from .harness import page
from .harness.bench import RESULTS, Bench, perform

OUT = Parameter(help="folder of results; if it is another, the page goes there too.")

app = App(
    name="python -m benchmarks",
    help="Measure a bench on this machine, in a clone of the repository.",
    version_flags=[],
    suppress_keyboard_interrupt=False,
)


def command(bench: Bench) -> Callable[..., None]:
    """Make a command of a bench: its options, and the folder of its results."""

    def call(out: Path = RESULTS, **options: Any) -> None:
        path = perform(bench, out, **options)
        written = page.render(bench, out, page.PAGES if out == RESULTS else out)
        if out == RESULTS:
            page.render_index(BENCHES.values())
        console.print(f"{page.headline(bench, out)} All lies in {path.resolve()} and {written}.")

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *bench.options,
        inspect.Parameter("out", keyword, default=RESULTS, annotation=Annotated[Path, OUT]),
    ]
    call.__signature__ = inspect.Signature(parameters)
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    call.__doc__ = inspect.getdoc(bench.measure)
    return call


for row in BENCHES.values():
    app.command(command(row), name=row.name)


@app.command
def render() -> None:
    """Write all pages again from the committed results."""
    for bench in BENCHES.values():
        page.render(bench)
    console.print(f"The pages lie in {page.render_index(BENCHES.values()).parent}.")


def main() -> None:
    """Run a bench; what went wrong is told in a sentence, with exit status 1."""
    try:
        app(sys.argv[1:])
    except AxonalError as error:
        console.print(f"benchmarks: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("\nInterrupted; what was finished is kept, and the same command goes on.")
        sys.exit(130)


if __name__ == "__main__":
    main()

"""What `axonal assess` and `axonal convert` show: a page, a table of layers, and a sentence."""

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.table import Table

from ..convert import METHODS, DeltaNetwork, checkpoint, convert
from ..convert.api import SIGMA_DELTA
from ..core import files
from ..core.errors import InputError
from ..models.base import CONFIG, WEIGHTS
from ..recipes.training import CARD
from ..report.certificate import _certificate
from .resolve import network, samples


def converted(
    what: str,
    data: str,
    counts: Sequence[int],
    method: str,
    steps: int,
    options: Mapping[str, str],
    seed: int,
    out: Path,
) -> tuple[Table, str]:
    """Convert a network; its plan, its certificate and, if it is one of ours, itself go to `out`.

    Args:
        counts: samples that calibrate, and samples that check.
        options: of the method, as they were typed.

    Returns:
        The certificate by layer, and a sentence.

    Raises:
        InputError, FileError: as `convertible` and `convert.convert`, or `out` can't be written.
    """
    given = {name.replace("-", "_"): text for name, text in options.items()}
    chosen = {name: _value(method, name, text) for name, text in given.items()}
    files.writable(out)
    model, folder = network(what)
    calibration, check = samples(data, counts, seed, method == SIGMA_DELTA)
    both = [x if labels is None else (x, labels) for x, labels in (calibration, check)]
    with Status(f"converting by {method}", console=Console(stderr=True)):
        made, certificate = convert(
            model, both[0], method=method, T=steps, held_out=both[1], folder=out, **chosen
        )
    if isinstance(made, DeltaNetwork):  # its thresholds are in the certificate
        for plan in (checkpoint.PLAN, checkpoint.TENSORS):
            (out / plan).unlink(missing_ok=True)
        files.write(
            out / checkpoint.CERTIFICATE, json.dumps(certificate.to_dict(), indent=1) + "\n"
        )
    else:
        checkpoint.save(made, certificate, out)
    if folder is not None:
        for name in (CONFIG, WEIGHTS, CARD):
            files.write(out / "model" / name, (folder / name).read_bytes())
    return _certificate(certificate), f"Converted by {certificate} All of it is in {out.resolve()}."


def _value(method: str, name: str, text: str) -> object:
    """An option's text as the type of its default; what is unknown is left to `convert`."""
    kind = float if method == SIGMA_DELTA else str
    if method in METHODS and name in (known := inspect.signature(METHODS[method]).parameters):
        kind = type(known[name].default)
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"--{name} {text!r} is no {kind.__name__}") from error

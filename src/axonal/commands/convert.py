"""`axonal convert`: a network that spikes, its certificate, and the folder with both."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from ..convert import METHODS, DeltaNetwork, checkpoint
from ..convert import convert as convert_network
from ..convert.api import SIGMA_DELTA
from ..core import files
from ..core.errors import InputError
from ..models.base import CONFIG, WEIGHTS
from ..recipes.training import CARD
from ..report import certificate as report
from .console import status
from .resolve import network, samples


def convert(
    model: str,
    data: str,
    counts: tuple[int, int],
    method: str,
    steps: int,
    options: Mapping[str, str],
    seed: int,
    out: Path,
) -> tuple[Table, str]:
    """Convert a network; its plan, its certificate and, if it is one of ours, itself go to `out`.

    Raises:
        InputError, FileError: as `resolve` and `convert.convert`, or `out` can't be written.
    """
    names = {name: name.replace("-", "_") for name in options}
    values = {names[name]: _value(method, names[name], text) for name, text in options.items()}
    files.writable(out)
    module, folder = network(model)
    sets = samples(data, counts, seed, method == SIGMA_DELTA)
    calibration, check = (x if labels is None else (x, labels) for x, labels in sets)
    with status(f"converting by {method}"):
        spiking, certificate = convert_network(
            module, calibration, method=method, T=steps, held_out=check, folder=out, **values
        )
    if isinstance(spiking, DeltaNetwork):  # its thresholds are in the certificate
        for plan in (checkpoint.PLAN, checkpoint.TENSORS):
            (out / plan).unlink(missing_ok=True)
        text = json.dumps(certificate.to_dict(), indent=1) + "\n"
        files.write(out / checkpoint.CERTIFICATE, text)
    else:
        checkpoint.save(spiking, certificate, out)
    ours = () if folder is None else [n for n in (CONFIG, WEIGHTS, CARD) if (folder / n).exists()]
    for name in ours:
        files.write(out / "model" / name, (folder / name).read_bytes())
    sentence = f"Converted by {certificate} All of it is in {out.resolve()}."
    return report.table(certificate), sentence


def _value(method: str, name: str, text: str) -> object:
    """An option's text as the type of its default; what is unknown is left to `convert`."""
    kind = float if method == SIGMA_DELTA else str
    if method in METHODS and name in (known := inspect.signature(METHODS[method]).parameters):
        kind = type(known[name].default)
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"--{name} {text!r} is no {kind.__name__}") from error

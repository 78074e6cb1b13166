"""A conversion in a folder: what a method decided and its certificate, beside the network's own."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as packed
from torch import nn

from ..core import files
from ..core.errors import FileError, InputError
from .certificate import Certificate
from .plan import Plan, Population, SpikingNetwork, assemble
from .tracing import prepared

PLAN, TENSORS, CERTIFICATE = "plan.json", "plan.safetensors", "certificate.json"
_DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError)


def save(network: SpikingNetwork, certificate: Certificate, folder: str | Path) -> Path:
    """Write what makes the network that was converted spike; that network is saved by its owner.

    Raises:
        FileError: the folder can't be written.
    """
    folder, plan = Path(folder), network.plan
    about = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name != "populations"}
    tensors, populations = {}, {}
    for name, population in plan.populations.items():
        tensors[f"{name}.threshold"] = population.threshold.detach().cpu().contiguous()
        if population.offset is not None:
            tensors[f"{name}.offset"] = population.offset.detach().cpu().contiguous()
        names = ("levels", "slope", "emit")
        populations[name] = {key: getattr(population, key) for key in names}
    files.write(folder / TENSORS, packed(tensors))
    files.write(folder / CERTIFICATE, json.dumps(certificate.to_dict(), indent=1) + "\n")
    table = json.dumps(about | {"populations": populations}, indent=1)
    files.write(folder / PLAN, table + "\n")
    return folder


def load(model: nn.Module, folder: str | Path) -> tuple[SpikingNetwork, Certificate]:
    """The spiking form of `model` that `save` wrote to `folder`, and its certificate.

    Raises:
        FileError: files are missing or damaged, or of another network.
    """
    folder = Path(folder)
    try:
        table: dict[str, Any] = json.loads((folder / PLAN).read_text())
        tensors = load_file(folder / TENSORS)
        populations = {
            name: Population(
                tensors[f"{name}.threshold"], offset=tensors.get(f"{name}.offset"), **row
            )
            for name, row in table.pop("populations").items()
        }
        plan = Plan(**table | {"shape": tuple(table["shape"])}, populations=populations)
        certificate = Certificate.from_dict(json.loads((folder / CERTIFICATE).read_text()))
        return assemble(prepared(model, plan.schedule), plan), certificate
    except (*_DAMAGE, InputError, RuntimeError) as error:
        raise FileError(f"can't load a conversion from {folder}: {error}; convert again") from error

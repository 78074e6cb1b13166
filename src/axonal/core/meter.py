"""Counts of what a run executed, by step and layer. Counts, never joules: `energy` prices them."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .errors import InputError

FIELDS = (
    "synops",  # synaptic operations: a weight applied to one value, by multiply-add or by add
    "multiplies",  # of weights with graded values; a binary spike needs none
    "adds",  # into accumulators and membranes, comparisons with thresholds included
    "weight_reads",  # fetches of a weight from its memory
    "state_reads",  # fetches of an activation, an accumulator or a membrane
    "state_writes",
    "spikes",  # events sent; for an ANN, activations handed on
    "sites",  # events that could have been sent: neurons times steps
)


@dataclass(frozen=True)
class Counts:
    """How often each of `FIELDS` happened.

    Attributes:
        layers: names, in the order of execution.
        table: [S steps, L layers, F fields] float64 (exact up to 2^53).
        samples: how many samples the table is a sum over.

    Raises:
        InputError: shapes that don't fit, negative or non-finite counts, no samples.
    """

    layers: tuple[str, ...]
    table: np.ndarray
    samples: int

    def __post_init__(self):
        if self.table.shape[1:] != (len(self.layers), len(FIELDS)) or self.samples < 1:
            raise InputError(
                f"Counts: table {self.table.shape} of {self.samples} samples "
                f"for {len(self.layers)} layers"
            )
        if not (np.isfinite(self.table).all() and (self.table >= 0).all()):
            raise InputError("Counts: a count is negative or not finite")

    def __add__(self, other: "Counts") -> "Counts":
        """The counts of both batches together; same layers and steps.

        Raises:
            InputError: the two come from different networks or step counts.
        """
        if self.layers != other.layers or self.table.shape != other.table.shape:
            raise InputError("Counts: can't add runs of different layers or steps")
        return Counts(self.layers, self.table + other.table, self.samples + other.samples)

    def total(self, field: str) -> float:
        """The `field` of one sample, over all steps and layers."""
        return float(self.table[..., _index(field)].sum() / self.samples)

    def by_step(self, field: str) -> np.ndarray:
        """The `field` of one sample in each step, [S]."""
        return self.table[..., _index(field)].sum(1) / self.samples

    def by_layer(self, field: str) -> dict[str, float]:
        """The `field` of one sample in each layer."""
        sums = self.table[..., _index(field)].sum(0) / self.samples
        return dict(zip(self.layers, sums.tolist(), strict=True))

    def totals(self) -> dict[str, float]:
        """Every field of one sample."""
        return {field: self.total(field) for field in FIELDS}

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold; `from_dict` reads it back exactly."""
        return {
            "fields": list(FIELDS),
            "layers": list(self.layers),
            "samples": self.samples,
            "table": self.table.tolist(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            InputError: other fields than this version's, or not a table of counts.
        """
        try:
            if tuple(values["fields"]) != FIELDS:
                raise InputError(f"Counts: the fields are {values['fields']}, not {list(FIELDS)}")
            layers = tuple(values["layers"])
            table = np.asarray(values["table"], np.float64).reshape(-1, len(layers), len(FIELDS))
            return cls(layers, table, int(values["samples"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"Counts: not a table of counts ({error})") from error


def _index(field: str) -> int:
    if field not in FIELDS:
        raise InputError(f"Counts: {field!r} is not one of {', '.join(FIELDS)}")
    return FIELDS.index(field)

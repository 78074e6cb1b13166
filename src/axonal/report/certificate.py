"""A certificate as a table of a terminal."""

from rich.table import Table
from rich.text import Text

from ..convert.api import SIGMA_DELTA
from ..convert.certificate import Certificate


def table(certificate: Certificate) -> Table:
    """The layers of a converted network, each with its errors."""
    fields = ("threshold", "spikes", "clip", "quantisation", "unevenness", "error")
    if certificate.method == SIGMA_DELTA:
        fields = ("threshold", "share", "synops", "error")
    rows = Table("layer", *fields, box=None, padding=(0, 1, 0, 0))
    for layer in certificate.layers:
        rows.add_row(Text(layer.name), *(f"{getattr(layer, field):.3g}" for field in fields))
    return rows

"""The first conversions: binary spikes, one threshold a layer, weights normalised by it.

A layer's threshold is its largest value over the calibration data (Diehl et al. 2015, IJCNN), or
the 99.9th percentile, which a few outliers don't raise (Rueckauer et al. 2017, Front. Neurosci.
11:682). Membranes begin at zero, so that rates are rounded down.
"""

import torch
from torch import Tensor, fx

from ..core.errors import InputError
from .observe import Observed, observe
from .plan import Plan, Population
from .setting import Setting
from .tracing import rectifiers

MAXIMUM, PERCENTILE = 1.0, 0.999


def maximum(dense: fx.GraphModule, given: Setting) -> Plan:
    """Thresholds at the largest value of each layer (Diehl et al. 2015)."""
    return _layers("maximum", dense, given, MAXIMUM)


def percentile(dense: fx.GraphModule, given: Setting, share: float = PERCENTILE) -> Plan:
    """Thresholds at a percentile of each layer (Rueckauer et al. 2017).

    Args:
        share: of the layer's values above 0 that lie below its threshold, in (0, 1].

    Raises:
        InputError: `share` out of range.
    """
    if not 0 < share <= 1:
        raise InputError(f"percentile: a share of {share}; choose above 0, up to 1")
    return _layers("percentile", dense, given, share)


def _layers(name: str, dense: fx.GraphModule, given: Setting, share: float) -> Plan:
    slopes = rectifiers(dense)
    seen = observe(dense, [*slopes], given.x, given.folder)
    populations = {
        node: Population(_whole(seen[node], share), slope=slope, emit="multiple")
        for node, slope in slopes.items()
    }
    return Plan(name, given.steps, given.shape, populations)


def _whole(seen: Observed, share: float) -> Tensor:
    """The same of all channels together."""
    return levels(Observed(seen.values.reshape(1, -1), seen.most.max()[None], 0), share)


def levels(seen: Observed, share: float) -> Tensor:
    """Below what the `share` of each channel's sizes above 0 lies, as it broadcasts to a sample."""
    if share == 1:
        return seen.shaped(seen.most)
    sizes = seen.values.abs()
    sizes = torch.where(sizes > 0, sizes, torch.nan)
    return seen.shaped(torch.nanquantile(sizes, share, dim=1).nan_to_num(0.0))

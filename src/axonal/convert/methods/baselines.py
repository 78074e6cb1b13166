"""The first conversions: binary spikes, one threshold a layer, weights normalised by it.

A layer's threshold is its largest value over the calibration data (Diehl et al. 2015, IJCNN), or
the 99.9th percentile, which a few outliers don't raise (Rueckauer et al. 2017, Front. Neurosci.
11:682). Membranes begin at zero, so that rates are rounded down.
"""

from collections.abc import Callable

from torch import Tensor, fx

from ...core.errors import InputError
from ..activations import Observed, observe
from ..plan import Plan, Population
from ..setting import Setting
from ..tracing import rectifiers

MAXIMUM, PERCENTILE = 1.0, 0.999


def maximum(dense: fx.GraphModule, given: Setting) -> Plan:
    """Thresholds at the largest value of each layer (Diehl et al. 2015)."""
    return at_share("maximum", dense, given, MAXIMUM, _whole)


def percentile(dense: fx.GraphModule, given: Setting, share: float = PERCENTILE) -> Plan:
    """Thresholds at a percentile of each layer (Rueckauer et al. 2017).

    Args:
        share: of the layer's values above 0 that lie below its threshold, in (0, 1].

    Raises:
        InputError: `share` out of range.
    """
    return at_share("percentile", dense, given, share, _whole)


def at_share(
    name: str,
    dense: fx.GraphModule,
    given: Setting,
    share: float,
    threshold: Callable[[Observed, float], Tensor],
) -> Plan:
    """Binary spikes whose thresholds are what `threshold` finds at a share of the values.

    Raises:
        InputError: `share` is outside (0, 1].
    """
    if not isinstance(share, int | float) or not 0 < share <= 1:
        raise InputError(f"{name}: a share of {share!r} of the values; choose above 0, up to 1")
    slopes = rectifiers(dense)
    seen = observe(dense, [*slopes], given.x, given.folder)
    populations = {
        node: Population(threshold(seen[node], share), slope=slope, emit="multiple")
        for node, slope in slopes.items()
    }
    return Plan(name, given.steps, given.shape, populations)


def _whole(seen: Observed, share: float) -> Tensor:
    """As `levels`, of all channels together."""
    return levels(Observed(seen.values.reshape(1, -1), seen.most.max()[None], 0), share)


def levels(seen: Observed, share: float) -> Tensor:
    """Below what the `share` of each channel's sizes above 0 lies, as it broadcasts to a sample."""
    if share == 1:
        return seen.shaped(seen.most)
    sizes = seen.values.abs().sort(1).values  # torch.quantile takes no more than 2^24 of them
    silent, last = (sizes == 0).sum(1, keepdim=True), sizes.shape[1] - 1
    place = (silent + share * (last - silent)).clamp(max=last)
    below = sizes.gather(1, place.floor().long())
    above = sizes.gather(1, place.ceil().long())
    return seen.shaped((below + (place - place.floor()) * (above - below))[:, 0])

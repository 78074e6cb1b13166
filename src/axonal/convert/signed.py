"""Channel-wise thresholds and neurons that also send -1: for leaky rectifiers, as detectors have.

Below 0 the neuron fires at -threshold / slope, so that its rate follows a leaky ReLU (signed
neuron with imbalanced threshold, Spiking-YOLO, Kim et al. 2020, arXiv 1903.06530). A channel with
small values has a small threshold, and needs no more steps than one with large ones.
"""

from torch import fx

from .normalised import PERCENTILE, check_share, levels
from .observe import observe
from .plan import Plan, Population
from .setting import Setting
from .tracing import rectifiers


def signed(dense: fx.GraphModule, given: Setting, share: float = PERCENTILE) -> Plan:
    """Binary and ternary spikes with thresholds at a percentile of each channel.

    Args:
        share: of the channel's values above 0 that lie below its threshold, in (0, 1].

    Raises:
        InputError: `share` out of range.
    """
    check_share(share)
    slopes = rectifiers(dense)
    seen = observe(dense, [*slopes], given.x, given.folder)
    populations = {
        name: Population(levels(seen[name], share), slope=slope, emit="multiple")
        for name, slope in slopes.items()
    }
    return Plan("signed", given.steps, given.shape, populations)

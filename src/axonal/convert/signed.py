"""Channel-wise thresholds and neurons that also send -1: for leaky rectifiers, as detectors have.

Below 0 the neuron fires at -threshold / slope, so that its rate follows a leaky ReLU (signed
neuron with imbalanced threshold, Spiking-YOLO, Kim et al. 2020, arXiv 1903.06530). A channel with
small values has a small threshold, and needs no more steps than one with large ones.
"""

from torch import fx

from .methods.baselines import PERCENTILE, at_share, levels
from .plan import Plan
from .setting import Setting


def signed(dense: fx.GraphModule, given: Setting, share: float = PERCENTILE) -> Plan:
    """Binary and ternary spikes with thresholds at a percentile of each channel.

    Args:
        share: of the channel's values above 0 that lie below its threshold, in (0, 1].

    Raises:
        InputError: `share` out of range.
    """
    return at_share("signed", dense, given, share, levels)

"""The way in which torch differentiates just now: fused operators know reverse mode alone."""

import torch
from torch.autograd import forward_ad


def transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is at work.

    A fused operator would lose their tangents, or be refused by torch; operators of torch's own
    know them all. Within `torch.compile`, which resolves transforms before, there is none to see.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0

"""Answers before the last step: thresholds, and accuracy against mean steps.

All of it looks at outputs [T, B, C] of a network and at their running mean, the logits of an answer
after t steps. A sample is answered in the first step that is sure enough, by confidence (Li et al.
2023, SEENN-I, arXiv 2304.01230) or by entropy (Li et al. 2023, DT-SNN, arXiv 2305.17346). What that
is worth shows beside the same steps dealt to the samples by chance, and beside an answer in the
first step.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from axonal.core.errors import InputError

from .information import labels_of, running_mean

By = Literal["confidence", "entropy"]
CERTAINTY = {
    "confidence": lambda p: p.amax(-1),
    "entropy": lambda p: 1 - torch.special.entr(p).sum(-1) / math.log(p.shape[-1]),
}
NEVER = 2.0  # a threshold above every certainty, which lies in [0, 1]
POINTS = 64  # of a curve, at most, beside its two ends


def centroid(information: Tensor) -> float:
    """The concentration of information I_t [T], sum_t t I_t / sum_t I_t: the step it lies around.

    From 1 to T, the lower the earlier; NaN where there is no information.
    """
    steps = torch.arange(1, len(information) + 1).to(information)
    return float(steps @ information / information.sum())


def logits_by_step(outputs: Tensor, delay: int = 0) -> Tensor:
    """The logits of an answer after each step, [T - delay, B, C], float64.

    Args:
        outputs: [T, B, C].
        delay: how many first steps are not read; no answer can be given in these.

    Raises:
        InputError, NotFinite: no step is left, or as `information.running_mean`.
    """
    if outputs.dim() and not 0 <= delay < max(1, len(outputs)):
        raise InputError(f"delay {delay} of {len(outputs)} steps leaves none; take 0 or more")
    return running_mean(outputs[delay:])


def exits(outputs: Tensor, threshold: float, by: By = "confidence", *, delay: int = 0) -> Tensor:
    """The step in which each sample answers, [B] in 1..T: the first that is sure enough, else T.

    Args:
        outputs: [T, B, C].
        threshold: the certainty that is enough: at 0 the first step answers, above 1 the last.
        by: certainty is the largest probability, or 1 - H / log C with their entropy H.
        delay: as of `logits_by_step`; the first answer comes in step delay + 1.

    Raises:
        InputError: a threshold that is no number, another certainty, or as `logits_by_step`.
    """
    return 1 + delay + _first(_certainty(outputs, by, delay), threshold)


def static_accuracy(outputs: Tensor, labels: Tensor, *, delay: int = 0) -> Tensor:
    """The share of right answers if all samples answer in the same step, [T - delay].

    Raises:
        InputError: as `logits_by_step`, or labels that don't fit.
    """
    return _right(outputs, labels, delay).double().mean(1)


def calibrate(
    outputs: Tensor, labels: Tensor, loss: float, by: By = "confidence", *, delay: int = 0
) -> float:
    """The lowest threshold that costs no more accuracy than `loss`, on these samples.

    Of those with which these samples answer in the same steps it is the highest, which is the most
    careful with others; `NEVER` if all have to answer after T.

    Args:
        outputs, labels, by, delay: as of `exits`, of samples that are not used otherwise.
        loss: of accuracy against answers after T steps; a share, 0.002 for 0.2 points.

    Raises:
        InputError: a loss outside [0, 1], or as `exits` and `static_accuracy`.
    """
    if not 0 <= loss <= 1:
        raise InputError(f"calibrate: a loss of {loss} is no share of samples in [0, 1]")
    right = _right(outputs, labels, delay).long()
    passed, order = _certainty(outputs, by, delay)[:-1].flatten().sort()
    # As the threshold rises past one of these, one sample moves on by one step.
    gains = (right[1:] - right[:-1]).flatten()[order]
    correct = torch.cat([right[:1].sum(1), gains]).cumsum(0)
    enough = correct[-1] - correct <= loss * len(labels)
    enough[1:-1] &= passed[1:] > passed[:-1]  # equal certainties are passed together
    return float(torch.cat([passed, passed.new_tensor([NEVER])])[enough][0])


@dataclass(frozen=True, kw_only=True)
class Anytime:
    """Accuracy and steps of early answers, beside random exit and answers all in one step.

    Attributes:
        threshold: the certainty that is enough.
        steps: until the answer, on average over samples.
        of: T.
        accuracy: share of right answers.
        random: the same, on average over all ways of dealing these steps to the samples.
        first: the same when all answer in the first step that may.
        full: the same when all answer after T steps.
    """

    threshold: float
    steps: float
    of: int
    accuracy: float
    random: float
    first: float
    full: float

    @property
    def share(self) -> float:
        """The share of the steps that are taken."""
        return self.steps / self.of


def anytime(
    outputs: Tensor, labels: Tensor, threshold: float, by: By = "confidence", *, delay: int = 0
) -> Anytime:
    """Accuracy and steps of the answers at a threshold.

    Raises:
        InputError: as `exits` and `static_accuracy`.
    """
    right = _right(outputs, labels, delay)
    return _summary(_certainty(outputs, by, delay), right, threshold, delay)


def curve(
    outputs: Tensor, labels: Tensor, by: By = "confidence", *, delay: int = 0
) -> list[Anytime]:
    """Accuracy against mean steps, from all answers in the first step to all after T.

    Raises:
        InputError: as `exits` and `static_accuracy`.
    """
    sure, right = _certainty(outputs, by, delay), _right(outputs, labels, delay)
    passed = sure[:-1].flatten().sort().values
    # Each certainty that is passed adds the same to the mean steps: even ranks are even steps.
    inner = passed[:: -(-len(passed) // POINTS) or 1].tolist()
    return [_summary(sure, right, t, delay) for t in sorted({0.0, *inner, NEVER})]


def _summary(sure: Tensor, right: Tensor, threshold: float, delay: int) -> Anytime:
    first, static = _first(sure, threshold), right.double().mean(1)
    return Anytime(
        threshold=threshold,
        steps=1 + delay + float(first.double().mean()),
        of=delay + len(right),
        accuracy=float(right.gather(0, first[None]).double().mean()),
        random=float(static[first].mean()),
        first=float(static[0]),
        full=float(static[-1]),
    )


def _certainty(outputs: Tensor, by: By, delay: int) -> Tensor:
    """The highest certainty up to each step, [T - delay, B] in [0, 1]."""
    if by not in CERTAINTY:
        raise InputError(f"certainty by {by!r}; there are {', '.join(CERTAINTY)}")
    # Rounding may take the entropy of equal logits above log C.
    return CERTAINTY[by](logits_by_step(outputs, delay).softmax(-1)).clamp(0, 1).cummax(0).values


def _first(sure: Tensor, threshold: float) -> Tensor:
    if math.isnan(threshold):
        raise InputError("a threshold of NaN is passed never; take one of [0, 1], or NEVER")
    return (sure[:-1] < threshold).sum(0)


def _right(outputs: Tensor, labels: Tensor, delay: int) -> Tensor:
    """Whether the answer in each step is right, [T - delay, B]; of equal logits the first wins."""
    return logits_by_step(outputs, delay).argmax(-1) == labels_of(outputs, labels)

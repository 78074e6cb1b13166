"""Anytime inference: information in each step, and answers before the last one.

Both look at `outputs, state = network(x)`, x [T, B, ...] and outputs [T, B, C], whether the network
was trained to spike or converted, and at the running mean of the outputs: the logits
f_t = (o_1 + ... + o_t) / t of an answer after t steps.

Information is Fisher's (Kim et al. 2023, arXiv 2211.14406). Anytime inference answers in the first
step that is sure enough, by confidence (Li et al. 2023, SEENN-I, arXiv 2304.01230) or by entropy
(Li et al. 2023, DT-SNN, arXiv 2305.17346). What it is worth shows beside the same steps dealt to
the samples by chance, and beside an answer in the first step.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..core.errors import InputError, NotFinite
from .losses import check_labels

By = Literal["confidence", "entropy"]
CERTAINTY = {
    "confidence": lambda p: p.amax(-1),
    "entropy": lambda p: 1 - torch.special.entr(p).sum(-1) / math.log(p.shape[-1]),
}
NEVER = 2.0  # a threshold above every certainty, which lies in [0, 1]
BATCH = 16  # samples, in the released code of Kim et al.
POINTS = 64  # of a curve, at most, beside its two ends


@dataclass(frozen=True, kw_only=True)
class Information:
    """The Fisher information that a network's parameters hold in each step.

    Attributes:
        layers: I_t [T] of the parameters of each module, by its name.
    """

    layers: Mapping[str, Tensor]

    @property
    def total(self) -> Tensor:
        """I_t [T] of all parameters."""
        return torch.stack([*self.layers.values()]).sum(0)


def fisher_information(
    network: nn.Module, x: Tensor, labels: Tensor, per_sample: bool = True
) -> Information:
    """I_t = mean of || d/dW log p(y | f_t) ||^2 at the true labels y, for every step t.

    Per sample this is the trace of the empirical Fisher information. The released code of Kim et
    al. squares the mean gradient of batches of 16 instead, in which samples cancel: values of one
    form say nothing about those of the other. Frozen parameters count too; spikes have the gradient
    of their surrogate. The network runs as in evaluation and is left as it was. Each sample (or
    batch) takes one forward pass and T backward passes.

    Args:
        network: called as this file's first lines say.
        x, labels: [T, B, ...] and [B].
        per_sample: whether to square gradients of samples, or of batches of 16.

    Raises:
        InputError: no sample, no full batches of 16, labels that don't fit, or no gradient.
        NotFinite: outputs or gradients are not finite.
    """
    size = 1 if per_sample else BATCH
    if x.dim() < 2 or not x.numel() or labels.shape != x.shape[1:2] or len(labels) % size:
        raise InputError(
            f"fisher_information: x {list(x.shape)} and labels {list(labels.shape)} must be "
            f"[T, B, ...] and [B], with samples, a multiple of {size}"
        )
    squares, layers = torch.zeros(()), {}
    with _evaluation(network) as parameters:
        for part, label in zip(x.split(size, 1), labels.split(size), strict=True):
            squares = squares + _squares(network, parameters, part, label)
    for name, values in zip(parameters, (squares * size / len(labels)).T, strict=True):
        if not values.isfinite().all():
            raise NotFinite(f"fisher_information: the gradient of {name} is not finite")
        layer = name.rpartition(".")[0]
        layers[layer] = layers.get(layer, 0) + values
    return Information(layers=layers)


def centroid(information: Tensor) -> float:
    """The concentration of information I_t [T], sum_t t I_t / sum_t I_t: the step it lies around.

    From 1 to T, the lower the earlier; NaN where there is no information.
    """
    steps = torch.arange(1, len(information) + 1).to(information)
    return float(steps @ information / information.sum())


def running_mean(outputs: Tensor, delay: int = 0) -> Tensor:
    """The logits of an answer after each step, the mean of all outputs up to it.

    Args:
        outputs: [T, B, C].
        delay: how many first steps are not read; no answer can be given in these.

    Returns:
        [T - delay, B, C], float64: near certainty the digits of float32 don't suffice.

    Raises:
        InputError: nothing to read, or fewer than two classes. NotFinite: outputs are not finite.
    """
    if outputs.dim() != 3 or not outputs.numel() or outputs.shape[-1] < 2:
        raise InputError(
            f"outputs {list(outputs.shape)} must be [T, B, C] with a step, a sample and two classes"
        )
    if not 0 <= delay < len(outputs):
        raise InputError(f"delay {delay} of {len(outputs)} steps leaves none; take 0 or more")
    if not outputs.isfinite().all():
        raise NotFinite("outputs are not finite; look for the first layer whose output is not")
    read = outputs[delay:].double()
    count = torch.arange(1, len(read) + 1, device=read.device, dtype=read.dtype)
    return read.cumsum(0) / count[:, None, None]


def exits(outputs: Tensor, threshold: float, by: By = "confidence", *, delay: int = 0) -> Tensor:
    """The step in which each sample answers, [B] in 1..T: the first that is sure enough, else T.

    Args:
        outputs: [T, B, C].
        threshold: the certainty that is enough: at 0 the first step answers, above 1 the last.
        by: certainty is the largest probability, or 1 - H / log C with their entropy H.
        delay: as of `running_mean`; the first answer comes in step delay + 1.

    Raises:
        InputError: a threshold that is no number, another certainty, or as `running_mean`.
    """
    return 1 + delay + _first(_certainty(outputs, by, delay), threshold)


def static_accuracy(outputs: Tensor, labels: Tensor, *, delay: int = 0) -> Tensor:
    """The share of right answers if all samples answer in the same step, [T - delay].

    Raises:
        InputError: as `running_mean`, or labels that don't fit.
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
    return CERTAINTY[by](running_mean(outputs, delay).softmax(-1)).clamp(0, 1).cummax(0).values


def _first(sure: Tensor, threshold: float) -> Tensor:
    if math.isnan(threshold):
        raise InputError("a threshold of NaN is passed never; take one of [0, 1], or NEVER")
    return (sure[:-1] < threshold).sum(0)


def _right(outputs: Tensor, labels: Tensor, delay: int) -> Tensor:
    """Whether the answer in each step is right, [T - delay, B]; of equal logits the first wins."""
    return running_mean(outputs, delay).argmax(-1) == _check(labels, outputs)


def _check(labels: Tensor, outputs: Tensor) -> Tensor:
    if labels.shape != outputs.shape[1:2]:
        raise InputError(f"labels {list(labels.shape)} for outputs [T, B, C] {list(outputs.shape)}")
    return check_labels(labels, outputs).to(outputs.device)


def _squares(
    network: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, labels: Tensor
) -> Tensor:
    """|| d/dW of the batch's mean log p(y | f_t) ||^2 of each step and parameter, [T, P]."""
    outputs, _ = network(x.detach())
    if not outputs.requires_grad:
        raise InputError("fisher_information: no gradient reaches a parameter of the network")
    logits, weights, rows = running_mean(outputs), [*parameters.values()], []
    chosen = _check(labels, outputs)[None, :, None].expand(len(logits), -1, 1)
    for log_p in logits.log_softmax(-1).gather(-1, chosen).mean((1, 2)):
        grads = torch.autograd.grad(log_p, weights, retain_graph=True, materialize_grads=True)
        rows.append(torch.stack([g.double().square().sum() for g in grads]))
    return torch.stack(rows)


@contextmanager
def _evaluation(network: nn.Module) -> Iterator[Mapping[str, Tensor]]:
    """Put the network into evaluation mode; gives its parameters by name, all with gradients."""
    parameters = {n: p for n, p in network.named_parameters() if p.is_floating_point()}
    modes = [(module, module.training) for module in network.modules()]
    trainable = [(p, p.requires_grad) for p in parameters.values()]
    try:
        network.eval()
        for p, _ in trainable:
            p.requires_grad_(True)
        with torch.enable_grad():
            yield parameters
    finally:
        for module, mode in modes:
            module.training = mode
        for p, requires_grad in trainable:
            p.requires_grad_(requires_grad)

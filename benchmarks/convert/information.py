"""Fisher information: how much a network's parameters learn from each step of time.

It looks at `outputs, state = network(x)`, x [T, B, ...] and outputs [T, B, C], whether the network
was trained to spike or converted, and at the running mean of the outputs: the logits
f_t = (o_1 + ... + o_t) / t of an answer after t steps (Kim et al. 2023, arXiv 2211.14406).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from axonal.core.errors import InputError, NotFinite
from axonal.learn.losses import check_labels

BATCH = 16  # samples, in the released code of Kim et al.


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


def running_mean(outputs: Tensor) -> Tensor:
    """The logits of an answer after each step, the mean of all outputs [T, B, C] up to it.

    Returns:
        [T, B, C], float64: near certainty the digits of float32 don't suffice.

    Raises:
        InputError: nothing to read, or fewer than two classes. NotFinite: outputs are not finite.
    """
    if outputs.dim() != 3 or not outputs.numel() or outputs.shape[-1] < 2:
        raise InputError(
            f"outputs {list(outputs.shape)} must be [T, B, C] with a step, a sample and two classes"
        )
    if not outputs.isfinite().all():
        raise NotFinite("outputs are not finite; look for the first layer whose output is not")
    count = torch.arange(1, len(outputs) + 1, device=outputs.device, dtype=torch.float64)
    return outputs.double().cumsum(0) / count[:, None, None]


def labels_of(outputs: Tensor, labels: Tensor) -> Tensor:
    """Check that `labels` [B] are classes of `outputs` [T, B, C], and move them beside these.

    Raises:
        InputError: they are not.
    """
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
    chosen = labels_of(outputs, labels)[None, :, None].expand(len(logits), -1, 1)
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

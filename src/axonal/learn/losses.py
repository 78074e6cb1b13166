"""Losses: what a network is trained towards, and what its activity costs.

- An objective, (outputs [T, B, C] or first-spike times [B, C], labels [B]) -> scalar, is a mean
  over steps, so that rules which see a few steps at a time can take it of these.
- A penalty, (network, its neurons' spikes, its layers' inputs) -> scalar, is what `nn.hooks`
  watches, priced.
- A loss, (network, batch, generator) -> (scalar, figures to log), is what `Recipe.loss` asks for.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.meter import FIELDS, Counts
from ..core.neurons import Leaky
from ..energy import EVENT_STATE_BITS, price
from ..nn.hooks import Watched, rates, tally, watch, watch_reads
from ..nn.meter import fanout
from ..ops.scan import scan
from .recipe import Batch, Loss
from .rules import Rule
from .rules.bptt import bptt

Objective = Callable[[Tensor, Tensor], Tensor]
Penalty = Callable[[nn.Module, Watched, Watched], Tensor]


def rate_cross_entropy(scale: float = 1.0) -> Objective:
    """Cross-entropy of the outputs' mean over steps, times `scale`."""
    return lambda y, label: F.cross_entropy(scale * y.float().mean(0), check_labels(label, y))


def membrane_cross_entropy(over: Literal["steps", "maximum"] = "steps") -> Objective:
    """Cross-entropy of a read-out's membrane: in every step, or of its maximum over them.

    Eshraghian et al. 2023 (arXiv 2109.12894), section IV; the maximum as Cramer et al. 2020
    (arXiv 1910.07407) take it, which rules that see few steps at a time take over these.
    """
    if over == "maximum":
        return lambda y, label: F.cross_entropy(y.float().amax(0), check_labels(label, y))
    return lambda y, label: F.cross_entropy(
        y.float().flatten(0, 1), check_labels(label, y).repeat(len(y))
    )


def tet(share: float = 1e-3, level: float = 1.0) -> Objective:
    """(1 - share) times the cross-entropy of every step, and share times (y - level)^2.

    Temporal efficient training (Deng et al. 2022, arXiv 2202.11946, eq. 9-11), with its defaults.
    """
    each = membrane_cross_entropy()
    return lambda y, label: (
        (1 - share) * each(y, label) + share * (y.float() - level).square().mean()
    )


def spike_count(right: float = 0.8, wrong: float = 0.2) -> Objective:
    """The squared distance of each output's spikes a step from `right` or `wrong`.

    Shrestha and Orchard 2018 (arXiv 1810.08646), the spike-count loss.
    """

    def objective(y: Tensor, label: Tensor) -> Tensor:
        one_hot = F.one_hot(check_labels(label, y), y.shape[-1])
        return (y.float().mean(0) - (wrong + (right - wrong) * one_hot)).square().mean()

    return objective


def first_spike(tau: float = 1.0) -> Objective:
    """Cross-entropy over -t / tau, t the step of an output's first spike, T if it sends none.

    Goeltz et al. 2021 (arXiv 1912.11443), eq. 5 without its regulariser. Of spikes [T, B, C] t is
    the number of steps without a spike so far, through which gradients flow.
    """
    return lambda y, label: F.cross_entropy(-first_times(y) / tau, check_labels(label, y))


def van_rossum(tau: float) -> Objective:
    """The squared distance of spike trains from their targets, both filtered by e^(-t / tau).

    van Rossum 2001 (Neural Computation 13:751), eq. 4. Labels are trains [B, T, C].

    Raises:
        InputError: The objective: targets of another shape than the outputs.
    """
    kernel = Leaky(decay=float(np.exp(-1 / tau)), emit="membrane", reset="none")

    def objective(y: Tensor, label: Tensor) -> Tensor:
        if label.transpose(0, 1).shape != y.shape:
            raise InputError(f"van_rossum: targets {list(label.shape)} for outputs {list(y.shape)}")
        difference = y.float() - label.transpose(0, 1)
        return scan(difference, None, kernel)[0].square().mean() / tau

    return objective


def first_times(y: Tensor) -> Tensor:
    """The step of each output's first spike, T if there is none: [T, B, C] -> [B, C]."""
    if y.dim() == 2:
        return y
    sent = y.float().cumsum(0)
    silent = (sent - y).detach() < 1  # before this step
    return (silent * (1 - sent)).sum(0)


def predict(y: Tensor) -> Tensor:
    """The class of the largest sum of outputs [T, B, C], or of the first of times [B, C]."""
    return y.argmin(-1) if y.dim() == 2 else y.sum(0).argmax(-1)


def check_labels(label: Tensor, outputs: Tensor) -> Tensor:
    """Return `label` [B] if every entry is a class of `outputs` [..., C].

    Raises:
        InputError: labels are no integers, or out of range.
    """
    if label.is_floating_point() or label.dim() != 1:
        raise InputError(f"labels are {label.dtype} {list(label.shape)}; give classes, [B] int64")
    low, high, classes = int(label.min()), int(label.max()), outputs.shape[-1]
    if low < 0 or high >= classes:
        raise InputError(f"labels run from {low} to {high}, but the network has {classes} classes")
    return label


def activity(low: float = 0.0, high: float = 1.0, weight: float = 1.0) -> Penalty:
    """The squared distance of each neuron's spikes a step from the range [low, high].

    Zenke and Vogels 2021 (Neural Computation 33:899), with bounds a neuron; low = high is a
    target. Summed over neurons, so that a layer's size doesn't dilute it, and averaged over
    populations.

    Raises:
        InputError: low above high.
    """
    if not 0 <= low <= high:
        raise InputError(f"activity: the bounds {low} and {high} are out of order")

    def penalty(network: nn.Module, spikes: Watched, inputs: Watched) -> Tensor:
        outside = []
        for parts in spikes.values():
            rate = torch.cat(parts).float().mean((0, 1))
            outside.append(((low - rate).relu() ** 2 + (rate - high).relu() ** 2).sum())
        return weight * torch.stack(outside).mean()

    return penalty


def energy(weight: float, bits: int = 8) -> Penalty:
    """The joules of a sample's spikes in the layers that read them.

    A spike costs each synapse it reaches an addition, a weight fetched, and a sum read and
    written, at the nominal prices of `energy.price`; the network's own input is no part of it.
    Modelled, not measured: only as good as that table.

    Args:
        weight: of a nanojoule.
        bits: of the weights: 8, 16 or 32.
    """
    fields = ("synops", "adds", "weight_reads", "state_reads", "state_writes")
    one = np.array([[[float(field in fields) for field in FIELDS]]])
    wide = EVENT_STATE_BITS[bits]
    joules = price(Counts(("synapse",), one, 1), bits=bits, state_bits=wide).total.nominal
    reach: dict[tuple[nn.Module, torch.Size], Tensor] = {}

    def penalty(network: nn.Module, spikes: Watched, inputs: Watched) -> Tensor:
        samples = next(iter(spikes.values()))[0].shape[1]
        work = torch.zeros(())
        for name, parts in inputs.items():
            for x in parts:
                layer, shape = network.get_submodule(name), x.shape[1:]
                if x.requires_grad:
                    if (layer, shape) not in reach:
                        reach[layer, shape] = fanout(layer, x)
                    work = work + (x.abs().sum(0) * reach[layer, shape]).sum()
        return weight * 1e9 * joules * work / samples

    return penalty


def flow_matching(clip: float = 0.05) -> Loss:
    """Flow matching towards the clean image, weighted as an error of the velocity.

    x_t = t x1 + (1 - t) x0 with x0 ~ N(0, 1) and logit-normal t; the network estimates x1, and
    the velocity it implies, (x1 - x_t) / (1 - t), is what the squared error measures
    (Lipman et al. 2023, arXiv 2210.02747; Li and He 2025, arXiv 2511.13720).

    Args:
        clip: the smallest 1 - t that is divided by.

    Returns:
        (network, {"image" [B, C, H, W] in [-1, 1], "label" [B]}, generator) -> (loss, figures).
    """

    def loss(network, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        image, label = batch["image"], batch["label"]
        noise = torch.randn(image.shape, generator=generator, device=image.device)
        shape = (len(image), 1, 1, 1)
        t = torch.sigmoid(torch.randn(shape, generator=generator, device=image.device))
        estimate = network(t * image + (1 - t) * noise, label).float()
        error = (estimate - image) / (1 - t).clamp_min(clip)
        return error.square().mean(), {}

    return loss


def cross_entropy(shift: int = 0, flip: bool = False) -> Loss:
    """The cross-entropy of the right class, of images moved by up to `shift` pixels each way.

    Args:
        shift: the largest move; what enters at a border repeats it.
        flip: whether every other image, by chance, is seen in a mirror.

    Returns:
        (network, {"image" [B, C, H, W], "label" [B]}, generator) -> (loss, {"accuracy"}).
    """

    def loss(network, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        image, label = batch["image"], batch["label"]
        if shift and network.training:
            image = _shift(image, shift, generator)
        if flip and network.training:
            flipped = torch.rand(len(image), generator=generator, device=image.device) < 0.5
            image = torch.where(flipped[:, None, None, None], image.flip(-1), image)
        logits = network(image).float()
        accuracy = (logits.argmax(1) == label).float().mean()
        return F.cross_entropy(logits, check_labels(label, logits)), {"accuracy": accuracy}

    return loss


def spiking(
    objective: Objective,
    *,
    rule: Rule | None = None,
    penalties: Sequence[Penalty] = (),
    shift: int = 0,
) -> Loss:
    """The loss of a spiking classifier under any rule of learning.

    Args:
        objective: of its outputs.
        rule: how gradients are computed, one of `rules.RULES`; None for `bptt`.
        penalties: on its activity.
        shift: as of `cross_entropy`, while training; frames of a recording move together.

    Returns:
        (model, {"image" or "events" [B, ...], "label" [B]}, generator) -> (loss, {"accuracy",
        "spikes": a neuron and step, if the rule runs steps}). The model has `encode`, from the
        batch's entry to [T, B, ...], and `network`, from there to (outputs [T, B, C], state).

    Raises:
        InputError: penalties with another rule than BPTT.
    """
    rule = rule or bptt()
    if penalties and rule is not bptt():
        raise InputError("penalties need the gradients of all steps; choose the rule bptt")

    def loss(model, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        x, label = next(batch[k] for k in ("image", "events") if k in batch), batch["label"]
        if shift and model.training:
            x = _shift(x.flatten(1, -3).float(), shift, generator).view_as(x)
        with ExitStack() as stack:
            sums = stack.enter_context(tally(model.network))
            watches = [
                stack.enter_context(w(model.network)) for w in (watch, watch_reads) if penalties
            ]
            value, outputs = rule(model.network, model.encode(x), lambda y: objective(y, label))
        for penalty in penalties:
            value = value + penalty(model.network, *watches)
        figures = {"accuracy": (predict(outputs) == label).float().mean()}
        if sums:
            figures["spikes"] = torch.tensor(list(rates(sums).values())).mean()
        return value, figures

    return loss


def _shift(image: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Move each image [B, C, H, W] by up to `shift` pixels; what enters repeats the border."""
    count, _, height, width = image.shape
    draw = torch.randint(2 * shift + 1, (2, count, 1), generator=generator, device=generator.device)
    down = draw[0] + torch.arange(height, device=image.device)
    right = draw[1] + torch.arange(width, device=image.device)
    padded = F.pad(image, (shift,) * 4, mode="replicate")
    each = torch.arange(count, device=image.device)[:, None, None]
    return padded.movedim(1, -1)[each, down[:, :, None], right[:, None, :]].movedim(-1, 1)


def distilled_changes(
    unfold: Callable[[nn.Module], Any],
    tolerance: Callable[[float], float],
    penalty: float,
    steps: int,
    teacher: Callable[[Tensor, float, Tensor], Tensor] | None = None,
) -> Loss:
    """Distil fine trajectories into a network that takes few steps and changes little in them.

    The sigma-delta twin of the network walks from noise to image, thresholds and all. In each
    step it is held to the mean velocity that leads to the next point of a fine trajectory
    (as in Salimans and Ho 2022, arXiv 2202.00512): one computed beforehand, or the teacher's from
    where the network's own steps have led (Ross et al. 2011, arXiv 1011.0686). Walks of the first
    kind are faster, of the second learn not to drift. Every change d that is sent past a
    threshold h costs |d| / (|d| + h) for each synapse it reaches: a smooth count that favours no
    change over small ones. Gradients pass straight through the thresholds.

    Args:
        unfold: from the network to the twin that shares its weights, with `start`, `neurons`,
            `sites` and `fanouts` as a sigma-delta network of `convert` has them.
        tolerance: factor of the thresholds at time t.
        penalty: cost of the synaptic operations of one dense evaluation.
        steps: T, of a walk.
        teacher: the next point from (point, t, label); None to read it from the batch.

    Returns:
        (network, {"path", "label" [B]}, generator) -> (loss, figures). "path" is [B, T + 1, ...]
        or, with a teacher, [B, 1, ...], the noise. Figures: "distance", the squared error of the
        velocity, and "work", changes in dense evaluations per walk.
    """
    twins: dict[nn.Module, tuple] = {}

    def loss(network, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        if network not in twins:
            twin = unfold(network)
            fanouts, sites = twin.fanouts(), twin.sites()
            twins[network] = twin, fanouts, sum(fanouts[name] * sites[name] for name in fanouts)
        twin, fanouts, dense = twins[network]
        path, label = batch["path"].transpose(0, 1), batch["label"]
        x, state, distance, work, sent = path[0], twin.start(label), 0.0, 0.0, 0.0
        for i in range(steps):
            t = i / steps
            goal = path[i + 1] if teacher is None else teacher(x, t, label)
            with watch(twin.neurons) as spikes:
                estimate, state = twin(x[None], state, tolerance(t))
            velocity = (estimate[0] - x) / (1 - t)
            distance = distance + (velocity - (goal - x) * steps).square().mean()
            x = goal if teacher is None else x + velocity.detach() / steps
            for name, (changes,) in spikes.items():
                size, threshold = changes.abs(), twin.neurons[name].threshold * tolerance(t)
                work = work + fanouts[name] * (size / (size + threshold + 1e-9)).sum()
                sent = sent + fanouts[name] * torch.count_nonzero(changes)
        scale, distance = dense * len(label), distance / steps
        figures = {"distance": distance.detach(), "work": sent / scale}
        return distance + penalty * work / scale, figures

    return loss

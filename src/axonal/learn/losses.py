"""Losses, each a factory that returns what `Recipe.loss` asks for."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import InputError
from ..nn.hooks import rates, tally, watch, watch_reads
from .objectives import Objective, Penalty, checked, guess
from .recipe import Batch, Loss
from .rules import Rule
from .rules.bptt import bptt

Unfold = Callable[[nn.Module], Any]


def flow_matching(clip: float = 0.05):
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


def cross_entropy(shift: int = 0, flip: bool = False):
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
            image = _moved(image, shift, generator)
        if flip and network.training:
            chosen = torch.rand(len(image), generator=generator, device=image.device) < 0.5
            image = torch.where(chosen[:, None, None, None], image.flip(-1), image)
        logits = network(image).float()
        accuracy = (logits.argmax(1) == label).float().mean()
        return F.cross_entropy(logits, checked(label, logits)), {"accuracy": accuracy}

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
        objective: of its outputs, one of `objectives`.
        rule: how gradients are computed, one of `rules.RULES`; None for `bptt`.
        penalties: on what its neurons send.
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
            x = _moved(x.flatten(1, -3).float(), shift, generator).view_as(x)
        with ExitStack() as stack:
            fired = stack.enter_context(tally(model.network))
            watches = [
                stack.enter_context(w(model.network)) for w in (watch, watch_reads) if penalties
            ]
            found, outputs = rule(model.network, model.encode(x), lambda y: objective(y, label))
        for penalty in penalties:
            found = found + penalty(model.network, *watches)
        figures = {"accuracy": (guess(outputs) == label).float().mean()}
        if fired:
            figures["spikes"] = torch.tensor(list(rates(fired).values())).mean()
        return found, figures

    return loss


def _moved(image: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    count, _, height, width = image.shape
    draw = torch.randint(2 * shift + 1, (2, count, 1), generator=generator, device=generator.device)
    down = draw[0] + torch.arange(height, device=image.device)
    right = draw[1] + torch.arange(width, device=image.device)
    padded = F.pad(image, (shift,) * 4, mode="replicate")
    each = torch.arange(count, device=image.device)[:, None, None]
    return padded.movedim(1, -1)[each, down[:, :, None], right[:, None, :]].movedim(-1, 1)


def distilled_changes(
    unfold: Unfold,
    tolerance: Callable[[float], float],
    penalty: float,
    steps: int,
    teacher: Callable[[Tensor, float, Tensor], Tensor] | None = None,
):
    """Distil fine trajectories into a network that takes few steps and changes little in them.

    The sigma-delta twin of the network walks from noise to image, thresholds and all. In each
    step it is held to the mean velocity that leads to the next point of a fine trajectory
    (as in Salimans and Ho 2022, arXiv 2202.00512): one computed beforehand, or the teacher's from
    where the network's own steps have led (Ross et al. 2011, arXiv 1011.0686). Walks of the first
    kind are faster, of the second learn not to drift. Every change d that is sent past a
    threshold h costs |d| / (|d| + h) for each synapse it reaches: a smooth count that favours no
    change over small ones. Gradients pass straight through the thresholds.

    Args:
        unfold: makes of the network the twin that shares its weights, with `start`, `neurons`,
            `sites` and `fanouts` as `convert.sigma_delta.DeltaNetwork` has them.
        tolerance: what multiplies the thresholds at time t.
        penalty: what the synaptic operations of one dense evaluation cost.
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

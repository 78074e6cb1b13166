"""One way to convert: check, follow, decide by a method, round, put together, certify."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..core.errors import InputError
from ..nn.interpreter import line
from . import certify
from .activations import Calibration, values_of
from .calibrate import Run, calibrate
from .certificate import Certificate
from .exact_sums import units
from .methods import baselines, graded, qcfs, transformer
from .methods.sigma_delta import DeltaNetwork, sigma_delta
from .outputs import leaves, side_by_side
from .plain import plain
from .plan import LONGEST, Plan, SpikingNetwork, assemble
from .tracing import input_dependent, is_size, prepared, roles

Samples = Tensor | tuple[Tensor, Any]
Method = Callable[..., Plan]
METHODS: Mapping[str, Method] = {
    "graded": graded.graded,
    "qcfs": qcfs.qcfs,
    "transformer": transformer.transformer,
    "signed": baselines.signed,
    "maximum": baselines.maximum,
    "percentile": baselines.percentile,
    "balanced": baselines.balanced,
    "corrected": baselines.corrected,
}
SIGMA_DELTA = "sigma-delta"  # keeps no plan, but thresholds: its neurons follow streams
HELD_OUT = 0.2  # of the calibration samples, where no others are given
PROBED = 200  # samples that show whether a network is trained
SURE = 2.0  # standard errors above guessing, up to which it is not
REFUSALS = (RuntimeError, ValueError, IndexError, TypeError)  # how torch refuses what doesn't fit


def convert(
    model: nn.Module,
    calibration: Samples,
    *,
    method: str = "graded",
    T: int = 8,
    held_out: Samples | None = None,
    folder: Path | None = None,
    **options: Any,
) -> tuple[SpikingNetwork | DeltaNetwork, Certificate]:
    """Make `model` spike: neurons for its activations, and a certificate of what that changed.

    Weights and inputs are rounded so that all sums are exact (`exact`): the network sends the same
    spikes in the engine, in chunks and in any batch. Not so sigma-delta networks, whose spikes are
    real numbers.

    Args:
        model: trained; torch.fx must be able to follow it. It is left as it is. It may return
            several tensors, as a tuple or dictionary, which `network.answer` does, too.
        calibration: samples [N, ...] as it takes them, or these and what is right for them:
            classes [N], integers; or targets, real numbers of the form that the model returns.
        method: one of `METHODS`, or "sigma-delta" for a stream whose samples follow each other.
        T: steps in which the answer is given.
        held_out: samples for the certificate; None for a fifth of the calibration.
        folder: where work under way is stored, so that the same call goes on; None for nowhere.
        options: of the method, as its function says.

    Returns:
        The network, `y, state = network(x, state)` over steps or `network.answer(x)`, and its
        certificate.

    Raises:
        InputError: before work starts: an unknown method or option, T below 1, an operation
            without a rule (with its line), no activation at all, a model that is untrained or has
            weights that are not finite, an answer that depends on other samples, on values or on
            chance, samples that don't fit or have one class, targets of another form. FileError:
            the folder can't be written.
    """
    if method not in [*METHODS, SIGMA_DELTA]:
        names = ", ".join([*METHODS, SIGMA_DELTA])
        raise InputError(f"convert: no method {method!r}; there are {names}")
    taken = inspect.signature(METHODS.get(method, _by_changes)).parameters.values()
    known = {p.name: p.default for p in taken if p.default is not p.empty}
    if unknown := sorted({*options}.difference(known)):
        raise InputError(
            f"convert: {method} has no option {unknown[0]!r}; it takes {', '.join(known) or 'none'}"
        )
    if type(T) is not int or not 1 <= T <= LONGEST:
        raise InputError(f"convert: T is {T!r}; it must be a whole number of steps, 1 to {LONGEST}")
    pair = _checked(calibration)
    if held_out is None:
        pair, checks = _apart(*pair, ordered=method == SIGMA_DELTA)
    else:
        checks = _checked(held_out)
    (x, labels), (test, answers) = pair, checks
    if test.shape[1:] != x.shape[1:]:
        raise InputError(f"convert: held out {list(test.shape)} for samples {list(x.shape)}")
    model = _evaluated(model)
    if method == SIGMA_DELTA:
        _answer(model, x)
        return _by_changes(model, x, test, T, **options)
    dense = prepared(model, (known | options).get("schedule", "pipelined"))
    roles(dense)
    _unlike_guessing(_alone(model, dense, x), labels)
    with torch.no_grad():
        plan = METHODS[method](dense, Calibration(x, T, folder), **options)
        network = assemble(dense, replace(plan, units=units(dense, x)))
    return network, certify.certify(dense, network, test, answers)


def _by_changes(
    model: nn.Module, x: Tensor, test: Tensor, steps: int, budget: float = 0.05
) -> tuple[DeltaNetwork, Certificate]:
    """Sigma-delta neurons; samples in order are a stream, of which a network sees T at a time.

    Args:
        budget: of the output's error, root mean square, beside the output's own.
    """
    if not isinstance(budget, int | float) or not 0 < budget < math.inf:
        raise InputError(f"sigma-delta: a budget of {budget!r}; it must be a number above 0")
    network = sigma_delta(model, x[:1])

    def along(stream: Tensor) -> Run:
        if len(stream) < steps:
            raise InputError(f"convert: {len(stream)} samples are no stream of {steps}; give more")
        complete = stream[: len(stream) // steps * steps]
        frames = complete.unflatten(0, (-1, steps)).transpose(0, 1)
        return lambda n: n(frames, n.start(batch=frames.shape[1]))[0]

    run, check = along(x), along(test)
    with torch.no_grad():
        size = float(run(network).square().mean()) ** 0.5
    return network, calibrate(network, run, check, budget * size)


def _checked(samples: Samples) -> tuple[Tensor, Tensor | None]:
    pair = samples if isinstance(samples, tuple | list) else (samples, None)
    if len(pair) != 2 or not torch.is_tensor(pair[0]):
        raise InputError("convert: give samples as a tensor, or a pair of these and their classes")
    x, labels = pair
    values = [*leaves(labels).values()]
    if values and all(torch.is_tensor(v) and v.is_floating_point() for v in values):
        labels = side_by_side(labels, "what is right").detach().float()
    if x.dim() < 2 or not x.numel() or not x.is_floating_point():
        raise InputError(
            f"convert: samples {list(x.shape)} of {x.dtype} must be real numbers [N, ...], as the "
            "model takes them"
        )
    if not bool(x.isfinite().all()):
        raise InputError("convert: samples hold NaN or infinity")
    if torch.is_tensor(labels) and labels.is_floating_point():
        if len(labels) != len(x) or not bool(labels.isfinite().all()):
            raise InputError(
                f"convert: targets {list(labels.shape)} must be finite numbers for {len(x)} samples"
            )
    elif labels is not None:
        kind = labels.dtype if torch.is_tensor(labels) else type(labels).__name__
        if kind not in (torch.int64, torch.int32, torch.uint8) or labels.shape != (len(x),):
            raise InputError(f"convert: classes of {kind} must be a tensor of integers [{len(x)}]")
        if len(labels.unique()) < 2 and len(x) > 1:
            raise InputError("convert: all samples are of one class; thresholds need them all")
    return x, labels


def _apart(x: Tensor, labels: Tensor | None, ordered: bool) -> list[tuple[Tensor, Tensor | None]]:
    """Samples to calibrate with, and a share of them held out: drawn, or the last of a stream."""
    if len(x) < 2:
        raise InputError("convert: one sample can't calibrate and check; give more")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    order = torch.arange(len(x)) if ordered else order  # samples may be sorted by class
    count = len(x) - max(1, math.ceil(HELD_OUT * len(x)))
    parts = order[:count], order[count:]
    return [(x[rows], None if labels is None else labels[rows]) for rows in parts]


def _evaluated(model: nn.Module) -> nn.Module:
    """A copy of `model` for evaluation, whose weights are finite."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not bool(value.isfinite().all()):
            raise InputError(
                f"convert: {name} holds NaN or infinity; load weights that are trained"
            )
    return plain(model)


@torch.no_grad()
def _answer(model: nn.Module, x: Tensor) -> Tensor:
    """What `model` returns for some of the samples."""
    try:
        output = side_by_side(model(x[:PROBED]))
    except REFUSALS as error:
        shape = list(x.shape[1:])
        raise InputError(f"convert: the model refuses samples of {shape}: {error}") from error
    if not bool(output.isfinite().all()):
        raise InputError("convert: the model's output is not finite; look at its weights")
    return output


@torch.no_grad()
def _alone(model: nn.Module, dense: fx.GraphModule, x: Tensor) -> Tensor:
    """As `_answer`, of the prepared network, proved to be what `model` does with each sample."""
    alone, output = _answer(model, x[:1]), _answer(dense, x)
    three = x[:1].expand(3, *x.shape[1:])
    varying = input_dependent(dense.graph)
    values_at = [n for n in dense.graph.nodes if n in varying and not is_size(n)]
    nodes = [n for n in values_at if n.op not in ("placeholder", "output")]
    values, _ = values_of(dense, [node.name for node in nodes], three)
    for node in nodes:
        if torch.is_tensor(values[node.name]) and values[node.name].shape[:1] != three.shape[:1]:
            raise InputError(
                f"convert: {node.name} moves samples away from the first dimension{line(node)}"
            )
    near = 1e-3 * float(alone.abs().max())
    if output[:1].shape != alone.shape or not torch.allclose(output[:1], alone, 1e-3, near):
        raise InputError(
            "convert: the model answers one sample otherwise than among others, or than its "
            "trace; what it computes must depend on that sample alone, and not on chance"
        )
    return output


def _unlike_guessing(output: Tensor, labels: Tensor | None) -> None:
    if labels is None:
        return
    if labels.is_floating_point():
        _unlike_the_mean(output, labels[: len(output)])
        return
    classes, n = output.shape[-1], len(output)
    if output.dim() != 2 or int(labels.max()) >= classes or int(labels.min()) < 0:
        raise InputError(f"convert: outputs {list(output.shape)} for classes up to {labels.max()}")
    right = float((output.argmax(1) == labels[:n]).float().mean())
    guessed = 1 / classes
    if right <= min(guessed + SURE * (guessed * (1 - guessed) / n) ** 0.5, 0.9):
        raise InputError(
            f"convert: the model names {right:.0%} of {n} samples right, as guessing would; "
            "train it first, and prepare samples as in training"
        )


def _unlike_the_mean(output: Tensor, targets: Tensor) -> None:
    if output.shape != targets.shape:
        raise InputError(
            f"convert: targets {list(targets.shape[1:])} for outputs {list(output.shape[1:])}; "
            "they must have the same form, and classes are integers"
        )
    wrong = float((output - targets).square().mean())
    mean = float((targets - targets.mean(0)).square().mean())
    if len(targets) > 1 and wrong >= mean:
        raise InputError(
            f"convert: the model's mean squared error is {wrong:.3g}, that of the targets' mean "
            f"{mean:.3g}; train it first, and prepare samples as in training"
        )

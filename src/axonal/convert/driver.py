"""One way to convert: check, follow, decide by a method, put together, certify."""

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..core.errors import InputError
from . import balanced, corrected, graded, measure, normalised, qcfs, signed, transformer
from .calibrate import Run, calibrate
from .certificate import Certificate
from .plan import Plan, SpikingNetwork, assemble
from .setting import Setting
from .sigma_delta import DeltaNetwork, sigma_delta
from .tracing import prepared, roles

Samples = Tensor | tuple[Tensor, Tensor]
Method = Callable[..., Plan]
METHODS: Mapping[str, Method] = {
    "graded": graded.graded,
    "qcfs": qcfs.qcfs,
    "transformer": transformer.transformer,
    "signed": signed.signed,
    "maximum": normalised.maximum,
    "percentile": normalised.percentile,
    "balanced": balanced.balanced,
    "corrected": corrected.corrected,
}
SIGMA_DELTA = "sigma-delta"  # keeps no plan, but thresholds: its neurons follow streams
HELD_OUT = 0.2  # of the calibration samples, where no others are given
CHANCE = 1.5  # times the share that guessing names right, up to which a network is untrained


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

    Args:
        model: trained; torch.fx must be able to follow it. It is left as it is.
        calibration: samples [N, ...] as it takes them, or these and their classes [N].
        method: one of `METHODS`, or "sigma-delta" for a stream whose samples follow each other.
        T: steps in which the answer is given.
        held_out: samples for the certificate; None for a fifth of the calibration.
        folder: where work under way is kept, so that the same call goes on; None for nowhere.
        options: of the method, as its function says.

    Returns:
        The network, `y, state = network(x, state)` over steps or `network.answer(x)`, and its
        certificate.

    Raises:
        InputError: before work starts: an unknown method or option, T below 1, an operation
            without a rule (with its line), no activation at all, a model that is untrained or has
            weights that are not finite, samples that don't fit or have one class. FileError: the
            folder can't be written.
    """
    if method not in {*METHODS, SIGMA_DELTA}:
        names = ", ".join([*METHODS, SIGMA_DELTA])
        raise InputError(f"convert: no method {method!r}; there are {names}")
    taken = inspect.signature(METHODS.get(method, _by_changes)).parameters.values()
    known = [p.name for p in taken if p.default is not p.empty]
    if unknown := sorted({*options} - {*known}):
        raise InputError(
            f"convert: {method} has no option {unknown[0]!r}; it takes {', '.join(known) or 'none'}"
        )
    if type(T) is not int or T < 1:
        raise InputError(f"convert: T is {T!r}; it must be a whole number of steps from 1 on")
    x, labels = _checked(calibration)
    if held_out is None:
        apart = max(1, math.ceil(HELD_OUT * len(x)))
        if len(x) < 2:
            raise InputError("convert: one sample can't calibrate and check; give more")
        test, answers = x[-apart:], None if labels is None else labels[-apart:]
        x = x[:-apart]
    else:
        test, answers = _checked(held_out)
    if method == SIGMA_DELTA:
        return _by_changes(model, x, test, T, **options)
    dense = _trained(model, x, labels)
    with torch.no_grad():
        plan = METHODS[method](dense, Setting(x, T, folder), **options)
        network = assemble(dense, plan)
    return network, measure.certify(dense, network, test, answers)


def _by_changes(
    model: nn.Module, x: Tensor, test: Tensor, steps: int, budget: float = 0.05
) -> tuple[DeltaNetwork, Certificate]:
    """Sigma-delta neurons; samples in order are a stream, of which a network sees T at a time.

    Args:
        budget: of the output's error, root mean square, beside the output's own.
    """
    network = sigma_delta(copy.deepcopy(model).eval(), x[:1])

    def along(stream: Tensor) -> Run:
        if len(stream) < steps:
            raise InputError(f"convert: {len(stream)} samples are no stream of {steps}; give more")
        whole = stream[: len(stream) // steps * steps]
        frames = whole.unflatten(0, (-1, steps)).transpose(0, 1)
        return lambda n: n(frames, n.start(batch=frames.shape[1]))[0]

    run, check = along(x), along(test)
    with torch.no_grad():
        size = float(run(network).square().mean()) ** 0.5
    return network, calibrate(network, run, check, budget * size)


def _checked(samples: Samples) -> tuple[Tensor, Tensor | None]:
    x, labels = samples if isinstance(samples, tuple | list) else (samples, None)
    if not torch.is_tensor(x) or x.dim() < 2 or not len(x) or not x.is_floating_point():
        shape = list(x.shape) if torch.is_tensor(x) else type(x).__name__
        raise InputError(f"convert: samples {shape} must be a tensor of numbers [N, ...]")
    if not bool(x.isfinite().all()):
        raise InputError("convert: samples hold NaN or infinity")
    if labels is not None:
        if labels.shape != (len(x),) or labels.is_floating_point():
            raise InputError(f"convert: classes {list(labels.shape)} must be integers [{len(x)}]")
        if len(labels.unique()) < 2 and len(x) > 1:
            raise InputError("convert: all samples are of one class; thresholds need them all")
    return x, labels


@torch.no_grad()
def _trained(model: nn.Module, x: Tensor, labels: Tensor | None) -> fx.GraphModule:
    """The prepared network, of which it is sure that it can be converted."""
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not bool(value.isfinite().all()):
            raise InputError(
                f"convert: {name} holds NaN or infinity; load weights that are trained"
            )
    dense = prepared(model)
    roles(dense)
    try:
        output = dense(x[: min(len(x), 200)])
    except RuntimeError as error:  # how torch refuses shapes
        raise InputError(f"convert: the model refuses samples {list(x.shape)}: {error}") from error
    if labels is not None:
        if output.dim() != 2 or int(labels.max()) >= output.shape[1] or int(labels.min()) < 0:
            raise InputError(
                f"convert: outputs {list(output.shape)} for classes up to {labels.max()}"
            )
        right = float((output.argmax(1) == labels[: len(output)]).float().mean())
        if right <= min(CHANCE / output.shape[1], 0.9):
            raise InputError(
                f"convert: the model names {right:.0%} of {len(output)} samples right, as guessing "
                "would; train it first, and prepare samples as in training"
            )
    return dense

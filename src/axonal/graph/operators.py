"""The table of operators: what each function of torch is to Axonal, a row each.

Conversion, tracing, the engine, the meter and the pages that list what is supported read it, so
that nothing is accepted by one and refused by the next. Rows go by the names of functions, and
name the classes of `torch.nn` that call them; there is no torch here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from . import lowering, values
from .builder import Value
from .values import CURVE, Cost, each

Role = Literal["linear", "rectifier", "nonlinear", "product"]


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator of torch.

    Attributes:
        name: of the function in torch, which is that of the row.
        arguments: names of what it takes beside the tensors that it works on, in torch's order.
            The attributes of its modules have the same names.
        tensors: how many tensors it works on, which come first.
        modules: the classes of `torch.nn`, or `axonal.nn`, that call it.
        aliases: further names of functions, methods and operators that do the same.
        role: in a conversion, of one tensor that depends on the input: "linear"; "rectifier", in
            whose place neurons go; "nonlinear", any other function of single samples, which runs
            on rates. None: a conversion has no rule.
        joint: the role of several such tensors: "linear" for sums, or "product".
        when: of the arguments, whether it has that role. Changes of samples with each other, or
            constants that are added, take it away.
        weighted: whether it has weights that are synapses, which are counted.
        moves: whether all it does is to move, repeat or drop values of a sample.
        lower: what it adds to a graph: `lower(builder, name, *tensors, **arguments)`; None for
            what moves, and for what is a `Difference` there.
        value: itself in numpy, of values [B, ...] in float64, where a graph holds it as a
            `Difference`.
        cost: multiplies and adds of that, beside what a `Difference` costs anyway.
        nir: the primitive that NIR has for it; none where empty.
        instead: what to do where a graph has no form for it.
    """

    name: str
    arguments: Sequence[str] = ()
    _: KW_ONLY
    tensors: int = 1
    modules: Sequence[str] = ()
    aliases: Sequence[str] = ()
    role: Role | None = None
    joint: Role | None = None
    when: Callable[..., bool] = lambda **_: True
    weighted: bool = False
    moves: bool = False
    lower: Callable[..., Value] | None = None
    value: Callable[..., np.ndarray] | None = None
    cost: Cost | None = None
    nir: str = ""
    instead: str = ""


def _of_samples(dim: Any = None, **_: Any) -> bool:
    """Whether a reduction names its dimensions and leaves out the first, the samples."""
    dims = dim if isinstance(dim, list | tuple) else (dim,)
    return all(isinstance(d, int) and d != 0 for d in dims)


def _zeros(value: float | None = None, **_: Any) -> bool:
    """Whether a padding adds nothing, so that no change in is no change out."""
    return not value


def _resamples(mode: str = "nearest", antialias: bool = False, **_: Any) -> bool:
    """Whether values are nearest ones, or linear between two."""
    return "nearest" in mode or (mode in lowering.LINEAR and not antialias)


def _attends(
    attn_mask: Any = None, dropout_p: float = 0.0, enable_gqa: bool = False, **_: Any
) -> bool:
    """Whether attention has no mask, no chance and a key for each query."""
    return attn_mask is None and not dropout_p and not enable_gqa


def _linear(name: str, lower: Callable[..., Value], *arguments: str, **row: Any) -> Operator:
    """A linear map of one tensor."""
    return Operator(name, arguments, **{"role": "linear", "lower": lower} | row)


def _convolution(dims: int, transposed: bool, **row: Any) -> Operator:
    order = ("output_padding", "groups", "dilation") if transposed else ("dilation", "groups")
    arguments = ("weight", "bias", "stride", "padding", *order, "padding_mode")
    name, kind = ("conv_transpose", "ConvTranspose") if transposed else ("conv", "Conv")
    row |= {"modules": (f"{kind}{dims}d",), "weighted": True}
    return Operator(f"{name}{dims}d", arguments, **row)


def _function(name: str, value: Callable, cost: Cost, *arguments: str, **row: Any) -> Operator:
    """Any function of samples that is neither linear nor a rectifier."""
    row = {"instead": lowering.CONVERT} | row
    return Operator(name, arguments, role="nonlinear", value=value, cost=cost, **row)


def _move(name: str, *arguments: str, role: Role | None = "linear", **row: Any) -> Operator:
    return Operator(name, arguments, role=role, joint=role, moves=True, **row)


def _rectifier(name: str, module: str, *arguments: str) -> Operator:
    kind: dict[str, Any] = {"modules": (module,), "instead": lowering.NEURONS}
    return Operator(name, arguments, role="rectifier", **kind)


POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
MAXIMA = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
NORM = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
RESIZE = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
ATTENTION = ("attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
SUM: dict[str, Any] = {"tensors": 2, "joint": "linear"}
PRODUCT: dict[str, Any] = {"tensors": 2, "joint": "product"}

ROWS = (
    # Maps with weights; a graph's samples have three axes at most.
    _linear(
        "linear",
        lowering.linear,
        *("weight", "bias"),
        modules=("Linear",),
        weighted=True,
        nir="Affine",
    ),
    *(
        _convolution(dims, False, role="linear", lower=lowering.conv, nir=f"Conv{dims}d")
        for dims in (1, 2)
    ),
    *(_convolution(n, True, role="linear", lower=lowering.conv_transpose) for n in (1, 2)),
    *(_convolution(3, transposed, instead=lowering.AXES) for transposed in (False, True)),
    Operator(
        "embedding",
        ("weight", "padding_idx", "max_norm"),
        modules=("Embedding",),
        lower=lowering.embedding,
        nir="Linear",
    ),
    # Linear without weights.
    _linear(
        "batch_norm",
        lowering.batch_norm,
        *NORM,
        modules=("BatchNorm1d", "BatchNorm2d"),
        when=lambda running_mean=None, **_: running_mean is not None,
        nir="Scale",
    ),
    *(
        _linear(
            f"{kind}avg_pool{dims}d",
            partial(lower, dims),
            *arguments,
            modules=(f"{kind.title().strip('_')}AvgPool{dims}d",),
            nir="AvgPool2d" if dims == 2 else "",
        )
        for kind, lower, arguments in (
            ("", lowering.avg_pool, POOL),
            ("adaptive_", lowering.adaptive_avg_pool, ("output_size",)),
        )
        for dims in (1, 2)
    ),
    *(
        _linear(name, partial(lowering.reduce, name == "mean"), "dim", "keepdim", when=_of_samples)
        for name in ("mean", "sum")
    ),
    _linear("interpolate", lowering.interpolate, *RESIZE, modules=("Upsample",), when=_resamples),
    _linear("pad", lowering.pad, "pad", "mode", "value", when=_zeros),
    _linear(
        "constant_pad",
        lowering.constant_pad,
        *("padding", "value"),
        modules=("ConstantPad1d", "ConstantPad2d"),
        when=_zeros,
    ),
    *(
        _linear(
            f"dropout{dims}",
            lowering.nothing,
            *("p", "training", "inplace"),
            modules=(f"Dropout{dims}",),
            when=lambda training=False, **_: not training,
        )
        for dims in ("", "1d", "2d")
    ),
    _linear("add", lowering.add, "alpha", **SUM),
    _linear("sub", lowering.sub, "alpha", aliases=("subtract",), **SUM),
    _linear("neg", lowering.neg, aliases=("negative",), nir="Scale"),
    _linear("cat", lowering.cat, "dim", aliases=("concat", "concatenate"), joint="linear"),
    # Linear beside a constant, products of two values.
    _linear(
        "mul",
        lowering.mul,
        aliases=("multiply",),
        value=np.multiply,
        cost=each(1, 0),
        nir="Scale",
        **PRODUCT,
    ),
    _linear(
        "div",
        lowering.div,
        tensors=2,
        aliases=("truediv", "divide", "true_divide"),
        nir="Scale",
    ),
    _linear(
        "matmul",
        lowering.matmul,
        value=np.matmul,
        cost=values.matmul_cost,
        nir="Linear",
        **PRODUCT,
    ),
    Operator("bmm", value=np.matmul, cost=values.matmul_cost, **PRODUCT),
    Operator(
        "scaled_dot_product_attention",
        ATTENTION,
        when=_attends,
        value=values.attention,
        cost=values.attention_cost,
        tensors=3,
        joint="product",
    ),
    # Neurons go in the place of these.
    _rectifier("relu", "ReLU", "inplace"),
    _rectifier("leaky_relu", "LeakyReLU", "negative_slope", "inplace"),
    _rectifier("relu6", "ReLU6", "inplace"),
    _rectifier("clipped_relu", "ClippedReLU", "max_val"),
    _rectifier("prelu", "PReLU", "weight"),
    _rectifier("qcfs", "QCFS"),
    # Functions, which run on rates.
    *(
        _function(
            f"max_pool{dims}d",
            partial(values.max_pool, dims),
            values.window_cost,
            *MAXIMA,
            modules=(f"MaxPool{dims}d",),
            when=lambda return_indices=False, **_: not return_indices,
            instead=lowering.POOLING,
        )
        for dims in (1, 2)
    ),
    *(
        _function(name, value, each(*cost), *arguments, modules=(module,))
        for name, module, value, cost, *arguments in (
            ("softmax", "Softmax", values.softmax, (CURVE + 1, CURVE + 3), "dim"),
            (
                *("layer_norm", "LayerNorm", values.layer_norm, (3, 4)),
                *("normalized_shape", "weight", "bias", "eps"),
            ),
            (
                *("group_norm", "GroupNorm", values.group_norm, (3, 4)),
                *("num_groups", "weight", "bias", "eps"),
            ),
            ("hardtanh", "Hardtanh", values.hardtanh, (0, 2), "min_val", "max_val", "inplace"),
            ("gelu", "GELU", values.gelu, (CURVE + 3, CURVE + 1), "approximate"),
            ("sigmoid", "Sigmoid", values.sigmoid, (CURVE + 1, CURVE + 1)),
            ("tanh", "Tanh", np.tanh, (CURVE, CURVE)),
            ("silu", "SiLU", values.silu, (CURVE + 2, CURVE + 1), "inplace"),
            ("hardsigmoid", "Hardsigmoid", values.hardsigmoid, (1, 3), "inplace"),
            ("hardswish", "Hardswish", values.hardswish, (2, 3), "inplace"),
            ("elu", "ELU", values.elu, (CURVE + 1, CURVE + 2), "alpha", "inplace"),
            (
                *("softplus", "Softplus", values.softplus, (2 * CURVE + 2, 2 * CURVE + 2)),
                *("beta", "threshold"),
            ),
        )
    ),
    _function(
        "instance_norm",
        values.instance_norm,
        each(3, 4),
        *("running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"),
        modules=("InstanceNorm1d", "InstanceNorm2d"),
        when=lambda running_mean=None, **_: running_mean is None,
    ),
    _function("clamp", values.clamp, each(0, 2), "min", "max", aliases=("clip",)),
    # Recurrence by gates, whose states are not spikes.
    Operator("lstm", modules=("LSTM", "GRU", "RNN"), instead=lowering.RECURRENT),
    # What moves values.
    _move("flatten", "start_dim", "end_dim", modules=("Flatten",), nir="Flatten"),
    _move("unflatten", "dim", "unflattened_size", modules=("Unflatten",)),
    _move("identity", modules=("Identity",)),
    _move("pixel_shuffle", "upscale_factor", modules=("PixelShuffle",)),
    _move("pixel_unshuffle", "downscale_factor", modules=("PixelUnshuffle",)),
    *map(_move, ("view", "reshape", "ravel", "squeeze", "unsqueeze", "contiguous", "permute")),
    *map(_move, ("transpose", "swapaxes", "movedim", "clone", "detach", "expand", "repeat")),
    *map(_move, ("tile", "repeat_interleave", "narrow", "select", "roll", "flip")),
    *map(_move, ("channel_shuffle", "getitem", "getattr", "size", "dim")),
    # Several values at once, which a conversion does not follow.
    *(_move(name, role=None) for name in ("chunk", "split", "unbind")),
    # Training alone.
    Operator("noise", modules=("Noise",), instead="it belongs to training; leave it out"),
)
OPERATORS: dict[str, Operator] = {row.name: row for row in ROWS}


def named(name: str) -> Operator | None:
    """The row of a function, method or operator by its name or alias; None: there is none."""
    if name in OPERATORS:
        return OPERATORS[name]
    return next((row for row in OPERATORS.values() if name in row.aliases), None)


def called_by(kind: str) -> Operator | None:
    """The row of a class of `torch.nn` by its name; None: there is none."""
    return next((row for row in OPERATORS.values() if kind in row.modules), None)


def functions() -> Mapping[str, Operator]:
    """The rows that a graph holds as a `Difference`, by name."""
    return {name: row for name, row in OPERATORS.items() if row.value is not None}

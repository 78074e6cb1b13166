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


def _convolution(name: str, dims: int, **row: Any) -> Operator:
    transposed = "transpose" in name
    extra = ("output_padding", "groups", "dilation") if transposed else ("dilation", "groups")
    arguments = ("weight", "bias", "stride", "padding", *extra, "padding_mode")
    module = f"Conv{'Transpose' * transposed}{dims}d"
    return Operator(name, arguments, modules=(module,), weighted=True, **row)


def _function(name: str, *arguments: str, **row: Any) -> Operator:
    """Any function of samples that is neither linear nor a rectifier."""
    return Operator(name, arguments, role="nonlinear", instead=lowering.CONVERT, **row)


def _move(name: str, *arguments: str, role: Role | None = "linear", **row: Any) -> Operator:
    return Operator(name, arguments, role=role, joint=role, moves=True, **row)


POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
MAXIMA = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
NORM = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
RESIZE = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")
ATTENTION = ("attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")

ROWS = (
    # Maps with weights.
    Operator(
        "linear",
        ("weight", "bias"),
        modules=("Linear",),
        role="linear",
        weighted=True,
        lower=lowering.linear,
        nir="Affine",
    ),
    _convolution("conv1d", 1, role="linear", lower=lowering.conv, nir="Conv1d"),
    _convolution("conv2d", 2, role="linear", lower=lowering.conv, nir="Conv2d"),
    _convolution("conv_transpose1d", 1, role="linear", lower=lowering.conv_transpose),
    _convolution("conv_transpose2d", 2, role="linear", lower=lowering.conv_transpose),
    # A graph's samples have three axes at most.
    _convolution("conv3d", 3, instead=lowering.AXES),
    _convolution("conv_transpose3d", 3, instead=lowering.AXES),
    Operator(
        "embedding",
        ("weight", "padding_idx", "max_norm"),
        modules=("Embedding",),
        lower=lowering.embedding,
        nir="Linear",
    ),
    # Linear without weights.
    Operator(
        "batch_norm",
        NORM,
        modules=("BatchNorm1d", "BatchNorm2d"),
        role="linear",
        when=lambda running_mean=None, **_: running_mean is not None,
        lower=lowering.batch_norm,
        nir="Scale",
    ),
    *(
        Operator(
            f"avg_pool{dims}d",
            POOL,
            modules=(f"AvgPool{dims}d",),
            role="linear",
            lower=partial(lowering.avg_pool, dims),
            nir="AvgPool2d" if dims == 2 else "",
        )
        for dims in (1, 2)
    ),
    *(
        Operator(
            f"adaptive_avg_pool{dims}d",
            ("output_size",),
            modules=(f"AdaptiveAvgPool{dims}d",),
            role="linear",
            lower=partial(lowering.adaptive_avg_pool, dims),
            nir="AvgPool2d" if dims == 2 else "",
        )
        for dims in (1, 2)
    ),
    *(
        Operator(
            name,
            ("dim", "keepdim"),
            role="linear",
            when=_of_samples,
            lower=partial(lowering.reduce, name == "mean"),
        )
        for name in ("mean", "sum")
    ),
    Operator(
        "interpolate",
        RESIZE,
        modules=("Upsample",),
        role="linear",
        when=_resamples,
        lower=lowering.interpolate,
    ),
    Operator("pad", ("pad", "mode", "value"), role="linear", when=_zeros, lower=lowering.pad),
    Operator(
        "constant_pad",
        ("padding", "value"),
        modules=("ConstantPad1d", "ConstantPad2d"),
        role="linear",
        when=_zeros,
        lower=lowering.constant_pad,
    ),
    *(
        Operator(
            f"dropout{dims}",
            ("p", "training", "inplace"),
            modules=(f"Dropout{dims}",),
            role="linear",
            when=lambda training=False, **_: not training,
            lower=lowering.nothing,
        )
        for dims in ("", "1d", "2d")
    ),
    *(
        Operator(
            name,
            ("alpha",),
            tensors=2,
            aliases=aliases,
            role="linear",
            joint="linear",
            lower=lower,
        )
        for name, aliases, lower in (
            ("add", ("iadd",), lowering.add),
            ("sub", ("isub", "subtract"), lowering.sub),
        )
    ),
    Operator("neg", aliases=("negative",), role="linear", lower=lowering.neg, nir="Scale"),
    Operator(
        "cat",
        ("dim",),
        aliases=("concat", "concatenate"),
        role="linear",
        joint="linear",
        lower=lowering.cat,
    ),
    # Linear beside a constant, products of two values.
    Operator(
        "mul",
        tensors=2,
        aliases=("imul", "multiply"),
        role="linear",
        joint="product",
        lower=lowering.mul,
        value=np.multiply,
        cost=each(1, 0),
        nir="Scale",
    ),
    Operator(
        "div",
        tensors=2,
        aliases=("truediv", "itruediv", "divide", "true_divide"),
        role="linear",
        lower=lowering.div,
        nir="Scale",
    ),
    Operator(
        "matmul",
        tensors=2,
        role="linear",
        joint="product",
        lower=lowering.matmul,
        value=np.matmul,
        cost=values.matmul_cost,
        nir="Linear",
    ),
    Operator("bmm", tensors=2, joint="product", value=np.matmul, cost=values.matmul_cost),
    Operator(
        "scaled_dot_product_attention",
        ATTENTION,
        tensors=3,
        joint="product",
        when=lambda attn_mask=None, dropout_p=0.0, enable_gqa=False, **_: (
            attn_mask is None and not dropout_p and not enable_gqa
        ),
        value=values.attention,
        cost=values.attention_cost,
    ),
    # Neurons go in the place of these.
    Operator("relu", ("inplace",), modules=("ReLU",), role="rectifier", instead=lowering.NEURONS),
    Operator(
        "leaky_relu",
        ("negative_slope", "inplace"),
        modules=("LeakyReLU",),
        role="rectifier",
        instead=lowering.NEURONS,
    ),
    Operator("relu6", ("inplace",), modules=("ReLU6",), role="rectifier", instead=lowering.NEURONS),
    Operator("prelu", ("weight",), modules=("PReLU",), role="rectifier", instead=lowering.NEURONS),
    Operator("qcfs", modules=("QCFS",), role="rectifier", instead=lowering.NEURONS),
    # Functions, which run on rates.
    *(
        Operator(
            f"max_pool{dims}d",
            MAXIMA,
            modules=(f"MaxPool{dims}d",),
            role="nonlinear",
            when=lambda return_indices=False, **_: not return_indices,
            value=partial(values.max_pool, dims),
            cost=values.window_cost,
            instead=lowering.POOLING,
        )
        for dims in (1, 2)
    ),
    _function(
        "softmax",
        "dim",
        modules=("Softmax",),
        value=values.softmax,
        cost=each(CURVE + 1, CURVE + 3),
    ),
    _function(
        "layer_norm",
        *("normalized_shape", "weight", "bias", "eps"),
        modules=("LayerNorm",),
        value=values.layer_norm,
        cost=each(3, 4),
    ),
    _function(
        "gelu",
        "approximate",
        modules=("GELU",),
        value=values.gelu,
        cost=each(CURVE + 3, CURVE + 1),
    ),
    _function(
        "sigmoid", modules=("Sigmoid",), value=values.sigmoid, cost=each(CURVE + 1, CURVE + 1)
    ),
    _function("tanh", modules=("Tanh",), value=np.tanh, cost=each(CURVE, CURVE)),
    _function(
        "silu", "inplace", modules=("SiLU",), value=values.silu, cost=each(CURVE + 2, CURVE + 1)
    ),
    _function(
        "hardsigmoid",
        "inplace",
        modules=("Hardsigmoid",),
        value=values.hardsigmoid,
        cost=each(1, 3),
    ),
    _function(
        "hardswish", "inplace", modules=("Hardswish",), value=values.hardswish, cost=each(2, 3)
    ),
    _function(
        "elu",
        *("alpha", "inplace"),
        modules=("ELU",),
        value=values.elu,
        cost=each(CURVE + 1, CURVE + 2),
    ),
    _function(
        "softplus",
        *("beta", "threshold"),
        modules=("Softplus",),
        value=values.softplus,
        cost=each(2 * CURVE + 2, 2 * CURVE + 2),
    ),
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

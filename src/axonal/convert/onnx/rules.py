"""The operators of ONNX that are read: a row each, with what it is in torch."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ...core.errors import InputError
from ...core.extras import require
from .builder import PROBE, Builder, Value, meta

REMEDY = "export it from torch with torch.onnx.export(model, (x,), path, opset_version=20)"


@dataclass(frozen=True, eq=False)
class Call:
    """A node of an ONNX graph, and what it reads.

    Attributes:
        build: the graph that its result goes to.
        kind: the operator.
        name: of the node.
        attributes: by name.
        inputs: None for one that is left out.
        outputs: how many values it returns.
        batch: the samples that the file is for; None for any number.
    """

    build: Builder
    kind: str
    name: str
    attributes: Mapping[str, Any]
    inputs: Sequence[Any]
    outputs: int
    batch: int | None

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def number(self, name: str, place: int, default: Any = None) -> Any:
        """An attribute that later versions of ONNX made an input: a number or a list of these."""
        value = self.inputs[place] if place < len(self.inputs) else None
        if name in self.attributes or value is None:
            return self.get(name, default)
        if isinstance(value, fx.Node):
            raise InputError(f"its {name} depends on the input; {REMEDY}")
        return value.tolist()

    def constant(self, place: int) -> Tensor | None:
        """An input that must be constant, if there is one."""
        value = self.inputs[place] if place < len(self.inputs) else None
        if isinstance(value, fx.Node):
            raise InputError("its weights depend on the input")
        return value

    def shape(self, place: int = 0) -> torch.Size:
        """The shape of an input, of `PROBE` samples."""
        return meta(self.inputs[place]).shape

    def run(self, function: Callable, *args: Any, **options: Any) -> Value:
        """What a function of torch returns, as a node if any argument is one."""
        return self.build.run(function, args, options)

    def layer(self, layer: nn.Module, x: Value) -> Value:
        """What a layer of torch returns."""
        return self.build.layer(self.name, layer, x)


def _function(function: Callable, **names: tuple[str, Any]) -> Callable[[Call], Value]:
    """A rule: a function of torch, whose options are attributes of ONNX with their defaults."""

    def rule(call: Call) -> Value:
        options = {key: call.get(*attribute) for key, attribute in names.items()}
        return call.run(function, *call.inputs, **options)

    return rule


def _same(call: Call) -> Any:
    return call.inputs[0]


def _div(call: Call) -> Value:
    whole = [torch.is_tensor(x) and not x.is_floating_point() for x in call.inputs]
    return call.run(torch.div, *call.inputs, **({"rounding_mode": "trunc"} if all(whole) else {}))


def _matmul(call: Call) -> Value:
    x, weight = call.inputs
    if isinstance(x, fx.Node) and torch.is_tensor(weight) and weight.dim() == 2:
        return call.layer(_linear(weight.T, None), x)
    return call.run(torch.matmul, x, weight)


def _gemm(call: Call) -> Value:
    x, weight, bias = call.inputs[0], call.constant(1), call.constant(2)
    if weight is None or call.get("transA", 0):
        raise InputError("it transposes samples")
    weight = (weight if call.get("transB", 0) else weight.T) * call.get("alpha", 1.0)
    if bias is not None:
        bias = (bias * call.get("beta", 1.0)).expand(1, len(weight)).flatten()
    return call.layer(_linear(weight, bias), x)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    return _loaded(partial(nn.Linear, weight.shape[1], len(weight), bias is not None), weight, bias)


def _loaded(layer: Callable[..., nn.Module], weight: Tensor | None, bias: Tensor | None, **more):
    """A layer of torch with these weights, as copies of their own."""
    made = layer(device="meta")
    state = {"weight": weight, "bias": bias} | more
    state = {k: v.clone().contiguous() for k, v in state.items() if v is not None}
    made.load_state_dict(state, assign=True, strict=False)
    return made


def _window(call: Call, kernel: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, and the padding before and after each axis."""
    dims = len(kernel)
    stride, dilation = (call.get(name, [1] * dims) for name in ("strides", "dilations"))
    auto, pads = call.get("auto_pad", "NOTSET"), call.get("pads", [0] * 2 * dims)
    if auto.startswith("SAME"):
        spans = zip(call.shape()[2:], kernel, stride, dilation, strict=True)
        total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in spans]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    return stride, dilation, pads[:dims], pads[dims:]


def _padded(call: Call, before: list[int], after: list[int], value: float = 0.0) -> Any:
    """The input, with the padding that torch's layers don't do themselves; and what they do."""
    if before == after:
        return call.inputs[0], tuple(before)
    pairs = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return call.run(F.pad, call.inputs[0], pairs, value=value), (0,) * len(before)


def _conv(call: Call, transposed: bool = False) -> Value:
    weight, bias = call.constant(1), call.constant(2)
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d) if transposed else (nn.Conv1d, nn.Conv2d)
    if weight is None or not 3 <= weight.dim() <= 4:
        raise InputError("convolutions of one and two dimensions are read")
    kernel, groups = tuple(weight.shape[2:]), call.get("group", 1)
    stride, dilation, before, after = _window(call, kernel)
    options: dict[str, Any] = {"stride": tuple(stride), "dilation": tuple(dilation)}
    if transposed:
        if (
            before != after
            or call.get("output_shape")
            or call.get("auto_pad", "NOTSET") != "NOTSET"
        ):
            raise InputError("a transposed convolution is read with the same padding on both sides")
        options["output_padding"] = tuple(call.get("output_padding", [0] * len(kernel)))
        x, padding = call.inputs[0], tuple(before)
        channels = len(weight), weight.shape[1] * groups
    else:
        x, padding = _padded(call, before, after)
        channels = weight.shape[1] * groups, len(weight)
    options |= {"padding": padding, "groups": groups, "bias": bias is not None}
    layer = partial(kinds[weight.dim() - 3], *channels, kernel, **options)
    return call.layer(_loaded(layer, weight, bias), x)


def _pool(call: Call, kinds: Sequence[Callable], value: float = 0.0) -> Value:
    kernel = call.get("kernel_shape")
    stride, dilation, before, after = _window(call, kernel)
    average = value == 0.0
    if not 1 <= len(kernel) <= 2 or (average and any(d != 1 for d in dilation)):
        raise InputError("pooling of one and two dimensions is read")
    counted = bool(call.get("count_include_pad", 0))
    if average and before != after and not counted:
        raise InputError("it averages over unlike padding on both sides, and leaves that out")
    x, padding = _padded(call, before, after, value)
    options: dict[str, Any] = {"count_include_pad": counted} if average else {"dilation": dilation}
    options |= {"stride": stride, "padding": padding, "ceil_mode": bool(call.get("ceil_mode", 0))}
    return call.run(kinds[len(kernel) - 1], x, tuple(kernel), **options)


def _hard_sigmoid(call: Call) -> Value:
    if abs(call.get("alpha", 0.2) - 1 / 6) > 1e-4 or call.get("beta", 0.5) != 0.5:
        raise InputError("its slope is not that of torch, 1/6")
    return call.run(F.hardsigmoid, call.inputs[0])


def _global_average(call: Call) -> Value:
    kinds = F.adaptive_avg_pool1d, F.adaptive_avg_pool2d
    return call.run(kinds[len(call.shape()) - 3], call.inputs[0], 1)


def _batch_norm(call: Call) -> Value:
    weight, bias, mean, variance = (call.constant(i) for i in range(1, 5))
    if weight is None or mean is None or variance is None or call.get("training_mode", 0):
        raise InputError("it is in training mode")
    kind = nn.BatchNorm2d if len(call.shape()) == 4 else nn.BatchNorm1d
    statistics = {"running_mean": mean, "running_var": variance}
    layer = partial(kind, len(weight), call.get("epsilon", 1e-5))
    counted = {"num_batches_tracked": torch.tensor(1)}
    return call.layer(_loaded(layer, weight, bias, **statistics, **counted), call.inputs[0])


def _layer_norm(call: Call) -> Value:
    shape = call.shape()[call.get("axis", -1) % len(call.shape()) :]
    bias = call.constant(2)
    layer = partial(nn.LayerNorm, shape, call.get("epsilon", 1e-5), bias=bias is not None)
    return call.layer(_loaded(layer, call.constant(1), bias), call.inputs[0])


def _group_norm(call: Call) -> Value:
    layer = partial(
        nn.GroupNorm, call.get("num_groups"), call.shape()[1], call.get("epsilon", 1e-5)
    )
    return call.layer(_loaded(layer, call.constant(1), call.constant(2)), call.inputs[0])


def _instance_norm(call: Call) -> Value:
    kind = nn.InstanceNorm2d if len(call.shape()) == 4 else nn.InstanceNorm1d
    layer = partial(kind, call.shape()[1], call.get("epsilon", 1e-5), affine=True)
    return call.layer(_loaded(layer, call.constant(1), call.constant(2)), call.inputs[0])


def _prelu(call: Call) -> Value:
    slope = call.constant(1)
    if slope is None:
        raise InputError("it has no slope")
    layer = partial(nn.PReLU, slope.numel())
    return call.layer(_loaded(layer, slope.flatten(), None), call.inputs[0])


def _clip(call: Call) -> Value:
    low, high = call.number("min", 1), call.number("max", 2)
    return call.run(torch.clamp, call.inputs[0], min=low, max=high)


def _reduce(function: Callable, call: Call) -> Value:
    axes, keep = call.number("axes", 1), bool(call.get("keepdims", 1))
    if not axes:
        if call.get("noop_with_empty_axes", 0):
            return _same(call)
        raise InputError("it reduces all axes, and samples with them")
    return call.run(function, call.inputs[0], dim=axes, keepdim=keep)


def _reshape(call: Call) -> Value:
    x, shape = call.inputs[0], call.number("shape", 1)
    if not call.get("allowzero", 0):
        shape = [call.shape()[i] if n == 0 else n for i, n in enumerate(shape)]
    if torch.is_tensor(x):
        return call.run(torch.reshape, x, shape)
    if shape and shape[0] == call.batch:
        shape = [PROBE, *shape[1:]]  # a file for so many samples is read for any number
    result = torch.reshape(meta(x), shape).shape
    return call.run(torch.reshape, x, (-1, *result[1:]))


def _flatten(call: Call) -> Value:
    if call.get("axis", 1) % len(call.shape()) != 1:
        raise InputError("it flattens samples")
    return call.run(torch.flatten, call.inputs[0], 1)


def _squeeze(call: Call) -> Value:
    shape = call.shape()
    axes = call.number("axes", 1, [i for i, n in enumerate(shape) if n == 1])
    places = {a % max(len(shape), 1) for a in axes}
    shape = [n for i, n in enumerate(shape) if i not in places]
    if torch.is_tensor(call.inputs[0]):
        return call.run(torch.reshape, call.inputs[0], shape)
    return call.run(torch.reshape, call.inputs[0], (-1, *shape[1:]))


def _unsqueeze(call: Call) -> Value:
    x, axes = call.inputs[0], call.number("axes", 1)
    for axis in sorted(a % (len(call.shape()) + len(axes)) for a in axes):
        x = call.run(torch.unsqueeze, x, axis)
    return x


def _transpose(call: Call) -> Value:
    order = call.get("perm", [*reversed(range(len(call.shape())))])
    return call.run(torch.permute, call.inputs[0], tuple(order))


def _concat(call: Call) -> Value:
    parts, axis = [*call.inputs], call.get("axis")
    nodes = [x for x in parts if isinstance(x, fx.Node)]
    for i, part in enumerate(parts if nodes else ()):
        if torch.is_tensor(part) and len(part) == 1:  # such as a class token
            parts[i] = call.build.repeated(part, nodes[0])
    return call.run(torch.cat, parts, axis)


def _split(call: Call) -> Any:
    x, axis = call.inputs[0], call.get("axis", 0)
    length, count = call.shape()[axis], call.get("num_outputs", call.outputs)
    sizes = call.number("split", 1)
    if not sizes:
        sizes = [min(-(-length // count), length - i * -(-length // count)) for i in range(count)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(
        call.run(torch.narrow, x, axis, start, n) for start, n in zip(starts, sizes, strict=True)
    )


def _slice(call: Call) -> Value:
    starts, ends = call.number("starts", 1), call.number("ends", 2)
    shape = call.shape()
    axes = call.number("axes", 3, [*range(len(starts))])
    steps = call.number("steps", 4, [1] * len(starts))
    parts = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise InputError("it runs backwards")
        parts[axis] = slice(*slice(start, end, step).indices(shape[axis]))
    return call.run(operator.getitem, call.inputs[0], tuple(parts))


def _gather(call: Call) -> Value:
    x, place, axis = call.inputs[0], call.constant(1), call.get("axis", 0)
    if place is None or place.dim() > 1:
        raise InputError("it picks by a table")
    if not place.dim():
        return call.run(torch.select, x, axis, int(place))
    return call.run(torch.index_select, x, axis, place % call.shape()[axis])


def _pad(call: Call) -> Value:
    pads, value = call.number("pads", 1), call.number("constant_value", 2, call.get("value", 0.0))
    axes = call.number("axes", 3, [*range(len(call.shape()))])
    sides = {a % len(call.shape()): (pads[i], pads[i + len(axes)]) for i, a in enumerate(axes)}
    pairs = [n for a in reversed(range(len(call.shape()))) for n in sides.get(a, (0, 0))]
    while pairs[-2:] == [0, 0] and len(pairs) > 2:
        pairs = pairs[:-2]
    return call.run(F.pad, call.inputs[0], pairs, call.get("mode", "constant"), value or 0.0)


def _resize(call: Call) -> Value:
    place = 1 if call.kind == "Upsample" else 2
    sizes, scales = call.number("sizes", 3), call.number("scales", place)
    shape = call.shape()
    whole = sizes or [int(n * s) for n, s in zip(shape, scales, strict=True)]
    aligned = call.get("coordinate_transformation_mode", "half_pixel") == "align_corners"
    mode = call.get("mode", "nearest")
    if mode == "linear":
        mode = {3: "linear", 4: "bilinear"}[len(shape)]
    options = {} if mode == "nearest" else {"align_corners": aligned}
    return call.run(F.interpolate, call.inputs[0], size=tuple(whole[2:]), mode=mode, **options)


def _depth_to_space(call: Call) -> Value:
    side, (_, channels, height, width) = call.get("blocksize"), call.shape()
    if call.get("mode", "DCR") == "CRD":
        return call.run(F.pixel_shuffle, call.inputs[0], side)
    x = call.run(
        torch.reshape, call.inputs[0], (-1, side, side, channels // side**2, height, width)
    )
    x = call.run(torch.permute, x, (0, 3, 4, 1, 5, 2))
    return call.run(torch.reshape, x, (-1, channels // side**2, height * side, width * side))


def _constant(call: Call) -> Tensor:
    value = next(iter(call.attributes.values()))
    return value if torch.is_tensor(value) else torch.tensor(value)


def _filled(call: Call) -> Value:
    value = call.get("value", torch.zeros(1))
    return call.run(torch.full, call.number("shape", 0), value.item(), dtype=value.dtype)


def _cast(call: Call) -> Value:
    name = require("onnx", "onnx").TensorProto.DataType.Name(call.get("to"))
    whole = name in ("INT64", "INT32", "BOOL")
    if isinstance(call.inputs[0], fx.Node):
        if whole or name not in ("FLOAT", "FLOAT16", "DOUBLE"):
            raise InputError(f"it makes {name} of what depends on the input")
        return call.inputs[0]
    return call.run(Tensor.to, call.inputs[0], torch.int64 if whole else torch.float32)


def _expand(call: Call) -> Value:
    shape = torch.broadcast_shapes(call.shape(), call.number("shape", 1))
    if isinstance(call.inputs[0], fx.Node) and shape == call.shape():
        return call.inputs[0]
    return call.run(torch.broadcast_to, call.inputs[0], tuple(shape))


RULES: dict[str, Callable[[Call], Any]] = {
    "Conv": _conv,
    "ConvTranspose": partial(_conv, transposed=True),
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "MaxPool": partial(_pool, kinds=(F.max_pool1d, F.max_pool2d), value=-math.inf),
    "AveragePool": partial(_pool, kinds=(F.avg_pool1d, F.avg_pool2d)),
    "GlobalAveragePool": _global_average,
    "PRelu": _prelu,
    "Clip": _clip,
    "ReduceMean": partial(_reduce, torch.mean),
    "ReduceSum": partial(_reduce, torch.sum),
    # What moves values.
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    # What is computed with shapes and constants.
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Shape": lambda call: torch.tensor(call.shape()),
    "Cast": _cast,
    "Div": _div,
    "Mod": _function(torch.remainder),
    **dict.fromkeys(("Identity", "Dropout"), _same),
    # Functions of single values.
    **{
        name: _function(function)
        for name, function in {
            "Add": torch.add,
            "Sub": torch.sub,
            "Mul": torch.mul,
            "Neg": torch.neg,
            "Sqrt": torch.sqrt,
            "Pow": torch.pow,
            "Relu": F.relu,
            "Sigmoid": torch.sigmoid,
            "Tanh": torch.tanh,
            "Softplus": F.softplus,
            "HardSwish": F.hardswish,
        }.items()
    },
    "LeakyRelu": _function(F.leaky_relu, negative_slope=("alpha", 0.01)),
    "Elu": _function(F.elu, alpha=("alpha", 1.0)),
    "Gelu": _function(F.gelu, approximate=("approximate", "none")),
    "Softmax": _function(torch.softmax, dim=("axis", -1)),
    "HardSigmoid": _hard_sigmoid,
}

"""ONNX files as torch modules: read by the onnx package, never executed, proved on noise.

What operators return is worked out on torch's meta device first, which takes no memory. A prime
number of samples stands for the batch, so that it is known wherever a file computes with shapes.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...core import files
from ...core.errors import FileError, InputError
from ...core.extras import require
from .builder import LARGEST, Builder, Value
from .rules import REMEDY, RULES, Call

NEAR = {"FLOAT": 1e-3, "FLOAT16": 0.05}  # relative to the largest output, by the input's type


def from_onnx(path: str | Path) -> nn.Module:
    """The network of an ONNX file, as layers and functions of torch in float32.

    Samples are the first axis of its one input; other axes have fixed sizes. Before it is
    returned, it is run beside ONNX's reference evaluator on a batch of noise. Several outputs are
    a dictionary by their names.

    Raises:
        InputError: operators without a rule (all are named), several inputs, sizes that are not
            fixed, or other answers than the reference's. FileError: the file is missing, damaged,
            or asks for too much. MissingExtra: the package onnx is not installed.
    """
    onnx = require("onnx", "onnx")
    path = files.readable(path)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        return _module(model)
    except (InputError, FileError) as error:
        raise type(error)(f"{path}: {error}") from error
    except Exception as error:  # protobuf, onnx and torch raise many kinds for damaged files
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise FileError(f"can't read {path}: {reason[0]}; export it again") from error


def _module(model: Any) -> nn.Module:
    onnx, graph = require("onnx", "onnx"), model.graph
    weights = {t.name: tensor_of(onnx.numpy_helper.to_array(t)) for t in graph.initializer}
    _known(model)
    name, kind, (batch, *shape) = _input([x for x in graph.input if x.name not in weights])
    build = Builder(shape)
    values: dict[str, Value | None] = {**weights, "": None, name: build.input}  # "" is left out
    for node in graph.node:
        attributes = {a.name: _attribute(a) for a in node.attribute}
        inputs = [values.get(i) for i in node.input]
        word = _word(node.name or node.output[0])
        call = Call(build, node.op_type, word, attributes, inputs, len(node.output), batch)
        result = _result(call)
        results = result if isinstance(result, tuple) else (result,)
        values |= dict(zip(node.output, results, strict=False))
    outputs = {output.name: values.get(output.name) for output in graph.output}
    if not outputs:
        raise InputError("it returns nothing")
    if fixed := [name for name, value in outputs.items() if not isinstance(value, fx.Node)]:
        raise InputError(f"its output {fixed[0]} does not depend on the input")
    output = outputs if len(outputs) > 1 else next(iter(outputs.values()))
    module = build.module(output, _word(graph.name))
    _prove(model, module, name, kind, (batch or 2, *shape))
    return module


def _known(model: Any) -> None:
    """See that all operators have rules."""
    kinds = {f"{n.domain}.{n.op_type}".removeprefix("ai.onnx").strip(".") for n in model.graph.node}
    if len(model.functions):
        raise InputError(f"it has functions of its own; {REMEDY}")
    if unknown := sorted(kinds - {*RULES}):
        hint = "; export with opset_version=20, where GELU is one" if "Erf" in unknown else ""
        raise InputError(f"operators without a rule here: {', '.join(unknown)}{hint}")


def _input(inputs: list[Any]) -> tuple[str, str, list[Any]]:
    """The name, type and sizes of the one input; None for a number of samples that is open."""
    onnx = require("onnx", "onnx")
    if len(inputs) != 1:
        names = ", ".join(x.name for x in inputs) or "none"
        raise InputError(f"networks of one input are read, and its inputs are {names}")
    (entry,) = inputs
    tensor = entry.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    if kind not in NEAR:
        raise InputError(f"its input {entry.name} is of {kind}; samples are read as floats")
    if len(sizes) < 2 or not all(n and n > 0 for n in sizes[1:]):
        raise InputError(
            f"its input {entry.name} is {sizes}; all sizes but the first, samples, must be fixed "
            "numbers: export it so"
        )
    if (sizes[0] or 1) > LARGEST:
        raise FileError(f"its input holds {sizes[0]:,} samples")
    return entry.name, kind, [sizes[0] or None, *sizes[1:]]


def _result(call: Call) -> Any:
    try:
        return RULES[call.kind](call)
    except FileError:
        raise
    except Exception as error:  # torch refuses what doesn't fit with many kinds
        raise InputError(f"{call.kind} {call.name} can't be read: {error}") from error


@torch.no_grad()
def _prove(model: Any, module: nn.Module, name: str, kind: str, shape: tuple[int, ...]) -> None:
    """Compare a module with ONNX's own evaluator, on noise."""
    reference = require("onnx.reference", "onnx")
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    try:
        fed = {name: noise.half().numpy() if kind == "FLOAT16" else noise.numpy()}
        expected = reference.ReferenceEvaluator(model).run(None, fed)
        returned = module(noise)
    except Exception as error:
        raise InputError(f"it can't be run on {list(shape)}: {error}") from error
    outputs = returned.values() if isinstance(returned, dict) else [returned]
    for output, ours, array in zip(model.graph.output, outputs, expected, strict=True):
        theirs = tensor_of(array)
        if not theirs.numel():
            raise InputError(f"{output.name} has no values")
        near = NEAR[kind] * max(float(theirs.abs().max()), 1e-12)
        if ours.shape != theirs.shape or not float((ours - theirs).abs().max()) <= near:
            raise InputError(
                f"{output.name} differs from what ONNX's evaluator returns for noise; {REMEDY}"
            )


def _attribute(attribute: Any) -> Any:
    onnx = require("onnx", "onnx")
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return tensor_of(onnx.numpy_helper.to_array(value))
    return value.decode() if isinstance(value, bytes) else value


def _word(name: str) -> str:
    word = re.sub(r"\W+", "_", name).strip("_") or "network"
    return word if word[0].isalpha() else f"n{word}"


def tensor_of(array: Any) -> Tensor:
    """An array as a tensor of its own, real numbers in float32."""
    tensor = torch.from_numpy(array.copy())
    return tensor.float() if tensor.is_floating_point() else tensor

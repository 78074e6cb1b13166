"""Modules recorded as graphs of torch.fx, and such graphs run node by node by a rule."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from ..core.errors import InputError
from ..graph.operators import Operator, called_by, functions, named

TORCH = Path(torch.__file__).parent
ORIGINS = ("torch", "_operator", "builtins")  # of functions that the table may know


class Recorder(fx.Tracer):
    """Record a module's forward pass; a call of a module that `leaf` knows stays one node.

    Args:
        leaf: whether a module is a node, beside those of `torch.nn`.
    """

    record_stack_traces = True  # so that errors can name the line of a call

    def __init__(self, leaf: Callable[[nn.Module], bool]):
        super().__init__()
        self.leaf = leaf

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m is not self.root and (
            self.leaf(m) or super().is_leaf_module(m, module_qualified_name)
        )


Rule = Callable[["Interpreter", fx.Node, nn.Module | None], Any]


class Interpreter(fx.Interpreter):
    """Run a graph, of tensors or of anything that stands for them.

    Args:
        root: the module whose parts the graph calls.
        rule: what a call or the output returns, `rule(run, node, module)` with the module that is
            called, if one is; `run.default(node)` is what torch makes of it.
        graph: None for that of `root`.
    """

    def __init__(self, root: nn.Module, rule: Rule, graph: fx.Graph | None = None):
        super().__init__(root, graph=graph)
        self.rule, self.extra_traceback = rule, False

    def run_node(self, n: fx.Node) -> Any:
        if n.op in ("placeholder", "get_attr"):
            return super().run_node(n)
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        return self.rule(self, n, module)

    def default(self, n: fx.Node, values: Mapping[fx.Node, Any] | None = None) -> Any:
        """What torch makes of a node, of other `values` of nodes that it reads, if there are."""
        replaced = {m: self.env[m] for m in values or ()}
        self.env.update(values or {})
        result = super().run_node(n)
        self.env.update(replaced)
        return result


def record(
    graph: fx.GraphModule, names: Iterable[str], *inputs: Tensor
) -> tuple[dict[str, tuple[Any, Any]], Any]:
    """Run a graph, and record what some of its nodes read first and return.

    Returns:
        (read, returned) by the node's name, and the output.
    """
    wanted, seen = {*names}, {}

    def rule(run: Interpreter, n: fx.Node, module: nn.Module | None) -> Any:
        result = run.default(n)
        if n.name in wanted:
            first = run.env[n.all_input_nodes[0]] if n.all_input_nodes else None
            seen[n.name] = first, result
        return result

    run = Interpreter(graph, rule)
    output = run.run(*inputs)
    return seen, output


def module_of(root: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that `node` calls, if it calls one."""
    return root.get_submodule(str(node.target)) if node.op == "call_module" else None


def operator_of(root: nn.Module, node: fx.Node) -> Operator | None:
    """The row of the operator table for what `node` calls; None: there is none."""
    if node.op == "call_module":
        return row_of(root.get_submodule(str(node.target)))
    if node.op == "call_method":
        return named(str(node.target))
    return function_row(node.target) if node.op == "call_function" else None


def function_row(function: Any) -> Operator | None:
    """The row of the operator table for a function of torch or of Python's operators."""
    origin = (getattr(function, "__module__", None) or "torch").split(".")[0]
    return named(getattr(function, "__name__", "")) if origin in ORIGINS else None


def row_of(module: nn.Module) -> Operator | None:
    """The row of the operator table for a module: of the class whose forward it has."""
    for kind in type(module).__mro__:
        ours = kind.__module__.startswith(("torch.nn.", "axonal.nn."))
        same = type(module).forward is getattr(kind, "forward", None)
        if ours and same and (row := called_by(kind.__name__)):
            return row
    return None


def arguments_of(root: nn.Module, node: fx.Node, row: Operator) -> dict[str, Any]:
    """What `node` is called with beside its first argument, by the names of the row."""
    if (module := module_of(root, node)) is not None:
        return attributes(module, row)
    return dict(zip(row.arguments, node.args[row.tensors :], strict=False)) | dict(node.kwargs)


def attributes(module: nn.Module, row: Operator) -> dict[str, Any]:
    """The arguments of a row as a module has them; it is taken as in evaluation."""
    names = [name for name in row.arguments if name != "training" and hasattr(module, name)]
    return {name: getattr(module, name) for name in names}


def arrays(values: Any) -> Any:
    """The same, with arrays in float64 in the place of tensors."""

    def change(value: Any) -> Any:
        return value.detach().cpu().double().numpy() if torch.is_tensor(value) else value

    return map_aggregate(values, change)


def function_of(function: Any) -> tuple[Operator, dict[str, Any]]:
    """The row and the options of a function, a partial one, or a module that calls one.

    Raises:
        InputError: it has no value in numpy, or options by place.
    """
    if isinstance(function, nn.Module):
        row = row_of(function)
        options = attributes(function, row) if row else {}
    else:
        if getattr(function, "args", ()):
            raise InputError("its function has options by place; give them by name")
        options, function = getattr(function, "keywords", {}), getattr(function, "func", function)
        row = function_row(function)
    if row is None or row.value is None:
        name = getattr(function, "__name__", type(function).__name__)
        raise InputError(f"there is no function {name}; a graph has {', '.join(functions())}")
    void = {key for key in options if options[key] is None or key.startswith("_")} | {"inplace"}
    return row, {key: value for key, value in options.items() if key not in void}


def describe(root: nn.Module, node: fx.Node) -> str:
    """What a node calls, for people."""
    if (module := module_of(root, node)) is not None:
        return f"{type(module).__name__} {node.target}"
    return getattr(node.target, "__name__", str(node.target))


def line(node: fx.Node) -> str:
    """Where the call stands in the user's code, if the recorder noted it."""
    lines = [line.strip() for line in (node.stack_trace or "").splitlines()]
    places = [x for x in lines if x.startswith("File ") and str(TORCH) not in x]
    return f" at {places[-1]}" if places else ""

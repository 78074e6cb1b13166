"""Generated source: equations printed as statements, filled into frames, imported from a cache."""

import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

from ..core import files
from ..core.errors import FileError
from ..core.neurons import Dynamics
from .autodiff import Graph, Node, differentiate

PYTHON = {
    "number": "F({!r})",
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "neg": "-{}",
    "abs": "abs({})",
    "exp": "np.exp({})",
    "floor": "np.floor({})",
    "where": "{1} if {0} else {2}",
    "and": "{} & {}",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
}

TRITON = PYTHON | {
    "number": "{!r}",
    "where": "tl.where({0}, {1}, {2})",
    "exp": "tl.exp({})",
    "floor": "tl.floor({})",
    "abs": "tl.abs({})",
}
SYNTAX = {"python": PYTHON, "triton": TRITON}


def statements(results: Mapping[str, Node | float | None], syntax: Mapping[str, str]) -> list[str]:
    """Statements that compute `results` by name from the inputs by name."""
    text: list[str] = []
    names: dict[Node, str] = {}

    def name(value: Node | float | None) -> str:
        if not isinstance(value, Node):
            return syntax["number"].format(float(value or 0))
        if value not in names:
            if value.op in ("detach", "straight_through"):
                names[value] = name(value.args[0])
            elif value.op == "input":
                names[value] = value.args[0]
            else:
                args = [name(arg) for arg in value.args]
                text.append(f"t{value.index} = {syntax[value.op].format(*args)}")
                names[value] = f"t{value.index}"
        return names[value]

    ends = [f"{result} = {name(value)}" for result, value in results.items()]
    return text + ends


def frame(text: str, **parts: list[str] | str) -> str:
    """Fill lists of statements into lines of `text` that name them, as indented there."""
    filled = []
    for line in text.splitlines():
        key = line.strip()[1:-1]
        if line.strip() == f"{{{key}}}" and isinstance(part := parts.get(key), list):
            indent = line[: len(line) - len(line.lstrip())]
            filled += [indent + statement for statement in part]
        else:
            for name, part in parts.items():
                line = line.replace(f"{{{name}}}", part) if isinstance(part, str) else line
            filled.append(line)
    return "\n".join(filled) + "\n"


@dataclass(frozen=True)
class Program:
    """One step of a scan and its derivative.

    Values that it is given end in an underscore: `x_`, `slope_`, `<state>_` and `<constant>_`.

    Attributes:
        states: the names of the state's values.
        varying: the constants that differ between neurons, and have gradients.
        fixed: the values of all other constants.
        forward: statements from x, the states and the constants to `s_` and `next_<state>`.
        backward: from these, `grad_s` and `grad_<state>` (of the next state) to `grad_x`,
            `before_<state>` (the gradient of the state before) and `part_<constant>`.
    """

    states: tuple[str, ...]
    varying: tuple[str, ...]
    fixed: Mapping[str, float]
    forward: tuple[str, ...]
    backward: tuple[str, ...]


@lru_cache(maxsize=1024)
def program(text: str, names: str, surrogate: str, syntax: str = "python") -> Program:
    """Trace one step of a neuron and differentiate it.

    Args:
        text: of the `Dynamics`.
        names: the constants that vary, with commas between them.
        surrogate: a row of `SURROGATES`.
        syntax: a key of `SYNTAX`.
    """
    dynamics, graph = Dynamics.from_dict(json.loads(text)), Graph(surrogate)
    constants = dynamics.constants()
    varying = tuple(name for name in constants if name in names.split(","))
    x, states = graph.input("x_"), [graph.input(f"{name}_") for name in dynamics.state_names]
    p = {name: graph.input(f"{name}_") for name in constants}
    s, after = dynamics.step(graph, x, tuple(states), SimpleNamespace(**p))
    results = {"s_": s} | {f"next_{n}": v for n, v in zip(dynamics.state_names, after, strict=True)}
    forward = statements(results, SYNTAX[syntax])
    reached: dict[Node, Node] = {}
    for node, name in zip((s, *after), ("s", *dynamics.state_names), strict=True):
        grad = graph.input(f"grad_{name}")
        reached[node] = reached[node] + grad if node in reached else grad
    wanted = {"grad_x": x} | {f"part_{name}": p[name] for name in varying}
    wanted |= {f"before_{n}": node for n, node in zip(dynamics.state_names, states, strict=True)}
    gradients = differentiate(graph, reached, list(wanted.values()))
    backward = statements(dict(zip(wanted, gradients, strict=True)), SYNTAX[syntax])
    fixed = {name: value for name, value in constants.items() if name not in varying}
    return Program(dynamics.state_names, varying, fixed, tuple(forward), tuple(backward))


def folder() -> Path:
    """The folder of generated source: $AXONAL_CACHE, or axonal in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("AXONAL_CACHE") or Path(base) / "axonal")


@lru_cache(maxsize=4096)
def module(source: str) -> ModuleType:
    """Import generated source as a module; nothing from outside this process may be passed.

    Numba and Triton keep what they compiled beside or by the file, so that a later process starts
    fast. Where the cache can't be written a temporary folder takes its place.
    """
    name = f"axonal_generated_{hashlib.sha256(source.encode()).hexdigest()[:24]}"
    path = folder() / f"{name}.py"
    try:
        if not path.exists() or path.read_text() != source:
            files.write(path, source)
    except (OSError, FileError):
        path = Path(tempfile.mkdtemp(prefix="axonal-")) / path.name
        path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    generated = importlib.util.module_from_spec(spec)
    sys.modules[name] = generated  # inspect and pickle look here for the source
    spec.loader.exec_module(generated)
    return generated

"""Writes `operators.md`, the page of what is supported, from the operator table."""

from pathlib import Path

from axonal.convert.onnx.rules import RULES
from axonal.graph.operators import OPERATORS, Operator

INTRODUCTION = """\
<!-- Made by `python docs/operators.py` from `axonal.graph.OPERATORS`; change the table there. -->
# What is supported

One table says what each operator of torch is to Axonal, and conversion, tracing, the engine and the
meter read it. Names are those of functions; modules of `torch.nn` that call them, methods and
operators of Python do the same. Beside these, all layers of `axonal.nn` are known.

In a conversion an operator of one tensor is **linear**, and acts on spikes as it stands; a
**rectifier**, in whose place neurons go; or **nonlinear**, and runs on rates. Of several tensors it
is a sum (linear) or a **product**, which runs on rates too. What has no role there is refused with
its line. A graph is what the engine runs without torch: "moves" are free, "Difference" is dense
work on rates. NIR is what the exchange format can say.

| operator | modules | in a conversion | in a graph | NIR |
|---|---|---|---|---|
"""


def page() -> str:
    """The page's text."""
    names = ", ".join(f"`{name}`" for name in sorted(RULES))
    onnx = f"\n## Operators of ONNX\n\nFiles are read that consist of these: {names}.\n"
    return INTRODUCTION + "".join(f"{_line(row)}\n" for row in OPERATORS.values()) + onnx


def _line(row: Operator) -> str:
    modules = ", ".join(f"`{name}`" for name in row.modules)
    roles = [row.role or "", f"{row.joint} of several" if row.joint == "product" else ""]
    role = ", ".join(filter(None, roles)) or "refused"
    synapses = "synapses" if row.weighted else "a map"
    form = (
        "moves"
        if row.moves
        else "neurons"
        if row.role == "rectifier"
        else synapses
        if row.lower
        else "Difference"
        if row.value
        else "refused"
    )
    return f"| `{row.name}` | {modules} | {role} | {form} | {row.nir} |"


def write(path: Path) -> Path:
    """Write the page."""
    path.write_text(page())
    return path


if __name__ == "__main__":
    write(Path(__file__).with_suffix(".md"))

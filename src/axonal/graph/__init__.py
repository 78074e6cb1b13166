"""Networks as data: graphs of numpy arrays, what they are made of, and files that hold them."""

from ..core.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Add": "ops",
        "Bias": "ops",
        "Concat": "ops",
        "Conv": "ops",
        "Delay": "ops",
        "Dense": "ops",
        "Difference": "difference",
        "Graph": "graph",
        "Input": "ops",
        "Neurons": "ops",
        "Node": "graph",
        "OPERATORS": "operators",
        "Operator": "operators",
        "Pool": "ops",
        "Resize": "ops",
        "Scale": "ops",
        "Select": "ops",
        "load": "checkpoint",
        "mermaid": "drawing",
        "save": "checkpoint",
    },
)

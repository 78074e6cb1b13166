"""Marks: the states that the forward pass leaves for the backward pass."""

from typing import Any

Rules = tuple[str, str, str, float]  # as `program` takes them, then the surrogate's slope
MARK = 32  # steps between the states that the forward pass marks for the backward pass


def new_marks(steps: int, state: Any) -> Any:
    """Room for the states [K, B, N] before every `MARK`th of so many steps: [M K, B, N]."""
    return state.new_empty(-(-steps // MARK) * state.shape[0], *state.shape[1:])

"""Charge, fire and reset over time, for any `Dynamics`, with surrogate gradients."""

from .op import scan

__all__ = ["scan"]

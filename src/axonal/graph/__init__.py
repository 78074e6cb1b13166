"""Networks as data: graphs of numpy arrays, what they are made of, and files that hold them."""

from .checkpoint import load, save

__all__ = ["load", "save"]

"""Convolutions that follow the events of their input, and of the gradient of their output."""

from .op import convolution

__all__ = ["convolution"]

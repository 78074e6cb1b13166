"""A convolution in plain torch: the definition that the kernels must meet."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """y[b, o, i, j] = bias[o] + sum over c, m, n of weight[o, c, m, n] x[b, c, i + m, j + n].

    x [B, C, H, W] is padded with zeros, by so many rows and columns on each side.
    """
    _, _, rows, columns = weight.shape
    x = pad(x, (padding[1], padding[1], padding[0], padding[0]))
    height, width = x.shape[2] - rows + 1, x.shape[3] - columns + 1
    y = x.new_zeros(()) if bias is None else bias[:, None, None]
    for m in range(rows):
        for n in range(columns):
            met = x[:, :, m : m + height, n : n + width]
            y = y + torch.einsum("bcij,oc->boij", met, weight[:, :, m, n])
    return y

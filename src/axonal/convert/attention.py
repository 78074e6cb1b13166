"""Attention taken apart into linear maps, products and softmax, which a conversion can follow."""

from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError


class UnrolledAttention(nn.Module):
    """What `nn.MultiheadAttention` does in evaluation, without masks: its weights as layers.

    Raises:
        InputError: it has keys of another width, extra keys, or time first.
    """

    def __init__(self, whole: nn.MultiheadAttention):
        super().__init__()
        odd = whole.bias_k is not None or whole.add_zero_attn or not whole.batch_first
        if odd or not whole._qkv_same_embed_dim:
            raise InputError(
                "nn.MultiheadAttention is converted with batch_first=True and keys and values as "
                "wide as queries"
            )
        width, bias = whole.embed_dim, whole.in_proj_bias is not None
        self.heads, self.scale = whole.num_heads, (width // whole.num_heads) ** -0.5
        self.query, self.key, self.value = (nn.Linear(width, width, bias) for _ in range(3))
        for i, layer in enumerate((self.query, self.key, self.value)):
            layer.weight = nn.Parameter(whole.in_proj_weight.detach().chunk(3)[i].clone())
            if bias:
                layer.bias = nn.Parameter(whole.in_proj_bias.detach().chunk(3)[i].clone())
        self.out = whole.out_proj

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Tokens [B, N, D] -> (tokens, None).

        Raises:
            InputError: there is a mask.
        """
        if key_padding_mask is not None or attn_mask is not None:
            raise InputError("attention with a mask has no rule; leave the mask out")
        layers = ((self.query, query), (self.key, key), (self.value, value))
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f, x in layers)
        weights = torch.softmax(torch.matmul(q * self.scale, k.transpose(-2, -1)), -1)
        return self.out(torch.matmul(weights, v).transpose(1, 2).flatten(2)), None


def unrolled(model: nn.Module) -> nn.Module:
    """`model` with each `nn.MultiheadAttention` taken apart, in place."""
    for parent in [*model.modules()]:
        for name, child in parent._modules.items():
            if type(child) is nn.MultiheadAttention:
                setattr(parent, name, UnrolledAttention(child))
    return model

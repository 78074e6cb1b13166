"""Parts of transformers as a conversion can follow them: attention, and tokens of their own."""

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ..core.errors import InputError


class UnrolledAttention(nn.Module):
    """What `nn.MultiheadAttention` does in evaluation, without masks: its weights as layers.

    Raises:
        InputError: it has keys of another width, extra keys, or time first.
    """

    def __init__(self, attention: nn.MultiheadAttention):
        super().__init__()
        odd = attention.bias_k is not None or attention.add_zero_attn or not attention.batch_first
        if odd or not attention._qkv_same_embed_dim:
            raise InputError(
                "nn.MultiheadAttention is converted with batch_first=True and keys and values as "
                "wide as queries"
            )
        width, bias = attention.embed_dim, attention.in_proj_bias is not None
        self.heads, self.scale = attention.num_heads, (width // attention.num_heads) ** -0.5
        self.query, self.key, self.value = (nn.Linear(width, width, bias) for _ in range(3))
        for i, layer in enumerate((self.query, self.key, self.value)):
            layer.weight = nn.Parameter(attention.in_proj_weight.detach().chunk(3)[i].clone())
            if bias:
                layer.bias = nn.Parameter(attention.in_proj_bias.detach().chunk(3)[i].clone())
        self.out = attention.out_proj

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


class UnrolledEncoderLayer(nn.Module):
    """What `nn.TransformerEncoderLayer` does in evaluation, without masks: its layers in turn."""

    def __init__(self, layer: nn.TransformerEncoderLayer):
        super().__init__()
        self.attention, self.first = UnrolledAttention(layer.self_attn), layer.norm_first
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.linear1, self.linear2 = layer.linear1, layer.linear2
        self.activation = layer.activation

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, D] -> tokens."""
        if self.first:
            y = self.norm1(x)
            x = x + self.attention(y, y, y)[0]
            return x + self.linear2(self.activation(self.linear1(self.norm2(x))))
        x = self.norm1(x + self.attention(x, x, x)[0])
        return self.norm2(x + self.linear2(self.activation(self.linear1(x))))


def _encoder(encoder: nn.TransformerEncoder) -> nn.Module:
    norm = [] if encoder.norm is None else [encoder.norm]
    return nn.Sequential(*map(UnrolledEncoderLayer, encoder.layers), *norm)


UNROLLED = {
    nn.MultiheadAttention: UnrolledAttention,
    nn.TransformerEncoderLayer: UnrolledEncoderLayer,
    nn.TransformerEncoder: _encoder,
}


def unrolled(model: nn.Module) -> nn.Module:
    """`model` with each encoder and `nn.MultiheadAttention` taken apart, in place."""
    if type(model) in UNROLLED:
        return unrolled(UNROLLED[type(model)](model))
    for parent in [*model.modules()]:
        for name, child in parent._modules.items():
            if type(child) in UNROLLED:
                setattr(parent, name, unrolled(UNROLLED[type(child)](child)))
    return model


def join(node: fx.Node, varying: Collection[fx.Node]) -> None:
    """Make a concatenation with constants, such as a class token, a padding and a sum.

    Args:
        node: the concatenation, changed in place if its values lie side by side.
        varying: the nodes that depend on the input.
    """
    parts = [*node.args[0]]
    places = [i for i, part in enumerate(parts) if part in varying]
    first, last = places[0], places[-1] + 1
    if len(places) in (len(parts), 0) or last - first != len(places):
        return
    graph, dim = node.graph, node.kwargs.get("dim", [*node.args, 0][1])
    with graph.inserting_before(node):
        call, method = graph.call_function, graph.call_method
        before, x, after = (
            part[0] if len(part) == 1 else call(torch.cat, (part, dim)) if part else None
            for part in (parts[:first], parts[first:last], parts[last:])
        )
        sizes = [method("size", (part, dim)) if part else 0 for part in (before, x, after)]
        turned = method("transpose", (x, dim, -1))
        padded = call(F.pad, (turned, (sizes[0], sizes[2])))
        constant = call(around, (before, sizes[1], after, dim))
        padded = method("transpose", (padded, dim, -1))
    node.target, node.args, node.kwargs = torch.add, (padded, constant), {}


def around(before: Tensor | None, length: int, after: Tensor | None, dim: int) -> Tensor:
    """The first samples [1, ...] of two tensors, zeros of a length between them."""
    first, last = (() if part is None else (part[:1],) for part in (before, after))
    shape = [*(*first, *last)[0].shape]
    shape[dim] = length
    return torch.cat([*first, (*first, *last)[0].new_zeros(shape), *last], dim)

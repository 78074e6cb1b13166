"""Small networks of the kinds that are converted, away from their first weights."""

import pytest
import torch
from torch import nn

from axonal.models.vit import ViT, ViTConfig
from axonal.nn import rectifier


class Residual(nn.Module):
    """A skip that carries a rectifier's values, then one with weights, as in ResNets."""

    def __init__(self, levels):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.a, self.b = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))
        self.c, self.short = nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(6, 8, 1, 2)
        self.acts = nn.ModuleList(rectifier(levels) for _ in range(4))
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)

    def forward(self, x):
        h = self.acts[0](self.norm(self.stem(x)))
        h = self.acts[2](h + self.b(self.acts[1](self.a(h))))
        h = self.acts[3](self.c(h) + self.short(h))
        return self.head(self.pool(h).flatten(1))


def plain(levels, act=None):
    act = act or (lambda: rectifier(levels))
    layers = [nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), act(), nn.AvgPool2d(2)]
    layers += [nn.Conv2d(6, 8, 3, padding=1), act(), nn.Flatten(), nn.Linear(128, 10), act()]
    return nn.Sequential(*layers, nn.Linear(10, 5))


def pooled(levels):
    layers = [nn.Conv2d(2, 6, 3, padding=1), rectifier(levels), nn.MaxPool2d(3, 2, 1)]
    layers += [nn.Conv2d(6, 8, 3, padding=1), rectifier(levels), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 5))


def leaky(levels):
    return plain(0, lambda: nn.LeakyReLU(0.1))


def transformer(levels):
    sizes = {"channels": 2, "size": 8, "classes": 5, "patch": 4, "width": 16, "depth": 2}
    return ViT(ViTConfig(**sizes, heads=2))


KINDS = {
    "plain": plain,
    "residual": Residual,
    "pooled": pooled,
    "leaky": leaky,
    "transformer": transformer,
}


def trained(kind: str, levels: int = 0, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = KINDS[kind](levels).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.num_batches_tracked.fill_(1)
            if hasattr(module, "ceiling"):
                module.ceiling.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def network():
    """`network(kind, levels, seed)`: a model that takes images [B, 2, 8, 8] to 5 numbers."""
    return trained


@pytest.fixture
def images():
    """`images(count, seed)`: such images."""
    return lambda count, seed=1: torch.randn(
        count, 2, 8, 8, generator=torch.Generator().manual_seed(seed)
    )

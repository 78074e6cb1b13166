"""Losses, each a factory that returns what `Recipe.loss` asks for."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .loop import Batch


def flow_matching(clip: float = 0.05):
    """Flow matching towards the clean image, weighted as an error of the velocity.

    x_t = t x1 + (1 - t) x0 with x0 ~ N(0, 1) and logit-normal t; the network estimates x1, and
    the velocity it implies, (x1 - x_t) / (1 - t), is what the squared error measures
    (Lipman et al. 2023, arXiv 2210.02747; Li and He 2025, arXiv 2511.13720).

    Args:
        clip: the smallest 1 - t that is divided by.

    Returns:
        (network, {"image" [B, C, H, W] in [-1, 1], "label" [B]}, generator) -> (loss, figures).
    """

    def loss(network, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        image, label = batch["image"], batch["label"]
        noise = torch.randn(image.shape, generator=generator, device=image.device)
        shape = (len(image), 1, 1, 1)
        t = torch.sigmoid(torch.randn(shape, generator=generator, device=image.device))
        estimate = network(t * image + (1 - t) * noise, label).float()
        error = (estimate - image) / (1 - t).clamp_min(clip)
        return error.square().mean(), {}

    return loss


def cross_entropy(shift: int = 0):
    """The cross-entropy of the right class, of images moved by up to `shift` pixels each way.

    Args:
        shift: the largest move; what enters at a border repeats it.

    Returns:
        (network, {"image" [B, C, H, W], "label" [B]}, generator) -> (loss, {"accuracy"}).
    """

    def loss(network, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        image, label = batch["image"], batch["label"]
        logits = network(_moved(image, shift, generator) if shift else image).float()
        accuracy = (logits.argmax(1) == label).float().mean()
        return F.cross_entropy(logits, label), {"accuracy": accuracy}

    return loss


def _moved(image: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    count, _, height, width = image.shape
    draw = torch.randint(2 * shift + 1, (2, count, 1), generator=generator, device=generator.device)
    down = draw[0] + torch.arange(height, device=image.device)
    right = draw[1] + torch.arange(width, device=image.device)
    padded = F.pad(image, (shift,) * 4, mode="replicate")
    each = torch.arange(count, device=image.device)[:, None, None]
    return padded.movedim(1, -1)[each, down[:, :, None], right[:, None, :]].movedim(-1, 1)

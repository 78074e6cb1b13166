"""A trained network made spiking by SpikingJelly's recipes, run as its tutorials and examples do.

https://spikingjelly.readthedocs.io/en/latest/tutorials/en/ann2snn.html, `ann2snn_transformer.html`,
and the examples `cnn_mnist`, `imagenet_resnet18_ltb` and `imagenet_vit_sta`. The networks are those
of `axonal.models`, written as its converter can trace them: `nn.MultiheadAttention` is the only
attention that its transformer recipe takes. Left out is what its tutorial calls no SNN: operators
that pass real differences on, and are as accurate as the conventional network at any T.

Jobs, answered by `worker.py`; `model` is a .npz with the weights by name and, for the first test
images, the `logits` that we get; `data` one with pixels [N, C, H, W] in uint8 as `calibration` (of
which so many are used) and as test `images`, and the `labels` [N] of these:

    {"do": "convert", "model", "kind", "config", "data", "recipe", "calibration", "steps": [T, ...],
     "batch"}

The answer: `difference`, the largest between the logits here and ours; `ann_accuracy`;
`seconds_to_convert`, with calibration; and lists that follow `steps`: `seconds_an_image`, and
by how the logits are read, `accuracy`: "" sums all steps, "delayed" those from the one on that
`estimate_delay_start` finds (in a time that is not counted). Where the framework can't
convert the network, `error` is what it says.
"""

import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from spikingjelly.activation_based import ann2snn, functional
from torch import nn

BATCH = 100  # of calibration, as in `cnn_mnist`; thresholds depend on it


class VGG(nn.Module):
    def __init__(self, own):
        super().__init__()
        layers, inside, side = [], own.channels, own.size >> len(own.widths)
        for width in own.widths:
            for _ in range(own.convolutions):
                layers += [*convolution(inside, width, 3), nn.ReLU()]
                inside = width
            layers.append(nn.AvgPool2d(2))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inside * side * side, own.classes)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


def convolution(inside, outside, kernel, stride=1):
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside))


class Block(nn.Module):
    def __init__(self, inside, outside, stride):
        super().__init__()
        self.first, self.between = convolution(inside, outside, 3, stride), nn.ReLU()
        self.second, self.after = convolution(outside, outside, 3), nn.ReLU()
        same = inside == outside and stride == 1
        self.shortcut = nn.Identity() if same else convolution(inside, outside, 1, stride)

    def forward(self, x):
        return self.after(self.shortcut(x) + self.second(self.between(self.first(x))))


class ResNet(nn.Module):
    def __init__(self, own):
        super().__init__()
        inside, blocks = own.widths[0], []
        self.stem = nn.Sequential(convolution(own.channels, inside, 3), nn.ReLU())
        for stage, width in enumerate(own.widths):
            for index in range(own.blocks):
                blocks.append(Block(inside, width, 2 if stage and not index else 1))
                inside = width
        self.stages, self.pool = nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inside, own.classes)

    def forward(self, x):
        return self.head(self.pool(self.stages(self.stem(x))).flatten(1))


class TransformerBlock(nn.Module):
    def __init__(self, own):
        super().__init__()
        width, wide = own.width, own.spread * own.width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, own.heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width))

    def forward(self, x):
        y = self.norm1(x)
        y, _ = self.attention(y, y, y, need_weights=False)  # its converter wants it unpacked
        x = x + y
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, own):
        super().__init__()
        self.patches = nn.Conv2d(own.channels, own.width, own.patch, own.patch)
        self.places = nn.Parameter(torch.zeros(1, (own.size // own.patch) ** 2, own.width))
        self.blocks = nn.Sequential(*(TransformerBlock(own) for _ in range(own.depth)))
        self.norm, self.head = nn.LayerNorm(own.width), nn.Linear(own.width, own.classes)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def network(kind, config, weights):
    """Build one of ours with its weights; an attention's three maps of tokens are one here."""
    model = {"VGG": VGG, "ResNet": ResNet, "ViT": ViT}[kind](SimpleNamespace(**config))
    state = {key.replace(".out.", ".out_proj."): value for key, value in weights.items()}
    for key in [key for key in state if ".query." in key]:
        parts = [state.pop(key.replace("query", part)) for part in ("query", "key", "value")]
        state[key.replace("query.", "in_proj_")] = torch.cat(parts)
    model.load_state_dict(state)
    return model.eval()


def convert(recipe, ann, calibration, steps):
    """Convert `ann` by a recipe; return the spiking network, and the seconds that it took."""
    per_channel = {"channel_wise": True, "pre_spike_maxpool": True, "half_threshold": True}
    encoders = {"mode": "spiking_encoder", "threshold_mode": "mse", "threshold_scale": 0.5}
    make = {
        "robust_layer": lambda: ann2snn.RateCodingRecipe(calibration, mode="99.9%"),
        "robust": lambda: ann2snn.RateCodingRecipe(calibration, mode="99.9%", **per_channel),
        "ltb": lambda: ann2snn.LocalThresholdBalancingRecipe(calibration),
        "sta": lambda: ann2snn.STATransformerRecipe(calibration, time_steps=steps, **encoders),
    }[recipe]
    began = time.perf_counter()
    snn = ann2snn.Converter(recipe=make()).convert(ann).eval()
    return snn, time.perf_counter() - began


def run_steps(snn, batches, steps, once):
    """Run step by step: logits [steps, N, classes], and seconds an image until each was done.

    An image is there in every step, or `once`, in the first alone, as the transformer recipe wants
    it. Step by step is the faster of its two ways on a CPU.
    """
    functional.set_step_mode(snn, "s")
    logits, seconds = [], np.zeros(steps)
    for images in batches:
        functional.reset_net(snn)
        later = torch.zeros_like(images) if once else images
        began, outputs = time.perf_counter(), []
        for step in range(steps):
            outputs.append(snn(later if step else images))
            seconds[step] += time.perf_counter() - began
        logits.append(torch.stack(outputs))
    return torch.cat(logits, 1), (seconds / sum(map(len, batches))).tolist()


def measure(recipe, ann, calibration, batches, labels, steps):
    """Convert the networks of `ann()` by a recipe, and count how often they are right."""

    def right(logits):
        return float((logits.sum(0).argmax(1) == labels).double().mean())

    if recipe == "sta":  # thresholds depend on the steps, so that each number has its own network
        snns = [convert(recipe, ann(), calibration, t) for t in steps]
        runs = [run_steps(snn, batches, t, True) for (snn, _), t in zip(snns, steps, strict=True)]
        accuracy = {"": [right(logits) for logits, _ in runs]}
        an_image = [seconds[-1] for _, seconds in runs]
        to_convert = sum(seconds for _, seconds in snns) / len(snns)
    else:
        snn, to_convert = convert(recipe, ann(), calibration, None)
        starts = [ann2snn.estimate_delay_start(snn, calibration, "cpu", t) for t in steps]
        logits, seconds = run_steps(snn, batches, max(steps), False)
        delayed = [right(logits[a:t]) for a, t in zip(starts, steps, strict=True)]
        accuracy = {"": [right(logits[:t]) for t in steps], "delayed": delayed}
        an_image = [seconds[t - 1] for t in steps]
    return {"accuracy": accuracy, "seconds_to_convert": to_convert, "seconds_an_image": an_image}


@torch.no_grad()
def answer(name, do, model, kind, config, data, recipe, calibration, steps, batch):
    """Answer a job."""
    with np.load(model) as file:
        weights = {key: torch.from_numpy(file[key]) for key in file.files}
    with np.load(data) as file:
        seen, images = (
            torch.from_numpy(pixels).float().div(127.5).sub(1)
            for pixels in (file["calibration"][:calibration], file["images"])
        )
        labels = torch.from_numpy(file["labels"])
    logits, seen, batches = weights.pop("logits"), seen.split(BATCH), images.split(batch)
    ann = partial(network, kind, config, weights)  # anew each time: a conversion may change it
    dense = torch.cat([*map(ann(), batches)])
    result = {
        "difference": float((dense[: len(logits)] - logits).abs().max()),
        "ann_accuracy": float((dense.argmax(1) == labels).double().mean()),
    }
    try:
        return result | measure(recipe, ann, seen, batches, labels, steps)
    except Exception as error:  # whatever the framework can't do is what we want to know
        return result | {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}

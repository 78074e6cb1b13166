"""A small spiking network that listens for a word: what it learns from, and its training."""

import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from axonal.core import files
from axonal.deploy.from_torch import trace
from axonal.graph.graph import Graph
from axonal.learn.loop import fit
from axonal.learn.losses import activity, check_labels, spiking
from axonal.learn.recipe import Batch, Loss, Recipe
from axonal.models.spiking import SpikingClassifier, SpikingConfig

from .voices import CHANNELS, LEAD, STEP, Cochleagram, Speech, mixture, read_speech

WINDOW, LENGTH = 4, 1.2  # steps from one decision to the next; seconds of an example
NETWORK = SpikingConfig(
    shape=(2 * CHANNELS,),
    layers=("192", "192r"),
    classes=2,
    coding="events",
    adaptive=True,
    learn=("decay", "rho"),
    surrogate="e_prop",
    norm=True,
    dropout=0.2,
    boost=1.0,
    readout=0.95,
)


def examples(speech: Speech, count: int, seed: int) -> Batch:
    """Make examples to learn from: {"events" [N, T, 2 x CHANNELS] uint8, "label" [N]}.

    The label is 1 for those in which a wake word has just ended; 0 for words that have just begun,
    too.
    """
    rng, steps = np.random.default_rng(seed), round(LENGTH / STEP)
    events, labels = [], []
    while len(labels) < count:
        word = rng.random() < 0.5
        every, scrambled = (1.8, 0.1) if word else (np.inf, 0.3)
        decibel = rng.uniform(0, 30)
        signal, spans = mixture(speech, 9.0, decibel, rng, every, scrambled, stretch=0.15)
        frames = Cochleagram()(signal)
        ends = [(end - LEAD + rng.uniform(-0.08, 0.2), 1) for _, end, _ in spans]
        ends += [(start + LEAD + rng.uniform(0, 0.3), 0) for start, _, _ in spans[::2]]
        ends += [] if word else [(end, 0) for end in rng.uniform(LENGTH, 9, 8)]
        for end, label in ((int(seconds / STEP), label) for seconds, label in ends):
            if steps <= end <= len(frames):
                events.append(frames[end - steps : end].astype(np.uint8))
                labels.append(label)
    chosen = torch.from_numpy(np.stack(events[:count]))
    return {"events": chosen, "label": torch.tensor(labels[:count])}


def final_cross_entropy(y: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of the last window's mean output, or without a word of the most word-like's.

    The latter is max pooling (Sun et al. 2016, arXiv 1705.02411).
    """
    windows = y.float().unflatten(0, (-1, WINDOW)).mean(1)
    odds = windows[..., 1] - windows[..., 0]
    logits = torch.where(label == 1, odds[-1], odds.amax(0))
    return F.binary_cross_entropy_with_logits(logits, check_labels(label, y).float())


def augment(events: Tensor, generator: torch.Generator) -> Tensor:
    """Change examples [N, T, 2 x CHANNELS] as other throats and rooms would.

    All are moved by up to two channels, a band of up to six is silent (Park et al. 2019, arXiv
    1904.08779), and up to 30 % of all events are lost.
    """
    x, count = events.reshape(*events.shape[:2], 2, CHANNELS).float(), len(events)
    move, width = (
        torch.randint(low, high, (count, 1), generator=generator) for low, high in ((-2, 3), (0, 7))
    )
    channel = torch.arange(CHANNELS)
    of = (channel - move)[:, None, None].expand_as(x)
    x = x.gather(3, of.clamp(0, CHANNELS - 1)) * ((of >= 0) & (of < CHANNELS))
    first = (torch.rand(count, 1, generator=generator) * (CHANNELS - width)).long()
    band = (channel >= first) & (channel < first + width)
    lost = 0.3 * torch.rand(count, 1, 1, 1, generator=generator)
    sent = torch.rand(x.shape, generator=generator) >= lost
    return (x * sent * ~band[:, None, None]).flatten(2)


def splice(events: Tensor, label: Tensor, generator: torch.Generator) -> Tensor:
    """Let every other example without a word, by chance, begin like any example of the batch.

    How two sounds follow each other is what is learned of least (in time, Yun et al. 2019, arXiv
    1905.04899).
    """
    count, steps = events.shape[:2]
    draw = torch.rand(2, count, generator=generator)
    cut = torch.where((label == 0) & (draw[0] < 0.5), steps * (0.2 + 0.6 * draw[1]), 0.0)
    early = torch.arange(steps) < cut[:, None]
    other = events[torch.randperm(count, generator=generator)]
    return torch.where(early[..., None], other, events)


def wakeword_loss() -> Loss:
    """Build the loss of examples that are spliced and augmented while the network learns."""
    plain = spiking(final_cross_entropy, penalties=(activity(0.01, 0.05),))

    def loss(network: nn.Module, batch: Batch, generator: torch.Generator):
        if network.training:
            events = splice(batch["events"], batch["label"], generator)
            batch = batch | {"events": augment(events, generator)}
        return plain(network, batch, generator)

    return loss


def recipe(seed: int, count: int = 12_000, **options) -> Recipe:
    """Build the training on `count` examples, with other `options` of the `Recipe`."""
    plain = {"steps": 3000, "batch": 64, "lr": 3e-3, "warmup": 50, "ema": 0.99}
    plain |= {"weight_decay": 0.05}
    return Recipe(
        name="wakewords",
        build=lambda: SpikingClassifier(NETWORK),
        data=lambda: examples(read_speech("train"), count, seed),
        loss=wakeword_loss(),
        seed=seed,
        precision="float32",
        compile=False,
        **plain | options,
    )


def train_listener(seed: int, store: Path) -> tuple[Graph, float]:
    """Train the network, or load it from `store`.

    Returns:
        The network as a graph, and the seconds that its training took.

    Raises:
        FileError: recordings are missing, or `store` can't be written.
    """
    folder = store / f"wakewords-{seed}"
    if not (folder / "trained.json").exists():
        began = time.perf_counter()
        network = fit(recipe(seed), folder)
        assert isinstance(network, SpikingClassifier)
        network.save(folder)
        took = {"seconds": round(time.perf_counter() - began, 1)}
        files.write(folder / "trained.json", json.dumps(took) + "\n")
    network = SpikingClassifier.load(folder).eval()
    took = json.loads((folder / "trained.json").read_text())["seconds"]
    return trace(network.network, torch.zeros(1, 1, 2 * CHANNELS)), took

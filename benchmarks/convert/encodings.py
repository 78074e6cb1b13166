"""Which encoding for what: a small network behind each of `nn.encoding`, on pictures and speech."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from axonal.data.recordings import cochlea, fsdd
from axonal.learn.data import images
from axonal.learn.loop import fit
from axonal.learn.losses import rate_cross_entropy, spiking
from axonal.learn.recipe import Batch, Recipe
from axonal.models.spiking import SpikingClassifier, SpikingConfig
from axonal.nn import encoding
from axonal.nn.hooks import tally
from axonal.recipes.spiking_classifiers import CHANNELS, MILLISECONDS, RISE, STEPS

from ..harness.bench import Run
from ..harness.page import table
from ..harness.results import Figures, Results

AnyCode = encoding.Code | encoding.SignalCode
T, FLOOR = 16, 1e-4  # steps; power of a silent band
SIGNAL: dict[str, float] = {"threshold": RISE, "start": math.log(FLOOR)}
PICTURES = 10_000  # of MNIST's 60,000, to learn from
NETWORK: dict[str, Any] = {"layers": ("128", "128"), "decay": 0.9, "norm": True, "boost": 1.0}
TRAINING: dict[str, Any] = {"steps": 400, "batch": 128, "lr": 3e-3, "warmup": 20, "ema": 0.98}
CODES: Mapping[str, Mapping[str, tuple[AnyCode, str, str]]] = {  # code, what it sends, use it when
    "MNIST": {
        "latency": (encoding.Latency(steps=T), "one, the earlier the larger x", "spikes are dear"),
        "latency, log": (
            encoding.Latency(steps=T, kind="log"),
            "one, after -ln x",
            "ratios matter, not differences",
        ),
        "phase": (encoding.Phase(steps=8), "binary digits", "few steps must hold the exact value"),
        "burst": (encoding.Burst(steps=T), "more, and closer", "one spike may get lost"),
    },
    "spoken digits": {
        "delta": (encoding.Delta(**SIGNAL), "the signs of jumps", "slow changes don't matter"),
        "send-on-delta": (
            encoding.SendOnDelta(**SIGNAL),
            "changes, from a threshold on",
            "spikes can carry values, and x may jump",
        ),
        "sigma-delta": (
            encoding.SigmaDelta(**SIGNAL),
            "changes, in rounded thresholds",
            "spikes can carry integers, and x must be known to half a threshold",
        ),
    },
}


def pictures(split: str) -> Batch:
    """Read MNIST: {"image" [N, 784] in [0, 1], "label" [N]}, to "train" the first `PICTURES`."""
    chosen = slice(PICTURES if split == "train" else None)
    batch = {name: tensor[chosen] for name, tensor in images("mnist", split).items()}
    return batch | {"image": (batch["image"].flatten(1) + 1) / 2}


def sounds(split: str) -> Batch:
    """Read spoken digits: {"events" [N, T, 40] nepers of power in auditory bands, "label" [N]}."""
    recordings, hop = fsdd(split), MILLISECONDS["fsdd"] / 1000
    bands = torch.full((len(recordings), STEPS["fsdd"], CHANNELS), math.log(FLOOR))
    for row, signal in zip(bands, recordings.signals, strict=True):
        power = cochlea(signal, recordings.rate, CHANNELS, hop, FLOOR)[: len(row)]
        row[: len(power)] = torch.from_numpy(power)
    return {"events": bands, "label": torch.from_numpy(recordings.labels)}


DATA = {"MNIST": pictures, "spoken digits": sounds}


class Coded(SpikingClassifier):
    """The `NETWORK` behind a code of values [B, N] or of signals [B, T, N]."""

    def __init__(self, code: AnyCode, inputs: int):
        super().__init__(SpikingConfig(shape=(inputs,), coding="events", **NETWORK))
        self.code = code

    def encode(self, x: Tensor) -> Tensor:
        """Encode as the code does, [T, B, N]; to weigh a phase is left to the network."""
        if isinstance(self.code, encoding.SignalCode):
            return self.code.encode(x.transpose(0, 1))[0]
        return self.code.encode(x)


def measure(*, run: Run, seed: int = 0, threads: int = 2) -> Results:
    """Train a small network behind every encoding; minutes.

    Of each "[data, code]": "accuracy", in % of the test set; of a sample "code spikes", what the
    code sends that is not 0, and "network spikes"; "steps", and "latency": the first of them, from
    1, from which the class with the largest sum so far is the one at the end.

    Args:
        run: where; it goes on from trainings that are finished.
        seed: of weights, order and noise.
        threads: of torch.

    Raises:
        FileError: data are missing, or the store can't be written.
    """
    figures: Figures = {}
    for kind, codes in CODES.items():
        train, test = DATA[kind]("train"), DATA[kind]("test")
        for name in codes:
            network = fit(_recipe(kind, name, train, seed), run.store / f"{kind}, {name}")
            assert isinstance(network, Coded)
            values = evaluate(network, test, seed)
            figures |= {f"{title} [{kind}, {name}]": value for title, value in values.items()}
    return {"figures": figures}


def _recipe(kind: str, name: str, train: Batch, seed: int) -> Recipe:
    (x,) = (train[key] for key in train if key != "label")
    plain = {"precision": "float32", "compile": False}
    return Recipe(
        name=f"{kind}, {name}",
        build=lambda: Coded(CODES[kind][name][0], x.shape[-1]),
        data=lambda: train,
        loss=spiking(rate_cross_entropy()),
        seed=seed,
        **plain | TRAINING,
    )


@torch.inference_mode()
def evaluate(network: Coded, test: Batch, seed: int = 0) -> Figures:
    """Measure one network, as `measure` says."""
    torch.manual_seed(seed)  # of chance spikes
    (x,) = (test[key] for key in test if key != "label")
    label, sums, steps = test["label"], torch.zeros(3, dtype=torch.float64), 0
    with tally(network) as fired:
        for rows in torch.arange(len(label)).split(250):
            sent = network.encode(x[rows])
            answers = network.network(sent)[0].cumsum(0).argmax(2)
            right, steps = (answers[-1] == label[rows]).sum(), len(answers)
            sums += torch.stack([right, sent.count_nonzero(), settling_step(answers).sum()])
    right, code, late = (sums / len(label)).tolist()
    own = sum(float(spikes) for spikes, _ in fired.values()) / len(label)
    spikes = {"code spikes": round(code, 1), "network spikes": round(own, 1)}
    return {"accuracy": round(100 * right, 2), **spikes, "steps": steps, "latency": round(late, 2)}


def settling_step(answers: Tensor) -> Tensor:
    """The first step, from 1, from which answers [T, B] are the last one, [B]."""
    number = torch.arange(1, len(answers) + 1)[:, None]
    return ((answers != answers[-1]) * number).amax(0) + 1


def tables(results: Results) -> dict[str, Any]:
    """`kinds` of data, each with its table and the best codes; and how the networks learned."""
    return {
        "kinds": {kind: _kind(results["figures"], kind) for kind in CODES},
        "layers": " and ".join(NETWORK["layers"]),
        "training": TRAINING,
        "pictures": PICTURES,
        "bands": CHANNELS,
        "threshold": RISE,
    }


def _kind(figures: Figures, kind: str) -> dict[str, str]:
    """A table of codes on one kind of data, and which are best."""
    codes = CODES[kind]
    at = {
        title: {name: figures[f"{title} [{kind}, {name}]"] for name in codes}
        for title in ("accuracy", "code spikes", "network spikes", "latency", "steps")
    }
    rows = []
    for n, (_, sends, use) in codes.items():
        spikes = f"{at['code spikes'][n]:.0f} + {at['network spikes'][n]:.0f}"
        late = f"{at['latency'][n]:.1f} of {at['steps'][n]}"
        rows.append((n, sends, f"{at['accuracy'][n]:.1f} %", spikes, late, use))
    head = (kind, "it sends", "accuracy", "spikes", "latency", "use it when")
    fewest, first = (min(codes, key=at[title].__getitem__) for title in ("code spikes", "latency"))
    best = max(codes, key=at["accuracy"].__getitem__)
    return {"table": table(head, rows), "best": best, "fewest": fewest, "first": first}

"""Conversion of trained networks: what it keeps, what it costs, and SpikingJelly's beside it."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from axonal.convert import SpikingNetwork, convert
from axonal.convert.certificate import Certificate, change_of, share_of
from axonal.deploy.certify import certify
from axonal.deploy.engine import Engine
from axonal.deploy.from_torch import trace
from axonal.models.base import Model
from axonal.recipes import image_classifiers, training

from ..harness.bench import Run
from ..harness.charts import line_chart
from ..harness.page import shown, table
from ..harness.results import Figures, Results
from . import anytime, spikingjelly
from .information import fisher_information

NETWORKS = ("mnist-vgg", "cifar10-vgg", "cifar10-resnet")
VIT, SHOWN = "cifar10-vit", "cifar10-vgg"  # the transformer; and what early exits are of
STEPS, SHORT = (2, 4, 8, 32), (2, 8)  # beside SpikingJelly, and of all test images
FORMS: Mapping[str, dict[str, Any]] = {  # of the networks, by the names of their figures
    "graded": {"method": "graded"},
    "graded4": {"method": "graded", "bits": 4},
    "binary": {"method": "qcfs"},
}
HARDEST = {  # loss by name: the form, T, and of what networks the largest counts
    "graded_T2_loss": ("graded", 2),
    "graded4_T8_loss": ("graded4", 8),
    "binary_T4_loss": ("binary", 4),
    "binary_T8_loss": ("binary", 8),
}
CALIBRATION, CERTIFIED, SHARED, IN_ENGINE = 1000, 300, 3000, 8  # samples
EXIT_LOSS = 0.0  # of accuracy, that calibration of early exits allows
BATCH = 100


def measure(*, run: Run, seed: int = 0, count: int = 10_000, threads: int = 2) -> Results:
    """Convert trained networks, and count what is lost; hours.

    Half an hour is for the conversions, two hours are to train the networks.

    Args:
        run: where; it goes on from trainings and parts that are finished.
        seed: of weights, order and noise.
        count: test images of each network.
        threads: of ours and of SpikingJelly.

    Raises:
        FileError: data are missing, or nothing can be written. InputError: as the parts.
    """
    conversions = Conversions(run.store, seed, count)
    parts: dict[str, Callable[[], Figures]] = {
        f"{form} {name} {steps}": lambda cell=(form, name, steps): conversions.cell(*cell)
        for form, name, steps in cells()
    }
    parts |= {
        "anytime": conversions.anytime,
        "spikingjelly": lambda: conversions.beside_spikingjelly(run.peers, threads),
    }
    measured = run.measure(parts)
    reasons = measured.pop("reasons")
    curve = measured.pop("anytime curve")
    figures = _summary(measured)
    _draw(figures, curve, run.results)
    return {"figures": figures, "reasons": reasons}


def cells() -> list[tuple[str, str, int]]:
    """List form, network and T of each conversion that is measured."""
    graded = [("graded", name, t) for name in NETWORKS for t in SHORT]
    narrow = [("graded4", name, 8) for name in NETWORKS]
    binary = [("binary", name, t) for name in NETWORKS for t in image_classifiers.QCFS_LEVELS]
    return [*graded, *narrow, *binary, *(("transformer", VIT, t) for t in SHORT)]


class Conversions:
    """Trained networks, the data that they are converted with, and what becomes of them."""

    def __init__(self, store: Path, seed: int, count: int):
        self.store, self.seed, self.count = store, seed, count

    def network(self, name: str) -> Model:
        """Load a trained network; it is trained now if it wasn't."""
        folder = training.train(name, self.store / name, self.seed)
        base = image_classifiers.QUANTISED.get(name, (name, 0))[0]
        return image_classifiers.PICTURES[base].kind.load(folder)

    def samples(self, name: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Draw images to calibrate with, of the training set, and images to test with."""
        data = image_classifiers.PICTURES[name].data
        pairs = []
        for split, count in (("train", CALIBRATION), ("test", self.count)):
            drawn = spikingjelly.draw(data, split, count, self.seed)
            pixels = torch.from_numpy(drawn.pixels).float().div(127.5).sub(1)
            pairs.append((pixels, torch.from_numpy(drawn.labels)))
        return pairs[0], pairs[1]

    def converted(self, form: str, name: str, steps: int, certified: int = BATCH):
        """Return the network, its spiking form, the certificate, the test images, and seconds.

        The certificate is of so many of these images.
        """
        trained = f"{name}-qcfs{steps}" if form == "binary" else name
        network, (seen, test) = self.network(trained), self.samples(name)
        options = FORMS.get(form, {"method": form})
        held_out = (test[0][:certified], test[1][:certified])
        begin = time.perf_counter()
        spiking, certificate = convert(network, seen, T=steps, held_out=held_out, **options)
        took = time.perf_counter() - begin
        return network, spiking, certificate, test, took

    def cell(self, form: str, name: str, steps: int) -> Figures:
        """Measure one conversion: its loss over all test images, work, time, and the engine."""
        network, spiking, certificate, (x, labels), took = self.converted(
            form, name, steps, CERTIFIED
        )
        before = _right(self.network(name), x, labels, f"{name} itself")
        begin = time.perf_counter()
        after = _right(spiking.answer, x, labels, f"{name}, {form}, T {steps}")
        each = (time.perf_counter() - begin) / len(x)
        value, low, high = (100 * v for v in change_of(after, before))
        key = f"[{name}, {form}, T {steps}]"
        figures = {
            f"accuracy {key}": _points(share_of(after)),
            f"accuracy [{name}]": _points(share_of(before)),
            f"loss {key}": {"value": value, "low": low, "high": high},
            f"latency {key}": spiking.latency,
            f"seconds to convert and certify {key}": took,
            f"ms an image {key}": 1e3 * each,
        }
        figures |= _work(certificate, key)
        if form == "binary":
            exact = _right(network, x, labels, f"{name}, quantised")
            figures[f"accuracy [{name}, quantised {steps}]"] = _points(share_of(exact))
        return figures | _in_engine(spiking, x[:IN_ENGINE], key)

    def anytime(self) -> Figures:
        """Measure early exits of 4-bit spikes in 8 steps, and where their information is."""
        name, steps = SHOWN, 8
        _, spiking, _, (x, labels), _ = self.converted("graded4", name, steps)
        outputs = torch.cat([spiking.outputs(rows) for rows in _batches(x, "outputs by step")], 1)
        split = len(x) // 5
        threshold = anytime.calibrate(outputs[:, :split], labels[:split], EXIT_LOSS)
        rest, truth = outputs[:, split:], labels[split:]
        early = anytime.anytime(rest, truth, threshold)
        points = anytime.curve(rest, truth)
        first = x[:32]
        fisher = fisher_information(spiking, first.expand(steps, *first.shape), labels[:32])
        return {
            "anytime_step_share": early.share,
            "anytime_accuracy": 100 * early.accuracy,
            "anytime_full_accuracy": 100 * early.full,
            "anytime_random_accuracy": 100 * early.random,
            "anytime_first_accuracy": 100 * early.first,
            "anytime_centroid": anytime.centroid(fisher.total),
            "anytime curve": [(p.steps, 100 * p.accuracy, 100 * p.random) for p in points],
        }

    def beside_spikingjelly(self, root: Path, threads: int) -> Figures:
        """Measure SpikingJelly's recipes on the same networks and images."""
        folders = {name: self.store / name / "model" for name in (*NETWORKS, VIT)}
        count = min(SHARED, self.count)
        theirs = spikingjelly.compare(folders, STEPS, threads, root, count, self.seed, BATCH)
        ours = {}
        for name in folders:
            form = "transformer" if name == VIT else "graded"
            for steps in STEPS:
                _, spiking, _, (x, labels), _ = self.converted(form, name, steps)
                right = _right(spiking.answer, x[:count], labels[:count], f"{name}, T {steps}")
                ours[name, steps] = float(right.mean())
        number, worse = spikingjelly.behind(ours, theirs.accuracy)
        shares = {
            f"ours beside SpikingJelly [{n}, T {t}]": 100 * share for (n, t), share in ours.items()
        }
        return {
            "behind_spikingjelly": number,
            "cells_compared": len({cell for _, cell in theirs.accuracy}),
            "images_compared": count,
            "reasons": theirs.reasons,
            **shares,
            **{f"behind [{n}, T {t}]": 1 for n, t in worse},
            **theirs.figures,
        }


def _batches(x: Tensor, title: str) -> Iterator[Tensor]:
    for rows in track(x.split(BATCH), title, transient=True):
        with torch.inference_mode():
            yield rows


def _right(answer: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, title: str) -> np.ndarray:
    classes = torch.cat([answer(rows).argmax(1) for rows in _batches(x, title)])
    return (classes == labels).numpy()


def _points(share: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), (100 * s for s in share), strict=True))


def _work(certificate: Certificate, key: str) -> Figures:
    spikes = [layer.spikes for layer in certificate.layers]
    return {
        f"levels {key}": certificate.levels,
        f"output error, % {key}": 100 * certificate.output_error,
        f"spikes a neuron {key}": float(np.mean(spikes)),
        f"synaptic operations, millions {key}": certificate.synops / 1e6,
        f"of these multiplications, % {key}": 100 * certificate.multiplies / certificate.synops,
        f"dense multiply-adds, millions {key}": certificate.dense / 1e6,
    }


@torch.no_grad()
def _in_engine(network: SpikingNetwork, x: Tensor, key: str) -> Figures:
    """Spikes of every population in the engine beside torch's, and the engine's own counts."""
    steps = network.fed(x)
    engine = Engine(trace(network, steps[:1]))
    agreement = certify(network, steps, engine)
    stream = engine.stream()
    stream.push({engine.graph.inputs[0]: steps[:, 0].numpy()})
    return {
        f"engine_spike_mismatches {key}": sum(agreement.different.values()),
        f"engine_values_compared {key}": sum(agreement.compared.values()),
        f"engine synaptic operations, millions {key}": stream.counts().total("synops") / 1e6,
    }


def _summary(figures: Figures) -> Figures:
    """The figures, with the largest loss of each form under its name."""
    named = {
        name: max(
            (figures[f"loss [{network}, {form}, T {steps}]"] for network in NETWORKS),
            key=lambda loss: loss["value"],
        )
        for name, (form, steps) in HARDEST.items()
    }
    named["vit_T8_loss"] = figures[f"loss [{VIT}, transformer, T 8]"]
    engine = {
        total: sum(v for k, v in figures.items() if k.startswith(f"{total} ["))
        for total in ("engine_spike_mismatches", "engine_values_compared")
    }
    return named | engine | figures


def _draw(figures: Figures, curve: list[tuple[float, float, float]], out: Path) -> None:
    """Accuracy over steps beside SpikingJelly's, and over mean steps when answers come early."""
    name = SHOWN
    ours = [(t, figures[f"ours beside SpikingJelly [{name}, T {t}]"], "") for t in STEPS]
    lines = {"graded, ours": ours}
    for recipe in ("robust_delayed", "ltb_delayed", "ltb_short_delayed"):
        values = [figures.get(f"sj_{recipe}_accuracy [{name}, T {t}]") for t in STEPS]
        points = [(t, 100 * v, "") for t, v in zip(STEPS, values, strict=True) if v is not None]
        lines[f"SpikingJelly, {recipe.replace('_', ' ')}"] = points
    line_chart(out / "convert-steps.svg", lines, "steps", "accuracy, %")
    lines = {
        "as soon as sure": [(steps, right, "") for steps, right, _ in curve],
        "at random": [(steps, random, "") for steps, _, random in curve],
    }
    line_chart(out / "convert-anytime.svg", lines, "mean steps", "accuracy, %")


TITLES = {  # of forms and T
    ("graded", 2): "graded, 8 bits, no training",
    ("graded", 8): "graded, 8 bits, no training",
    ("graded4", 8): "graded, 4 bits, no training",
    ("binary", 4): "binary, trained so, waiting",
    ("binary", 8): "binary, trained so, waiting",
    ("transformer", 2): "signed, 8 bits, no training",
    ("transformer", 8): "signed, 8 bits, no training",
}
RECIPES = {"rate coding": "robust", "LTB": "ltb", "STA": "sta"}  # by how their figures begin


def tables(results: Results) -> dict[str, str]:
    """`conversions`, ours `beside` SpikingJelly's, and `differing` values in the engine."""
    figures = results["figures"]
    rows = [
        _conversion(figures, key.removeprefix("loss "), title)
        for (form, steps), title in TITLES.items()
        for key in figures
        if key.startswith("loss [") and key.endswith(f", {form}, T {steps}]")
    ]
    head = ["network (its accuracy)", "spikes", "T / answer after", "points lost"]
    recipes = [f"SpikingJelly, {recipe}" for recipe in RECIPES]
    return {
        "conversions": table([*head, "spikes a neuron", "operations / its multiply-adds"], rows),
        "beside": table(["accuracy, %", "T", "ours", *recipes], _beside(figures)),
        "differing": _differing(figures),
    }


def _conversion(figures: Figures, key: str, title: str) -> list[str]:
    """The row of a conversion, whose figures end in `key`."""
    network, steps = key[1 : key.index(",")], key[:-1].rsplit(" ", 1)[1]
    work = figures[f"synaptic operations, millions {key}"]
    dense = figures[f"dense multiply-adds, millions {key}"]
    times = figures[f"of these multiplications, % {key}"]
    return [
        f"{network} ({figures[f'accuracy [{network}]']['value']:.2f} %)",
        title,
        f"{steps} / {figures[f'latency {key}']}",
        shown(figures[f"loss {key}"]),
        f"{figures[f'spikes a neuron {key}']:.2f}",
        f"{work / dense:.2f} ({times:.0f} % multiply)",
    ]


def _differing(figures: Figures) -> str:
    """How many values differ between the engine and torch, by form."""
    counts = []
    for form in dict.fromkeys(form for form, _ in TITLES):
        wrong, compared = (
            sum(v for k, v in figures.items() if k.startswith(f"{what} [") and f", {form}, T" in k)
            for what in ("engine_spike_mismatches", "engine_values_compared")
        )
        counts.append(f"{form} {wrong:,} of {compared:,}")
    return ", ".join(counts)


def _beside(figures: Figures) -> list[list[str]]:
    """Ours beside the best that each of SpikingJelly's recipes reaches, read early or late."""
    own, rows = "ours beside SpikingJelly [", []
    for key, share in figures.items():
        if not key.startswith(own):
            continue
        cell = key.removeprefix(own)
        network, steps = cell[:-1].split(", T ")
        best = []
        for recipe in RECIPES.values():
            accuracies = [
                value
                for name, value in figures.items()
                if name.startswith(f"sj_{recipe}") and name.endswith(f"_accuracy [{cell}")
            ]
            best.append(f"{100 * max(accuracies):.1f}" if accuracies else "refused")
        rows.append([network, steps, f"{share:.1f}", *best])
    return rows

"""What conversion keeps of a network, and what it costs (`axonal bench convert`)."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from axonal.convert import SpikingNetwork, convert
from axonal.convert.certificate import Certificate, change_of, share_of
from axonal.core import files
from axonal.deploy.certify import certify
from axonal.deploy.engine import Engine
from axonal.deploy.from_torch import trace
from axonal.learn import anytime as temporal
from axonal.models.base import Model
from axonal.recipes import image_classifiers, training
from axonal.report.provenance import facts

from ..harness.results import Figures, chart, kept
from . import encodings as codes
from . import spikingjelly

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


def bench(
    out: Path,
    seed: int = 0,
    count: int = 10_000,
    threads: int = 2,
    root: Path = Path("runs/peers"),
    store: Path = Path("runs/bench-convert"),
) -> str:
    """Measure the README's figures of conversion; write `convert.json` and its drawings to `out`.

    Networks are trained if `store` lacks them (two hours). Parts that are finished are kept there,
    so that an interrupted bench goes on.

    Args:
        out: folder of the results.
        seed: of weights, order and noise.
        count: test images of each network.
        threads: of ours and of the rival.
        root: folder of the other frameworks' environments.
        store: folder of the trainings and of finished parts.

    Returns:
        A sentence: what was achieved and where it lies.

    Raises:
        FileError: data are missing, or nothing can be written. InputError: as the parts.
    """
    files.writable(out)
    torch.set_num_threads(threads)
    command = f"axonal bench convert --seed {seed} --count {count} --threads {threads}"
    store = store / f"seed-{seed}"
    bench = _Bench(store, seed, count)
    parts: dict[str, Callable[[], Figures]] = {
        f"{form} {name} {steps}": lambda form=form, name=name, steps=steps: bench.cell(
            form, name, steps
        )
        for form, name, steps in bench.cells()
    }
    parts |= {
        "anytime": bench.anytime,
        "rivals": lambda: bench.rivals(root, threads),
        "codes": lambda: {"codes": codes.figures(store / "codes", seed)},
    }
    found: Figures = {}
    for name, part in parts.items():
        found |= kept(store / f"{name}.json", command, part)
    encodings, reasons = found.pop("codes"), found.pop("reasons")
    figures = _summary(found)
    _draw(figures, out)
    about = facts(command, seed)
    table = {"figures": encodings} | about
    files.write(out / "encodings.json", json.dumps(table, indent=1) + "\n")
    table = {"figures": figures, "reasons": reasons} | about
    path = files.write(out / "convert.json", json.dumps(table, indent=1) + "\n")
    worst = figures["graded_T2_loss"]["value"]
    return f"In two steps networks lose at most {worst:.2f} points; all lies in {path.resolve()}."


class _Bench:
    """The networks and their data."""

    def __init__(self, store: Path, seed: int, count: int):
        self.store, self.seed, self.count = store, seed, count

    def cells(self) -> list[tuple[str, str, int]]:
        """Form, network and T of each conversion that is measured."""
        found = [("graded", name, t) for name in NETWORKS for t in SHORT]
        found += [("graded4", name, 8) for name in NETWORKS]
        found += [("binary", name, t) for name in NETWORKS for t in image_classifiers.QCFS_LEVELS]
        return found + [("transformer", VIT, t) for t in SHORT]

    def network(self, name: str) -> Model:
        """A trained network; it is trained now if it wasn't."""
        folder = training.train(name, self.store / name, self.seed)
        base = image_classifiers.QUANTISED.get(name, (name, 0))[0]
        return image_classifiers.PICTURES[base].kind.load(folder)

    def samples(self, name: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Images to calibrate with, of the training set, and images to test with."""
        data = image_classifiers.PICTURES[name].data
        pairs = []
        for split, count in (("train", CALIBRATION), ("test", self.count)):
            drawn = spikingjelly.draw(data, split, count, self.seed)
            pixels = torch.from_numpy(drawn.pixels).float().div(127.5).sub(1)
            pairs.append((pixels, torch.from_numpy(drawn.labels)))
        return pairs[0], pairs[1]

    def converted(self, form: str, name: str, steps: int, certified: int = BATCH):
        """The network, its spiking form, the certificate of so many images, these, and seconds."""
        trained = f"{name}-qcfs{steps}" if form == "binary" else name
        network, (seen, test) = self.network(trained), self.samples(name)
        options = FORMS.get(form, {"method": form})
        held_out = (test[0][:certified], test[1][:certified])
        begin = time.perf_counter()
        spiking, certificate = convert(network, seen, T=steps, held_out=held_out, **options)
        took = time.perf_counter() - begin
        return network, spiking, certificate, test, took

    def cell(self, form: str, name: str, steps: int) -> Figures:
        """One conversion: what is lost over all test images, work, time, and the engine."""
        found = self.converted(form, name, steps, CERTIFIED)
        network, spiking, certificate, (x, labels), took = found
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
        """Early exits of a network of 4-bit spikes in 8 steps, and where its information is."""
        name, steps = SHOWN, 8
        _, spiking, _, (x, labels), _ = self.converted("graded4", name, steps)
        outputs = torch.cat([spiking.outputs(rows) for rows in _batches(x, "outputs by step")], 1)
        split = len(x) // 5
        threshold = temporal.calibrate(outputs[:, :split], labels[:split], EXIT_LOSS)
        rest, truth = outputs[:, split:], labels[split:]
        found = temporal.anytime(rest, truth, threshold)
        points = temporal.curve(rest, truth)
        fisher = temporal.fisher_information(
            spiking, x[:32].expand(steps, *x[:32].shape), labels[:32]
        )
        return {
            "anytime_step_share": found.share,
            "anytime_accuracy": 100 * found.accuracy,
            "anytime_full_accuracy": 100 * found.full,
            "anytime_random_accuracy": 100 * found.random,
            "anytime_first_accuracy": 100 * found.first,
            "anytime_centroid": temporal.centroid(fisher.total),
            "anytime curve": [(p.steps, 100 * p.accuracy, 100 * p.random) for p in points],
        }

    def rivals(self, root: Path, threads: int) -> Figures:
        """SpikingJelly's recipes on the same networks and images."""
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
        number, cells = spikingjelly.behind(ours, theirs.accuracy)
        shares = {
            f"ours beside SpikingJelly [{n}, T {t}]": 100 * share for (n, t), share in ours.items()
        }
        compared = {f"behind [{n}, T {t}]": 1 for n, t in cells}
        return {
            "behind_spikingjelly": number,
            "cells_compared": len({cell for _, cell in theirs.accuracy}),
            "images_compared": count,
            "reasons": theirs.reasons,
            **shares,
            **compared,
            **theirs.figures,
        }


def _batches(x: Tensor, what: str):
    for rows in track(x.split(BATCH), what, transient=True):
        with torch.inference_mode():
            yield rows


def _right(answer: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, what: str) -> np.ndarray:
    said = torch.cat([answer(rows).argmax(1) for rows in _batches(x, what)])
    return (said == labels).numpy()


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


def _summary(found: Figures) -> Figures:
    """The figures, with the largest loss of each form under its name."""
    named = {
        name: max(
            (found[f"loss [{network}, {form}, T {steps}]"] for network in NETWORKS),
            key=lambda loss: loss["value"],
        )
        for name, (form, steps) in HARDEST.items()
    }
    named["vit_T8_loss"] = found[f"loss [{VIT}, transformer, T 8]"]
    engine = {
        total: sum(v for k, v in found.items() if k.startswith(f"{total} ["))
        for total in ("engine_spike_mismatches", "engine_values_compared")
    }
    return named | engine | found


def _draw(figures: Figures, out: Path) -> None:
    """Accuracy over steps beside SpikingJelly's, and over mean steps when answers come early."""
    name = SHOWN
    lines = {
        "graded, ours": [
            (t, figures[f"ours beside SpikingJelly [{name}, T {t}]"], "") for t in STEPS
        ]
    }
    for recipe in ("robust_delayed", "ltb_delayed", "ltb_short_delayed"):
        values = [figures.get(f"sj_{recipe}_accuracy [{name}, T {t}]") for t in STEPS]
        points = [(t, 100 * v, "") for t, v in zip(STEPS, values, strict=True) if v is not None]
        lines[f"SpikingJelly, {recipe.replace('_', ' ')}"] = points
    chart(out / "convert-steps.svg", lines, "steps", "accuracy, %")
    curve = figures.pop("anytime curve")
    lines = {
        "as soon as sure": [(steps, right, "") for steps, right, _ in curve],
        "at random": [(steps, random, "") for steps, _, random in curve],
    }
    chart(out / "convert-anytime.svg", lines, "mean steps", "accuracy, %")

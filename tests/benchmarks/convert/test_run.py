"""The bench of conversion, on tiny networks whose own answers are the truth."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from axonal.data.images import DATASETS, Images
from axonal.models.vgg import VGG, VGGConfig
from axonal.models.vit import ViT, ViTConfig
from axonal.recipes import image_classifiers
from benchmarks import render
from benchmarks.convert import encodings, spikingjelly
from benchmarks.convert import run as conversion

LEVELS = 4
TINY = VGGConfig(channels=1, size=8, classes=3, widths=(4,), convolutions=2)
SMALL = ViTConfig(channels=1, size=8, classes=3, patch=4, width=8, depth=1, heads=2)


def made(kind, config):
    """A network whose norms have seen data."""
    torch.manual_seed(0)
    network = kind(config)
    for _ in range(20):
        network.train()(torch.rand(32, 1, 8, 8) * 2 - 1)
    return network.eval()


@pytest.fixture
def tiny(monkeypatch):
    """Networks under names of their own, and images that the first of them names."""
    nets = {"tiny": made(VGG, TINY), "vit": made(ViT, SMALL)}
    quantised = VGG(VGGConfig(**TINY.to_dict() | {"levels": LEVELS}))
    quantised.load_state_dict(nets["tiny"].state_dict(), strict=False)
    nets[f"tiny-qcfs{LEVELS}"] = quantised.eval()

    def read(split):
        random = np.random.default_rng(split == "train")
        pixels = random.integers(256, size=(80, 1, 8, 8)).astype(np.uint8)
        with torch.no_grad():
            labels = nets["tiny"](torch.from_numpy(pixels).float() / 127.5 - 1).argmax(1)
        return Images(pixels, labels.numpy())

    def picture(kind, config):
        return image_classifiers.Picture("tiny", kind, config, 1)

    monkeypatch.setitem(DATASETS, "tiny", read)
    monkeypatch.setitem(image_classifiers.PICTURES, "tiny", picture(VGG, TINY))
    monkeypatch.setitem(image_classifiers.PICTURES, "vit", picture(ViT, SMALL))
    monkeypatch.setattr(conversion._Bench, "network", lambda self, name: nets[name])
    monkeypatch.setattr(conversion, "NETWORKS", ("tiny",))
    monkeypatch.setattr(conversion, "SHOWN", "tiny")
    monkeypatch.setattr(conversion, "VIT", "tiny")
    monkeypatch.setattr(conversion.image_classifiers, "QCFS_LEVELS", (LEVELS,))
    return nets


def test_a_cell_says_what_is_lost_and_what_runs(tiny, tmp_path):
    bench = conversion._Bench(tmp_path, 0, 60)
    found = bench.cell("graded", "tiny", 2)
    key = "[tiny, graded, T 2]"
    assert found["accuracy [tiny]"]["value"] == 100.0
    lost = found[f"loss {key}"]["value"]
    assert lost == pytest.approx(100 - found[f"accuracy {key}"]["value"]) and lost < 20
    assert found[f"latency {key}"] == 2 and found[f"levels {key}"] == 510
    assert found[f"engine_spike_mismatches {key}"] == 0 < found[f"engine_values_compared {key}"]
    ours, engines = (found[f"{who}synaptic operations, millions {key}"] for who in ("", "engine "))
    assert ours == pytest.approx(engines, rel=0.2)


def test_binary_answers_are_those_of_the_quantised_network(tiny, tmp_path):
    found = conversion._Bench(tmp_path, 0, 60).cell("binary", "tiny", LEVELS)
    assert (
        found[f"accuracy [tiny, binary, T {LEVELS}]"]
        == found[f"accuracy [tiny, quantised {LEVELS}]"]
    )
    assert found[f"latency [tiny, binary, T {LEVELS}]"] == (TINY.convolutions + 1) * LEVELS


def test_early_answers_take_a_share_of_the_steps(tiny, tmp_path):
    found = conversion._Bench(tmp_path, 0, 60).anytime()
    assert 0 < found["anytime_step_share"] <= 1 and 1 <= found["anytime_centroid"] <= 8
    assert found["anytime_full_accuracy"] > 80 and found["anytime curve"]


@pytest.fixture
def results(monkeypatch, tmp_path):
    """What the bench writes when its parts are stood in for."""
    spread = {"value": 0.5, "low": 0.1, "high": 0.9}

    def cell(self, form, name, steps):
        key = f"[{name}, {form}, T {steps}]"
        plain = ("latency", "spikes a neuron", "synaptic operations, millions")
        plain += ("dense multiply-adds, millions", "of these multiplications, %")
        plain += ("engine_spike_mismatches", "engine_values_compared")
        return {f"{what} {key}": 2 for what in plain} | {
            f"loss {key}": {**spread, "value": 0.5 if name == "mnist-vgg" else 0.2},
            f"accuracy {key}": spread,
            f"accuracy [{name}]": spread,
        }

    shares = {
        f"ours beside SpikingJelly [{n}, T {t}]": 99.0
        for n in (*conversion.NETWORKS, conversion.VIT)
        for t in conversion.STEPS
    }
    theirs = {f"sj_{r}_accuracy [cifar10-vgg, T 2]": 0.25 for r in ("robust", "robust_delayed")}
    anytime = ("step_share", "accuracy", "full_accuracy", "random_accuracy", "first_accuracy")
    early = {f"anytime_{what}": 0.5 for what in anytime} | {"anytime curve": [(1, 90, 80)] * 2}
    rival = (
        {"behind_spikingjelly": 0, "cells_compared": 16, "images_compared": 3000, "reasons": {}}
        | shares
        | theirs
    )
    found = {
        f"{what} [{kind}, {name}]": 1.0
        for kind, known in encodings.CODES.items()
        for name in known
        for what in ("accuracy", "code spikes", "network spikes", "latency", "steps")
    }
    monkeypatch.setattr(conversion._Bench, "cell", cell)
    monkeypatch.setattr(conversion._Bench, "anytime", lambda self: dict(early))
    monkeypatch.setattr(conversion._Bench, "rivals", lambda *_: dict(rival))
    monkeypatch.setattr(conversion.codes, "figures", lambda *_: found)
    out = tmp_path / "results"
    said = conversion.bench(out, store=tmp_path / "store")
    assert "at most 0.50 points" in said and str(out) in said
    return out


def test_the_bench_writes_figures_drawings_and_pages(results):
    written = json.loads((results / "convert.json").read_text())
    assert written["figures"]["graded_T2_loss"]["value"] == 0.5
    assert written["figures"]["vit_T8_loss"]["value"] == 0.2
    assert {p.name for p in results.glob("*.svg")} == {"convert-steps.svg", "convert-anytime.svg"}
    table = render.convert(render.read(results / "convert.json"))
    assert "| mnist-vgg (0.50 %) | graded, 8 bits, no training | 2 / 2 |" in table
    assert "| cifar10-vgg | 2 | 99.0 | 25.0 | refused | refused |" in table
    page = render.encodings(render.read(results / "encodings.json"))
    assert page.startswith("# When to use which code") and "axonal bench convert" in page


def test_ours_is_beside_the_rivals_best(tiny, tmp_path, monkeypatch):
    def compare(folders, steps, *_):
        cells = {("ltb", (name, t)): 0.1 for name in folders for t in steps}
        cells["sta", ("tiny", 2)] = 1.1
        return spikingjelly.Rival(figures={"sj_x": 1.0}, reasons={"a": "b"}, accuracy=cells)

    monkeypatch.setattr(conversion.spikingjelly, "compare", compare)
    monkeypatch.setattr(conversion, "STEPS", (2,))
    monkeypatch.setattr(conversion, "VIT", "vit")
    monkeypatch.setattr(conversion, "_right", lambda *_: np.ones(4, bool))
    spiking, images = SimpleNamespace(answer=None), (torch.zeros(4, 1), torch.zeros(4))
    made = (None, spiking, None, images, 0.0)
    monkeypatch.setattr(conversion._Bench, "converted", lambda *_: made)
    found = conversion._Bench(tmp_path, 0, 60).rivals(tmp_path, 1)
    assert found["behind_spikingjelly"] == 1 == found["behind [tiny, T 2]"]
    assert found["cells_compared"] == 2 and found["images_compared"] == 60
    assert found["reasons"] == {"a": "b"}

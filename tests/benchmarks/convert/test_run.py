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
from benchmarks.benches import BENCHES
from benchmarks.convert import run as conversion
from benchmarks.convert import spikingjelly
from benchmarks.harness import page
from benchmarks.harness.bench import perform

LEVELS = 4
TINY = VGGConfig(channels=1, size=8, classes=3, widths=(4,), convolutions=2)
SMALL = ViTConfig(channels=1, size=8, classes=3, patch=4, width=8, depth=1, heads=2)


def trained(kind, config):
    """Build a network whose norms have seen data."""
    torch.manual_seed(0)
    network = kind(config)
    for _ in range(20):
        network.train()(torch.rand(32, 1, 8, 8) * 2 - 1)
    return network.eval()


@pytest.fixture
def tiny(monkeypatch):
    """Networks under names of their own, and images that the first of them names."""
    nets = {"tiny": trained(VGG, TINY), "vit": trained(ViT, SMALL)}
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
    monkeypatch.setattr(conversion.Conversions, "network", lambda self, name: nets[name])
    monkeypatch.setattr(conversion, "NETWORKS", ("tiny",))
    monkeypatch.setattr(conversion, "SHOWN", "tiny")
    monkeypatch.setattr(conversion, "VIT", "tiny")
    monkeypatch.setattr(conversion.image_classifiers, "QCFS_LEVELS", (LEVELS,))
    return nets


def test_a_cell_says_what_is_lost_and_what_runs(tiny, tmp_path):
    figures = conversion.Conversions(tmp_path, 0, 60).cell("graded", "tiny", 2)
    key = "[tiny, graded, T 2]"
    assert figures["accuracy [tiny]"]["value"] == 100.0
    lost = figures[f"loss {key}"]["value"]
    assert lost == pytest.approx(100 - figures[f"accuracy {key}"]["value"]) and lost < 20
    assert figures[f"latency {key}"] == 2 and figures[f"levels {key}"] == 510
    assert figures[f"engine_spike_mismatches {key}"] == 0 < figures[f"engine_values_compared {key}"]
    ours, engines = (
        figures[f"{who}synaptic operations, millions {key}"] for who in ("", "engine ")
    )
    assert ours == pytest.approx(engines, rel=0.2)


def test_binary_answers_are_those_of_the_quantised_network(tiny, tmp_path):
    figures = conversion.Conversions(tmp_path, 0, 60).cell("binary", "tiny", LEVELS)
    assert (
        figures[f"accuracy [tiny, binary, T {LEVELS}]"]
        == figures[f"accuracy [tiny, quantised {LEVELS}]"]
    )
    assert figures[f"latency [tiny, binary, T {LEVELS}]"] == (TINY.convolutions + 1) * LEVELS


def test_early_answers_take_a_share_of_the_steps(tiny, tmp_path):
    figures = conversion.Conversions(tmp_path, 0, 60).anytime()
    assert 0 < figures["anytime_step_share"] <= 1 and 1 <= figures["anytime_centroid"] <= 8
    assert figures["anytime_full_accuracy"] > 80 and figures["anytime curve"]


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
    beside = {"behind_spikingjelly": 0, "cells_compared": 16, "images_compared": 3000}
    beside |= {"reasons": {}, **shares, **theirs}
    monkeypatch.setattr(conversion.Conversions, "cell", cell)
    monkeypatch.setattr(conversion.Conversions, "anytime", lambda self: dict(early))
    monkeypatch.setattr(conversion.Conversions, "beside_spikingjelly", lambda *_: dict(beside))
    out = tmp_path / "results"
    assert perform(BENCHES["convert"], out, tmp_path / "runs") == out / "convert.json"
    return out


def test_the_bench_writes_figures_drawings_and_a_page(results):
    written = json.loads((results / "convert.json").read_text())
    assert written["figures"]["graded_T2_loss"]["value"] == 0.5
    assert written["figures"]["vit_T8_loss"]["value"] == 0.2
    assert "reasons" not in written["figures"] and written["reasons"] == {}
    assert {p.name for p in results.glob("*.svg")} == {"convert-steps.svg", "convert-anytime.svg"}
    text = page.render(BENCHES["convert"], results, results).read_text()
    assert "| mnist-vgg (0.50 %) | graded, 8 bits, no training | 2 / 2 |" in text
    assert "| cifar10-vgg | 2 | 99.0 | 25.0 | refused | refused |" in text
    assert "lose at most 0.50 points" in page.headline(BENCHES["convert"], results)


def test_ours_is_beside_the_best_of_theirs(tiny, tmp_path, monkeypatch):
    def compare(folders, steps, *_):
        cells = {("ltb", (name, t)): 0.1 for name in folders for t in steps}
        cells["sta", ("tiny", 2)] = 1.1
        return spikingjelly.Comparison(figures={"sj_x": 1.0}, reasons={"a": "b"}, accuracy=cells)

    monkeypatch.setattr(conversion.spikingjelly, "compare", compare)
    monkeypatch.setattr(conversion, "STEPS", (2,))
    monkeypatch.setattr(conversion, "VIT", "vit")
    monkeypatch.setattr(conversion, "_right", lambda *_: np.ones(4, bool))
    spiking, images = SimpleNamespace(answer=None), (torch.zeros(4, 1), torch.zeros(4))
    converted = (None, spiking, None, images, 0.0)
    monkeypatch.setattr(conversion.Conversions, "converted", lambda *_: converted)
    figures = conversion.Conversions(tmp_path, 0, 60).beside_spikingjelly(tmp_path, 1)
    assert figures["behind_spikingjelly"] == 1 == figures["behind [tiny, T 2]"]
    assert figures["cells_compared"] == 2 and figures["images_compared"] == 60
    assert figures["reasons"] == {"a": "b"}

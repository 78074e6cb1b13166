import importlib.util
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from axonal.core.errors import InputError
from axonal.data.images import Images
from axonal.models.resnet import ResNet, ResNetConfig
from axonal.models.vgg import VGG, VGGConfig
from axonal.models.vit import ViT, ViTConfig
from axonal.recipes.image_classifiers import Picture
from benchmarks.convert import spikingjelly
from benchmarks.harness import peers

CLONE = Path(__file__).parents[3]
SMALL = VGGConfig(channels=1, size=8, widths=(3, 4), convolutions=1)
NETWORKS = [
    (VGG, SMALL),
    (ResNet, ResNetConfig(widths=(3, 4), blocks=2)),
    (ViT, ViTConfig(size=8, width=8, depth=2, heads=2)),
]


@dataclass
class Converter:
    """Converts nothing, or refuses."""

    recipe: dict

    def convert(self, ann):
        if "time_steps" in self.recipe:
            raise ValueError("no such\n  module")
        return ann


@pytest.fixture
def job(monkeypatch):
    """The worker's module, with a framework whose conversions change nothing."""
    package = ModuleType("spikingjelly.activation_based")
    package.ann2snn, package.functional = ann2snn, functional = ModuleType("a"), ModuleType("f")
    for name in ("RateCodingRecipe", "LocalThresholdBalancingRecipe", "STATransformerRecipe"):
        setattr(ann2snn, name, lambda calibration, **options: options)
    ann2snn.Converter = Converter
    ann2snn.estimate_delay_start = lambda snn, calibration, device, t: max(t - 2, 0)
    functional.reset_net = lambda snn: None
    functional.set_step_mode = lambda snn, mode: None
    monkeypatch.setitem(sys.modules, "spikingjelly", ModuleType("spikingjelly"))
    monkeypatch.setitem(sys.modules, "spikingjelly.activation_based", package)
    spec = importlib.util.spec_from_file_location("job", CLONE / "benchmarks/peers/convert.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def randomise(network, seed=0):
    """A network whose every value is random."""
    generator = torch.Generator().manual_seed(seed)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(0.1 + 0.3 * torch.rand(value.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize(("kind", "config"), NETWORKS)
@torch.no_grad()
def test_spikingjelly_gets_the_same_network(job, kind, config):
    ours = randomise(kind(config))
    theirs = job.network(kind.__name__, config.to_dict(), ours.state_dict())
    x = torch.randn(4, config.channels, 8, 8, generator=torch.Generator().manual_seed(1))
    assert ours(x).std(0).mean() > 1e-4
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-5)


class Late(nn.Module):
    """Wrong in its first two steps, by little; and `seen` says what came in."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(float(x.mean()))
        right = torch.tensor([0.0, 1.0]) if len(self.seen) > 2 else torch.tensor([1.5, 0.0])
        return right.expand(len(x), 2)


def test_steps_are_summed_and_those_before_a_delay_left_out(monkeypatch, job):
    monkeypatch.setattr(job, "convert", lambda recipe, ann, calibration, steps: (ann, 2.0))
    images, labels = torch.ones(3, 1, 2, 2), torch.ones(3)
    measured = job.measure("ltb", Late, (), [images], labels, [2, 4, 6])
    assert measured["accuracy"] == {"": [0, 0, 1], "delayed": [0, 1, 1]}
    first, *rest = measured["seconds_an_image"]
    assert 0 < first < rest[0] < rest[1] and measured["seconds_to_convert"] == 2


def test_a_transformer_sees_an_image_once_and_each_number_of_steps_has_its_own(monkeypatch, job):
    conversions = []

    def convert(recipe, ann, calibration, steps):
        conversions.append((steps, ann))
        return ann, float(steps)

    monkeypatch.setattr(job, "convert", convert)
    images = torch.ones(3, 1, 2, 2)
    measured = job.measure("sta", Late, (), [images], torch.ones(3), [2, 8])
    assert [steps for steps, _ in conversions] == [2, 8] and conversions[1][1].seen == [1, *[0] * 7]
    assert measured["accuracy"] == {"": [0, 1]} and measured["seconds_to_convert"] == 5


class Here(peers.Peer):
    """A peer without a process; `own` replaces parts of its answers."""

    def __init__(self, module, **own):
        self.module, self.own = module, own

    def ask(self, *, limit=None, **job):
        assert job["do"] == "convert"
        return self.module.answer("spikingjelly", **job) | self.own


@pytest.fixture
def compare(monkeypatch, job, tmp_path):
    """`spikingjelly.compare` of a small network, with a worker that adds `own` to its answers."""
    generator = np.random.default_rng(0)
    images = {
        "train": Images(generator.integers(0, 256, (30, 1, 8, 8), np.uint8), np.arange(30) % 10),
        "test": Images(generator.integers(0, 256, (20, 1, 8, 8), np.uint8), np.arange(20) % 10),
    }
    monkeypatch.setattr(spikingjelly, "DATASETS", {"mnist": images.__getitem__})
    monkeypatch.setattr(spikingjelly, "PICTURES", {"small": Picture("mnist", VGG, SMALL, 1)})
    folder = randomise(VGG(SMALL)).save(tmp_path)

    def run(**own):
        @contextmanager
        def worker(name, root, threads):
            yield Here(job, **own)

        monkeypatch.setattr(peers, "worker", worker)
        options = {"threads": 1, "root": tmp_path, "count": 12, "seed": 0, "batch": 5}
        return spikingjelly.compare({"small": folder}, [1, 4], **options)

    return run


def test_every_recipe_is_compared_or_has_a_reason(compare):
    compared = compare()
    assert compared.reasons == {"sta [small]": "ValueError: no such module"}
    dense = compared.figures["sj_dense_accuracy [small]"]
    read = {
        f"{name}{way}" for name in spikingjelly.RECIPES for way in ("", "_delayed") if name != "sta"
    }
    cells = {(name, ("small", t)) for name in read for t in (1, 4)}
    assert compared.accuracy == dict.fromkeys(cells, dense)
    assert compared.figures["sj_ltb_delayed_accuracy [small, T 4]"] == dense
    assert compared.figures["sj_ltb_ms_an_image [small, T 4]"] > 0
    assert compared.figures["sj_robust_seconds_to_convert [small]"] > 0


def test_another_network_is_refused(compare):
    with pytest.raises(InputError, match=r"small: logits of spikingjelly are off by 0\.01"):
        compare(difference=0.01)


def test_images_are_drawn_with_the_seed(monkeypatch):
    images = Images(np.arange(50), np.arange(50))
    monkeypatch.setattr(spikingjelly, "DATASETS", {"mnist": lambda split: images})
    first, again, other = (spikingjelly.draw("mnist", "test", 20, seed) for seed in (0, 0, 1))
    assert (first.pixels == again.pixels).all() and (first.labels == first.pixels).all()
    assert (first.pixels != other.pixels).any() and len(set(first.labels)) == 20
    assert len(spikingjelly.draw("mnist", "test", 80, 0)) == 50


def test_ours_is_behind_where_any_of_theirs_is_better():
    a, b, c = ("vgg", 2), ("vgg", 4), ("vit", 2)
    theirs = {("ltb", a): 0.5, ("robust", a): 0.7, ("ltb", b): 0.8, ("robust", b): 0.1}
    theirs[("sta", c)] = 0.9
    assert spikingjelly.behind({a: 0.6, b: 0.8, c: 0.89}, theirs) == (2, [a, c])
    assert spikingjelly.behind({a: 0.7, b: 0.8, c: 0.9, ("vit", 8): 0.1}, theirs) == (0, [])

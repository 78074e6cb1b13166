import numpy as np
import pytest

from axonal.generate import evaluation
from axonal.generate.evaluation import Setting, evaluate
from axonal.generate.quality import Reference
from axonal.models.flow import FlowConfig, FlowUNet

SAMPLES = 50


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A tiny generator where those that ship would lie."""
    monkeypatch.setattr("axonal.generate.pretrained.ASSETS", tmp_path)
    config = FlowConfig(size=8, patch=2, widths=(4, 8), depths=(1, 1), classes=3)
    FlowUNet(config).save(tmp_path / "tiny")


@pytest.mark.usefixtures("assets")
def test_an_evaluation_counts_and_measures():
    pixels = np.random.default_rng(0).integers(256, size=(60, 1, 8, 8)).astype(np.uint8)
    real = Reference.of(pixels, lambda x: np.asarray(x, np.float64).reshape(len(x), -1)[:, :6])
    setting, done = Setting(generator="tiny", sampler="euler", steps=2), []
    result = evaluate(setting, SAMPLES, 0, real, advance=done.append)
    assert sum(done) == SAMPLES == result.run.counts.samples
    fd = result.run.fd
    assert fd.low <= fd.value <= fd.high and len(result.draws) == 200
    assert {"fd", "precision", "recall"} == result.run.quality.keys()
    assert len(result.run.images) == evaluation.IMAGES and len(result.run.counts.table) == 2


@pytest.mark.parametrize(
    ("values", "family", "name"),
    [
        ({"generator": "mnist"}, "ann", "ANN, euler 4"),
        ({"generator": "mnist-spiking"}, "trained_spiking", "spiking core, euler 4"),
        ({"generator": "mnist-sigma-delta", "budget": 0.0}, "ann", "ANN tuned, euler 4"),
        (
            {"generator": "mnist-sigma-delta", "budget": 0.06},
            "sigma_delta",
            "sigma-delta 0.06, euler 4",
        ),
    ],
)
def test_names_and_families(values, family, name):
    setting = Setting(**values, sampler="euler", steps=4)
    assert (setting.family, setting.name) == (family, name)

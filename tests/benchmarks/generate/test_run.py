"""The bench of generators, on runs made up here."""

import numpy as np
import pytest

from axonal.core.errors import InputError
from axonal.core.meter import FIELDS, Counts
from axonal.generate.evaluation import Evaluation
from axonal.generate.runs import Interval, Run
from benchmarks.benches import BENCHES
from benchmarks.generate import run as generate
from benchmarks.harness import page, results
from benchmarks.harness.bench import perform


def evaluation(name, family, work, fd, skipping=None):
    def counts(synops):
        table = np.zeros((1, 1, len(FIELDS)))
        table[..., :2] = synops * 1e6
        return Counts(("layer",), table, 1)

    quality = {"fd": Interval(fd, fd - 0.1, fd + 0.1)}
    quality |= {name: Interval(0.8, 0.7, 0.9) for name in ("precision", "recall")}
    run = Run(
        name=name,
        family=family,
        sampler="euler",
        steps=8,
        budget=None,
        quality=quality,
        counts=counts(work),
        zero_skipping=None if skipping is None else counts(skipping),
        images=np.zeros((2, 1, 4, 4), np.uint8),
        seconds=0.002,
    )
    return Evaluation(run, fd + np.linspace(-0.1, 0.1, 21))


@pytest.fixture
def generations():
    return [
        evaluation("ANN, euler 8", "ann", 300, 8.0, 60),
        evaluation("ANN, euler 16", "ann", 600, 4.0, 120),
        evaluation("sigma-delta 0.1, euler 8", "sigma_delta", 30, 4.1),
        evaluation("sigma-delta 0.2, euler 8", "sigma_delta", 20, 9.0),
        evaluation("spiking core, euler 8", "trained_spiking", 150, 6.0),
    ]


def test_figures_are_those_of_the_runs(generations):
    figures = generate.comparison(generations)
    assert figures["saving_at_equal_quality"]["value"] == pytest.approx(0.95)
    assert figures["saving_vs_zero_skipping"]["value"] == pytest.approx(0.75)
    assert figures["fd_ratio_best"]["value"] == pytest.approx(1.025)
    assert figures["fd_ann_best"]["value"] == 4 and figures["fd_trained_spiking"]["value"] == 6
    assert figures["mmac [ANN, euler 8]"] == 300


def test_a_spiking_run_better_than_every_ann_has_no_saving_to_tell(generations):
    generations[2] = evaluation("sigma-delta 0.1, euler 8", "sigma_delta", 30, 2.0)
    figures = generate.comparison(generations)
    assert "saving_of_lowest_fd" not in figures and figures["fd_ratio_best"]["value"] == 0.5
    assert figures["saving_at_equal_quality"]["value"] == pytest.approx(1 - 20 / 300, abs=1e-4)
    figures = generate.comparison(generations[:3])
    assert "saving_at_equal_quality" not in figures and figures["fd_ratio"]["value"] == 0.5


def test_untuned_and_tuned_runs_have_names_of_their_own():
    names = [setting.name for setting in generate.settings()]
    assert len(set(names)) == len(names)
    assert {"sigma-delta 0.2, euler 8", "sigma-delta untuned 0.15, euler 32"} <= set(names)
    assert {"ANN, heun 64", "ANN tuned, euler 8", "spiking core, euler 16"} <= set(names)


def test_the_page_tells_the_savings_and_the_runs(generations, tmp_path):
    figures = generate.comparison(generations) | {"demo_seconds": 100}
    names = {"spiking": "sigma-delta 0.1, euler 8", "ann": "ANN, euler 16", "best": "ANN, euler 16"}
    about = {"machine": "m", "versions": {}, "seed": 0, "command": "c", "samples": 10_000}
    results.write(tmp_path / "generate.json", {"figures": figures, "compared": names} | about)
    text = page.render(BENCHES["generate"], tmp_path, tmp_path).read_text()
    assert "| operations saved at equal quality | 95.0 % (" in text
    assert "| **sigma-delta 0.1, euler 8** | 30.0 | – | 4.10 (4.00–4.20) |" in text
    assert "| ANN, euler 8 |" not in text, "of the ANN's runs the best are enough"
    assert "](generate.json)" in text and "10,000 images" in text


def test_too_few_samples_are_refused(tmp_path):
    with pytest.raises(InputError, match="too few"):
        perform(BENCHES["generate"], tmp_path, tmp_path / "runs", samples=10)

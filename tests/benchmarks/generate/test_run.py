"""The bench of generators, on runs with figures by hand."""

import json

import numpy as np
import pytest

from axonal.core.errors import FileError
from axonal.core.meter import FIELDS, Counts
from axonal.generate.evaluation import Evaluation
from axonal.generate.runs import Interval, Run
from benchmarks import render
from benchmarks.generate import run


def evaluation(name, family, work, fd, skipping=None):
    def counts(synops):
        table = np.zeros((1, 1, len(FIELDS)))
        table[..., :2] = synops * 1e6
        return Counts(("layer",), table, 1)

    quality = {"fd": Interval(fd, fd - 0.1, fd + 0.1)}
    quality |= {name: Interval(0.8, 0.7, 0.9) for name in ("precision", "recall")}
    figures = Run(
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
    return Evaluation(figures, fd + np.linspace(-0.1, 0.1, 21))


@pytest.fixture
def evaluations():
    return [
        evaluation("ANN, euler 8", "ann", 300, 8.0, 60),
        evaluation("ANN, euler 16", "ann", 600, 4.0, 120),
        evaluation("sigma-delta 0.1, euler 8", "sigma_delta", 30, 4.1),
        evaluation("sigma-delta 0.2, euler 8", "sigma_delta", 20, 9.0),
        evaluation("spiking core, euler 8", "trained_spiking", 150, 6.0),
    ]


def test_figures_are_those_of_the_runs(evaluations):
    figures = run.bench_figures(evaluations)
    assert figures["saving_at_equal_quality"]["value"] == pytest.approx(0.95)
    assert figures["saving_vs_zero_skipping"]["value"] == pytest.approx(0.75)
    assert figures["fd_ratio_best"]["value"] == pytest.approx(1.025)
    assert figures["fd_ann_best"]["value"] == 4 and figures["fd_trained_spiking"]["value"] == 6
    assert figures["mmac [ANN, euler 8]"] == 300


def test_a_spiking_run_better_than_every_ann_has_no_saving(evaluations):
    evaluations[2] = evaluation("sigma-delta 0.1, euler 8", "sigma_delta", 30, 2.0)
    figures = run.bench_figures(evaluations)
    assert "saving_of_lowest_fd" not in figures and figures["fd_ratio_best"]["value"] == 0.5
    assert figures["saving_at_equal_quality"]["value"] == pytest.approx(1 - 20 / 300, abs=1e-4)
    figures = run.bench_figures(evaluations[:3])
    assert "saving_at_equal_quality" not in figures and figures["fd_ratio"]["value"] == 0.5


def test_untuned_and_tuned_runs_have_names_of_their_own():
    names = [setting.name for setting in run.bench_settings()]
    assert len(set(names)) == len(names)
    assert {"sigma-delta 0.2, euler 8", "sigma-delta untuned 0.15, euler 32"} <= set(names)
    assert {"ANN, heun 64", "ANN tuned, euler 8", "spiking core, euler 16"} <= set(names)


def test_the_readme_is_renewed_between_its_marks(evaluations, tmp_path):
    results = {"figures": run.bench_figures(evaluations) | {"demo_seconds": 100}}
    spiking, ann = evaluations[2].run.name, evaluations[1].run.name
    results |= {"compared": {"spiking": spiking, "ann": ann, "best": ann}}
    results |= {"machine": "m", "versions": {}, "seed": 0, "command": "c"}
    (tmp_path / "generate.json").write_text(json.dumps(results))
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- bench:generate -->\nold\n<!-- /bench -->\nafter\n")
    render.renew(page, tmp_path)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("<!-- /bench -->\nafter\n")
    assert "95.0 %" in text and "old" not in text
    render.renew(page, tmp_path)
    assert page.read_text() == text


def test_results_that_are_damaged_say_so(tmp_path):
    path = tmp_path / "generate.json"
    for content in ("{", "[]", '{"figures": {}}'):
        path.write_text(content)
        with pytest.raises(FileError, match="run the bench again"):
            render.read(path)

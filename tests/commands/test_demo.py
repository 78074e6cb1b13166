"""The demo and the bench, on runs made up here."""

import json

import numpy as np
import pytest
import torch

from axonal.commands import demo
from axonal.commands.generate import picture
from axonal.core.errors import FileError, InputError
from axonal.core.meter import FIELDS, Counts
from axonal.generate.evaluation import Evaluated
from axonal.generate.runs import Interval, Run
from axonal.models.flow import FlowConfig, FlowUNet
from benchmarks import render
from benchmarks.generate import run


def evaluated(name, family, work, fd, skipping=None):
    def counts(synops):
        table = np.zeros((1, 1, len(FIELDS)))
        table[..., :2] = synops * 1e6
        return Counts(("layer",), table, 1)

    quality = {"fd": Interval(fd, fd - 0.1, fd + 0.1)}
    quality |= {name: Interval(0.8, 0.7, 0.9) for name in ("precision", "recall")}
    made = Run(
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
    return Evaluated(made, fd + np.linspace(-0.1, 0.1, 21))


@pytest.fixture
def found():
    return [
        evaluated("ANN, euler 8", "ann", 300, 8.0, 60),
        evaluated("ANN, euler 16", "ann", 600, 4.0, 120),
        evaluated("sigma-delta 0.1, euler 8", "sigma_delta", 30, 4.1),
        evaluated("sigma-delta 0.2, euler 8", "sigma_delta", 20, 9.0),
        evaluated("spiking core, euler 8", "trained_spiking", 150, 6.0),
    ]


def test_figures_are_those_of_the_runs(found):
    figures = run.bench_figures(found)
    assert figures["saving_at_equal_quality"]["value"] == pytest.approx(0.95)
    assert figures["saving_vs_zero_skipping"]["value"] == pytest.approx(0.75)
    assert figures["fd_ratio_best"]["value"] == pytest.approx(1.025)
    assert figures["fd_ann_best"]["value"] == 4 and figures["fd_trained_spiking"]["value"] == 6
    assert figures["mmac [ANN, euler 8]"] == 300


def test_a_spiking_run_better_than_every_ann_has_no_saving_to_tell(found):
    found[2] = evaluated("sigma-delta 0.1, euler 8", "sigma_delta", 30, 2.0)
    figures = run.bench_figures(found)
    assert "saving_of_lowest_fd" not in figures and figures["fd_ratio_best"]["value"] == 0.5
    assert figures["saving_at_equal_quality"]["value"] == pytest.approx(1 - 20 / 300, abs=1e-4)
    figures = run.bench_figures(found[:3])
    assert "saving_at_equal_quality" not in figures and figures["fd_ratio"]["value"] == 0.5


def test_untuned_and_tuned_runs_have_names_of_their_own():
    names = [setting.name for setting in run.bench_settings()]
    assert len(set(names)) == len(names)
    assert {"sigma-delta 0.2, euler 8", "sigma-delta untuned 0.15, euler 32"} <= set(names)
    assert {"ANN, heun 64", "ANN tuned, euler 8", "spiking core, euler 16"} <= set(names)


def test_the_readme_is_renewed_between_its_marks(found, tmp_path):
    results = {"figures": run.bench_figures(found) | {"demo_seconds": 100}}
    names = {"spiking": found[2].run.name, "ann": found[1].run.name, "best": found[1].run.name}
    results |= {"compared": names, "machine": "m", "versions": {}, "seed": 0, "command": "c"}
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


def test_a_picture_and_its_counts(tmp_path):
    config = FlowConfig(size=8, widths=(4, 8), depths=(1, 1), classes=3)
    folder = FlowUNet(config).save(tmp_path / "tiny")
    out = tmp_path / "out" / "digits.png"
    told = picture(folder, [0, 2], out, steps=2, seed=1)
    assert str(out) in told and out.read_bytes().startswith(b"\x89PNG")
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["classes"] == [0, 2] and about["counts"]["samples"] == 2
    assert about["an_image"]["synops"] > 0


def test_bad_requests(tmp_path):
    torch.manual_seed(0)
    with pytest.raises(InputError, match="too few"):
        demo.demo(tmp_path, samples=10)
    with pytest.raises(InputError, match=r"end in \.png"):
        picture("mnist", [0], tmp_path / "x.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="can't write"):
        demo.demo(tmp_path / "file" / "demo")

"""Anomalies in telemetry: measures on series whose answer is known, contenders, and the summary."""

import json

import numpy as np
import pytest

from axonal.core.errors import FileError
from axonal.sense.detectors import WindowBudget
from benchmarks.watch import telemetry
from benchmarks.watch.contenders import CONTENDERS, OUTSIDE
from benchmarks.watch.vus import areas, softened, spans, volumes


@pytest.fixture
def labels():
    y = np.zeros(1000, int)
    y[300:320] = y[700:705] = 1
    return y


def test_a_perfect_score_has_all_of_the_volume_and_chance_its_share(labels):
    draw = np.random.default_rng(0)
    roc, pr = areas(labels + 1e-6 * draw.random(1000), labels, 0)
    assert roc == pytest.approx(1, abs=0.01) and pr == pytest.approx(1, abs=0.05)
    roc, pr = volumes(draw.random(1000), labels, 50)
    assert 0.3 < roc < 0.7 and pr < 0.15
    assert volumes(softened(labels, 50) + 1e-6 * draw.random(1000), labels, 50)[1] > 0.9


def test_edges_are_soft_over_half_a_buffer(labels):
    assert spans(labels).tolist() == [[300, 320], [700, 705]]
    soft = softened(labels, 20)
    assert (
        (soft[labels == 1] == 1).all() and soft[289] == 0 and soft[295] == pytest.approx(0.75**0.5)
    )
    assert soft[324] == pytest.approx(0.75**0.5) and np.array_equal(softened(labels, 0), labels)


@pytest.fixture
def folder(tmp_path):
    """Two families of a wave with a flat stretch."""
    draw, table = np.random.default_rng(0), []
    for family, split in (("a", "check"), ("b", "check"), ("b", "dev")):
        x = np.sin(np.arange(1600) / 5)[:, None] + 0.1 * draw.normal(size=(1600, 2))
        y = np.zeros(1600, np.uint8)
        x[1200:1230], y[1200:1230] = 0, 1
        np.savez(tmp_path / f"{family}.npz", **{f"s{split}": x, f"s{split}_labels": y})
        about = {"family": family, "name": f"s{split}", "split": split, "train_end": 600}
        table.append(about | {"channels": 2, "length": 1600, "ignore": [[600, 610]]})
    (tmp_path / "index.json").write_text(json.dumps(table[:1] + table[2:]))
    return tmp_path


def test_every_contender_scores_the_rows_to_be_judged(folder):
    (about, *_) = telemetry.index(folder)
    series = telemetry.read(folder, about)
    found = {}
    for title, score in CONTENDERS.items():
        scores = score(series.u, series.train)
        assert scores.shape == (1000,) and np.isfinite(scores).all()
        found[title] = telemetry.judged(series, scores)
    assert found["context"]["pr"] > found["random"]["pr"]
    assert found["context"]["located"] == 1 and not series.scored[605]
    for train in (600, 400):
        surprise, used = telemetry._surprise(series, train)
        assert used == train and len(surprise) == 1000 + train
        budget = telemetry.budgeted(series, surprise, used)
        assert budget["recall"] == 1 and budget["allowed"] == pytest.approx(0.39, abs=0.1)


def test_an_event_begins_at_its_threshold_and_ends_after_64_rows_below():
    budget = WindowBudget(2000, calibration=128)
    surprise = np.concatenate([np.ones(128), [0, 9, 0, 8.9], np.zeros(70), [9.9], np.zeros(10)])
    states = telemetry.wakes(surprise, budget, 128)
    assert np.flatnonzero(states == 2).tolist() == [129, 202] and states[131] == 1


def test_the_summary_ranks_means_over_families():
    def one(family, default, others):
        same = {"pr": others, "roc": 0.5, "located": 0.0}
        row = dict.fromkeys((*CONTENDERS, *OUTSIDE), same) | {"family": family}
        row["context"] = {"pr": default, "roc": 0.9, "located": 1.0}
        budget = {"false": 2, "allowed": 1, "recall": 0.5, "best": 1.0}
        return row | {"budget": budget, "budget 400": budget}

    found = [one("tep", 0.8, 0.5), one("tep", 0.6, 0.5), one("oil3w", 0.1, 0.2)]
    figures = telemetry.summary([*found[:2], found[2] | {"budget 400": None}])
    assert figures["default_vuspr"] == pytest.approx(0.4) and figures["families"] == 2
    assert figures["default_mean_rank"] == (1 + len(CONTENDERS) + len(OUTSIDE)) / 2
    assert figures["families_beaten"] == 0.5 and figures["top1_location"] == 1
    ahead = figures["VUS-PR ahead of [random]"]
    assert ahead["low"] == -0.1 and ahead["value"] == 0.05 and ahead["high"] == 0.2
    assert figures["budget_ratio"] == 2 and figures["budget_recall_share"] == 0.5


def test_missing_data_are_named(tmp_path):
    with pytest.raises(FileError, match=r"index.json is missing; set AXONAL_DATA"):
        telemetry.figures(tmp_path / "store", tmp_path, tmp_path)

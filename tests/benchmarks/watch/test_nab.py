import json

import numpy as np
import pytest

from benchmarks.watch import nab
from benchmarks.watch.nab_score import Series


@pytest.fixture
def corpus(tmp_path):
    """Two files of daily waves, each with a fault in its window."""
    labels, start = {}, np.datetime64("2014-04-01T00:00:00")
    for number, name in enumerate(("one/e.csv", "two/b.csv", "two/d.csv")):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = np.arange(600)
        values = np.sin(2 * np.pi * rows / 48) + 0.1 * np.sin(rows * (number + 2))
        values[430:436] += 4
        times = np.char.replace((start + 1800 * rows).astype(str), "T", " ")
        lines = [f"{t},{v}" for t, v in zip(times, values, strict=True)]
        path.write_text("\n".join(["timestamp,value", *lines]))
        labels[name] = [[f"{times[420]}.000000", f"{times[450]}.000000"]]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/combined_windows.json").write_text(json.dumps(labels))
    return tmp_path


def test_a_small_corpus_is_scored(corpus):
    figures = nab.figures(folder=corpus)
    assert figures["nab_evolving_standard"] > 80 and figures["nab_category [two]"] > 80
    assert figures["nab_unlabelled_threshold"] > 40
    assert {
        "nab_half [0]",
        "nab_half [1]",
        "nab_evolving_reward_low_FP_rate",
        "nab_standard",
    } <= figures.keys()
    assert 1 < figures["nab_spikes_a_row"] <= 4 and figures["nab_synops_a_row"] > 0


def test_no_score_looks_ahead():
    rows = np.arange(300)
    values = np.random.default_rng(0).normal(size=300)
    values[200] = 20
    series = Series("x/y.csv", 1800 * rows, values, ())
    part = Series("x/y.csv", series.seconds[:150], values[:150], ())
    for scores in (lambda s: nab.detect(s)[0], nab.windowed_gaussian,
                   lambda s: nab.wakes(nab.detect(s)[0])):  # fmt: skip
        assert np.array_equal(scores(series)[:150], scores(part))

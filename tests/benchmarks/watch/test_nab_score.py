import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from benchmarks.watch.nab_score import (
    PROFILES,
    Profile,
    Series,
    normalised,
    optimum,
    read,
    score,
    sweep,
    worth,
)

# Numenta's HTM as published in github.com/numenta/NAB: the rows of results/numenta whose anomaly
# score reaches 0.5421876907348634, and what numenta_standard_scores.csv says each file earns.
# Name: (rows of the file, windows, rows of detections after the probation, raw score).
HTM = {
    "artificialWithAnomaly/art_increase_spike_density.csv": (
        4032, [(1805, 2207)], [2006], 0.86067182427
    ),
    "realAWSCloudwatch/ec2_cpu_utilization_77c1ca.csv": (
        4032, [(1765, 2167)], [1826, 1886, 1983, 2265, 2287], 0.855433474186
    ),
    "realAdExchange/exchange-2_cpc_results.csv": (
        1624, [(244, 406)], [325, 1037, 1042, 1483], 0.53195803375
    ),
    "realAdExchange/exchange-2_cpm_results.csv": (
        1624, [(565, 645), (934, 1014)], [355, 605, 876, 974, 1013], 1.50824342415
    ),
    "realAdExchange/exchange-3_cpm_results.csv": (
        1538, [(1045, 1197)], [1121, 1445], 0.752161591569
    ),
    "realTraffic/occupancy_6005.csv": (2380, [(1645, 1883)], [1764], 0.861272490375),
    "realTraffic/speed_7578.csv": (
        1127, [(303, 331), (740, 768), (909, 937), (945, 973)],
        [276, 317, 673, 752, 753, 923, 959, 1124], 3.19572468045
    ),
}  # fmt: skip
# Of all 58 files, in config/thresholds.json and results/final_results.json.
HTM_TOTALS = {
    "standard": (46.634450197137596, 70.10105611943965),
    "reward_low_FP_rate": (30.431072517124093, 63.11684160219828),
    "reward_low_FN_rate": (26.634450197137568, 74.3202443095115),
}


def series(count, windows, name="real/a.csv"):
    return Series(name, 300 * np.arange(count), np.zeros(count), tuple(windows))


def place(y):
    return 2 / (1 + np.exp(5 * y)) - 1


def by_hand(one, scores, threshold, profile):
    """NAB's rules, a row after another."""
    best, total, behind = {}, 0.0, None
    for row in range(len(scores)):
        inside = [k for k, (a, b) in enumerate(one.windows) if a <= row <= b]
        hit = row >= one.probation and scores[row] >= threshold
        if inside:
            (k,) = inside
            a, b = one.windows[k]
            if row >= one.probation:
                best.setdefault(k, -profile.fn)
            if hit:
                best[k] = max(best[k], place(-(b - row + 1) / (b - a + 1)) / place(-1))
            behind = (a, b) if row == b else behind
        elif hit and behind is None:
            total -= profile.fp
        elif hit:
            far = (row - behind[1]) / (behind[1] - behind[0])
            total += profile.fp * (place(far) if far < 3 else -1)
    return total + sum(best.values())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(PROFILES)))
def test_every_threshold_is_worth_what_the_rules_say(seed, name):
    rng = np.random.default_rng(seed)
    corpus = [series(100, [(30, 40), (60, 75)]), series(80, [(9, 19)]), series(60, [])]
    scores = [rng.integers(0, 6, len(one.values)) / 5 for one in corpus]
    thresholds, raw = sweep(corpus, scores, PROFILES[name])
    assert thresholds[0] == np.inf and (np.diff(thresholds) < 0).all()
    for threshold, earned in zip(thresholds, raw, strict=True):
        each = [
            by_hand(*pair, threshold, PROFILES[name]) for pair in zip(corpus, scores, strict=True)
        ]
        assert earned == pytest.approx(sum(each))


@pytest.mark.parametrize("profile", PROFILES.values())
def test_null_is_0_and_perfect_is_100(profile):
    corpus = [series(1000, [(300, 399), (700, 720)]), series(500, [(200, 250)])]
    null = [np.zeros(1000), np.zeros(500)]
    assert score(corpus, null, 0.5, profile) == 0
    perfect = [one.copy() for one in null]
    perfect[0][[300, 700]] = perfect[1][200] = 1
    assert score(corpus, perfect, 0.5, profile) == pytest.approx(100)
    best = optimum(corpus, perfect, profile)
    assert (best.threshold, best.score) == (1.0, pytest.approx(100))


def test_places_in_and_behind_a_window():
    one = series(200, [(100, 119)])
    earned, number = worth(one)
    assert one.probation == 30 and len(earned) == 170
    at = lambda row: earned[row - 30]  # noqa: E731
    assert at(99) == -1 and number[99 - 30] == -1 and number[100 - 30] == 0
    assert at(100) == 1 and at(119) == pytest.approx(place(-1 / 20) / place(-1))
    assert at(120) == pytest.approx(place(1 / 19)) and at(180) == -1
    assert series(20_000, []).probation == 750


@pytest.mark.parametrize("name", HTM)
def test_published_detections_earn_what_nab_published(name):
    count, windows, detected, published = HTM[name]
    scores = np.zeros(count)
    scores[detected] = 1
    _, (_, raw, _) = sweep([series(count, windows, name)], [scores])
    assert raw == pytest.approx(published, abs=1e-11)


@pytest.mark.parametrize("name", HTM_TOTALS)
def test_published_totals_make_the_published_scores(name):
    raw, published = HTM_TOTALS[name]
    corpus = [series(200, [(row, row) for row in range(50, 166)])]  # as many windows as NAB's 58
    assert normalised(raw, corpus, PROFILES[name]) == pytest.approx(published, abs=1e-9)


def test_scores_that_do_not_fit_are_refused():
    one = series(100, [(50, 59)])
    for wrong in (np.zeros(99), np.full(100, np.nan)):
        with pytest.raises(InputError, match="a score for every row"):
            sweep([one], [wrong], Profile())
    with pytest.raises(InputError, match="no files"):
        sweep([], [])


def test_a_corpus_is_read_and_what_is_none_is_named(tmp_path):
    folder = tmp_path / "data/real"
    folder.mkdir(parents=True)
    lines = [f"2014-01-01 00:{m:02d}:00,{m}.5" for m in range(10)]
    (folder / "a.csv").write_text("timestamp,value\n" + "\n".join(lines) + "\n")
    (tmp_path / "labels").mkdir()
    labels = tmp_path / "labels/combined_windows.json"
    window = ["2014-01-01 00:03:00.000000", "2014-01-01 00:05:00.000000"]
    labels.write_text(json.dumps({"real/a.csv": [window]}))
    (one,) = read(tmp_path)
    assert one.windows == ((3, 5),) and one.values[3] == 3.5 and one.category == "real"
    assert np.diff(one.seconds).tolist() == [60] * 9
    labels.write_text(json.dumps({"real/a.csv": [["2015-01-01 00:00:00", window[1]]]}))
    for broken in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileError, match="is no copy of NAB"):
            read(broken)

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.sense.nab import PROFILES, Profile, Series, optimum, read, score, sweep, worth


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
    for threshold, found in zip(thresholds, raw, strict=True):
        each = [
            by_hand(*pair, threshold, PROFILES[name]) for pair in zip(corpus, scores, strict=True)
        ]
        assert found == pytest.approx(sum(each))


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

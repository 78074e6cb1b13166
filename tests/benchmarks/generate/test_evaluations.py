"""Evaluations that a bench goes on from, and intervals of what they save."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.meter import FIELDS, Counts
from axonal.generate.evaluation import Evaluation, Setting
from axonal.generate.quality import Reference
from axonal.generate.runs import Interval, Run
from axonal.models.flow import FlowConfig, FlowUNet
from benchmarks.generate import evaluations
from benchmarks.generate.evaluations import ratio_interval, saving_interval, stored

SETTING = Setting(generator="tiny", sampler="euler", steps=2)
SAMPLES = 50


def save(assets, seed=0):
    torch.manual_seed(seed)
    config = FlowConfig(size=8, patch=2, widths=(4, 8), depths=(1, 1), classes=3)
    FlowUNet(config).save(assets / "tiny")


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A tiny generator where those that ship would lie."""
    monkeypatch.setattr(evaluations, "ASSETS", tmp_path / "assets")
    monkeypatch.setattr("axonal.generate.pretrained.ASSETS", tmp_path / "assets")
    save(tmp_path / "assets")
    return tmp_path / "assets"


@pytest.fixture(scope="module")
def real():
    pixels = np.random.default_rng(0).integers(256, size=(60, 1, 8, 8)).astype(np.uint8)
    return Reference.of(pixels, lambda x: np.asarray(x, np.float64).reshape(len(x), -1)[:, :6])


def forbid(monkeypatch):
    def explode(*_):
        raise AssertionError("it was generated again")

    monkeypatch.setattr(evaluations, "evaluate", explode)


def same(one, other):
    assert one.run.counts.table.tolist() == other.run.counts.table.tolist()
    skipping = [e.run.zero_skipping.to_dict() for e in (one, other)]
    assert skipping[0] == skipping[1] and one.run.quality == other.run.quality
    np.testing.assert_array_equal(one.run.images, other.run.images)
    np.testing.assert_array_equal(one.draws, other.draws)
    facts = ("name", "family", "sampler", "steps", "budget")
    assert [getattr(one.run, f) for f in facts] == [getattr(other.run, f) for f in facts]
    return True


def test_a_finished_evaluation_is_read(assets, real, tmp_path, monkeypatch):
    first = stored(SETTING, SAMPLES, 0, real, store=tmp_path / "store")
    forbid(monkeypatch)
    done = []
    again = stored(SETTING, SAMPLES, 0, real, done.append, store=tmp_path / "store")
    assert same(first, again) and again.run.seconds == first.run.seconds and done == [SAMPLES]


def test_other_seeds_samples_settings_and_weights_have_files_of_their_own(assets, real, tmp_path):
    runs = [(SETTING, SAMPLES, 0), (SETTING, SAMPLES, 1), (SETTING, SAMPLES + 1, 0)]
    runs += [(Setting(generator="tiny", sampler="euler", steps=3), SAMPLES, 0)]
    runs += [(Setting(generator="tiny", sampler="multistep", steps=2), SAMPLES, 0)]
    for run in runs:
        stored(*run, real, store=tmp_path / "store")
    save(assets, seed=1)
    stored(SETTING, SAMPLES, 0, real, store=tmp_path / "store")
    assert len(list((tmp_path / "store").iterdir())) == len(runs) + 1


@settings(max_examples=30)
@given(part=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_damaged_evaluations_read_as_none(tmp_path, part, bit, cut):
    path, original = tmp_path / "evaluation.npz", by_hand(50, [1.0, 2.0], skipping=20)
    evaluations._save(path, original.run, original.draws)
    content = bytearray(path.read_bytes())
    place = int(part * len(content))
    if cut:
        content = content[:place]
    else:
        content[place] ^= 1 << bit
    path.write_bytes(content)
    read = evaluations._read(path, SETTING)
    assert read is None or isinstance(read.run, Run)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"no archive", b"\x93NUMPY\x01\x00"])
def test_damaged_evaluations_are_repeated(assets, real, tmp_path, damage):
    first = stored(SETTING, SAMPLES, 0, real, store=tmp_path / "store")
    (path,) = (tmp_path / "store").iterdir()
    path.write_bytes(damage)
    assert same(stored(SETTING, SAMPLES, 0, real, store=tmp_path / "store"), first)
    assert evaluations._read(path, SETTING) is not None


def by_hand(work, draws, skipping=None):
    """A run whose Frechet distance is the first draw."""

    def counts(synops):
        table = np.zeros((1, 1, len(FIELDS)))
        table[0, 0, FIELDS.index("synops")] = synops
        return Counts(("layer",), table, 1)

    draws = np.asarray(draws, float)
    run = Run(
        name=f"run {work}",
        family="ann",
        sampler="euler",
        steps=1,
        budget=None,
        quality={"fd": Interval(draws[0], draws.min(), draws.max())},
        counts=counts(work),
        zero_skipping=None if skipping is None else counts(skipping),
        images=np.zeros((1, 1, 4, 4), np.uint8),
        seconds=1.0,
    )
    return Evaluation(run, draws)


def test_the_saving_is_drawn_with_the_baseline_that_qualifies():
    run = by_hand(25, [2.0, 2.0, 2.0, 2.0])
    cheap, dear = by_hand(50, [2.0, 2.0, 3.0, 3.0]), by_hand(100, [1.0, 1.0, 1.0, 1.0])
    result = saving_interval(run, [cheap, dear])
    # The cheap one falls short in half of the draws: savings of 1/2, 1/2, 3/4, 3/4.
    assert result.value == 0.5 and (result.low, result.high) == (0.5, 0.75)


def test_draws_that_no_baseline_reaches_do_not_count():
    run, base = by_hand(25, [2.0, 1.0, 1.0]), by_hand(50, [2.0, 2.0, 2.0])
    assert saving_interval(run, [base]) == Interval(0.5, 0.5, 0.5)


def test_a_run_that_no_baseline_reaches_has_no_saving():
    assert saving_interval(by_hand(25, [1.0, 9.0]), [by_hand(50, [2.0, 2.0])]) is None


def test_the_tolerance_decides_who_qualifies():
    run, base = by_hand(25, [2.0, 2.0]), by_hand(50, [2.2, 2.2])
    assert saving_interval(run, [base]) is None
    assert saving_interval(run, [base], tolerance=1.1001).value == 0.5


def test_baselines_may_skip_zeros():
    run, base = by_hand(25, [2.0, 2.0]), by_hand(100, [2.0, 2.0], skipping=50)
    unknown = by_hand(30, [1.0, 1.0])
    assert saving_interval(run, [base, unknown], skipping=True) == Interval(0.5, 0.5, 0.5)
    assert saving_interval(run, [base, unknown]).value == pytest.approx(1 - 25 / 30)


def test_a_run_that_does_more_saves_less_than_nothing():
    assert saving_interval(by_hand(100, [2.0]), [by_hand(50, [2.0])]) == Interval(-1, -1, -1)


def test_ratios_are_drawn_in_pairs():
    run, base = by_hand(1, [2.0, 4.0, 6.0]), by_hand(1, [1.0, 2.0, 3.0])
    assert ratio_interval(run, base) == Interval(2, 2, 2)
    base = by_hand(1, [1.0, 1.0, 1.0])
    result = ratio_interval(run, base)
    assert result.value == 2 and (result.low, result.high) == pytest.approx((2.0, 5.9))

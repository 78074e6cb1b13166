import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.meter import FIELDS, Counts
from axonal.generate import evaluation
from axonal.generate.evaluation import (
    Evaluation,
    Setting,
    evaluate,
    ratio_interval,
    saving_interval,
)
from axonal.generate.quality import Reference
from axonal.generate.runs import Interval, Run
from axonal.models.flow import FlowConfig, FlowUNet

SETTING = Setting(generator="tiny", sampler="euler", steps=2)
SAMPLES = 50


def save(assets, seed=0):
    torch.manual_seed(seed)
    config = FlowConfig(size=8, patch=2, widths=(4, 8), depths=(1, 1), classes=3)
    FlowUNet(config).save(assets / "tiny")


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A tiny generator where those that ship would lie."""
    for module in ("evaluation", "pretrained"):
        monkeypatch.setattr(f"axonal.generate.{module}.ASSETS", tmp_path / "assets")
    save(tmp_path / "assets")
    return tmp_path / "assets"


@pytest.fixture(scope="module")
def real():
    pixels = np.random.default_rng(0).integers(256, size=(60, 1, 8, 8)).astype(np.uint8)
    return Reference.of(pixels, lambda x: np.asarray(x, np.float64).reshape(len(x), -1)[:, :6])


def forbid(monkeypatch):
    def explode(*_):
        raise AssertionError("it was generated again")

    monkeypatch.setattr(evaluation.Generator, "from_pretrained", explode)


def same(one, other):
    assert one.run.counts.table.tolist() == other.run.counts.table.tolist()
    skipping = [e.run.zero_skipping.to_dict() for e in (one, other)]
    assert skipping[0] == skipping[1] and one.run.quality == other.run.quality
    np.testing.assert_array_equal(one.run.images, other.run.images)
    np.testing.assert_array_equal(one.draws, other.draws)
    facts = ("name", "family", "sampler", "steps", "budget")
    assert [getattr(one.run, f) for f in facts] == [getattr(other.run, f) for f in facts]
    return True


def test_an_evaluation_counts_and_measures(assets, real):
    done = []
    result = evaluate(SETTING, SAMPLES, 0, real, advance=done.append)
    assert sum(done) == SAMPLES == result.run.counts.samples
    assert (
        result.run.fd.low <= result.run.fd.value <= result.run.fd.high and len(result.draws) == 200
    )
    assert {"fd", "precision", "recall"} == result.run.quality.keys()
    assert len(result.run.images) == evaluation.IMAGES and len(result.run.counts.table) == 2


def test_a_finished_evaluation_is_read(assets, real, tmp_path, monkeypatch):
    first = evaluate(SETTING, SAMPLES, 0, real, tmp_path / "store")
    forbid(monkeypatch)
    done = []
    again = evaluate(SETTING, SAMPLES, 0, real, tmp_path / "store", done.append)
    assert same(first, again) and again.run.seconds == first.run.seconds and done == [SAMPLES]


def test_other_seeds_samples_settings_and_weights_have_files_of_their_own(assets, real, tmp_path):
    runs = [(SETTING, SAMPLES, 0), (SETTING, SAMPLES, 1), (SETTING, SAMPLES + 1, 0)]
    runs += [(Setting(generator="tiny", sampler="euler", steps=3), SAMPLES, 0)]
    runs += [(Setting(generator="tiny", sampler="multistep", steps=2), SAMPLES, 0)]
    for run in runs:
        evaluate(*run, real, tmp_path / "store")
    save(assets, seed=1)
    evaluate(SETTING, SAMPLES, 0, real, tmp_path / "store")
    assert len(list((tmp_path / "store").iterdir())) == len(runs) + 1


@settings(max_examples=30)
@given(part=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_damaged_evaluations_read_as_none(tmp_path, part, bit, cut):
    path, original = tmp_path / "evaluation.npz", by_hand(50, [1.0, 2.0], skipping=20)
    evaluation._save(path, original.run, original.draws)
    content = bytearray(path.read_bytes())
    place = int(part * len(content))
    if cut:
        content = content[:place]
    else:
        content[place] ^= 1 << bit
    path.write_bytes(content)
    read = evaluation._read(path, SETTING)
    assert read is None or isinstance(read.run, Run)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"no archive", b"\x93NUMPY\x01\x00"])
def test_damaged_evaluations_are_repeated(assets, real, tmp_path, damage):
    first = evaluate(SETTING, SAMPLES, 0, real, tmp_path / "store")
    (path,) = (tmp_path / "store").iterdir()
    path.write_bytes(damage)
    assert same(evaluate(SETTING, SAMPLES, 0, real, tmp_path / "store"), first)
    assert evaluation._read(path, SETTING) is not None


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

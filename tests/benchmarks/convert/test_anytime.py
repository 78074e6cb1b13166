import math
from functools import partial
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from axonal.core.errors import InputError, NotFinite
from benchmarks.convert.anytime import (
    NEVER,
    POINTS,
    Anytime,
    anytime,
    calibrate,
    centroid,
    curve,
    exits,
    logits_by_step,
    static_accuracy,
)

BOTH = pytest.mark.parametrize("by", ["confidence", "entropy"])
seeds = st.integers(0, 2**16)
sizes = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(2, 4))
thresholds = st.one_of(st.floats(0, 1.1), st.sampled_from([0.0, 0.25, 0.5, 1.0, NEVER]))


def draw(size, seed=0, scale=2.0):
    """Outputs [T, B, C] with many ties, and labels [B]."""
    generator = torch.Generator().manual_seed(seed)
    outputs = (scale * torch.randn(size, generator=generator)).round()
    return outputs, torch.randint(size[2], size[1:2], generator=generator)


def test_the_centroid_is_the_step_information_lies_around():
    for information, step in (([0, 0, 3], 3), ([2, 0], 1), ([1] * 7, 4), ([1, 1, 2], 9 / 4)):
        assert centroid(torch.tensor(information).double()) == pytest.approx(step)
    assert math.isnan(centroid(torch.zeros(3)))


@given(sizes, seeds)
def test_logits_by_steps_are_means(size, seed):
    outputs, _ = draw(size, seed)
    for delay in range(size[0]):
        means = logits_by_step(outputs, delay)
        expected = [outputs[delay : t + 1].double().mean(0) for t in range(delay, size[0])]
        torch.testing.assert_close(means, torch.stack(expected))


def one_by_one(outputs, threshold, by, delay):
    """The definition, for a sample and a step at a time."""
    steps = []
    for o in outputs.double().unbind(1):
        for t in range(delay, len(o)):
            p = (o[delay : t + 1].sum(0) / (t + 1 - delay)).softmax(0).tolist()
            entropy = -sum(q * math.log(q) for q in p if q > 0)
            sure = max(p) if by == "confidence" else 1 - entropy / math.log(len(p))
            if sure >= threshold or t == len(o) - 1:
                steps.append(t + 1)
                break
    return torch.tensor(steps)


@BOTH
@given(size=sizes, seed=seeds, threshold=st.floats(0.01, 1.1))
def test_exits_come_in_the_first_step_that_is_sure_enough(by, size, seed, threshold):
    outputs, _ = draw(size, seed)
    for delay in (0, size[0] - 1):
        steps = exits(outputs, threshold, by, delay=delay)
        assert torch.equal(steps, one_by_one(outputs, threshold, by, delay))


@BOTH
@given(size=sizes, seed=seeds, pair=st.tuples(thresholds, thresholds))
def test_higher_thresholds_answer_later(by, size, seed, pair):
    outputs, _ = draw(size, seed)
    low, high = (exits(outputs, threshold, by) for threshold in sorted(pair))
    assert (low <= high).all()
    assert (exits(outputs, 0, by) == 1).all()
    assert (exits(outputs, NEVER, by) == size[0]).all()


@BOTH
def test_equal_logits_and_certain_ones_are_the_ends_of_certainty(by):
    for classes in range(2, 40):
        outputs = torch.zeros(3, 2, classes)
        outputs[:, 1, 1] = 1e4  # of which float64 leaves no doubt
        even = 1 / classes if by == "confidence" else 0.0
        assert exits(outputs, 0.0, by).tolist() == [1, 1], "rounding never falls below 0"
        for threshold in (even + 1e-9, 1.0):
            assert exits(outputs, threshold, by).tolist() == [3, 1]
    assert static_accuracy(outputs, torch.tensor([0, 1])).tolist() == [1, 1, 1], "the first wins"


@BOTH
@given(size=sizes, seed=seeds, threshold=thresholds)
def test_a_batch_does_not_mix(by, size, seed, threshold):
    outputs, _ = draw(size, seed)
    each = [exits(outputs[:, [b]], threshold, by) for b in range(size[1])]
    assert torch.equal(torch.cat(each), exits(outputs, threshold, by))


@BOTH
@given(size=sizes, seed=seeds, loss=st.floats(0, 1), delay=st.integers(0, 2))
def test_calibration_keeps_its_loss_with_the_lowest_threshold(by, size, seed, loss, delay):
    outputs, labels = draw(size, seed)
    delay = min(delay, size[0] - 1)
    threshold = calibrate(outputs, labels, loss, by, delay=delay)
    answers = anytime(outputs, labels, threshold, by, delay=delay)
    assert answers.accuracy >= answers.full - loss - 1e-7
    taken = exits(outputs, threshold, by, delay=delay)
    for point in curve(outputs, labels, by, delay=delay):
        if torch.equal(exits(outputs, point.threshold, by, delay=delay), taken):
            assert point.threshold <= threshold
        elif point.threshold < threshold:
            assert point.accuracy < point.full - loss + 1e-7


def test_calibration_has_its_two_ends():
    outputs = torch.zeros(4, 3, 2)
    outputs[:3, :, 0], outputs[3, :, 1] = 1, 9  # right in the last step alone
    labels = torch.ones(3).long()
    assert calibrate(outputs, labels, 0.9) == NEVER
    for right, loss in ((labels, 1.0), (1 - labels, 0.0)):  # early answers are good enough
        assert (exits(outputs, calibrate(outputs, right, loss)) == 1).all()
    assert calibrate(outputs[:1], labels, 0.0) == NEVER, "the only step is the last"


@BOTH
def test_thresholds_suit_samples_that_were_not_seen(by):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (4000,), generator=generator)
    evidence = torch.rand(4000, 1, generator=generator) * nn.functional.one_hot(labels, 4)
    noise = torch.randn(16, 4000, 4, generator=generator)
    outputs = 6 * (evidence + 0.2 * noise)
    threshold = calibrate(outputs[:, :2000], labels[:2000], 0.01, by)
    answers = anytime(outputs[:, 2000:], labels[2000:], threshold, by)
    assert answers.accuracy > answers.full - 0.015 and answers.share < 0.4
    assert answers.accuracy > answers.random + 0.08 > answers.first


@given(st.integers(1, 4), st.integers(1, 4), seeds, thresholds)
def test_random_exit_is_the_mean_over_all_ways_of_dealing_the_steps(steps, batch, seed, threshold):
    outputs, labels = draw((steps, batch, 2), seed)
    answers, taken = anytime(outputs, labels, threshold), exits(outputs, threshold)
    right = logits_by_step(outputs).argmax(-1) == labels
    ways = permutations((taken - 1).tolist())
    dealt = [right[list(way), range(batch)].double().mean() for way in ways]
    assert answers.random == pytest.approx(float(torch.stack(dealt).mean()))
    assert answers.steps == pytest.approx(float(taken.double().mean()))
    assert answers.of == steps and answers.share == answers.steps / steps


def test_a_summary_holds_what_it_stands_beside():
    outputs = torch.tensor([[[2.0, 0.0], [0.0, 0.1]], [[2.0, 0.0], [0.9, 0.0]]])
    labels = torch.tensor([0, 0])
    assert anytime(outputs, labels, 0.8) == Anytime(
        threshold=0.8, steps=1.5, of=2, accuracy=1.0, random=0.75, first=0.5, full=1.0
    )
    assert anytime(outputs, labels, 0.0, delay=1).steps == 2


@BOTH
@pytest.mark.parametrize("size", [(1, 3, 2), (4, 5, 3), (8, 40, 4)])
def test_a_curve_runs_from_the_first_step_to_the_last(by, size):
    outputs, labels = draw(size, scale=1.7)
    points = curve(outputs, labels, by)
    assert len(points) <= POINTS + 2
    assert [p.steps for p in points] == sorted(p.steps for p in points)
    assert points[0].steps == 1 and points[-1].steps == size[0]
    static = static_accuracy(outputs, labels)
    assert points[0].accuracy == points[0].random == points[0].first == float(static[0])
    assert points[-1].accuracy == points[-1].random == points[-1].full == float(static[-1])
    for point in points:
        assert point == anytime(outputs, labels, point.threshold, by)
    delayed = curve(outputs, labels, by, delay=size[0] - 1)
    assert {p.steps for p in delayed} == {size[0]}


def test_points_of_a_curve_lie_evenly():
    outputs = torch.randn(8, 200, 5, generator=torch.Generator().manual_seed(0))
    steps = torch.tensor([p.steps for p in curve(outputs, torch.zeros(200).long())])
    assert len(steps) > POINTS * 0.7 and steps.diff().max() < 2 * 7 / POINTS


OUTPUTS, LABELS = draw((3, 2, 4))


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        (OUTPUTS[0], LABELS, r"must be \[T, B, C\]"),
        (OUTPUTS[:0], LABELS, "with a step"),
        (OUTPUTS[:, :0], LABELS[:0], "a sample"),
        (OUTPUTS[..., :1], 0 * LABELS, "two classes"),
        (OUTPUTS, LABELS[:1], "labels"),
        (OUTPUTS, LABELS[None], "labels"),
        (OUTPUTS, LABELS.float(), "give classes"),
        (OUTPUTS, LABELS + 4, "network has 4 classes"),
        (OUTPUTS, LABELS - 4, "labels run from -"),
    ],
)
def test_outputs_and_labels_that_do_not_fit_are_refused(outputs, labels, message):
    at = partial(anytime, threshold=0.5)
    for ask in (static_accuracy, curve, at, partial(calibrate, loss=0.01)):
        with pytest.raises(InputError, match=message):
            ask(outputs, labels)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_not_finite_are_refused(bad):
    outputs = OUTPUTS.clone()
    outputs[1, 1, 1] = bad
    with pytest.raises(NotFinite, match="not finite"):
        exits(outputs, 0.5)


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match="NaN"):
        exits(OUTPUTS, math.nan)
    with pytest.raises(InputError, match="confidence, entropy"):
        exits(OUTPUTS, 0.5, "margin")
    for delay in (-1, 3):
        with pytest.raises(InputError, match=f"delay {delay} of 3 steps"):
            logits_by_step(OUTPUTS, delay)
    for loss in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="no share"):
            calibrate(OUTPUTS, LABELS, loss)

import math
from functools import partial
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx, nn

from axonal.core.errors import InputError, NotFinite
from axonal.learn.anytime import (
    BATCH,
    NEVER,
    POINTS,
    Anytime,
    anytime,
    calibrate,
    centroid,
    curve,
    exits,
    fisher_information,
    running_mean,
    static_accuracy,
)
from axonal.models.spiking import SpikingClassifier, SpikingConfig
from axonal.nn import LIF, Difference, GraphModule, Sequential

BOTH = pytest.mark.parametrize("by", ["confidence", "entropy"])
seeds = st.integers(0, 2**16)
sizes = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(2, 4))
thresholds = st.one_of(st.floats(0, 1.1), st.sampled_from([0.0, 0.25, 0.5, 1.0, NEVER]))


def draw(size, seed=0, scale=2.0):
    """Outputs [T, B, C] with many ties, and labels [B]."""
    generator = torch.Generator().manual_seed(seed)
    outputs = (scale * torch.randn(size, generator=generator)).round()
    return outputs, torch.randint(size[2], size[1:2], generator=generator)


def inputs(steps=5, batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(steps, batch, 6, generator=generator)
    return x, torch.randint(3, (batch,), generator=generator)


def linear():
    torch.manual_seed(0)
    return Sequential(nn.Linear(6, 3).double())


def spiking(**options):
    torch.manual_seed(0)
    network = Sequential(nn.Linear(6, 8), LIF(0.8), nn.Linear(8, 3), **options)
    with torch.no_grad():
        network[0].weight *= 3
    return network


def branched():
    """A branched network with a state and a function of rates, as conversions make them."""
    torch.manual_seed(0)
    parts = {"map": nn.Linear(6, 6), "spikes": LIF(0.9), "norm": Difference(nn.LayerNorm(6))}
    graph = fx.Graph()
    x = graph.placeholder("x")
    values = [x]
    for name in parts:
        values.append(graph.call_module(name, (values[-1],)))
    graph.output(graph.call_module("read", (graph.call_function(torch.add, (values[-1], x)),)))
    network = GraphModule(fx.GraphModule(parts | {"read": nn.Linear(6, 3)}, graph))
    with torch.no_grad():
        parts["map"].weight *= 4
    return network.requires_grad_(False)


def by_truncation(network, x, labels, batch=1):
    """The information of each step from a run that ends there."""
    network = network.eval().requires_grad_(True)
    information = torch.zeros(len(x), dtype=torch.float64)
    for first in range(0, len(labels), batch):
        for t in range(len(x)):
            network.zero_grad()
            some = x[: t + 1, first : first + batch]
            logits = network(some)[0].double().mean(0)
            nn.functional.cross_entropy(logits, labels[first : first + batch]).backward()
            information[t] += sum(p.grad.double().square().sum() for p in network.parameters())
    return information * batch / len(labels)


@pytest.mark.parametrize("per_sample", [True, False])
def test_information_of_a_linear_read_out_is_known(per_sample):
    x, labels = inputs(batch=2 * BATCH)
    network, x = linear(), x.double()
    information = fisher_information(network, x, labels, per_sample)
    # d log p(y | W m + b) / d(W, b) = (e_y - p) (m, 1)^T with m the running mean of x.
    m = x.cumsum(0) / torch.arange(1, 6)[:, None, None]
    error = nn.functional.one_hot(labels, 3) - network[0](m).softmax(-1)
    gradients = error[..., None] * torch.cat([m, torch.ones(5, 2 * BATCH, 1)], -1)[:, :, None]
    if not per_sample:
        gradients = gradients.unflatten(1, (2, BATCH)).mean(2)
    torch.testing.assert_close(information.total, gradients.square().sum((2, 3)).mean(1))


@pytest.mark.parametrize("network", [spiking, branched, lambda: spiking(recompute=True)])
def test_information_is_that_of_runs_which_end_early(network):
    x, labels = inputs(batch=BATCH)
    network = network()
    information = fisher_information(network, x, labels)
    expected = by_truncation(network, x, labels)
    assert (expected > 0).all()
    torch.testing.assert_close(information.total, expected, rtol=1e-4, atol=0)
    batches = fisher_information(network, x, labels, per_sample=False).total
    torch.testing.assert_close(batches, by_truncation(network, x, labels, BATCH), rtol=1e-4, atol=0)
    assert (batches <= information.total).all(), (
        "a mean's square is no more than the mean of squares"
    )


def test_information_comes_by_layer_and_adds_up():
    config = SpikingConfig(shape=(1, 6, 6), layers=("3c3", "5"), classes=3, steps=4)
    torch.manual_seed(1)
    model = SpikingClassifier(config)
    x = model.encode(torch.rand(2, 1, 6, 6) * 2 - 1)
    information = fisher_information(model.network, x, torch.tensor([0, 2]))
    assert [*information.layers] == ["0", "3", "5"]
    assert all(values.shape == (4,) for values in information.layers.values())
    torch.testing.assert_close(sum(information.layers.values()), information.total)
    nodes = fisher_information(branched(), *inputs()).layers
    assert [*nodes] == ["graph.map", "graph.norm.function", "graph.read"]


def test_samples_are_independent():
    network, (x, labels) = spiking(), inputs()
    each = [fisher_information(network, x[:, [b]], labels[[b]]).total for b in range(4)]
    information = fisher_information(network, x, labels).total
    torch.testing.assert_close(information, torch.stack(each).mean(0))


def test_the_network_is_left_as_it_was():
    layers = nn.Linear(6, 8), nn.BatchNorm1d(8), LIF(0.8), nn.Dropout(), nn.Linear(8, 3)
    network = Sequential(*layers)
    network[0].requires_grad_(False)
    network[1].eval()
    network.unused = nn.Parameter(torch.ones(2, dtype=torch.long), requires_grad=False)
    modes = [m.training for m in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, labels = inputs()
    with torch.no_grad():
        information, again = (fisher_information(network, x, labels).total for _ in range(2))
    torch.testing.assert_close(information, again, rtol=0, atol=0)
    assert [m.training for m in network.modules()] == modes
    assert not network[0].weight.requires_grad and network[4].weight.requires_grad
    assert all(p.grad is None for p in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(InputError):
        fisher_information(network, x, labels + 3)
    assert [m.training for m in network.modules()] == modes


def test_layers_that_nothing_depends_on_have_no_information():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.other = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x):
            return self.read(x), None

    information = fisher_information(Beside(), *inputs())
    assert not information.layers["other"].any() and information.layers["read"].all()
    assert math.isnan(centroid(information.layers["other"]))


def test_the_centroid_is_the_step_information_lies_around():
    for information, step in (([0, 0, 3], 3), ([2, 0], 1), ([1] * 7, 4), ([1, 1, 2], 9 / 4)):
        assert centroid(torch.tensor(information).double()) == pytest.approx(step)


class Lost(nn.Linear):
    def forward(self, input):
        return super().forward(input).detach(), None


class Steep(nn.Linear):
    def forward(self, input):
        y = super().forward(input)
        return y.sign() * (y.abs() - y.abs().detach()).sqrt(), None


@pytest.mark.parametrize(
    ("network", "x", "labels", "message"),
    [
        (spiking, torch.ones(5, 0, 6), torch.zeros(0).long(), "with samples"),
        (spiking, torch.ones(0, 2, 6), torch.zeros(2).long(), "with samples"),
        (spiking, torch.ones(5, 2, 6), torch.zeros(3).long(), r"labels \[3\] must be"),
        (spiking, torch.ones(5), torch.zeros(5).long(), "must be"),
        (spiking, torch.ones(5, 2, 6), torch.tensor([0, 3]), "labels run from 3 to 3"),
        (spiking, torch.ones(5, 2, 6), torch.zeros(2), "give classes"),
        (spiking, torch.full((5, 2, 6), math.nan), torch.zeros(2).long(), "NaN"),
        (linear, torch.full((5, 2, 6), math.nan).double(), torch.zeros(2).long(), "not finite"),
        (Sequential, torch.ones(5, 2, 6), torch.zeros(2).long(), "no gradient"),
        (lambda: Lost(6, 3), torch.ones(5, 2, 6), torch.zeros(2).long(), "no gradient"),
        (lambda: Steep(6, 3), torch.ones(5, 2, 6), torch.zeros(2).long(), "gradient of weight"),
    ],
)
def test_what_has_no_information_is_refused(network, x, labels, message):
    with pytest.raises(InputError, match=message):
        fisher_information(network(), x, labels)
    with pytest.raises(InputError, match="a multiple of 16"):
        fisher_information(spiking(), *inputs(batch=BATCH + 1), per_sample=False)


@given(sizes, seeds)
def test_running_means_are_means(size, seed):
    outputs, _ = draw(size, seed)
    for delay in range(size[0]):
        means = running_mean(outputs, delay)
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
    right = running_mean(outputs).argmax(-1) == labels
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
            running_mean(OUTPUTS, delay)
    for loss in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="no share"):
            calibrate(OUTPUTS, LABELS, loss)

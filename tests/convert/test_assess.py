"""What an assessment says of networks whose activity is known, against sums by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from axonal.convert.api import METHODS, convert
from axonal.convert.assess import CHANGES, GRADED, assess
from axonal.core.errors import InputError
from axonal.nn import QCFS

PICO = 1e-12


def switches(*rows):
    """A network whose hidden values are its inputs, 0 or 1, and its samples."""
    x = torch.tensor(rows, dtype=torch.float32)
    hidden, out = nn.Linear(x.shape[1], x.shape[1], bias=False), nn.Linear(x.shape[1], 2)
    with torch.no_grad():
        hidden.weight.copy_(torch.eye(x.shape[1]))
    return nn.Sequential(hidden, nn.ReLU(), out), x


def test_shares_are_those_of_what_is_read():
    model, x = switches([1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0])
    first, second = assess(model, x, steps=1).layers
    for layer in (first, second):
        assert layer.zeros == pytest.approx(7 / 12) and layer.sites == 3
        assert layer.change == pytest.approx(2 / 9)  # of three pairs of samples
    assert first.dense == 9 and second.dense == 6
    assert first.sent["binary"] is None  # it reads the input
    assert second.sent["binary"] == pytest.approx(5 / 12)
    assert second.sent["graded"] == pytest.approx(2 * 5 / 12)  # in both its steps
    assert second.sent["changes"] == pytest.approx(2 / 9)


def test_the_break_even_by_hand():
    model, x = switches([1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0])
    layer = assess(model, x, steps=1).layers[1]
    # Low: multiply 0.2 pJ, add 0.03 pJ, 8 bits 1.25 pJ and 16 bits 2.5 pJ of an 8 KiB memory.
    ann = 6 * (0.2 + 0.03 + 1.25) + (3 + 2) * 1.25
    updates = 2 * 2 * (0.03 + 2.5)  # two additions and reads for each of two neurons
    event = 6 * (0.03 + 1.25 + 2 * 2.5)
    assert layer.ann.total.low == pytest.approx(ann * PICO)
    assert layer.break_even["binary"].low == pytest.approx((ann - updates) / event)
    assert layer.joules["binary"].low == pytest.approx((updates + 5 / 12 * event) * PICO)
    graded = event + 6 * 0.2
    even = max(0.0, ann - 2 * updates) / graded
    assert layer.break_even["graded"].low == pytest.approx(even)
    assert layer.joules["graded"].low == pytest.approx((2 * updates + 10 / 12 * graded) * PICO)
    assert layer.skipping.low == pytest.approx(
        (5 / 12 * 6 * (0.2 + 0.03 + 1.25) + (3 + 2) * 1.25) * PICO
    )


def test_a_weight_is_fetched_once_where_it_is_used_at_many_places():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 3, 1))
    torch.manual_seed(0)
    result = assess(model, torch.randn(4, 1, 5, 4))
    assert [layer.ann.reuse for layer in result.layers] == [20, 20]
    assert result.ann.reuse == pytest.approx(20)
    often = result.times(GRADED), result.times(GRADED, reuse=False)
    assert all(without < once for once, without in zip(*often, strict=True))


@pytest.mark.parametrize("way", ["binary", "graded", "changes"])
@given(data=st.data())
def test_sparser_values_never_cost_more(way, data):
    count = data.draw(st.integers(1, 12))
    less = data.draw(st.integers(0, count))

    def joules(ones):
        x = torch.zeros(12 * 4)
        x[: 2 * ones : 2] = 1
        model, x = switches(*x.reshape(12, 4).tolist())
        return assess(model, x, steps=3).layers[1].joules[way]

    assert all(a <= b * (1 + 1e-9) for a, b in zip(joules(less), joules(count), strict=True))


def wide(active, kind=nn.ReLU):
    """A layer of 400 x 400 weights whose inputs are 1 in one sample of `active`."""
    torch.manual_seed(0)
    first, second = nn.Linear(400, 400, bias=False), nn.Linear(400, 400)
    with torch.no_grad():
        first.weight.copy_(torch.eye(400))
    x = (torch.rand(50, 400) < active).float()
    return nn.Sequential(first, kind(), second), x


def test_verdicts_follow_the_events():
    busy, sparse = assess(*wide(0.9)), assess(*wide(0.01))
    assert busy.verdict.startswith("Not worth it: no layer pays") and busy.paying() == [[]] * 3
    assert sparse.verdict.startswith("Not worth it as a whole")  # its first layer reads the input
    assert sparse.paying() == [["_2"]] * 3 and "Alone would pay: _2" in sparse.verdict
    assert sparse.layers[1].sent["graded"] < min(sparse.layers[1].break_even["graded"])


def test_a_stream_that_hardly_changes_is_worth_it():
    model, x = wide(0.5)
    x = x[:1].repeat(50, 1)
    x[10:, 0] = 1 - x[10:, 0]
    alone, stream = assess(model, x), assess(model, x, stream=True)
    assert CHANGES not in alone.ways and alone.method == "graded"
    assert stream.best is CHANGES and stream.method == "sigma-delta"
    assert stream.verdict.startswith("Worth it: changes alone would cost")
    assert max(stream.times(CHANGES)) < 1


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        seen = self.norm(x)
        return self.head((x + self.mix(seen, seen, seen)[0]).mean(1))


MODELS = {
    "graded": nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)),
    "qcfs": nn.Sequential(nn.Linear(4, 5), QCFS(4), nn.Linear(5, 2)),
    "signed": nn.Sequential(nn.Linear(4, 5), nn.LeakyReLU(0.1), nn.Linear(5, 2)),
    "transformer": Attention(),
}


@pytest.mark.parametrize("method", MODELS)
def test_the_method_follows_the_network(method):
    torch.manual_seed(0)
    x = torch.randn(40, 3, 4) if method == "transformer" else torch.randn(40, 4)
    result = assess(MODELS[method], x)
    assert result.method == method and result.method in METHODS
    convert(MODELS[method], x, method=result.method, T=2)  # is possible
    if method == "transformer":
        assert result.apart == ("LayerNorm", "matmul", "softmax")
        assert [layer.sites for layer in result.layers][:-1] == [12] * 4


def test_what_has_no_activation_is_not_worth_it():
    result = assess(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), torch.randn(5, 2, 3))
    assert result.method is None and "no activation" in result.verdict
    assert result.verdict.startswith("Not worth it")


def test_activity_is_what_the_converted_network_does():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 60), nn.ReLU(), nn.Linear(60, 40), nn.ReLU())
    model.append(nn.Linear(40, 10))
    x = torch.randn(200, 30)
    result = assess(model, x, steps=4)
    for method, steps in (("graded", 2), ("qcfs", 4)):
        way = "binary" if method == "qcfs" else method
        sent = [(layer.sent[way], layer.dense) for layer in result.layers]
        told = sum((steps if events is None else events) * work for events, work in sent)
        _, certificate = convert(model, x, method=method, T=steps)
        assert told == pytest.approx(certificate.synops, rel=0.15)


def test_the_model_is_left_as_it_is():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3))
    model(torch.randn(8, 1, 8, 8))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assess(model, torch.randn(3, 1, 8, 8))
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (MODELS["graded"], torch.ones(1, 4), "N >= 2"),
        (MODELS["graded"], torch.ones(4, dtype=torch.int64), "must be finite numbers"),
        (MODELS["graded"], torch.full((3, 4), torch.nan), "must be finite numbers"),
        (MODELS["graded"], torch.ones(3, 5), "refuses samples"),
        (nn.ReLU(), torch.ones(3, 5), "nothing to price"),
        (nn.Sequential(nn.Linear(4, 4), nn.Softsign()), torch.ones(3, 4), "no rule to convert"),
    ],
)
def test_what_can_not_be_assessed_is_told(model, x, message):
    with pytest.raises(InputError, match=message):
        assess(model, x)
    with pytest.raises(InputError, match="T is 0"):
        assess(MODELS["graded"], torch.ones(3, 4), steps=0)


def test_weights_that_are_not_finite_are_told():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[2].weight[0, 0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        assess(model, torch.ones(3, 2))

"""What each method decides, and how near the network comes that it makes."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from axonal.convert import METHODS, quantisable
from axonal.convert.activations import BATCH, Calibration, Observed, observe, values_of
from axonal.convert.methods.baselines import LEAST_READ, PERCENTILE, levels
from axonal.convert.methods.graded import ceiling, quantised
from axonal.convert.plan import Plan, Population, assemble
from axonal.convert.tracing import prepared, rectifiers
from axonal.core.errors import InputError
from axonal.nn import QCFS

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def converted(network, images):
    """`converted(kind, method, T)`: the prepared network, the spiking one and its plan."""

    def convert(kind, method, T, x=None, **options):
        schedule = options.get("schedule", "waiting" if method == "qcfs" else "pipelined")
        dense = prepared(network(kind), schedule)
        x = images(60) if x is None else x
        plan = METHODS[method](dense, Calibration(x, T), **options)
        return dense, assemble(dense, plan), plan

    return convert


def error(dense, spiking, x):
    output = dense(x)
    return float((spiking.answer(x) - output).norm() / output.norm())


def seen(values, dims=3):
    values = torch.as_tensor(values, dtype=torch.float32)
    return Observed(values, values.abs().amax(1), dims)


# What the output errs by in 64 steps: a rounding in each layer of so many levels, and the clip.
BOUNDS = {
    ("plain", "graded"): 0.01,
    ("plain", "qcfs"): 0.02,
    ("plain", "transformer"): 0.01,
    ("plain", "signed"): 0.05,
    ("plain", "maximum"): 0.08,
    ("plain", "percentile"): 0.08,
    ("plain", "balanced"): 0.1,
    ("plain", "corrected"): 0.02,
    ("residual", "graded"): 0.01,
    ("residual", "qcfs"): 0.03,
    ("residual", "maximum"): 0.1,
    ("residual", "corrected"): 0.03,
    ("pooled", "graded"): 0.04,
    ("pooled", "qcfs"): 0.04,
    ("pooled", "signed"): 0.05,
    ("leaky", "graded"): 0.02,
    ("leaky", "signed"): 0.1,
    ("leaky", "percentile"): 0.1,
    ("leaky", "corrected"): 0.1,
    ("leaky", "transformer"): 0.03,
    ("transformer", "transformer"): 0.02,
}


@pytest.mark.parametrize(("kind", "method"), BOUNDS)
def test_errors_fall_with_steps(kind, method, converted, images):
    options = {"rounds": 500, "rate": 0.2} if method == "balanced" else {}
    result, x = [], images(20, seed=2)
    for T in (2, 16, 64):
        dense, spiking, plan = converted(kind, method, T, **options)
        assert all((p.threshold > 0).all() for p in plan.populations.values())
        result.append(error(dense, spiking, x))
    assert result[2] <= BOUNDS[kind, method]
    assert result[1] <= 1.1 * result[0] and result[2] <= 1.1 * result[1] + 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_samples_do_not_meet(method, converted, images):
    kind, x = "transformer" if method == "transformer" else "residual", images(7, seed=2)
    _, spiking, _ = converted(kind, method, 6, **{"rounds": 5} if method == "balanced" else {})
    total = spiking.answer(x)
    for rows in (slice(0, 1), slice(3, 7)):
        torch.testing.assert_close(spiking.answer(x[rows]), total[rows], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_silence_is_the_answer_to_silence(method, network):
    """Without biases nothing is sent for a picture of zeros."""
    layers = [nn.Conv2d(2, 6, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(216, 3, False)]
    dense = prepared(nn.Sequential(*layers))
    plan = METHODS[method](dense, Calibration(torch.randn(20, 2, 8, 8), 4))
    spiking, sent = assemble(dense, plan), []
    for neuron in spiking.populations().values():
        neuron.register_forward_hook(lambda m, args, y: sent.append(y[0].any()))
    y, _ = spiking(spiking.fed(torch.zeros(2, 2, 8, 8)))
    assert not y.any() and sent and not any(sent)


DRAWS = {
    "half normal": lambda n: torch.randn(n).relu(),
    "exponential": lambda n: torch.empty(n).exponential_(),
    "uniform": torch.rand,
    "both signs": torch.randn,
    "an outlier": lambda n: torch.cat([torch.rand(n - 1), torch.tensor([8.0])]),
}


@pytest.mark.parametrize("most", [1, 3, 15, 255])
@pytest.mark.parametrize("draw", DRAWS)
def test_ceilings_err_least(draw, most):
    torch.manual_seed(0)
    values = torch.stack([DRAWS[draw](1000) * scale for scale in (1e-3, 1, 50)])
    result = ceiling(seen(values), most)
    assert result.shape == (3, 1, 1)
    for row, one in zip(values, result.flatten(), strict=True):
        tried = torch.linspace(0.01, 1.5, 1500)[:, None] * row.abs().max()
        errors = (row - quantised(row, tried, most)).square().mean(1)
        reached = (row - quantised(row, one.reshape(1, 1), most)).square().mean()
        assert reached <= (1.02 if most < 100 else 1.12) * errors.min()


def test_values_are_rounded_to_the_nearest_and_clipped():
    y = torch.tensor([[-9.0, -0.4, -0.2, 0.0, 0.2, 0.3, 0.8, 1.0, 5.0]])
    expected = [-1, -0.5, 0, 0, 0, 0.5, 1, 1, 1]
    assert quantised(y, torch.tensor([[1.0]]), 2)[0].tolist() == expected


@pytest.mark.parametrize("method", ["graded", "signed", "balanced", "corrected"])
def test_channels_that_are_always_silent_get_the_largest_threshold(method, network, images):
    model = network("plain")
    model[4].weight[3], model[4].bias[3] = 0, -1
    options = {"rounds": 50} if method == "balanced" else {}
    plan = METHODS[method](prepared(model), Calibration(images(60), 8), **options)
    thresholds = plan.populations["_5"].threshold.flatten()
    assert thresholds.isfinite().all()
    if method == "balanced":
        assert 0 < thresholds[3] < thresholds.max()
    else:
        assert thresholds[3] == thresholds.max()


@settings(max_examples=20)
@given(st.floats(0.01, 1), st.integers(0, 100))
def test_levels_are_quantiles_of_what_is_not_silent(share, seed):
    torch.manual_seed(seed)
    values = torch.randn(4, 200).relu() * torch.tensor([[1.0], [0.1], [9.0], [0.0]])
    values[1, 5:] = 0
    result = levels(seen(values), share).flatten()
    positive = torch.where(values > 0, values, torch.nan)
    expected = torch.nanquantile(positive, share, dim=1).nan_to_num(0)
    torch.testing.assert_close(result, torch.where(expected > 0, expected, expected.max()))


def test_a_layer_may_have_more_values_than_torch_sorts_at_once():
    values = torch.arange(2**24 + 8, dtype=torch.float32)[None]
    assert abs(float(levels(seen(values, 1), 0.5)) - 2**23) < 8


def test_one_threshold_a_layer(network, images):
    dense, x = prepared(network("plain")), images(60)
    values, _ = values_of(dense, [*rectifiers(dense)], x)
    plan = METHODS["maximum"](dense, Calibration(x, 8))
    for name, population in plan.populations.items():
        assert population.threshold == values[name].max() and population.emit == "multiple"
    plan = METHODS["percentile"](dense, Calibration(x, 8))
    for name, population in plan.populations.items():
        above = values[name][values[name] > 0]
        assert float(population.threshold) == pytest.approx(
            float(above.quantile(PERCENTILE)), rel=0.1
        )
        assert population.threshold <= values[name].max()


def test_one_threshold_a_channel(network, images):
    dense, x = prepared(network("leaky")), images(60)
    values, _ = values_of(dense, ["_2"], x)
    plan = METHODS["signed"](dense, Calibration(x, 8), share=1)
    torch.testing.assert_close(
        plan.populations["_2"].threshold.flatten(), values["_2"].abs().amax((0, 2, 3))
    )
    assert {name: p.slope for name, p in plan.populations.items()} == dict.fromkeys(
        ("_2", "_5", "_8"), pytest.approx(0.1)
    )


def test_leaky_rectifiers_send_negative_spikes(converted, images):
    _, spiking, _ = converted("leaky", "signed", 64)
    sent = []
    spiking.populations()["_2"].register_forward_hook(lambda m, args, y: sent.append(y[0]))
    spiking.answer(images(4))
    assert {-1.0, 0.0, 1.0} == {*sent[0].unique().tolist()}


def test_more_bits_err_less(converted, images):
    result, x = [], images(20, seed=2)
    for bits in range(1, 9):
        dense, spiking, plan = converted("residual", "graded", 4, bits=bits)
        assert plan.levels == 4 * (2**bits - 1)
        result.append(error(dense, spiking, x))
    assert all(b <= 1.05 * a for a, b in pairwise(result))
    assert result[0] > 8 * result[7] and result[7] < 0.01


def exact(dense, spiking, plan, x):
    """Every population sends what it stands for, and the answer is the network's."""
    sent = {}
    for name, neuron in spiking.populations().items():
        neuron.register_forward_hook(lambda m, a, y, name=name: sent.update({name: y[0].sum(0)}))
    stepwise, _ = spiking(spiking.fed(x))
    values, output = values_of(dense, [*plan.populations], x)
    for name, population in plan.populations.items():
        counts = values[name] * plan.steps / population.threshold
        torch.testing.assert_close(sent[name], counts.round(), rtol=0, atol=0)
        torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-4)
    assert sum(s.sum() for s in sent.values()) > 0
    torch.testing.assert_close(stepwise[spiking.delay :].mean(0), output, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(spiking.answer(x), output, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("T", [1, 4, 8])
@pytest.mark.parametrize(("kind", "depth"), [("plain", 3), ("residual", 4), ("pooled", 2)])
def test_a_quantised_network_that_waits_is_exact(kind, depth, T, network, images):
    for seed in range(3):
        dense = prepared(network(kind, T, seed), "waiting")
        plan = METHODS["qcfs"](dense, Calibration(images(20), T))
        spiking = assemble(dense, plan)
        assert spiking.latency == (depth + 1) * T and plan.schedule == "waiting"
        exact(dense, spiking, plan, images(10, seed=2))


def test_a_quantised_network_in_a_pipeline_errs_by_the_order_of_spikes(network, images):
    x, result = images(20, seed=2), []
    for schedule in ("pipelined", "waiting"):
        dense = prepared(network("residual", 4), schedule)
        plan = METHODS["qcfs"](dense, Calibration(images(20), 4), schedule=schedule)
        assert plan.schedule == schedule
        result.append(error(dense, assemble(dense, plan), x))
    assert result[0] > 0.01 and result[1] < 1e-5


def test_rectifiers_that_were_not_trained_so_are_exact_at_their_ceilings(converted, images):
    dense, spiking, plan = converted("pooled", "qcfs", 4)
    clipped = network_with(dense, plan)
    torch.testing.assert_close(spiking.answer(images(9)), clipped(images(9)), rtol=1e-4, atol=1e-4)


def network_with(dense, plan):
    """The prepared network with the quantised activations that a plan stands for."""
    for name, population in plan.populations.items():
        setattr(dense, name, Quantised(population.threshold, plan.steps))
    return dense


class Quantised(nn.Module):
    def __init__(self, ceiling, levels):
        super().__init__()
        self.ceiling, self.levels = ceiling, levels

    def forward(self, x):
        return quantised(x.relu(), self.ceiling, self.levels)


def test_quantisable_replaces_every_rectifier():
    act = nn.ReLU()
    model = nn.Sequential(nn.Linear(2, 3), act, nn.Sequential(nn.Linear(3, 3), nn.ReLU(), act))
    model.again = model[1]
    twin = quantisable(model, 6)
    result = [m for m in twin.modules() if isinstance(m, QCFS)]
    assert len(result) == 4 and all(m.levels == 6 for m in result)
    assert not any(isinstance(m, nn.ReLU) for m in twin.modules()) and model[1] is act
    assert twin[0].weight is not model[0].weight
    with pytest.raises(InputError, match=r"Linear has no nn\.ReLU modules"):
        quantisable(nn.Linear(2, 2), 4)


def test_one_round_of_balancing_is_its_equation(network, images):
    x = images(60)
    dense = prepared(network("plain"))
    plan = METHODS["balanced"](dense, Calibration(x, 8), rounds=1, rate=0.25)
    pick = torch.randint(60, (BATCH,), generator=torch.Generator().manual_seed(0))
    # From thresholds of zero on, the first layer alone has anything above them.
    y = dense.get_submodule("_0_fused")(x[pick]).relu()
    expected = 2 * 0.25 * y.mean((0, 2, 3))
    torch.testing.assert_close(plan.populations["_2"].threshold.flatten(), expected)


def test_balancing_goes_on_below_the_largest_value(converted, images):
    thresholds = []
    for rounds in (10, 100, 400):
        dense, _, plan = converted("plain", "balanced", 8, rounds=rounds)
        thresholds.append(plan.populations["_2"].threshold)
    values, _ = values_of(dense, ["_2"], images(60))
    largest = values["_2"].amax((0, 2, 3)).reshape(-1, 1, 1)
    assert (thresholds[0] < thresholds[1]).all() and (thresholds[1] < thresholds[2]).all()
    assert (thresholds[2] < largest).all()


@pytest.mark.parametrize("T", [2, 8, 32])
def test_a_balanced_network_is_read_late(T, converted, images):
    _, spiking, plan = converted("residual", "balanced", T, rounds=100)
    assert plan.steps + plan.delay == T == spiking.latency
    assert plan.steps >= min(T, LEAST_READ) and (plan.delay > 0 or T <= LEAST_READ)
    assert spiking.outputs(images(2)).shape == (plan.steps, 2, 5)


def test_correction_puts_means_right(converted, images):
    x = images(60)
    dense, spiking, plan = converted("residual", "corrected", 4, x=x)
    bare = {n: Population(p.threshold, slope=p.slope) for n, p in plan.populations.items()}
    before = assemble(dense, Plan("bare", 4, plan.shape, bare))
    target, _ = values_of(dense, [*plan.populations], x)
    biases = []
    for built in (before, spiking):
        sent = {}
        for name, neuron in built.populations().items():
            neuron.register_forward_hook(lambda m, a, y, n=name, s=sent: s.update({n: y[0]}))
        built.answer(x)
        missing = {
            n: target[n] - plan.populations[n].threshold * s.mean(0) for n, s in sent.items()
        }
        biases.append({n: float(m.mean((0, 2, 3)).square().mean()) for n, m in missing.items()})
    assert all(p.offset.shape == p.threshold.shape for p in plan.populations.values())
    assert sum(biases[1].values()) < 0.5 * sum(biases[0].values())
    y = images(40, seed=2)
    assert error(dense, spiking, y) < error(dense, before, y)


def test_everything_that_weights_and_products_read_is_encoded(network, images):
    model = network("transformer")
    plan = METHODS["transformer"](prepared(model), Calibration(images(20), 4), bits=4)
    block = ["norm1", "attention_query", "attention_key", "attention_value", "norm2", "mlp_1"]
    expected = {f"blocks_{i}_{name}" for i in range(2) for name in block} | {"norm"}
    expected |= {"softmax", "softmax_1", "matmul_1", "matmul_3"}  # weights times values
    assert {*plan.populations} == expected
    assert all(p.slope == 1 for p in plan.populations.values())
    assert {p.levels for p in plan.populations.values()} == {7} and plan.levels == 28


def test_more_bits_of_encoders_err_less(converted, images):
    x, result = images(20, seed=2), []
    for bits in (2, 4, 8):
        dense, spiking, _ = converted("transformer", "transformer", 8, bits=bits)
        result.append(error(dense, spiking, x))
    assert result[0] > 1.5 * result[1] > 3 * result[2]


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("graded", {"bits": 0}, "0 bits of a spike; choose 1 to 16"),
        ("graded", {"bits": 17}, "choose 1 to 16"),
        ("graded", {"bits": 2.5}, "2.5 bits"),
        ("graded", {"bits": True}, "True bits"),
        ("transformer", {"bits": 1}, "choose 2 to 16"),
        ("percentile", {"share": 0}, "share of 0"),
        ("percentile", {"share": 1.1}, "share of 1.1"),
        ("signed", {"share": float("nan")}, "share of nan"),
        ("signed", {"share": "most"}, "share of 'most'"),
        ("balanced", {"rounds": 0}, "0 rounds"),
        ("balanced", {"rounds": 1.5}, "1.5 rounds"),
        ("balanced", {"rate": 0}, "rate 0"),
        ("balanced", {"rate": float("inf")}, "rate inf"),
        ("qcfs", {"schedule": "later"}, "no schedule 'later'"),
    ],
)
def test_options_out_of_range_are_refused(method, options, message, network):
    def no_work(*_):
        raise AssertionError("work began")

    dense = prepared(network("plain"))
    dense.register_forward_pre_hook(no_work)
    with pytest.raises(InputError, match=message):
        METHODS[method](dense, Calibration(torch.zeros(4, 2, 8, 8), 4), **options)


def test_leaky_rectifiers_do_not_wait(network):
    with pytest.raises(InputError, match=r"_2 is leaky.*choose schedule='pipelined'"):
        METHODS["qcfs"](prepared(network("leaky")), Calibration(torch.zeros(4, 2, 8, 8), 4))


def test_nothing_to_encode_is_refused():
    dense = prepared(nn.Sequential(nn.Flatten(), nn.Linear(128, 3)))
    with pytest.raises(InputError, match="nothing would be converted"):
        METHODS["transformer"](dense, Calibration(torch.zeros(4, 2, 8, 8), 4))


def test_what_is_observed_of_few_samples_is_enough(network, images):
    dense = prepared(network("plain"))
    result = observe(dense, ["_2"], images(1))
    assert result["_2"].values.shape[0] == 6 and result["_2"].dims == 3

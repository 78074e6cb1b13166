import json

import pytest
import torch
from torch import nn

from axonal.convert.calibrate import _Trial, calibrate
from axonal.convert.certificate import Certificate
from axonal.convert.methods.sigma_delta import sigma_delta
from axonal.core.errors import InputError
from axonal.nn.meter import Meter

BUDGET = 0.02


def network(seed=0):
    """A net whose populations differ: one is read by 8 channels, the other by 1."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, 1, 1))


def walk(seed, samples=3):
    x = torch.randn(6, samples, 1, 6, 6, generator=torch.Generator().manual_seed(seed)).cumsum(0)
    return lambda twin: twin(x / 2, twin.start(batch=samples))[0].movedim(0, 1)


def converted(seed=0):
    return sigma_delta(network(seed), torch.zeros(1, 1, 6, 6))


@pytest.fixture(scope="module")
def calibrated():
    twin = converted()
    return twin, calibrate(twin, walk(1), walk(2, 5), BUDGET)


def measured(twin, run):
    """Error against thresholds of zero, and work, of the thresholds that are set."""
    remaining = twin.thresholds()
    with torch.no_grad():
        with Meter(twin, "events", batch_dim=1) as meter:
            output = run(twin)
        twin.set_thresholds(dict.fromkeys(remaining, 0.0))
        exact = run(twin)
    twin.set_thresholds(remaining)
    return float((output - exact).square().mean()) ** 0.5, meter.counts()


def test_the_budget_is_met_and_used(calibrated):
    _, certificate = calibrated
    assert 0.8 * BUDGET < certificate.calibration_error <= BUDGET
    assert certificate.output_error < 1.5 * BUDGET and certificate.budget == BUDGET


def test_the_certificate_tells_what_the_network_does(calibrated):
    twin, certificate = calibrated
    thresholds = twin.thresholds()
    assert {k: float(v) for k, v in thresholds.items()} == pytest.approx(certificate.thresholds)
    error, _ = measured(twin, walk(1))
    assert error == pytest.approx(certificate.calibration_error)
    error, counts = measured(twin, walk(2, 5))
    assert error == pytest.approx(certificate.output_error) and certificate.samples == 5
    fanouts, sites = twin.fanouts(), counts.by_layer("sites")
    for layer, row in zip(certificate.layers, ("encoder", "delta._1", "delta._3"), strict=True):
        sent = counts.by_layer("spikes")[row]
        assert layer.share == pytest.approx(sent / sites[row]) and 0 < layer.share < 1
        assert layer.synops == pytest.approx(sent * fanouts[layer.name])
    total = sum(layer.synops for layer in certificate.layers)
    assert total == pytest.approx(counts.total("synops"), rel=0.1)


def test_errors_alone_are_parts_of_the_whole(calibrated):
    _, certificate = calibrated
    alone = [layer.error for layer in certificate.layers]
    assert all(0 < error <= 1.2 * BUDGET for error in alone)
    assert 0.5 * BUDGET < sum(error**2 for error in alone) ** 0.5 < 2 * BUDGET


def test_balancing_never_costs_work(calibrated):
    for seed in (0, 3):
        works = []
        for rounds in (0, 2):
            twin = converted(seed)
            certificate = calibrate(twin, walk(1), walk(2), BUDGET, rounds=rounds)
            assert certificate.calibration_error <= BUDGET
            works.append(measured(twin, walk(1))[1].total("synops"))
        assert works[1] <= works[0]
    assert works[1] < 0.99 * works[0]


def test_a_larger_budget_buys_silence():
    works = []
    for budget in (0.005, 0.02, 0.08):
        twin = converted()
        calibrate(twin, walk(1), walk(2), budget, rounds=0)
        works.append(measured(twin, walk(1))[1].total("synops"))
    assert works == sorted(works, reverse=True) and works[2] < 0.8 * works[0]


def test_a_budget_for_any_error_is_met_by_silence():
    certificate = calibrate(converted(), walk(1), walk(2), 1e3, rounds=1)
    assert certificate.calibration_error < 1e3
    assert all(layer.share == 0 for layer in certificate.layers)


def test_an_output_that_nothing_moves_needs_no_events():
    model = network()
    nn.init.zeros_(model[4].weight)
    twin = sigma_delta(model, torch.zeros(1, 1, 6, 6))
    assert calibrate(twin, walk(1), walk(2), BUDGET, rounds=1).output_error == 0


def test_the_same_start_gives_the_same_thresholds(calibrated):
    assert calibrate(converted(), walk(1), walk(2, 5), BUDGET) == calibrated[1]


def test_balancing_begins_with_the_thresholds_that_are_set():
    twin = converted()
    twin.set_thresholds({"input": 0.1, "_1": 0.3, "_3": 0.2})
    result = calibrate(twin, walk(1), walk(2), BUDGET, rounds=0).thresholds
    assert [result["_1"] / result["input"], result["_3"] / result["input"]] == pytest.approx([3, 2])


def test_the_error_may_be_one_against_a_target():
    twin, model = converted(), network()
    with torch.no_grad():
        exact = [run(twin) for run in (walk(1), walk(2))]
    shift = [torch.full_like(y, 0.01) for y in exact]
    near = (exact[0] + shift[0], exact[1] + shift[1])
    certificate = calibrate(twin, walk(1), walk(2), BUDGET, near, rounds=0)
    assert 0.01 < certificate.calibration_error <= BUDGET
    with pytest.raises(InputError, match=r"an error of 0.005 is out of reach: it is .* far below"):
        calibrate(sigma_delta(model, torch.zeros(1, 1, 6, 6)), walk(1), walk(2), 0.005, near)


def test_samples_are_counted_in_outputs_of_any_form():
    def turned(run):
        return lambda twin: run(twin).movedim(0, 1)

    result = calibrate(converted(), turned(walk(1)), turned(walk(2, 5)), BUDGET, rounds=0)
    assert result.samples == 5


@pytest.mark.parametrize("budget", [0, -0.1, float("nan"), float("inf")])
def test_budgets_that_are_no_positive_number_are_refused(budget):
    with pytest.raises(InputError, match="error budget"):
        calibrate(converted(), walk(1), walk(2), budget)


def test_negative_rounds_are_refused():
    with pytest.raises(InputError, match="rounds is -1"):
        calibrate(converted(), walk(1), walk(2), BUDGET, rounds=-1)


def test_an_output_that_is_not_finite_is_refused():
    model = network()
    nn.init.constant_(model[4].bias, float("inf"))
    with pytest.raises(InputError, match="not finite"):
        calibrate(sigma_delta(model, torch.zeros(1, 1, 6, 6)), walk(1), walk(2), BUDGET)


def test_no_gradient_is_kept():
    twin = converted()
    trial = _Trial(twin, walk(1), None)
    calibrate(twin, walk(1), walk(2), BUDGET, rounds=0)
    assert trial.spread.keys() == twin.neurons.keys()
    assert all(not t.requires_grad for t in twin.thresholds().values())


def test_a_certificate_survives_json(calibrated):
    _, certificate = calibrated
    text = json.dumps(certificate.to_dict())
    assert Certificate.from_dict(json.loads(text)) == certificate


@pytest.mark.parametrize(
    "damage",
    [
        lambda v: v.pop("layers"),
        lambda v: v.pop("budget"),
        lambda v: v.update(layers=None),
        lambda v: v.update(layers=[1]),
        lambda v: v["layers"][0].pop("share"),
        lambda v: v["layers"][0].update(other=1),
        lambda v: v.update(other=1),
    ],
    ids=["rows", "budget", "none", "numbers", "share", "unknown in a row", "unknown"],
)
def test_other_tables_are_no_certificates(calibrated, damage):
    values = json.loads(json.dumps(calibrated[1].to_dict()))
    damage(values)
    with pytest.raises(InputError, match="Certificate"):
        Certificate.from_dict(values)

"""Certificates: their figures computed again by hand, their intervals, and how they read."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import axonal
from axonal.convert import METHODS, Certificate, LayerCertificate
from axonal.convert.activations import BATCH, Calibration
from axonal.convert.certificate import REMEDIES, change_of, share_of
from axonal.convert.certify import certify
from axonal.convert.plan import Plan, Population, assemble
from axonal.convert.tracing import prepared
from axonal.core.errors import InputError

T, THETA = 3, 0.5
COUNT = BATCH + 9  # more than run together


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def small():
    """x -> relu(3 x + bias) -> relu -> classes, small enough to be computed by hand."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    for layer in (model[0], model[2]):
        layer.weight.mul_(2)
    return model.eval()


def planned(levels=2):
    # The second population's threshold is so low that it clips.
    populations = {
        "_1": Population(torch.tensor(THETA), levels),
        "_3": Population(torch.tensor(0.3), levels),
    }
    return Plan("by hand", T, (4,), populations)


def by_hand(model, x, levels=2):
    """Spikes [T, B, N], inputs [T, B, N] and values of both populations, and the answers."""
    result, current = {}, x.expand(T, *x.shape)
    value = x
    for name, layer, theta in (("_1", model[0], THETA), ("_3", model[2], 0.3)):
        drive = torch.stack([layer(step) for step in current])
        v, spikes = torch.zeros_like(drive[0]), []
        for step in drive:
            v = v + step
            s = (v / theta + 0.5).floor().clamp(0, levels)
            v = v - theta * s
            spikes.append(s)
        value = layer(value).relu()
        result[name] = torch.stack(spikes), drive, value
        current = theta * result[name][0]
    return result, model[4](current.mean(0)), model(x)


def rms(part, total):
    return float((part.square().sum() / total.square().sum()).sqrt())


@pytest.fixture
def certified():
    model, x = small(), torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(1))
    labels = model(x).argmax(1)
    labels[::4] = (labels[::4] + 1) % 3
    dense = prepared(model)
    network = assemble(dense, planned())
    return certify(dense, network, x, labels), model, x, labels


def test_errors_are_those_by_hand(certified):
    certificate, model, x, _ = certified
    result, answer, output = by_hand(model, x)
    assert certificate.output_error == pytest.approx(rms(answer - output, output), rel=1e-4)
    assert certificate.samples == COUNT
    for layer, (name, theta) in zip(certificate.layers, (("_1", THETA), ("_3", 0.3)), strict=True):
        spikes, drive, value = result[name]
        top, unit = 2 * theta, theta / T
        clipped = value.clamp(max=top)
        due = (drive.mean(0).relu().clamp(max=top) / unit + 0.5).floor() * unit
        sent = theta * spikes.mean(0)
        assert layer.name == name and layer.threshold == pytest.approx(theta)
        assert layer.clip == pytest.approx(rms(value - clipped, value), rel=1e-4)
        rounded = (clipped / unit + 0.5).floor() * unit
        assert layer.quantisation == pytest.approx(rms(clipped - rounded, value), rel=1e-4)
        assert layer.unevenness == pytest.approx(rms(due - sent, value), rel=1e-4, abs=1e-6)
        assert layer.error == pytest.approx(rms(value - sent, value), rel=1e-4)
        events = float((spikes > 0).sum())
        assert layer.spikes == pytest.approx(events / value.numel())
        first = spikes[:, :BATCH]
        assert layer.share == pytest.approx(float((first > 0).float().mean()))
    assert certificate.layers[0].unevenness < 1e-6 < certificate.layers[1].unevenness


def test_work_is_that_by_hand(certified):
    certificate, model, x, _ = certified
    result, _, _ = by_hand(model, x[:BATCH])
    # In every step the picture is read again; then each event meets the next layer's neurons.
    events = [float((result[name][0] > 0).sum()) / BATCH for name in ("_1", "_3")]
    expected = T * 4 * 6 + events[0] * 5 + events[1] * 3
    assert certificate.synops == pytest.approx(expected)
    assert certificate.multiplies == pytest.approx(expected)  # spikes of two levels have numbers
    assert certificate.dense == 4 * 6 + 6 * 5 + 5 * 3


def test_binary_spikes_do_not_multiply():
    model, x = small(), torch.randn(20, 4)
    dense = prepared(model)
    certificate = certify(dense, assemble(dense, planned(levels=1)), x)
    assert certificate.multiplies == T * 4 * 6 < certificate.synops
    assert certificate.before is certificate.after is certificate.change is None


def test_accuracies_are_those_by_hand(certified):
    certificate, model, x, labels = certified
    _, answer, output = by_hand(model, x)
    right = [(y.argmax(1) == labels).numpy() for y in (output, answer)]
    assert certificate.before == share_of(right[0]) and certificate.after == share_of(right[1])
    assert certificate.change == change_of(*right)
    assert certificate.change[0] == pytest.approx(certificate.after[0] - certificate.before[0])


def test_what_it_says_of_the_network(certified):
    certificate = certified[0]
    assert (certificate.method, certificate.schedule) == ("by hand", "pipelined")
    assert (certificate.steps, certificate.levels) == (T, 2 * T)
    assert (certificate.delay, certificate.latency) == (0, T)


@pytest.mark.parametrize("kind", ["plain", "residual", "pooled"])
def test_networks_that_wait_have_no_unevenness(kind, network, images):
    dense = prepared(network(kind, 4), "waiting")
    spiking = assemble(dense, METHODS["qcfs"](dense, Calibration(images(20), 4)))
    certificate = certify(dense, spiking, images(9))
    for layer in certificate.layers:
        worst = max(layer.clip, layer.quantisation, layer.unevenness, layer.error)
        assert worst < 1e-3 and 0 < layer.share < 1
    assert certificate.output_error < 1e-4
    assert (certificate.schedule, certificate.latency) == ("waiting", spiking.latency)


def test_errors_of_signed_spikes(network, images):
    dense = prepared(network("leaky"))
    spiking = assemble(dense, METHODS["graded"](dense, Calibration(images(60), 4)))
    for layer in certify(dense, spiking, images(9)).layers:
        assert layer.quantisation < 0.01 and layer.error < 0.1


def test_shares_have_the_interval_of_wilson():
    # 8 of 10: Wilson 1927, by the quadratic (p - s)^2 = z^2 s (1 - s) / n.
    value, low, high = share_of(np.array([True] * 8 + [False] * 2))
    assert value == 0.8
    for end in (low, high):
        assert (0.8 - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 10)
    assert 0 < low < value < high < 1
    assert share_of(np.array([True] * 5))[2] == pytest.approx(1)
    assert share_of(np.array([False]))[1] == pytest.approx(0)


def test_changes_have_the_interval_of_pairs():
    before = np.array([True] * 50 + [False] * 50)
    after = np.array([False] * 10 + [True] * 46 + [False] * 44)
    value, low, high = change_of(before, after)
    spread = np.concatenate([-np.ones(10), np.ones(6), np.zeros(84)]).std()
    assert value == pytest.approx(-0.04)
    assert (high - low) / 2 == pytest.approx(1.959964 * spread / 10)
    assert change_of(before, before) == (0, 0, 0)


def test_a_certificate_survives_json(certified):
    text = json.dumps(certified[0].to_dict())
    assert Certificate.from_dict(json.loads(text)) == certified[0]


def tables():
    assets = Path(axonal.__file__).parent / "data" / "assets"
    for path in sorted(assets.glob("*/certificates.json")):
        yield from json.loads(path.read_text())["certificates"]


def test_certificates_that_ship_are_read():
    read = [Certificate.from_dict(table) for table in tables()]
    assert read and all(c.method == "sigma-delta" and c.budget > 0 for c in read)
    assert all(c.before is None and c.weakest.worst == "error" for c in read)


def row(**inputs):
    plain = {"name": "act", "threshold": 1.0, "error": 0.1, "share": 0.5, "synops": 0.0}
    return LayerCertificate(**plain | inputs)


def figures(**inputs):
    plain = {"budget": 0.0, "calibration_error": 0.0, "output_error": 0.0123, "samples": 9}
    about = {"method": "graded", "steps": 4, "levels": 60, "latency": 4, "layers": (row(),)}
    return Certificate(**plain | about | inputs)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (
            {},
            "graded, 4 steps (pipelined, answer after 4), 60 levels: the output errs by 1.23%; "
            f"act loses most; {REMEDIES['error']}.",
        ),
        (
            {"budget": 0.05, "method": "sigma-delta"},
            f"sigma-delta: the output errs by 0.0123, 0.05 asked; act loses most; "
            f"{REMEDIES['error']}.",
        ),
        (
            {
                "before": (0.9, 0.8, 0.95),
                "after": (0.885, 0.7, 0.9),
                "change": (-0.015, -0.03, 0.0),
                "layers": (row(quantisation=0.02), row(name="b", clip=0.3, unevenness=0.1)),
            },
            "graded, 4 steps (pipelined, answer after 4), 60 levels: the output errs by 1.23%; "
            "right answers 90.00% before, 88.50% after (-1.50 points, -3.00 to +0.00); "
            f"b loses most; 30.00% by clip: {REMEDIES['clip']}.",
        ),
        (
            {"synops": 2.5e6, "multiplies": 5e5, "dense": 7e6, "layers": (row(error=0),)},
            "graded, 4 steps (pipelined, answer after 4), 60 levels: the output errs by 1.23%; "
            "2.5 million synaptic operations, 20% of them with a multiplication, for 7 million "
            "multiply-adds.",
        ),
        (
            {"layers": ()},
            "graded, 4 steps (pipelined, answer after 4), 60 levels: the output errs by 1.23%.",
        ),
    ],
    ids=["plain", "budget", "accuracy", "work", "no layers"],
)
def test_it_reads_as_a_sentence(inputs, text):
    assert str(figures(**inputs)) == text


@pytest.mark.parametrize(
    ("inputs", "worst"),
    [({}, "error"), ({"clip": 0.1, "unevenness": 0.2}, "unevenness"), ({"quantisation": 1}, None)],
)
def test_the_worst_of_its_errors(inputs, worst):
    assert row(**inputs).worst == (worst or "quantisation")


@pytest.mark.parametrize(
    "damage",
    [
        {"output_error": float("nan")},
        {"output_error": -1.0},
        {"output_error": "0"},
        {"samples": None},
        {"method": 3},
        {"before": (0.1, 0.2)},
        {"before": 0.1},
        {"change": (0.1, "0.2", 0.3)},
    ],
    ids=str,
)
def test_figures_that_cannot_be_are_refused(damage):
    with pytest.raises(InputError, match="Certificate"):
        figures(**damage)

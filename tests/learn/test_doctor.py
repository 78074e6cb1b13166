import copy
import io

import pytest
import torch
from rich.console import Console
from torch import nn

from axonal.commands import doctor
from axonal.core.errors import InputError
from axonal.core.neurons import Leaky
from axonal.learn.doctor import CHECKS, XI, batch_of, examine, fix, watched
from axonal.learn.initialise import rescale
from axonal.learn.recipe import Recipe
from axonal.nn import LIF, AdaptiveThreshold, IntegerLIF, MembraneNorm, Neuron, Sequential
from benchmarks.learn import planted_faults
from benchmarks.learn.planted_faults import FAULTS, LOSS, healthy, planted


def checks(report) -> set[str]:
    return {found.check for found in report.faults}


@pytest.mark.parametrize("name", FAULTS)
def test_every_planted_fault_is_found_by_its_own_check(name):
    assert FAULTS[name].check in checks(planted(name).report)


def test_every_check_of_a_fault_is_proved_by_one_that_is_planted():
    assert len(FAULTS) == 12
    faults = {name for name, check in CHECKS.items() if check.level == "fault"}
    assert faults - {fault.check for fault in FAULTS.values()} == {"gradient"}  # below


@pytest.mark.parametrize(
    "about",
    [{}, {"depth": 8}, {"recurrent": True}, {"steps": 40}],
    ids=lambda about: next(iter(about), "plain"),
)
def test_healthy_networks_have_no_fault_before_and_after_training(about):
    patient = healthy(1, **about)
    assert not patient.report.faults
    before = LOSS(patient.model, patient.batch, None)[1]["accuracy"]
    optimiser = torch.optim.Adam(patient.model.parameters(), 2e-3)
    for _ in range(40):
        optimiser.zero_grad()
        LOSS(patient.model, patient.batch, None)[0].backward()
        optimiser.step()
    assert LOSS(patient.model, patient.batch, None)[1]["accuracy"] > before
    assert not patient.report.faults


@pytest.mark.parametrize("factor", [0.0, float("inf")])
def test_gradients_that_are_zero_or_infinite_are_found_alone(factor):
    patient = healthy()

    def loss(*args):
        return LOSS(*args)[0] * torch.tensor(factor), {}

    assert checks(examine(patient.model, patient.batch, loss)) == {"gradient"}


def test_gradients_that_grow_from_layer_to_layer_are_found_where_they_are_too_large():
    found = [f for f in planted("surrogate too high, deep").report.faults if f.check == "gradient"]
    assert found[0].layer == "network.1" and found[0].measured > 1e3


def test_an_input_without_events_is_found():
    patient = healthy()
    patient.batch["image"] = torch.zeros(64, 40, dtype=torch.uint8)
    assert "input" in checks(patient.report)


def test_an_examination_changes_nothing():
    patient = healthy()
    patient.model.network.insert(1, nn.BatchNorm1d(48))
    patient.model.network.insert(2, nn.Dropout(0.5))
    state = copy.deepcopy(patient.model.state_dict())
    noise = torch.get_rng_state()
    first = patient.report
    assert str(first) == str(patient.report)
    assert torch.equal(noise, torch.get_rng_state())
    assert all(torch.equal(state[k], v) for k, v in patient.model.state_dict().items())
    assert all(p.grad is None for p in patient.model.parameters())


@pytest.mark.parametrize(
    ("reset", "h"),
    [("subtract", [0.4, 0.6, 0.7, 1.2, 1.4, 0.4]), ("late", [0.4, 0.6, 0.7, 1.2, 0.9, 0.65])],
)
def test_figures_are_those_of_the_membranes(reset, h):
    net = Sequential(Neuron(Leaky(decay=0.5, reset=reset), "triangle"))
    # Three steps of two neurons, of which one fires.
    x = torch.tensor([[0.4, 0.4, 0.4], [1.2, 1.3, 0.2]], requires_grad=True)

    def loss(network, batch, generator):
        return network(batch["x"].T[..., None].expand(-1, -1, 2))[0].sum(), {}

    (figures,) = examine(net, {"x": x}, loss).figures.values()
    h = torch.tensor(h)
    assert figures["rate"] == pytest.approx(float((h >= 1).float().mean()))
    assert figures["spread"] == pytest.approx(float(h.repeat(2).std() / (1 - h.mean())), rel=1e-5)
    assert figures["support"] == 1.0 and figures["silent"] == 0.0
    assert figures["memory"] == 0.5 and figures["sharpness"] == 1.0


def test_an_input_that_stays_the_same_counts_in_every_step():
    patient = healthy()
    patient.model.network[1] = Neuron(Leaky(decay=0.8, refractory=1))
    image = patient.batch["image"].expand(12, -1, -1).transpose(0, 1)

    def loss(network, batch, generator):
        return network(batch["image"].transpose(0, 1))[0].square().mean(), {}

    still, moving = (examine(patient.model.network, {"image": x}, loss).figures["1"]
                     for x in (image, image.contiguous()))  # fmt: skip
    assert still == pytest.approx(moving, rel=1e-3)


def test_late_resets_refractory_adaptive_graded_and_normalised_neurons_are_examined():
    for neuron in (
        Neuron(Leaky(decay=0.8, reset="late", refractory=1, emit="ternary")),
        Neuron(AdaptiveThreshold(decay=0.8)),
        IntegerLIF(),
        MembraneNorm(48, 0.8),
    ):
        patient = healthy(depth=1)
        patient.model.network[1] = neuron
        report = patient.report
        (figures,) = report.figures.values()
        assert 0.1 < figures["spread"] < 5 and 0 < figures["rate"] < 0.6
        assert not report.faults


def test_sentences_say_what_where_how_much_and_what_to_do():
    text = str(planted("weights 100 x too small").report)
    assert "fault: network.1: spikes a neuron and step is 0 (at least 0.0005 is sound)" in text
    assert "The same holds of network.3, network.5." in text
    assert text.splitlines()[-1].startswith("This network is unlikely to learn well until")
    stream = io.StringIO()
    Console(file=stream, width=120).print(healthy().report)
    assert "support" in stream.getvalue() and "gradient" in stream.getvalue()
    assert stream.getvalue().endswith("Nothing found that keeps this network from learning.\n")


def test_a_loss_that_fails_still_fails():
    patient = healthy()
    patient.batch["label"] = patient.batch["label"] + 1
    with pytest.raises(InputError, match="labels run from 1 to 5"):
        _ = patient.report


def test_a_network_without_neurons_is_no_patient():
    with pytest.raises(InputError, match="no spiking neurons"):
        examine(Sequential(nn.Linear(40, 5)), healthy().batch, LOSS)


def test_steps_that_change_nothing_are_a_note():
    patient = healthy(depth=1)
    net = Sequential(nn.Linear(40, 5), LIF(0.0), nn.Linear(5, 5))
    patient.model.network, image = net, (patient.batch["image"] + 1) / 2
    with torch.no_grad():
        net[0].weight.copy_(torch.stack([image[k::5].mean(0) - 0.5 for k in range(5)]))
        net[0].bias.copy_(-net[0].weight.sum(1) / 2 - 4)
        net[2].weight.copy_(torch.eye(5))
        net[2].bias.zero_()
    assert "time" in {f.check for f in patient.report.findings if f.level == "note"}


@pytest.mark.parametrize(
    "name", ["weights 100 x too small", "input gain too small", "weights too large and positive",
             "surrogate too narrow"],
)  # fmt: skip
def test_fixing_mends_scales_and_nothing_else(name):
    patient = planted(name)
    treated = fix(patient.model, patient.batch, LOSS)
    assert str(treated.before) == str(patient.report) and treated.before.faults
    patient.model, before = treated.network, patient.model
    assert str(treated.after) == str(patient.report) and not treated.after.faults
    *driving, (readout, same) = zip(before.parameters(), patient.model.parameters(), strict=True)
    assert torch.equal(readout, same)
    for old, new in driving:
        ratio = (new / old).flatten()
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=0)
        assert ("surrogate" in name) == torch.equal(old, new)
    for old, new in zip(before.modules(), patient.model.modules(), strict=True):
        if isinstance(old, Neuron):
            assert old.dynamics == new.dynamics and old.surrogate == new.surrogate
    stream = io.StringIO()
    Console(file=stream, width=120).print(treated)
    changed = "surrogate slope" if "surrogate" in name else "weights x"
    assert f"network.{1 if 'surrogate' in name else 0}: {changed}" in stream.getvalue()


def test_mended_membranes_spread_as_they_should():
    patient = planted("weights 100 x too small")
    mended = fix(patient.model, patient.batch, LOSS).network
    factors = rescale(mended, lambda: mended(patient.batch["image"]), XI)
    assert list(factors.values()) == pytest.approx(3 * [1.0], rel=1e-3)


def test_mending_keeps_the_statistics_of_norms():
    patient = healthy()
    patient.model.network.insert(1, nn.BatchNorm1d(48))
    with torch.no_grad():
        patient.model.network[1].weight.mul_(0.01)
    treated = fix(patient.model, patient.batch, LOSS)
    assert "network.1" in treated.changes
    for old, new in zip(patient.model.buffers(), treated.network.buffers(), strict=True):
        assert torch.equal(old, new)


def test_what_no_scale_mends_is_left_as_it_is():
    patient = planted("one class")
    treated = fix(patient.model, patient.batch, LOSS)
    assert treated.network is patient.model and not treated.changes


def test_a_deep_network_is_trained_as_it_comes_and_mended(tmp_path, monkeypatch):
    label = torch.arange(200) % 10
    data = {"image": torch.rand(10, 1, 28, 28)[label] * 2 - 1, "label": label}
    monkeypatch.setattr(doctor, "images", lambda name: data)
    monkeypatch.setattr(doctor, "IMAGES", 200)
    curves = planted_faults.deep(updates=21)
    assert {name: len(curve) for name, curve in curves.items()} == {"before": 2, "after": 2}
    assert curves["before"] != curves["after"]
    planted_faults.draw(curves, tmp_path / "deep.svg")
    assert "after --fix" in (tmp_path / "deep.svg").read_text()


def recipe(seed: int = 0) -> Recipe:
    patient = healthy(seed)
    return Recipe(
        name="tiny",
        build=lambda: patient.model,
        data=lambda: patient.batch,
        loss=LOSS,
        steps=1,
        batch=32,
    )


def test_a_training_can_watch_its_faults():
    figures = watched(recipe())
    assert len(batch_of(recipe())["label"]) == 32
    assert figures(healthy().model)["faults"] == 0
    assert figures(planted("weights 100 x too small").model)["faults"] > 0


def test_a_recipe_and_a_folder_are_examined_and_the_folder_is_mended(tmp_path, monkeypatch):
    training = doctor.TRAININGS["mnist-fc"]
    trainings = {"tiny": type(training)(recipe, training.save)}
    monkeypatch.setattr(doctor, "TRAININGS", trainings)
    assert not doctor.doctor("tiny").faults
    assert planted_faults.figures(("tiny",)) == {
        "doctor_planted": 12, "doctor_found": 12, "doctor_false_alarms": 0
    }  # fmt: skip
    weak, mended = tmp_path / "weak", tmp_path / "mended"
    planted("weights 100 x too small").model.save(weak)
    (weak / "card.json").write_text('{"recipe": "tiny"}')
    assert doctor.doctor(str(weak)).faults
    with pytest.raises(InputError, match="--out"):
        doctor.doctor(str(weak), True)
    doctor.doctor(str(weak), True, mended)
    assert not doctor.doctor(str(mended)).faults
    with pytest.raises(InputError, match="no recipe and no folder"):
        doctor.doctor(str(tmp_path))

import copy
import io

import pytest
import torch
from rich.console import Console
from torch import nn

from axonal.commands import doctor
from axonal.core.errors import InputError
from axonal.core.neurons import Leaky
from axonal.learn.data import sample_batch
from axonal.learn.doctor import CHECKS, XI, checkup, examine, fix
from axonal.learn.initialise import rescale
from axonal.learn.recipe import Recipe
from axonal.nn import LIF, AdaptiveThreshold, IntegerLIF, MembraneNorm, Neuron, Sequential
from benchmarks.learn import planted_faults
from benchmarks.learn.planted_faults import FAULTS, LOSS, faulty, healthy


def checks(report) -> set[str]:
    return {fault.check for fault in report.faults}


@pytest.mark.parametrize("name", FAULTS)
def test_every_planted_fault_is_seen_by_its_own_check(name):
    assert FAULTS[name].check in checks(faulty(name).report)


def test_every_check_of_a_fault_is_proved_by_one_that_is_faulty():
    assert len(FAULTS) == 12
    faults = {name for name, check in CHECKS.items() if check.level == "fault"}
    assert faults - {fault.check for fault in FAULTS.values()} == {"gradient"}  # below


@pytest.mark.parametrize(
    "options",
    [{}, {"depth": 8}, {"recurrent": True}, {"steps": 40}],
    ids=lambda options: next(iter(options), "plain"),
)
def test_healthy_networks_have_no_fault_before_and_after_training(options):
    example = healthy(1, **options)
    assert not example.report.faults
    before = LOSS(example.model, example.batch, None)[1]["accuracy"]
    optimiser = torch.optim.Adam(example.model.parameters(), 2e-3)
    for _ in range(40):
        optimiser.zero_grad()
        LOSS(example.model, example.batch, None)[0].backward()
        optimiser.step()
    assert LOSS(example.model, example.batch, None)[1]["accuracy"] > before
    assert not example.report.faults


@pytest.mark.parametrize("factor", [0.0, float("inf")])
def test_gradients_that_are_zero_or_infinite_are_the_only_fault(factor):
    example = healthy()

    def loss(*args):
        return LOSS(*args)[0] * torch.tensor(factor), {}

    assert checks(examine(example.model, example.batch, loss)) == {"gradient"}


def test_gradients_that_grow_from_layer_to_layer_are_a_fault_where_they_are_too_large():
    faults = faulty("surrogate too high, deep").report.faults
    first = next(fault for fault in faults if fault.check == "gradient")
    assert first.layer == "network.1" and first.measured > 1e3


def test_an_input_without_events_is_a_fault():
    example = healthy()
    example.batch["image"] = torch.zeros(64, 40, dtype=torch.uint8)
    assert "input" in checks(example.report)


def test_an_examination_changes_nothing():
    example = healthy()
    example.model.network.insert(1, nn.BatchNorm1d(48))
    example.model.network.insert(2, nn.Dropout(0.5))
    state = copy.deepcopy(example.model.state_dict())
    noise = torch.get_rng_state()
    first = example.report
    assert str(first) == str(example.report)
    assert torch.equal(noise, torch.get_rng_state())
    assert all(torch.equal(state[k], v) for k, v in example.model.state_dict().items())
    assert all(p.grad is None for p in example.model.parameters())


def test_an_input_that_stays_the_same_counts_in_every_step():
    example = healthy()
    example.model.network[1] = Neuron(Leaky(decay=0.8, refractory=1))
    image = example.batch["image"].expand(12, -1, -1).transpose(0, 1)

    def loss(network, batch, generator):
        return network(batch["image"].transpose(0, 1))[0].square().mean(), {}

    expanded, copied = (examine(example.model.network, {"image": x}, loss).figures["1"]
                     for x in (image, image.contiguous()))  # fmt: skip
    assert expanded == pytest.approx(copied, rel=1e-3)


def test_late_resets_refractory_adaptive_graded_and_normalised_neurons_are_examined():
    for neuron in (
        Neuron(Leaky(decay=0.8, reset="late", refractory=1, emit="ternary")),
        Neuron(AdaptiveThreshold(decay=0.8)),
        IntegerLIF(),
        MembraneNorm(48, 0.8),
    ):
        example = healthy(depth=1)
        example.model.network[1] = neuron
        report = example.report
        (figures,) = report.figures.values()
        assert 0.1 < figures["spread"] < 5 and 0 < figures["rate"] < 0.6
        assert not report.faults


def test_sentences_say_what_where_how_much_and_what_to_do():
    text = str(faulty("weights 100 x too small").report)
    assert "fault: network.1: spikes a neuron and step is 0 (at least 0.0005 is sound)" in text
    assert "The same holds of network.3, network.5." in text
    assert text.splitlines()[-1].startswith("This network is unlikely to learn well until")
    stream = io.StringIO()
    Console(file=stream, width=120).print(healthy().report)
    assert "support" in stream.getvalue() and "gradient" in stream.getvalue()
    assert stream.getvalue().endswith("Nothing found that keeps this network from learning.\n")


def test_a_loss_that_fails_still_fails():
    example = healthy()
    example.batch["label"] = example.batch["label"] + 1
    with pytest.raises(InputError, match="labels run from 1 to 5"):
        _ = example.report


def test_steps_that_change_nothing_are_a_note():
    example = healthy(depth=1)
    net = Sequential(nn.Linear(40, 5), LIF(0.0), nn.Linear(5, 5))
    example.model.network, image = net, (example.batch["image"] + 1) / 2
    with torch.no_grad():
        net[0].weight.copy_(torch.stack([image[k::5].mean(0) - 0.5 for k in range(5)]))
        net[0].bias.copy_(-net[0].weight.sum(1) / 2 - 4)
        net[2].weight.copy_(torch.eye(5))
        net[2].bias.zero_()
    assert "time" in {f.check for f in example.report.findings if f.level == "note"}


@pytest.mark.parametrize(
    "name", ["weights 100 x too small", "input gain too small", "weights too large and positive",
             "surrogate too narrow"],
)  # fmt: skip
def test_a_fix_changes_scales_and_nothing_else(name):
    example = faulty(name)
    treatment = fix(example.model, example.batch, LOSS)
    assert str(treatment.before) == str(example.report) and treatment.before.faults
    example.model, before = treatment.network, example.model
    assert str(treatment.after) == str(example.report) and not treatment.after.faults
    *driving, (readout, same) = zip(before.parameters(), example.model.parameters(), strict=True)
    assert torch.equal(readout, same)
    for old, new in driving:
        ratio = (new / old).flatten()
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=0)
        assert ("surrogate" in name) == torch.equal(old, new)
    for old, new in zip(before.modules(), example.model.modules(), strict=True):
        if isinstance(old, Neuron):
            assert old.dynamics == new.dynamics and old.surrogate == new.surrogate
    stream = io.StringIO()
    Console(file=stream, width=120).print(treatment)
    changed = "surrogate slope" if "surrogate" in name else "weights x"
    assert f"network.{1 if 'surrogate' in name else 0}: {changed}" in stream.getvalue()


def test_membranes_reach_the_threshold_once_fixed():
    example = faulty("weights 100 x too small")
    network = fix(example.model, example.batch, LOSS).network
    factors = rescale(network, lambda: network(example.batch["image"]), XI)
    assert list(factors.values()) == pytest.approx(3 * [1.0], rel=1e-3)


def test_a_fix_keeps_the_statistics_of_norms():
    example = healthy()
    example.model.network.insert(1, nn.BatchNorm1d(48))
    with torch.no_grad():
        example.model.network[1].weight.mul_(0.01)
    treatment = fix(example.model, example.batch, LOSS)
    assert "network.1" in treatment.changes
    for old, new in zip(example.model.buffers(), treatment.network.buffers(), strict=True):
        assert torch.equal(old, new)


def test_faults_that_no_scale_fixes_are_left_as_they_are():
    example = faulty("one class")
    treatment = fix(example.model, example.batch, LOSS)
    assert treatment.network is example.model and not treatment.changes


def test_a_deep_network_is_trained_as_it_comes_and_fixed(tmp_path, monkeypatch):
    label = torch.arange(200) % 10
    data = {"image": torch.rand(10, 1, 28, 28)[label] * 2 - 1, "label": label}
    monkeypatch.setattr(planted_faults, "images", lambda name: data)
    monkeypatch.setattr(planted_faults, "IMAGES", 200)
    curves = planted_faults.deep(updates=21)
    assert {name: len(curve) for name, curve in curves.items()} == {"before": 2, "after": 2}
    assert curves["before"] != curves["after"]
    planted_faults.draw(curves, tmp_path / "deep.svg")
    assert "after --fix" in (tmp_path / "deep.svg").read_text()


def recipe(seed: int = 0) -> Recipe:
    example = healthy(seed)
    return Recipe(
        name="tiny",
        build=lambda: example.model,
        data=lambda: example.batch,
        loss=LOSS,
        steps=1,
        batch=32,
    )


def test_a_training_can_log_its_faults():
    figures = checkup(recipe())
    assert len(sample_batch(recipe())["label"]) == 32
    assert figures(healthy().model)["faults"] == 0
    assert figures(faulty("weights 100 x too small").model)["faults"] > 0


def test_a_recipe_and_a_folder_are_examined_and_the_folder_is_fixed(tmp_path, monkeypatch):
    training = doctor.TRAININGS["mnist-fc"]
    trainings = {"tiny": type(training)(recipe, training.save)}
    monkeypatch.setattr(doctor, "TRAININGS", trainings)
    assert not doctor.doctor("tiny").faults
    assert planted_faults.figures(("tiny",)) == {
        "doctor_planted": 12, "doctor_found": 12, "doctor_false_alarms": 0
    }  # fmt: skip
    weak, fixed = tmp_path / "weak", tmp_path / "fixed"
    faulty("weights 100 x too small").model.save(weak)
    (weak / "card.json").write_text('{"recipe": "tiny"}')
    assert doctor.doctor(str(weak)).faults
    with pytest.raises(InputError, match="--out"):
        doctor.doctor(str(weak), True)
    doctor.doctor(str(weak), True, fixed)
    assert not doctor.doctor(str(fixed)).faults
    with pytest.raises(InputError, match="no recipe and no folder"):
        doctor.doctor(str(tmp_path))

import copy
import io

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from axonal.core.errors import InputError
from axonal.core.kinds import Leaky
from axonal.data.images import Images
from axonal.learn.doctor import CHECKS, batch_of, examine, watched
from axonal.learn.loop import Recipe
from axonal.learn.remedies import fix
from axonal.models.spiking import SpikingClassifier, SpikingConfig
from axonal.nn import LIF, AdaptiveThreshold, IntegerLIF, MembraneNorm, Neuron, Sequential
from axonal.recipes import clinic
from axonal.recipes.clinic import FAULTS, Patient, healthy, mean_loss, planted


def report(patient: Patient):
    return examine(patient.network, patient.batch, patient.loss)


def checks(patient: Patient) -> set[str]:
    return {found.check for found in report(patient).faults}


@pytest.mark.parametrize("name", FAULTS)
def test_every_planted_fault_is_found_by_its_own_check(name):
    assert FAULTS[name].check in checks(planted(name))


def test_every_check_of_a_fault_is_proved_by_one_that_is_planted():
    assert len(FAULTS) >= 12
    faults = {name for name, check in CHECKS.items() if check.level == "fault"}
    # Gradients that are zero or infinite follow from other faults; below they come alone.
    assert faults - {fault.check for fault in FAULTS.values()} == {"stuck", "overflow"}


@pytest.mark.parametrize(
    "about",
    [{}, {"depth": 8}, {"recurrent": True}, {"spiking": True}, {"steps": 40}],
    ids=lambda about: next(iter(about), "plain"),
)
def test_healthy_networks_have_no_fault_before_and_after_training(about):
    patient = healthy(1, **about)
    assert not report(patient).faults
    before = patient.loss(patient.network, patient.batch, None)[1]["accuracy"]
    optimiser = torch.optim.Adam(patient.network.parameters(), 2e-3)
    for _ in range(40):
        optimiser.zero_grad()
        patient.loss(patient.network, patient.batch, None)[0].backward()
        optimiser.step()
    assert patient.loss(patient.network, patient.batch, None)[1]["accuracy"] > before
    assert not report(patient).faults


def test_gradients_that_are_zero_or_infinite_are_found_alone():
    patient = healthy()
    loss = patient.loss
    patient.loss = lambda *args: (0 * loss(*args)[0], {})
    assert "stuck" in checks(patient)
    patient.loss = lambda *args: (loss(*args)[0] * torch.tensor(float("inf")), {})
    assert "overflow" in checks(patient)


def test_an_examination_changes_nothing():
    patient = healthy(spiking=True)
    patient.network.insert(1, nn.BatchNorm1d(48))
    patient.network.insert(2, nn.Dropout(0.5))
    state = copy.deepcopy(patient.network.state_dict())
    noise = torch.get_rng_state()
    first = report(patient)
    assert str(first) == str(report(patient))
    assert torch.equal(noise, torch.get_rng_state())
    assert all(torch.equal(state[k], v) for k, v in patient.network.state_dict().items())
    assert all(p.grad is None for p in patient.network.parameters())


def test_figures_are_those_of_the_membranes():
    neuron = LIF(0.5, surrogate="triangle")
    net = Sequential(neuron)
    # h of the two neurons: 0.4, 0.6, 0.7 and 1.2, 1.4, 0.4 after one spike each is subtracted.
    x = torch.tensor([[0.4, 1.2], [0.4, 1.3], [0.4, 0.2]])

    def loss(network, batch, generator):
        return network(batch["x"].T[..., None].expand(-1, -1, 2))[0].sum(), {}

    batch = {"x": x.T.contiguous().requires_grad_()}
    (figures,) = examine(net, batch, loss).figures.values()
    h = torch.tensor([0.4, 0.6, 0.7, 1.2, 1.4, 0.4])
    assert figures["steps"] == 3
    assert figures["rate"] == pytest.approx(2 / 6)
    assert figures["spread"] == pytest.approx(float(h.repeat(2).std() / (1 - h.mean())), rel=1e-5)
    assert figures["support"] == 1.0 and figures["silent"] == 0.0
    assert figures["memory"] == 0.5 and figures["sharpness"] == 1.0


def test_late_resets_refractory_adaptive_graded_and_normalised_neurons_are_examined():
    for neuron in (
        Neuron(Leaky(decay=0.8, reset="late", refractory=1, emit="ternary")),
        Neuron(AdaptiveThreshold(decay=0.8)),
        IntegerLIF(),
        MembraneNorm(48, 0.8),
    ):
        patient = healthy(depth=1)
        patient.network[1] = neuron
        (figures,) = report(patient).figures.values()
        assert 0.1 < figures["spread"] < 5 and 0 < figures["rate"] < 0.6
        assert not report(patient).faults


def test_sentences_say_what_where_how_much_and_what_to_do():
    text = str(report(planted("weights 100 x too small")))
    assert "fault: 1: spikes a neuron and step is 0 (at least 0.0005 is sound): nothing" in text
    assert "Rescale the weights before it (--fix). The same holds of 3, 5." in text
    assert text.splitlines()[-1].startswith("This network is unlikely to learn well until")
    found = report(healthy())
    assert str(found).splitlines()[-1] == "Nothing found that keeps this network from learning."
    stream = io.StringIO()
    Console(file=stream, width=120).print(found.table())
    assert "support" in stream.getvalue() and "gradient" in stream.getvalue()


def test_a_loss_that_fails_on_sound_data_still_fails():
    patient = healthy()
    patient.loss = lambda network, batch, generator: network(batch["image"])
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        report(patient)


def test_a_network_without_neurons_is_no_patient():
    patient = healthy()
    patient.network = Sequential(nn.Linear(40, 5))
    with pytest.raises(InputError, match="no spiking neurons"):
        report(patient)


def test_steps_that_change_nothing_are_a_note():
    patient = healthy(depth=1)
    patient.network = Sequential(nn.Linear(40, 5), LIF(0.0), nn.Linear(5, 5))
    with torch.no_grad():
        patient.network[0].weight.copy_(
            torch.stack([patient.batch["image"][k::5].mean(0) for k in range(5)])
        )
        patient.network[0].bias.fill_(-15)
        patient.network[2].weight.copy_(torch.eye(5))
        patient.network[2].bias.zero_()
    assert "time" in {f.check for f in report(patient).findings if f.level == "note"}


@pytest.mark.parametrize(
    "name", ["weights 100 x too small", "weights 100 x too large", "input gain too small",
             "every neuron fires", "surrogate too narrow"],
)  # fmt: skip
def test_fixing_mends_scales_and_nothing_else(name):
    patient = planted(name)
    before = copy.deepcopy(patient.network)
    treated = fix(patient.network, patient.batch, patient.loss)
    assert not treated.after.faults and treated.before.faults
    assert str(treated.after) == str(report(patient))
    *driving, (readout, same) = zip(before.parameters(), patient.network.parameters(), strict=True)
    assert torch.equal(readout, same)
    for old, new in driving:
        ratio = (new / old).flatten()
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=0)
        assert ("surrogate" in name) == torch.equal(old, new)
    for old, new in zip(before.modules(), patient.network.modules(), strict=True):
        if isinstance(old, Neuron):
            assert old.dynamics == new.dynamics and old.surrogate == new.surrogate
    changed = "surrogate slope" if "surrogate" in name else "weights x"
    assert changed in str(treated) and "Before:" in str(treated)


def test_what_no_scale_mends_is_left_as_it_is():
    patient = planted("one class")
    weights = copy.deepcopy(patient.network.state_dict())
    treated = fix(patient.network, patient.batch, patient.loss)
    assert not treated.changes and "nothing" in str(treated)
    assert all(torch.equal(weights[k], v) for k, v in patient.network.state_dict().items())


def test_a_deep_network_is_trained_as_it_comes_and_mended(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    labels = np.arange(200) % 10
    pixels = random.integers(0, 256, (10, 1, 28, 28))[labels].astype(np.uint8)
    monkeypatch.setattr(clinic, "mnist", lambda split: Images(pixels, labels))
    monkeypatch.setattr(clinic, "IMAGES", 200)
    curves = clinic.deep(updates=21, out=tmp_path / "deep.svg")
    assert {name: len(curve) for name, curve in curves.items()} == {"before": 2, "after": 2}
    assert curves["before"] != curves["after"]
    assert "after --fix" in (tmp_path / "deep.svg").read_text()


def recipe() -> Recipe:
    patient = healthy()
    return Recipe(
        name="tiny",
        build=lambda: patient.network,
        data=lambda: patient.batch,
        loss=mean_loss(12),
        steps=1,
        batch=32,
    )


def test_a_training_can_watch_its_faults():
    figures = watched(recipe())
    assert len(batch_of(recipe())["label"]) == 32
    assert figures(healthy().network)["faults"] == 0
    assert figures(planted("weights 100 x too small").network)["faults"] > 0


def test_a_recipe_and_a_folder_are_examined_and_the_folder_is_mended(tmp_path, monkeypatch):
    config = SpikingConfig(shape=(1, 8, 8), layers=("24", "16"), classes=4)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(64, 1, 8, 8, generator=generator) * 2 - 1
    data = {"image": image, "label": torch.arange(64) % 4}

    def loss(network, batch, generator):
        return nn.functional.cross_entropy(network(batch["image"]), batch["label"]), {}

    def made(seed):
        build = lambda: SpikingClassifier(config)  # noqa: E731
        return Recipe(name="tiny", build=build, data=lambda: data, loss=loss, steps=1, batch=64)

    training = clinic.TRAININGS["mnist-spiking-classifier"]
    trainings = {"tiny": type(training)(made, training.save), "next": clinic.TRAININGS["mnist"]}
    monkeypatch.setattr(clinic, "TRAININGS", trainings)
    assert not clinic.doctor("tiny").faults
    torch.manual_seed(0)
    weak = SpikingClassifier(config)
    with torch.no_grad():
        weak.network[1].weight.mul_(0.01)
    weak.save(tmp_path / "weak")
    (tmp_path / "weak" / "card.json").write_text('{"recipe": "tiny"}')
    assert clinic.doctor(str(tmp_path / "weak")).faults
    with pytest.raises(InputError, match="--out"):
        clinic.doctor(str(tmp_path / "weak"), True)
    clinic.doctor(str(tmp_path / "weak"), True, tmp_path / "mended")
    assert not clinic.doctor(str(tmp_path / "mended")).faults
    with pytest.raises(InputError, match="no recipe and no folder"):
        clinic.doctor(str(tmp_path))

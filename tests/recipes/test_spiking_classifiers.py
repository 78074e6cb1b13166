import dataclasses

import numpy as np
import pytest
import torch

from axonal.data.recordings import Recordings, Sounds
from axonal.learn.loop import fit
from axonal.models.spiking import SpikingClassifier, SpikingConfig
from axonal.recipes import spiking_classifiers, training


def sound(pitch: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.01, 3000)
    return (np.sin(2 * np.pi * pitch * np.arange(3000) / 8000) + noise).astype(np.float32)


@pytest.fixture
def spoken(monkeypatch):
    """Twenty sounds of two pitches in place of the spoken digits."""
    labels = np.arange(20) % 2
    sounds = Sounds([sound((400, 1500)[label], i) for i, label in enumerate(labels)], 8000, labels)
    monkeypatch.setattr(spiking_classifiers, "fsdd", lambda split: sounds)


def test_sounds_become_a_spike_or_none_in_each_step(spoken):
    batch = spiking_classifiers.sounds_as_spikes("train")
    assert batch["events"].shape == (
        20,
        spiking_classifiers.STEPS["fsdd"],
        2 * spiking_classifiers.CHANNELS,
    )
    assert set(batch["events"].unique().tolist()) == {0, 1}
    assert batch["label"].tolist() == [0, 1] * 10


def test_recordings_become_frames(monkeypatch):
    events = Recordings(
        *(np.array([v]) for v in (3, 4, 1, 25_000)), np.array([0, 1]), np.array([7])
    )
    monkeypatch.setattr(spiking_classifiers, "nmnist", lambda split: events)
    batch = spiking_classifiers.recordings_as_frames("test")
    assert batch["events"].nonzero().tolist() == [[0, 1, 1, 4, 3]]
    assert batch["label"].tolist() == [7]


@pytest.fixture
def small(spoken, monkeypatch):
    """The recipe of spoken digits, in small."""
    config = dataclasses.replace(
        spiking_classifiers.TASKS["fsdd"].config, layers=("12", "8r"), classes=2, learn=()
    )
    options = {"steps": 30, "batch": 10, "lr": 1e-2, "warmup": 5, "ema": 0.5, "log_every": 10}
    task = dataclasses.replace(spiking_classifiers.TASKS["fsdd"], config=config, options=options)
    monkeypatch.setitem(spiking_classifiers.TASKS, "fsdd", task)
    return task


def test_a_task_trains_is_saved_and_carries_its_figures(small, tmp_path):
    folder = training.train("fsdd", tmp_path)
    network = SpikingClassifier.load(folder)
    card = training.json.loads((folder / training.CARD).read_text())
    figures = spiking_classifiers.evaluate(network, small.data("test"))
    assert {name: card[name] for name in figures} == figures
    assert card["test_accuracy"] == 1.0 and card["test_samples"] == 20
    neurons = spiking_classifiers.STEPS["fsdd"] * (12 + 8)
    assert card["spikes"] == pytest.approx(card["spike_rate"] * neurons)
    first, second = card["activity"]
    assert (12 * first + 8 * second) / 20 == pytest.approx(card["spike_rate"])
    assert "Free Spoken Digit" in card["data"]


def test_a_price_on_spikes_makes_them_fewer(small, tmp_path):
    spikes = []
    for weight in (0.0, 1.0):
        network = fit(
            spiking_classifiers.recipe("fsdd", 0, weight, steps=15), tmp_path / str(weight)
        )
        spikes.append(spiking_classifiers.evaluate(network, small.data("test"))["spikes"])
    assert spikes[1] < 0.7 * spikes[0]


@pytest.mark.parametrize("name", spiking_classifiers.TASKS)
def test_every_task_has_a_network_for_its_data(name):
    task = spiking_classifiers.TASKS[name]
    config = dataclasses.replace(task.config, steps=2)
    network, label = SpikingClassifier(config), torch.tensor([0, 1])
    steps = (2,) if config.coding == "events" else ()
    x = torch.rand(2, *steps, *config.shape)
    key = "events" if steps else "image"
    recipe = spiking_classifiers.recipe(name)
    loss, figures = recipe.loss(network, {key: x, "label": label}, torch.Generator())
    loss.backward()
    assert loss.isfinite() and set(figures) == {"accuracy", "spikes"}
    assert recipe.name == name and name in training.TRAININGS
    assert isinstance(task.config, SpikingConfig) and task.licence

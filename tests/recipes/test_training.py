"""Trainings by name, run for a moment on tiny networks."""

import json
from dataclasses import replace

import pytest
import torch

from axonal.core.errors import FileError, InputError
from axonal.learn.loop import CHECKPOINT
from axonal.learn.losses import flow_matching
from axonal.learn.recipe import Recipe
from axonal.models.flow import FlowConfig, FlowUNet
from axonal.recipes import training
from axonal.recipes.generators import save_model
from axonal.recipes.training import TRAININGS, Training, train


def data():
    image = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return {"image": 2 * image - 1, "label": torch.arange(8) % 3}


def tiny(seed, steps=4):
    config = FlowConfig(size=8, patch=2, widths=(4, 8), depths=(1, 1), classes=3)
    return Recipe(
        name="tiny",
        build=lambda: FlowUNet(config),
        data=data,
        loss=flow_matching(),
        steps=steps,
        batch=4,
        seed=seed,
        precision="float32",
        compile=False,
        checkpoint_every=2,
        log_every=1,
    )


@pytest.fixture
def named(monkeypatch):
    """A training called "tiny", and one called "tuned" that goes on with its result."""

    def tuned(seed, start):
        return replace(tiny(seed), name="tuned", build=lambda: FlowUNet.load(start))

    rows = {"tiny": Training(tiny, save_model, "noise"), "tuned": Training(tuned, save_model)}
    rows["tuned"] = replace(rows["tuned"], after="tiny")
    monkeypatch.setattr(training, "TRAININGS", {**TRAININGS, **rows})


def weights(folder):
    return FlowUNet.load(folder).state_dict()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_every_training_is_named_as_its_recipe(tmp_path):
    for name, each in TRAININGS.items():
        recipe = each.recipe(5, *([tmp_path] if each.after else []))
        assert (recipe.name, recipe.seed) == (name, 5) and each.data
        assert each.after is None or each.after in TRAININGS
    assert {"mnist", "mnist-sigma-delta", "mnist-spiking", "mnist-classifier"} <= set(TRAININGS)


def test_a_training_leaves_a_network_with_its_card(named, tmp_path):
    folder = train("tiny", tmp_path / "run", seed=3)
    assert folder == tmp_path / "run" / "model"
    card = json.loads((folder / "card.json").read_text())
    network = FlowUNet.load(folder)
    assert network.config.size == 8
    assert card["parameters"] == sum(p.numel() for p in network.parameters())
    expected = {"recipe": "tiny", "seed": 3, "steps": 4, "batch": 4, "data": "noise"}
    assert {name: card[name] for name in expected} == expected
    assert card["command"] == "axonal train tiny --seed 3"
    assert card["loss"] > 0 and card["seconds"] >= 0


def test_the_seed_decides(named, tmp_path):
    runs = [train("tiny", tmp_path / str(i), seed) for i, seed in enumerate((0, 0, 1))]
    one, again, other = map(weights, runs)
    assert same(one, again) and not same(one, other)


def test_a_finished_training_gives_the_same_again(named, tmp_path):
    folder = train("tiny", tmp_path)
    before, card = weights(folder), (folder / "card.json").read_text()
    assert same(weights(train("tiny", tmp_path)), before)
    assert (folder / "card.json").read_text() == card


def test_an_interrupted_training_goes_on(named, tmp_path, monkeypatch):
    expected = weights(train("tiny", tmp_path / "uninterrupted"))
    calls = []

    def stopping(seed):
        recipe = tiny(seed)

        def loss(*args):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return recipe.loss(*args)

        return replace(recipe, loss=loss)

    monkeypatch.setitem(training.TRAININGS, "tiny", Training(stopping, save_model))
    with pytest.raises(KeyboardInterrupt):
        train("tiny", tmp_path / "part")
    assert (tmp_path / "part" / CHECKPOINT).exists()
    assert not (tmp_path / "part" / "model").exists()
    resumed = weights(train("tiny", tmp_path / "part"))
    assert same(resumed, expected) and len(calls) == 4 + 2


def test_a_training_after_another_runs_both(named, tmp_path):
    folder = train("tuned", tmp_path / "tuned")
    first = tmp_path / "tiny" / "model"  # beside it
    assert json.loads((first / "card.json").read_text())["recipe"] == "tiny"
    assert json.loads((folder / "card.json").read_text())["recipe"] == "tuned"
    assert not same(weights(first), weights(folder))


def test_the_checkpoint_of_another_seed_is_refused(named, tmp_path):
    train("tiny", tmp_path)
    with pytest.raises(FileError, match=r"made by recipe 'tiny', seed 0; choose another folder"):
        train("tiny", tmp_path, seed=1)


def test_unknown_names_are_refused_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match=r"no recipe 'vermeer'; there are mnist, "):
        train("vermeer", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_devices_that_are_not_there_are_refused(tmp_path, device):
    with pytest.raises(InputError, match=f"there is no device '{device}' here"):
        train("mnist", tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()


def test_cuda_is_refused_where_there_is_none(tmp_path, monkeypatch):
    def refuse(*args, device, **options):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(training.torch, "zeros", refuse)
    with pytest.raises(InputError, match="leave out --device to train on the CPU"):
        train("mnist", tmp_path / "run", device="cuda")


def test_a_folder_that_can_not_be_written_is_refused_first(named, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(FileError, match="can't write"):
        train("tiny", tmp_path / "run")

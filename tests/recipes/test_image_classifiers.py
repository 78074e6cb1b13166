"""The classifiers' recipes, run for a moment on a tiny data set made here."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from axonal.data.images import DATASETS, Images
from axonal.generate.features import network_features
from axonal.generate.quality import REFERENCE, Moments, Reference, measure
from axonal.learn.data import images
from axonal.learn.loop import accuracy, fit
from axonal.learn.losses import cross_entropy
from axonal.models.classifier import Classifier
from axonal.models.resnet import ResNet
from axonal.models.vgg import VGG, VGGConfig
from axonal.models.vit import ViT
from axonal.nn import QCFS
from axonal.recipes import image_classifiers, training
from axonal.recipes.image_classifiers import (
    PICTURES,
    QCFS_LEVELS,
    QUANTISED,
    Picture,
    cifar10_classifier,
    mnist_classifier,
    picture,
    quantised,
    save_classifier,
    save_picture,
)


@pytest.fixture
def bars(monkeypatch):
    """Two classes, a bar on the left or on the right, under the name of MNIST."""

    def read(split):
        random = np.random.default_rng(split == "train")
        labels = random.integers(2, size=64 if split == "train" else 32)
        pixels = random.integers(40, size=(len(labels), 1, 28, 28)).astype(np.uint8)
        for image, label in zip(pixels, labels, strict=True):
            image[0, :, 4 + 14 * label : 9 + 14 * label] += 200
        pixels.flags.writeable = False
        return Images(pixels, labels)

    monkeypatch.setitem(DATASETS, "mnist", read)
    return read


def short(steps):
    recipe = replace(mnist_classifier(), steps=steps, batch=16, warmup=5, ema=0.5, log_every=1)
    return replace(recipe, precision="float32", compile=False)


def test_the_recipe_learns(bars, tmp_path):
    network = fit(short(25), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"] / 2 and rows[-1]["accuracy"] == 1
    test = bars("test")
    with torch.no_grad():
        guess = network(torch.tensor(test.pixels).float() / 127.5 - 1).argmax(1).numpy()
    assert (guess == test.labels).all()


def test_what_ships_is_measured_on_what_was_stored(bars, tmp_path, monkeypatch):
    named = training.Training(lambda seed: short(3), save_classifier)
    monkeypatch.setattr(training, "TRAININGS", {"mnist-classifier": named})
    folder = training.train("mnist-classifier", tmp_path)
    card = json.loads((folder / training.CARD).read_text())
    network = Classifier.load(folder)
    features = network_features(network)
    stored = Reference.load(folder / REFERENCE, features)
    rows = features(bars("test").pixels)
    np.testing.assert_array_equal(stored.moments.mean, Moments.of(rows).mean)
    np.testing.assert_array_equal(stored.rows, rows.astype(np.float16))
    # All the training images are the floor's sample, so only their order depends on the seed.
    floor = measure(bars("train").pixels, Reference.of(bars("test").pixels, features), 1)
    assert card["floor"]["fd"][0] == pytest.approx(floor["fd"].value, rel=1e-4)
    with torch.no_grad():
        guess = network(torch.tensor(bars("test").pixels).float() / 127.5 - 1).argmax(1).numpy()
    assert card["test_accuracy"] == (guess == bars("test").labels).mean()
    assert (card["floor_images"], card["floor_rows"], card["reference_rows"]) == (64, 32, 32)


def test_cifar10_has_its_own_shape():
    config = cifar10_classifier(3).build().config
    assert (config.channels, config.size) == (3, 32) and cifar10_classifier(3).seed == 3


def test_cross_entropy_is_the_mean_over_the_right_classes():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    batch = {"image": torch.zeros(2, 1, 4, 4), "label": torch.tensor([0, 0])}
    loss, figures = cross_entropy()(lambda x: logits, batch, torch.Generator())
    expected = (np.log1p(np.exp(-2)) + np.log1p(np.exp(1))) / 2
    assert loss.item() == pytest.approx(expected) and figures["accuracy"] == 0.5


def test_shifts_move_images_and_repeat_the_border():
    image = torch.arange(36.0).view(1, 1, 6, 6).repeat(200, 1, 1, 1)
    seen = []

    class Network(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros(len(x), 2)

    network = Network()

    batch = {"image": image, "label": torch.zeros(200, dtype=torch.long)}
    for seed in (0, 0, 1):
        cross_entropy(shift=1)(network, batch, torch.Generator().manual_seed(seed))
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    grid = torch.arange(6)
    moves = {
        tuple(
            image[0, 0, (grid + down).clamp(0, 5)][:, (grid + right).clamp(0, 5)].flatten().tolist()
        )
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    assert {tuple(x.flatten().tolist()) for x in seen[0]} == moves


@pytest.fixture
def little(bars, monkeypatch):
    """A small network for the bars, in the place of the one for MNIST."""
    config = VGGConfig(channels=1, size=28, classes=2, widths=(4, 6, 8), convolutions=1)
    small = Picture("mnist", VGG, config, 40)
    monkeypatch.setitem(image_classifiers.PICTURES, "mnist-vgg", small)
    return small


def quick(recipe, steps):
    return replace(recipe, steps=steps, batch=16, warmup=2, ema=0.5, log_every=1)


def test_a_picture_is_learned_and_then_in_few_levels(little, tmp_path):
    network = fit(quick(picture("mnist-vgg"), 40), tmp_path / "relu")
    test = images("mnist", "test")
    assert accuracy(network.eval(), *test.values()) > 0.9
    start = network.save(tmp_path / "weights")
    recipe = quantised("mnist-vgg-qcfs4", start=start)
    begin = recipe.build()
    assert sum(isinstance(m, QCFS) for m in begin.modules()) == 3
    for name, value in network.state_dict().items():
        assert torch.equal(begin.state_dict()[name], value)
    again = fit(quick(recipe, 20), tmp_path / "qcfs").eval()
    assert again.config.levels == 4 and accuracy(again, *test.values()) > 0.9


def test_the_card_is_of_what_was_stored(little, tmp_path):
    for recipe in (picture("mnist-vgg"), replace(picture("mnist-vgg"), name="mnist-vgg-qcfs8")):
        network = recipe.build()
        figures = save_picture(network, recipe, tmp_path)
        stored = VGG.load(tmp_path)
        test = images("mnist", "test")
        with torch.no_grad():
            right = (stored(test["image"]).argmax(1) == test["label"]).float().mean()
        assert figures == {"test_accuracy": pytest.approx(float(right)), "test_images": 32}


def test_pictures_by_name():
    assert {name: task.kind for name, task in PICTURES.items()} == {
        "mnist-vgg": VGG,
        "cifar10-vgg": VGG,
        "cifar10-resnet": ResNet,
        "cifar10-vit": ViT,
    }
    for name, task in PICTURES.items():
        recipe = picture(name, seed=3)
        network = recipe.build().eval()
        shape = (1, 28, 28) if task.data == "mnist" else (3, 32, 32)
        with torch.no_grad():
            assert network(torch.zeros(1, *shape)).shape == (1, 10)
        assert (recipe.name, recipe.seed, recipe.steps) == (name, 3, task.steps)
    names = [n for n in PICTURES if n != "cifar10-vit"]
    assert {*QUANTISED} == {f"{n}-qcfs{levels}" for n in names for levels in QCFS_LEVELS}
    assert quantised("mnist-vgg-qcfs4").steps < picture("mnist-vgg").steps


def test_digits_are_never_mirrored(bars):
    seen = []

    class Network(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return torch.zeros(len(x), 2, requires_grad=True)

    image = torch.arange(28.0).expand(64, 1, 28, 28)
    batch = {"image": image, "label": torch.zeros(64, dtype=torch.long)}
    for name in ("mnist-vgg", "cifar10-vgg"):
        picture(name).loss(Network(), batch, torch.Generator().manual_seed(0))
    falls = [(x[:, 0, 0, 0] > x[:, 0, 0, -1]).sum() for x in seen]
    assert falls[0] == 0 and 16 < falls[1] < 48

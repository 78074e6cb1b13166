"""The classifiers' recipes, run for a moment on a tiny data set made here."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from axonal.data.images import DATASETS, Images
from axonal.generate.features import network_features
from axonal.generate.quality import REFERENCE, Moments, Reference, measure
from axonal.learn.loop import fit
from axonal.learn.losses import cross_entropy
from axonal.models.classifier import Classifier
from axonal.recipes import training
from axonal.recipes.classifiers import cifar10_classifier, mnist_classifier, save_classifier


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


def test_shifts_move_whole_images_and_repeat_the_border():
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

"""The classifier: shapes, what it refuses, and the one that ships."""

import json

import pytest
import torch

from axonal.core.errors import FileError, InputError
from axonal.generate.features import asset
from axonal.models.base import WEIGHTS
from axonal.models.classifier import Classifier, ClassifierConfig


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 9)])
def test_logits_read_the_features(channels, size):
    network = Classifier(ClassifierConfig(channels=channels, size=size, features=24, classes=7))
    x = torch.rand(5, channels, size, size) * 2 - 1
    features = network.features(x)
    assert features.shape == (5, 24) and (features >= 0).all()
    torch.testing.assert_close(network(x), network.head(features))
    assert network(x).shape == (5, 7)


def test_an_image_is_judged_by_itself():
    network = Classifier(ClassifierConfig())
    x = torch.rand(6, 1, 28, 28)
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]), rtol=1e-4, atol=1e-5)


def test_the_default_is_small():
    assert sum(p.numel() for p in Classifier(ClassifierConfig()).parameters()) <= 100_000


@pytest.mark.parametrize("shape", [(2, 1, 28, 27), (2, 3, 28, 28), (1, 28, 28)])
def test_other_images_are_refused(shape):
    with pytest.raises(InputError, match="no batch"):
        Classifier(ClassifierConfig())(torch.zeros(shape))


@pytest.mark.parametrize("wrong", [{"width": 0}, {"size": 7}, {"classes": 0}])
def test_configurations_without_meaning_are_refused(wrong):
    with pytest.raises(InputError):
        ClassifierConfig(**wrong)


def test_half_precision_on_disk_keeps_the_answers(tmp_path):
    network = Classifier(ClassifierConfig()).eval()
    again = Classifier.load(network.save(tmp_path, torch.float16))
    x = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(again(x), network(x), rtol=0, atol=0.02)


def test_a_file_of_another_width_is_refused(tmp_path):
    Classifier(ClassifierConfig(width=8)).save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(ClassifierConfig().to_dict()))
    with pytest.raises(FileError, match="another configuration"):
        Classifier.load(tmp_path)


def test_the_shipped_classifier_is_what_its_card_says():
    folder = asset("mnist")
    network, card = Classifier.load(folder), json.loads((folder / "card.json").read_text())
    assert network.config == ClassifierConfig()
    assert card["parameters"] == sum(p.numel() for p in network.parameters()) <= 100_000
    assert card["recipe"] == "mnist-classifier" and card["test_images"] == 10_000
    assert 0.992 <= card["test_accuracy"] <= 1
    assert "CC BY-SA 3.0" in card["data"] and f"--seed {card['seed']}" in card["command"]
    assert (folder / WEIGHTS).stat().st_size < 400_000

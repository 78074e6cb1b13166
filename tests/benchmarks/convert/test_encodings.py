from types import SimpleNamespace

import numpy as np
import pytest
import torch

from axonal.data.recordings import Sounds
from axonal.nn import encoding
from benchmarks.convert import encodings


@pytest.fixture
def tiny(monkeypatch):
    """Two kinds of pictures and of sounds, and short trainings."""
    torch.manual_seed(0)
    label = torch.arange(40) % 2
    bright = (torch.arange(6) < 3) == label[:, None].bool()
    image = (0.8 * bright + 0.2 * torch.rand(40, 6)).clamp(0, 1)
    rising = torch.linspace(0, 15, 12)[:, None] * torch.tensor([1.0, 0.0, 0.5])
    events = encodings.SIGNAL["start"] + torch.where(
        label[:, None, None] == 1, rising, rising.flip(-1)
    )
    pictures, sounds = ({"image": image, "label": label}, {"events": events, "label": label})
    monkeypatch.setitem(encodings.DATA, "MNIST", lambda split: pictures)
    monkeypatch.setitem(encodings.DATA, "spoken digits", lambda split: sounds)
    for name, value in {"steps": 25, "batch": 20, "warmup": 2, "lr": 2e-2, "ema": 0.5}.items():
        monkeypatch.setitem(encodings.TRAINING, name, value)
    monkeypatch.setitem(encodings.NETWORK, "layers", ("12",))


def test_every_code_is_trained_measured_and_shown(tiny, tmp_path):
    run = SimpleNamespace(store=tmp_path)
    results = encodings.measure(run=run, seed=1)
    figures = results["figures"]
    rows = [(kind, name) for kind, some in encodings.CODES.items() for name in some]
    assert len(figures) == 5 * len(rows) == 35
    kinds = encodings.tables(results)["kinds"]
    for kind, name in rows:
        at = f"[{kind}, {name}]"
        accuracy, sends = figures[f"accuracy {at}"], encodings.CODES[kind][name][1]
        assert 0 <= accuracy <= 100 and figures[f"code spikes {at}"] > 0
        assert 1 <= figures[f"latency {at}"] <= figures[f"steps {at}"]
        assert f"| {name} | {sends} | {accuracy:.1f} % |" in kinds[kind]["table"]
    assert all(figures[f"accuracy [{kind}, {name}]"] > 90 for kind, name in rows)
    assert figures["code spikes [MNIST, latency]"] <= 6
    assert figures["steps [spoken digits, delta]"] == 12
    for kind, codes in encodings.CODES.items():
        assert {kinds[kind][title] for title in ("best", "fewest", "first")} <= set(codes)
    assert encodings.measure(run=run, seed=1) == results, "finished trainings are not run again"


def test_the_first_step_from_which_an_answer_stays():
    answers = torch.tensor([[1, 2, 1, 0], [1, 1, 2, 1], [1, 1, 1, 2]])
    assert encodings.settling_step(answers).tolist() == [1, 2, 3, 3]
    assert encodings.settling_step(answers[:1]).tolist() == [1, 1, 1, 1]


def test_pictures_are_brightness_and_few_are_learned_from(monkeypatch):
    batch = {"image": torch.linspace(-1, 1, 30).reshape(5, 1, 2, 3), "label": torch.arange(5)}
    monkeypatch.setattr(encodings, "images", lambda name, split: batch)
    monkeypatch.setattr(encodings, "PICTURES", 3)
    train, test = encodings.pictures("train"), encodings.pictures("test")
    assert train["image"].shape == (3, 6) and train["label"].tolist() == [0, 1, 2]
    assert test["image"].shape == (5, 6) and test["image"].aminmax() == (0, 1)


def test_sounds_end_in_silence(monkeypatch):
    noise = np.random.default_rng(0).normal(0, 0.1, 800).astype(np.float32)
    monkeypatch.setattr(encodings, "fsdd", lambda split: Sounds([noise], 8000, np.array([7])))
    batch = encodings.sounds("test")
    bands, silent = batch["events"][0], encodings.SIGNAL["start"]
    assert bands.shape == (80, 40) and batch["label"].tolist() == [7]
    assert (bands[2:8] > silent + 1).any() and (bands[20:] == bands[-1]).all()
    assert bands[-1] == pytest.approx(silent)
    network = encodings.Coded(encoding.Delta(**encodings.SIGNAL), 40)
    assert not network.encode(bands[None, 20:]).any()

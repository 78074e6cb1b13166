"""A toy medium, added by one row: short sounds of three voices, from a network of its own."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from axonal.convert.certificate import Certificate, LayerCertificate
from axonal.core.config import Config
from axonal.core.errors import FileError, InputError
from axonal.generate import Generator
from axonal.generate.media import MEDIA
from axonal.generate.pipeline import delta_network
from axonal.models.base import WEIGHTS, Model


@dataclass(frozen=True, kw_only=True)
class WaveConfig(Config):
    length: int = 20
    voices: int = 3


class WaveNet(Model):
    """Estimates the wave [B, L] behind x [B, L] from both and a voice [B]."""

    Config = WaveConfig

    def __init__(self, config):
        super().__init__(config)
        self.encode = nn.Linear(config.length, 16)
        self.voice = nn.Embedding(config.voices, 16)
        self.act = nn.ReLU()
        self.decode = nn.Linear(16, config.length)

    def forward(self, x, voice):
        return self.decode(self.act(self.encode(x) + self.voice(voice)))


class Sound:
    """Samples [L] of sound in -1 to 1 for a network, int16 for people."""

    def __init__(self, model):
        self.shape, self.voices = (model.config.length,), model.config.voices

    def conditions(self, values):
        voices = torch.as_tensor(values)
        if not len(voices) or voices.max() >= self.voices:
            raise InputError(f"voices are 0 to {self.voices - 1}")
        return voices

    def decode(self, x):
        return (x.clamp(-1, 1) * 32767).round().to(torch.int16).numpy()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(MEDIA, WaveNet, Sound)
    return WaveNet(WaveConfig()).save(tmp_path / "waves")


def test_a_medium_is_one_row(folder):
    output = Generator.from_pretrained(folder)([2, 0, 2, 1], steps=3, batch=3)
    assert output.samples.shape == (4, 20) and output.samples.dtype == np.int16
    assert output.counts.samples == 4 and output.counts.total("synops") == 3 * 2 * 20 * 16
    with pytest.raises(InputError, match="voices are 0 to 2"):
        Generator.from_pretrained(folder)([3])


def test_it_is_generated_by_changes_and_in_the_engine_too(folder):
    model = WaveNet.load(folder)
    rows = tuple(
        LayerCertificate(name=name, threshold=0.0, error=0.0, share=1.0, synops=1.0)
        for name in delta_network(model).neurons
    )
    about = {"budget": 0.1, "calibration_error": 0.0, "output_error": 0.0, "samples": 1}
    certificate = Certificate(**about, layers=rows)
    expected = Generator(model)([2, 0, 2], steps=4).samples.astype(int)
    for backend in ("torch", "engine"):
        output = Generator(model, certificate, backend=backend)([2, 0, 2], steps=4)
        assert np.abs(output.samples - expected).max() <= 2
        assert output.counts.layers[0] == "start" and output.zero_skipping is None


def test_other_networks_are_no_generators(folder):
    with pytest.raises(InputError, match="Linear is no generator; those are FlowUNet, WaveNet"):
        Generator(nn.Linear(2, 2))
    (folder / WEIGHTS).write_bytes(b"")
    with pytest.raises(FileError, match="can't load a WaveNet"):
        Generator.from_pretrained(folder)

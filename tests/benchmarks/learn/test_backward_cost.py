import xml.etree.ElementTree as ET

import torch

from benchmarks.learn import backward_cost


def test_figures_and_their_drawing(monkeypatch, tmp_path):
    monkeypatch.setattr(backward_cost, "SIZES", (8, 16, 4))
    monkeypatch.setattr(backward_cost, "RATES", (0.05, 0.2))
    figures = backward_cost.figures(3, seed=0)
    assert len(figures) == 2 * (2 + 1)
    assert all(0 < part["low"] <= part["value"] <= part["high"] for part in figures.values())
    assert "backward speedup [eventprop, 20 %]" in figures
    backward_cost.draw(figures, tmp_path / "cost.svg")
    root = ET.parse(tmp_path / "cost.svg").getroot()
    assert sum("eventprop at" in (part.text or "") for part in root.iter()) == 2


def test_networks_spike_at_the_rate_that_is_asked_for():
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(100, 4, 256, generator=generator) < 0.05).float()
    network = backward_cost.scaled_network(backward_cost.LEAKY, x, 0.05, generator)
    for layer in (2, 4, 6):
        assert 0.04 < network[:layer](x)[0].mean() < 0.06

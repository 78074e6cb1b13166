import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from axonal.core.errors import FileError
from axonal.core.neurons import Leaky
from axonal.deploy.engine import Engine, reference
from axonal.graph.graph import Graph, Node
from axonal.graph.ops import Conv, Dense, Input, Neurons, Pool, reshape
from axonal.nn import LIF, Sequential
from benchmarks.engine import networks, shared, startup
from benchmarks.engine import run as engine
from benchmarks.harness.timing import Timings


def test_the_break_even_lies_between_two_activities():
    assert engine._crossing((0.1, 0.2, 0.4), [4.0, 2.0, 0.5]) == pytest.approx(0.2 * 2**0.5)
    assert engine._crossing((0.1, 0.2), [4.0, 2.0]) == 1.0
    assert engine._crossing((0.1, 0.2), [0.4, 0.2]) == 0.0


def test_a_layer_is_the_same_in_torch_and_in_the_engine():
    torch.manual_seed(0)
    linear = torch.nn.Linear(9, 5, bias=False)
    graph = networks.trace(Sequential(linear, LIF(0.9)), torch.zeros(1, 1, 9))
    x = (np.random.default_rng(0).random((20, 9)) < 0.5).astype(np.float32)
    with torch.inference_mode():
        same = engine._mismatches("layer", Engine(graph), x, engine.Step(linear, Leaky(decay=0.9)))
        other = engine._mismatches("layer", Engine(graph), x, engine.Step(linear, Leaky(decay=0.5)))
    assert same == {"mismatches [layer]": 0} and other["mismatches [layer]"] > 0


def test_the_threshold_sets_the_rate():
    torch.manual_seed(0)
    drive = torch.randn(200, 1, 50)
    rate = LIF(0.9, threshold=networks._threshold(drive, 0.03))(drive)[0].mean()
    assert rate == pytest.approx(0.03, abs=0.002)


def test_recordings_become_events_in_order_of_time():
    place = np.ravel_multi_index(([1, 0, 1], [0, 1, 1], [1, 0, 2]), networks.SIZE)
    dense = networks._events(np.array([2, 0, 0]), place).to_dense()
    assert dense.shape == (3, *networks.SIZE)
    assert [tuple(place) for place in np.argwhere(dense)] == [
        (0, 0, 1, 0),
        (0, 1, 1, 2),
        (2, 1, 0, 1),
    ]


def test_a_chain_runs_the_same_in_torch():
    generator = np.random.default_rng(0)
    conv = Conv(generator.normal(0, 1, (4, 2, 3, 3)).astype("f4"), (1, 1), ((1, 1),) * 2, (1, 1))
    graph = Graph(
        [
            Node("x", Input((2, 6, 6))),
            Node("0", conv, ("x",)),
            Node("1", Neurons(Leaky(emit="multiple", levels=9)), ("0",)),
            Node("2", Pool((2, 2), (2, 2), ((0, 0),) * 2, average=False), ("1",)),
            Node("3", reshape((36,)), ("2",)),
            Node("4", Dense(generator.normal(0, 1, (3, 36)).astype("f4")), ("3",)),
        ],
        ["4"],
    )
    x = (generator.random((5, 2, 6, 6)) < 0.4).astype("f4")
    with torch.inference_mode():
        y, _ = networks._as_torch(graph)(torch.from_numpy(x[:, None]))
    expected, _ = reference.run(graph, {"x": x})
    np.testing.assert_allclose(y[:, 0].numpy(), expected["4"], rtol=1e-4, atol=1e-4)


def test_what_the_bench_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AXONAL_DATA", str(tmp_path))
    with pytest.raises(FileError, match=r"cnn_sinabs.nir is missing; set AXONAL_DATA"):
        networks.recordings(3, 0, 1)
    with pytest.raises(FileError, match="run `python -m benchmarks generate` first"):
        networks.chosen_generators(tmp_path)


def test_the_first_spikes_are_timed_from_the_import(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[3])
    seconds = engine._start()["seconds to start"]
    assert 0 < seconds["low"] <= seconds["high"]


@pytest.fixture
def once(monkeypatch):
    """Calls everything once, instead of timing it; nothing is compiled by torch."""
    clock = itertools.count(1.0)

    def call(calls, rounds):
        for job in calls.values():
            job()
        return Timings(dict.fromkeys(calls, [next(clock)] * rounds))

    for module in (networks, engine):
        monkeypatch.setattr(module, "time_in_turn", call)
    monkeypatch.setattr(torch, "compile", lambda network: network)


def test_a_generator_runs_in_the_engine_and_in_torch(once):
    compared = {"spiking": "sigma-delta 0.2, euler 2", "ann": "ANN, euler 2"}
    with torch.inference_mode():
        figures = networks.generator(compared, 3, 0, 1)
    assert figures["generator_speedup"]["value"] == 1 and "milliseconds [generator]" in figures


def test_a_network_of_layers_fires_the_same_and_is_timed_in_both_ways(once):
    with torch.inference_mode():
        figures = networks.small_network(3, 0, 1, steps=60)
    assert figures["mismatches [lif256_3pct]"] == 0
    assert figures["activity [lif256_3pct]"] == pytest.approx(0.03, abs=0.02)
    assert {"lif256_3pct", "lif256_3pct_whole"} <= figures.keys()


def test_layers_are_measured_over_their_activity_and_drawn(once, monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "ACTIVITIES", (0.05, 1.0))
    monkeypatch.setattr(engine, "SIZES", (16, 32))
    linear = torch.nn.Conv2d(2, 3, 3, padding=1, bias=False)
    with torch.inference_mode():
        figures = engine._layer("conv", linear, (2, 6, 6), 3, 0, 1)
        cost = engine._cost(tmp_path, 3, 0)
    assert figures["mismatches [conv 5pct]"] == figures["mismatches [conv 100pct]"] == 0
    assert {"conv_5pct", "conv_5pct_bfloat16", "conv_100pct"} <= figures.keys()
    assert "nanoseconds an event [16]" in cost and (tmp_path / "engine.svg").exists()


def test_steps_are_timed_beside_busy_processes(monkeypatch):
    monkeypatch.setattr(shared, "STEPS", 10)
    monkeypatch.setattr(shared, "SETTLE", 0.0)
    figures = shared.figures(3, 0, 2)
    assert len(figures) == 3 and all(figure["value"] > 0 for figure in figures.values())
    with shared.busy(2):
        pass


def test_a_start_prints_two_times():
    command = [sys.executable, "-m", startup.__name__]
    first, second = map(float, subprocess.run(command, capture_output=True).stdout.split())
    assert 0 < second < first

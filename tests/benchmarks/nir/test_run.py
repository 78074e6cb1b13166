"""NIR there and back, with our own reader in the place of other frameworks."""

import importlib.util
import json
import re
from contextlib import contextmanager
from pathlib import Path

import nir as package
import numpy as np
import pytest
import torch

from axonal.deploy import nir
from axonal.deploy.engine.reference import run
from benchmarks.benches import BENCHES
from benchmarks.harness import page, peers
from benchmarks.harness.bench import perform
from benchmarks.nir import run as exchange

ROOT = Path(__file__).parents[3]
REFUSED = {("snntorch", "if"), ("snntorch", "conv if"), ("sinabs", "cuba")}
CASES = {(name, case) for name in exchange.FRAMEWORKS for case in exchange.graphs(name, 0)}


class Double:
    """A framework that does with a file what we do, and then `change` to its spikes."""

    def __init__(self, name, change=lambda spikes: spikes):
        self.name, self.change, self.jobs = name, change, []

    def ask(self, *, do, x="", file="", out="", dt=0.0, network=""):
        if do == "versions":
            return {name: version for name, version in exchange.KNOWN if name == self.name}
        if do == "networks":
            return {"networks": ["lif", "if"]}
        if network == "if":
            return {"error": "ValueError: no IF here"}
        if do == "export":
            one = np.ones(16, np.float32)
            neurons = package.LIF(10 * dt * one, one, 0 * one, one / 10)
            weights = package.Affine(exchange.weights(0.5, (16, 12), 0), 0 * one)
            package.write(file, package.NIRGraph.from_list(weights, neurons))
        network = package.read(file)
        network.metadata = {}
        graph = nir.from_nir(network, dt=dt, discretisation=self.name)
        spikes = run(graph, {graph.inputs[0]: np.load(x)})[0][graph.outputs[0]]
        self.jobs.append((do, dt))
        np.savez(out, spikes=self.change(spikes))
        return {"rate": float(spikes.mean())}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(exchange, "STEPS", 30)


@pytest.fixture
def jobs():
    """The worker's module."""
    spec = importlib.util.spec_from_file_location("jobs", ROOT / "benchmarks/peers/exchange.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "case"), sorted(CASES - REFUSED))
def test_networks_fire_and_nir_says_all_of_them(name, case, tmp_path):
    peer = Double(name)
    result = exchange.to_framework(peer, exchange.graphs(name, 0)[case], tmp_path, 0)
    assert result["equal"] == 1 and result["spikes"] > 0.1
    assert peer.jobs == [("nir", exchange.FRAMEWORKS[name].dt)]


@pytest.mark.parametrize(("name", "case"), sorted(REFUSED))
def test_what_we_refuse_is_not_sent(name, case, tmp_path):
    peer = Double(name)
    result = exchange.to_framework(peer, exchange.graphs(name, 0)[case], tmp_path, 0)
    assert re.match(r"by us: nir: '\w+': there is no (IF|CubaLIF)", result["refused"])
    assert not peer.jobs


def test_a_difference_is_measured_in_every_direction(tmp_path):
    def late(spikes):
        return np.roll(spikes, 1, 0)

    peer, graph = Double("norse", late), exchange.graphs("norse", 0)["if"]
    x = exchange.drive((24,), 0)
    spikes = run(graph, {"input": x})[0]["neurons"]
    want = (late(spikes) == spikes).mean()
    assert (
        exchange.to_framework(peer, graph, tmp_path, 0)["equal"] == pytest.approx(want) and want < 1
    )
    assert exchange.from_framework(peer, "lif", tmp_path, 0)["equal"] < 1
    assert exchange.from_framework(Double("norse"), "lif", tmp_path, 0)["equal"] == 1


def test_refusals_say_by_whom(tmp_path):
    assert exchange.from_framework(Double("norse"), "if", tmp_path, 0) == {
        "refused": "by Norse: ValueError: no IF here"
    }
    quick = Double("sinabs")
    quick.ask = lambda do, file, **_: {"rate": package.write(file, rest) or 0.0}
    one = np.ones(12, np.float32)
    rest = package.NIRGraph.from_list(package.LIF(one, one, one, one))
    refused = exchange.from_framework(quick, "lif", tmp_path, 0)["refused"]
    assert refused.startswith("by us: nir: 'lif' (LIF): v_leak") and str(tmp_path) not in refused


def test_what_is_known_names_a_network_and_the_version_that_runs():
    for (name, version), known in exchange.KNOWN.items():
        assert f"{name}=={version}" in peers.PEERS[name][1]
        assert {case.removeprefix("from ") for case in known} <= {*exchange.CASES, ""}
    assert {name for name, _ in exchange.KNOWN} == set(exchange.FRAMEWORKS)
    assert {case for _, case in CASES} <= set(exchange.CASES)


def test_reasons_join_a_refusal_and_what_is_known():
    refused = {"refused": "by us: no"}
    assert exchange.reason("sinabs", "3.1.3", "if", {}) == exchange.FLOOR
    assert exchange.reason("sinabs", "3.1.4", "if", {}) == "not explained yet"
    assert exchange.reason("sinabs", "3.1.4", "if", refused) == "refused by us: no"
    both = exchange.reason("sinabs", "3.1.3", "if", refused)
    assert both == f"refused by us: no; {exchange.FLOOR}"


def test_the_bench_writes_figures_reasons_and_a_page(monkeypatch, tmp_path):
    @contextmanager
    def worker(name, *_):
        yield Double(name, (lambda s: 0 * s) if name == "sinabs" else (lambda s: s))

    monkeypatch.setattr(peers, "worker", worker)
    path = perform(BENCHES["nir"], tmp_path, tmp_path / "runs", seed=3)
    headline = page.headline(BENCHES["nir"], tmp_path)
    assert headline.startswith("19 of 25 networks that passed fire in exactly the same steps; 13 ")
    results = json.loads(path.read_text())
    assert results["command"].endswith("--seed 3")
    figures, reasons = results["figures"], results["reasons"]
    assert figures["equal [norse, from lif]"] == 1 > figures["equal [sinabs, lif]"]
    assert reasons["sinabs, lif"] == "not explained yet" and "norse, lif" not in reasons
    text = page.render(BENCHES["nir"], tmp_path, tmp_path).read_text()
    rows = {line.split(" | ")[0]: line for line in text.splitlines()}
    assert "| snnTorch 1.0.0 (1) | Norse 1.1.0 (2) |" in text
    assert rows["| IF"].count("refused (") == 4  # the last one: theirs, read by us
    for number in re.findall(r"\((\d+)\)", exchange.tables(results)["imported"]):
        assert f"\n{number}. " in text
    assert rows["| current-based LIF"].startswith("| current-based LIF | 100 % | 100 % | 100 % |")


def test_a_worker_tells_what_its_framework_says(jobs, monkeypatch, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    package.write(tmp_path / "a.nir", package.NIRGraph.from_list(package.Scale(np.ones(2))))
    job = {"x": tmp_path / "x.npy", "out": tmp_path / "out.npz", "file": tmp_path / "a.nir"}

    def importer(graph, dt, length):
        jobs.complete(graph, lambda node: None if dt else node)
        return jobs.steps(lambda x, state: (x + (state or 0), (state or 0) + 1), batch=True)

    monkeypatch.setitem(jobs.IN, "mine", importer)
    assert jobs.answer("mine", "nir", **job, dt=0) == {"rate": 2.0}
    assert np.load(job["out"])["spikes"].tolist() == [[1, 1], [2, 2], [3, 3]]
    left = jobs.answer("mine", "nir", **job, dt=1)
    assert left == {"error": "its importer leaves out Scale without a word"}
    broken = jobs.answer("mine", "nir", **job | {"file": tmp_path / "none.nir"}, dt=0)
    assert broken["error"].startswith("FileNotFoundError: ")
    monkeypatch.setitem(jobs.OUT, "mine", lambda: {"a": lambda: (torch.neg, lambda x, dt: 0)})
    assert jobs.answer("mine", "networks") == {"networks": ["a"]}
    assert "error" in jobs.answer("mine", "export", network="a", **job, dt=0)

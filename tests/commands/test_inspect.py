import io
import sys

import numpy as np
import pytest
from rich.console import Console

from axonal.commands.inspect import graph_of, inspect, picture
from axonal.core.errors import FileError, InputError
from axonal.core.neurons import Leaky
from axonal.graph import save
from axonal.graph.graph import Graph, Node
from axonal.graph.ops import Dense, Input, Neurons


@pytest.fixture
def folder(tmp_path):
    nodes = [Node("x", Input((4,))), Node("w", Dense(np.ones((3, 4), np.float32)), ("x",))]
    graph = Graph([*nodes, Node("n", Neurons(Leaky()), ("w",))], ["n"])
    return save(graph, tmp_path / "net")


def test_a_saved_graph_is_read(folder):
    assert graph_of(str(folder)).shapes == {"x": (4,), "w": (3,), "n": (3,)}


def test_a_damaged_graph_is_told(folder):
    (folder / "graph.safetensors").write_bytes(b"")
    with pytest.raises(FileError, match=r"can.t load a graph from .*net: graph\."):
        graph_of(str(folder))


@pytest.mark.parametrize("text", ["3", "[1]", "{", "null"])
def test_a_folder_of_something_else_is_told(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    assert graph_of(str(tmp_path)) is None
    with pytest.raises((InputError, FileError), match=r"config\.json|holds"):
        inspect(str(tmp_path))


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "users_nets.py").write_text(
        "import torch\nfrom torch import nn\nfrom axonal.nn import Leaky, Neuron, Sequential\n"
        "class Odd(nn.Module):\n    def forward(self, x): return torch.erf(x)\n"
        "def dense(): return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.LayerNorm(8))\n"
        "def odd(): return nn.Sequential(nn.Linear(2, 2), nn.ReLU(), Odd())\n"
        "def line(): return nn.Sequential(nn.Linear(2, 2))\n"
        "def spiking(): return Sequential(nn.Linear(4, 8), Neuron(Leaky()))\n"
    )
    yield "users_nets"
    sys.modules.pop("users_nets", None)


def shown(name, **about):
    console = Console(width=200, record=True, file=io.StringIO())
    group, graph = inspect(name, **about)
    console.print(group)
    return console.export_text(), graph


def test_a_network_without_neurons_is_shown_as_a_conversion_sees_it(own, tmp_path):
    text, graph = shown(f"{own}:dense")
    assert graph is None and "ReLU      neurons go here" in text and "--method transformer" in text
    text, _ = shown(f"{own}:odd")
    assert "no rule" in text and "users_nets.py" in text and "no neurons yet" not in text
    assert "nothing in it could spike" in shown(f"{own}:line")[0]
    with pytest.raises(InputError, match="convert it first"):
        picture(graph, tmp_path / "a.md")


def test_a_spiking_network_of_ones_own_needs_a_shape(own):
    with pytest.raises(InputError, match="say --shape"):
        inspect(f"{own}:spiking")
    assert shown(f"{own}:spiking", shape=[4])[1].shapes["0"] == (8,)

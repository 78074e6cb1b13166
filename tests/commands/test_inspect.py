import numpy as np
import pytest

from axonal.commands.inspect import graph_of
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
    with pytest.raises(InputError, match=r"is no \.nir file and no network"):
        graph_of(str(tmp_path))

"""Graphs in files: equal when they come back, and refused in words when they mean harm."""

import copy
import hashlib
import json
import tracemalloc
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest
from graphs import assert_same, graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import numpy as safetensors

from axonal.core.errors import FileError, InputError
from axonal.core.neurons import Dynamics, Leaky
from axonal.graph import load, save
from axonal.graph.checkpoint import ARRAYS_FILE, NODES_FILE
from axonal.graph.difference import Difference
from axonal.graph.graph import Graph, Node
from axonal.graph.ops import Add, Bias, Conv, Delay, Input, Neurons, Op, Scale


def ones(*shape):
    return np.ones(shape, np.float32)


@dataclass(frozen=True, eq=False)
class Shift(Op):
    """A toy op, known here alone."""

    way: int
    by: np.ndarray

    def shape(self, *shapes: tuple[int, ...]) -> tuple[int, ...]:
        return shapes[0]

    def apply(self, *x: np.ndarray) -> np.ndarray:
        return x[0] + self.way * self.by


def network():
    """A convolution, a cycle with a delay, a bias and two populations."""
    wide = Conv(ones(2, 1, 3), (1,), ((1, 1),), (1,))
    return Graph(
        [
            Node("x", Input((1, 4))),
            Node("conv", wide, ("x",)),
            Node("bias", Bias(ones(2, 1) / 8), ("conv",)),
            Node("sum", Add(), ("bias", "late")),
            Node("n", Neurons(Leaky(decay=0.5), {"threshold": ones(2, 4)}), ("sum",)),
            Node("late", Delay(np.array(1)), ("n",)),
        ],
        ["n"],
    )


@settings(max_examples=30)
@given(graph=graphs())
def test_a_graph_comes_back_equal(graph, tmp_path):
    assert_same(graph, load(save(graph, tmp_path / "net")))


@pytest.mark.parametrize("kind", sorted(Dynamics.KINDS))
def test_every_kind_of_neuron_comes_back(kind, tmp_path):
    dynamics = Dynamics.KINDS[kind](gain=0.1 + 0.2)
    graph = Graph([Node("x", Input((2,))), Node("n", Neurons(dynamics), ("x",))], ["n"])
    op = load(save(graph, tmp_path)).nodes["n"].op
    assert isinstance(op, Neurons) and op.dynamics == dynamics


def test_functions_and_their_options_come_back(tmp_path):
    norm = {"normalized_shape": (4,), "weight": ones(4) * 3, "bias": ones(4), "eps": 1e-3}
    pool = {"kernel_size": (2, 1), "padding": 0, "ceil_mode": False}
    nodes = [
        Node("x", Input((4,))),
        Node("a\0/β\ud800", Difference("layer_norm", norm, unit=2**-10), ("x",)),
        Node("", Difference("gelu", {"approximate": "tanh"}), ("a\0/β\ud800",)),
        Node("image", Input((1, 4, 4))),
        Node("pool", Difference("max_pool2d", pool, np.float64(0.25)), ("image",)),
        Node("half", Scale(np.float16(0.5)), ("pool",)),
    ]
    graph = Graph(nodes, ["", "half"])
    again = load(save(graph, tmp_path))
    assert again.nodes["pool"].op.unit == 0.25 and type(again.nodes["pool"].op.unit) is float
    assert again.nodes["half"].op.arrays()["factor"].dtype == np.float16
    assert again.nodes["pool"].op.values["kernel_size"] == (2, 1)
    assert_same(again, load(save(again, tmp_path)))


def test_an_op_that_is_added_comes_back(tmp_path):
    graph = Graph([Node("x", Input((3,))), Node("y", Shift(2, ones(3)), ("x",))], ["y"])
    assert_same(graph, load(save(graph, tmp_path)))


def test_what_no_file_holds_is_not_saved(tmp_path):
    x = Node("x", Input((4,)))
    for fields, reason in (
        ({"by": np.array([np.nan])}, "finite"),
        ({"by": ones(1).astype(complex)}, "finite numbers"),
        ({"by": ones(1).astype(np.longdouble)}, "64 bits"),
        ({"by": np.array([None])}, "finite numbers"),
        ({"way": float("inf")}, "not finite"),
        ({"way": print}, "builtin_function_or_method"),
    ):
        op = Shift(1, ones(4))
        vars(op).update(fields)
        with pytest.raises(InputError, match=rf"^can't save 'odd': 1\.(by|way) .*{reason}"):
            save(Graph([x, Node("odd", op, ("x",))], ["odd"]), tmp_path / "net")
    assert not (tmp_path / "net").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="can't write"):
        save(Graph([x], ["x"]), tmp_path / "file")


def tampered(folder, change):
    """What `save` wrote, changed by somebody who knows the format."""
    text = json.loads((folder / NODES_FILE).read_text())
    arrays = safetensors.load_file(folder / ARRAYS_FILE)
    change(text, arrays)
    content = safetensors.save(arrays)
    if text.get("arrays"):
        text["arrays"] = hashlib.sha256(content).hexdigest()
    (folder / ARRAYS_FILE).write_bytes(content)
    (folder / NODES_FILE).write_text(json.dumps(text))


def entry(text, name):
    return next(node for node in text["nodes"] if node["name"] == name)


def field(name, key, value):
    return lambda text, _: entry(text, name)["fields"].update({key: value})


def dynamics(**values):
    return lambda text, _: entry(text, "n")["fields"]["dynamics"].update(values)


def twice(text, arrays):
    text["nodes"].append(copy.deepcopy(entry(text, "bias")) | {"name": "more"})


def large(text, arrays):
    entry(text, "x")["fields"]["size"] = [2**26, 1]
    text["nodes"] = [entry(text, "x"), function("x"), function("f") | {"name": "g"}]
    text["outputs"] = ["g"]
    arrays.clear()


def function(source):
    gelu = {"function": "gelu", "values": {}, "unit": None}
    return {"name": "f", "op": "Difference", "inputs": [source], "fields": gelu}


WRONG = {
    "no version": (lambda t, _: t.pop("version"), "no 'version'"),
    "version": (lambda t, _: t.update(version=2), "version 2 where 1 is read"),
    "no digest": (lambda t, _: t.update(arrays=""), "damaged, or of another graph"),
    "no list": (lambda t, _: t.update(nodes={}), "no list of at most 65536"),
    "many": (lambda t, _: t.update(nodes=[{}] * 70_000), "no list of at most 65536"),
    "no outputs": (lambda t, _: t.update(outputs=[]), "no output 'none'"),
    "output": (lambda t, _: t.update(outputs=["y"]), "no output 'y'"),
    "outputs": (lambda t, _: t.update(outputs="n"), "'n' stands where tuple belongs"),
    "no entry": (lambda t, _: t["nodes"].append(3), "node 6: "),
    "no name": (lambda t, _: entry(t, "n").pop("name"), "node 5: no 'name'"),
    "name": (lambda t, _: entry(t, "n").update(name=3), "node 3: 3 stands where str"),
    "name twice": (lambda t, _: entry(t, "n").update(name="sum"), "two nodes are called 'sum'"),
    "op": (lambda t, _: entry(t, "n").update(op="os.system"), "no op 'os.system'; there are Add"),
    "base": (lambda t, _: entry(t, "n").update(op="Op"), "no op 'Op'"),
    "inputs": (lambda t, _: entry(t, "n").update(inputs=[["x"]]), r"\['x'\] stands where str"),
    "input": (lambda t, _: entry(t, "n").update(inputs=["y"]), "reads 'y', which isn't there"),
    "arity": (lambda t, _: entry(t, "n").update(inputs=["x", "x"]), "2 nodes instead of one"),
    "cycle": (lambda t, _: entry(t, "late").update(inputs=["late"]), "cycle that nothing enters"),
    "circle": (lambda t, _: entry(t, "bias").update(inputs=["sum"]), "needs a Delay"),
    "field": (field("n", "colour", 1), "node 'n': Neurons has the fields .* 'colour' is wrong"),
    "no field": (lambda t, _: entry(t, "conv")["fields"].pop("stride"), "'stride' is wrong"),
    "size": (field("x", "size", [4.0]), r"node 'x': 4\.0 stands where int"),
    "sign": (field("x", "size", [-4]), "must be"),
    "truth": (field("conv", "groups", True), "True stands where int"),
    "pairs": (field("conv", "padding", [[1, 1, 1]]), "node 'conv': "),
    "huge": (field("conv", "padding", [[0, 2**62]]), r"'conv' would have \(2, 4611686018427387"),
    "array": (field("bias", "value", [1.0]), "stands where ndarray belongs"),
    "no array": (field("bias", "value", {"tensor": "9.value"}), "no array '9.value'"),
    "array twice": (twice, "node 'more': there is no array"),
    "more": (lambda _, a: a.update(more=ones(2)), "'more' is an array of no node"),
    "shape": (lambda _, a: a.update({"3.value": ones(3)}), "does not broadcast"),
    "weight": (lambda _, a: a.update({"2.weight": ones(2, 2, 3)}), "2, 2, 3"),
    "nan": (lambda _, a: a.update({"3.value": ones(2, 1) * np.nan}), "finite numbers"),
    "steps": (lambda _, a: a.update({"1.steps": np.array(2**30)}), "from 0 to 2\\^20"),
    "kind": (dynamics(kind="Dynamics"), "node 'n': Dynamics: kind 'Dynamics' is unknown"),
    "constant": (dynamics(decay=1.5), r"decay 1\.5 is outside"),
    "type": (dynamics(decay="0.5"), "'0.5' stands where float"),
    "emit": (dynamics(emit="never"), "'never' stands where one of binary, ternary"),
    "unknown": (dynamics(text="{}"), "node 'n': "),
    "function": (lambda t, _: t["nodes"].append(function("n") | {"op": "Pool"}), "Pool has"),
    "large": (large, r"'x' would have \(67108864, 1\) values"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_graph_is_refused(name, tmp_path):
    change, reason = WRONG[name]
    tampered(save(network(), tmp_path), change)
    with pytest.raises(FileError, match=rf"^can't load a graph from .*{reason}.*; save it again$"):
        load(tmp_path, limit=2**26)


def test_files_that_are_none(tmp_path):
    folder = save(network(), tmp_path / "net")
    for name, content, reason in (
        (NODES_FILE, "{", "Expecting property name"),
        (NODES_FILE, "[]", "list indices"),
        (NODES_FILE, "[" * 100_000, "recursion"),
        (NODES_FILE, '{"version": NaN}', "NaN is no number"),
        (NODES_FILE, '{"version": 1e999}', "version inf"),
        (ARRAYS_FILE, "", "damaged, or of another graph"),
        (NODES_FILE, None, "no graph.json"),
    ):
        save(network(), folder)
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content)
        with pytest.raises(FileError, match=reason):
            load(folder)
    with pytest.raises(FileError, match=r"no graph\.json; save it again"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileError, match=r"graph\.safetensors has more than 100 bytes, the limit"):
        load(save(network(), folder), limit=100)


def test_arrays_of_another_graph_are_not_taken(tmp_path):
    one, other = save(network(), tmp_path / "one"), tmp_path / "other"
    nodes = [Node("x", Input((1, 4))), Node("w", Bias(ones(1)), ("x",))]
    save(Graph(nodes, ["w"]), other)
    (one / ARRAYS_FILE).write_bytes((other / ARRAYS_FILE).read_bytes())
    with pytest.raises(FileError, match="of another graph"):
        load(one)


def test_what_announces_the_absurd_costs_no_memory(tmp_path):
    folder = save(Graph([Node("x", Input((4,)))], ["x"]), tmp_path)

    def absurd(text, arrays):
        text["nodes"] = [entry(text, "x"), function("x")]
        text["nodes"][0]["fields"]["size"] = [2**30]

    tampered(folder, absurd)
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=r"'x' would have \(1073741824,\) values"):
            load(folder)
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def places(value, path=()):
    """The path to every value within a JSON."""
    yield path
    inner = enumerate(value) if isinstance(value, list) else ()
    for key, within in value.items() if isinstance(value, dict) else inner:
        yield from places(within, (*path, key))


JSONS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70_000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["x", "n", "Dense", "Delay", "Neurons", "gelu", "3.value", "tensor"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("tensor"), inner),
    max_leaves=4,
)


@given(where=st.integers(0, 999), value=JSONS, drop=st.booleans())
def test_any_change_of_the_text_loads_or_fails_in_words(where, value, drop, tmp_path):
    def change(text, arrays):
        choice = list(places(text))[1:]
        *path, last = choice[where % len(choice)]
        for key in path:
            text = text[key]
        if drop:
            del text[last]
        else:
            text[last] = value

    tampered(save(network(), tmp_path), change)
    with suppress(FileError):
        assert isinstance(load(tmp_path, limit=2**20), Graph)


DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)


@given(damage=DAMAGE, end=st.floats(0, 1), nodes=st.booleans())
def test_damaged_files_fail_in_words(damage, end, nodes, tmp_path):
    path = save(network(), tmp_path) / (NODES_FILE if nodes else ARRAYS_FILE)
    raw = bytearray(path.read_bytes())
    for place, value in damage:
        raw[int(place * len(raw))] = value
    path.write_bytes(raw[: int(end * len(raw)) or None])
    with suppress(FileError):
        assert isinstance(load(tmp_path, limit=2**20), Graph)

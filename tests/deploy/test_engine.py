import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from graphs import drive, graphs, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.core.events import Events
from axonal.core.neurons import Current, Delta, Izhikevich, Leaky
from axonal.deploy.engine import codegen, engine, kernels, reference, team
from axonal.deploy.engine.engine import Engine
from axonal.graph import load, save
from axonal.graph.graph import Graph, Node
from axonal.graph.ops import Add, Conv, Delay, Dense, Input, Neurons, Pool, Select
from axonal.nn import LIF, Sequential
from axonal.nn.meter import Meter


@settings(max_examples=30)
@given(graphs(), st.integers(0, 99), st.booleans())
def test_the_engine_equals_the_reference(graph, seed, heavy):
    x = drive(graph, 12, seed)
    expected, state = reference.run(graph, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "HEAVY", 1 if heavy else 2**30)
        outputs, after = Engine(graph, threads=3).run(x)
    for name, values in outputs.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
    for name in graph.neurons:
        np.testing.assert_allclose(after[name], state[name], rtol=1e-5, atol=2e-5, err_msg=name)


@settings(max_examples=15)
@given(graphs(), st.integers(1, 11), st.integers(0, 99))
def test_runs_in_chunks_are_equal_and_states_are_values(graph, cut, seed):
    x = drive(graph, 12, seed)
    first, second = ({n: v[s] for n, v in x.items()} for s in (slice(cut), slice(cut, None)))
    runner = Engine(graph)
    outputs, last = runner.run(x)
    stream = runner.stream()
    parts = [stream.push(part) for part in (first, second)]
    again, after = runner.run(second, runner.run(first)[1])
    for name, values in outputs.items():
        dense_parts = [part[name].to_dense() for part in parts]
        np.testing.assert_array_equal(np.concatenate(dense_parts), values)
        np.testing.assert_array_equal(again[name], values[cut:])
    for name, values in last.items():
        np.testing.assert_array_equal(after[name], values)
        np.testing.assert_array_equal(stream.state()[name], values)


@settings(max_examples=15)
@given(graph=graphs(), seed=st.integers(0, 99))
def test_a_saved_graph_fires_the_same(graph, seed, tmp_path):
    x = drive(graph, 12, seed)
    sent, state = Engine(graph).run(x)
    again, after = Engine(load(save(graph, tmp_path))).run(x)
    for name, values in sent.items():
        np.testing.assert_array_equal(again[name], values)
    for name, values in state.items():
        np.testing.assert_array_equal(after[name], values)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.05])
def test_crowded_convolutions_equal_the_reference(share):
    generator = np.random.default_rng(0)
    kernel, one = weights(generator, 3, 12, 3, 3), (1, 1)
    op, shape = Conv(kernel, one, (one, one), one), (12, 30, 30)
    graph = Graph([Node("x", Input(shape)), Node("y", op, ("x",))], ["y"])
    x = np.where(generator.random((2, *shape)) < share, weights(generator, 2, *shape), 0)
    x = x.astype(np.float32)
    assert (share < 0.5) == (np.count_nonzero(x[0]) < kernels.CROWDED * 900)
    expected = reference.run(graph, {"x": x})[0]["y"]
    for threads in (1, 3):  # both as events, which are put in order, and as values
        for inputs in (x, Events.from_dense(x)):
            y = Engine(graph, threads=threads).run({"x": inputs})[0]["y"]
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_a_reference_state_goes_on_in_the_engine():
    graph = Graph(
        [
            Node("x", Input((5,))),
            Node("late", Delay(np.array([0, 1, 2, 3, 3])), ("x",)),
            Node("n", Neurons(Leaky(decay=0.5, threshold=2.0)), ("late",)),
        ],
        ["n", "late"],
    )
    x = drive(graph, 9, 0, share=0.8)
    first, second = {"x": x["x"][:4]}, {"x": x["x"][4:]}
    _, state = reference.run(graph, first)
    expected, _ = reference.run(graph, second, state)
    outputs, _ = Engine(graph).run(second, state)
    for name, values in outputs.items():
        np.testing.assert_array_equal(values, expected[name])


def test_silence_in_is_silence_out_and_costs_nothing():
    graph = Graph(
        [
            Node("x", Input((3, 8, 8))),
            Node("c", Conv(np.ones((4, 3, 3, 3), "f4"), (1, 1), ((1, 1),) * 2, (1, 1)), ("x",)),
            Node("n", Neurons(Leaky(decay=0.9)), ("c",)),
        ],
        ["n"],
    )
    stream = Engine(graph).stream()
    silent = {"x": Events(*(np.zeros(0, int),) * 2, np.zeros(0, "f4"), (1000, 3, 8, 8))}
    assert not len(stream.push(silent)["n"])
    counts = stream.counts().totals()
    assert counts.pop("sites") == 1000 * 4 * 64
    assert not any(counts.values())


def test_membranes_that_slept_have_decayed_step_by_step():
    graph = Graph(
        [Node("x", Input((3,))), Node("n", Neurons(Leaky(decay=0.93, threshold=1.2)), ("x",))],
        ["n"],
    )
    x = np.zeros((60, 3), "f4")
    x[0], x[40] = [0.7, 1.1, 0.9], [1.17, 1.14, 1.15]
    expected, state = reference.run(graph, {"x": x})
    outputs, after = Engine(graph).run({"x": x})
    np.testing.assert_array_equal(outputs["n"], expected["n"])
    np.testing.assert_array_equal(after["n"], state["n"])


@pytest.mark.parametrize("dynamics", [Leaky(threshold=0.4), Current(), Izhikevich(gain=90.0)])
def test_a_neuron_fires_on_after_its_input(dynamics):
    graph = Graph([Node("x", Input((2,))), Node("n", Neurons(dynamics), ("x",))], ["n"])
    x = np.zeros((30, 2), "f4")
    x[2] = [3.0, 1.0]
    expected, _ = reference.run(graph, {"x": x})
    outputs, _ = Engine(graph).run({"x": x})
    assert expected["n"][3:].any()
    np.testing.assert_array_equal(outputs["n"], expected["n"])


def test_scale_multiplies_thresholds():
    graph = Graph(
        [Node("x", Input((4,))), Node("n", Neurons(Delta(threshold=0.3), {}), ("x",))], ["n"]
    )
    x = {"x": np.full((3, 4), 0.1, "f4")}
    expected, state = reference.run(graph, x, scale=0.5)
    outputs, after = Engine(graph).run(x, scale=0.5)
    assert expected["n"].any()
    np.testing.assert_array_equal(outputs["n"], expected["n"])
    np.testing.assert_array_equal(Engine(graph).run(x, after, 0)[0]["n"].any(), True)
    np.testing.assert_array_equal(after["n"], state["n"])


def test_events_at_one_time_and_place_add_up():
    graph = Graph([Node("x", Input((2,))), Node("y", Select(np.array([1, 0])), ("x",))], ["y"])
    events = Events(np.array([1, 1]), np.array([0, 0]), np.array([2.0, 3.0]), (3, 2))
    outputs, _ = Engine(graph).run({"x": events})
    np.testing.assert_array_equal(outputs["y"], [[0, 0], [0, 5], [0, 0]])


def test_counts_are_those_of_the_meter():
    torch.manual_seed(0)
    network = Sequential(
        torch.nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False),
        LIF(0.9, threshold=0.3),
        torch.nn.Conv2d(4, 6, 3, bias=False),
        LIF(0.8, threshold=0.2),
        torch.nn.Flatten(),
        torch.nn.Linear(54, 10, bias=False),
        LIF(0.9, threshold=0.2),
    )
    x = (torch.rand(20, 1, 2, 10, 10) < 0.2).float()
    with torch.no_grad(), Meter(network, "events", batch_dim=1) as meter:
        spikes, _ = network(x)
    weight = [network[i].weight.detach().numpy() for i in (0, 2, 5)]
    graph = Graph(
        [
            Node("x", Input((2, 10, 10))),
            Node("0", Conv(weight[0], (2, 2), ((1, 1),) * 2, (1, 1)), ("x",)),
            Node("1", Neurons(network[1].dynamics), ("0",)),
            Node("2", Conv(weight[1], (1, 1), ((0, 0),) * 2, (1, 1)), ("1",)),
            Node("3", Neurons(network[3].dynamics), ("2",)),
            Node("4", Select(np.arange(54)), ("3",)),
            Node("5", Dense(weight[2]), ("4",)),
            Node("6", Neurons(network[6].dynamics), ("5",)),
        ],
        ["6"],
    )
    for heavy in (1, 2**30):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "HEAVY", heavy)
            stream = Engine(graph, threads=2).stream()
            sent = stream.push({"x": x[:, 0].numpy()})["6"].to_dense()
        np.testing.assert_array_equal(sent, spikes[:, 0].numpy())
        for field, total in meter.counts().totals().items():
            assert stream.counts().by_layer(field) == meter.counts().by_layer(field), field
            assert total == stream.counts().total(field)


@pytest.mark.parametrize("form", ["bfloat16", "int8"])
def test_narrow_weights(form, monkeypatch):
    generator = np.random.default_rng(0)
    weight = generator.normal(0, 1, (40, 3, 3, 3)).astype("f4")
    scale = np.abs(weight).max() / np.float32(127)
    near = {
        "int8": np.rint(weight / scale) * scale,
        "bfloat16": torch.from_numpy(weight).bfloat16().float().numpy(),
    }[form]
    first, second = (
        Graph(
            [
                Node("x", Input((3, 6, 6))),
                Node("c", Conv(w, (1, 1), ((1, 1),) * 2, (1, 1)), ("x",)),
                Node("p", Pool((2, 2), (2, 2), ((0, 0),) * 2), ("c",)),
            ],
            ["p"],
        )
        for w in (weight, near.astype("f4"))
    )
    x = drive(first, 4, 0)
    expected, _ = reference.run(second, x)
    for heavy in (2**30, 1):
        monkeypatch.setattr(engine, "HEAVY", heavy)
        outputs, _ = Engine(first, weights=form, threads=2).run(x)
        np.testing.assert_allclose(outputs["p"], expected["p"], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="choose of float32"):
        Engine(first, weights="int4")


def test_what_does_not_fit_is_refused():
    graph = Graph([Node("x", Input((2,))), Node("n", Neurons(Leaky()), ("x",))], ["n"])
    runner = Engine(graph)
    x = np.zeros((3, 2), "f4")
    for inputs, reason in [
        ({"y": x}, "'y' of"),
        ({"x": x[:, :1]}, r"x \[T, \*\(2,\)\]"),
        ({"x": x[:0]}, "at least one"),
        ({}, "at least one"),
        ({"x": x * np.nan}, "not finite"),
        ({"x": np.array(["a"])}, "numbers|of"),
    ]:
        with pytest.raises(InputError, match=reason):
            runner.run(inputs)
    with pytest.raises(InputError, match="another graph"):
        runner.stream({"n": np.zeros((1, 3), "f4")})
    with pytest.raises(InputError, match="0 threads"):
        Engine(graph, threads=0)


def test_more_events_than_room_for_them():
    graph = Graph([Node("x", Input((70,))), Node("y", Add(), ("x", "x"))], ["y", "x"])
    x = np.ones((2000, 70), "f4")
    outputs, _ = Engine(graph).run({"x": x})
    np.testing.assert_array_equal(outputs["y"], 2 * x)
    np.testing.assert_array_equal(outputs["x"], x)


def test_counts_of_an_endless_stream_take_bounded_memory(monkeypatch):
    graph = Graph([Node("x", Input((2,))), Node("n", Neurons(Leaky()), ("x",))], ["n"])
    monkeypatch.setattr(engine, "SEPARATE", 3)
    stream = Engine(graph).stream()
    for _ in range(7):
        stream.push({"x": np.ones((2, 2), "f4")})
    counts = stream.counts()
    assert counts.table.shape[0] == 3
    assert counts.total("spikes") == 28 and counts.total("sites") == 28


def test_the_engine_runs_without_torch():
    code = (
        "import sys, numpy as np\n"
        "from axonal.core.neurons import Leaky\n"
        "from axonal.deploy.engine import Engine\n"
        "from axonal.graph.graph import *\n"
        "g = Graph([Node('x', Input((2,))), Node('n', Neurons(Leaky()), ('x',))], ['n'])\n"
        "assert Engine(g).run({'x': np.ones((3, 2), 'f4')})[0]['n'].all()\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_input_may_be_a_tensor_or_a_list_and_one_alone_needs_no_name():
    graph = Graph([Node("x", Input((5,))), Node("n", Neurons(Leaky()), ("x",))], ["n"])
    x, engine = np.ones((3, 5), np.float32), Engine(graph)
    tensor = torch.ones(3, 5)
    for inputs in (x, {"x": x}, tensor, {"x": tensor}, x.tolist(), {"x": x > 0}):
        assert engine.stream().push(inputs)["n"].to_dense().all()
        assert engine.run(inputs)[0]["n"].all()
    for wrong in (None, "x", {"x": None}, {"x": [[1, 2], [3]]}, {"x": np.ones((3, 5), complex)}):
        with pytest.raises(InputError, match="engine: "):
            engine.stream().push(wrong)
    two = Graph([Node("a", Input((5,))), Node("b", Input((5,)))], ["a", "b"])
    with pytest.raises(InputError, match="give inputs by name: a, b"):
        Engine(two).run(x)


def test_the_threads_of_torch_are_left_alone():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        graph = Graph([Node("x", Input((5,))), Node("n", Neurons(Leaky()), ("x",))], ["n"])
        Engine(graph).run(np.ones((3, 5)))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_nobody_waits_for_threads_that_never_come(monkeypatch):
    generator = np.random.default_rng(0)
    weight = weights(generator, 300, 200)
    graph = Graph([Node("x", Input((200,))), Node("y", Dense(weight), ("x",))], ["y"])
    x = drive(graph, 6, 0, share=0.9)
    monkeypatch.setattr(engine, "HEAVY", 1)
    expected = Engine(graph, threads=1).run(x)[0]["y"]
    monkeypatch.setattr(team, "_pool", lambda threads: SimpleNamespace(submit=lambda *work: None))
    np.testing.assert_array_equal(Engine(graph, threads=4).run(x)[0]["y"], expected)


def test_after_a_long_wait_nodes_run_in_one_thread_for_a_while(monkeypatch):
    """A thread that loses its processor in the midst of a part."""
    generator = np.random.default_rng(0)
    graph = Graph(
        [Node("x", Input((64,))), Node("y", Dense(weights(generator, 640, 64)), ("x",))], ["y"]
    )
    monkeypatch.setattr(engine, "HEAVY", 1)
    loop, stream = codegen.loop(), Engine(graph, threads=2).stream()
    stream.team.words[loop.PENALTY] = 16
    stream.team.words[loop.REST] = 3
    for _ in range(3):
        stream.push(drive(graph, 1, 0, share=0.9))
    assert stream.team.words[loop.REST] == 0 and stream.team.words[loop.JOB] == 0
    stream.push(drive(graph, 1, 0, share=0.9))
    assert stream.team.words[loop.JOB] == 1

"""Targets: ours keep the contract, a toy is added by its class alone, and the kit sees faults."""

import subprocess
import sys
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from graphs import drive, graphs
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.core.meter import FIELDS, Counts
from axonal.core.neurons import Izhikevich, Leaky
from axonal.deploy.targets import TARGETS, Target
from axonal.graph.difference import Difference
from axonal.graph.graph import Graph, Node
from axonal.graph.ops import Add, Delay, Dense, Input, Neurons
from axonal.testing import _sample_graphs, check_target


class Slow(Target):
    """A toy: the reference's arithmetic, eight neurons a layer, no streaming."""

    name, evidence, exact = "slow", "behaviour only", True
    ops = (Input, Dense, Add, Delay, Neurons)
    dynamics = (Leaky,)
    limits = MappingProxyType({"neurons": 8, "fan_in": 5})

    def execute(self, graph, x, state):
        result = TARGETS["reference"].run(graph, x)
        return replace(result, state=None)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_keeps_the_contract(name):
    assert TARGETS[name].name == name
    check_target(TARGETS[name])


def test_the_networks_of_the_kit_fire_in_every_layer():
    for graph in _sample_graphs(0):
        x = {name: np.ones((9, *graph.shapes[name]), "f4") for name in graph.inputs}
        spikes = TARGETS["reference"].run(graph, x).counts.by_layer("spikes")
        assert all(spikes[name] for name in graph.neurons)


def test_a_target_is_added_by_one_class():
    check_target(Slow())


def chain(op, size=4):
    nodes = [Node("x", Input((size,))), Node("w", Dense(np.ones((9, size), "f4")), ("x",))]
    return Graph([*nodes, Node("odd", op, ("w",))], ["odd"])


@pytest.mark.parametrize(
    ("graph", "refusals"),
    [
        (chain(Neurons(Leaky())), {"odd": "9 neurons, where 8 fit"}),
        (chain(Delay(np.array(1)), 6), {"w": "6 fan-in, where 5 fit"}),
        (
            chain(Neurons(Izhikevich())),
            {"odd": "it has no Izhikevich neurons, 9 neurons, where 8 fit"},
        ),
        (chain(Difference("gelu")), {"odd": "it has no Difference"}),
    ],
)
def test_refusals_name_the_node_and_the_limit(graph, refusals):
    assert Slow().check(graph) == refusals
    with pytest.raises(InputError, match=r"^slow can't run this graph: '(odd|w)': \w"):
        Slow().run(graph, drive(graph, 3, 0))


def test_a_state_goes_where_it_can_be_used():
    graph = chain(Neurons(Leaky()), 5)
    x = drive(graph, 3, 0)
    state = TARGETS["reference"].run(graph, x).state
    with pytest.raises(InputError, match="slow can't go on from a state"):
        Slow().run(chain(Delay(np.array(0))), {"x": np.ones((2, 4), "f4")}, {"odd": x["x"]})
    for name in ("reference", "cpu"):
        with pytest.raises(InputError, match="another graph"):
            TARGETS[name].run(chain(Neurons(Leaky(refractory=1)), 5), x, state)
        with pytest.raises(InputError, match="at least one"):
            TARGETS[name].run(graph, {})


def test_the_engine_refuses_functions_in_cycles_by_name():
    nodes = [
        Node("x", Input((4,))),
        Node("sum", Add(), ("x", "late")),
        Node("f", Difference("gelu"), ("sum",)),
        Node("late", Delay(np.array(1)), ("f",)),
    ]
    graph = Graph(nodes, ["f"])
    assert set(TARGETS["cpu"].check(graph)) == {"f"} and not TARGETS["reference"].check(graph)
    check_target(TARGETS["cpu"], [graph, chain(Neurons(Leaky()))])


@settings(max_examples=20)
@given(graph=graphs(), seed=st.integers(0, 99))
def test_the_engine_counts_what_the_reference_does(graph, seed):
    x = drive(graph, 12, seed)
    ours, theirs = (TARGETS[name].run(graph, x).counts for name in ("cpu", "reference"))
    for field in FIELDS:
        assert ours.by_layer(field) == theirs.by_layer(field), field


class Faulty(Target):
    """A target with a fault: what `change` makes of the reference's result."""

    name, evidence, exact, streams = "faulty", "bit-exact", True, True

    def __init__(self, change=None, refusals=None):
        self.change, self.refusals, self.runs = change, refusals or {}, 0

    def check(self, graph):
        return self.refusals

    def execute(self, graph, x, state):
        self.runs += 1
        result = TARGETS["reference"].run(graph, x, state)
        return self.change(self, result, x, state)


def flip(self, result, x, state):
    return replace(result, outputs={name: 1 - value for name, value in result.outputs.items()})


def restless(self, result, x, state):
    if self.runs < 2:
        return result
    return replace(result, outputs={name: value + 1 for name, value in result.outputs.items()})


def greedy(self, result, x, state):
    for value in x.values():
        value += 1
    return result


def lossy(self, result, x, state):
    return replace(result, state={name: 0 * value for name, value in result.state.items()})


def spendthrift(self, result, x, state):
    """Writes what nobody reads, more in longer runs."""
    table = result.counts.table.copy()
    table[:, :, FIELDS.index("state_writes")] += len(table)
    return replace(result, counts=replace(result.counts, table=table))


def busy(self, result, x, state):
    quiet = not any(value.any() for value in x.values())
    return replace(result, counts=replace(result.counts, table=result.counts.table + quiet))


def counting(change):
    def fault(self, result, x, state):
        return replace(result, counts=change(result.counts))

    return fault


FAULTS = {
    "the answer differs at": flip,
    "a second run differs": restless,
    "an input, after the run, differs": greedy,
    r"outputs \[\]": lambda self, result, x, state: replace(result, outputs={}),
    "has the shape": lambda self, result, x, state: replace(
        result, outputs={name: value[1:] for name, value in result.outputs.items()}
    ),
    "gives no state": lambda self, result, x, state: replace(result, state=None),
    r"two parts (are|differs)": lossy,
    "state_writes of two parts": spendthrift,
    "counts of": counting(lambda c: Counts(tuple(f"no {n}" for n in c.layers), c.table, 1)),
    "2 samples": counting(lambda c: Counts(c.layers, c.table, 2)),
    "synops are": counting(lambda c: Counts(c.layers, 2 * c.table, 1)),
    "silence takes": busy,
}


@pytest.mark.parametrize("said", FAULTS)
def test_the_kit_sees_faults(said):
    with pytest.raises(AssertionError, match=said):
        check_target(Faulty(FAULTS[said]))


def test_the_kit_sees_refusals_that_say_nothing():
    for refusals, said in (
        ({"nowhere": "too large"}, "of no node"),
        ({"x": ""}, "without a reason"),
        ({"x": "too large"}, "accepts no graph; pass some"),
    ):
        with pytest.raises(AssertionError, match=said):
            check_target(Faulty(refusals=refusals))


def test_no_torch():
    code = "import axonal.deploy.targets, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

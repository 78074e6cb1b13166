"""NIR: published files and traces, random graphs written and read, and files that mean harm.

FILES are two of the NIR project (github.com/neuromorphs/NIR 7232ada, BSD-3, paper/01_lif), packed;
INPUT and TRAINS are what its authors' simulators were given and made of them, in steps of 0.1 ms.
"""

import base64
import itertools
import lzma
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import h5py
import nir as peer
import numpy as np
import pytest
from graphs import assert_same
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.core.neurons import AdaptiveThreshold, Current, Leaky
from axonal.deploy import nir
from axonal.deploy.engine.reference import run
from axonal.graph.graph import Graph, Node
from axonal.graph.ops import (
    Add,
    Bias,
    Concat,
    Conv,
    Delay,
    Dense,
    Input,
    Neurons,
    Pool,
    Resize,
    Scale,
    Select,
    reshape,
)

FILES = {
    "lif_norse": (
        "/Td6WFoAAAFpIt42AgAhARwAAAAQz1jM4ESvAwBdAESSBIRvent3SsRmT2odD3JpHhjMHyCb6aF51dCdlzVYwM"
        "iVidFWB0HUX47bKbcO8xJZmcdnaQQqZno6gSU9q/lQ8yKASf09VyBSSTOT1RiKxsIu3mcCDppX+3omZYCBTQ4R"
        "zJgaITryl5lUjBvmbiFjfa/PzvJUwuBIYMGZpQVG2TjmKALldiVx8ceH97CTSabPfK0uZuK3o3iomvnVnqQco5"
        "j7kZa7RcTZnEIfRQgBuuPJYoEiLndzpg743juoXsxVPzNZqO64juPKLVyyq+cOyZduKpTSqXdGar9ddq4wrdoa"
        "/1bRfiMlX1o5pgzvIDfTURaOcngLGGPvM2duFtW3ZVSD9UGhfkEOqzlJNYhGeWYPKpJkjqRqfQ0Upe6IcfHv/+"
        "lti3UI8OWVeIzrG67vT6epllX8o5G8gSN49orHazXVC4G+oWPhc5fuiyti8AenvalC8pxbWUxmHqGlG654q+qm"
        "FqYTTQ4L9YcGiKK+128GUS1JeVHCC+c3eeNxPLwhf1iS+5uNo7rSyjlp/b6kUejtBQEK/r06i9BIqRBpCF6RsX"
        "6ybsbACtR1cNNJ/oicESI7KXVJIGOLQXdiY4mUOwhL4KsiX03tzQJgsNpHylN+zha8fe6ZuDuAC0rwOkD//eQ0"
        "nDGh8y1D3TpEh+bCwxKFnQkVYGD950eqLVgd7w4/gXzGCwTN7GWY6lj3Y0fMavNXrDpMWemMj093DneXCc9F8s"
        "AGm9wbxYNczTylrf+snUKsVkrVsQINMX968V81UKggbbOM/Jv5nOoflAm4XmFzggCN7ky2hnPQNfWLpMltejjs"
        "JiyqtjZ3dCxymXEI7ghMKg4i9CCdPZmVtFGG56Ftp2d8u9uKoL2Rd64h9riDYJRvB89KpZ+Labm88x9AAF+ToA"
        "5xnSEQvy1mfKWRPyNxma/K0qnTZ1bzWU5ZIrhHsJlnvGeCUFtSHpBF7RHSvC6DoIaEm/hJXqA8a2U4PV+BlT2W"
        "MvHw2N/SHZKtAb32Y6mscYAm+fg9advhAAC2o2sQAAGYBrCJAQCH6q1XPjANiwIAAAAAAVla"
    ),
    "lif_rockpool": (
        "/Td6WFoAAAFpIt42AgAhARwAAAAQz1jM4EOfAxldAESSBIRvent3SsRmT2odD3JpHhjMHxts7Xd51dCdlzVYwM"
        "iVidFWB0HUX47bKbcO8xJZmcdnaQQqZno6gSU9q/lQ8yKASf09VyBSSTOT1RiKxsIu3mcCDppX+3omZYCBTQ4R"
        "zJgaITryl5lUjBvmbiFjfa/PzvJUwuBIYMGZpQVG2TjmKALldiVx8ceH97CTSabPfK0uZuK3o3iomvnVnqQco5"
        "j7kZa7RcTZnEIfRQgBuuPJYoEiLndzpg743juoXsxVPzNZqO64juPKLVyyq+rQRCDRHh6ypWti1HIkBcwvv1so"
        "xNQnVQ7TelXUfoGk7zD4Yy8JfaeiTqCkr4YfRIHqr0VPYY9NmMqgeuZLd+/d/WA7Q3Wi0ycENmp6DUD6NpG9YW"
        "+u6AZty7zTdtD/Q/lyUPklpXdTpBgZNjlBoi6cR3WN/i9hQGkj/WyzoenUO1tnlE5TOgKr7XjepDDw7+SDnqgb"
        "tBHBiynhvGa1Wc3ddE+x7VLRi+Nvd2N4nVs9kYSh86JlM5aLZYWINJtRC5t0zicC5/VjfJhWXeEfgpw8REBDFG"
        "m7myA0yCESnD/PV2v7PTxfjeFyvZ1td3hbmZFevW2FeVyAJaCEBr7xcO4gzhgtg1e5JkJ+EdsU3wT5ycsTrZ+d"
        "yLXBtw9YmjAJbFbisYZuTFaxnSjWJPnGxx0Xp9h1hg7EUdBF2JuqCYxlLvmYvCHpnXnEubHmcO89DGJd8r4GJJ"
        "TfIjh3eNxo55y30Jnwxq3oDfPJzhuPwhpFEiMuTG0RoW+R0F61OcN0nYdTsxMsh8pZZ9xXL/KDKF+x9apWInah"
        "8CT0yolvOSbBYKVlltSQC3DrYEh/FRjJP9+CCbsIB9yenZ1fWIc6glM8bByYGgSSdKNXV8bKo44DOTyUZCeHLx"
        "wfRiidfISb9JV9wazKZGgA+R651JoUzyjUDg06INjg2YaH+WvhcIfCc/4yug8HtXhHUUPxWF1Roq5cOdf9wQGg"
        "31ewtQsc0CPKTvSUTyJSG41hXXr8hPZ/iKS7/ZMWDl3Wg7zQLjayHD4kto5V0D/s8wAAAAAAGE1X0gABsQaghw"
        "EA7MSJLT4wDYsCAAAAAAFZWg=="
    ),
}
# Written before graphs had files of their own, when a note in their metadata told the graph itself.
NOTED = (
    "/Td6WFoAAAFpIt42AgAhARwAAAAQz1jM4K0nBl1dAESSBIRvent3SsRmT2odD3JpHhjMHvSeTvkiFP326Em6gM"
    "iVidGUMP/x3+MvtDk7Sfj+1zBEXa80StFG3ytqoSyWTt0+bZN1gKXT+wlCyDU6G46dDnY87a5S4dcIwLru4MQM"
    "djQQKvqZMdC2L3UwnLrHNppJrZlIGjjKomibwV3WE8KYvPYqV45c5egajvYfoOtS6MJe1PKHYL5sG/XfX5seRB"
    "jTI3m76SIakdnXmU4QPRxQg1g8rgsjOL5FP9DDsN7EiQy6QyOlB1i0zX7tKbR9duH1+dlIOyzU1N2MmzIsdrt9"
    "R5C7ZX50ecoxtDR4SDXw6poeCdgvHWkvWX4LyT5hne+WxnenOQl2BBw03uR70vS6WPdO6rhpwOxhmQNAeEqHGF"
    "10dzVmtOIWP3sNFNRkqbW9ChE7AbJ9OuAa7tFb7D6uH1GsNVjDId2vpJnAfseuUnLyz0apT+Zq7BgVJuBWDfkR"
    "OluQi7Jk8pHrOFhFujl6vb8uJb2/jMON+7Xf7xgVSNCKRzmRz2Xdbh+tsbFcg7Yy6xW6rfSVES6O0J2W0OUUQP"
    "xoIlBemiUgD2v/ou74ydasiTlPiOT35VL0cVNza17PPncl1CDnmAzHvB7DKhfKLZi6jadXI5NyCUCxFlDpmVkm"
    "O2rscxm46doEHOtEOfCnfL2bpuk8SIol2kCn9J31N/NnvCFL8dOJ5gcTxV7pxJQDafe359288io7yn1S0mqnXG"
    "kbm2skQcmZ8PMbK0og8oRj6l8kozNV+wH4kk3BVysgyviKH0jBOY2nuwGeR6G6qheHIX6iMHDicFk1pr3HlW8A"
    "v1GY6kSI6p7oGa//qVshEaIBTFhGRJFMSqMs5hG+iUMo1teCG7DqVNgKLGs+C5iP8Q+TCWXqJP9/zLj+IeU6zu"
    "/9e96SISnopFV9HaaSOLwEhRiypiNjknpT+9zbce5klpGuZdipkhLITrGxHC+fXnN9aGY6QIlKzUBx2saoVvTO"
    "wiFEVI84c+p/Cc1XufrJ7BON34zsEbKZU79rnJp9ZG7E58fNZiIVS6YBa1bFDKjfJXqvi7N9rHWy5CLGrl00cI"
    "rCeEWwFaHxziEkhRjRqCaQMu3d5SlETtQc+yFnsbbsETETaBR5gxFGxI3h6PETeEn58tgdhJmNGSAImGNlkApv"
    "a7APUW21aExBCCwVfR/FKbetaxfJK73hmHo7q9tBqMqQIokYcDc96Raylk6E29qr7Th1J4mkO+I8zkmQ6F2E+o"
    "FmLzy4CWZkeCIVafaEke4jcYUz1cf9ohteQBjCZmAvnwuekDhrZnzcN5ZzBoxZ4ERbk1tJYCiLHXWPKaQEtf8X"
    "ngRSFeqnEC0LCdyW41y2KiMrknrWq8GML02v5pkSAuqrAGY4dqpgyWLAalNQoWRJ4HQeK1aPknExEbc9QqQAOd"
    "mtu6DHCk6+15q/UVXxstB0FVpgX6XaMQk2egR6JxtH3V9igeR0pwYdM5JsFDW3it8bQdzzBykj9+Zj6FF2+OvF"
    "O7aGRa4pt3zQHkb2oJCGA/tmKCChIJ+Uayak86/Hl4XYlXXmwHcAiIid4A2CHkfvQRC4o9VOjnt5o6RPUxdiCO"
    "VFpUqC+MzLzN6igGyVKuJ+7qmysPGlylhraaDDR7p94PdKQFdEvrJjdKBx3tmkQ5bHigxpNVnXt2gPsxlqJR3v"
    "kK0eIp9U3XHASNQPXpa8KRMeRRoDZ8k2+u3N7JYpNk9D7XSYJx/lnMW77qAQbj0jCvqcFdrMW5Q0gogYbCRaCb"
    "qPLuSRIeNims41yrnZDNAC4Ns0xeULlaRC28ajfbgDHQaqv4b1dKgIwgcSifsMDl+WtmgIr+GxozclCabq8YzI"
    "bKI7rrFXXXPhRBgNK6+Dwn+W3JNOJJ90w6MGdH9mvKfXqWJwENt27UnKHme9AuKWjJCrjw1clqH45bZRNhM4sf"
    "YAiNB7Y7AgIHuk95mp/326qhfurZlcvZDba2AGdxtSW/1VfesaO2uDHNkdYrqdW/LXmTkZMnS1bvmJf+WcPgvg"
    "zSqwdS+KPAGVU5KfyGoNGRk89c4hBB+yzeb0Jiezkwz/2uMynPtLbmr2enWIUIkkcfrJQHMEHq2xubL87Cb8Nn"
    "jrMj5mhyC8Tyd8FF3Pt0cbYrdKo/HiMoXD4jCUHCVbOaizJe8jP4gJVABjgrIoAAAAAAB2cIpaAAH1DKjaAgD4"
    "Ug15PjANiwIAAAAAAVla"
)
INPUT = [60, 220, 270, *range(310, 330, 10), 350, 370, *range(400, 420, 10), *range(430, 540, 10)]
INPUT += [*range(670, 790, 10), 840, 850]
TRAINS = {  # simulator: file, discretisation, steps of its spikes
    "exact solution": ("lif_norse", "exact", (460, 510, 710, 760)),
    "Nengo": ("lif_norse", "exact", (460, 510, 710, 760)),
    "Norse": ("lif_norse", "norse", (460, 510, 710, 760)),
    "snnTorch": ("lif_norse", "snntorch", (460, 510, 710, 760)),
    "SpiNNaker2": ("lif_norse", "euler", (460, 510, 710, 760)),
    "Lava, float": ("lif_norse", "lava", (461, 511, 711, 761)),
    "Lava, fixed": ("lif_norse", "lava", (461, 511, 711, 761)),
    "Lava, Loihi": ("lif_norse", "lava", (461, 511, 711, 761)),
    "Rockpool": ("lif_rockpool", "rockpool", (450, 500, 710, 760)),
    "Sinabs": ("lif_rockpool", "sinabs", (450, 500, 710, 760)),
    "Spyx": ("lif_rockpool", "spyx", (461, 511, 711, 761)),
}


@pytest.fixture
def published(tmp_path):
    def path(name):
        file = tmp_path / f"{name}.nir"
        file.write_bytes(lzma.decompress(base64.b64decode(FILES[name])))
        return file

    return path


def rng(seed):
    return np.random.default_rng(seed)


def spikes_in(graph, steps=40, seed=0):
    return {
        name: (rng(seed).random((steps, *graph.shapes[name])) < 0.4).astype(np.float32)
        for name in graph.inputs
    }


def alone(dynamics, size=5, **values):
    nodes = [Node("in", Input((size,))), Node("p", Neurons(dynamics, values), ("in",))]
    return Graph(nodes, ["p"])


def through_nir(graph, dt=1e-3, discretisation="euler"):
    """The graph as others see it."""
    network = nir.to_nir(graph, dt=dt, discretisation=discretisation)
    return nir.from_nir(network, dt=dt, discretisation=discretisation)


@pytest.mark.parametrize("simulator", TRAINS)
def test_published_spike_trains_are_met(simulator, published):
    name, discretisation, spikes = TRAINS[simulator]
    x = np.zeros((1000, 1), np.float32)
    x[INPUT] = 1
    graph = nir.read(published(name), dt=1e-4, discretisation=discretisation)
    sent = output(graph, x)
    assert tuple(np.flatnonzero(sent)) == spikes and set(sent.ravel()) == {0, 1}


def test_exact_is_the_exact_membrane(published):
    graph = nir.read(published("lif_norse"), dt=1e-4, discretisation="exact")
    (op,) = graph.neurons.values()
    assert op.dynamics.constants()["decay"] == pytest.approx(np.exp(-0.04), rel=1e-7)
    v, membrane = 0.0, {60: 0.039211, 100: 0.007916, 270: 0.044526, 450: 0.099047}
    for t in range(451):  # lif_exact.csv, before its first spike
        v = op.dynamics.constants()["decay"] * v + op.dynamics.gain * (t in INPUT)
        assert t not in membrane or v == pytest.approx(membrane[t], abs=1e-6)


def test_a_file_reads_as_the_graph_of_the_package(published):
    for name in FILES:
        ours = nir.read(published(name), dt=1e-4, discretisation="euler")
        package = peer.read(published(name), type_check=False)
        theirs = nir.from_nir(package, dt=1e-4, discretisation="euler")
        assert ours.shapes == theirs.shapes and ours.outputs == theirs.outputs


def network(nodes, edges):
    return peer.NIRGraph(nodes=nodes, edges=edges, type_check=False)


def chain(*nodes, shape=(2,)):
    """Input, nodes "0", "1", ..., Output, as a graph of the package."""
    names = ["input", *(str(i) for i in range(len(nodes))), "output"]
    inside = dict(zip(names[1:-1], nodes, strict=True))
    ends = {"input": peer.Input(np.array(shape)), "output": peer.Output(np.array([1]))}
    return network(ends | inside, list(itertools.pairwise(names)))


def imported(graph, dt=1.0, discretisation="exact"):
    return nir.from_nir(graph, dt=dt, discretisation=discretisation)


def output(graph, x):
    return run(graph, {graph.inputs[0]: np.asarray(x, np.float32)})[0][graph.outputs[0]]


def array(*values):
    return np.array(values, np.float32)


def solved(x, tau, r, v_leak, slow=None, w_in=None, fine=2000):
    """The membrane at the end of every step of 1, by Heun steps so fine that they are exact."""
    v, i, membrane = 0.0, 0.0, []
    h = 1 / fine

    def change(v, i, drive):
        current = drive if slow is None else i
        moved = 0.0 if slow is None else (w_in * drive - i) / slow
        return (v_leak - v + r * current) / tau, moved

    for drive in x:
        for _ in range(fine):
            a, b = change(v, i, drive)
            c, d = change(v + h * a, i + h * b, drive)
            v, i = v + h * (a + c) / 2, i + h * (b + d) / 2
        membrane.append(v)
    return np.array(membrane)


X = np.array([[1.0], [0], [0], [2], [-1], [0], [0.5], [0]])


@pytest.mark.parametrize("slow", [2.0, 5.0])
def test_exact_integrators_solve_their_equations(slow):
    tau, r, rest, w_in = array(2), array(1.5), array(0.25), array(0.8)
    li = imported(chain(peer.LI(tau, r, rest), shape=(1,)))
    assert output(li, X)[:, 0] == pytest.approx(solved(X[:, 0], 2, 1.5, 0.25), abs=1e-5)
    cuba = imported(chain(peer.CubaLI(array(slow), tau, r, rest, w_in), shape=(1,)))
    want = solved(X[:, 0], 2, 1.5, 0.25, slow, 0.8)
    assert output(cuba, X)[:, 0] == pytest.approx(want, abs=1e-5)
    i = imported(chain(peer.I(array(3)), shape=(1,)), dt=0.5)
    assert output(i, X)[:, 0] == pytest.approx(np.cumsum(X) * 1.5)


def test_an_exact_current_fires_where_its_solution_crosses():
    values = {"tau_syn": array(5), "tau_mem": array(2), "r": array(1.5), "v_leak": array(0)}
    v = solved(X[:, 0], 2, 1.5, 0, 5, 1)
    for level in (0.05, 0.15, 0.2):
        graph = imported(chain(peer.CubaLIF(**values, v_threshold=array(level)), shape=(1,)))
        assert np.flatnonzero(output(graph, X))[0] == np.flatnonzero(v > level)[0]
    held = imported(
        chain(peer.CubaLIF(**values, v_threshold=array(0.3)), shape=(1,)), 1, "exponential"
    )
    assert isinstance(next(iter(held.neurons.values())).dynamics, Current)


@pytest.mark.parametrize("discretisation", ["exact", "exponential", "euler"])
@pytest.mark.parametrize("kind", ["IF", "LIF", "CubaLIF"])
def test_potentials_shift_away(kind, discretisation):
    """Against the equations stepped as they stand, for each neuron its own potentials."""
    dt, size = 0.5, 4
    tau, r, slow = (rng(i).uniform(2, 5, size).astype(np.float32) for i in range(3))
    leak, back = array(0, 0.6, -0.3, 0.2), array(-0.5, 0.125, 0, -0.25)
    level = back + array(0.5, 0.75, 0.5, 1)
    values = {"r": r, "v_threshold": level, "v_reset": back}
    values |= {"LIF": {"tau": tau, "v_leak": leak}, "IF": {}}.get(
        kind, {"tau_mem": tau, "tau_syn": slow, "v_leak": leak}
    )
    graph = imported(chain(getattr(peer, kind)(**values), shape=(size,)), dt, discretisation)
    x = rng(5).uniform(0, 1, (60, size)).astype(np.float32)
    euler = discretisation == "euler"
    a, s = (1 - dt / t if euler else np.exp(-dt / t) for t in (tau.astype(float), slow))
    v, i, want = back.astype(float), np.zeros(size), []
    for x_t in x:
        drive = x_t * 1.0
        if kind == "CubaLIF":
            i, old = s * i + (1 - s) * x_t, i
            drive = i
            if discretisation == "exact":
                k = slow / (slow - tau) * (s - a)
                drive = (k * old + (1 - a - k) * x_t) / (1 - a)
        v = v + r * dt * drive if kind == "IF" else a * v + (1 - a) * (leak + r * drive)
        want.append((v > level) * 1.0)
        v = np.where(v > level, back, v)
    assert np.array_equal(output(graph, x), want)
    assert 0 < np.sum(want) < x.size


def test_simulators_have_no_potentials():
    lif = peer.LIF(array(2), array(1), array(0.5), array(1))
    for discretisation in ("sinabs", "rockpool", "norse", "spyx"):
        with pytest.raises(InputError, match=r"'0' \(LIF\): v_leak and v_reset other than 0"):
            imported(chain(lif, shape=(1,)), 1.0, discretisation)
    cuba = peer.CubaLIF(*(array(2) for _ in range(3)), array(0), array(1))
    with pytest.raises(InputError, match="no CubaLIF in this discretisation"):
        imported(chain(cuba, shape=(1,)), 1.0, "sinabs")


def weights(*shape, seed=0):
    return rng(seed).normal(0, 1, shape).astype(np.float32)


def test_every_kind_without_memory():
    x = rng(1).normal(0, 1, (3, 2, 5, 6)).astype(np.float32)
    conv = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
    graph = imported(
        chain(
            peer.Conv2d((5, 6), weights(4, 1, 3, 2), bias=weights(4), **conv),
            peer.SumPool2d(np.array([2, 2]), np.array([1, 2]), np.array([0, 0])),
            peer.AvgPool2d(np.array([2, 1]), np.array([1, 1]), np.array([1, 0])),
            peer.Scale(weights(4, 3, 4)),
            peer.Threshold(np.full((4, 3, 4), 0.25)),
            peer.Flatten({"input": np.array([4, 3, 4])}, 0, -1),
            peer.Affine(weights(3, 48), weights(3)),
            peer.Delay(np.array([0.0, 1.0, 2.0])),
            peer.Linear(weights(2, 3)),
            shape=(2, 5, 6),
        )
    )
    values = run(graph, {"input": x})[0]
    assert [graph.shapes[str(i)] for i in (0, 1, 2, 5, 8)] == [
        (4, 3, 8), (4, 2, 4), (4, 3, 4), (48,), (2,),
    ]  # fmt: skip
    pooled = values["0"][:, :, :2, ::2] + values["0"][:, :, 1:, ::2]
    pooled += values["0"][:, :, :2, 1::2] + values["0"][:, :, 1:, 1::2]
    assert values["1"] == pytest.approx(pooled, abs=1e-5)
    assert np.array_equal(values["4"], values["3"] > 0.25)
    assert np.array_equal(values["7"][2], [values["6"][2, 0], values["6"][1, 1], values["6"][0, 2]])


def test_conv_1d_and_same():
    w = weights(3, 2, 4)
    options = {"stride": 1, "dilation": 1, "groups": 1, "bias": weights(3)}
    same = imported(chain(peer.Conv1d(None, w, padding="same", **options), shape=(2, 7)))
    sides = imported(chain(peer.Conv1d(7, w, padding=2, **options), shape=(2, 7)))
    x = rng(0).normal(0, 1, (2, 2, 7)).astype(np.float32)
    assert same.shapes["0"] == (3, 7) and sides.shapes["0"] == (3, 8)
    assert output(same, x) == pytest.approx(output(sides, x)[..., 1:], abs=1e-6)
    again = through_nir(same, 1.0, "exact")
    assert np.array_equal(output(again, x), output(same, x))


def lif(size=2, level=0.25):
    one = np.ones(size, np.float32)
    return peer.LIF(2 * one, one, 0 * one, level * one)


def recurrent(names=("in", "p", "back", "out")):
    first, p, back, end = names
    nodes = {
        end: peer.Output(np.array([2])),
        back: peer.Linear(weights(2, 2)),
        p: lif(),
        first: peer.Input(np.array([2])),
    }
    return network(nodes, [(p, back), (back, p), (first, p), (p, end)])


def test_a_cycle_takes_one_step_where_spikes_enter_the_way_back():
    for names in (("in", "p", "back", "out"), ("z", "b", "a", "c")):
        graph = imported(recurrent(names), 1.0, "euler")
        late = graph.nodes[f"{names[2]}.recurrent"]
        assert late.inputs == (names[1],) and isinstance(late.op, Delay)
        assert sum(isinstance(node.op, Delay) for node in graph) == 1
    x = rng(0).random((30, 2)).astype(np.float32)
    v, s, want = np.zeros(2), np.zeros(2), []
    for x_t in x:
        v = 0.5 * v + 0.5 * (x_t + weights(2, 2) @ s)
        s = (v > 0.25) * 1.0
        v = v * (1 - s)
        want.append(s)
    assert np.array_equal(output(graph, x), want) and 5 < np.sum(want) < 55


def test_cycles_with_a_delay_need_no_other():
    graph = recurrent()
    graph.nodes["d"] = peer.Delay(np.array([2.0, 2.0]))
    graph.edges = [("p", "d"), ("d", "back"), ("back", "p"), ("in", "p"), ("p", "out")]
    assert "back.recurrent" not in imported(graph).nodes
    assert "back.recurrent" not in imported(recurrent(), 1.0, "spyx").nodes  # its spikes are late
    two = {"in": peer.Input(np.array([2])), "out": peer.Output(np.array([2]))}
    two |= {"a": lif(), "b": lif(), "ab": peer.Linear(weights(2, 2)), "ba": peer.Scale(array(1, 2))}
    edges = [("in", "a"), ("a", "ab"), ("ab", "b"), ("b", "ba"), ("ba", "a"), ("b", "out")]
    pair = imported(network(two, edges))
    assert [n.name for n in pair if isinstance(n.op, Delay)] == ["ba.recurrent"]
    two |= {"loop": peer.Scale(array(0.5, 0.5))}
    rounds = imported(network(two, [*edges, ("b", "loop"), ("loop", "loop"), ("loop", "out")]))
    assert "loop.recurrent" in rounds.nodes and "ba.recurrent" in rounds.nodes


def test_nested_graphs_are_flattened():
    inner = recurrent()
    nodes = {"in": peer.Input(np.array([2])), "rnn": inner, "out": peer.Output(np.array([2]))}
    graph = imported(network(nodes, [("in", "rnn"), ("rnn", "out")]), 1.0, "euler")
    flat = imported(recurrent(), 1.0, "euler")
    assert {"rnn.p", "rnn.back", "rnn.back.recurrent"} <= set(graph.nodes)
    x = rng(2).random((30, 2)).astype(np.float32)
    assert np.array_equal(output(graph, x), output(flat, x))


def test_names_that_clash_are_told_apart():
    nodes = {"input": peer.Input(np.array([2])), "0": peer.Affine(weights(2, 2), weights(2))}
    nodes |= {"0.weight": peer.Scale(array(2, 3)), "output": peer.Output(np.array([2]))}
    edges = [("input", "0.weight"), ("0.weight", "0"), ("0", "output"), ("0.weight", "output")]
    graph = imported(network(nodes, edges))
    assert graph.nodes["0"].inputs == ("0.weight_1",) and graph.outputs == ("output.sum",)


def test_cycles_that_nothing_enters():
    one = Delay(np.array(1))
    nodes = [Node("x", Input((2,))), Node("b", one, ("a",)), Node("a", one, ("x",))]
    assert Graph(nodes, ["b"]).shapes["b"] == (2,)
    for nodes in (
        [Node("a", one, ("b",)), Node("b", one, ("a",))],
        [Node("a", one, ("b",)), Node("b", Scale(array(1, 1)), ("a",))],
    ):
        with pytest.raises(InputError, match="in a cycle that nothing enters"):
            Graph(nodes, ["a"])
    with pytest.raises(InputError, match="'a' reads 2 nodes instead of one"):
        Graph([Node("x", Input((2,))), Node("a", one, ("x", "x"))], ["a"])


LAYERS = st.sampled_from(["dense", "affine", "scale", "hard", "soft", "delay", "residual", "loop"])
HARD = [{"reset": "zero"}, {"reset": "zero", "above": True, "gain": 0.7}]
SOFT = [{"reset": "subtract"}, {"reset": "late"}, {"reset": "none"}]


def built(layers, seed, sizes):
    """A random graph of what NIR has, or has the parts of."""
    pick = rng(seed)
    nodes, last, size = [Node("x", Input((sizes[0],)))], "x", sizes[0]

    def put(op, *inputs):
        nodes.append(Node(f"n{len(nodes)}", op, inputs))
        return nodes[-1].name

    for i, layer in enumerate(layers):
        wide = sizes[(i + 1) % len(sizes)]
        if layer in ("dense", "affine"):
            last, size = put(Dense(weights(wide, size, seed=seed + i)), last), wide
            last = put(Bias(weights(wide, seed=i)), last) if layer == "affine" else last
        elif layer == "scale":
            last = put(Scale(weights(*[(), (1,), (size,)][i % 3], seed=i)), last)
        elif layer in ("hard", "soft"):
            options = (HARD if layer == "hard" else SOFT)[i % (2 if layer == "hard" else 3)]
            kind = Current if i % 4 == 1 else Leaky
            values = {"threshold": pick.uniform(0.2, 1, size).astype(np.float32)}
            values |= {"decay": pick.uniform(0.3, 0.99, size)} if i % 2 else {}
            last = put(Neurons(kind(**options), values), last)
        elif layer == "delay":
            last = put(Delay(np.array(2) if i % 2 else pick.integers(0, 3, size)), last)
        elif layer == "residual":
            last = put(Add(), last, put(Scale(np.array(0.5, np.float32)), last))
            last = put(Add(), last, last) if i % 2 else last
        else:
            back, sum_ = f"back{i}", f"sum{i}"
            nodes.append(Node(sum_, Add(), (last, f"{back}.w")))
            last = put(Neurons(Leaky(decay=0.5, reset="zero")), sum_)
            nodes.append(Node(back, Delay(np.array(1)), (last,)))
            nodes.append(Node(f"{back}.w", Dense(weights(size, size, seed=i)), (back,)))
    ends = [last, nodes[len(nodes) // 2].name]
    return Graph(nodes, ends if seed % 2 else ends[:1])


@given(
    layers=st.lists(LAYERS, min_size=1, max_size=7),
    seed=st.integers(0, 99),
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    discretisation=st.sampled_from(["exact", "exponential", "euler", "spikingjelly"]),
)
def test_files_and_graphs_of_the_package_read_alike(layers, seed, sizes, discretisation, tmp_path):
    graph = built(layers, seed, sizes)
    path = nir.write(graph, tmp_path / "a.nir", dt=1e-3, discretisation=discretisation)
    ours = nir.read(path, dt=1e-3, discretisation=discretisation)
    package = peer.read(path)  # with its own check of types
    assert_same(ours, nir.from_nir(package, dt=1e-3, discretisation=discretisation))
    assert_same(ours, through_nir(graph, 1e-3, discretisation))
    assert [ours.shapes[name] for name in ours.outputs] == [graph.shapes[n] for n in graph.outputs]


def on_a_grid(graph):
    """The graph with weights in quarters and constants in halves, so that its sums are exact."""

    def quarters(values):
        return np.asarray(np.round(4 * values) / 4, np.float32)

    nodes = []
    for node in graph:
        op = node.op
        if isinstance(op, Neurons):
            halves = {"decay": 0.5, "gain": 0.5}
            halves |= {"synapse": 0.5} if isinstance(op.dynamics, Current) else {}
            values = {
                k: np.maximum(quarters(v), 0.25) for k, v in op.values.items() if k != "decay"
            }
            op = Neurons(replace(op.dynamics, **halves), values)
        elif isinstance(op, Dense | Bias | Scale):
            op = type(op)(*map(quarters, op.arrays().values()))
        nodes.append(Node(node.name, op, node.inputs))
    return Graph(nodes, graph.outputs)


@given(
    layers=st.lists(LAYERS, min_size=1, max_size=5),
    seed=st.integers(0, 99),
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=3),
)
def test_networks_fire_the_same_through_nir(layers, seed, sizes):
    graph = on_a_grid(built(layers, seed, sizes))
    seen = through_nir(graph, 1.0, "euler")
    x = rng(seed).integers(-2, 5, (10, *graph.shapes["x"])).astype(np.float32) / 4
    values, again = run(graph, {"x": x})[0], run(seen, {"x": x})[0]
    for name, other in zip(graph.outputs, seen.outputs, strict=True):
        assert np.array_equal(values[name], again[other])


@given(
    dynamics=st.builds(
        lambda kind, **options: kind(**options),
        st.sampled_from([Leaky, Current]),
        reset=st.sampled_from(["zero", "subtract", "late", "none"]),
        above=st.booleans(),
        decay=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
        gain=st.sampled_from([0.25, 1.0]),
        threshold=st.sampled_from([0.5, 1.0]),
    ),
    discretisation=st.sampled_from(["euler", "spikingjelly"]),
    seed=st.integers(0, 99),
)
def test_others_find_the_same_spikes(dynamics, discretisation, seed):
    """By Euler in steps of 1, with numbers that binary fractions hold, to the last bit."""
    kind = "synapse" if isinstance(dynamics, Current) else None
    graph = alone(dynamics, **({kind: np.array([0.5], np.float32)} if kind else {}))
    seen = through_nir(graph, 1.0, discretisation)
    x = rng(seed).integers(-2, 5, (16, 5)).astype(np.float32) / 4
    assert np.array_equal(output(seen, x), output(graph, x))


@pytest.mark.parametrize("discretisation", ["sinabs", "rockpool"])
def test_many_spikes_are_written_for_who_makes_them(discretisation):
    many = {"emit": "multiple", "levels": 2**20, "decay": 0.5}
    kinds: list[Leaky | Current] = [Leaky(**many)]
    if discretisation == "rockpool":
        kinds += [Leaky(**many, gain=0.5), Current(**many, synapse=0.5, gain=0.5)]
    for dynamics in kinds:
        seen = through_nir(alone(dynamics), 1.0, discretisation)
        x = rng(0).integers(0, 9, (30, 5)).astype(np.float32)
        assert np.array_equal(output(seen, x), output(alone(dynamics), x))
        assert output(seen, x).max() > 1


FIRING = {
    "norse": {"reset": "zero", "above": True},
    "sinabs": {"emit": "multiple", "levels": 2**20},
}


@pytest.mark.parametrize("discretisation", FIRING)
@pytest.mark.parametrize("bias", [False, True])
def test_gains_go_into_weights_where_an_importer_knows_no_scale(discretisation, bias):
    """With numbers that binary fractions hold; Sinabs has no Linear either."""
    many = rng(1).choice([0.5, 1, 2], (4, 1, 1)).astype(np.float32)
    conv = Conv(np.round(weights(4, 2, 3, 3), 2), (1, 1), ((1, 1), (1, 1)), (1, 1))
    dense = Dense(np.round(4 * weights(5, 64)) / 4)
    options = {"decay": 0.5, "gain": 0.25} | FIRING[discretisation]
    nodes = [
        Node("x", Input((2, 4, 4))),
        Node("conv", conv, ("x",)),
        Node("p", Neurons(Leaky(**options), {"gain": many}), ("conv",)),
        Node("flat", reshape((64,)), ("p",)),
        Node("dense", dense, ("flat",)),
        *([Node("bias", Bias(np.round(4 * weights(5)) / 4), ("dense",))] if bias else []),
        Node("q", Neurons(Leaky(**options)), ("bias" if bias else "dense",)),
    ]
    graph = Graph(nodes, ["q"])
    package = nir.to_nir(graph, dt=1.0, discretisation=discretisation)
    kinds = {type(node).__name__ for node in package.nodes.values()}
    assert "Scale" not in kinds and ("Linear" in kinds) == (discretisation == "norse" and not bias)
    x = {"x": rng(2).integers(0, 2, (40, 2, 4, 4)).astype(np.float32)}
    seen, sent = through_nir(graph, 1.0, discretisation), run(graph, x)[0]["q"]
    assert np.array_equal(run(seen, x)[0][seen.outputs[0]], sent) and sent.any()


def test_what_an_importer_leaves_out_is_not_written_for_it():
    graph = alone(Leaky(decay=0.5, reset="zero"))
    assert nir.to_nir(graph, dt=1.0, discretisation="euler").nodes["p"].r == pytest.approx(2)
    with pytest.raises(InputError, match=r"'p.gain' would be a Scale, which .* leaves out"):
        nir.to_nir(graph, dt=1.0, discretisation="norse")
    unit = alone(Leaky(decay=0.9, gain=1 - 0.9, reset="zero", above=True))
    again = through_nir(unit, 1.0, "norse")  # its decay was rounded
    assert "p.gain" not in nir.to_nir(again, dt=1.0, discretisation="norse").nodes
    with pytest.raises(InputError, match="there is no IF"):
        nir.to_nir(alone(Leaky(reset="zero", decay=1.0)), dt=1e-4, discretisation="snntorch")


def test_norse_ignores_r():
    strong = peer.LIF(array(2), array(7), array(0), array(1))
    (op,) = imported(chain(strong, shape=(1,)), 1.0, "norse").neurons.values()
    assert op.dynamics.constants()["gain"] == 0.5


def test_a_convolutional_network_comes_back():
    neurons = Neurons(Leaky(decay=0.8, reset="zero"))
    conv = Conv(weights(4, 1, 3, 2), (1, 1), ((1, 1), (0, 1)), (1, 1), 2)
    nodes = [
        Node("x", Input((2, 6, 6))),
        Node("conv", conv, ("x",)),
        Node("bias", Bias(weights(4, 1, 1)), ("conv",)),
        Node("p", neurons, ("bias",)),
        Node("b2", Bias(weights(4, 1, 1, seed=3)), ("p",)),
        Node("pool", Pool((2, 2), (2, 2), ((0, 0), (1, 1))), ("b2",)),
        Node("part", reshape((4, 12)), ("pool",)),
        Node("line", Conv(weights(2, 4, 3), (2,), ((1, 1),), (1,)), ("part",)),
        Node("flat", reshape((12,)), ("line",)),
        Node("b3", Bias(weights(12)), ("flat",)),
        Node("q", Neurons(Leaky(decay=0.8), {"decay": weights(12) * 0 + 0.5}), ("b3",)),
    ]
    graph = Graph(nodes, ["q"])
    x = spikes_in(graph)
    seen = through_nir(graph, 1.0, "exponential")
    assert seen.nodes["bias"].inputs == ("bias.weight",)
    got, want = run(seen, x)[0]["bias"], run(graph, x)[0]["bias"]
    assert got == pytest.approx(want, abs=1e-6)


REFUSED = [
    (Neurons(AdaptiveThreshold()), "NIR has no AdaptiveThreshold neurons"),
    (Neurons(Leaky(refractory=2, reset="zero")), "no refractory time"),
    (Neurons(Leaky(emit="ternary")), "no ternary spikes with the reset 'subtract'"),
    (Neurons(Leaky(emit="integer", levels=4)), "no integer spikes"),
    (Neurons(Leaky(reset="zero"), {"decay": array(1, 1, 0.5, 0)}), "some neurons never decay"),
    (Neurons(Leaky(reset="late", gain=0.0)), "ignores its input"),
    (Resize((2,)), "NIR has no Resize"),
    (Concat(), "NIR has no Concat"),
    (Pool((2,), (2,), ((0, 0),)), "two dimensions"),
    (Select(np.array([1, 0, 2, 3])), "moves no values but by Flatten"),
    (Bias(weights(2, 2)), "no bias apart from weights"),
    (Conv(weights(2, 2, 2), (2,), ((0, 1),), (1,)), "pads both sides alike"),
]


@pytest.mark.parametrize(("op", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_would_be_lost_is_refused(op, reason):
    flat = isinstance(op, Neurons | Select | Concat)
    shape = (4,) if flat else (2, 2) if isinstance(op, Bias) else (2, 4)
    graph = Graph([Node("x", Input(shape)), Node("odd", op, ("x",))], ["odd"])
    with pytest.raises(InputError, match=f"^nir: 'odd': .*{reason}.*; axonal.graph.save keeps"):
        nir.to_nir(graph, dt=1e-3, discretisation="euler")


def test_what_is_asked_must_make_sense(tmp_path, published):
    graph = alone(Leaky(reset="zero"))
    for wrong, reason in (
        ({"dt": 0.0, "discretisation": "exact"}, "dt 0.0 must be seconds"),
        ({"dt": 1.0, "discretisation": "nest"}, "no discretisation 'nest'; there are exact"),
        ({"dt": 1.0, "discretisation": "spyx"}, "spikes leave late"),
    ):
        with pytest.raises(InputError, match=reason):
            nir.write(graph, tmp_path / "b.nir", **wrong)
    odd = Graph([Node("a/b", Input((2,)))], ["a/b"])
    with pytest.raises(InputError, match="'a/b' can't be a name"):
        nir.write(odd, tmp_path / "b.nir", dt=1.0, discretisation="exact")
    assert not list(tmp_path.glob("b*"))
    with pytest.raises(InputError, match=r"lif_norse.nir: .*'1' \(LIF\): .* below dt 0.01"):
        nir.read(published("lif_norse"), dt=0.01, discretisation="euler")


def test_files_with_a_note_of_before_are_read_as_what_nir_says(tmp_path):
    path = tmp_path / "a.nir"
    path.write_bytes(lzma.decompress(base64.b64decode(NOTED)))
    with h5py.File(path) as file:
        assert "axonal" in file["node/metadata"]
    weight = np.array([[0.25, -0.25], [0.75, 0], [-0.5, 0.25]], np.float32)
    soft = Neurons(Leaky(decay=0.5, threshold=0.5))
    nodes = [Node("x", Input((2,))), Node("weights", Dense(weight), ("x",))]
    graph = Graph([*nodes, Node("soft", soft, ("weights",))], ["soft"])
    seen = nir.read(path, dt=1.0, discretisation="euler")
    assert "soft.membrane" in seen.nodes
    assert_same(seen, through_nir(graph, 1.0, "euler"))
    x = rng(0).integers(-2, 5, (16, 2)).astype(np.float32)
    assert np.array_equal(output(seen, x), output(graph, x)) and output(seen, x).any()


def _edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file, file["node/nodes"])


def _replace(group, key, value):
    del group[key]
    group[key] = value


WRONG = {
    "no network": (lambda f, n: f.move("node", "nodes"), "no network"),
    "type": (lambda f, n: _replace(n["1"], "type", "LIFE"), "'1' is of a type .*'LIFE'"),
    "port": (lambda f, n: _replace(n["1"], "type", "Port"), "'1' is of a type"),
    "no type": (lambda f, n: n["1"].pop("type"), "'1' is of a type"),
    "type array": (lambda f, n: _replace(n["1"], "type", [1, 2]), "'1' is of a type"),
    "missing": (lambda f, n: n["1"].pop("tau"), r"'1' \(LIF\): it has no tau"),
    "extra": (lambda f, n: n["1"].create_dataset("q", data=1), "'q' is no parameter"),
    "text": (lambda f, n: _replace(n["1"], "tau", "x"), "tau must be finite numbers"),
    "group": (lambda f, n: n["1"].pop("tau") and n["1"].create_group("tau"), "tau must be finite"),
    "nan": (lambda f, n: _replace(n["1"], "tau", np.float32("nan")), "tau must be finite"),
    "zero tau": (lambda f, n: _replace(n["1"], "tau", array(0)), "time constant is not above 0"),
    "threshold": (lambda f, n: _replace(n["1"], "v_threshold", array(0)), "must lie above v_reset"),
    "shape": (lambda f, n: _replace(n["1"], "tau", array(1, 2)), "'1' gets|does not broadcast"),
    "shapes": (
        lambda f, n: (
            _replace(n["1"], "tau", array(1, 2)),
            _replace(n["1"], "r", array(1, 2, 3)),
        ),
        "differ in shape",
    ),
    "weight": (lambda f, n: _replace(n["0"], "weight", np.ones((1, 3))), "weight .* for an input"),
    "bias": (lambda f, n: _replace(n["0"], "bias", array(1, 2)), r"bias \(2,\) for weights"),
    "input": (lambda f, n: _replace(n["input"], "shape", [2**40]), "shape must be"),
    "large": (lambda f, n: _replace(n["input"], "shape", [2**30]), "raise `limit`"),
    "output": (lambda f, n: _replace(n["output"], "shape", [7]), "'output' gets"),
    "edges": (lambda f, n: _replace(f["node"], "edges", [1.0, 2]), "no pair of names"),
    "one edge": (lambda f, n: _replace(f["node"], "edges", 3), "no pair of names"),
    "nowhere": (
        lambda f, n: _replace(f["node"], "edges", [["input", "2"]]),
        "an edge of '2', which is no node",
    ),
    "twice": (
        lambda f, n: _replace(f["node"], "edges", [["input", "0"], ["input", "0"]]),
        "an edge stands twice",
    ),
    "nothing": (lambda f, n: _replace(f["node"], "edges", [["input", "0"]]), "edges lead"),
    "no nodes": (lambda f, n: _replace(f["node"], "nodes", 3), "has no nodes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_networks_are_refused_by_name(name, published):
    change, reason = WRONG[name]
    path = published("lif_norse")
    _edit(path, change)
    with pytest.raises(InputError, match=reason):
        nir.read(path, dt=1e-4, discretisation="exact")


def _link(file, nodes):
    nodes["more"] = h5py.ExternalLink("/etc/hosts", "/")


def _soft(file, nodes):
    nodes["more"] = h5py.SoftLink("/node")


def _cycle(file, nodes):
    nodes["more"] = file["node"]


def _twice(file, nodes):
    nodes["1/again"] = nodes["1/tau"]


def _deep(file, nodes):
    nodes.create_group("/".join(["g"] * 40))


def _reference(file, nodes):
    nodes["1"].create_dataset("ref", data=file["node"].ref, dtype=h5py.ref_dtype)


def _vlen(file, nodes):
    nodes["1"].create_dataset("v", (1,), dtype=h5py.vlen_dtype(np.float32))


def _compound(file, nodes):
    nodes["1"]["c"] = np.zeros(2, "f4,i4")


def _external(file, nodes):
    nodes["1"].create_dataset("e", (4,), "u1", external=[("/etc/hosts", 0, 4)])


def _virtual(file, nodes):
    layout = h5py.VirtualLayout((1,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (1,))
    nodes["1"].create_virtual_dataset("v", layout)


def _unwritten(file, nodes):
    nodes["1"].create_dataset("huge", (2**28,), "f8")


def _zeros(file, nodes):
    nodes["1"].create_dataset("huge", (2**28,), "f8", compression="gzip", chunks=(2**20,))


def _chunk(file, nodes):
    options = {"maxshape": (None,), "chunks": (2**26,), "compression": "gzip"}
    nodes["1"].create_dataset("small", (4,), "f8", **options)


def _named(file, nodes):
    nodes["1/kind"] = np.dtype("f4")


def _empty(file, nodes):
    nodes["1"]["nothing"] = h5py.Empty("f4")


HARM = [_link, _soft, _cycle, _twice, _deep, _reference, _vlen, _compound, _external, _virtual]
HARM += [_unwritten, _zeros, _chunk, _named, _empty]


@pytest.mark.parametrize("change", HARM)
def test_files_that_mean_harm_are_refused(change, published):
    path = published("lif_norse")
    _edit(path, change)
    with pytest.raises(FileError, match=r"it was not read$"):
        nir.read(path, dt=1e-4, discretisation="exact")


def test_files_that_are_none(tmp_path, published):
    (tmp_path / "text.nir").write_text("no HDF5")
    for path in (tmp_path / "none.nir", tmp_path / "text.nir", tmp_path):
        with pytest.raises(FileError, match=path.name):
            nir.read(path, dt=1.0, discretisation="exact")
    with pytest.raises(FileError, match="at most 1000 bytes"):
        nir.read(published("lif_norse"), dt=1.0, discretisation="exact", limit=1000)


DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)


@given(damage=DAMAGE, end=st.floats(0, 1), cut=st.booleans(), own=st.booleans())
def test_damaged_files_fail_in_words(damage, end, cut, own, tmp_path):
    if own:
        graph = built(["affine", "hard", "loop", "soft"], 1, [2, 3])
        raw = bytearray(
            nir.write(graph, tmp_path / "a.nir", dt=1.0, discretisation="exact").read_bytes()
        )
    else:
        raw = bytearray(lzma.decompress(base64.b64decode(FILES["lif_rockpool"])))
    for place, value in damage:
        raw[int(place * len(raw))] = value
    path = tmp_path / "damaged.nir"
    path.write_bytes(raw[: int(end * len(raw))] if cut else raw)
    with suppress(InputError, FileError):
        nir.read(path, dt=1.0, discretisation="exact", limit=2**24)


def test_no_torch():
    code = "import axonal.deploy.nir, axonal.graph.summary, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

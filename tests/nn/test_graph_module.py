import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nets import Net
from torch import fx, nn

from axonal.core.errors import InputError
from axonal.nn import IF, Delay, Difference, GraphModule, IntegerLIF, Neuron, Signed, Stateful
from axonal.nn.meter import Meter


class Tracer(fx.Tracer):
    def is_leaf_module(self, m, module_qualified_name):
        return isinstance(m, Stateful) or super().is_leaf_module(m, module_qualified_name)


def graph(run, **parts):
    net = Net(run, **parts)
    return fx.GraphModule(net, Tracer().trace(net))


def conv(inside, outside):
    return nn.Conv2d(inside, outside, 3, padding=1)


def residual(m, x):
    h = m.first(m.a(x))
    h = m.delay(h) + m.second(m.b(h))
    return m.head(torch.cat([m.pool(h), x], 1).view(x.size(0), -1))


def spiking(seed=0):
    """Branches, two populations, a delay and a maximum of rates; it also reads its input last."""
    torch.manual_seed(seed)
    parts = {"a": conv(2, 4), "b": conv(4, 4), "pool": Difference(nn.MaxPool2d(3, 1, 1))}
    parts |= {"first": IF(0.3), "second": IntegerLIF(3, 0.2), "delay": Delay(2)}
    return GraphModule(graph(residual, **parts, head=nn.Linear(6 * 25, 3)))


def stream(steps=6, batch=3, seed=1):
    return torch.randn(steps, batch, 2, 5, 5, generator=torch.Generator().manual_seed(seed))


def flat(state):
    for part in state.values() if isinstance(state, dict) else state:
        yield from [torch.as_tensor(part)] if not isinstance(part, tuple | dict) else flat(part)


STATELESS = {
    "residual": (lambda m, x: m.b(F.relu(m.a(x))) + x, {"a": conv(2, 4), "b": conv(4, 2)}),
    "sizes": (
        lambda m, x: m.l((x - x.mean(1, keepdim=True)).view(x.size(0), x.shape[1] * 25)),
        {"l": nn.Linear(50, 3)},
    ),
    "parts": (lambda m, x: torch.cat(x.chunk(2, 1)[::-1], 1), {}),
    "parameters": (
        lambda m, x: m.l(x) * m.l(m.p) + (m.p + 1),
        {"l": nn.Linear(5, 5), "p": nn.Parameter(torch.rand(1, 5))},
    ),
    "attention": (
        lambda m, x: F.scaled_dot_product_attention(m.q(x), m.k(x), x),
        {"q": nn.Linear(5, 5), "k": nn.Linear(5, 5)},
    ),
    "by name": (lambda m, x: m.a(input=x), {"a": conv(2, 4)}),
    "nothing": (lambda m, x: x, {}),
}


@torch.no_grad()
@pytest.mark.parametrize("name", STATELESS)
def test_without_states_it_is_the_network_itself_in_every_step(name):
    net = graph(STATELESS[name][0], **STATELESS[name][1])
    for x in (stream(), stream(1), stream(1)[0].expand(4, 3, 2, 5, 5)):
        y, state = GraphModule(net)(x)
        torch.testing.assert_close(y, torch.stack([net(step) for step in x]))
        assert state == {}


def test_layers_with_states_run_over_all_steps():
    net, x = spiking(), stream()
    with torch.no_grad():
        y, state = net(x)
    g = net.graph
    h, first = g.first(g.a(x.flatten(0, 1)).unflatten(0, (6, 3)))
    late, delay = g.delay(h)
    second, _ = g.second(g.b(h.flatten(0, 1)).unflatten(0, (6, 3)))
    pooled, _ = g.pool(late + second)
    expected = g.head(torch.cat([pooled, x], 2).flatten(2))
    torch.testing.assert_close(y, expected)
    assert {*state} == {"first", "second", "delay", "pool"}
    assert torch.equal(state["first"], first) and torch.equal(state["delay"], delay)


@torch.no_grad()
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 20))
def test_chunks_are_one_run(sizes, seed):
    net, x = spiking(seed), stream(sum(sizes), seed=seed)
    expected, last = net(x)
    parts, state = [], None
    for chunk in x.split(sizes):
        y, state = net(chunk, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts), expected, rtol=1e-4, atol=1e-5)
    for one, other in zip(flat(state), flat(last), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_samples_do_not_meet():
    net, x = spiking(), stream()
    together, _ = net(x)
    for i in range(3):
        torch.testing.assert_close(net(x[:, i : i + 1])[0], together[:, i : i + 1])


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_an_input_that_stands_still_is_one_that_is_repeated(steps):
    net, image = spiking(), stream(1)[0]
    still, after = net(image.expand(steps, *image.shape))
    moving, other = net(image.expand(steps, *image.shape).contiguous())
    torch.testing.assert_close(still, moving)
    for one, two in zip(flat(after), flat(other), strict=True):
        torch.testing.assert_close(one, two)
    # And it goes on from there.
    again, _ = net(image.expand(steps, *image.shape), after)
    torch.testing.assert_close(again, net(image.expand(2 * steps, *image.shape))[0][steps:])


@torch.no_grad()
def test_an_input_that_stands_still_runs_once_up_to_the_first_state():
    net, image, rows = spiking(), stream(1)[0], []
    net.graph.a.register_forward_hook(lambda m, args, y: rows.append(len(y)))
    net(image.expand(4, *image.shape))
    net(image.expand(4, *image.shape).contiguous())
    assert rows == [3, 12]


@torch.no_grad()
def test_a_shape_is_that_of_all_steps():
    net = graph(lambda m, x: m.n(m.a(x)).reshape(x.size(0), -1), a=conv(2, 4), n=IF(0.1))
    image = stream(1)[0]
    y, _ = GraphModule(net)(image.expand(4, *image.shape))
    torch.testing.assert_close(y, net.n(net.a(image).expand(4, 3, 4, 5, 5))[0].flatten(2))


@torch.no_grad()
@pytest.mark.parametrize("loud", [[], [0], [2, 3], [1, 5], range(6)], ids=str)
def test_steps_in_which_nothing_comes_are_left_out(loud):
    net, x, rows = (
        GraphModule(graph(lambda m, x: m.a(x), a=conv(2, 4))),
        torch.zeros(6, 3, 2, 5, 5),
        [],
    )
    x[[*loud]] = stream()[[*loud]]
    net.graph.a.register_forward_hook(lambda m, args, y: rows.append(len(y)))
    y, _ = net(x)
    torch.testing.assert_close(y, net.graph.a(x.flatten(0, 1)).unflatten(0, (6, 3)))
    span = max(loud) - min(loud) + 1 if loud else 0
    assert sum(rows[:-1]) == 3 * span + (span < 6)  # one sample of silence
    with torch.enable_grad():
        assert net(x)[0].requires_grad


@torch.no_grad()
def test_events_are_counted_as_without_leaving_out():
    net = GraphModule(graph(lambda m, x: m.b(m.n(m.a(x))), a=conv(2, 4), n=IF(2.0), b=conv(4, 2)))
    x = stream() * (torch.arange(6) < 3).reshape(-1, 1, 1, 1, 1)
    net.graph.a.bias.zero_()
    with Meter(net, "events", batch_dim=1) as meter:
        net(x)
    sent, _ = net.graph.n(net.graph.a(x.flatten(0, 1)).unflatten(0, (6, 3)))
    with Meter(net.graph.b, "zeros") as plain:
        net.graph.b(sent.flatten(0, 1))
    counts = meter.counts().by_layer("synops")
    assert counts["graph.b"] * 3 == plain.counts().total("synops") * 18 > 0
    assert meter.counts().by_layer("multiplies")["graph.b"] == 0


def test_gradients_reach_every_weight():
    net = spiking()
    net(stream())[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(
    ("x", "state", "message"),
    [
        (torch.zeros(3), None, r"must be \[T, B, ...\]"),
        (torch.zeros(0, 3, 2, 5, 5), None, "both at least 1"),
        (torch.zeros(3, 0, 2, 5, 5), None, "both at least 1"),
        (stream(), {"other": torch.zeros(1)}, "the state is not of this network"),
        (stream(), {}, "the state is not of this network"),
        (stream(), (torch.zeros(1),), "the state is not of this network"),
        (stream(), stream(), "the state is not of this network"),
    ],
)
def test_what_does_not_fit_is_refused(x, state, message):
    with pytest.raises(InputError, match=message):
        spiking()(x, state)


@torch.no_grad()
@pytest.mark.parametrize("name", ["first", "delay", "pool"])
def test_states_of_other_shapes_are_refused(name):
    net, x = spiking(), stream()
    _, state = net(x)
    _, other = net(x[:, :2])
    with pytest.raises(InputError):
        net(x, state | {name: other[name]})


def test_two_inputs_are_refused():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    with pytest.raises(InputError, match="must have one input"):
        GraphModule(fx.symbolic_trace(Two()))


def test_one_state_for_two_calls_is_refused():
    with pytest.raises(InputError, match="'n' has one state and is called twice"):
        GraphModule(graph(lambda m, x: m.n(m.n(x)), n=IF()))


FUNCTIONS = {
    "maximum": nn.MaxPool2d(2),
    "norm": nn.LayerNorm(6),
    "softmax": lambda x: torch.softmax(x, -1),
    "away from zero": lambda x: x * x + 1,
}


@torch.no_grad()
@pytest.mark.parametrize("name", FUNCTIONS)
@given(st.integers(1, 9), st.integers(0, 100))
def test_a_difference_adds_up_to_the_function_of_the_mean(name, steps, seed):
    x = torch.randn(steps, 2, 3, 4, 6, generator=torch.Generator().manual_seed(seed))
    y, _ = Difference(FUNCTIONS[name])(x)
    expected = torch.stack([FUNCTIONS[name](x[: t + 1].mean(0)) * (t + 1) for t in range(steps)])
    torch.testing.assert_close(y.cumsum(0), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@given(st.integers(1, 5), st.integers(1, 5))
def test_a_difference_of_two_inputs_in_chunks(first, second):
    a, b = torch.randn(first + second, 2, 3, 4), torch.randn(first + second, 2, 4, 5)
    product = Difference(torch.matmul)
    y, last = product(a, b, None)
    torch.testing.assert_close(
        y.sum(0), (first + second) * a.mean(0) @ b.mean(0), rtol=1e-4, atol=1e-4
    )
    begin, state = product(a[:first], b[:first], None)
    end, state = product(a[first:], b[first:], state)
    torch.testing.assert_close(torch.cat([begin, end]), y, rtol=1e-4, atol=1e-4)
    for one, other in zip(flat(state), flat(last), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@given(st.integers(-3, 3), st.integers(1, 8), st.integers(1, 3), st.integers(0, 100))
def test_what_is_rounded_is_the_same_however_it_is_computed(power, steps, pieces, seed):
    """Sums in another order, in chunks, of other precision: the same multiples of the unit."""
    draw, unit = torch.Generator().manual_seed(seed), 2.0**power
    a = torch.randint(-64, 64, (steps, 2, 3, 12), generator=draw) / 16
    b = torch.randint(-64, 64, (steps, 2, 12, 4), generator=draw) / 16
    order = torch.randperm(12, generator=draw)
    expected, _ = Difference(torch.matmul, unit)(a, b, None)
    other, state = Difference(torch.matmul, unit), None
    parts = []
    for begin in range(0, steps, pieces):
        rows = slice(begin, begin + pieces)
        y, state = other(a[rows][..., order], b[rows][:, :, order].double(), state)
        parts.append(y)
    assert torch.equal(torch.cat(parts), expected)
    assert torch.equal(expected, (expected / unit).round() * unit)
    exact = (
        a.double().cumsum(0)
        @ b.double().cumsum(0)
        / torch.arange(1, steps + 1)[:, None, None, None]
    )
    assert (expected.cumsum(0) - exact).abs().max() <= unit / 2 * 1.001


def test_gradients_pass_a_rounded_difference():
    x = torch.randn(3, 2, 4, requires_grad=True)
    plain, rounded = (
        torch.autograd.grad(Difference(torch.tanh, unit)(x)[0].square().sum(), x)[0]
        for unit in (None, 2.0**-20)
    )
    torch.testing.assert_close(plain, rounded, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_difference_hands_on_the_first_step_as_it_is():
    x = torch.randn(1, 2, 4)
    y, _ = Difference(torch.tanh)(x)
    torch.testing.assert_close(y[0], x[0].tanh())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((torch.zeros(0, 2, 4), None), "no step"),
        ((torch.zeros(3, 2, 4), torch.zeros(2, 4)), "the state is of other inputs"),
        ((torch.zeros(3, 2, 4), (torch.zeros(2, 5), 1.0, torch.zeros(2, 5))), "of other inputs"),
        ((torch.zeros(3, 2, 4), (torch.zeros(2, 4),) * 4), "of other inputs"),
    ],
)
def test_a_difference_refuses_what_does_not_fit(inputs, message):
    with pytest.raises(InputError, match=message):
        Difference(torch.tanh)(*inputs)


def test_thresholds_of_a_population_may_differ():
    net = graph(lambda m, x: m.n(x), n=Neuron(Signed(), values={"threshold": torch.ones(2, 1, 1)}))
    y, state = GraphModule(net)(stream())
    assert y.shape == stream().shape and state["n"].shape == (1, 3, 2, 5, 5)

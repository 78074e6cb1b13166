"""Networks as graphs: what is prepared computes what the model does, or is refused by its line."""

import pytest
import torch
import torch.nn.functional as F
from nets import Net
from torch import nn

from axonal.convert.tracing import prepared, rectifiers, roles
from axonal.core.errors import InputError
from axonal.nn import Conv2d

NORMS = nn.modules.batchnorm._BatchNorm


def conv(inside, outside, **options):
    return nn.Conv2d(inside, outside, 3, **{"padding": 1} | options)


def middle(run, **parts):
    """conv - ReLU - `run` - linear, where `run` is given [B, 4, 8, 8]."""
    return Net(
        lambda m, x: m.head(run(m, m.act(m.first(x))).flatten(1)),
        first=conv(2, 4),
        act=nn.ReLU(),
        head=nn.LazyLinear(3),
        **parts,
    )


def tokens(run, **parts):
    """The same of [B, 4, 16]."""
    return Net(
        lambda m, x: m.head(run(m, m.act(m.first(x.reshape(-1, 4, 32)))).flatten(1)),
        first=nn.Linear(32, 16),
        act=nn.ReLU(),
        head=nn.LazyLinear(3),
        **parts,
    )


def three_times(m, h):
    h = m.relu(m.a(h))
    h = m.relu(m.b(h) + h)
    return m.relu(m.c(h))


def in_place_twice(m, h):
    h = m.a(h)
    return h + m.b(m.act2(h))


RECTIFIERS = {
    "F.relu": lambda: middle(lambda m, h: F.relu(m.b(h)), b=conv(4, 4)),
    "F.relu in place": lambda: middle(lambda m, h: F.relu(m.b(h), inplace=True), b=conv(4, 4)),
    "torch.relu": lambda: middle(lambda m, h: torch.relu(m.b(h)), b=conv(4, 4)),
    "method": lambda: middle(lambda m, h: m.b(h).relu(), b=conv(4, 4)),
    "in place": lambda: middle(
        in_place_twice, a=conv(4, 4), b=conv(4, 4), act2=nn.ReLU(inplace=True)
    ),
    "shared": lambda: middle(
        three_times, relu=nn.ReLU(inplace=True), **{name: conv(4, 4) for name in "abc"}
    ),
    "relu6": lambda: middle(lambda m, h: m.r(m.b(9 * h)), b=conv(4, 4), r=nn.ReLU6()),
    "F.relu6": lambda: middle(lambda m, h: F.relu6(m.b(9 * h)), b=conv(4, 4)),
    "leaky": lambda: middle(lambda m, h: m.r(m.b(h)), b=conv(4, 4), r=nn.LeakyReLU(0.2)),
    "F.leaky_relu": lambda: middle(lambda m, h: F.leaky_relu(m.b(h), 0.2), b=conv(4, 4)),
    "prelu": lambda: middle(lambda m, h: m.r(m.b(h)), b=conv(4, 4), r=nn.PReLU()),
    "by name": lambda: middle(lambda m, h: m.act(input=m.b(input=h)), b=conv(4, 4)),
}
# The second call of `act` makes a node that has the name of another module, `act_1`.
NAMES = {
    "another activation": lambda: middle(
        lambda m, h: m.act_1(m.b(m.act(m.a(h)))),
        a=conv(4, 4),
        b=conv(4, 4),
        act_1=nn.LeakyReLU(0.5),
    ),
    "a convolution": lambda: middle(
        lambda m, h: m.act_1(m.act(m.a(h))), a=conv(4, 4), act_1=conv(4, 4)
    ),
    "a function": lambda: middle(
        lambda m, h: m.relu(m.b(F.relu(m.a(h)))),
        a=conv(4, 4),
        b=conv(4, 4),
        relu=nn.LeakyReLU(0.5),
    ),
    "output": lambda: middle(lambda m, h: m.output(m.a(h)), a=conv(4, 4), output=nn.ReLU()),
}
NORMED = {
    "conv1d": lambda: tokens(lambda m, h: m.n(m.c(h)), c=nn.Conv1d(4, 6, 3), n=nn.BatchNorm1d(6)),
    "conv2d": lambda: middle(lambda m, h: m.n(m.c(h)), c=conv(4, 6), n=nn.BatchNorm2d(6)),
    "without bias": lambda: middle(
        lambda m, h: m.n(m.c(h)), c=conv(4, 6, bias=False), n=nn.BatchNorm2d(6, affine=False)
    ),
    "linear": lambda: middle(
        lambda m, h: m.n(m.c(h.flatten(1))), c=nn.Linear(256, 5), n=nn.BatchNorm1d(5)
    ),
}
UNFUSED = {
    "shared": lambda: middle(lambda m, h: m.n(m.c(m.n(m.c(h)))), c=conv(4, 4), n=nn.BatchNorm2d(4)),
    "read twice": lambda: middle(
        lambda m, h: (lambda y: m.n(y) + y)(m.c(h)), c=conv(4, 4), n=nn.BatchNorm2d(4)
    ),
    "alone": lambda: middle(lambda m, h: m.n(h), n=nn.BatchNorm2d(4)),
    "of tokens": lambda: tokens(lambda m, h: m.n(m.c(h)), c=nn.Linear(16, 7), n=nn.BatchNorm1d(4)),
}
SHAPES = {
    "concatenation": lambda: middle(lambda m, h: torch.cat([h, m.b(h)], 1), b=conv(4, 2)),
    "convolution by events": lambda: middle(lambda m, h: m.b(h), b=Conv2d(4, 4, 3)),
    "residual": lambda: middle(
        lambda m, h: h - m.b(h) + h.mean((2, 3), keepdim=True), b=conv(4, 4)
    ),
    "dropout": lambda: middle(lambda m, h: m.d(F.dropout(h, 0.5, m.training)), d=nn.Dropout2d()),
    "view": lambda: middle(lambda m, h: h.view(h.size(0), -1)),
    "shape": lambda: middle(lambda m, h: h.reshape(h.shape[0], h.shape[1] * h.shape[2], -1)),
    "permute": lambda: middle(lambda m, h: h.permute(0, 2, 3, 1) / h.shape[1]),
    "constants": lambda: middle(
        lambda m, h: (h * (m.gain + 1) - m.gain) / 3, gain=nn.Parameter(torch.rand(4, 1, 1))
    ),
    "pooling": lambda: middle(lambda m, h: F.adaptive_avg_pool2d(F.avg_pool2d(h, 2, 1, 1), 3)),
}
TRANSFORMERS = {
    "MultiheadAttention": lambda: tokens(
        lambda m, h: m.a(h, h, h, need_weights=False)[0],
        a=nn.MultiheadAttention(16, 4, batch_first=True),
    ),
    "without bias": lambda: tokens(
        lambda m, h: m.a(h, m.b(h), h)[0],
        a=nn.MultiheadAttention(16, 2, batch_first=True, bias=False),
        b=nn.Linear(16, 16),
    ),
    "scaled_dot_product_attention": lambda: tokens(
        lambda m, h: F.scaled_dot_product_attention(m.q(h), m.k(h), h),
        q=nn.Linear(16, 16),
        k=nn.Linear(16, 16),
    ),
    "norm and GELU": lambda: tokens(lambda m, h: F.gelu(m.n(h)).softmax(-1), n=nn.LayerNorm(16)),
}
TOKENS = {
    "expand": lambda m, h: torch.cat([m.token.expand(h.shape[0], -1, -1), h], 1) + m.places,
    "repeat": lambda m, h: torch.cat((m.token.repeat(h.size(0), 1, 1), h), dim=1)[:, 0],
    "last": lambda m, h: torch.cat([h, m.token.expand(h.size(0), 1, 16)], -2),
    "several": lambda m, h: torch.cat(
        [m.token.expand(h.size(0), 1, 16), m.places.expand(h.size(0), -1, -1), h, -h], 1
    ),
}
TRANSFORMERS |= {
    f"token: {name}": lambda run=run: tokens(
        run, token=nn.Parameter(torch.rand(1, 1, 16)), places=nn.Parameter(torch.rand(1, 5, 16))
    )
    for name, run in TOKENS.items()
}
CASES = RECTIFIERS | NAMES | SHAPES | {f"norm: {k}": v for k, v in (NORMED | UNFUSED).items()}
CASES |= {f"attention: {k}": v for k, v in TRANSFORMERS.items()}


def trained(make, seed=0):
    """The network with every parameter and statistic away from its start."""
    torch.manual_seed(seed)
    model = make().eval()
    with torch.no_grad():
        model(torch.zeros(1, 2, 8, 8))
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
        for module in model.modules():
            if isinstance(module, NORMS):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.num_batches_tracked.fill_(1)
    return model


def images(count=5):
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("schedule", ["pipelined", "waiting"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_prepared_computes_what_the_model_does(name, schedule):
    model = trained(CASES[name])
    dense = prepared(model, schedule)
    torch.testing.assert_close(dense(images()), model(images()), rtol=1e-4, atol=1e-5)
    assert roles(dense)


@pytest.mark.parametrize(
    ("name", "count"), [("shared", 4), ("in place", 2), ("by name", 2), ("method", 2)]
)
def test_every_call_of_a_rectifier_is_a_population(name, count):
    dense = prepared(trained(RECTIFIERS[name]))
    result = rectifiers(dense)
    assert len(result) == count and all(dense.get_submodule(name) for name in result)


def test_slopes_are_the_rectifiers_own():
    slopes = {
        name: [*rectifiers(prepared(trained(RECTIFIERS[name]))).values()] for name in RECTIFIERS
    }
    assert slopes["leaky"] == slopes["F.leaky_relu"] == [0, 0.2]
    assert slopes["relu6"] == [0, 0]
    assert slopes["prelu"] == [0, pytest.approx(trained(RECTIFIERS["prelu"]).r.weight.item())]


@pytest.mark.parametrize("name", NORMED)
def test_norms_become_weights(name):
    assert not any(isinstance(m, NORMS) for m in prepared(trained(NORMED[name])).modules())


@pytest.mark.parametrize("name", UNFUSED)
def test_norms_without_weights_of_their_own_are_factors_and_sums(name):
    dense = prepared(trained(UNFUSED[name]))
    norms = [m for m in dense.modules() if isinstance(m, NORMS)]
    products = [n for n in dense.graph.nodes if n.target is torch.mul]
    assert (len(norms), bool(products)) == ((1, False) if name == "of tokens" else (0, True))


POOLS = {
    "rectified, then pooled": lambda m, h: m.pool(m.act2(m.b(h))),
    "pooled, then rectified": lambda m, h: m.act2(m.pool(m.b(h))),
    "functions": lambda m, h: F.max_pool2d(F.relu(m.b(h)), 3, 2, 1),
    "functions, the other way": lambda m, h: F.relu(F.max_pool2d(m.b(h), 3, 2, 1)),
}


@torch.no_grad()
@pytest.mark.parametrize("name", POOLS)
def test_maxima_are_taken_before_rectifiers_and_when_waiting_after_them(name):
    model = trained(
        lambda: middle(
            POOLS[name], b=conv(4, 4), pool=nn.MaxPool2d(3, 2, 1), act2=nn.LeakyReLU(0.1)
        )
    )
    for schedule in ("pipelined", "waiting"):
        dense = prepared(model, schedule)
        torch.testing.assert_close(dense(images()), model(images()), rtol=0, atol=0)
        order = [node.name for node in dense.graph.nodes]
        pool = next(n for n in order if "pool" in n)
        rectifier = next(n for n in rectifiers(dense) if n != "act")
        assert (order.index(pool) < order.index(rectifier)) == (schedule == "pipelined")


@torch.no_grad()
def test_a_rectifier_that_others_read_stays_where_it_is():
    model = trained(
        lambda: middle(
            lambda m, h: m.pool(h).mean() + 0 * m.b(h), pool=nn.MaxPool2d(2), b=conv(4, 4)
        )
    )
    dense = prepared(model)
    order = [node.name for node in dense.graph.nodes]
    assert order.index("act") < order.index("pool")


def test_norms_with_statistics_but_no_counter_are_taken():
    model = trained(NORMED["conv2d"])
    model.n.num_batches_tracked.fill_(0)  # as in weights from elsewhere
    torch.testing.assert_close(prepared(model)(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_roles():
    def run(m, h):
        h = h.flatten(2)
        return m.n(h) * F.softmax(h + m.p, -1).view(h.size(0), 4, 64)

    parts = {"n": nn.LayerNorm(64), "p": nn.Parameter(torch.rand(64))}
    model = trained(lambda: middle(run, **parts))
    result = {node.name: role for node, role in roles(prepared(model)).items()}
    assert (result["x"], result["output"], result["act"]) == ("input", "output", "rectifier")
    assert result["first"] == result["flatten"] == result["add"] == result["view"] == "linear"
    assert result["n"] == result["softmax"] == "nonlinear"
    assert result["mul"] == "product" and result["size"] == result["p"] == "constant"


class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        return torch.sort(self.act(x))[0]  # the line that the message names


def test_the_line_of_an_operation_without_a_rule_is_named():
    place = f'File ".*{__file__}", line {Sorted.forward.__code__.co_firstlineno + 1},'
    with pytest.raises(InputError, match=rf"convert sort \(sort\) at {place}"):
        roles(prepared(Sorted()))


WEIGHTS = nn.Parameter(torch.rand(8, 8))
REFUSED = {
    "fft_fft": lambda: middle(lambda m, h: torch.fft.fft(h).real),
    "relu_": lambda: middle(lambda m, h: m.first(h[:, :2]).relu_()),
    "truediv": lambda: middle(lambda m, h: 1 / (h + 1)),
    "add": lambda: middle(lambda m, h: torch.add(h, h, alpha=2)),
    "matmul": lambda: middle(lambda m, h: torch.matmul(m.w, h), w=WEIGHTS),
    "layer_norm": lambda: middle(lambda m, h: F.layer_norm(h, (8,), m.w[0]), w=WEIGHTS),
    "scaled_dot_product_attention": lambda: middle(
        lambda m, h: F.scaled_dot_product_attention(h, h, h, attn_mask=m.w), w=WEIGHTS
    ),
    "dropout": lambda: middle(lambda m, h: F.dropout(h)),
    "pad": lambda: middle(lambda m, h: F.pad(h, (1, 1), value=1.0)),
    "mean": lambda: middle(lambda m, h: h - h.mean()),
    "TransformerDecoderLayer": lambda: tokens(
        lambda m, h: m.t(h, h), t=nn.TransformerDecoderLayer(16, 2, batch_first=True)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused_by_its_line(name):
    with pytest.raises(InputError, match=rf'no rule to convert .*{name}.* at File ".*{__file__}"'):
        roles(prepared(REFUSED[name]()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Net(lambda m, x: m.act(x) if x.sum() > 0 else x, act=nn.ReLU()),
            "can't trace Net",
        ),
        (lambda: Net(lambda m, x: (m.act(x), 3), act=nn.ReLU()), "must return tensors"),
        (lambda: Net(lambda m, x: {"y": None}, act=nn.ReLU()), "must return tensors"),
        (NORMED["conv2d"], f'n is a batch norm without statistics of data at File ".*{__file__}"'),
        (
            lambda: middle(lambda m, h: m.n(h), n=nn.BatchNorm2d(4, track_running_stats=False)),
            "n is a batch norm without statistics",
        ),
        (
            lambda: tokens(
                lambda m, h: m.a(h, h, h, attn_mask=m.w)[0],
                a=nn.MultiheadAttention(16, 2, batch_first=True),
                w=nn.Parameter(torch.rand(4, 4)),
            ),
            "attention with a mask",
        ),
        (
            lambda: tokens(lambda m, h: m.a(h, h, h)[0], a=nn.MultiheadAttention(16, 2)),
            "batch_first=True",
        ),
    ],
    ids=["flow", "tuple", "dictionary", "new norm", "norm of batches", "mask", "time first"],
)
def test_what_cannot_be_prepared_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        prepared(make())


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (nn.PReLU(4), "prelu has a slope for each channel at File"),
        (nn.LeakyReLU(-0.5), "prelu has slope -0.5 below 0 at File"),
        (nn.LeakyReLU(1.5), "prelu has slope 1.5"),
    ],
)
def test_slopes_that_no_neuron_has_are_refused(part, message):
    with pytest.raises(InputError, match=message):
        rectifiers(prepared(middle(lambda m, h: m.prelu(h), prelu=part)))


def test_a_network_without_rectifier_is_refused():
    with pytest.raises(InputError, match="Sequential has no rectifier; nothing would be converted"):
        rectifiers(prepared(nn.Sequential(conv(2, 2), nn.Flatten())))


def test_the_model_is_not_touched():
    model = trained(CASES["norm: conv2d"]).train()
    model.act.register_forward_hook(lambda *_: None)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    dense = prepared(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(m.training for m in model.modules()) and len(model.act._forward_hooks) == 1
    own = {p.data_ptr() for p in model.parameters()}
    assert not own & {p.data_ptr() for p in dense.parameters()}

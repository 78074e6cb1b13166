"""Models as users bring them: parametrized, pruned, wrapped, and in torch's own layers."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from axonal.convert import convert
from axonal.convert.plain import plain
from axonal.core.errors import InputError


def network(change=lambda module: module):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    change(layers[0])
    return layers


CHANGES = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "two prunings": lambda layer: [prune.random_unstructured(layer, "weight", 0.3) for _ in "ab"],
    "the older spectral_norm": spectral_norm,
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_weights_that_are_computed_are_folded(name):
    model, x = network(CHANGES[name]), torch.rand(60, 6)
    model(x)
    model.eval()
    expected, keys = model(x), [*model.state_dict()]
    twin = plain(model)
    torch.testing.assert_close(twin(x), expected)
    assert {*twin.state_dict()} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert [*model.state_dict()] == keys and torch.equal(model(x), expected)
    spiking, _ = convert(model, x, T=4)
    assert (spiking.answer(x).argmax(1) == expected.argmax(1)).float().mean() > 0.8


@pytest.mark.parametrize(
    ("wrap", "remedy"),
    [
        (nn.DataParallel, r"pass its \.module"),
        (torch.compile, r"pass its \._orig_mod"),
        (lambda model: nn.Sequential(nn.DataParallel(model)), r"DataParallel '0' .* its \.module"),
        (lambda model: torch.jit.trace(model, torch.rand(2, 6)), "that it was made from"),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_wrappers_say_what_to_pass(wrap, remedy):
    with pytest.raises(InputError, match=remedy):
        convert(wrap(network()), torch.rand(20, 6), T=2)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_torchs_own_encoders_convert(first, activation):
    torch.manual_seed(0)
    options = {"batch_first": True, "norm_first": first, "activation": activation}
    layer = nn.TransformerEncoderLayer(16, 2, 32, **options)
    encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16), enable_nested_tensor=False)
    head = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    model, x = nn.Sequential(encoder, nn.Flatten(), *head).eval(), torch.rand(60, 4, 16)
    expected = model(x)
    spiking, _ = convert(model, x, method="transformer", T=8)
    assert (spiking.answer(x).argmax(1) == expected.argmax(1)).float().mean() > 0.8
    alone = nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, **options), nn.ReLU()).eval()
    convert(alone, x, method="transformer", T=2)


def test_gates_are_refused_with_what_to_write():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.gates, self.head = nn.LSTM(16, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.gates(x)[0][:, -1])

    with pytest.raises(InputError, match=r"LSTM.*nn\.Recurrent"):
        convert(Gated(), torch.rand(20, 4, 16), T=2)

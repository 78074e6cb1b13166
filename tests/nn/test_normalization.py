import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from axonal.core.errors import InputError
from axonal.deploy.from_torch import trace
from axonal.nn import (
    LIF,
    MembraneNorm,
    Sequential,
    TemporalBatchNorm,
    ThresholdBatchNorm,
    standardise,
    watch,
)


def drive(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(threshold=st.floats(0.1, 4), alpha=st.floats(0.2, 2), space=st.integers(0, 2))
def test_currents_take_the_scale_of_the_threshold_over_time_batch_and_space(
    threshold, alpha, space
):
    x = 3 * drive(7, 5, 4, *[3] * space) + 2
    net = Sequential(ThresholdBatchNorm(4, threshold, alpha))
    y = net(x)[0].movedim(2, 0).flatten(1)
    assert y.mean(1).abs().max() < 1e-5 * threshold + 1e-6
    torch.testing.assert_close(y.std(1, correction=0), torch.full((4,), alpha * threshold))


def test_a_norm_refuses_what_has_no_channels():
    with pytest.raises(InputError, match=r"\[B, C"):
        ThresholdBatchNorm(3)(torch.ones(3))


def test_scales_of_steps_multiply_a_shared_norm_and_streams_go_on():
    norm = TemporalBatchNorm(3, 6, threshold=0.5).eval()
    plain = Sequential(norm.norm)
    x = drive(6, 4, 3, 2)
    torch.testing.assert_close(norm(x)[0], plain(x)[0])
    with torch.no_grad():
        norm.scale.copy_(torch.arange(1.0, 7))
    y, count = norm(x)
    assert count == 6
    torch.testing.assert_close(y[3], 4 * plain(x)[0][3])
    first, state = norm(x[:2])
    rest, _ = norm(x[2:], state)
    torch.testing.assert_close(torch.cat([first, rest]), y)
    with pytest.raises(InputError, match="learned for 6"):
        norm(x, state)
    norm.train()(x)[0].square().sum().backward()
    assert norm.scale.grad.abs().min() > 0


def trained(channels, seed):
    torch.manual_seed(seed)
    norm = MembraneNorm(channels, 0.8, threshold=0.7).double()
    with torch.no_grad():
        norm.norm.weight.uniform_(0.3, 2)
        norm.norm.bias.uniform_(-0.5, 0.2)
        norm.norm.running_mean.uniform_(0, 0.5)
        norm.norm.running_var.uniform_(0.3, 3)
    return norm.eval()


@settings(max_examples=25)
@given(seed=st.integers(0, 999), space=st.sampled_from([0, 2]))
def test_a_folded_membrane_norm_fires_the_same(seed, space):
    norm = trained(4, seed)
    x = 2.6 * drive(12, 3, 4, *[2] * space, seed=seed).double() + 0.6
    spikes, v = norm(x)
    folded, state = norm.fold(space)(x)
    assert 0.02 < spikes.mean() < 0.98
    assert torch.equal(spikes, folded)
    torch.testing.assert_close(v, state[0])


def test_only_a_folded_membrane_norm_is_traced():
    norm = trained(4, 0).float()
    example = torch.zeros(2, 1, 3)
    with pytest.raises(InputError, match=r"can't trace '1' \(MembraneNorm\): there is no rule"):
        trace(Sequential(nn.Linear(3, 4), norm), example)
    graph = trace(Sequential(nn.Linear(3, 4), norm.fold()), example)
    assert torch.equal(torch.tensor(graph.nodes["1"].op.values["threshold"]), norm.fold().threshold)


@pytest.mark.parametrize(("weight", "bias"), [(-1.0, 0.0), (0.0, 0.0), (1.0, 5.0)])
def test_what_no_threshold_can_do_is_not_folded(weight, bias):
    norm = trained(3, 0)
    with torch.no_grad():
        norm.norm.weight[1], norm.norm.bias[1] = weight, bias
    with pytest.raises(InputError, match="1 of 3 channels"):
        norm.fold()


def test_a_negative_scale_is_a_negated_drive():
    norm, twin = trained(2, 3), trained(2, 3)
    x = 2 * drive(10, 4, 2).double()
    with torch.no_grad():
        norm.norm.weight.neg_()
        twin.norm.running_mean.neg_()
    spikes, v = norm(x)
    negated, minus = twin(-x)
    assert spikes.any() and torch.equal(spikes, negated)
    torch.testing.assert_close(v, -minus)
    with pytest.raises(InputError):
        norm.fold()


def test_membranes_are_normalised_while_training_and_seen_by_a_watch():
    norm = MembraneNorm(4, decay=0.9)
    x = (10 * drive(5, 64, 4) + 3).requires_grad_()
    with watch(norm) as sent:
        spikes, v = norm(x)
    assert torch.equal(torch.stack([part[0] for part in sent["neuron"]]), spikes)
    assert 0.1 < spikes.mean() < 0.25  # a normal deviate above 1: 0.16
    spikes.sum().backward()
    assert x.grad.abs().sum() > 0 and norm.norm.weight.grad is not None
    first, state = norm.eval()(x.detach()[:2])
    again = norm(x.detach()[2:], state)[0]
    torch.testing.assert_close(torch.cat([first, again]), norm(x.detach())[0])
    assert v.shape == (64, 4)


@pytest.mark.parametrize("layer", [nn.Linear(12, 5), nn.Conv2d(6, 4, 3, groups=2)])
def test_standardised_weights_have_no_mean_and_unit_energy_and_fold_away(layer):
    x = drive(2, 12) if isinstance(layer, nn.Linear) else drive(2, 6, 5, 5)
    assert standardise(layer, gain=1.5) is layer
    rows = layer.weight.flatten(1)
    assert rows.mean(1).abs().max() < 1e-6
    torch.testing.assert_close(rows.norm(dim=1), torch.full((len(rows),), 1.5))
    layer(x).square().sum().backward()
    inner = layer.parametrizations.weight
    assert inner[0].gain.grad.abs().min() > 0 and inner.original.grad is not None
    y = layer(x)
    parametrize.remove_parametrizations(layer, "weight")
    assert torch.equal(layer(x), y) and "weight" in dict(layer.named_parameters())


def test_a_constant_weight_standardises_to_zero():
    layer = nn.Linear(3, 2)
    nn.init.ones_(layer.weight)
    assert torch.equal(standardise(layer).weight, torch.zeros(2, 3))
    assert Sequential(layer, LIF())(drive(3, 2, 3))[0].isfinite().all()

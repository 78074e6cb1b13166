import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.generate.samplers import SAMPLERS, sample

ORDERS = {"euler": 1, "heun": 2, "multistep": 2}
MEAN, SPREAD = 1.5, 0.4


def gaussian(x, t, state):
    """E[x1 | x] for data N(m, s^2): x = t x1 + (1 - t) x0 is Gaussian together with x1."""
    gain = t * SPREAD**2 / (t**2 * SPREAD**2 + (1 - t) ** 2)
    return MEAN + gain * (x - t * MEAN), state


def flowed(noise):
    """The flow keeps quantiles: x_t - t m scales with sqrt(t^2 s^2 + (1 - t)^2), from 1 to s."""
    return MEAN + SPREAD * noise


def counted(network, calls):
    def run(x, t, state):
        calls.append((t, state))
        estimate, _ = network(x, t, state)
        return estimate, len(calls)

    return run


@pytest.mark.parametrize("name", SAMPLERS)
@settings(max_examples=15)
@given(steps=st.integers(1, 20), seed=st.integers(0, 99))
def test_a_constant_estimate_is_reached_exactly(name, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    target, noise = (torch.randn(3, 2, generator=generator) for _ in range(2))
    values = sample(lambda x, t, s: (target, s), noise, steps=steps, sampler=name)
    torch.testing.assert_close(values, target, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_order_of_convergence(name):
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    counts, errors = [256, 512, 1024, 2048], []
    for steps in counts:
        values = sample(gaussian, noise, steps=steps, sampler=name)
        errors.append(float((values - flowed(noise)).abs().max()))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(ORDERS[name], abs=0.3)


def test_the_higher_orders_need_fewer_evaluations():
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    runs = {"euler": 32, "heun": 16, "multistep": 31}
    errors = {
        name: float((sample(gaussian, noise, steps=n, sampler=name) - flowed(noise)).abs().max())
        for name, n in runs.items()
    }
    assert errors["heun"] < errors["euler"] and errors["multistep"] < errors["euler"]


@pytest.mark.parametrize(("name", "evaluations"), [("euler", 5), ("heun", 9), ("multistep", 5)])
def test_evaluations(name, evaluations):
    calls = []
    sample(counted(gaussian, calls), torch.zeros(1), "start", steps=5, sampler=name)
    times = [t for t, _ in calls]
    assert len(calls) == evaluations and times == sorted(times) and 0 == times[0] <= times[-1] < 1
    assert [state for _, state in calls] == ["start", *range(1, evaluations)]


def test_the_network_may_hold_on_to_its_noise():
    noise = torch.randn(4, generator=torch.Generator().manual_seed(0))
    copy = noise.clone()
    for name in SAMPLERS:
        sample(gaussian, noise, steps=3, sampler=name)
    assert torch.equal(noise, copy)


@pytest.mark.parametrize("steps", [0, -1, True, 1.5, "4", None])
def test_steps_that_are_no_count_are_refused(steps):
    with pytest.raises(InputError, match=r"steps is .*an integer of at least 1"):
        sample(gaussian, torch.zeros(1), steps=steps)


def test_unknown_samplers_are_refused():
    with pytest.raises(InputError, match="unknown sampler 'ddim'; choose one of euler, heun"):
        sample(gaussian, torch.zeros(1), steps=2, sampler="ddim")

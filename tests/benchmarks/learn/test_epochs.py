import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from axonal.core.errors import InputError
from axonal.data.images import Images
from benchmarks.harness import peers
from benchmarks.learn import epochs

CLONE = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("job", CLONE / "benchmarks/peers/epochs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (1152, 1, 28, 28)).astype(np.uint8)
    return Images(pixels, generator.integers(0, 10, 1152))


class Here(peers.Peer):
    """A peer without a process; `own` is what it adds to its jobs."""

    def __init__(self, module, **own):
        self.name, self.module, self.own = "here", module, own

    def ask(self, *, limit=None, **job):
        return self.module.answer("axonal", **job | self.own)


def test_the_start_is_of_images_and_of_weights_as_torch_draws_them(tmp_path, images):
    for network, shape in (("fully connected", (784,)), ("convolutional", (1, 28, 28))):
        with np.load(epochs.write(tmp_path, network, images, seed=1)) as file:
            first = dict(file)
        assert first["images"].shape == (128 * (1 + epochs.BATCHES[network]), *shape)
        assert first["images"].min() >= 0 and first["images"].max() == 1
    assert np.abs(first["p2"]).max() == pytest.approx(3 / np.sqrt(12 * 25), rel=0.01)
    with np.load(epochs.write(tmp_path, network, images, seed=2)) as file:
        assert (file["p0"] != first["p0"]).all()


def stepped(current, late):
    """Spikes and membranes as snnTorch (reset a step late) or SpikingJelly computes them."""
    v, s, spikes, membranes = 0.0, torch.zeros(()), [], []
    for x in current:
        h = 0.95 * v + x - (s if late else 0)
        s = (h > 1).float()
        v = h if late else h - s
        spikes.append(s)
        membranes.append(v)
    return torch.stack(spikes), torch.stack(membranes)


@pytest.mark.parametrize("framework", epochs.FRAMEWORKS)
def test_membranes_are_those_of_a_loop_over_time(job, framework):
    torch.manual_seed(0)
    net, run = job.axonal("fully connected", False, framework)
    first, second = (m for m in net if isinstance(m, torch.nn.Linear))
    with torch.no_grad():
        second.weight *= 8
    x, label, late = torch.rand(5, 784), torch.tensor([3, 1, 4, 1, 5]), framework == "snntorch"
    hidden, _ = stepped(first(x).expand(25, -1, -1), late)
    spikes, membranes = stepped(second(hidden), late)
    outputs = run(x)
    assert spikes.mean() > 0.05 and torch.equal(outputs[0], spikes)
    torch.testing.assert_close(outputs[1], membranes, rtol=1e-4, atol=1e-4)
    loss = torch.stack([cross_entropy(step, label) for step in membranes]).sum()
    own = job.loss_at_once("fully connected", *outputs, label)
    torch.testing.assert_close(own, loss, rtol=1e-5, atol=0)
    gradients = (torch.autograd.grad(part, second.weight)[0] for part in (own, loss))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


def test_a_loss_of_spikes_is_the_mean_of_the_steps(job):
    spikes, label = torch.rand(3, 2, 10), torch.tensor([1, 7])
    each = torch.stack([cross_entropy(step, label) for step in spikes])
    torch.testing.assert_close(job.loss_at_once("convolutional", spikes, None, label), each.mean())


@pytest.mark.parametrize("network", epochs.WEIGHTS)
def test_equal_steps_are_proved_and_others_refused(monkeypatch, job, tmp_path, images, network):
    monkeypatch.setattr(job, "BATCH", 4)
    data = epochs.write(tmp_path, network, images, seed=0)
    theirs = Here(job, dynamics="snntorch")
    figures = epochs.equality(Here(job), theirs, network, data, "snntorch")
    assert figures[f"equal spikes [{network}, snntorch]"] == 1
    assert figures[f"spikes a step [{network}, snntorch]"] > 0
    assert figures[f"gradient difference [{network}, snntorch]"] == 0
    with pytest.raises(InputError, match=r"spikingjelly computes something else .* compare equals"):
        epochs.equality(Here(job), theirs, network, data, "spikingjelly")


def test_a_worker_takes_training_steps(tmp_path, images):
    data = epochs.write(tmp_path, "fully connected", images, seed=0)
    with peers.worker("axonal", tmp_path, threads=1) as peer:
        job = {"network": "fully connected", "data": str(data), "dynamics": "snntorch"}
        assert peer.ask(do="epoch", batches=1, limit=None, **job)["seconds"] > 0


def test_figures_are_ratios_within_rounds_and_the_smaller_of_both_networks():
    times = {}
    for network, theirs in (("fully connected", [8.0, 18.0, 40.0]), ("convolutional", [2.0] * 3)):
        job = (network, "snntorch", False)
        times |= {("axonal", job): [1.0, 2.0, 4.0], ("snntorch", job): theirs}
        times["snntorch", (network, "snntorch", True)] = [1.0, 2.0, 8.0]
    figures = epochs.ratios(times)
    wide = {"value": 9.0, "low": 8.0, "high": 10.0}
    assert figures["epoch_vs_snntorch [fully connected]"] == wide
    assert figures["epoch_vs_snntorch"] == figures["epoch_vs_snntorch [convolutional]"]
    assert figures["epoch_vs_snntorch"]["value"] == 1
    assert figures["epoch_vs_snntorch_hoisted"]["high"] == 2
    assert figures["seconds an epoch [convolutional, axonal as snntorch]"]["value"] == 936

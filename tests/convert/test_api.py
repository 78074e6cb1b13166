"""`convert`: one call that certifies what it did, or refuses before it works."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from axonal.convert import (
    METHODS,
    Certificate,
    DeltaNetwork,
    SpikingNetwork,
    activations,
    convert,
    quantisable,
)
from axonal.convert.activations import BATCH, FILE
from axonal.convert.api import HELD_OUT, SIGMA_DELTA
from axonal.core.errors import FileError, InputError

CLASSES = 5


@pytest.fixture
def labelled(network, images):
    """A network and samples of which it names 4 in 5 right."""
    model, x = network("plain"), images(100)
    labels = named(model, x)
    labels[::5] = (labels[::5] + 1) % CLASSES
    return model, x, labels


@torch.no_grad()
def named(model, x):
    """What a network says of samples, now that it says it of all classes."""
    model[-1].bias -= model(x).mean(0)
    return model(x).argmax(1)


def drawn(samples):
    """In the order in which `convert` takes samples apart."""
    return samples[torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))]


@pytest.fixture
def idle(monkeypatch):
    """Fails the test if calibration begins."""

    def run(*_):
        raise AssertionError("work began before the refusal")

    for name in ("graded", "baselines"):
        monkeypatch.setattr(f"axonal.convert.methods.{name}.observe", run)
    monkeypatch.setattr("axonal.convert.api.calibrate", run)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_network_and_its_certificate(method, network, images):
    kind = "transformer" if method == "transformer" else "residual"
    options = {"rounds": 20} if method == "balanced" else {}
    model, x = network(kind), images(60)
    spiking, certificate = convert(model, x, method=method, T=8, **options)
    assert isinstance(spiking, SpikingNetwork) and isinstance(certificate, Certificate)
    assert (certificate.method, certificate.samples) == (method, 12)
    assert certificate.latency == spiking.latency and certificate.before is None
    with torch.no_grad():
        held = drawn(x)[-12:]
        answer, output = spiking.answer(held), model(held)
    error = float((answer - output).norm() / output.norm())
    assert certificate.output_error == pytest.approx(error, rel=1e-3) and error < 0.5
    assert str(certificate).startswith(f"{method}, ")


def test_a_fifth_is_held_out(labelled):
    model, x, labels = labelled
    total, certificate = convert(model, (x, labels), T=4)
    x, labels = drawn(x), drawn(labels)
    apart = int(HELD_OUT * len(x))
    inputs, other = convert(
        model, (x[:-apart], labels[:-apart]), T=4, held_out=(x[-apart:], labels[-apart:])
    )
    assert certificate == other and certificate.samples == apart
    assert torch.equal(total.answer(x), inputs.answer(x))
    right = (model(x[-apart:]).argmax(1) == labels[-apart:]).float().mean()
    assert certificate.before[0] == pytest.approx(float(right))
    assert abs(certificate.change[0]) <= 0.1


def test_held_out_samples_may_be_without_classes(labelled):
    model, x, labels = labelled
    _, certificate = convert(model, (x, labels), T=4, held_out=x[:7])
    assert certificate.samples == 7 and certificate.change is None


def test_the_same_call_gives_the_same(labelled):
    model, x, _ = labelled
    (one, first), (two, second) = (convert(model, x, method="corrected", T=4) for _ in range(2))
    assert first == second and torch.equal(one.answer(x), two.answer(x))


def test_the_model_is_left_as_it_is(labelled):
    model, x, _ = labelled
    model.train()
    seen = []
    model[2].register_forward_hook(lambda *_: seen.append(1))
    before = copy.deepcopy(model.state_dict())
    for method, options in (("graded", {}), ("qcfs", {}), ("corrected", {}), (SIGMA_DELTA, {})):
        spiking, _ = convert(model, x, method=method, T=2, **options)
        with torch.no_grad():
            for parameter in spiking.parameters():
                parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(m.training for m in model.modules()) and len(model[2]._forward_hooks) == 1
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_network_trained_for_it_is_exact(network, images):
    model = quantisable(network("pooled"), 4)
    spiking, certificate = convert(model, images(40), method="qcfs", T=4)
    assert certificate.output_error < 1e-4 and certificate.schedule == "waiting"
    with torch.no_grad():
        torch.testing.assert_close(
            spiking.answer(images(5)), model.eval()(images(5)), rtol=1e-4, atol=1e-4
        )


def test_options_reach_the_method(network, images):
    model, x = network("plain"), images(40)
    assert convert(model, x, T=2, bits=3)[1].levels == 14
    certificate = convert(model, x, T=2, method="qcfs", schedule="pipelined")[1]
    assert (certificate.schedule, certificate.latency) == ("pipelined", 2)


def test_a_stream_goes_by_changes(network, images):
    model = network("plain")
    stream = images(40).cumsum(0) / 6
    delta, certificate = convert(model, stream, method=SIGMA_DELTA, T=4, budget=0.1)
    assert isinstance(delta, DeltaNetwork) and certificate.method == SIGMA_DELTA
    size = certificate.budget / 0.1
    with torch.no_grad():
        output = model(stream[:32])
        assert size == pytest.approx(float(output.square().mean()) ** 0.5, rel=1e-3)
        frames = stream[32:, None].unflatten(0, (2, 4)).transpose(0, 1).squeeze(2)
        y, _ = delta(frames, delta.start(batch=2))
        error = y - torch.stack([model(frame) for frame in frames])
    assert float(error.square().mean()) ** 0.5 == pytest.approx(certificate.output_error, rel=1e-2)
    assert 0.5 * certificate.budget < certificate.calibration_error <= certificate.budget


def test_double_precision_is_kept(network, images):
    model, x = network("residual").double(), images(40).double()
    spiking, certificate = convert(model, x, T=8)
    assert spiking.answer(x[:2]).dtype is torch.float64 and certificate.output_error < 0.05


def test_an_interrupted_conversion_goes_on(network, images, tmp_path, monkeypatch):
    model, x = network("plain"), images(5 * BATCH)
    total, certificate = convert(model, x, T=4)
    runs, real = [], activations.values_of

    def counted(*inputs):
        runs.append(1)
        if len(runs) == 3:
            raise KeyboardInterrupt
        return real(*inputs)

    monkeypatch.setattr(activations, "values_of", counted)
    with pytest.raises(KeyboardInterrupt):
        convert(model, x, T=4, folder=tmp_path)
    again, second = convert(model, x, T=4, folder=tmp_path)
    assert len(runs) == 3 + 4 - 2 and (tmp_path / FILE).exists()
    assert second == certificate and torch.equal(again.answer(x[:9]), total.answer(x[:9]))


def test_a_folder_that_cannot_be_written_is_an_error(network, images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="can't write"):
        convert(network("plain"), images(20), T=2, folder=tmp_path / "file")


X = torch.randn(20, 2, 8, 8)
Y = torch.arange(20) % CLASSES


UNFIT = [
    (X, {"method": "magic"}, "no method 'magic'; there are graded, qcfs, .*sigma-delta"),
    (X, {"method": ["graded"]}, "no method"),
    (X, {"levels": 3}, "graded has no option 'levels'; it takes bits"),
    (X, {"method": "maximum", "share": 0.5}, "maximum has no option 'share'; it takes none"),
    (X, {"method": "qcfs", "schedule": "soon"}, "no schedule 'soon'"),
    (X, {"bits": 99}, "99 bits"),
    (X, {"method": SIGMA_DELTA, "bits": 8}, "it takes budget"),
    (X, {"method": SIGMA_DELTA, "budget": 0}, "a budget of 0"),
    (X, {"method": SIGMA_DELTA, "budget": float("nan")}, "a budget of nan"),
    (X, {"method": SIGMA_DELTA, "T": 30}, "20 samples are no stream of 30|16 samples"),
    (X, {"T": 0}, "T is 0"),
    (X, {"T": True}, "T is True"),
    (X, {"T": 2.0}, r"T is 2\.0"),
    (X, {"T": 10**9}, "T is 1000000000"),
    (X[:0], {}, "must be real numbers"),
    (X[:1], {}, "one sample can't calibrate and check"),
    (X[:, 0, 0, 0], {}, "must be real numbers"),
    (X.long(), {}, "of torch.int64 must be real numbers"),
    (X > 0, {}, "of torch.bool"),
    (X.tolist(), {}, "give samples as a tensor"),
    (None, {}, "give samples as a tensor"),
    ((X, Y, Y), {}, "give samples as a tensor, or a pair"),
    (X.masked_fill(X > 2, float("nan")), {}, "samples hold NaN"),
    (X.masked_fill(X > 2, float("inf")), {}, "samples hold NaN or infinity"),
    (X[:, :1], {}, r"the model refuses samples of \[1, 8, 8\]"),
    (X[..., :7], {}, "the model refuses samples"),
    (X[:, 0], {}, "the model refuses samples"),
    (X.half(), {}, "the model refuses samples"),
    (X, {"held_out": X[..., :7]}, r"held out \[20, 2, 8, 7\] for samples \[20, 2, 8, 8\]"),
    (X, {"held_out": X[:0]}, "must be real numbers"),
    (X, {"held_out": X + float("inf")}, "samples hold NaN"),
    ((X, Y[:9]), {}, r"classes .* \[20\]"),
    ((X, Y.float()), {}, "the same form, and classes are integers"),
    ((X, Y.tolist()), {}, "classes of list"),
    ((X, Y * 0), {}, "all samples are of one class"),
    ((X, Y + CLASSES), {}, r"outputs \[16, 5\] for classes up to"),
    ((X, Y - 1), {}, r"outputs \[16, 5\] for classes"),
]  # fmt: skip


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("index", range(len(UNFIT)))
def test_what_does_not_fit_is_refused_before_work(index, network):
    inputs, options, message = UNFIT[index]
    with pytest.raises(InputError, match=message):
        convert(network("plain"), inputs, **options)


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("right", [0, 20, 25])
def test_a_network_that_guesses_is_refused(right, network, images):
    model, x = network("plain"), images(100)
    labels = named(model, x)
    labels[right:] = (labels[right:] + 1) % CLASSES
    with pytest.raises(InputError, match="as guessing would; train it first"):
        convert(model, (x, labels), held_out=x)


@pytest.mark.parametrize("right", [40, 100])
def test_a_network_that_is_better_than_guessing_is_taken(right, network, images):
    model, x = network("plain"), images(100)
    labels = named(model, x)
    labels[right:] = (labels[right:] + 1) % CLASSES
    convert(model, (x, labels), T=1, held_out=x)


def test_two_classes_named_better_than_by_chance_are_enough(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 4), nn.ReLU(), nn.Linear(4, 2))
    labels = named(model, x := images(200))
    labels[::3] = 1 - labels[::3]
    convert(model, (x, labels), T=1)


def spoilt(change):
    def make(network):
        model = network("plain")
        with torch.no_grad():
            change(model)
        return model

    return make


class Odd(nn.Module):
    """A network with something between its rectifier and its last layer."""

    def __init__(self, run):
        super().__init__()
        self.first, self.act, self.last = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Linear(144, 3)
        self.run = run

    def forward(self, x):
        return self.last(self.run(self.act(self.first(x))).flatten(1))


REFUSED = {
    "NaN weights": (spoilt(lambda m: m[4].weight[0].fill_(float("nan"))), "4.weight holds NaN"),
    "infinite weights": (spoilt(lambda m: m[9].bias[:1].fill_(torch.inf)), "9.bias holds"),
    "new norms": (spoilt(lambda m: m[1].reset_running_stats()), "1 is a batch norm without"),
    "overflow": (spoilt(lambda m: m[4].weight.fill_(1e38)), "output is not finite"),
    "no activation": (lambda _: nn.Sequential(nn.Flatten(), nn.Linear(128, 3)), "no rectifier"),
    "no rule": (lambda _: Odd(lambda h: h.sort()[0]), r'no rule to convert sort .* at File "'),
    "control flow": (lambda _: Odd(lambda h: h if h.sum() > 0 else -h), "can't trace Odd"),
    "the batch": (lambda _: Odd(lambda h: F.softmax(h, 0)), "depend on that sample alone"),
    "other samples": (lambda _: Odd(lambda h: h - h[:1]), "getitem moves samples away"),
    "turned": (lambda _: Odd(lambda h: h.transpose(0, 1).transpose(0, 1)), "transpose moves"),
    "merged": (lambda _: Odd(lambda h: h.reshape(-1, 6).reshape(-1, 144)), "reshape moves"),
}  # fmt: skip


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_cannot_be_converted_are_refused_before_work(name, network):
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        convert(make(network), X)


def test_what_depends_on_other_samples_is_refused(images):
    class Whitened(Odd):
        def forward(self, x):
            return super().forward(x - x.mean((0, 1, 2, 3), keepdim=True))

    with pytest.raises(InputError):
        convert(Whitened(lambda h: h), images(20))


def test_the_room_needs_torch_and_what_is_always_there():
    extras = ("triton", "onnxruntime", "nir", "h5py", "onnx", "torchvision", "tensorboard")
    code = f"""
import sys
for name in {extras}:
    sys.modules[name] = None
import axonal.convert
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)

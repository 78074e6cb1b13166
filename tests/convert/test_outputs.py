"""Several outputs, regressions and no labels, each with a certificate that fits."""

import pytest
import torch
from torch import nn

from axonal.convert import Certificate, checkpoint, convert
from axonal.convert.outputs import leaves, side_by_side
from axonal.core.errors import InputError
from axonal.deploy.certify import certify


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.boxes = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.scores, self.count = nn.Linear(96, 2), nn.Linear(96, 1)

    def forward(self, x):
        y = torch.relu(self.body(x))
        flat = y.flatten(1)
        return {"boxes": [self.boxes(y)], "seen": (self.scores(flat), self.count(flat).squeeze(1))}


@pytest.fixture
def detector():
    torch.manual_seed(0)
    return Detector().eval(), torch.randn(60, 1, 4, 4)


NAMES = ["boxes.0", "seen.0", "seen.1"]


@torch.no_grad()
def test_a_network_of_several_outputs_answers_in_its_own_form(detector):
    model, x = detector
    network, certificate = convert(model, x)
    answer, expected = network.answer(x), model(x)
    assert [*answer] == ["boxes", "seen"] and isinstance(answer["boxes"], list)
    assert isinstance(answer["seen"], tuple)
    assert [*certificate.outputs] == NAMES == [*leaves(answer)]
    for name, value in leaves(expected).items():
        ours = leaves(answer)[name]
        assert ours.shape == value.shape
        assert float((ours - value).norm() / value.norm()) < 0.05
        assert 0 < certificate.outputs[name] < 0.05
    assert "of its outputs boxes.0 by 0." in str(certificate)
    assert Certificate.from_dict(certificate.to_dict()) == certificate


@torch.no_grad()
def test_it_is_saved_and_runs_in_the_engine(detector, tmp_path):
    model, x = detector
    network, certificate = convert(model, x)
    again, _ = checkpoint.load(model, checkpoint.save(network, certificate, tmp_path))
    same = leaves(again.answer(x))
    assert all(torch.equal(value, same[name]) for name, value in leaves(network.answer(x)).items())
    assert certify(network, network.fed(x[:2]).contiguous()).share == 1.0


@torch.no_grad()
def test_a_stream_of_several_outputs(detector):
    model, x = detector
    network, _ = convert(model, x, method="sigma-delta", T=4)
    frames = x[:8].unflatten(0, (2, 4)).transpose(0, 1)
    y, _ = network(frames, network.start(batch=2))
    values = leaves(network.returns.split(y))
    for name, value in leaves(model(x[:8])).items():
        stream = value.unflatten(0, (2, 4)).transpose(0, 1)
        assert values[name].shape == stream.shape
        assert float((values[name] - stream).norm() / stream.norm()) < 0.2


@torch.no_grad()
def test_targets_are_scored_by_their_squared_error(detector):
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2)), torch.randn(400, 3)
    noise = 0.1 * torch.randn(400, 2)
    _, certificate = convert(model, (x, model(x) + noise), held_out=(x, model(x) + noise))
    assert certificate.score == "mean squared error"
    assert certificate.before[0] == pytest.approx(float(noise.square().mean()))
    low, high = certificate.change[1:]
    assert low <= certificate.change[0] <= high and abs(certificate.change[0]) < 1e-4
    assert "mean squared error 0.0" in str(certificate) and "right answers" not in str(certificate)
    model, x = detector
    _, certificate = convert(model, (x, model(x)))
    assert certificate.before[0] < 1e-12 < certificate.after[0]


@torch.no_grad()
def test_without_labels_nothing_is_right_or_wrong(detector):
    model, x = detector
    _, certificate = convert(model, x)
    assert certificate.before is certificate.after is certificate.change is None


def test_targets_that_do_not_fit(detector):
    model, x = detector
    for targets, message in [
        (torch.randn(60, 2), r"targets \[2\] for outputs \[67\]"),
        (torch.randn(59, 67), r"must be finite numbers for 60 samples"),
        (torch.full((60, 67), torch.nan), "must be finite numbers"),
        (torch.randn(60, 67), "mean squared error is .* that of the targets' mean"),
    ]:
        with pytest.raises(InputError, match=message):
            convert(model, (x, targets))


class Odd(nn.Module):
    def __init__(self, extra):
        super().__init__()
        self.layer, self.extra = nn.Linear(2, 2), extra

    def forward(self, x):
        return self.layer(x).relu(), self.extra


@pytest.mark.parametrize("extra", [None, 3, "text"])
def test_what_is_no_tensor_is_refused_by_name(extra):
    with pytest.raises(InputError, match=r"must return tensors, and returns .*'1'"):
        convert(Odd(extra), torch.randn(9, 2))


def test_tensors_of_other_samples_are_refused():
    with pytest.raises(InputError, match="no tensors of the same samples"):
        side_by_side([torch.zeros(2, 1), torch.zeros(3, 1)])

from functools import partial

import pytest
import torch

from axonal.convert.methods.sigma_delta import sigma_delta
from axonal.learn.losses import cross_entropy, distilled_changes, flow_matching
from axonal.models.flow import FlowConfig, FlowUNet
from axonal.nn.meter import Meter

LABEL = torch.tensor([0, 2, 1])
THRESHOLD = 0.05


def network(seed=0):
    torch.manual_seed(seed)
    model = FlowUNet(FlowConfig(size=8, patch=1, widths=(4, 8), depths=(1, 1), classes=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def trajectory(steps=4, seed=1):
    """{"path" [B, T + 1, 1, 8, 8], "label" [B]}: straight lines from noise to an image."""
    generator = torch.Generator().manual_seed(seed)
    noise, image = (torch.randn(3, 1, 1, 8, 8, generator=generator) for _ in range(2))
    t = torch.linspace(0, 1, steps + 1)[None, :, None, None, None]
    return {"path": (1 - t) * noise + t * image / 3, "label": LABEL}


def unfold(model, threshold=THRESHOLD):
    twin = sigma_delta(model, torch.zeros(3, 1, 8, 8), LABEL)
    twin.set_thresholds(dict.fromkeys(twin.neurons, threshold))
    return twin


def straight(x, t, label):
    """A teacher that goes to a grey image in steps of a quarter."""
    return x + (0.1 - x) / (4 * (1 - t))


def distilled(penalty=0.0, threshold=THRESHOLD, teacher=None, steps=4):
    def shrink(t):
        return 1 - t / 2

    make = partial(unfold, threshold=threshold)
    return distilled_changes(make, shrink, penalty, steps, teacher)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_perfect_estimate_has_no_loss():
    image = torch.randn(3, 1, 8, 8, generator=generator())
    loss, _ = flow_matching()(lambda x, label: image, {"image": image, "label": LABEL}, generator())
    assert loss == 0


def test_the_loss_is_the_error_of_the_velocity():
    image, seen = torch.zeros(4000, 1, 1, 1), []

    def estimate(x, label):
        seen.append(x)
        return torch.ones_like(x)

    loss, _ = flow_matching(clip=0.05)(estimate, {"image": image, "label": LABEL}, generator())
    # t is logit-normal, so E[(1 - t)^-2] = E[(1 + e^z)^2] = 1 + 2 e^(1/2) + e^2.
    assert loss.item() == pytest.approx(1 + 2 * 2.71828**0.5 + 2.71828**2, rel=0.2)
    # x_t = (1 - t) x0, since the image is zero.
    assert seen[0].mean().abs() < 0.05 and 0.3 < seen[0].std() < 0.7


def test_the_clip_bounds_the_weight():
    image = torch.zeros(4000, 1, 1, 1)
    batch = {"image": image, "label": LABEL}
    loss, _ = flow_matching(clip=1.0)(lambda x, label: torch.ones_like(x), batch, generator())
    assert loss == 1


def test_the_generator_alone_decides_the_noise():
    batch = {"image": torch.zeros(3, 1, 8, 8), "label": LABEL}
    model = network()
    losses = [flow_matching()(model, batch, generator(seed))[0].item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


@torch.no_grad()
def test_work_is_the_events_times_their_synapses():
    model, batch = network(), trajectory()
    _, figures = distilled()(model, batch, generator())
    twin, path = unfold(model), batch["path"].transpose(0, 1)
    state, fanouts, sites = twin.start(LABEL), twin.fanouts(), twin.sites()
    with Meter(twin, "events", batch_dim=1) as meter:
        for i in range(4):
            _, state = twin(path[i : i + 1], state, 1 - i / 8)
    counts = meter.counts()
    sent = counts.by_layer("spikes")
    rows = {name: "encoder" if name == "input" else f"delta.{name}" for name in fanouts}
    dense = sum(fanouts[name] * sites[name] for name in fanouts)
    expected = sum(fanouts[name] * sent[row] for name, row in rows.items()) / dense
    assert figures["work"].item() == pytest.approx(expected, rel=1e-5)
    # A population's mean fan-out stands for each of its places.
    assert figures["work"].item() == pytest.approx(counts.total("synops") / dense, rel=0.05)


@torch.no_grad()
def test_a_dense_evaluation_is_the_unit_of_work():
    model, batch = network(), trajectory(steps=1)
    with Meter(model) as meter:
        model(torch.zeros(3, 1, 8, 8), LABEL)
    twin = unfold(model)
    fanouts, sites = twin.fanouts(), twin.sites()
    dense = sum(fanouts[name] * sites[name] for name in fanouts)
    assert dense == pytest.approx(meter.counts().total("synops"))
    # Without thresholds a step sends all that moved: at most every value, at least the input.
    _, figures = distilled(threshold=0.0, steps=1)(model, batch, generator())
    assert 64 * fanouts["input"] / dense <= figures["work"] <= 1


@torch.no_grad()
def test_the_distance_is_that_of_the_dense_velocity_without_thresholds():
    model, batch = network(), trajectory()
    loss, figures = distilled(threshold=0.0)(model, batch, generator())
    path, expected = batch["path"].transpose(0, 1), 0.0
    for i in range(4):
        velocity = (model(path[i], LABEL) - path[i]) / (1 - i / 4)
        expected += float((velocity - (path[i + 1] - path[i]) * 4).square().mean()) / 4
    assert loss.item() == figures["distance"].item() == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_a_teacher_leads_from_where_the_network_went():
    model, batch = network(), trajectory()
    loss, _ = distilled(threshold=0.0, teacher=straight)(model, batch, generator())
    x, expected = batch["path"][:, 0], 0.0
    for i in range(4):
        velocity = (model(x, LABEL) - x) / (1 - i / 4)
        expected += float((velocity - (straight(x, i / 4, LABEL) - x) * 4).square().mean()) / 4
        x = x + velocity / 4
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    noise = {"path": batch["path"][:, :1], "label": LABEL}
    assert distilled(threshold=0.0, teacher=straight)(model, noise, generator())[0] == loss


@pytest.mark.parametrize("teacher", [None, straight])
def test_gradients_reach_every_weight(teacher):
    loss, model = distilled(penalty=0.1, threshold=1e-3, teacher=teacher), network()
    loss(model, trajectory(), generator())[0].backward()
    lost = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not lost and all(p.grad.isfinite().all() for p in model.parameters())


def trained(penalty, steps=12):
    """The loss's figures before each of a few steps of plain gradient descent."""
    model, loss, batch, rows = network(), distilled(penalty), trajectory(), []
    for _ in range(steps):
        value, figures = loss(model, batch, generator())
        rows.append({name: float(figure) for name, figure in figures.items()})
        model.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * parameter.grad
    return rows


def test_the_penalty_lowers_work_and_distillation_the_distance():
    near, quiet = trained(0.0), trained(30.0)
    assert near[-1]["distance"] < near[0]["distance"]
    assert quiet[-1]["work"] < quiet[0]["work"]
    assert quiet[-1]["work"] < near[-1]["work"]


def test_the_twin_is_unfolded_once_for_each_network():
    unfolded = []

    def counting(model):
        unfolded.append(model)
        return unfold(model)

    loss, one, other = distilled_changes(counting, lambda t: 1.0, 0.0, 4), network(), network(1)
    for model in (one, one, other, one):
        loss(model, trajectory(), generator())
    assert unfolded == [one, other]


class Seeing(torch.nn.Module):
    """Keeps the images that it is shown."""

    def forward(self, x):
        self.seen = x
        return torch.zeros(len(x), 2)


def shown(seed=0, count=400, training=True, **options):
    """What a network is shown of one image many times, and that image."""
    image = torch.rand(2, 5, 5, generator=generator(9))
    network = Seeing().train(training)
    batch = {"image": image.expand(count, 2, 5, 5), "label": torch.zeros(count, dtype=torch.long)}
    cross_entropy(**options)(network, batch, generator(seed))
    return network.seen, image


def test_every_other_image_is_mirrored():
    seen, image = shown(flip=True)
    mirrored = (seen == image.flip(-1)).flatten(1).all(1)
    plain = (seen == image).flatten(1).all(1)
    assert (mirrored ^ plain).all() and 150 < mirrored.sum() < 250


def test_the_generator_alone_decides_which_are_mirrored():
    one, two, other = (shown(seed, flip=True)[0] for seed in (0, 0, 1))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_shifted_images_are_mirrored_too():
    seen, image = shown(flip=True, shift=1)
    kinds = {tuple(x.flatten().tolist()) for x in seen}
    assert len(kinds) == 18  # nine moves of either
    moved, _ = shown(shift=1)
    moves = {tuple(x.flatten().tolist()) for x in moved}
    mirrored = {tuple(x.flip(-1).flatten().tolist()) for x in moved}
    assert kinds == moves | mirrored and tuple(image.flatten().tolist()) in moves


def test_images_are_shown_as_they_are_without_training():
    seen, image = shown(flip=True, shift=2, training=False)
    assert (seen == image).all()
    assert (shown()[0] == image).all()

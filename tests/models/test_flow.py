import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.models.flow import FlowConfig, FlowUNet


def network(seed=0, **sizes) -> FlowUNet:
    """A network whose zero-initialised ends are filled, so that every weight matters."""
    torch.manual_seed(seed)
    model = FlowUNet(FlowConfig(**{"widths": (8, 16), "depths": (1, 1), "size": 8} | sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model.eval()


@settings(max_examples=15)
@given(
    widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    depth=st.integers(0, 2),
    channels=st.integers(1, 3),
    patch=st.integers(1, 2),
    batch=st.integers(1, 3),
)
def test_every_small_shape_comes_back(widths, depth, channels, patch, batch):
    size = patch * 2 ** len(widths)
    model = network(
        widths=tuple(widths),
        depths=(depth,) * len(widths),
        channels=channels,
        patch=patch,
        size=size,
    )
    x = torch.randn(batch, channels, size, size)
    with torch.no_grad():
        y = model(x, torch.zeros(batch, dtype=torch.long))
    assert y.shape == x.shape and y.isfinite().all()


def test_images_of_a_batch_do_not_meet():
    model, x, label = network(), torch.randn(4, 1, 8, 8), torch.tensor([3, 1, 4, 1])
    with torch.no_grad():
        together = model(x, label)
        apart = torch.cat([model(x[i : i + 1], label[i : i + 1]) for i in range(4)])
        turned = model(x.flip(0), label.flip(0)).flip(0)
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(together, turned)


def test_the_label_and_the_image_matter():
    model, x = network(), torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        outputs = [model(x, torch.tensor([label])) for label in range(10)]
        moved = model(x + 0.1, torch.tensor([0]))
    assert all(not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])
    assert not torch.equal(outputs[0], moved)


def test_every_parameter_gets_a_gradient():
    model = network().train()
    label = torch.arange(10)
    model(torch.randn(10, 1, 8, 8), label).square().mean().backward()
    lost = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not lost


def test_blocks_start_without_looking_at_the_image():
    torch.manual_seed(0)
    model = FlowUNet(FlowConfig(widths=(8,), depths=(2,), size=8))
    x, label = torch.randn(2, 8, 4, 4), torch.tensor([0, 9])
    for block in model.middle:
        bias = block.conv2.bias[None, :, None, None]
        torch.testing.assert_close(block(x, label), x + bias)


@pytest.mark.parametrize("label", [10, -1])
def test_labels_outside_the_classes_are_refused(label):
    with pytest.raises(IndexError):
        network()(torch.randn(1, 1, 8, 8), torch.tensor([label]))


def test_a_saved_network_paints_the_same(tmp_path):
    model = network()
    back = FlowUNet.load(model.save(tmp_path))
    x, label = torch.randn(2, 1, 8, 8), torch.tensor([0, 5])
    with torch.no_grad():
        assert torch.equal(model(x, label), back(x, label))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"widths": (8,)}, "1 widths but 2 depths"),
        ({"widths": (), "depths": ()}, "0 widths"),
        ({"widths": (8, 0)}, "every size must be at least 1"),
        ({"channels": 0}, "every size must be at least 1"),
        ({"classes": 0}, "every size must be at least 1"),
        ({"patch": 0}, "every size must be at least 1|not a multiple"),
        ({"size": 30}, "size 30 is not a multiple of 4"),
        ({"depths": (1, -1)}, "depths must be at least 0"),
        ({"levels": 0}, "levels 1"),
        ({"core": "lif"}, "core 'lif' is not 'relu' or 'spiking'"),
    ],
)
def test_sizes_without_meaning_are_refused(sizes, message):
    with pytest.raises(InputError, match=message):
        FlowConfig(**sizes)

"""The classifiers that are converted: shapes, what they keep apart, and what they refuse."""

import json

import pytest
import torch
from torch import nn

from axonal.core.errors import FileError, InputError
from axonal.models.base import CONFIG
from axonal.models.resnet import ResNet, ResNetConfig
from axonal.models.vgg import VGG, VGGConfig
from axonal.models.vit import ViT, ViTConfig
from axonal.nn import QCFS

SMALL = {
    "vgg": lambda **o: VGG(VGGConfig(**{"size": 12, "widths": (4, 6), "classes": 7} | o)),
    "resnet": lambda **o: ResNet(ResNetConfig(**{"widths": (4, 6), "classes": 7} | o)),
    "vit": lambda **o: ViT(ViTConfig(**{"size": 12, "width": 8, "depth": 2, "classes": 7} | o)),
}


def images(count=5, channels=3):
    return torch.rand(count, channels, 12, 12) * 2 - 1


@pytest.fixture(params=SMALL)
def kind(request):
    return SMALL[request.param]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_become_logits(kind, channels):
    assert kind(channels=channels)(images(5, channels)).shape == (5, 7)


def test_an_image_is_judged_by_itself(kind):
    network, x = kind().eval(), images()
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]), rtol=1e-4, atol=1e-5)


def test_every_weight_learns(kind):
    network = kind()
    network(images()).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_they_come_back_from_files(kind, tmp_path):
    network, x = kind().eval(), images()
    again = type(network).load(network.save(tmp_path))
    torch.testing.assert_close(again(x), network(x))
    assert again.config == network.config


@pytest.mark.parametrize("name", ["vgg", "resnet"])
def test_levels_take_the_place_of_rectifiers(name, tmp_path):
    plain, quantised = SMALL[name](), SMALL[name](levels=4)
    count = sum(isinstance(m, nn.ReLU) for m in plain.modules())
    activations = [m for m in quantised.modules() if isinstance(m, QCFS)]
    assert len(activations) == count > 0 and all(m.levels == 4 for m in activations)
    missing, unexpected = quantised.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all(name.endswith("ceiling") for name in missing)
    again = type(quantised).load(quantised.save(tmp_path))
    assert sum(isinstance(m, QCFS) for m in again.modules()) == count


def test_a_vgg_has_so_many_convolutions():
    network = VGG(VGGConfig(channels=1, size=28, widths=(4, 5, 6), convolutions=3))
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 9
    assert network.head.in_features == 6 * 3 * 3  # 28 -> 14 -> 7 -> 3


def test_a_resnet_18_has_so_many_layers():
    network = ResNet(ResNetConfig())
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    shortcuts = [m for m in layers if getattr(m, "kernel_size", 0) == (1, 1)]
    assert len(layers) - len(shortcuts) == 18 and len(shortcuts) == 3


def test_a_block_without_weights_hands_on_its_input():
    block = SMALL["resnet"]().eval().stages[0]
    nn.init.zeros_(block.second[0].weight)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(x), x.relu())


def test_attention_is_that_of_torch():
    block = SMALL["vit"]().blocks[0].attention
    reference = nn.MultiheadAttention(8, 4, batch_first=True)
    parts = (block.query, block.key, block.value)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        reference.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        reference.out_proj.load_state_dict(block.out.state_dict())
    x = torch.randn(2, 9, 8)
    torch.testing.assert_close(block(x), reference(x, x, x)[0])


def test_a_vit_reads_patches_where_they_are():
    network, x = SMALL["vit"]().eval(), images(1)
    moved = x.roll(4, -1)  # by a patch
    tokens = [network.patches(image).flatten(2).transpose(1, 2) for image in (x, moved)]
    torch.testing.assert_close(tokens[1], tokens[0].reshape(1, 3, 3, 8).roll(1, 2).flatten(1, 2))
    assert not torch.allclose(network(x), network(moved), atol=1e-6)
    nn.init.zeros_(network.places)
    torch.testing.assert_close(network(x), network(moved), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (VGGConfig, {"channels": 0}),
        (VGGConfig, {"widths": (4, 0)}),
        (VGGConfig, {"convolutions": 0}),
        (VGGConfig, {"levels": -1}),
        (VGGConfig, {"size": 7, "widths": (4, 4, 4)}),
        (VGGConfig, {"size": 0}),
        (ResNetConfig, {"classes": 0}),
        (ResNetConfig, {"blocks": 0}),
        (ResNetConfig, {"levels": -1}),
        (ResNetConfig, {"widths": ()}),
        (ViTConfig, {"depth": 0}),
        (ViTConfig, {"size": 30}),
        (ViTConfig, {"width": 90}),
        (ViTConfig, {"spread": 0}),
    ],
    ids=str,
)
def test_configurations_without_meaning_are_refused(config, wrong):
    with pytest.raises(InputError, match=config.__name__):
        config(**wrong)


@pytest.mark.parametrize("widths", [[], [4, -1], 5, "46", None])
def test_configurations_in_files_are_checked(widths, kind, tmp_path):
    network = kind()
    if isinstance(network, ViT):
        return
    network.save(tmp_path)
    table = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(table | {"widths": widths}))
    with pytest.raises(FileError):
        type(network).load(tmp_path)

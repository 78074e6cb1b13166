import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from axonal.core.errors import FileError, InputError
from axonal.models.spiking import SpikingClassifier, SpikingConfig

SMALL = SpikingConfig(shape=(1, 8, 8), layers=("3c5s2", "4c3s2", "6"), classes=3, steps=10)


def test_pixels_send_spikes_evenly_at_their_rate():
    model = SpikingClassifier(SMALL)
    image = torch.full((1, 1, 8, 8), -1.0)
    image[0, 0, 0, :2] = torch.tensor([1.0, 0.0])
    spikes = model.encode(image)
    assert spikes.shape == (10, 1, 1, 8, 8)
    assert spikes[:, 0, 0, 0, 0].tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]  # every fourth
    assert spikes[:, 0, 0, 0, 1].sum() == 1 and spikes.sum() == 3


def test_saved_is_the_same_and_samples_do_not_mix(tmp_path):
    torch.manual_seed(0)
    model = SpikingClassifier(SMALL).eval()
    image = torch.rand(3, 1, 8, 8) * 2 - 1
    logits = model(image)
    again = SpikingClassifier.load(model.save(tmp_path))
    torch.testing.assert_close(again(image), logits)
    torch.testing.assert_close(again(image[1:2]), logits[1:2])
    assert logits.abs().sum() > 0


@pytest.mark.parametrize(
    "values",
    [{"steps": 0}, {"layers": ("3d",)}, {"layers": ("5", "3c3")}, {"rate": 0.0}, {"shape": (0,)}],
)
def test_sizes_that_make_no_sense_are_refused(values):
    with pytest.raises(InputError):
        SpikingConfig(**values)


def test_an_image_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"\[1, 1, 9, 9\] is no batch of shape \(1, 8, 8\)"):
        SpikingClassifier(SMALL)(torch.zeros(1, 1, 9, 9))


@pytest.mark.parametrize(
    "values",
    [
        {"layers": ("3c3p2", "4c3", "6", "5r"), "norm": True, "dropout": 0.5, "readout": 0.9},
        {"layers": ("6r",), "adaptive": True, "learn": ("decay", "rho"), "coding": "constant"},
        {"layers": ("6",), "shape": (5,), "coding": "events"},
        {"layers": ("3c5s2",), "shape": (2, 9, 7), "coding": "events"},
    ],
    ids=str,
)
def test_every_kind_of_layer_runs_trains_and_comes_back(values, tmp_path):
    torch.manual_seed(0)
    config = SpikingConfig(**{"shape": (1, 8, 8), "classes": 3, "steps": 4} | values)
    model = SpikingClassifier(config)
    steps = (4,) if config.coding == "events" else ()
    x = torch.rand(3, *steps, *config.shape) * 4
    model(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    learned = [n for n, _ in model.named_parameters() if n.endswith(("decay", "rho"))]
    assert len(learned) == len(config.learn)
    again = SpikingClassifier.load(model.eval().save(tmp_path))
    torch.testing.assert_close(again(x), model(x))
    y, _ = model.network(model.encode(x))
    half, middle = model.network(model.encode(x)[:2])
    rest, _ = model.network(model.encode(x)[2:], middle)
    torch.testing.assert_close(torch.cat([half, rest]), y)


def test_a_folder_with_the_names_of_before_is_read(tmp_path):
    torch.manual_seed(0)
    options = {"shape": (5,), "layers": ("6", "4r"), "coding": "events", "adaptive": True}
    learn = ("decay", "rho", "beta")
    model = SpikingClassifier(SpikingConfig(**options, rho=0.8, beta=0.4, learn=learn))
    folder = model.save(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"fade": config.pop("rho"), "rise": config.pop("beta")}
    config["learn"] = ["decay", "fade", "rise"]
    (folder / "config.json").write_text(json.dumps(config))
    names = {"rho": "fade", "beta": "rise"}
    tensors = {
        re.sub(r"(rho|beta)$", lambda match: names[match[0]], name): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    assert sum(name.endswith(("fade", "rise")) for name in tensors) == 4
    save_file(tensors, folder / "model.safetensors")
    loaded, x = SpikingClassifier.load(folder), torch.rand(3, 6, 5) * 4
    assert loaded.config == model.config
    torch.testing.assert_close(loaded(x), model.eval()(x))
    (folder / "config.json").write_text(json.dumps({**config, "couple": 1.0}))
    with pytest.raises(FileError, match="unknown field 'couple'"):
        SpikingClassifier.load(folder)


def test_a_constant_image_meets_the_first_weights_once():
    torch.manual_seed(0)
    model = SpikingClassifier(SpikingConfig(layers=("4c3", "5"), coding="constant", steps=6))
    image, calls = torch.rand(2, 1, 28, 28), []
    model.network[0].register_forward_hook(lambda _, args, y: calls.append(len(y)))
    logits = model(image)
    assert calls == [2]
    shown = model.network(model.encode(image).contiguous())[0].sum(0)
    assert calls == [2, 12]
    torch.testing.assert_close(logits, shown)

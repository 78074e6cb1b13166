import json
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from axonal.core.config import Config
from axonal.core.errors import FileError, InputError
from axonal.models.base import CONFIG, WEIGHTS, Model


@dataclass(frozen=True, kw_only=True)
class TinyConfig(Config):
    width: int = 3
    rates: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        if self.width < 1:
            raise InputError("TinyConfig: width must be at least 1")


class Tiny(Model):
    Config = TinyConfig

    def __init__(self, config: TinyConfig):
        super().__init__(config)
        self.line = nn.Linear(2, config.width)
        self.norm = nn.BatchNorm1d(config.width)

    def forward(self, x):
        return self.norm(self.line(x))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return Tiny(TinyConfig(width=4, rates=(3, 4, 5)))


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_model_comes_back_as_it_was_saved(tiny, tmp_path):
    tiny(torch.randn(8, 2))  # moves the running statistics
    folder = tiny.save(tmp_path / "new" / "folder")
    back = Tiny.load(str(folder))
    assert back.config == tiny.config and same(back, tiny) and not back.training
    assert sorted(p.name for p in folder.iterdir()) == [CONFIG, WEIGHTS]
    x = torch.randn(5, 2)
    assert torch.equal(back(x), tiny.eval()(x))


def test_half_precision_on_disk_is_float32_in_memory(tiny, tmp_path):
    back = Tiny.load(tiny.save(tmp_path, torch.float16))
    assert back.line.weight.dtype == torch.float32
    assert torch.equal(back.line.weight, tiny.line.weight.half().float())


def test_saving_again_replaces(tiny, tmp_path):
    tiny.save(tmp_path)
    other = Tiny(TinyConfig(width=2))
    assert same(Tiny.load(other.save(tmp_path)), other)


def test_what_can_not_be_written_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"can't write .*free space or choose another folder"):
        tiny.save(tmp_path / "file")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_missing_files_are_named(tiny, tmp_path, name):
    (tiny.save(tmp_path) / name).unlink()
    with pytest.raises(FileError, match=r"can't load a Tiny from .*; fetch or train it again"):
        Tiny.load(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("", "can't load a Tiny"),
        ("[1]", "not a table"),
        ('{"width": 4, "depth": 1}', "unknown field 'depth'.*another version of Axonal"),
        ('{"width": 0}', "width must be at least 1"),
        ('{"width": 4.5}', "can't load a Tiny"),
        ('{"width": "4"}', "can't load a Tiny"),
        ('{"width": null}', "can't load a Tiny"),
        ('{"width": 5}', "line.bias is .4,. where the model needs .5,."),
        ('{"width": 1152921504606846976}', "can't load a Tiny"),
        ('{"width": 1e400}', "can't load a Tiny"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(tiny, tmp_path, config, message):
    (tiny.save(tmp_path) / CONFIG).write_text(config)
    with pytest.raises(FileError, match=message):
        Tiny.load(tmp_path)


def test_weights_of_another_network_are_refused(tiny, tmp_path):
    tiny.extra = nn.Linear(1, 1)
    tiny.save(tmp_path)
    with pytest.raises(FileError, match=r"extra.bias is \(1,\) where the model needs None"):
        Tiny.load(tmp_path)


def load_or_refuse(folder):
    try:
        return Tiny.load(folder)
    except FileError:
        return None


@given(st.sampled_from([CONFIG, WEIGHTS]), st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_refused(tiny, tmp_path, name, part):
    path = tiny.save(tmp_path) / name
    content = path.read_bytes().rstrip()
    path.write_bytes(content[: int(part * len(content))])
    assert load_or_refuse(tmp_path) is None


@settings(max_examples=100)
@given(st.sampled_from([CONFIG, WEIGHTS]), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_flipped_bits_load_or_are_refused(tiny, tmp_path, name, part, bit):
    path = tiny.save(tmp_path) / name
    content = bytearray(path.read_bytes())
    content[int(part * len(content))] ^= 1 << bit
    path.write_bytes(content)
    load_or_refuse(tmp_path)


@given(st.binary(max_size=100), st.sampled_from([CONFIG, WEIGHTS]))
def test_random_files_are_refused(tiny, tmp_path, content, name):
    (tiny.save(tmp_path) / name).write_bytes(content)
    assert load_or_refuse(tmp_path) is None


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-5, 5)
        | st.integers(2**60)
        | st.floats()
        | st.text(),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )
)
def test_any_value_of_a_field_loads_or_is_refused(tiny, tmp_path, value):
    (tiny.save(tmp_path) / CONFIG).write_text(json.dumps({"width": value}))
    load_or_refuse(tmp_path)

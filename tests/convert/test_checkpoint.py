"""Conversions in folders: the same comes back, or an error that says so."""

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from axonal.convert import convert, load, save
from axonal.convert.checkpoint import CERTIFICATE, PLAN, TENSORS
from axonal.core.errors import FileError

WAYS = {
    "graded": ("residual", {}),
    "qcfs": ("pooled", {}),
    "corrected": ("leaky", {}),
    "balanced": ("plain", {"rounds": 5}),
    "transformer": ("transformer", {}),
}


@pytest.mark.parametrize("method", WAYS)
def test_the_same_network_comes_back(method, network, images, tmp_path):
    kind, options = WAYS[method]
    model = network(kind)
    spiking, certificate = convert(model, images(20), method=method, T=5, **options)
    folder = save(spiking, certificate, tmp_path / "made" / "here")
    again, written = load(network(kind), folder)
    assert written == certificate and again.plan.schedule == spiking.plan.schedule
    x = images(4, seed=2)
    assert torch.equal(again.answer(x), spiking.answer(x))
    assert (again.latency, again.delay) == (spiking.latency, spiking.delay)
    assert again.plan.units == spiking.plan.units and spiking.plan.units
    for name, population in spiking.plan.populations.items():
        other = again.plan.populations[name]
        assert torch.equal(other.threshold, population.threshold)
        assert (other.levels, other.slope, other.emit) == (
            population.levels,
            population.slope,
            population.emit,
        )


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a small conversion, its files, and what the network answers."""
    x = torch.randn(20, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    spiking, certificate = convert(small(), x, method="corrected", T=4)
    folder = save(spiking, certificate, tmp_path_factory.mktemp("written"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}, spiking.answer(x), x


def restored(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_what_is_written_is_text_and_tensors(written):
    files, _, _ = written
    assert {*files} == {PLAN, TENSORS, CERTIFICATE}
    assert json.loads(files[PLAN])["populations"]["_1"] == {
        "levels": 1,
        "slope": 0.0,
        "emit": "integer",
    }


@pytest.mark.parametrize("name", [PLAN, TENSORS, CERTIFICATE])
@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.99])
def test_files_that_are_missing_or_short_are_errors(name, share, written, tmp_path):
    files = dict(written[0])
    folder = restored(tmp_path, files)
    (folder / name).unlink()
    if share is not None:
        (folder / name).write_bytes(files[name][: int(share * len(files[name]))])
    with pytest.raises(FileError, match=r"can't load a conversion from .*; convert again"):
        load(small(), folder)


def edited(change):
    def edit(folder):
        table = json.loads((folder / PLAN).read_text())
        change(table)
        (folder / PLAN).write_text(json.dumps(table))

    return edit


def tensors(change):
    def edit(folder):
        result = load_file(folder / TENSORS)
        change(result)
        save_file(result, folder / TENSORS)

    return edit


HOSTILE = {
    "a list": lambda folder: (folder / PLAN).write_text("[]"),
    "a number": lambda folder: (folder / PLAN).write_text("1"),
    "deep": lambda folder: (folder / PLAN).write_text("[" * 100_000),
    "bytes": lambda folder: (folder / PLAN).write_bytes(b"\xff\xfe\x00"),
    "a folder": lambda folder: ((folder / PLAN).unlink(), (folder / PLAN).mkdir()),
    "a certificate of nothing": lambda folder: (folder / CERTIFICATE).write_text("{}"),
    "no steps": edited(lambda t: t.pop("steps")),
    "steps without end": edited(lambda t: t.update(steps=10**12)),
    "steps of words": edited(lambda t: t.update(steps="4")),
    "an endless delay": edited(lambda t: t.update(delay=10**12)),
    "a shape without end": edited(lambda t: t.update(shape=[10**6, 10**6])),
    "a shape beyond integers": edited(lambda t: t.update(shape=[10**30])),
    "a shape of nothing": edited(lambda t: t.update(shape=[])),
    "another shape": edited(lambda t: t.update(shape=[1, 6, 6])),
    "a shape of words": edited(lambda t: t.update(shape="155")),
    "no list of units": edited(lambda t: t.update(units=[1.0])),
    "units of another input": edited(lambda t: t.update(units={"elsewhere": 0.5})),
    "a unit of 3": edited(lambda t: t["units"].update(dict.fromkeys(t["units"], 3.0))),
    "a unit of 0": edited(lambda t: t["units"].update(dict.fromkeys(t["units"], 0.0))),
    "a unit beyond numbers": edited(lambda t: t["units"].update(dict.fromkeys(t["units"], 1e300))),
    "another schedule": edited(lambda t: t.update(schedule="eval")),
    "populations in a list": edited(lambda t: t.update(populations=[1])),
    "no populations": edited(lambda t: t.update(populations={})),
    "others": edited(lambda t: t.update(populations={"x": t["populations"]["_1"]})),
    "unknown": edited(lambda t: t.update(code="import os")),
    "levels without end": edited(lambda t: t["populations"]["_1"].update(levels="9" * 99)),
    "an unknown spike": edited(lambda t: t["populations"]["_1"].update(emit="membrane")),
    "a steep slope": edited(lambda t: t["populations"]["_1"].update(slope=1e300)),
    "a threshold in the plan": edited(lambda t: t["populations"]["_1"].update(threshold=1)),
    "no threshold": tensors(lambda t: t.pop("_1.threshold")),
    "a threshold of 0": tensors(lambda t: t["_1.threshold"].zero_()),
    "a threshold of NaN": tensors(lambda t: t["_1.threshold"].fill_(float("nan"))),
    "no numbers": tensors(lambda t: t.update({"_1.threshold": torch.zeros(0)})),
    "integers": tensors(lambda t: t.update({"_1.threshold": torch.ones(2, 1, 1, dtype=int)})),
    "too many": tensors(lambda t: t.update({"_1.threshold": torch.ones(7, 1, 1)})),
    "of a batch": tensors(lambda t: t.update({"_1.threshold": torch.ones(5, 2, 1, 1)})),
    "another offset": tensors(lambda t: t.update({"_1.offset": torch.ones(9)})),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_errors(name, written, tmp_path):
    folder = restored(tmp_path, written[0])
    HOSTILE[name](folder)
    with pytest.raises(FileError, match="can't load a conversion from"):
        load(small(), folder)


@settings(max_examples=120)
@given(st.sampled_from([PLAN, TENSORS, CERTIFICATE]), st.integers(0, 10**6), st.data())
def test_any_byte_may_be_wrong(written, tmp_path, name, place, data):
    files, answer, x = written
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 4))):
        draw = random.Random(place)
        content[draw.randrange(len(content))] = data.draw(st.integers(0, 255))
        place += 1
    folder = restored(tmp_path, files | {name: bytes(content)})
    try:
        spiking, _ = load(small(), folder)
    except FileError:
        return
    result = spiking.answer(x)
    assert result.shape == answer.shape
    if files[PLAN] == (folder / PLAN).read_bytes() and name != TENSORS:
        assert torch.equal(result, answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=120)
@given(
    st.sampled_from(["method", "steps", "shape", "populations", "schedule", "delay", "units"]), JSON
)
def test_any_field_may_hold_anything(written, tmp_path, field, value):
    folder = restored(tmp_path, written[0])
    edited(lambda table: table.update({field: value}))(folder)
    try:
        spiking, _ = load(small(), folder)
    except FileError:
        return
    assert spiking.plan.steps + spiking.plan.delay < 10**5


@settings(max_examples=60)
@given(st.sampled_from(["levels", "slope", "emit", "offset", "threshold"]), JSON)
def test_a_population_may_hold_anything(written, tmp_path, field, value):
    folder = restored(tmp_path, written[0])
    edited(lambda table: table["populations"]["_1"].update({field: value}))(folder)
    try:
        load(small(), folder)
    except FileError:
        return


def test_another_network_is_an_error(written, tmp_path):
    folder = restored(tmp_path, written[0])
    other = nn.Sequential(nn.Flatten(), nn.Linear(25, 4), nn.Sigmoid(), nn.ReLU())
    with pytest.raises(FileError, match="convert again"):
        load(other, folder)


def test_a_folder_that_cannot_be_written_is_an_error(network, images, tmp_path):
    spiking, certificate = convert(small(), torch.randn(9, 1, 5, 5), T=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="can't write"):
        save(spiking, certificate, tmp_path / "file")

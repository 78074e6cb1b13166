"""Values seen in calibration: drawn by channel, kept in a folder, and gone on with."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from axonal.convert import activations
from axonal.convert.activations import BATCH, FILE, VALUES, observe, values_of
from axonal.convert.tracing import prepared, rectifiers
from axonal.core.errors import FileError, InputError


@pytest.fixture
def dense(network):
    return prepared(network("plain"))


def same(one, other):
    assert {*one} == {*other}
    for name, result in one.items():
        assert torch.equal(result.values, other[name].values)
        assert torch.equal(result.most, other[name].most) and result.dims == other[name].dims


@pytest.fixture
def runs(monkeypatch):
    """How many batches were run; set `limit` to be interrupted behind so many."""

    class Runs:
        done, limit = 0, 1000

    def counted(*inputs):
        if Runs.done == Runs.limit:
            raise KeyboardInterrupt
        Runs.done += 1
        return values_of(*inputs)

    monkeypatch.setattr(activations, "values_of", counted)
    return Runs


def test_values_are_those_of_the_network(dense, images):
    x = images(120)
    values, output = values_of(dense, ["_2", "_8"], x)
    assert torch.equal(output, dense(x)) and {*values} == {"_2", "_8"}
    result = observe(dense, ["_2", "_8"], x)
    assert (result["_2"].dims, result["_8"].dims) == (3, 1)
    torch.testing.assert_close(result["_2"].most, values["_2"].abs().amax((0, 2, 3)))
    torch.testing.assert_close(result["_8"].most, values["_8"].abs().max()[None])
    for channel in range(6):
        seen = result["_2"].values[channel]
        assert len(seen) >= VALUES and torch.isin(seen, values["_2"][:, channel]).all()
        spread = values["_2"][:, channel].std()
        assert abs(seen.mean() - values["_2"][:, channel].mean()) < 0.1 * spread


def test_names_of_nodes_are_taken_as_they_are(images):
    model = nn.Sequential()
    for name, part in {
        "input": nn.Flatten(),
        "output": nn.ReLU(),
        "last": nn.Linear(128, 2),
    }.items():
        model.add_module(name, part)
    dense, x = prepared(model), images(9)
    values, output = values_of(dense, [*rectifiers(dense)], x)
    torch.testing.assert_close(values["output"], x.flatten(1).relu())
    torch.testing.assert_close(output, model(x))


def test_numbers_of_channels_broadcast_to_a_sample(dense, images):
    result = observe(dense, ["_2", "_8"], images(9))
    shaped = result["_2"].shaped(torch.tensor([1.0, 2, 0, 4, 5, 6]))
    assert shaped.shape == (6, 1, 1) and shaped.flatten().tolist() == [1, 2, 6, 4, 5, 6]
    assert result["_8"].shaped(torch.tensor([3.0])) == 3
    assert result["_8"].shaped(torch.tensor([0.0])) > 0


@pytest.mark.parametrize("done", [1, 2, 4])
def test_an_interrupted_run_goes_on(done, dense, images, runs, tmp_path):
    x, names = images(4 * BATCH + 7), ["_2", "_8"]
    total = observe(dense, names, x)
    assert runs.done == 5
    runs.done, runs.limit = 0, done
    with pytest.raises(KeyboardInterrupt):
        observe(dense, names, x, tmp_path)
    runs.done, runs.limit = 0, 1000
    same(observe(dense, names, x, tmp_path), total)
    assert runs.done == 5 - done
    same(observe(dense, names, x, tmp_path), total)
    assert runs.done == 5 - done


def test_what_another_run_left_is_ignored(dense, images, network, runs, tmp_path):
    x = images(60)
    observe(dense, ["_2"], x, tmp_path)
    others = [
        (prepared(network("plain", seed=1)), ["_2"], x),
        (dense, ["_5"], x),
        (dense, ["_2"], images(60, seed=3)),
    ]
    for other in others:
        runs.done = 0
        same(observe(*other, tmp_path), observe(*other))
        assert runs.done == 4


DAMAGE = {
    "empty": lambda path, about: path.write_bytes(b""),
    "text": lambda path, about: path.write_text("no safetensors"),
    "short": lambda path, about: path.write_bytes(path.read_bytes()[:-100]),
    "no counter": lambda path, about: about.pop("batches"),
    "words": lambda path, about: about.update(batches="many"),
    "too many": lambda path, about: about.update(batches="1000000000"),
    "too few": lambda path, about: about.update(batches="-3"),
    "none": lambda path, about: about.update(batches="0"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_ignored(name, dense, images, tmp_path):
    x, path = images(60), tmp_path / FILE
    total = observe(dense, ["_2"], x, tmp_path)
    about = {"fingerprint": activations._fingerprint(dense, ["_2"], x), "batches": "2"}
    tensors = load_file(path)
    DAMAGE[name](path, about)
    if about.get("batches") != "2":
        save_file(tensors, path, about)
    same(observe(dense, ["_2"], x, tmp_path), total)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.pop("_2.most"),
        lambda t: t.pop("_2.values"),
        lambda t: t.update({"more": torch.zeros(1)}),
        lambda t: t.update({"_2.values": torch.zeros(6)}),
        lambda t: t.update({"_2.values": torch.zeros(6, 9)}),
    ],
    ids=["most", "values", "more", "one dimension", "another width"],
)
def test_files_of_other_tensors_are_ignored(damage, dense, images, tmp_path):
    x, path = images(60), tmp_path / FILE
    total = observe(dense, ["_2"], x, tmp_path)
    tensors = load_file(path)
    damage(tensors)
    about = {"fingerprint": activations._fingerprint(dense, ["_2"], x), "batches": "2"}
    save_file(tensors, path, about)
    same(observe(dense, ["_2"], x, tmp_path), total)


@settings(max_examples=30)
@given(st.integers(0, 2000), st.binary(min_size=1, max_size=40))
def test_whatever_stands_in_the_file_is_no_error(tmp_path, place, junk):
    torch.manual_seed(0)
    dense = prepared(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))
    x = torch.randn(60, 3)
    observe(dense, ["_1"], x, tmp_path)
    path = tmp_path / FILE
    content = path.read_bytes()
    place %= len(content)
    path.write_bytes(content[:place] + junk + content[place + len(junk) :])
    result = observe(dense, ["_1"], x, tmp_path)["_1"]
    assert result.values.shape[0] == 1
    path.unlink()


def test_a_folder_that_cannot_be_written_is_an_error(dense, images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="can't write"):
        observe(dense, ["_2"], images(9), tmp_path / "file" / "below")


def test_values_that_are_not_finite_are_an_error(dense, images):
    x = images(9)
    dense.get_submodule("4").weight.data[0] = float("inf")
    with pytest.raises(InputError, match="_5 is not finite in calibration"):
        observe(dense, ["_2", "_5"], x)


def test_weights_of_any_precision_have_a_fingerprint(dense, images):
    x = images(9)
    result = {activations._fingerprint(dense, ["_2"], x)}
    result |= {
        activations._fingerprint(dense.to(kind), ["_2"], x)
        for kind in (torch.float64, torch.bfloat16)
    }
    assert len(result) == 3

"""Networks by three kinds of names, and samples of files of any kind."""

import json
import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from axonal.commands import resolve
from axonal.commands.resolve import network, samples
from axonal.core.errors import AxonalError, FileError, InputError
from axonal.data import ASSETS
from axonal.data.images import Images
from axonal.models.base import WEIGHTS
from axonal.models.classifier import Classifier
from axonal.models.vgg import VGG, VGGConfig
from axonal.recipes.training import CARD


@pytest.fixture
def trained(tmp_path):
    """The folder of a run, in which the network lies."""
    torch.manual_seed(0)
    folder = VGG(VGGConfig(channels=1, size=4, widths=(2,), classes=3)).save(tmp_path / "run/model")
    (folder / CARD).write_text(json.dumps({"recipe": "mnist-vgg"}))
    return folder.parent


@pytest.fixture
def file(tmp_path):
    """Writes arrays to a .npz or a .safetensors."""

    def write(kind="npz", **arrays):
        path = tmp_path / f"data.{kind}"
        if kind == "npz":
            np.savez_compressed(path, **arrays)
        else:
            save_file({name: torch.as_tensor(a).contiguous() for name, a in arrays.items()}, path)
        return path

    return write


def test_a_shipped_classifier_answers_as_it_does():
    model, folder = network("mnist-classifier")
    x = torch.randn(3, 1, 28, 28)
    expected = Classifier.load(ASSETS / "mnist-classifier")(x)
    assert folder == ASSETS / "mnist-classifier" and torch.equal(model(x), expected)


def test_a_trained_network_goes_by_its_folder_or_that_of_its_run(trained):
    x = torch.randn(2, 1, 4, 4)
    expected = VGG.load(trained / "model")(x)
    for source in (trained, trained / "model"):
        model, folder = network(str(source))
        assert folder == trained / "model" and torch.equal(model(x), expected)


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    code = "from torch import nn\ndef build(): return nn.Linear(2, 3)\ndef none(): return 3\n"
    (tmp_path / "users_own.py").write_text(code)
    yield
    sys.modules.pop("users_own", None)


@pytest.mark.usefixtures("own")
def test_users_own_code_is_called():
    model, folder = network("users_own:build")
    assert isinstance(model, nn.Linear) and not model.training and folder is None
    for source, message in [
        ("users_own:none", "returns int"),
        ("users_own:nothing", "can't find users_own:nothing"),
        ("nowhere.at.all:build", "can't find nowhere"),
        (":build", "can't find :build"),
    ]:
        with pytest.raises(InputError, match=message):
            network(source)


def test_sources_that_are_no_network(trained, tmp_path):
    with pytest.raises(InputError, match=r"'vermeer' is no network; .*mnist-classifier"):
        network("vermeer")
    with pytest.raises(InputError, match="of the recipe 'mnist-spiking'"):
        network("mnist-spiking")
    for damage in ("{", "[]", '{"seed": 1}'):
        (trained / "model" / CARD).write_text(damage)
        with pytest.raises(FileError, match="can't read"):
            network(str(trained))
    (trained / "model" / CARD).write_text('{"recipe": ["mnist-vgg"]}')
    with pytest.raises(InputError, match="of the recipe"):
        network(str(trained))
    (trained / "model" / CARD).write_text('{"recipe": "mnist-vgg"}')
    (trained / "model" / WEIGHTS).write_bytes(b"\0" * 20)
    with pytest.raises(FileError, match="can't load a VGG"):
        network(str(trained))


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_samples_of_a_file_are_drawn_with_the_seed(file, kind):
    x = np.arange(40, dtype=np.float64).reshape(20, 2)
    data = str(file(kind, x=x, label=np.arange(20)))
    (a, la), (b, lb) = samples(data, [12, 8], seed=3)
    assert a.shape == (12, 2) and b.shape == (8, 2) and a.dtype == torch.float32
    assert sorted([*la.tolist(), *lb.tolist()]) == [*range(20)]
    assert torch.equal(a[:, 0], 2.0 * la) and la.tolist() != sorted(la.tolist())
    assert torch.equal(samples(data, [12, 8], seed=3)[0][0], a)
    assert not torch.equal(samples(data, [12, 8], seed=4)[0][0], a)
    ((ordered, _),) = samples(data, [5], stream=True)
    assert ordered[:, 0].tolist() == [0, 2, 4, 6, 8]


@given(rows=st.integers(1, 50), counts=st.lists(st.integers(-1, 40), min_size=1, max_size=3))
def test_sets_share_out_what_there_is(rows, counts):
    try:
        picks = resolve._picks(rows, counts, 0, False)
    except InputError:
        assert min(counts) < 1 or sum(counts) > rows
        return
    taken = np.concatenate(picks)
    assert len({*taken.tolist()}) == len(taken) <= rows
    if sum(counts) <= rows:
        assert [len(pick) for pick in picks] == counts


def test_data_sets_calibrate_with_training_images_and_check_with_test_images(monkeypatch):
    def digits(split):
        level = {"train": 0, "test": 255}[split]
        return Images(np.full((9, 1, 2, 2), level, np.uint8), np.arange(9))

    monkeypatch.setitem(resolve.DATASETS, "mnist", digits)
    (x, labels), (test, _) = samples("mnist", [4, 30])
    assert x.shape == (4, 1, 2, 2) and bool((x == -1).all()) and labels.dtype == torch.int64
    assert test.shape == (9, 1, 2, 2) and bool((test == 1).all())


X = np.ones((4, 3), np.float32)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": X}, "x is missing"),
        ({"x": X.astype(np.int64)}, "must be floating-point numbers"),
        ({"x": X[0]}, "must be floating-point numbers"),
        ({"x": X[:0]}, "it holds no samples"),
        ({"x": X.astype(np.uint8)}, r"holds bytes; scale them as in training"),
        ({"x": X * np.nan}, "NaN or infinity"),
        ({"x": X * np.float64(1e300)}, "NaN or infinity"),  # in float32
        ({"x": X, "label": np.arange(3)}, r"label is torch.int64 \[3\]"),
        ({"x": X, "label": X[:, 0]}, "must be integers"),
    ],
)
def test_arrays_of_another_form(file, kind, arrays, message):
    with pytest.raises(InputError, match=message):
        samples(str(file(kind, **arrays)), [2])


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@given(data=st.data())
def test_damaged_files(file, kind, data):
    path = file(kind, x=X, label=np.arange(4))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        ((x, _),) = samples(str(path), [4])
    except AxonalError:
        return
    assert x.dim() >= 2  # the damage was where it doesn't count, or is numbers like others


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


def test_no_pickle_is_loaded(file, tmp_path):
    with pytest.raises(FileError, match="can't read"):
        samples(str(file(x=np.array([Bomb(), Bomb()], object))), [1])
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FileError, match="can't read"):
        samples(str(tmp_path / "plain.npz"), [1])


def test_what_announces_more_than_it_holds_takes_no_memory(tmp_path, monkeypatch):
    path = tmp_path / "large.npz"
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }"
    head = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", head + bytes(100))
    with pytest.raises(FileError, match="can't read"):
        samples(str(path), [1])
    monkeypatch.setattr(resolve, "LARGEST", 1000)
    np.savez_compressed(path, x=np.zeros((100, 100), np.float32))  # small, and unpacks into much
    with pytest.raises(FileError, match=r"x\.npy announces 40,128 bytes"):
        samples(str(path), [1])


def test_other_names_are_no_data(tmp_path):
    for name in ("vermeer", "data.pt", str(tmp_path)):
        with pytest.raises(InputError, match=r"is no data; say mnist, cifar10, or a \.npz"):
            samples(name, [1])
    for name in ("missing.npz", "missing.safetensors"):
        with pytest.raises(FileError, match="there is no file"):
            samples(str(tmp_path / name), [1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pt", r"a\.pt is a pickle.*weights_only=True"),
        ("a.pth", "package.module:function"),
        ("a.pt2", "runs code when torch reads it"),
        ("a.safetensors", "has weights and no network"),
        ("a.py", "pass package.module:function, without"),
        ("folder", "has weights and no config.json"),
    ],
)
def test_files_of_networks_say_what_to_do_instead(name, message, tmp_path):
    path = tmp_path / name
    (path if path.suffix else path / "model.safetensors").parent.mkdir(exist_ok=True)
    (path if path.suffix else path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        network(str(path))
    for absent in ("no.pt", "no.onnx"):
        with pytest.raises(FileError, match="there is no file"):
            network(str(tmp_path / absent))


def test_a_folder_of_weights_and_settings_is_the_network_that_has_them(tmp_path):
    torch.manual_seed(0)
    model = VGG(VGGConfig(channels=1, size=4, widths=(2,), classes=3)).eval()
    model.save(tmp_path)
    read, folder = network(str(tmp_path))
    x = torch.randn(2, 1, 4, 4)
    assert folder == tmp_path and torch.equal(read(x), model(x))
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(InputError, match=r"holds \['BertModel'\], none of Classifier, VGG, .*ONNX"):
        network(str(tmp_path))


def test_no_samples_are_no_set():
    with pytest.raises(InputError, match=r"0 samples can't be drawn; --samples and --held-out"):
        samples("mnist", [0, 5])


def test_targets_of_a_file(file):
    x, target = np.zeros((9, 2)), np.arange(18.0).reshape(9, 2)
    ((_, drawn),) = samples(str(file(x=x, target=target)), [9], stream=True)
    assert torch.equal(drawn, torch.tensor(target, dtype=torch.float32))
    with pytest.raises(InputError, match=r"target is .* real numbers \[9, ...\]"):
        samples(str(file(x=x, target=target[:3])), [9])

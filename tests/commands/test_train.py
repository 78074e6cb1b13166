import pytest

from axonal.commands.train import train
from axonal.recipes import training


@pytest.fixture
def calls(monkeypatch):
    """The arguments that trainings are run with, in place of running them."""
    calls = []

    def run(name, out, *options):
        calls.append((name, out, *options[:-1]))
        with options[-1]("saving"):
            return out / "model"

    monkeypatch.setattr(training, "train", run)
    return calls


def test_a_training_runs_in_its_folder_and_its_network_is_named(calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = train("nmnist", None, 3, "cpu", False)
    assert said == f"Trained nmnist: the network and its card lie in {tmp_path}/runs/nmnist/model."
    train("nmnist", tmp_path / "run", 0, "cuda", True)
    [(_, first, *options), (_, second, *others)] = calls
    assert str(first) == "runs/nmnist" and options == [3, "cpu", False]
    assert second == tmp_path / "run" and others == [0, "cuda", True]


def test_of_several_processes_the_first_speaks(calls, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert train("nmnist", tmp_path, 0, "cpu", False) == ""
    monkeypatch.setenv("RANK", "0")
    assert "Trained nmnist" in train("nmnist", tmp_path, 0, "cpu", False)

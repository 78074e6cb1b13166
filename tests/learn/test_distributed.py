"""The same run in one process and in two, which run this file: `torchrun test_distributed.py`."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from axonal.core.errors import AxonalError, InputError
from axonal.core.neurons import Leaky
from axonal.learn.distributed import Processes
from axonal.learn.loop import CHECKPOINT, fit
from axonal.learn.recipe import Recipe
from axonal.nn import LIF, Neuron, Sequential


class Residual(nn.Module):
    """A list in a layer of a list."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x):
        return x + self.inner(x)


class Spiking(nn.Module):
    """With a scalar to learn, which FSDP does not split, and more rows than processes share."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        neuron = Neuron(Leaky(decay=0.9), learn=("decay",))
        layers = Residual(), nn.Linear(4, 7), neuron, nn.Linear(7, 3), LIF(), nn.Linear(3, 1)
        self.network = Sequential(*layers)

    def forward(self, x):
        return self.scale * self.network(x.expand(3, *x.shape))[0].mean(0)


def data():
    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(7))
    return {"x": x, "y": x.sum(1, keepdim=True)}


def squared(network, batch, generator):
    error = network(batch["x"]) - batch["y"]
    return error.square().mean(), {"mean": error.detach().mean()}


def recipe(**changes) -> Recipe:
    values = {"name": "tiny", "build": Spiking, "data": data, "loss": squared, "steps": 12}
    values |= {"batch": 4, "lr": 1e-2, "warmup": 3, "ema": 0.9, "compile": False, "patience": 9}
    values |= {"precision": "float32", "log_every": 1, "checkpoint_every": 3}
    held_out = {"x": data()["x"][:5], "y": data()["y"][:5]}  # one process is left without a row
    return Recipe(**values | {"held_out": lambda: held_out, "evaluate_every": 4} | changes)


def on_rank(rank, call, action):
    """`squared`, with an action in the given process and call."""
    calls = iter(range(100))

    def loss(network, batch, generator):
        if network.training and next(calls) == call and int(os.environ["RANK"]) == rank:
            action()
        return squared(network, batch, generator)

    return loss


def spoiled():
    """One NaN, which step 0 hands to the second process."""
    batch, first = data(), Recipe.generator(recipe(), 0, 0, torch.device("cpu"))
    batch["x"][torch.randperm(10, generator=first)[1]] = torch.nan
    return batch


class Sums(nn.Module):
    """Sums its input, rows where something is not finite along with it."""

    def forward(self, x):
        return x + 0 * x.sum()


def runs() -> dict[str, Recipe]:
    """The recipes that the processes run in turn."""

    def stop():
        return on_rank(1, 7, lambda: signal.raise_signal(signal.SIGINT))

    return {
        "ddp": recipe(),
        "fsdp": recipe(shard=True),
        "stopped": recipe(loss=stop()),
        "stopped fsdp": recipe(loss=stop(), shard=True),
        "odd": recipe(batch=5),
        "input": recipe(data=spoiled),
        "layer": recipe(build=lambda: nn.Sequential(Sums(), Spiking()), data=spoiled),
        "sharded layer": recipe(
            build=lambda: nn.Sequential(nn.Linear(4, 4), Broken(), nn.Linear(4, 1)), shard=True
        ),
        "killed": recipe(loss=on_rank(1, 7, lambda: os.kill(os.getpid(), signal.SIGKILL))),
    }


class Broken(nn.Module):
    """Sends NaN in the second process."""

    def forward(self, x):
        return x * (float("nan") if os.environ.get("RANK") == "1" else 1.0)


def work(folder: Path) -> None:
    rank = os.environ["RANK"]
    for name, each in runs().items():
        (folder / name).mkdir(exist_ok=True)
        try:
            network = fit(each, folder / name)
            torch.save(network.state_dict(), folder / name / f"weights.{rank}")
        except (AxonalError, KeyboardInterrupt) as error:
            (folder / name / f"said.{rank}").write_text(f"{type(error).__name__}: {error}")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The folder that two processes wrote to."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [__file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "Signal 9" in done.stderr, done.stderr
    assert "Warning:" not in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder and the weights of one process."""
    folder = tmp_path_factory.mktemp("one")
    return folder, fit(recipe(), folder).state_dict()


def close(one, other):
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    return True


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_does(two, alone, name):
    folder, weights = alone
    for rank in (0, 1):
        assert close(torch.load(two / name / f"weights.{rank}"), weights)
    ours, theirs = rows(folder), rows(two / name)
    assert len(ours) == len(theirs) == 12 + 3
    for one, other in zip(ours, theirs, strict=True):
        assert one["step"] == other["step"]
        for key in ("loss", "mean"):
            pair = [row.get("held_out", row)[key] for row in (one, other)]
            assert pair[0] == pytest.approx(pair[1], abs=1e-4)
    assert close(fit(recipe(), two / name).state_dict(), weights)


@pytest.mark.parametrize("name", ["stopped", "stopped fsdp"])
def test_one_process_goes_on_where_two_stopped(two, alone, name):
    for rank in (0, 1):
        assert "KeyboardInterrupt" in (two / name / f"said.{rank}").read_text()
    assert rows(two / name)[-1]["step"] == 7
    assert close(fit(recipe(), two / name).state_dict(), alone[1])
    assert [row["step"] for row in rows(two / name)] == [row["step"] for row in rows(alone[0])]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("odd", "InputError: recipe tiny: a batch of 5 can't be shared by 2 processes; choose"),
        ("input", "InputError: tiny: the loss is nan at step 0: the input 'x' is not finite"),
        ("layer", "InputError: tiny: the loss is nan at step 0: the input 'x' is not finite"),
        ("sharded layer", "InputError: tiny: the loss is nan at step 0: 1 (Broken) is the first"),
    ],
)
def test_all_processes_raise_the_error_of_one(two, name, words):
    for rank in (0, 1):
        assert (two / name / f"said.{rank}").read_text().startswith(words)


def test_a_killed_process_ends_the_other_with_a_sentence_and_costs_few_steps(two, alone):
    said = (two / "killed" / "said.0").read_text()
    assert said.startswith("ProcessError: process 0 of 2 lost another one") and "goes on" in said
    assert (two / "killed" / CHECKPOINT).exists()
    assert rows(two / "killed")[-1]["step"] == 6
    assert close(fit(recipe(), two / "killed").state_dict(), alone[1])


def test_gpus_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="process 1 of this machine has no GPU, there are 1"):
        Processes.from_environment("cuda")


def test_errors_of_one_process_pass_through_as_they_are():
    processes = Processes(device=torch.device("cpu"))
    with pytest.raises(RuntimeError, match="gloo") as caught, processes.guard("here"):
        raise RuntimeError("gloo")
    assert not isinstance(caught.value, AxonalError)
    lost = pytest.raises(AxonalError, match=r"process 1 of 2 lost another one.*; here; the same")
    with lost, replace(processes, rank=1, world_size=2).guard("here"):
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")


if __name__ == "__main__":
    work(Path(sys.argv[1]))

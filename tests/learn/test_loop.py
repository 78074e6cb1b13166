import json
import resource
import signal
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from axonal.core.errors import FileError, InputError
from axonal.learn.loop import CHECKPOINT, Recipe, fit


def network():
    # Two input channels and a 3 x 3 kernel, so that channels-last weights lie in another order.
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1))


def data():
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(10, 2, 4, 4, generator=generator)
    return {"x": x, "y": x.mean((1, 2, 3), keepdim=True)[..., 0, 0]}


def squared(network, batch, generator):
    noise = 0.1 * torch.randn(batch["x"].shape, generator=generator)
    error = network(batch["x"] + noise) - batch["y"]
    return error.square().mean(), {"largest": error.detach().abs().max()}


def recipe(**changes) -> Recipe:
    values = {"name": "tiny", "build": network, "data": data, "loss": squared}
    values |= {"steps": 20, "batch": 4, "lr": 1e-2, "warmup": 3, "ema": 0.9, "compile": False}
    values |= {"precision": "float32", "log_every": 1, "checkpoint_every": 3}
    return Recipe(**values | changes)


def at_call(count: int, action, loss=squared):
    """`loss`, with `action` called in the midst of the call number `count`."""
    calls = iter(range(10**6))

    def interrupted(network, batch, generator):
        result = loss(network, batch, generator)
        if next(calls) == count:
            action()
        return result

    return interrupted


def losses(folder):
    rows = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(row["step"], row["loss"], row["largest"]) for row in rows]


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run: its folder and its network."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, fit(recipe(), folder)


def test_a_run_is_a_function_of_its_seed(whole, tmp_path):
    folder, trained = whole
    assert [step for step, *_ in losses(folder)] == list(range(20))
    assert losses(folder)[-1][1] < losses(folder)[0][1]
    assert not trained.training
    assert same(fit(recipe(), tmp_path / "again"), trained)
    assert not same(fit(recipe(seed=1), tmp_path / "other"), trained)


def test_a_finished_run_comes_back_as_it_was(whole):
    folder, trained = whole
    before = (folder / CHECKPOINT).read_bytes()
    assert same(fit(recipe(), folder), trained)
    assert (folder / CHECKPOINT).read_bytes() == before
    assert len(losses(folder)) == 20


@pytest.mark.parametrize("step", [0, 1, 7, 8, 19])
def test_ctrl_c_stores_the_step_under_way_and_the_run_goes_on_exactly(whole, tmp_path, step):
    folder, trained = whole
    loss = at_call(step, lambda: signal.raise_signal(signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe(loss=loss), tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(losses(tmp_path)) == step + 1
    assert same(fit(recipe(), tmp_path), trained)
    assert losses(tmp_path) == losses(folder)


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(recipe(loss=at_call(1, twice)), tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


def test_an_interrupted_run_goes_on_between_two_lines_of_its_log(whole, tmp_path):
    loss = at_call(7, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        fit(recipe(loss=loss, log_every=5), tmp_path)
    assert same(fit(recipe(log_every=5), tmp_path), whole[1])
    assert [step for step, *_ in losses(tmp_path)] == [0, 5, 10, 15, 19]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_loop
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
test_loop.fit(test_loop.recipe(loss=test_loop.at_call(10, kill)), sys.argv[2])
"""


def test_a_killed_run_goes_on_exactly(whole, tmp_path, request):
    folder, trained = whole
    command = [sys.executable, "-c", KILLED, str(request.path.parent), str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(losses(tmp_path)) == 10  # one step past the checkpoint at 9
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 1')  # half a line, as a kill can leave it
    assert same(fit(recipe(), tmp_path), trained)
    assert losses(tmp_path) == losses(folder)


def test_fit_runs_off_the_main_thread(whole, tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(recipe(), tmp_path)))
    thread.start()
    thread.join()
    assert same(found[0], whole[1])


def test_frozen_weights_stay_and_do_not_hinder_going_on(tmp_path):
    def build():
        net = network()
        net[0].requires_grad_(False)
        return net

    first = fit(recipe(build=build), tmp_path)
    assert same(fit(recipe(build=build), tmp_path), first)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    def poisoned(network, batch, generator):
        loss, figures = squared(network, batch, generator)
        return loss * (float("nan") if next(calls) >= 8 else 1.0), figures

    calls = iter(range(100))
    with pytest.raises(InputError, match=r"tiny: the loss is nan at step 8; lower the learning"):
        fit(recipe(loss=poisoned), tmp_path)
    trained = fit(recipe(steps=20), tmp_path)
    assert all(p.isfinite().all() for p in trained.parameters())
    assert [step for step, *_ in losses(tmp_path)] == list(range(20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other"}, r"it was made by recipe 'tiny', seed 0; choose another folder"),
        ({"seed": 3}, "it was made by recipe 'tiny', seed 0"),
        ({"steps": 5}, "its step 20 is not one of this run"),
        ({"build": lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 1))}, "it holds no network"),
        ({"build": lambda: network()[:3]}, "it holds average.3.bias, which the network lacks"),
    ],
    ids=["recipe", "seed", "steps", "network", "part"],
)
def test_foreign_checkpoints_are_refused(whole, changes, message):
    before = (whole[0] / CHECKPOINT).read_bytes()
    with pytest.raises(FileError, match=rf"can't resume from .*: .*{message}"):
        fit(recipe(**changes), whole[0])
    assert (whole[0] / CHECKPOINT).read_bytes() == before


def go_on_or_refuse(path, content: bytes):
    path.mkdir(exist_ok=True)
    (path / CHECKPOINT).write_bytes(content)
    try:
        return fit(recipe(), path)
    except FileError:
        return None
    except InputError:  # a flipped bit made a weight huge
        return None


@settings(max_examples=20)
@given(part=st.floats(0, 1, exclude_max=True))
def test_truncated_checkpoints_are_refused(whole, tmp_path, part):
    content = (whole[0] / CHECKPOINT).read_bytes()
    assert go_on_or_refuse(tmp_path, content[: int(part * len(content))]) is None


@settings(max_examples=100)
@given(bit=st.integers(0, 8 * 2200 - 1))
def test_flipped_bits_in_the_header_never_surprise(whole, tmp_path, bit):
    content = bytearray((whole[0] / CHECKPOINT).read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    go_on_or_refuse(tmp_path, bytes(content))


def test_a_folder_in_the_checkpoints_place_is_refused(tmp_path):
    (tmp_path / CHECKPOINT).mkdir()
    with pytest.raises(FileError, match="can't resume from"):
        fit(recipe(), tmp_path)


def test_a_folder_that_can_not_be_written_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"can't write .*log.jsonl"):
        fit(recipe(loss=None), tmp_path / "file" / "run")


def test_a_full_disk_leaves_no_part_of_a_checkpoint(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
    try:
        with pytest.raises(FileError, match=r"can't write .*checkpoint.*free space"):
            fit(recipe(), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_recipes_and_data_without_meaning_are_refused(tmp_path):
    with pytest.raises(InputError, match="10 samples are less than one batch of 11"):
        fit(recipe(batch=11), tmp_path)
    with pytest.raises(InputError, match=r"its data have the lengths \[9, 10\]"):
        fit(recipe(data=lambda: data() | {"y": data()["y"][:9]}), tmp_path)
    with pytest.raises(InputError, match=r"its data have the lengths \[\]"):
        fit(recipe(data=dict), tmp_path)
    for changes in ({"steps": 0}, {"batch": 0}, {"log_every": 0}, {"checkpoint_every": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            recipe(**changes)
    with pytest.raises(InputError, match="precision 'float16' is unknown"):
        recipe(precision="float16")


def test_the_rate_warms_up_and_falls_to_nothing():
    rates = [recipe().rate(step) for step in range(20)]
    assert rates[0] < rates[1] < rates[2] and rates[2] == max(rates)
    assert rates[-1] < 0.1 * rates[2] and min(rates) > 0

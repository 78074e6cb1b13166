import json
import re
import resource
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from axonal.core.errors import FileError, InputError, MissingExtra
from axonal.learn.data import Batches
from axonal.learn.distributed import Processes
from axonal.learn.loop import CHECKPOINT, Trainer, accuracy, evaluate, fit
from axonal.learn.recipe import Recipe
from axonal.nn import LIF, Sequential


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
    return [(r["step"], r["loss"], r["largest"]) for r in rows(folder) if "loss" in r]


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The uninterrupted run: its folder and its network."""
    folder = tmp_path_factory.mktemp("reference")
    return folder, fit(recipe(), folder)


def test_a_run_is_a_function_of_its_seed(reference, tmp_path):
    folder, trained = reference
    assert [step for step, *_ in losses(folder)] == list(range(20))
    assert losses(folder)[-1][1] < losses(folder)[0][1]
    assert not trained.training
    assert same(fit(recipe(), tmp_path / "again"), trained)
    assert not same(fit(recipe(seed=1), tmp_path / "other"), trained)


def test_a_finished_run_comes_back_as_it_was(reference):
    folder, trained = reference
    before = (folder / CHECKPOINT).read_bytes()
    assert same(fit(recipe(), folder), trained)
    assert (folder / CHECKPOINT).read_bytes() == before
    assert len(losses(folder)) == 20


def stopped(folder, step: int, number=signal.SIGINT, **changes) -> None:
    """A run that is told to stop in the midst of a step."""
    with pytest.raises(KeyboardInterrupt):
        fit(recipe(loss=at_call(step, lambda: signal.raise_signal(number)), **changes), folder)


@pytest.mark.parametrize(("step", "every"), [(0, 1), (1, 1), (7, 1), (7, 5), (8, 1), (19, 1)])
def test_ctrl_c_stores_the_step_under_way_and_the_run_goes_on_exactly(
    reference, tmp_path, step, every
):
    folder, trained = reference
    handler = signal.getsignal(signal.SIGINT)
    stopped(tmp_path, step, log_every=every)
    assert signal.getsignal(signal.SIGINT) is handler
    assert len(losses(tmp_path)) == step // every + 1
    assert same(fit(recipe(log_every=every), tmp_path), trained)
    assert losses(tmp_path) == [
        row for row in losses(folder) if row[0] % every == 0 or row[0] == 19
    ]


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(recipe(loss=at_call(1, twice)), tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_loop
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
test_loop.fit(test_loop.recipe(loss=test_loop.at_call(10, kill)), sys.argv[2])
"""


def test_a_killed_run_goes_on_exactly(reference, tmp_path, request):
    folder, trained = reference
    command = [sys.executable, "-c", KILLED, str(request.path.parent), str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(losses(tmp_path)) == 10  # one step past the checkpoint at 9
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 1')  # half a line, as a kill can leave it
    assert same(fit(recipe(), tmp_path), trained)
    assert losses(tmp_path) == losses(folder)


def test_fit_runs_off_the_main_thread(reference, tmp_path):
    networks = []
    thread = threading.Thread(target=lambda: networks.append(fit(recipe(), tmp_path)))
    thread.start()
    thread.join()
    assert same(networks[0], reference[1])


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
    with pytest.raises(InputError, match=r"tiny: the loss is nan at step 8: the output of every"):
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
def test_foreign_checkpoints_are_refused(reference, changes, message):
    before = (reference[0] / CHECKPOINT).read_bytes()
    with pytest.raises(FileError, match=rf"can't resume from .*: .*{message}"):
        fit(recipe(**changes), reference[0])
    assert (reference[0] / CHECKPOINT).read_bytes() == before


def go_on_or_refuse(path, content: bytes):
    path.mkdir(exist_ok=True)
    (path / CHECKPOINT).write_bytes(content)
    try:
        return fit(recipe(), path)
    except (FileError, InputError):  # a flipped bit can make a weight huge
        return None


@settings(max_examples=20)
@given(part=st.floats(0, 1, exclude_max=True))
def test_truncated_checkpoints_are_refused(reference, tmp_path, part):
    content = (reference[0] / CHECKPOINT).read_bytes()
    assert go_on_or_refuse(tmp_path, content[: int(part * len(content))]) is None


@settings(max_examples=100)
@given(bit=st.integers(0, 8 * 2200 - 1))
def test_flipped_bits_in_the_header_never_surprise(reference, tmp_path, bit):
    content = bytearray((reference[0] / CHECKPOINT).read_bytes())
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


@pytest.mark.parametrize(("step", "left"), [(0, {"log.jsonl"}), (7, {"log.jsonl", CHECKPOINT})])
def test_a_full_disk_leaves_complete_checkpoints_alone(reference, tmp_path, step, left):
    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(FileError, match=r"can't write .*checkpoint.*free space"):
            fit(recipe(loss=at_call(step, fill)), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in tmp_path.iterdir()} == left
    assert same(fit(recipe(), tmp_path), reference[1])


class Square(nn.Module):
    """The identity, of what has a square."""

    def forward(self, x):
        return x + 0 * x.square()


def spiking(first):
    return Sequential(first, LIF(), nn.Flatten(), nn.Linear(32, 1))


def over_time(network, batch, generator):
    output = network(batch["x"].expand(3, *batch["x"].shape))[0].mean(0)
    return (output - batch["y"]).square().mean(), {"largest": output.detach().abs().max()}


def spoiled(name, value):
    """`data` with a number in one sample, which step 1 is the first to read."""
    first, second = data()[name], Recipe.generator(recipe(), 0, 0, torch.device("cpu"))
    order = torch.randperm(10, generator=second)
    first[order[6]] = value
    return lambda: data() | {name: first}


class Explodes(nn.Module):
    """The identity, without a gradient at 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + self.weight.abs().sqrt()


def huge():
    net = network()
    net[2].register_forward_hook(lambda module, args, output: output * 1e38 * 10)
    return net


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": spoiled("x", torch.nan)}, "the loss is nan at step 1: the input 'x' is not"),
        ({"data": spoiled("y", torch.inf)}, "the loss is inf at step 1: the input 'y' is not"),
        ({"build": huge}, r"0: 2 \(Flatten\) is the first layer whose output is not finite; lower"),
        (
            {"build": lambda: spiking(Square()), "loss": over_time, "data": spoiled("x", 3e38)},
            r"the loss is nan at step 1: 0 \(Square\) is the first layer whose output is not",
        ),
        (
            {"build": lambda: spiking(LIF(gain=1e30, reset="zero")), "loss": over_time,
             "data": spoiled("x", 3e38)},
            r"the loss is nan at step 1: 0 \(LIF\) is the first layer whose neurons are not finite",
        ),
        (
            {"build": lambda: nn.Sequential(Explodes(), *network())},
            "the gradient of 0.weight is not finite at step 0; lower the learning rate",
        ),
    ],
    ids=["input", "target", "layer", "neuron's input", "neuron", "gradient"],
)  # fmt: skip
def test_what_was_first_not_finite_is_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=f"tiny: .*{message}.* the last checkpoint in .* intact"):
        fit(recipe(**{"loss": noiseless} | changes), tmp_path)


def noiseless(network, batch, generator):
    error = network(batch["x"]) - batch["y"]
    return error.square().mean(), {"largest": error.detach().abs().max()}


def test_a_step_that_is_not_finite_changes_nothing_until_someone_looks():
    processes = Processes.from_environment("cpu")
    trainer = Trainer(recipe(loss=noiseless, data=spoiled("x", torch.nan)), processes)
    batches = Batches(trainer.recipe, processes)
    trainer.step(0, batches(0), [])
    before = {name: value.clone() for name, value in trainer.weights.items()}
    for step in (1, 2, 3, 0):
        trainer.step(step, batches(step), [])
        assert int(trainer.failed) == 1
        assert all(torch.equal(trainer.weights[name], before[name]) for name in before)
    assert "the loss is nan at step 1: the input 'x'" in trainer.cause(1, batches(1))


def test_other_refusals_of_a_layer_come_as_they_are(tmp_path):
    def refusing(network, batch, generator):
        return network(batch["x"][None], (1, 2))

    with pytest.raises(InputError, match=r"^Sequential: the state must be a tuple of 4 entries"):
        fit(recipe(build=lambda: spiking(Square()), loss=refusing), tmp_path)


def evaluated(**changes) -> Recipe:
    return recipe(**{"held_out": held_out, "evaluate_every": 2} | changes)


def held_out():
    return {"x": data()["x"][:7], "y": data()["y"][:7] + 0.3}


def test_evaluations_are_of_the_average_over_all_samples(tmp_path):
    trained = fit(evaluated(loss=noiseless), tmp_path)
    evaluations = [row for row in rows(tmp_path) if "held_out" in row]
    assert [row["step"] for row in evaluations] == list(range(1, 20, 2))
    error = trained(held_out()["x"]) - held_out()["y"]
    figures = evaluate(trained, evaluated(loss=noiseless), held_out())
    assert figures["loss"] == pytest.approx(error.square().mean().item(), rel=1e-5)
    assert figures["loss"] == pytest.approx(evaluations[-1]["held_out"]["loss"])
    assert same(fit(recipe(loss=noiseless), tmp_path / "without"), trained)


def test_evaluation_leaves_the_mode_as_it_was():
    net = nn.Sequential(network(), nn.Dropout())
    first = evaluate(net, evaluated(), held_out())
    assert net.training and evaluate(net.eval(), evaluated(), held_out()) == first
    assert not net.training


def test_patience_ends_with_the_best_average(tmp_path):
    options = {"patience": 2, "lr": 0.1, "warmup": 0}
    trained = fit(evaluated(**options), tmp_path)
    values = [row["held_out"]["loss"] for row in rows(tmp_path) if "held_out" in row]
    best = values.index(min(values))
    assert len(values) == best + 3 < 10
    assert evaluate(trained, evaluated(), held_out())["loss"] == pytest.approx(values[best])
    before = (tmp_path / CHECKPOINT).read_bytes()
    assert same(fit(evaluated(**options), tmp_path), trained)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    for step in range(2, 2 * len(values), 3):
        folder = tmp_path / str(step)
        stopped(folder, step, signal.SIGTERM, held_out=held_out, evaluate_every=2, **options)
        assert same(fit(evaluated(**options), folder), trained)
        assert [r | {"seconds": 0} for r in rows(folder)] == [
            r | {"seconds": 0} for r in rows(tmp_path)
        ]


def test_a_checkup_is_logged_where_the_run_evaluates_and_changes_nothing(reference, tmp_path):
    def checkup(network):
        assert network.training
        return {"largest": float(max(p.detach().abs().max() for p in network.parameters()))}

    trained = fit(recipe(checkup=checkup, evaluate_every=8), tmp_path)
    logged = [(row["step"], row["checkup"]) for row in rows(tmp_path) if "checkup" in row]
    assert [step for step, _ in logged] == [7, 15, 19]
    assert all(row["largest"] > 0 for _, row in logged)
    assert same(trained, reference[1])


def normed():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 1))


def test_running_statistics_are_averaged_as_the_weights_are(tmp_path):
    seen = []

    def watched(network, batch, generator):
        result = noiseless(network, batch, generator)
        seen.append(network[1].running_mean.clone())
        return result

    trained = fit(recipe(build=normed, loss=watched), tmp_path)
    average = torch.zeros(3)
    for step, mean in enumerate(seen):
        average.lerp_(mean, 1 - min(0.9, (1 + step) / (10 + step)))
    assert torch.allclose(trained[1].running_mean, average, atol=1e-6)
    assert not torch.allclose(average, seen[-1], atol=1e-6)
    assert same(fit(recipe(build=normed), tmp_path), trained)


def test_dropout_is_a_function_of_the_step(tmp_path):
    def build():
        return nn.Sequential(*network(), nn.Dropout(0.3))

    trained = fit(recipe(build=build), tmp_path / "reference")
    stopped(tmp_path, 7, build=build)
    assert same(fit(recipe(build=build), tmp_path), trained)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (
            [0, 1, 2, 4, 4, 0, 1, 2, 1, 8],
            "4 of 9 classes have few samples or none: class 3 has 0, class 1 has 3; look",
        ),
        (
            [0] * 41 + [1] * 4,
            "1 of 2 classes have few samples or none: class 1 has 4, class 0 has 41; look",
        ),
        ([0] * 40 + [1] * 4, None),
        ([0.0, 5.0] * 5, None),
        ([-1, 5] * 5, None),
    ],
)
def test_strange_labels_are_mentioned(tmp_path, capfd, label, words):
    label = torch.tensor(label)
    x = torch.zeros(len(label), 2, 4, 4)
    batch = {"x": x, "y": torch.zeros(len(label), 1), "label": label}
    fit(recipe(data=lambda: batch, steps=1), tmp_path)
    said = re.sub("tiny: step .*\n", "", capfd.readouterr().err)
    assert said == "" if words is None else re.search(f"^tiny: {words}.*\n$", said)


def test_the_bar_shows_the_figures_of_the_step(tmp_path, capfd):
    fit(recipe(), tmp_path)
    shown = capfd.readouterr().out
    _, loss, largest = losses(tmp_path)[-1]
    assert f"loss {loss:.4g}  largest {largest:.4g}" in shown


def test_tensorboard_gets_the_log(tmp_path, monkeypatch):
    written, opened = [], []

    class Writer:
        def __init__(self, folder, purge_step):
            opened.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, step, value))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            opened.append("closed")

    module = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    fit(evaluated(steps=4), tmp_path, tensorboard=True)
    assert opened == [(str(tmp_path / "tensorboard"), 0), "closed"]
    names = ["loss", "largest", "loss", "largest", "held_out/loss", "held_out/largest"]
    assert [name for name, *_ in written] == names * 2
    assert written[0] == ("loss", 0, losses(tmp_path)[0][1])


def test_tensorboard_is_asked_for_at_call_time(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'axonal\[track\]'"):
        fit(recipe(), tmp_path, tensorboard=True)


def test_recipes_and_data_without_meaning_are_refused(tmp_path):
    with pytest.raises(InputError, match="a batch of 11 is more than the 10 samples"):
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
    with pytest.raises(InputError, match="patience is below 0, or lacks held_out"):
        recipe(patience=2)
    empty = {name: tensor[:0] for name, tensor in data().items()}
    with pytest.raises(InputError, match="recipe tiny: its data hold no samples"):
        fit(recipe(data=lambda: empty), tmp_path)
    with pytest.raises(InputError, match="recipe tiny: its data hold no samples"):
        evaluate(network(), recipe(), empty)


def test_accuracy_is_the_share_of_all_samples():
    class First(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2]

    x = torch.zeros(600, 1, 1, 2)
    x[:, 0, 0, 0] = 1
    assert accuracy(First(), x, (torch.arange(600) % 4 == 0).long()) == 0.75


def test_the_rate_warms_up_and_falls_to_nothing():
    rates = [recipe().rate(step) for step in range(20)]
    assert rates[0] < rates[1] < rates[2] and rates[2] == max(rates)
    assert rates[-1] < 0.1 * rates[2] and min(rates) > 0


class HalfDead(nn.Module):
    """Two layers, of which no gradient reaches the second."""

    def __init__(self):
        super().__init__()
        self.alive, self.dead = nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x):
        mean = x.mean((2, 3))
        return self.alive(mean) + 0 * self.dead(mean)


def test_what_no_gradient_reaches_is_named(tmp_path, capsys):
    fit(recipe(build=HalfDead), tmp_path)
    told = capsys.readouterr().err
    assert "tiny: no gradient has reached dead.weight, dead.bias by step 10" in told
    fit(recipe(steps=3), tmp_path / "alive")
    assert "gradient" not in capsys.readouterr().err


def test_gradients_that_a_compiler_loses_end_the_training(tmp_path, monkeypatch):
    class Losing(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            y = self.network(x)
            return y.detach() + 0 * y + self.network[-1].bias

    monkeypatch.setattr(torch, "compile", Losing)
    with pytest.raises(InputError, match=r"torch\.compile gives a gradient of exactly zero to 0"):
        fit(recipe(compile=True), tmp_path)


def test_bfloat16_is_not_compiled_on_cpus(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"compile=False, or precision='float32'"):
        fit(recipe(compile=True, precision="bfloat16"), tmp_path)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    plain, cpu = recipe(compile=None, precision="auto"), torch.device("cpu")
    assert not plain.compiles(cpu) and plain.autocast(cpu).fast_dtype == torch.bfloat16
    assert plain.compiles(torch.device("cuda")) and recipe(compile=True).compiles(cpu)

import json

import pytest

from axonal.core.errors import InputError
from benchmarks import render
from benchmarks.learn import run as learning
from benchmarks.learn.epochs import RIVALS

SPREAD = {"value": 2.0, "low": 1.5, "high": 2.5}
NETWORKS = ("fully connected", "convolutional")


@pytest.fixture
def calls(monkeypatch):
    """Stands in for every part that trains or measures, and lists those that ran."""
    ran = []

    def stands(name, figures):
        def part(*_):
            ran.append(name)
            return figures

        return part

    memory = {
        f"MB [{rule}, T {t}]": 1.0 + t
        for rule in learning.rule_memory.RULES
        for t in learning.rule_memory.STEPS
    }
    rates = {
        f"backward ms [{rule}, {100 * rate:g} %]": SPREAD
        for rule in learning.backward_cost.RULES
        for rate in learning.backward_cost.RATES
    }
    ways = [f"epoch_vs_{r}{way}" for r in RIVALS for way in ("", "_hoisted")]
    times = dict.fromkeys([*ways, *(f"{way} [{n}]" for way in ways for n in NETWORKS)], SPREAD)
    curve = {
        f"{what} [{w:g}]": 90.0
        for w in learning.WEIGHTS
        for what in ("accuracy", "spikes an image")
    }
    trained = {"accuracy": 98.0, "spike_rate": 5.0, "seconds": 60.0, "parameters": 1234}
    monkeypatch.setattr(
        learning,
        "_trained",
        lambda name, *_: {f"{name.replace('-', '_')}_{k}": v for k, v in trained.items()},
    )
    monkeypatch.setattr(learning, "_curve", stands("energy", curve))
    monkeypatch.setattr(learning.epochs, "epochs", stands("epochs", times))
    monkeypatch.setattr(learning.rule_memory, "figures", stands("memory", memory))
    monkeypatch.setattr(learning.backward_cost, "figures", stands("backward", rates))
    doctor = {"doctor_planted": 12, "doctor_found": 12, "doctor_false_alarms": 0}
    monkeypatch.setattr(learning.planted_faults, "figures", stands("doctor", doctor))
    deep = {"before": [0.1, 0.1], "after": [0.2, 0.5]}
    monkeypatch.setattr(learning.planted_faults, "deep", stands("deep", deep))
    monkeypatch.setattr(learning.scaling, "ddp", stands("processes", {"ddp_speedup": SPREAD}))
    return ran


def test_the_bench_writes_figures_drawings_and_a_table_and_keeps_what_it_has(calls, tmp_path):
    out, store = tmp_path / "out", tmp_path / "store"
    said = learning.bench(out, 3, store=store)
    assert "98.00 %" in said and str(out) in said
    result = render.read(out / "learn.json")
    assert result["command"] == "axonal bench learn --seed 3 --rounds 5 --threads 2"
    assert result["figures"]["mnist_fc_accuracy"] == 98.0
    assert all(not isinstance(value, list) for value in result["figures"].values())
    for name in ("energy", "memory", "backward", "deep"):
        assert "</svg>" in (out / f"learn-{name}.svg").read_text()
    table = render.learn(result)
    assert "| `fsdd` | 98.0 % | 5.0 % | 1.0 | 1,234 |" in table
    assert "12 of 12 planted faults" in table and "2.00 (1.50–2.50)" in table
    before = list(calls)
    learning.bench(out, 3, store=store)
    assert calls == before, "all parts were finished"
    (store / "seed-3/memory.json").write_text('{"command": "half')
    learning.bench(out, 3, store=store)
    assert calls == [*before, "memory"]
    learning.bench(out, 4, store=store)
    assert len(calls) == 2 * len(before) + 1, "another seed measures again"
    learning.bench(out, 4, rounds=6, store=store)
    assert len(calls) == 3 * len(before) + 1, "so do other rounds: the command names them"
    json.loads((out / "learn.json").read_text())


def test_too_few_rounds_are_refused(tmp_path):
    with pytest.raises(InputError, match="2 rounds have no spread"):
        learning.bench(tmp_path, rounds=2)

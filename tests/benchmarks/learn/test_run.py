import json

import pytest

from benchmarks.benches import BENCHES
from benchmarks.harness import page
from benchmarks.harness.bench import perform
from benchmarks.learn import run as learning
from benchmarks.learn.epochs import FRAMEWORKS

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
        for rule in learning.memory.RULES
        for t in learning.memory.STEPS
    }
    rates = {
        f"backward ms [{rule}, {100 * rate:g} %]": SPREAD
        for rule in learning.backward_cost.RULES
        for rate in learning.backward_cost.RATES
    }
    ways = [f"epoch_vs_{r}{way}" for r in FRAMEWORKS for way in ("", "_hoisted")]
    times = dict.fromkeys([*ways, *(f"{way} [{n}]" for way in ways for n in NETWORKS)], SPREAD)
    curve = {
        f"{what} [{w:g}]": 90.0
        for w in learning.WEIGHTS
        for what in ("accuracy", "spikes an image")
    }
    card = {"accuracy": 98.0, "spike_rate": 5.0, "seconds": 60.0, "parameters": 1234}
    monkeypatch.setattr(
        learning,
        "_trained",
        lambda name, *_: {f"{name.replace('-', '_')}_{k}": v for k, v in card.items()},
    )
    monkeypatch.setattr(learning, "_energy", stands("energy", curve))
    monkeypatch.setattr(learning.epochs, "figures", stands("epochs", times))
    monkeypatch.setattr(learning.memory, "figures", stands("memory", memory))
    monkeypatch.setattr(learning.backward_cost, "figures", stands("backward", rates))
    doctor = {"doctor_planted": 12, "doctor_found": 12, "doctor_false_alarms": 0}
    monkeypatch.setattr(learning.planted_faults, "figures", stands("doctor", doctor))
    deep = {"before": [0.1, 0.1], "after": [0.2, 0.5]}
    monkeypatch.setattr(learning.planted_faults, "deep", stands("deep", deep))
    monkeypatch.setattr(learning.scaling, "figures", stands("processes", {"ddp_speedup": SPREAD}))
    return ran


def test_the_bench_writes_figures_drawings_and_a_page_and_goes_on(calls, tmp_path):
    out, runs = tmp_path / "out", tmp_path / "runs"

    def measure(**options):
        return perform(BENCHES["learn"], out, runs, **options)

    path = measure(seed=3)
    written = json.loads(path.read_text())
    assert written["command"] == "python -m benchmarks learn --seed 3 --rounds 5 --threads 2"
    assert written["figures"]["mnist_fc_accuracy"] == 98.0
    assert all(not isinstance(value, list) for value in written["figures"].values())
    for name in ("energy", "memory", "backward", "deep"):
        assert "</svg>" in (out / f"learn-{name}.svg").read_text()
    text = page.render(BENCHES["learn"], out, out).read_text()
    assert "| `fsdd` | 98.0 % | 5.0 % | 1.0 | 1,234 |" in text
    assert "12 of 12 planted faults" in text and "2.00 (1.50–2.50)" in text
    assert "98.00 %" in page.headline(BENCHES["learn"], out)
    before = list(calls)
    measure(seed=3)
    assert calls == before, "all parts were finished"
    (runs / "bench-learn/seed-3/memory.json").write_text('{"command": "half')
    measure(seed=3)
    assert calls == [*before, "memory"]
    measure(seed=4)
    assert len(calls) == 2 * len(before) + 1, "another seed measures again"
    measure(seed=4, rounds=6)
    assert len(calls) == 3 * len(before) + 1, "so do other rounds: the command names them"
    json.loads(path.read_text())

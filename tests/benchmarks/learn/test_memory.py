from pathlib import Path

from benchmarks.learn import memory


def test_what_a_step_adds_grows_with_time_under_bptt_alone(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[3])
    monkeypatch.setattr(memory, "RULES", {name: memory.RULES[name] for name in ("bptt", "sltt")})
    monkeypatch.setattr(memory, "STEPS", (10, 200))
    figures = memory.figures()
    assert figures["MB [bptt, T 200]"] > 2 * figures["MB [bptt, T 10]"]
    assert figures["MB [bptt, T 200]"] > 2 * figures["MB [sltt, T 200]"]

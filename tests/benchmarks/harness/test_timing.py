from benchmarks.harness.timing import Timings, ratio, spread, take_turns, time_in_turn


def test_calls_take_turns_and_the_fastest_of_the_others_counts():
    calls = []
    jobs = {n: lambda n=n: calls.append(n) for n in ("ours", "a", "b")}
    timings = time_in_turn(jobs, 3, at_least=1e-9)
    assert [len(seconds) for seconds in timings.seconds.values()] == [3, 3, 3]
    assert {*calls} == {"ours", "a", "b"}
    known = Timings({"ours": [1.0, 2.0, 4.0], "slow": [9.0, 9.0, 9.0], "fast": [3.0, 4.0, 8.0]})
    assert known.fastest_other == "fast"
    assert known.speedup == {"value": 2.0, "low": 2.0, "high": 3.0}
    assert spread([3.0, 1.0, 2.0]) == {"value": 2.0, "low": 1.0, "high": 3.0}


def test_every_job_runs_once_in_each_round(capsys):
    ran = []
    jobs = {n: lambda n=n: ran.append(n) or float(len(ran)) for n in "ab"}
    assert take_turns(jobs, 2) == {"a": [1.0, 3.0], "b": [2.0, 4.0]}
    assert ran == ["a", "b", "a", "b"] and capsys.readouterr().out == ""
    take_turns(jobs, 1, lambda job: f"job {job}")
    assert "job" in capsys.readouterr().out


def test_ratios_are_of_the_same_round():
    assert ratio([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == {"value": 3.0, "low": 2.0, "high": 4.0}

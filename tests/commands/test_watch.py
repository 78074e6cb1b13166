import re
import socket
import time
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from axonal.cli import app
from axonal.commands import watch
from axonal.core.errors import InputError
from axonal.deploy.from_torch import trace
from axonal.nn import LIF, Sequential
from axonal.report import watch as report
from axonal.report.watch import duration
from axonal.sense import checkpoint, pipeline, settings
from axonal.sense.sources import send
from axonal.sense.stream import events, samples
from benchmarks.harness import processes
from benchmarks.harness.recordings import save

SIDE = 24
SETTINGS = """\
[watch]
name = "yard"
learn = "calm"

[source]
url = "{path}"

[[filter]]
kind = "lif_trace"
threshold = 3.0

[window]
seconds = 0.1
grid = 2

[[detector]]
kind = "rate"
floor = 1.0
rising = true
threshold = 0.65

[wake]
postroll = 0.2
preroll = 0.5

[model]
calls_per_second = 10.0
joules_per_call = [0.5, 1.0, 2.0]
source = "measured at the plug"
"""


def visited(path, seconds=120, visits=(90, 110), seed=0):
    """Save noise of 0.5 Hz a pixel, and a blob for half a second at each visit."""
    draw = np.random.default_rng(seed)
    t = [draw.integers(0, seconds * 1_000_000, seconds * SIDE**2 // 2)]
    x, y = [draw.integers(0, SIDE, t[0].size)], [draw.integers(0, SIDE, t[0].size)]
    for start in visits:
        t += [start * 1_000_000 + draw.integers(0, 500_000, 2000)]
        x, y = [*x, draw.integers(4, 8, 2000)], [*y, draw.integers(4, 8, 2000)]
    t, x, y = map(np.concatenate, (t, x, y))
    order = np.argsort(t, kind="stable")
    save(path, [events(t[order], x[order], y[order], t[order] % 2)], SIDE, SIDE)


@pytest.fixture
def yard(tmp_path):
    visited(tmp_path / "yard.npz")
    path = tmp_path / "yard.toml"
    path.write_text(SETTINGS.format(path=tmp_path / "yard.npz"))
    return path


def run(*command):
    with pytest.raises(SystemExit) as ended:
        app([str(part) for part in command])
    assert ended.value.code == 0


def test_the_command_wakes_reports_and_goes_on(yard, capsys):
    page = yard.with_suffix(".html")
    run("watch", yard, "--report", page, "--quiet")
    output = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert output.startswith("2 wakes in 2.0 min: a larger model would be called")
    assert "less than always on" in output and str(page) in output
    text = page.read_text()
    assert text.count("data:image/png") == 2 and "measured at the plug" in text
    assert "Avoided, modelled: " in text and "Left out: the sensor" in text
    tally = checkpoint.read(yard.with_suffix("") / "state.safetensors")["watch"]["tally"]
    run("watch", yard, "--quiet")  # it is over
    again = checkpoint.read(yard.with_suffix("") / "state.safetensors")["watch"]["tally"]
    assert again == tally and "2 wakes" in capsys.readouterr().err


def test_without_settings_a_file_is_watched_by_default(tmp_path, capsys):
    visited(tmp_path / "yard.npz")
    run("watch", tmp_path / "yard.npz", "--state", tmp_path / "state")
    assert "2.0 min" in capsys.readouterr().err
    (tmp_path / "pump.csv").write_text(
        "t_us,current\n" + "".join(f"{1000 * k},{k % 7}\n" for k in range(3000))
    )
    page = tmp_path / "pump.html"
    run("watch", tmp_path / "pump.csv", "--state", tmp_path / "pump", "--quiet", "--report", page)
    assert "3 s" in capsys.readouterr().err
    assert "synaptic operations a window, modelled at" in page.read_text()


def test_calibration_learns_normal_life_and_begins_from_there(yard, tmp_path, capsys):
    visited(tmp_path / "calm.npz", visits=(), seed=1)
    yard.write_text(yard.read_text().replace("threshold = 0.65", "wakes_per_hour = 6"))
    out = tmp_path / "calibrated"
    run("watch", "calibrate", yard, tmp_path / "calm.npz", "--out", out, "--noise", "0.05")
    assert f"now run axonal watch {out}" in re.sub(r"\s+", " ", capsys.readouterr().err)
    calibrated = settings.read(out / "watch.toml")
    assert calibrated.filter[0]["threshold"] != 3.0 and calibrated.source["url"].endswith(
        "yard.npz"
    )
    session = pipeline.assemble(calibrated, tmp_path / "state", quiet=True)
    session.restore(checkpoint.read(out / "watch" / "state.safetensors"))
    session.run()
    starts = [wake.t_wake_us / 1e6 for wake in session.wakes if wake.type == "new"]
    assert len(starts) <= 6 and all(any(0 <= t - at < 0.3 for t in starts) for at in (90, 110))
    with pytest.raises(InputError, match="is there already"):
        watch.calibrate(str(yard), str(tmp_path / "calm.npz"), out, 0.5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "rate"', 'kind = "rat"', "line 16.*kind is one of .*network"),
        ("threshold = 0.65", "", "line 16.*as threshold, as wakes_per_hour or"),
        ("threshold = 0.65", "wakes_per_hour = 0", "0.0 wakes an hour"),
        ("threshold = 3.0", "tau = -1.0", "line 8.*tau"),
        ("yard.npz", "lawn.npz", "lawn.npz"),
        ("[model]", '[[sink]]\nkind = "pigeon"\n[model]', "kind is one of"),
    ],
)
def test_mistakes_in_settings_are_named(yard, tmp_path, old, new, message):
    yard.write_text(yard.read_text().replace(old, new))
    with pytest.raises((InputError, OSError), match=message):
        watch.watch(str(yard), tmp_path / "state", None, live=False)


def test_a_report_has_a_name_of_a_page(yard, tmp_path):
    with pytest.raises(InputError, match=r"\.html"):
        watch.watch(str(yard), tmp_path / "state", tmp_path / "page.pdf")


def test_an_empty_file_holds_nothing_to_watch(tmp_path):
    save(tmp_path / "none.npz", [events([], [], [], [])], SIDE, SIDE)
    with pytest.raises(InputError, match="nothing to watch"):
        pipeline.read(str(tmp_path / "none.npz"))


def test_durations_are_for_people():
    texts = [duration(s) for s in (0.25, 90, 150, 3 * 3600)]
    assert texts == ["0.25 s", "90 s", "2.5 min", "3.0 h"]


def test_a_terminated_watch_saves_its_state_and_goes_on(yard, tmp_path):
    """SIGTERM, which a service manager sends, is taken as an interruption from the keyboard."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = yard.read_text().replace(str(tmp_path / "yard.npz"), f"udp://127.0.0.1:{port}")
    text = text.replace("\n\n[[filter]]", f"\nwidth = {SIDE}\nheight = {SIDE}\n\n[[filter]]", 1)
    live = processes.Watch(tmp_path / "live.toml", text)
    total, packet = 0, events([0], [1], [1], [1])
    while not live.state.exists() and live.poll():
        packet["t"] += 50_000
        total = send([packet], ("127.0.0.1", port), total, session=3)
        time.sleep(0.02)
    tally = live.end(terminate=True)
    assert live.process.returncode == 130 and 1 <= tally["events_in"] <= total


def test_a_network_in_the_engine_is_a_detector(tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = Sequential(torch.nn.Linear(4, 16), LIF(0.9), torch.nn.Linear(16, 3, bias=False))
    graph = trace(net, torch.zeros(1, 1, 4))
    monkeypatch.setattr("axonal.commands.inspect.graph_of", lambda *_: graph)
    visited(tmp_path / "yard.npz", seconds=20, visits=(5,))
    text = SETTINGS.format(path=tmp_path / "yard.npz")
    text = text.replace(
        'kind = "rate"\nfloor = 1.0\nrising = true', 'kind = "network"\ngraph = "a"'
    )
    parsed = settings.parse(text.replace("threshold = 0.65", "target = 2\nthreshold = 0.65"))
    session, again, other = (
        pipeline.assemble(parsed, tmp_path / name, quiet=True, detectors=watch.ALL_DETECTORS)
        for name in "abc"
    )
    drive = np.random.default_rng(0).random((40, 4)) * 8
    first = [session.triggers[0].score(x) for x in drive]
    dense, _ = net(torch.from_numpy(drive[:, None]).float())
    odds = torch.softmax(dense[:, 0].double(), -1)[:, 2]
    np.testing.assert_allclose(first, odds.detach().numpy(), rtol=1e-4)
    before = [again.triggers[0].score(x) for x in drive[:20]]
    checkpoint.write(tmp_path / "state", again.triggers[0].state())
    restored = other.triggers[0]
    restored.restore(checkpoint.read(tmp_path / "state"))
    assert before + [restored.score(x) for x in drive[20:]] == first
    assert session.run().windows == 200
    with pytest.raises(InputError, match="a window has 5 features"):
        restored.score(np.zeros(5))


def table(path, count=3000, shift=0):
    path.parent.mkdir(exist_ok=True)
    rows = "".join(f"{1000 * k + shift},{(k + shift) % 7}\n" for k in range(count))
    path.write_text("t_us,current\n" + rows)
    return path


def watched(capsys, *command):
    run("watch", *command, "--quiet")
    return re.sub(r"\s+", " ", capsys.readouterr().err)


def test_files_of_one_name_have_states_of_their_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for day, count, folder in (("mon", 3000, "log"), ("tue", 5000, "log-2")):
        told = watched(capsys, table(tmp_path / day / "log.csv", count))
        assert f"in {count / 1000:g} s" in told and f"lie in {tmp_path / folder}." in told
        assert "columns: current" in told and "Nothing new" not in told
    again = watched(capsys, tmp_path / "mon" / "log.csv")
    assert "Nothing new in" in again and f"lie in {tmp_path / 'log'}." in again
    table(tmp_path / "mon" / "log.csv", 4000)  # it grew
    grown = watched(capsys, tmp_path / "mon" / "log.csv")
    assert "in 4 s" in grown and "Nothing new" not in grown


def test_a_state_goes_on_with_its_source_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = table(tmp_path / "log.csv")
    watched(capsys, path)
    table(path, shift=3)
    with pytest.raises(InputError, match=r"another file now: it begins otherwise.*--fresh"):
        watch.watch(str(path), None, None, live=False)
    assert "in 3 s" in watched(capsys, path, "--fresh")
    with pytest.raises(InputError, match="with the options"):
        watch.watch(str(path), None, None, live=False, options={"columns": ["current"]})
    other = table(tmp_path / "other.csv")
    with pytest.raises(InputError, match=r"it is of .*log\.csv, not of .*other\.csv.*--state"):
        watch.watch(str(other), tmp_path / "log", None, live=False)
    table(path, 100)
    with pytest.raises(InputError, match=r"another file now|has become shorter"):
        watch.watch(str(path), None, None, live=False)


def test_options_change_default_settings(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{k},{k % 5},{k % 3},x\n" for k in range(100))
    (tmp_path / "home.csv").write_text("time,temp,label,room\n" + rows + "100,,1\n101,,2,y\n")
    with pytest.raises(InputError, match="pass unit="):
        watch.watch("home.csv", None, None, live=False)
    chosen = ["home.csv", "--unit", "s", "--window", "1", "--wakes-per-hour", "2", "--lenient"]
    told = watched(capsys, *chosen, "--columns", "temp,label")
    assert "columns: temp, label" in told and "left out: room (text)" in told
    assert "1 cells were missing" in told and "1 rows could not be read" in told
    (tmp_path / "home.toml").write_text(SETTINGS.format(path="home.csv"))
    with pytest.raises(InputError, match="has all settings; write these there"):
        watch.watch("home.toml", None, None, live=False, window=1.0)


def minutes(path, rows, strange=(700, 720)):
    """A table of minutes with a gap of a day, in which one channel stands still for a while."""
    draw = np.random.default_rng(0)
    a, b = np.sin(np.arange(rows) / 7), np.cos(np.arange(rows) / 7)
    b[slice(*strange)] = 0
    values = np.stack([a, b], 1) + 0.05 * draw.normal(size=(rows, 2))
    marked = np.zeros(rows, int)
    marked[slice(*strange)] = 1
    lines = [
        f"{60 * k + 86_400 * (k >= 300)},{x:.4f},{y:.4f},{label}"
        for k, ((x, y), label) in enumerate(zip(values, marked, strict=True))
    ]
    path.write_text("\n".join(["time,flow,level,anomaly", *lines]) + "\n")
    return path


def test_a_table_is_watched_row_by_row_and_wakes_are_named_and_compared(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    path = minutes(tmp_path / "plant.csv", 1200)
    options = ["--unit", "s", "--labels", "anomaly", "--report", "plant.html"]
    told = watched(capsys, path, *options)
    assert "left out: anomaly (labels)" in told
    assert "not 1,200 (" in told  # a gap of 1,440 minutes is no window
    assert re.search(r"Woken after .* by level", told)
    assert "Of 1 labelled anomalies 1 were woken on (recall 100%)" in told
    page = (tmp_path / "plant.html").read_text()
    assert "labelled anomalies" in page and 'height="8"' in page
    again = watched(capsys, minutes(path, 2000), *options)  # it grew: the settings stay
    assert "Nothing new" not in again and "not 2,000 (" in again
    assert "Of 0 labelled anomalies 0 were woken on" in again  # an earlier run saw the one
    with pytest.raises(InputError, match="there is no 'nothing'"):
        watch.watch(str(path), None, None, live=False, labels="nothing", options={"unit": "s"})


def test_default_settings_of_what_is_live_wait_for_two_rows(monkeypatch):
    class Live(list):
        close = list.clear

        def __iter__(self):
            for t in (0.0, 50_000.0):
                yield samples(np.array([t]), np.zeros((1, 2)))
            raise AssertionError("a third packet was waited for")

    monkeypatch.setattr(pipeline, "open_source", lambda *_, **__: Live())
    chosen, _ = pipeline.read("udp://127.0.0.1:9")
    assert chosen.detector[0]["kind"] == "context" and chosen.detector[0]["calibration"] == 500
    assert chosen.wake.postroll == 64 * 0.05


def test_more_wakes_than_are_remembered_are_told_of():
    def wake(k):
        return SimpleNamespace(id=str(k), t_start_us=10 * k, t_end_us=10 * k + 5)

    ran = SimpleNamespace(first_us=0, windows=1)
    causes = {str(k): ["a"] for k in range(90)}
    wakes = deque((wake(k) for k in range(90)), maxlen=30)
    watched = SimpleNamespace(wakes=wakes, causes=causes, resumed=None, tally=ran)
    assert report.causes(watched).endswith("by a; and 25 more.")
    told = report.agreement(watched, np.array([[1, 2], [700, 701], [707, 708]]))
    assert "Of 2 labelled anomalies 1 were woken on (recall 50%)" in told
    assert "1 of 30 wakes were right" in told


def test_calibration_compares_shapes(tmp_path):
    plain = table(tmp_path / "plain.csv")
    wide = tmp_path / "wide.csv"
    wide.write_text("t_us,a,b\n" + "".join(f"{1000 * k},{k % 7},1\n" for k in range(3000)))
    with pytest.raises(InputError, match=r"has samples of 2 x 1, and .* has samples of 1 x 1"):
        watch.calibrate(str(plain), str(wide), tmp_path / "out", 0.05)
    visited(tmp_path / "yard.npz", seconds=2, visits=())
    with pytest.raises(InputError, match="events of 24 x 24"):
        watch.calibrate(str(plain), str(tmp_path / "yard.npz"), tmp_path / "out", 0.05)


def test_what_is_not_learned_yet_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = watched(capsys, table(tmp_path / "short.csv", 4000), "--report", "short.html")
    assert re.search(r"context is still learning.*: about \d+(.\d)? s more, highest score", told)
    assert "still learning" in (tmp_path / "short.html").read_text()
    told = watched(capsys, table(tmp_path / "long.csv", 30_000))
    assert "learning" not in told and "No sink is set" in told


def test_a_size_is_two_numbers(tmp_path, monkeypatch, capsys):
    visited(tmp_path / "yard.npz", seconds=2, visits=())
    with pytest.raises(InputError, match="--size 24: write it as 640x480"):
        app(["watch", str(tmp_path / "yard.npz"), "--size", "24"])
    monkeypatch.chdir(tmp_path)
    assert "in 2 s" in watched(capsys, "yard.npz", "--size", "24x24")

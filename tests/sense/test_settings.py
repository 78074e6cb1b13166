import tomllib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.sense import settings

GOOD = """\
[watch]
name = "yard"

[source]
url = "yard.npz"

[[filter]]
kind = "lif_trace"
tau = 10000.0

[window]
seconds = 0.05

[[detector]]
kind = "rate"
wakes_per_hour = 0.5

[[detector]]
kind = "cusum"
threshold = 0.5

[wake]
cooldown = 10

[model]
joules_per_call = [0.5, 1.0, 2.0]
source = "measured at the plug"
"""


def maker(width: int, tau: float = 1.0) -> tuple:
    if tau < 0:
        raise InputError("tau is above 0")
    return width, tau


def test_settings_are_read():
    parsed = settings.parse(GOOD)
    assert (parsed.watch.name, parsed.window.seconds, parsed.wake.cooldown) == ("yard", 0.05, 10)
    assert [table["kind"] for table in parsed.detector] == ["rate", "cusum"]
    assert parsed.model.joules_per_call == (0.5, 1.0, 2.0)
    assert parsed.build("filter", 0, {"lif_trace": maker}, 3) == (3, 10000.0)


def test_dumped_settings_are_the_same_settings():
    parsed = settings.parse(GOOD)
    again = settings.parse(parsed.dump())
    assert again.dump() == parsed.dump()
    assert tomllib.loads(parsed.dump())["detector"] == tomllib.loads(GOOD)["detector"]
    for name in ("watch", "source", "filter", "window", "detector", "sink", "wake", "model"):
        assert getattr(again, name) == getattr(parsed, name)


def test_the_fingerprint_follows_what_makes_scores():
    parsed = settings.parse(GOOD)
    same = GOOD.replace("0.5\n\n[[det", "0.7\n\n[[det").replace("cooldown = 10", "cooldown = 20")
    assert settings.parse(same).fingerprint() == parsed.fingerprint()
    other = settings.parse(GOOD.replace("10000.0", "20000.0"))
    assert other.fingerprint() != parsed.fingerprint()


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('name = "yard"', "nam = 1", 2, "no 'nam'; there are name"),
        ('name = "yard"', "name = 1", 2, "name is a str, not 1"),
        ("[watch]", "[wach]", 1, r"no \[wach\]"),
        ("[[filter]]", "[filter]", 7, r"write \[\[filter\]\]"),
        ('url = "yard.npz"', "", 4, "needs url"),
        ("seconds = 0.05", 'seconds = "x"', 12, "seconds is a float"),
        ("cooldown = 10", "cooldown = -1", 23, "cooldown is a number"),
        ("[0.5, 1.0, 2.0]", "[2.0, 1.0, 0.5]", 26, "joules_per_call is"),
        ("tau = 10000.0", "tau 1", 9, "line 9"),
    ],
)
def test_mistakes_are_named_by_line(old, new, line, message):
    assert old in GOOD
    with pytest.raises(InputError, match=message) as caught:
        settings.parse(GOOD.replace(old, new), "watch.toml")
    assert f"line {line}" in str(caught.value) and "watch.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "lif_trace"', 'kind = "lif"', "line 7: .*kind is one of lif_trace, not 'lif'"),
        ('kind = "lif_trace"', "", "line 7: .*not None"),
        ("tau = 10000.0", "taus = 1.0", "line 7: .*no option 'taus'; it takes tau"),
        ("tau = 10000.0", "tau = -1.0", "line 7: .*tau is above 0"),
        ("tau = 10000.0", 'tau = "x"', "line 7: "),
    ],
)
def test_kinds_and_options_are_checked_when_they_are_built(old, new, message):
    parsed = settings.parse(GOOD.replace(old, new))
    with pytest.raises(InputError, match=message):
        parsed.build("filter", 0, {"lif_trace": maker}, 3)


@given(st.text(max_size=60))
def test_any_text_is_settings_or_a_clear_error(text):
    with suppress(InputError):
        settings.parse(text)


def test_files_that_can_t_be_read(tmp_path):
    with pytest.raises(FileError, match="there is no file"):
        settings.read(tmp_path / "none.toml")
    (tmp_path / "odd.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="can't read"):
        settings.read(tmp_path / "odd.toml")
    (tmp_path / "long.toml").write_bytes(b" " * (settings.LARGEST + 1))
    with pytest.raises(FileError, match="at most"):
        settings.read(tmp_path / "long.toml")

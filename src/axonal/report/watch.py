"""What a watch saw, as a sentence, a drawing and a page."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ..energy import price
from ..sense.settings import Settings
from ..sense.wake import Wake
from ..sense.watch import Timeline, Watch
from . import charts
from .page import page

SHOWN = 200  # wakes in the table
WIDTH, LEFT, RIGHT = 1000.0, 62.0, 986.0  # of the drawing
RATES, SCORES = (12.0, 150.0), (174.0, 290.0)  # from top to bottom, of its two strips
TONES = {"rate_in": "ann-2", "rate_out": "ann-0", "score": "spike-0", "threshold": "delta-0"}


def lasting(seconds: float) -> str:
    """A duration for people: "1.5 s", "12.0 min", "3.2 h"."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


def calls(made: Watch, chosen: Settings) -> tuple[float, float]:
    """Calls of the larger model while awake, and of one that is always on."""
    each = chosen.model.calls_per_second
    always = each * made.tally.seconds if each else float(made.tally.windows)
    return always * made.tally.duty, always


def verdict(made: Watch, chosen: Settings) -> str:
    """The sentence that says what the watch achieved."""
    tally = made.tally
    woke = f"{tally.wakes} {'wake' if tally.wakes == 1 else 'wakes'} in {lasting(tally.seconds)}"
    if not tally.windows:
        return "Nothing came in."
    few, always = calls(made, chosen)
    saved = f"a larger model would be called {few:,.0f} times, not {always:,.0f}"
    return f"{woke}: {saved} ({100 * (1 - tally.duty):.4g} % less than always on)."


def joules(made: Watch, chosen: Settings) -> str:
    """What the calls that were avoided would have cost, with the assumption it rests on."""
    few, always = calls(made, chosen)
    counted = (
        "one call a window"
        if not chosen.model.calls_per_second
        else (f"{chosen.model.calls_per_second:g} calls a second")
    )
    if not chosen.model.joules_per_call:
        return (
            f"Assumed: {counted} while awake. No joules are told: [model] in the settings names no "
            "joules_per_call with their source."
        )
    low, nominal, high = (
        charts.si((always - few) * one, "J") for one in chosen.model.joules_per_call
    )
    return (
        f"Avoided, modelled: {nominal} ({low} to {high}). Assumed: {counted} while awake, at "
        f"{', '.join(charts.si(one, 'J') for one in chosen.model.joules_per_call)} a call (low, "
        f"nominal, high; {chosen.model.source}). Left out: the sensor, this watch itself, and what "
        "the larger model draws while it waits."
    )


def own(made: Watch) -> str:
    """What the spiking detectors' own work would cost, modelled; "" where none counts it."""
    told = []
    for judge in made.judges:
        if (counts := getattr(judge.detector, "counts", None)) is not None and judge.latest >= 0:
            cost = price(counts(), bits=32)
            told.append(
                f"{judge.name} does {counts().total('synops'):.1f} synaptic operations a "
                f"window, modelled at {cost}"
            )
    return " ".join(told)


def page_of(made: Watch, chosen: Settings, text: str) -> str:
    """The page: numbers, the timeline, wakes, what was asked, and the settings."""
    tally, total = made.tally, max(made.tally.windows, 1)
    few, always = calls(made, chosen)
    told = {wake.id: wake for wake in made.wakes}  # the last message of each
    reasons = {wake.id: wake.reason for wake in made.wakes if wake.type == "new"}
    steps = [
        {
            "name": one.name,
            "asked": f"{n:,}",
            "share": f"{100 * n / total:.4g} %",
            "threshold": f"{one.threshold:.4g}",
        }
        for one, n in zip(made.judges, made.cascade.calls.tolist(), strict=True)
    ]
    share = f"{100 * few / max(always, 1e-9):.4g} % of always on"
    return page(
        "watch.html.j2",
        {},
        title=f"{made.cascade.source}: {chosen.source['url']}",
        verdict=verdict(made, chosen),
        tally=tally,
        lasted=lasting(tally.seconds),
        unit="samples" if made.windows.channels else "events",
        span=lasting(made.timeline.width * made.windows.period * 1e-6)
        if made.windows.period
        else f"{made.timeline.width} rows",
        timeline=draw(made.timeline),
        keys={name: charts.key(charts.Series(name, (), tone)) for name, tone in TONES.items()},
        wakes=[
            _row(wake, tally.first_us, reasons.get(wake.id, ""), made.pictures.get(wake.id))
            for wake in list(told.values())[-SHOWN:]
        ],
        more=max(tally.wakes - min(len(told), SHOWN), 0),
        steps=steps,
        model={"calls": f"{few:,.0f}", "share": share, "told": joules(made, chosen)},
        own=own(made),
        delivered=_delivered(made),
        settings=text,
    )


def _row(wake: Wake, first_us: int, reason: str, clip: bytes | None) -> dict[str, Any]:
    ended = f"; {wake.reason}" if wake.type == "end" else "; still open"
    return {
        "at": f"{(wake.t_wake_us - first_us) * 1e-6:,.2f} s",
        "late": lasting((wake.t_wake_us - wake.t_start_us) * 1e-6),
        "lasted": lasting((wake.t_end_us - wake.t_wake_us) * 1e-6),
        "score": f"{wake.score:.3g} of {wake.threshold:.3g}",
        "reason": reason + ended,
        "id": wake.id,
        "clip": base64.b64encode(clip).decode() if clip else "",
    }


def _delivered(made: Watch) -> str:
    if made.outbox is None or not made.outbox.sinks:
        return "No sink is set; wakes are in the outbox's journal."
    return "Outbox: " + ", ".join(f"{v:,} {k}" for k, v in made.outbox.counters().items()) + "."


def draw(timeline: Timeline) -> Markup:
    """Rates in and out over scores and thresholds, wakes shaded; nothing for an empty timeline."""
    spans = timeline.spans[: timeline.count]
    if len(spans) < 2:
        return Markup("<p>Too short to draw.</p>")
    start, step = spans[0, 0], float(np.median(np.diff(spans[:, 0])))
    whole = max(spans[-1, 0] + step - start, 1.0)
    x = LEFT + (spans[:, 0] - start) / whole * (RIGHT - LEFT)
    wide = step / whole * (RIGHT - LEFT)
    rates = spans[:, 1:3] / (step * 1e-6)
    top = max(float(rates.max()), 1.0)
    tops = np.log10(1 + top), max(float(spans[:, 3:5].max()), 1e-9)
    parts = [_shade(x, wide, spans[:, 5] > 0)]
    parts += _axes(start, whole, top, tops[1])
    for name, strip, values in (
        ("rate_in", RATES, np.log10(1 + rates[:, 0]) / tops[0]),
        ("rate_out", RATES, np.log10(1 + rates[:, 1]) / tops[0]),
        ("score", SCORES, spans[:, 3] / tops[1]),
        ("threshold", SCORES, spans[:, 4] / tops[1]),
    ):
        parts.append(_line(x, strip[1] - values * (strip[1] - strip[0]), TONES[name]))
    return Markup('<svg viewBox="0 0 {} 320" role="img"><title>timeline</title>{}</svg>').format(
        int(WIDTH), Markup("").join(parts)
    )


def _line(x: np.ndarray, y: np.ndarray, tone: str) -> Markup:
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
    return Markup('<path class="line" style="stroke:var(--{});stroke-width:1.2" d="{}"/>').format(
        tone, path
    )


def _shade(x: np.ndarray, wide: float, awake: np.ndarray) -> Markup:
    """A rectangle for each run of spans in which a wake was open."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], awake.astype(int), [0]])))
    box = Markup('<rect class="awake" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>')
    runs = edges.reshape(-1, 2)
    height = SCORES[1] - RATES[0]
    return Markup("").join(
        box.format(x[a], RATES[0], max(x[b - 1] + wide - x[a], 1.5), height) for a, b in runs
    )


def _axes(start: float, whole: float, rate: float, score: float) -> Sequence[Markup]:
    text = Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>')
    rule = Markup('<path class="grid" d="M{} {:.1f}H{}"/>')
    found: list[Any] = []
    for (top, bottom), most, log in ((RATES, rate, True), (SCORES, score, False)):
        values = [v for v in charts.ticks(1, most, True, 4) if v >= 1] if log and most > 1 else []
        values = [0.0, *values] if log else charts.ticks(0, most, False, 4)
        for value in values:
            share = np.log10(1 + value) / np.log10(1 + most) if log else value / most
            y = bottom - share * (bottom - top)
            found += [
                rule.format(LEFT, y, RIGHT),
                text.format(LEFT - 8, y + 4, "end", charts.si(value) if log else f"{value:g}"),
            ]
    for seconds in charts.ticks(0, whole * 1e-6, False, 10):
        at = LEFT + seconds / (whole * 1e-6) * (RIGHT - LEFT)
        name = lasting(seconds) if seconds else "0"
        found.append(text.format(at, SCORES[1] + 20, "end" if at > RIGHT - 40 else "", name))
    return found

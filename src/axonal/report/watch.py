"""The report of a watch: a sentence, a chart and a page."""

import base64
from typing import Any

import numpy as np
from markupsafe import Markup

from ..energy import price
from ..sense.settings import Settings
from ..sense.wake import Wake
from ..sense.watch import Timeline, Watch
from . import charts
from .page import page

ROWS = 200  # wakes in the table
WIDTH, LEFT, RIGHT = 1000.0, 62.0, 986.0  # of the chart
RATES, SCORES = (12.0, 150.0), (174.0, 290.0)  # from top to bottom, of its two strips
TONES = {"rate_in": "ann-2", "rate_out": "ann-0", "score": "spike-0", "threshold": "delta-0"}


def duration(seconds: float) -> str:
    """A duration for people: "1.5 s", "12.0 min", "3.2 h"."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


def model_calls(watch: Watch, settings: Settings) -> tuple[float, float]:
    """The calls of the larger model while awake, and of one that is always on."""
    rate = settings.model.calls_per_second
    always = rate * watch.tally.seconds if rate else float(watch.tally.windows)
    return always * watch.tally.duty, always


def verdict(watch: Watch, settings: Settings) -> str:
    """The result of a watch in a sentence."""
    tally = watch.tally
    if not tally.windows:
        return "Nothing came in."
    wakes = f"{tally.wakes} {'wake' if tally.wakes == 1 else 'wakes'} in {duration(tally.seconds)}"
    few, always = model_calls(watch, settings)
    calls = f"a larger model would be called {few:,.0f} times, not {always:,.0f}"
    return f"{wakes}: {calls} ({100 * (1 - tally.duty):.4g} % less than always on)."


NAMED = 5  # wakes of which a sentence tells


def causes(watch: Watch) -> str:
    """When wakes of this run came, how long they were, and which channels made them."""
    last = {wake.id: wake for wake in watch.wakes if wake.id in watch.causes}
    parts = []
    for name, wake in [*last.items()][:NAMED]:
        channels = watch.causes[name]
        at = duration((wake.t_start_us - watch.tally.first_us) * 1e-6)
        until = duration((wake.t_end_us - wake.t_start_us) * 1e-6)
        by = f" by {', '.join(channels)}" if channels else ""
        parts.append(f"after {at}, for {until}{by}")
    more = len(last) - len(parts)
    rest = f"; and {more} more" if more else ""
    return f"Woken {'; '.join(parts)}{rest}." if parts else ""


def agreement(watch: Watch, marked: np.ndarray) -> str:
    """Precision and recall of this run's wakes beside labelled spans [N, 2] of microseconds.

    Spans that an earlier run saw don't count; nor, of more wakes than are remembered, those that
    lie before the first of these.
    """
    last = {wake.id: wake for wake in watch.wakes}
    wakes = np.array([(w.t_start_us, w.t_end_us) for w in last.values()]).reshape(-1, 2)
    begin = watch.resumed.last_us if watch.resumed else watch.tally.first_us
    if len(watch.wakes) == watch.wakes.maxlen:
        begin = max(begin, int(wakes[0, 0]))
    seen = marked[marked[:, 1] >= begin] if watch.tally.windows else marked[:0]
    meets = (wakes[:, None, 0] <= seen[None, :, 1]) & (wakes[:, None, 1] >= seen[None, :, 0])
    right, met = int(meets.any(1).sum()), int(meets.any(0).sum())
    recall, precision = met / max(len(seen), 1), right / max(len(wakes), 1)
    return (
        f"Of {len(seen)} labelled anomalies {met} were woken on (recall {recall:.0%}), and {right} "
        f"of {len(wakes)} wakes were right (precision {precision:.0%})."
    )


def learning(watch: Watch) -> str:
    """What detectors have not learned yet, in a sentence; "" if all have a threshold."""
    if not watch.tally.windows:
        return ""
    return " ".join(
        f"{trigger.name} is still learning what is normal and wakes nobody: about "
        f"{duration(state[0])} more, highest score so far {state[1]:.3g}."
        for trigger in watch.triggers
        if (state := trigger.learning)
    )


def savings(watch: Watch, settings: Settings) -> str:
    """The modelled cost of the calls that were avoided, with its assumptions."""
    few, always = model_calls(watch, settings)
    model = settings.model
    rate = f"{model.calls_per_second:g} calls a second"
    assumed = f"Assumed: {rate if model.calls_per_second else 'one call a window'} while awake"
    if not model.joules_per_call:
        return (
            f"{assumed}. No joules are reported: [model] in the settings names no joules_per_call "
            "with their source."
        )
    low, nominal, high = (charts.si((always - few) * j, "J") for j in model.joules_per_call)
    each = ", ".join(charts.si(j, "J") for j in model.joules_per_call)
    return (
        f"Avoided, modelled: {nominal} ({low} to {high}). {assumed}, at {each} a call (low, "
        f"nominal, high; {model.source}). Left out: the sensor, this watch itself, and what the "
        "larger model draws while it waits."
    )


def detector_costs(watch: Watch) -> str:
    """The modelled cost of the spiking detectors' own work; "" where none counts it."""
    sentences = []
    for trigger in watch.triggers:
        counts = getattr(trigger.detector, "counts", None)
        if counts is not None and trigger.latest >= 0:
            cost = price(counts(), bits=32)
            sentences.append(
                f"{trigger.name} does {counts().total('synops'):.1f} synaptic operations a "
                f"window, modelled at {cost}"
            )
    return " ".join(sentences)


def watch_page(
    watch: Watch, settings: Settings, text: str, marked: np.ndarray | None = None
) -> str:
    """The page: numbers, the timeline, wakes, calls of detectors, and the settings."""
    tally, timeline = watch.tally, watch.timeline
    few, always = model_calls(watch, settings)
    against = agreement(watch, marked) if marked is not None else ""
    last = {wake.id: wake for wake in watch.wakes}  # the last message of each
    reasons = {
        wake.id: ": ".join(filter(None, (wake.reason, ", ".join(watch.causes.get(wake.id, [])))))
        for wake in watch.wakes
        if wake.type == "new"
    }
    steps = [
        {
            "name": trigger.name,
            "calls": f"{n:,}",
            "share": f"{100 * n / max(tally.windows, 1):.4g} %",
            "threshold": f"{trigger.threshold:.4g}",
        }
        for trigger, n in zip(watch.triggers, watch.cascade.calls.tolist(), strict=True)
    ]
    share = f"{100 * few / max(always, 1e-9):.4g} % of always on"
    seconds = timeline.width * watch.windows.period * 1e-6
    return page(
        "watch.html.j2",
        {},
        title=f"{watch.cascade.source}: {settings.source['url']}",
        verdict=verdict(watch, settings),
        told=" ".join(filter(None, (causes(watch), against, learning(watch)))),
        labelled=marked is not None,
        tally=tally,
        duration=duration(tally.seconds),
        unit="samples" if watch.windows.channels else "events",
        span=duration(seconds) if seconds else f"{timeline.width} rows",
        timeline=timeline_chart(timeline, marked),
        keys={name: charts.key(charts.Series(name, (), tone)) for name, tone in TONES.items()},
        wakes=[
            _row(wake, tally.first_us, reasons.get(wake.id, ""), watch.pictures.get(wake.id))
            for wake in list(last.values())[-ROWS:]
        ],
        more=max(tally.wakes - min(len(last), ROWS), 0),
        steps=steps,
        model={"calls": f"{few:,.0f}", "share": share, "savings": savings(watch, settings)},
        detector_costs=detector_costs(watch),
        delivered=delivered(watch),
        settings=text,
    )


def _row(wake: Wake, first_us: int, reason: str, clip: bytes | None) -> dict[str, Any]:
    """The cells of a wake in the table."""
    end = f"; {wake.reason}" if wake.type == "end" else "; still open"
    return {
        "at": f"{(wake.t_wake_us - first_us) * 1e-6:,.2f} s",
        "late": duration((wake.t_wake_us - wake.t_start_us) * 1e-6),
        "duration": duration((wake.t_end_us - wake.t_wake_us) * 1e-6),
        "score": f"{wake.score:.3g} of {wake.threshold:.3g}",
        "reason": reason + end,
        "id": wake.id,
        "clip": base64.b64encode(clip).decode() if clip else "",
    }


def delivered(watch: Watch) -> str:
    """What became of the messages, in a sentence."""
    if watch.outbox is None or not watch.outbox.sinks:
        return "No sink is set; wakes are in the outbox."
    counts = watch.outbox.counters()
    sentence = (
        f"Messages: {counts['delivered']:,} delivered, {counts['dead']:,} given up, "
        f"{counts['queued']:,} waiting"
    )
    rest = [
        f"{counts[k]:,} {k}"
        for k in ("undelivered", "retried", "duplicates", "unsaved", "clips_lost")
    ]
    return f"{sentence} ({', '.join(rest)})."


def timeline_chart(timeline: Timeline, marked: np.ndarray | None = None) -> Markup:
    """Rates in and out over scores and thresholds, wakes shaded; nothing for an empty timeline.

    Labelled spans `marked` [N, 2], of microseconds, are bars between the two strips.
    """
    spans = timeline.spans[: timeline.count]
    if len(spans) < 2:
        return Markup("<p>Too short to draw.</p>")
    start, step = spans[0, 0], float(np.median(np.diff(spans[:, 0])))
    length = max(spans[-1, 0] + step - start, 1.0)
    x = LEFT + (spans[:, 0] - start) / length * (RIGHT - LEFT)
    rates = spans[:, 1:3] / (step * 1e-6)
    rate, score = max(float(rates.max()), 1.0), max(float(spans[:, 3:5].max()), 1e-9)
    parts = [_shade(x, step / length * (RIGHT - LEFT), spans[:, 5] > 0)]
    parts += _axes(length, rate, score)
    parts += [_mark(start, length, *span) for span in (() if marked is None else marked.tolist())]
    logs = np.log10(1 + rates) / np.log10(1 + rate)
    strips = [(RATES, share) for share in logs.T] + [(SCORES, v / score) for v in spans[:, 3:5].T]
    for ((top, bottom), share), tone in zip(strips, TONES.values(), strict=True):
        parts.append(_line(x, bottom - share * (bottom - top), tone))
    return Markup('<svg viewBox="0 0 {} 320" role="img"><title>timeline</title>{}</svg>').format(
        int(WIDTH), Markup("").join(parts)
    )


def _line(x: np.ndarray, y: np.ndarray, tone: str) -> Markup:
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
    return Markup('<path class="line" style="stroke:var(--{});stroke-width:1.2" d="{}"/>').format(
        tone, path
    )


def _shade(x: np.ndarray, width: float, awake: np.ndarray) -> Markup:
    """A rectangle for each run of spans in which a wake was open."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], awake.astype(int), [0]])))
    box = Markup('<rect class="awake" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>')
    height = SCORES[1] - RATES[0]
    return Markup("").join(
        box.format(x[a], RATES[0], max(x[b - 1] + width - x[a], 1.5), height)
        for a, b in edges.reshape(-1, 2)
    )


def _mark(start: float, length: float, first_us: float, last_us: float) -> Markup:
    """A bar for a labelled span."""
    place = np.clip((np.array([first_us, last_us]) - start) / length, 0, 1)
    left, right = LEFT + place * (RIGHT - LEFT)
    bar = Markup('<rect style="fill:var(--ann-0)" x="{:.1f}" y="{}" width="{:.1f}" height="8"/>')
    return bar.format(left, RATES[1] + 8, max(right - left, 2.0))


def _axes(length: float, rate: float, score: float) -> list[Markup]:
    """Rules and numbers of both strips, and of the time below them."""
    text = Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>')
    rule = Markup('<path class="grid" d="M{} {:.1f}H{}"/>')
    counts = [v for v in charts.ticks(1, rate, True, 4) if v >= 1] if rate > 1 else []
    marks = [(RATES, np.log10(1 + v) / np.log10(1 + rate), charts.si(v)) for v in (0.0, *counts)]
    marks += [(SCORES, v / score, f"{v:g}") for v in charts.ticks(0, score, False, 4)]
    parts: list[Markup] = []
    for (top, bottom), share, number in marks:
        y = bottom - share * (bottom - top)
        parts += [rule.format(LEFT, y, RIGHT), text.format(LEFT - 8, y + 4, "end", number)]
    for seconds in charts.ticks(0, length * 1e-6, False, 10):
        x = LEFT + seconds / (length * 1e-6) * (RIGHT - LEFT)
        name = duration(seconds) if seconds else "0"
        parts.append(text.format(x, SCORES[1] + 20, "end" if x > RIGHT - 40 else "", name))
    return parts

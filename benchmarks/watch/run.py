"""`axonal bench watch`: decoding, filters, anomalies, bearings, wake words, digits, and a day."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from axonal.core import files
from axonal.report.provenance import facts

from ..harness.results import Figures, kept, table
from . import decoding, digits, filtering, nab, soak, vibration, wakewords

STORE = Path("runs/bench-watch")


def bench(
    out: Path,
    seed: int,
    rounds: int,
    hours: float,
    root: Path = Path("runs/peers"),
    store: Path = STORE,
) -> str:
    """Measure, and write `watch.json`; parts that an interrupted run finished are kept.

    Args:
        out: folder for the figures.
        seed: of noise, order, weights and the day.
        rounds: of timing.
        hours: of the simulated day.
        root: folder of the other libraries' environments.
        store: folder of the training and of finished parts.

    Returns:
        A sentence: what was achieved and where it lies.

    Raises:
        FileError, InputError, MissingExtra, ProcessError: as the parts, or nothing can be written.
    """
    files.writable(out)
    command = f"axonal bench watch --seed {seed} --rounds {rounds} --hours {hours:g}"
    store = store / f"seed-{seed}"
    parts: dict[str, Callable[[], Figures]] = {
        "decoding": lambda: decoding.figures(rounds, root),
        "filtering": lambda: filtering.figures(seed, rounds),
        "nab": lambda: nab.figures(seed),
        "vibration": vibration.figures,
        "wakewords": lambda: wakewords.figures(seed, store),
        "digits": lambda: digits.figures(seed),
        "soak": lambda: soak.figures(store / "soak", hours, seed),
    }
    found: Figures = {}
    for name, part in parts.items():
        found |= kept(store / f"{name}.json", command, part)
    found["calls_avoided"] = 100 * found["digits_lif_calls_avoided"]
    found["event_recall"] = 100 * found["digits_lif_recall"]
    about = facts(command, seed)
    path = files.write(out / "watch.json", json.dumps({"figures": found} | about, indent=1) + "\n")
    return (
        f"A larger model is called {found['calls_avoided']:.1f} % less and sees "
        f"{found['event_recall']:.1f} % of what happens; all lies in {path.resolve()}."
    )


def page(results: dict[str, Any]) -> str:
    """The tables of `axonal bench watch`, in Markdown."""
    f = results["figures"]
    lines = [*_speed(f), "", *filtering.page(f), "", *_anomalies(f), "", *_tasks(f), "", *_day(f)]
    told = f"Medians (smallest–largest) by `{results['command']}` on {results['machine']}."
    return "\n".join([*lines, "", told, ""])


def _number(figure: Any, digits: int = 1) -> str:
    if isinstance(figure, dict):
        value, low, high = (f"{figure[k]:.{digits}f}" for k in ("value", "low", "high"))
        return f"{value} ({low}–{high})"
    return f"{figure:,.{digits}f}"


def _speed(f: Figures) -> list[str]:
    rows = [
        ["EVT2", _number(f["evt2_mev_s"]), f"faery {_number(f['faery_evt2_mev_s'])}"],
        ["EVT3", _number(f["evt3_mev_s"]), f"faery {_number(f['faery_evt3_mev_s'])}"],
        ["N-MNIST", _number(f["nmnist_mev_s"]), "–"],
        [
            "AEDAT 4, dv-processing in a process of its own",
            _number(f["aedat4_mev_s"]),
            f"dv-processing itself {_number(f['dv-processing_aedat4_mev_s'])}",
        ],
        [
            "LIF-trace filter, 346 x 260",
            _number(f["lif_filter_mev_s"]),
            f"dv-processing's background-activity filter {_number(f[filtering.PEER_SPEED])}",
        ],
    ]
    told = (
        f"Reading an hour of events takes {f['decode_hour_mb']:.1f} MB more than reading a tenth "
        f"of a second. Events are equal to faery's, but {100 * f['evt3_times_faery_holds']:.2f} % "
        "of EVT3's times, which it holds where the format's document lets them go back."
    )
    head = ["million events a second, one core", "Axonal", "beside it"]
    return [*table(head, rows), "", told]


def _anomalies(f: Figures) -> list[str]:
    rows = [
        ["ARTime; Numenta HTM; CAD-OSE (published)", "74.9; 70.1; 69.9"],
        ["**Axonal's evolving spiking network**", f"**{f['nab_standard']:.1f}**"],
        [
            "… low false positives; low false negatives",
            _pair(f, "nab_reward_low_", "FP_rate", "FN_rate"),
        ],
        [
            "… each half of the files, at the other's threshold",
            _pair(f, "nab_half ", "[0]", "[1]"),
        ],
        ["… threshold set without labels", f"{f['nab_unlabelled_threshold']:.1f}"],
        ["windowed Gaussian, run here (published 39.6)", f"{f['nab_windowed_gaussian']:.1f}"],
    ]
    told = (
        "Its options were chosen on the whole corpus, with its labels. For a value it sends "
        f"{f['nab_spikes_a_row']:.0f} spikes and does {f['nab_synops_a_row']:.0f} synaptic "
        "operations."
    )
    return [*table(["Numenta Anomaly Benchmark, 58 files, online", "score"], rows), "", told]


def _pair(f: Figures, name: str, first: str, second: str) -> str:
    return f"{f[name + first]:.1f}; {f[name + second]:.1f}"


CONTROLS = {
    "lif": "**inhibited LIF trace + rate**",
    "evolving": "the same, then the evolving network",
    "lif_fixed": "LIF trace with one threshold + rate",
    "stcf_best": "the best of four STCF + rate",
    "stcf": "STCF + rate",
    "rate": "rate",
}


def _tasks(f: Figures) -> list[str]:
    rows = []
    for key, name in CONTROLS.items():
        d = {k: f[f"digits_{key}_{k}"] for k in ("recall", "recall_at_budget", "false_per_hour")}
        duty, late = f[f"digits_{key}_calls_avoided"], f[f"digits_{key}_latency_median_ms"]
        slow = f[f"digits_{key}_latency_p95_ms"]
        rows.append(
            [
                name,
                f"{100 * d['recall']:.1f} %",
                f"{d['false_per_hour']:.1f}",
                f"{100 * d['recall_at_budget']:.1f} %",
                f"{100 * duty:.1f} %",
                f"{late:.0f}, {slow:.0f} ms",
            ]
        )
    chance = f"{100 * f['digits_lif_recall_by_chance']:.1f} %"
    rows += [
        ["awake at random as long as the first", chance, "–", "–", rows[0][4], "–"],
        ["always on", "100 %", "–", "100 %", "0 %", "–"],
    ]
    head = [
        "N-MNIST digits in changing noise",
        "recall",
        "false wakes an hour",
        "recall at exactly one",
        "calls avoided",
        "late (median, p95)",
    ]
    return [*table(head, rows), "", *_sounds(f)]


def _sounds(f: Figures) -> list[str]:
    lead = {k: _number(f[f"bearing_lead_hours_{k}"]) for k in ("evolving", "loudness")}
    false = {k: [f[f"bearing_false_wakes_{k}_{x}"]["value"] for x in (35, 40, 45)] for k in lead}
    rows = [
        ["a bearing run to failure: hours of warning", lead["evolving"], lead["loudness"]],
        *(
            [f"… false wakes in the first {x} % of its life", *(f"{false[k][i]}" for k in lead)]
            for i, x in enumerate((35, 40, 45))
        ),
    ]
    for variant, name in (
        ("as_recorded", "as recorded"),
        ("as_loud", "as loud as the sound machine"),
        ("10db_below", "10 dB below its vibration"),
        ("15db_below", "15 dB below"),
    ):
        woken = [f"{f[f'faults_woken_{variant}_{k}']} of {f['faults']}" for k in lead]
        rows.append([f"bearing faults woken on within a second, {name}", *woken])
    for suffix, name in (("20db", "20 dB"), ("10db", "10 dB"), ("5db", "5 dB")):
        both = [f"{f[f'{k}_missed_at_budget_{suffix}']:.1f} %" for k in ("wakewords", "loudness")]
        rows.append(
            [f"“alexa” missed at half a false wake an hour, voices {name} above noise", *both]
        )
    free = [
        f"{_number(f[f'{k}_missed'])} %, {f[f'{k}_false_per_hour']:.1f} false an hour"
        for k in ("wakewords", "loudness")
    ]
    rows.append(["… all levels, at a threshold set without labels", *free])
    head = ["", "spiking (evolving; for the wake word a trained network)", "threshold on loudness"]
    told = (
        f"The wake word is tested on {f['wakewords_words']:.0f} recordings of voices never heard "
        f"before, and on {f['wakewords_test_hours']:.0f} hours mixed from "
        f"{f['wakewords_minutes']:.0f} minutes of others' speech; trained in "
        f"{f['wakewords_train_seconds']:.0f} s."
    )
    return [*table(head, rows), "", told]


def _day(f: Figures) -> list[str]:
    first, second = (f[f"soak_memory_{half}_half_mb"] for half in ("first", "second"))
    return [
        f"A day of {f['soak_hours']:.0f} simulated hours, {f['soak_events'] / 1e6:.0f} million "
        f"events with floods and drop-outs, killed {f['soak_kills']} times while its broker "
        f"restarted {f['soak_broker_restarts']} times: {f['soak_events_lost']} events lost that no "
        f"counter names, {f['soak_missing_wakes']} of {f['soak_wakes']} wakes missing, "
        f"{f['soak_redelivered']} sent twice; at most {first:.0f} MB in its first half and "
        f"{second:.0f} MB in its second. Of {f['flood_events'] / 1e6:.0f} million events sent by "
        f"UDP at {f['flood_mev_s']:.0f} million a second, with a kill between, "
        f"{f['flood_watched'] / 1e6:.0f} million were watched, the others counted as dropped; "
        f"{f['flood_events_lost']} are unaccounted for."
    ]

"""A wake word among spoken digits, for which a small spiking network listens.

58 recordings of "alexa" are spliced, in noise of several levels, into digits, other words and a few
sentences. A cochlea turns sound into events, a spiking network that Axonal trained runs over these
in the engine, 80 ms at a time, and a threshold found without labels, on another speaker's digits,
is to let half a false wake an hour pass. Voices of the test were never heard before.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from axonal.deploy.engine import Engine
from axonal.graph.graph import Graph
from axonal.sense.detectors import Budget, Classifier
from axonal.sense.detectors.budget import odds
from axonal.sense.wake import Policy

from ..harness.results import Figures
from .listening import WINDOW, train_listener
from .scorecard import Scorecard, score
from .voices import STEP, Cochleagram, Span, Speech, mixture, read_speech
from .waking import burst_threshold, by_chance, wake_intervals

DECIBELS = (20, 10, 5)  # of voices above the noise, minute by minute
BUDGET, EVERY = 0.5, 6.0  # false wakes an hour; seconds from one wake word to the next
AFTER = 0.4  # seconds after a word in which a wake is due to it
POLICY, APART = Policy(postroll=0.5, refractory=0.5), 1.0  # seconds within which wakes are one
NAMES = {"scores": "wakewords", "loudness": "loudness"}  # of figures, by what is judged


@dataclass(frozen=True)
class Scored:
    """A stream of sound, scored window by window, [N].

    Attributes:
        ends_us: of the windows.
        scores: of the network, in log odds; `loudness`, the power's logarithm.
        spans: when a wake word was said, and `decibels`, how many dB above the noise.
        seconds: of the stream; `events`, `synops`, a second.
    """

    ends_us: np.ndarray
    scores: np.ndarray
    loudness: np.ndarray
    spans: list[Span]
    decibels: np.ndarray
    seconds: float
    events: float
    synops: float


def listen(graph: Graph, speech: Speech, minutes: int, seed: int, every: float = np.inf) -> Scored:
    """Listen to a mixture of voices, a minute at a time; the network never stops.

    Args:
        graph: the network.
        speech: what is said.
        minutes: of the mixture.
        seed: of the mixture.
        every: seconds from one wake word to the next.
    """
    stream, cochleagram = Engine(graph, threads=1).stream(), Cochleagram()
    (source,), (output,) = graph.inputs, graph.outputs

    def run(x: np.ndarray) -> np.ndarray:
        return stream.push({source: x.reshape(WINDOW, -1)})[output].to_dense().mean(0)

    detector, rng = Classifier(run, 1), np.random.default_rng(seed)
    scores, loudness, spans, decibels, events = [], [], [], [], 0.0
    for minute in range(minutes):
        decibel = DECIBELS[minute % len(DECIBELS)]
        signal, wakewords = mixture(speech, 60.0, decibel, rng, every)
        spans += [(60 * minute + a, 60 * minute + b, k) for a, b, k in wakewords]
        decibels += [decibel] * len(wakewords)
        frames = cochleagram(signal)
        events += float(frames.sum())
        sure = [detector.score_one(x) for x in frames.reshape(len(frames) // WINDOW, -1)]
        scores.append(np.log(odds(np.array(sure))))
        loudness.append(np.log(np.square(signal).reshape(len(frames) // WINDOW, -1).mean(1)))
    count = sum(map(len, scores))
    ends = (np.arange(count) + 1) * round(WINDOW * STEP * 1e6)
    rows = ends, np.concatenate(scores), np.concatenate(loudness)
    columns = *rows, spans, np.array(decibels)
    seconds = 60.0 * minutes
    return Scored(*columns, seconds, events / seconds, stream.counts().total("synops") / seconds)


def judge(stream: Scored, scores: np.ndarray, limit: float) -> tuple[Scorecard, np.ndarray]:
    """Judge a threshold: its scorecard, and which wake words were missed, [wake words] bool."""
    wakes = wake_intervals(stream.ends_us, scores, limit, POLICY)
    truth = [(a, b + AFTER) for a, b, _ in stream.spans]
    missed = [not any(p <= b and q >= a for p, q in wakes) for a, b in truth]
    return score(wakes, truth, stream.seconds), np.array(missed)


def misses(stream: Scored, missed: np.ndarray, seed: int) -> Figures:
    """Misses in per cent, with the 95 % interval of as many other recordings of the word.

    Recordings are drawn again, each with all of its mixtures (Efron 1979).
    """
    word = np.array([k for _, _, k in stream.spans])
    rate = np.array([missed[word == k].mean() for k in np.unique(word)])
    drawn = np.random.default_rng(seed).choice(rate, (1000, len(rate))).mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    parts = {"value": missed.mean(), "low": low, "high": high}
    return {name: round(100 * float(part), 2) for name, part in parts.items()}


def figures(seed: int, store: Path, hours: float = 3.0) -> Figures:
    """Measure misses at half a false wake an hour, what they cost, and controls.

    Args:
        seed: of weights, order, mixtures and noise.
        store: folder of the training.
        hours: of the test without wake words, mixtures of "wakewords_minutes" of recordings; half
            as many calibrate, a quarter as many have wake words in them.

    Returns:
        "[K]_missed", per cent at the threshold that was set without labels, and
        "[K]_false_per_hour" at it; "[K]_missed_at_budget" at the lowest threshold that keeps to
        the budget on the test itself, as the literature quotes it, and "..._[D]db" of noise so far
        below the voices. K: "wakewords", the network; "loudness", a threshold on the power. Of the
        network also latencies from the beginning of a word, duty, misses if one woke at random for
        as long ("_by_chance"), how many reversed wake words wake it ("_reversed"), events and
        synaptic operations a second, seconds of training, and what was used.

    Raises:
        FileError: recordings are missing, or `store` can't be written.
    """
    graph, took = train_listener(seed, store)
    minutes, test = max(round(60 * hours), len(DECIBELS)), read_speech("test")
    short = max(minutes // 4, len(DECIBELS))
    calm = listen(graph, read_speech("calibrate"), 2 * short, seed + 1)
    quiet = listen(graph, test, minutes, seed + 2)
    busy = listen(graph, test, short, seed + 3, EVERY)
    turned = replace(test, wakewords=[word[::-1] for word in test.wakewords])
    back = listen(graph, turned, short, seed + 4, EVERY)
    figures: Figures = {}
    for name in NAMES:
        known, silent, lively = (getattr(one, name) for one in (calm, quiet, busy))
        limit = Budget(BUDGET).fit(known, calm.seconds)
        best = burst_threshold(quiet.ends_us, silent, int(BUDGET * quiet.seconds / 3600), APART)
        card, missed = judge(busy, lively, limit)
        least = judge(busy, lively, best)[1]
        false = judge(quiet, silent, limit)[0].false_per_hour
        part = {"missed": misses(busy, missed, seed), "false_per_hour": round(false, 3)}
        part["missed_at_budget"] = misses(busy, least, seed)
        for decibel in DECIBELS:
            part[f"missed_at_budget_{decibel}db"] = _percent(least[busy.decibels == decibel].mean())
        if name == "scores":
            truth = [(a, b + AFTER) for a, b, _ in busy.spans]
            chance = by_chance(card, truth, busy.seconds, seed)
            part["missed_by_chance"] = _percent(1 - chance.recall)
            part["reversed"] = _percent(judge(back, back.scores, best)[0].recall)
            own = {k: v for k, v in card.figures().items() if k != "false_per_hour"}
            part |= {k: round(v, 4) for k, v in own.items() if np.isfinite(v)}
        figures |= {f"{NAMES[name]}_{key}": value for key, value in part.items()}
    about = {"train_seconds": took, "test_hours": hours, "minutes": round(test.minutes, 2)}
    about |= {"words": len(test.wakewords), "events_s": quiet.events, "synops_s": quiet.synops}
    return figures | {f"wakewords_{key}": round(value, 2) for key, value in about.items()}


def _percent(share: float) -> float:
    return round(100 * float(share), 2)

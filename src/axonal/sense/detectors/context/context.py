"""How strange a row is in its context: four views of its history, added in nats."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....core.errors import InputError
from ....core.meter import FIELDS, Counts
from ..base import Online, vector
from .surprise import Surprise
from .views import LAGS, NEURONS, Courses, History, Reservoir, Shapes, View, Windows

CHUNK = 32  # rows that are judged by the same tables, and learned together
FIRST = 128  # rows after which scales and the period are known, for the first time
KEPT = 8192  # rows from which all is learned anew
SCORED = 3000  # rows at most that are learned anew before their distances count
FAR = 20.0  # deviations at which a row is cut
SHORTEST, LONGEST, USUAL = 8, 512, 64  # periods
CALM = 2.2  # nats of a chunk, on the mean, from which what is near is not learned


def period_of(u: np.ndarray) -> int:
    """The period of rows u [N, C] by the autocorrelation, averaged over channels.

    The highest local maximum between `SHORTEST` and `LONGEST` rows, and `USUAL` where none is
    above 0.1.
    """
    n = len(u)
    size = 1 << (2 * n - 1).bit_length()
    power = np.abs(np.fft.rfft(u - u.mean(0), size, axis=0)) ** 2
    wave = np.fft.irfft(power, size, axis=0)[: min(n // 2, LONGEST + 1)]
    live = wave[0] > 0
    if not live.any() or len(wave) <= SHORTEST + 1:
        return USUAL
    mean = (wave[:, live] / wave[0, live]).mean(1)
    inner = mean[SHORTEST:-1]
    peaks = (inner > mean[SHORTEST - 1 : -2]) & (inner >= mean[SHORTEST + 1 :]) & (inner > 0.1)
    return SHORTEST + int(np.argmax(np.where(peaks, inner, -1.0))) if peaks.any() else USUAL


@dataclass(eq=False, kw_only=True)
class Context(Online):
    """A detector that sees each row in the history of all channels, and scores it in nats.

    Rows x are standardised, u = clip((x - m) / s, +-20), and seen in four ways (`views`): windows,
    whitened; rates of a reservoir of leaky integrate-and-fire neurons; shapes of each channel; and
    courses of all channels together. The distance of each from what was learned becomes nats
    -ln P(distance >= d) (`Surprise`); channels are joined by half their mean and half their
    largest, in nats again. The surprise S is the mean of the four, the score S / (1 + S).

    The first `calibration` rows are taken for normal. Scales and the period come from the rows so
    far, at 128, 256, ... of these and at three quarters, and all is learned anew then; the last
    quarter shows a budget what scores mean. Later, rows are
    learned two periods after they came, if S stayed calm from a period before them until then; so
    an anomaly does not become normal while it lasts. What has not been calm for 8,192 rows is a
    new normal life: all is learned anew from these.

    Args:
        calibration: rows, at least 128.
        seed: of the reservoir.

    Attributes:
        channels: [T, F], how strange each channel was in the rows that were followed last: the nats
            of its shape, and half its deviations.

    Raises:
        InputError: a calibration that is shorter.
    """

    STATE = (
        *("features", "rows", "stored", "pending", "still", "aside", "period"),
        *("recent", "mean", "spread", "history", "parts", "sums"),
        *("windows", "reservoir", "shapes", "courses"),
    )

    calibration: int = 2000
    seed: int = 0

    def __post_init__(self):
        if self.calibration < FIRST:
            raise InputError(f"calibration is {self.calibration}; it must be at least {FIRST} rows")
        self.settled = self.calibration * 3 // 4  # the last quarter is judged as what comes later
        self.rows = self.stored = self.period = 0
        self.recent = np.empty((0, 0))
        self.mean = self.spread = np.empty(0)
        self.channels = self.strange = np.empty((0, 0))
        self._build(1, USUAL)

    def _build(self, channels: int, period: int) -> None:
        """Views that have seen nothing, for so many channels and rows of a period."""
        made = channels, period, self.seed
        self.windows, self.reservoir = Windows(*made), Reservoir(*made)
        self.shapes, self.courses = Shapes(*made), Courses(*made)
        self.views: tuple[View, ...] = self.windows, self.reservoir, self.shapes, self.courses
        kinds = [view.kinds for view in self.views]
        self.cuts = np.cumsum(kinds)
        self.parts, self.sums = Surprise(sum(kinds)), Surprise(2)
        self.delay = max(2 * period, 2 * CHUNK)
        tail = 4 * period + self.delay + LAGS + 2 * CHUNK
        self.history = History(channels, tail, sum(kinds) + 1)
        self.pending = self.still = self.aside = 0  # not learned yet, or not calm; not counted yet

    def follow(self, x: np.ndarray) -> np.ndarray:
        """The scores of rows x [T, F], each of which is learned behind it.

        Raises:
            InputError, NotFinite: as `vector`.
        """
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or (self.features and x.shape[1] != self.features) or not x.shape[1]:
            raise InputError(f"rows {list(x.shape)} must be [T, {self.features or 'F'}]")
        if len(wrong := np.flatnonzero(~np.isfinite(x).all(1))):
            vector(x[wrong[0]])  # says which
        scores, at = np.zeros(len(x)), 0
        self.channels = np.zeros(x.shape)
        if len(x) and not self.features:
            self._begin(x[0])
            self.features = x.shape[1]
        while at < len(x):
            size = min(len(x) - at, CHUNK - self.rows % CHUNK, self._next() - self.rows)
            nats = self._take(x[at : at + size])
            scores[at : at + size] = nats / (1 + nats)
            if self.period:
                self.channels[at : at + size] = self.strange[-size:]
            at += size
        return scores

    def _begin(self, x: np.ndarray) -> None:
        self.recent = np.zeros((2 * KEPT, len(x)))
        self.mean, self.spread = np.zeros(len(x)), np.ones(len(x))

    def _score(self, x: np.ndarray) -> float:
        if not self.period:
            return 0.0
        before = {name: getattr(self.reservoir, name) for name in Reservoir.DYNAMIC}
        vars(self.reservoir).update({name: copy(value) for name, value in before.items()})
        begin, _ = self.history.add(self._scaled(x[None]))
        nats = float(self._judge(begin, begin + 1)[0])
        vars(self.reservoir).update(before)
        self.history.end = begin
        return nats / (1 + nats)

    def _learn(self, x: np.ndarray) -> None:
        self._take(x[None])

    def _next(self) -> int:
        """The row at which the rows so far are learned anew, while they are taken for normal."""
        if self.rows >= self.settled:
            return self.rows + CHUNK
        doubled = FIRST
        while doubled <= self.rows:
            doubled *= 2
        return min(doubled if doubled <= KEPT else self.settled, self.settled)

    def _take(self, x: np.ndarray) -> np.ndarray:
        """The nats [T] of rows x [T, F], which don't reach beyond a chunk."""
        if self.stored + len(x) > len(self.recent):
            self.recent[:KEPT] = self.recent[self.stored - KEPT : self.stored].copy()
            self.stored = KEPT
        self.recent[self.stored : self.stored + len(x)] = x
        self.stored += len(x)
        anew = self.rows < self.settled and self.rows + len(x) == self._next()
        nats = self._follow(self._scaled(x)) if self.period else np.zeros(len(x))
        self.rows += len(x)
        if anew or self.still >= KEPT:
            self._renew()
        return nats

    def _renew(self) -> None:
        """Learn the last rows anew, with scales and a period of their own."""
        rows = self.recent[max(0, self.stored - KEPT) : self.stored]
        self.mean = rows.mean(0)
        self.spread = np.maximum(rows.std(0), 1e-6 * (1 + np.abs(self.mean)))
        u = self._scaled(rows)
        self.period = period_of(u)
        self._build(u.shape[1], self.period)
        self.aside = min(len(u) // 2, SCORED)  # early distances are larger than later ones
        for at in range(0, len(u), CHUNK):
            self._follow(u[at : at + CHUNK], trusted=True)
        while self.pending > 0:
            self._learn_rows(min(CHUNK, self.pending))

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return np.clip((x - self.mean) / self.spread, -FAR, FAR)

    def _follow(self, u: np.ndarray, trusted: bool = False) -> np.ndarray:
        """Judge rows u [T, C], and learn those before whose time has come, if they were calm."""
        begin, end = self.history.add(u)
        nats = self._judge(begin, end)
        self.pending += len(u)
        whole = trusted or (self.rows + len(u)) % CHUNK == 0  # the same in chunks of any size
        while whole and self.pending >= self.delay + CHUNK:
            # What was pending at the end of the calibration belongs to it.
            early = self.rows + len(u) - self.pending < self.calibration
            if trusted or early or self._calm():
                self._learn_rows(CHUNK)
                self.still = 0
            else:
                self.pending -= CHUNK
                self.still += CHUNK
        return nats

    def _judge(self, begin: int, end: int) -> np.ndarray:
        """The surprise S [T] of rows in the history, which keeps it and the distances."""
        d = np.concatenate([view.judge(self.history, begin, end) for view in self.views], 1)
        nats = self.parts.nats(d)
        channels, both = self._joined(nats)
        self.strange = channels + 0.5 * np.abs(self.history.u[begin:end])
        total = np.concatenate([nats[:, :2], self.sums.nats(both)], 1).mean(1)
        self.history.distance[begin:end] = np.concatenate([d, total[:, None]], 1)
        return total

    def _joined(self, nats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of all nats [T, K] those of channels [T, C]; and of shapes and courses, joined [T, 2]."""
        _, _, shapes, courses = np.split(nats, self.cuts[:-1], 1)
        channels = shapes.reshape(len(nats), 3, -1).mean(1)
        joined = 0.5 * (channels.mean(1) + channels.max(1))
        return channels, np.stack([joined, courses.mean(1)], 1)

    def _calm(self) -> bool:
        """Whether no chunk from a period before the oldest that is pending on was strange."""
        end = self.history.end
        begin = max(0, end - self.pending - self.delay // 2)
        chunks = (end - begin) // CHUNK
        nats = self.history.distance[end - chunks * CHUNK : end, -1].reshape(chunks, CHUNK)
        return bool(nats.mean(1).max() < CALM)

    def _learn_rows(self, count: int) -> None:
        """Learn the oldest rows that are pending."""
        begin = self.history.end - self.pending
        end = begin + count
        d = self.history.distance[begin:end, :-1]
        if self.aside <= 0:
            self.parts.learn(d)
            self.sums.learn(self._joined(self.parts.nats(d))[1])  # by the tables of now
        for view, part in zip(self.views, np.split(d, self.cuts[:-1], 1), strict=True):
            view.learn(self.history, begin, end, part)
        self.pending -= count
        self.aside -= count

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as `Stateful.restore` does."""
        if state.get("period"):
            self._build(int(state["features"]), int(state["period"]))
        super().restore(state)

    def counts(self) -> Counts:
        """The work of a row, on the mean since all was last learned anew."""
        rows = max(self.reservoir.rows, 1)
        events, spikes = self.reservoir.events / rows, self.reservoir.spikes / rows
        multiplies = sum(view.multiplies for view in self.views)
        row = {
            "synops": events * NEURONS,
            "adds": events * NEURONS + 4 * NEURONS + multiplies,
            "multiplies": multiplies,
            "weight_reads": events * NEURONS + multiplies,
            "state_reads": 3 * NEURONS,
            "state_writes": 3 * NEURONS,
            "spikes": events + spikes,
            "sites": self.history.u.shape[1] + NEURONS,
        }
        table = np.array([row.get(field, 0.0) for field in FIELDS]).reshape(1, 1, -1)
        return Counts((type(self).__name__,), table, 1)

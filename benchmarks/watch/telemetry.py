"""Telemetry that nobody tuned for: detectors beside what users would pick, on labelled families.

Settings were chosen on the halves called `dev`; figures are of `check`, whole series, means over
families. A series' first rows are normal; whatever learns, learns of these first.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from axonal.core import files
from axonal.core.errors import FileError
from axonal.data.images import root
from axonal.sense.detectors import Context, WindowBudget
from axonal.sense.detectors.context.context import period_of

from ..harness import peers
from ..harness.results import Figures
from .contenders import CONTENDERS, OUTSIDE
from .vus import spans, volumes

DEFAULT, FAR, LONGEST = "context", 20.0, 100  # deviations; rows of a soft edge
SLOW = ("tep", "oil3w")  # faults last to the end
RARE, NEAR = 2000, 100  # the budget, and rows around an anomaly that are neither
ROWS, CHANNELS = 20_000, 8  # of throughput
DRAWS = 10_000  # of families, for an interval


@dataclass(frozen=True, eq=False)
class Series:
    """A labelled series: rows u [T, C], standardised by the first `train`; labels [T].

    `scored` [T] tells which rows count.
    """

    family: str
    name: str
    u: np.ndarray
    labels: np.ndarray
    scored: np.ndarray
    train: int

    @property
    def period(self) -> int:
        """Of its normal rows."""
        return period_of(self.u[: self.train])


def index(folder: Path) -> list[dict[str, Any]]:
    """The table of all series.

    Raises:
        FileError: it is missing.
    """
    path = folder / "index.json"
    if not path.exists():
        raise FileError(f"{path} is missing; set AXONAL_DATA to a folder with telemetry")
    return json.loads(path.read_text())


def read(folder: Path, about: Mapping[str, Any]) -> Series:
    """Read one series of the table."""
    with np.load(folder / f"{about['family']}.npz") as data:
        x, labels = data[about["name"]].astype(np.float64), data[f"{about['name']}_labels"]
    x, train = x.reshape(len(x), -1), int(about["train_end"])
    mean, spread = x[:train].mean(0), x[:train].std(0)
    u = np.clip((x - mean) / np.maximum(spread, 1e-6 * (1 + np.abs(mean))), -FAR, FAR)
    scored = np.ones(len(x), bool)
    for begin, end in about.get("ignore") or []:
        scored[begin:end] = False
    return Series(about["family"], about["name"], u, labels.astype(int), scored, train)


def judged(series: Series, scores: np.ndarray) -> dict[str, float]:
    """VUS-ROC, VUS-PR and, where there is one anomaly, whether the highest score lies at it."""
    keep = series.scored[series.train :]
    labels, scores = series.labels[series.train :][keep], scores[keep]
    roc, pr = volumes(scores, labels, min(LONGEST, series.period))
    found = {"roc": roc, "pr": pr}
    if len(edges := spans(labels)) == 1:
        (begin, end), place = edges[0], int(np.argmax(scores))
        found["located"] = float(begin - NEAR <= place < end + NEAR)
    return found


def wakes(surprise: np.ndarray, budget: WindowBudget, train: int) -> np.ndarray:
    """The rows at which events begin, and all in which one is open: [T] of 0, 1 and 2.

    An event begins where the threshold is reached, and ends when 64 rows have stayed below 0.8 of
    it; `surprise` [T] is of all rows, of which `train` calibrate.
    """
    states, last = np.zeros(len(surprise), int), -RARE
    for row, value in enumerate(surprise.tolist()):
        lasts = row - last <= 64
        if row >= train and value >= budget.threshold * (0.8 if lasts else 1.0):
            states[row], last = (1 if lasts else 2), row
        budget.update(value, row)
    return states


def budgeted(series: Series, surprise: np.ndarray, train: int) -> dict[str, float] | None:
    """False events beside those that the budget allows, and the share of anomalies awake for.

    And of the fixed threshold that would have been best, of those that keep to the budget.
    """
    states = wakes(surprise, WindowBudget(RARE, calibration=train), train)[train:]
    labels, later = series.labels[-len(surprise) + train :], surprise[train:]
    calm = np.convolve(labels, np.ones(2 * NEAR + 1), "same") == 0
    allowed = calm.sum() / RARE
    edges = spans(labels)
    if allowed < 0.3 or not len(edges):
        return None

    def recall(awake: np.ndarray) -> float:
        return float(np.mean([awake[max(a - 32, 0) : b + 64].any() for a, b in edges]))

    best = 0.0
    for threshold in np.quantile(later, 1 - np.geomspace(1e-5, 0.3, 60)):
        above = np.flatnonzero(later >= threshold)
        begins = above[np.diff(above, prepend=-RARE) > 64]
        if calm[begins].sum() > allowed:
            break
        best = recall(later >= threshold)
    false = float((calm & (states == 2)).sum())
    return {"false": false, "allowed": float(allowed), "recall": recall(states > 0), "best": best}


_workers = ExitStack()
_peers: dict[str, peers.Peer] = {}


def _outside(series: Series, method: str, folder: Path, store: Path) -> np.ndarray:
    """The scores of a contender of another library."""
    if not _peers:
        _peers["anomalies"] = _workers.enter_context(peers.worker("anomalies", store, 1))
    data, out = folder / "rows.npz", folder / "scores.npy"
    np.savez(data, u=series.u.astype(np.float32), train=series.train, period=series.period)
    _peers["anomalies"].ask(do="anomalies", method=method, file=str(data), out=str(out))
    return np.load(out).astype(np.float64)


def compare(about: Mapping[str, Any], folder: Path, store: Path, root: Path) -> dict[str, Any]:
    """Judge all contenders on one series; what was finished before is read from `store`."""
    path = store / f"{about['family']}-{about['name']}.json".replace("/", "_")
    if path.exists():
        return json.loads(path.read_text())
    series = read(folder, about)
    found: dict[str, Any] = {"family": series.family, "name": series.name}
    with tempfile.TemporaryDirectory() as name:
        for title, score in CONTENDERS.items():
            found[title] = judged(series, score(series.u, series.train))
        for title, method in OUTSIDE.items():
            scores = _outside(series, method, Path(name), root)
            found[title] = judged(series, scores)
    if series.family not in SLOW:
        found["budget"] = budgeted(series, *_surprise(series, series.train))
        found["budget 400"] = budgeted(series, *_surprise(series, 400))
    files.write(path, json.dumps(found))
    return found


def _surprise(series: Series, train: int) -> tuple[np.ndarray, int]:
    """The default's nats of the last `train` normal rows and those behind, and how many train."""
    train = max(min(train, series.train), 128)
    score = Context(calibration=train).follow(series.u[max(series.train - train, 0) :])
    return score / (1 - score), train


def figures(store: Path, root_of_peers: Path, folder: Path | None = None) -> Figures:
    """Compare all contenders on `check`.

    Args:
        store: of what is finished, a file a series.
        root_of_peers: folder of the other libraries' environments.
        folder: of the families; `$AXONAL_DATA/telemetry` if None.

    Raises:
        FileError: the data are missing, or an environment can't be made.
    """
    folder = folder or root() / "telemetry"
    chosen = [about for about in index(folder) if about["split"] == "check"]
    chosen.sort(key=lambda about: -about["channels"] * about["length"])
    peers.interpreter("anomalies", root_of_peers)
    job = partial(compare, folder=folder, store=files.writable(store), root=root_of_peers)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = [*pool.map(job, chosen)]
    return summary(found) | {"rows_per_second": round(throughput()), **drift()}


def _family_means(found: Iterable[Mapping[str, Any]], title: str, key: str) -> dict[str, float]:
    families: dict[str, list[float]] = {}
    for one in found:
        families.setdefault(one["family"], []).append(one[title][key])
    return {family: float(np.mean(values)) for family, values in families.items()}


def _ahead(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    """The mean difference over families, and its 95 % interval by drawing families anew."""
    each = np.array([ours[family] - theirs[family] for family in ours])
    draw = np.random.default_rng(0).integers(len(each), size=(DRAWS, len(each)))
    low, high = np.quantile(each[draw].mean(1), [0.025, 0.975])
    value, low, high = (round(float(x), 4) for x in (each.mean(), low, high))
    return {"value": value, "low": low, "high": high}


SHORT = {
    DEFAULT: "default",
    "isolation forest": "forest",
    "windowed Gaussian": "gaussian",
    "moving z-score": "movingz",
    "sub-PCA": "subpca",
}


def summary(found: Sequence[Mapping[str, Any]]) -> Figures:
    """The figures of all series: means over families, ranks, shares of families beaten, places."""
    titles = [*CONTENDERS, *OUTSIDE]
    pr = {title: _family_means(found, title, "pr") for title in titles}
    roc = {title: _family_means(found, title, "roc") for title in titles}
    table = np.array([[*pr[title].values()] for title in titles])
    ranks = (
        (table[:, None] < table[None]).sum(1)
        + 1
        + 0.5 * ((table[:, None] == table[None]).sum(1) - 1)
    )
    figures: Figures = {"families": table.shape[1], "series": len(found)}
    for title, rank in zip(titles, ranks.mean(1), strict=True):
        figures[f"VUS-PR [{title}]"] = round(float(np.mean([*pr[title].values()])), 4)
        figures[f"VUS-ROC [{title}]"] = round(float(np.mean([*roc[title].values()])), 4)
        figures[f"mean rank [{title}]"] = round(float(rank), 2)
        located = [one[title]["located"] for one in found if "located" in one[title]]
        figures[f"located [{title}]"] = round(float(np.mean(located)), 3)
        better = [pr[DEFAULT][f] > value for f, value in pr[title].items()]
        figures[f"families above [{title}]"] = round(float(np.mean(better)), 3)
        figures[f"VUS-PR ahead of [{title}]"] = _ahead(pr[DEFAULT], pr[title])
    for family, value in pr[DEFAULT].items():
        figures[f"VUS-PR in {family}"] = round(value, 3)
    for family in SLOW:
        figures[f"VUS-ROC in {family}"] = round(roc[DEFAULT].get(family, np.nan), 3)
        figures[f"VUS-ROC in {family} [sub-PCA]"] = round(roc["sub-PCA"].get(family, np.nan), 3)
    for title, short in SHORT.items():
        figures[f"{short}_vuspr"] = figures[f"VUS-PR [{title}]"]
    figures |= {
        "default_mean_rank": figures[f"mean rank [{DEFAULT}]"],
        "families_beaten": figures["families above [isolation forest]"],
        "top1_location": figures[f"located [{DEFAULT}]"],
        "matrix_profile_top1": figures["located [matrix profile]"],
    }
    return figures | _of_budget(found, "budget", "") | _of_budget(found, "budget 400", "_400_rows")


def _of_budget(found: Iterable[Mapping[str, Any]], key: str, suffix: str) -> Figures:
    """Realised over allowed false events, and recall over the best, means over families."""
    rows = [one for one in found if one.get(key)]
    false, allowed = (sum(one[key][name] for one in rows) for name in ("false", "allowed"))
    recall, best = (
        float(np.mean([*_family_means(rows, key, name).values()])) for name in ("recall", "best")
    )
    return {
        f"budget_ratio{suffix}": round(false / allowed, 3),
        f"budget_recall{suffix}": round(recall, 3),
        f"budget_recall_share{suffix}": round(recall / best, 3),
    }


def throughput() -> float:
    """Rows a second of 8 channels, on one core, of the default: the median of three."""
    draw, t = np.random.default_rng(0), np.arange(2 * ROWS)[:, None]
    rows = np.sin(t / 10 + np.arange(CHANNELS)) + 0.1 * draw.normal(size=(2 * ROWS, CHANNELS))
    detector, seconds = Context(), []
    detector.follow(rows[:ROWS])
    for part in np.array_split(rows[ROWS:], 3):
        began = time.perf_counter()
        detector.follow(part)
        seconds.append((time.perf_counter() - began) / len(part))
    return 1 / float(np.median(seconds))


def drift() -> Figures:
    """Rows after which another level and rhythm is normal life."""
    draw, t = np.random.default_rng(0), np.arange(30_000)
    wave = np.where(t < 6000, np.sin(t / 10), 3 + np.sin(t / 17)) + 0.1 * draw.normal(size=len(t))
    score = Context().follow(wave[:, None])
    calm = (score / (1 - score))[6000:].reshape(-1, 100).mean(1) < 2
    return {"drift_learned_after_rows": int(100 * np.argmax(calm))}

"""Voices in noise: recordings of a wake word, digits and other speech, and mixtures of them."""

import zlib
from dataclasses import dataclass

import numpy as np

from axonal.core.errors import FileError
from axonal.data.images import root
from axonal.data.recordings import FSDD, read_wav
from axonal.sense.sources import Cochlea
from axonal.sense.stream import samples

from .waking import arrays

WAKEWORDS = "sensor/wakewords/wakewords_16k.npz"
RATE, LEVEL = 8000, 0.05  # samples a second; root mean square of a voice
KEYWORDS = "multiple_keywords_000"  # other wake words; a network takes one, here, for "alexa":
DOUBTFUL = slice(7 * RATE, 10 * RATE)
WORD, LEAD = 0.8, 0.1  # seconds of a wake word, and of what is kept around it
STEP, CHANNELS = 0.02, 32  # seconds in which events are counted; of the cochlea
SPEAKERS = {  # of digits, by part
    "train": ("george", "jackson", "lucas"),
    "calibrate": ("nicolas",),
    "test": ("theo", "yweweler"),
}
DEALT = {  # other recordings, by a hash of their names % 100, and seconds by their place
    "train": range(64),
    "calibrate": range(64, 70),
    "test": range(70, 100),
}
Span = tuple[float, float, int]  # of a word: seconds from and to, and which it was


@dataclass(frozen=True)
class Speech:
    """Recordings of one part, each [samples] at `RATE` and `LEVEL`.

    Attributes:
        wakewords: of the wake word.
        digits: zero to nine.
        other: other words, and a second each of sentences.
    """

    wakewords: list[np.ndarray]
    digits: list[np.ndarray]
    other: list[np.ndarray]

    @property
    def minutes(self) -> float:
        """The length of all but the wake word."""
        return sum(map(len, self.digits + self.other)) / RATE / 60


def read_speech(part: str) -> Speech:
    """Read the recordings of a part: "train", "calibrate" or "test".

    Raises:
        FileError: they are missing or damaged.
    """
    folder = root() / FSDD
    signals = {n: decimate(x.astype(np.float32) / 32768) for n, x in arrays(WAKEWORDS).items()}
    dealt = {n: x for n, x in signals.items() if zlib.crc32(n.encode()) % 100 in DEALT[part]}
    wakewords = [trim(x) for name, x in dealt.items() if name.startswith("alexa")]
    other = [trim(x) for name, x in dealt.items() if name.startswith("computer")]
    for name in (name for name in signals if name.startswith("oww")):
        seconds = split_seconds(signals[name])
        ends = [len(seconds) * share // 100 for share in (DEALT[part].start, DEALT[part].stop)]
        other += seconds[slice(*ends)]
    if part == "train" and KEYWORDS in signals:
        other += split_seconds(np.delete(signals[KEYWORDS], DOUBTFUL))
    wavs = (f for f in sorted(folder.glob("*.wav")) if f.stem.split("_")[1] in SPEAKERS[part])
    digits = [normalise(read_wav(wav, RATE)) for wav in wavs]
    if not (wakewords and digits and other):
        raise FileError(f"{WAKEWORDS} or {folder} holds no {part} recordings; fetch both again")
    return Speech(wakewords, digits, other)


def decimate(signal: np.ndarray) -> np.ndarray:
    """Take every other sample behind a low-pass filter, a sinc cut at 0.45 of the new rate."""
    n = np.arange(-32, 33)
    taps = np.sinc(0.45 * n) * np.hanning(len(n))
    return np.convolve(signal, taps / taps.sum(), "same")[::2].astype(np.float32)


def split_seconds(signal: np.ndarray) -> list[np.ndarray]:
    """Cut a signal into whole seconds, levelled."""
    return [normalise(part) for part in signal[: len(signal) // RATE * RATE].reshape(-1, RATE)]


def normalise(signal: np.ndarray) -> np.ndarray:
    """Scale a signal to a root mean square of `LEVEL`."""
    return signal * (LEVEL / (np.sqrt(np.mean(np.square(signal))) + 1e-9))


def trim(signal: np.ndarray) -> np.ndarray:
    """Cut out the `WORD` seconds with most within 20 dB of the loudest, and `LEAD` around them."""
    hop, n = RATE // 100, round(100 * WORD)
    power = np.square(signal[: len(signal) // hop * hop]).reshape(-1, hop).mean(1)
    decibel = 10 * np.log10(np.convolve(power, np.ones(3) / 3, "same") + 1e-10)
    loud = np.clip(decibel - np.percentile(decibel, 98) + 20, 0, None)
    mass = np.convolve(loud, np.ones(n), "valid")
    best = np.flatnonzero(mass >= mass.max() - 1e-6)
    start = int(best[len(best) // 2]) * hop
    around = signal[max(start - round(LEAD * RATE), 0) : start + round((WORD + LEAD) * RATE)]
    return normalise(around)


def vary(signal: np.ndarray, rng: np.random.Generator, stretch: float) -> np.ndarray:
    """Vary a voice: a speed of 1 +- `stretch`, another loudness and tone, another room."""
    at = np.arange(0, len(signal) - 1, rng.uniform(1 - stretch, 1 + stretch))
    x = np.interp(at, np.arange(len(signal)), signal)
    if rng.random() < 0.5:  # a room: noise that decays by 60 dB (Moorer 1979)
        length = round(rng.uniform(0.05, 0.3) * RATE)
        tail = rng.normal(size=length) * np.exp(-6.9 * np.arange(length) / length)
        room = np.concatenate([[1.0], rng.uniform(0.05, 0.4) * tail])
        n = 1 << (len(x) + length).bit_length()
        x = np.fft.irfft(np.fft.rfft(x, n) * np.fft.rfft(room, n), n)[: len(x) + length]
    x = np.convolve(x, [1, *rng.uniform(-0.5, 0.5, 2)])
    ramp = np.minimum(np.arange(len(x)), np.arange(len(x))[::-1]) / (0.01 * RATE)
    return normalise(x) * np.minimum(ramp, 1) * 10 ** (rng.uniform(-6, 6) / 20)


def scramble(signal: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make of a word the same voice and sounds, but no word.

    Its pieces come in another order, some of them backwards, or one half of it is joined to the
    other half of `other`.
    """
    if rng.random() < 0.5:
        first, second = (signal, other)[:: rng.choice([-1, 1])]
        cut = rng.uniform(0.35, 0.65)
        return np.concatenate([first[: int(cut * len(first))], second[int(cut * len(second)) :]])
    cuts = np.sort(rng.integers(len(signal) // 4, 3 * len(signal) // 4, rng.integers(1, 4)))
    pieces = [part[:: rng.choice([-1, 1])] for part in np.split(signal, cuts)]
    return np.concatenate([*pieces[1:], pieces[0]])


def noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw white, pink or brown noise at `LEVEL`; no rumble below 10 Hz."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    f = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 10)
    return normalise(np.fft.irfft(spectrum * f ** -rng.choice([0, 0.5, 1]), count))


def mixture(
    speech: Speech,
    seconds: float,
    decibel: float,
    rng: np.random.Generator,
    every: float = np.inf,
    scrambled: float = 0.0,
    stretch: float = 0.05,
) -> tuple[np.ndarray, list[Span]]:
    """Mix voices one after another with pauses, in noise `decibel` below them.

    Args:
        speech: what is said.
        seconds: of the mixture.
        decibel: of the voices above the noise.
        rng: of order, pauses, variation and noise.
        every: seconds from one wake word to the next.
        scrambled: share of wake words among the rest that are no words any more, see `scramble`.
        stretch: as of `vary`.

    Returns:
        The signal [seconds x RATE] float32, and the wake words in it.
    """
    signal = np.zeros(round(seconds * RATE))
    order, spans, last = rng.permutation(len(speech.wakewords)), [], 0.0
    at = rng.integers(RATE // 3)
    while True:
        word = int(order[len(spans) % len(order)])
        if here := at / RATE >= last + every:
            x, last = speech.wakewords[word], at / RATE
        else:
            kind = speech.other if rng.random() < 0.2 else speech.digits
            x = kind[rng.integers(len(kind))]
            if rng.random() < scrambled:
                x = scramble(speech.wakewords[rng.integers(len(order))], x, rng)
        x = vary(x, rng, stretch)
        if at + len(x) > len(signal):
            break
        signal[at : at + len(x)] += x
        spans += [(at / RATE, (at + len(x)) / RATE, word)] if here else []
        at += len(x) + round(rng.uniform(0, 0.6 if rng.random() < 0.85 else 3) * RATE)
    signal += noise(len(signal), rng) * 10 ** (-decibel / 20)
    return signal.astype(np.float32), spans


class Cochleagram:
    """A cochlea whose events are counted in steps: [samples] -> [T, 2 x CHANNELS] float32."""

    def __init__(self):
        self.cochlea = Cochlea(RATE, CHANNELS, 100.0, 3600.0, threshold=0.7, tau_s=0.015)
        self.samples = 0  # so far

    def __call__(self, signal: np.ndarray) -> np.ndarray:
        """Count the events of a signal of whole steps, which goes on where the last one ended."""
        begun, self.samples = self.samples, self.samples + len(signal)
        times = np.arange(begun, self.samples) * 1_000_000 // RATE
        sent = self.cochlea.encode(samples(times, signal[:, None]))
        t = sent["t"] // round(STEP * 1e6) - round(begun / RATE / STEP)
        place = (t * 2 + sent["p"]) * CHANNELS + sent["x"]
        steps = round(len(signal) / RATE / STEP)
        counts = np.bincount(place, minlength=steps * 2 * CHANNELS)
        return counts.reshape(steps, -1).astype(np.float32)

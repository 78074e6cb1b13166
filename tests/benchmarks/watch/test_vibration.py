import numpy as np
import pytest

from axonal.core.errors import FileError
from benchmarks.watch import vibration


@pytest.fixture
def files(monkeypatch):
    """A life of 3,000 snapshots that grows rough from the middle on; a machine and two faults."""
    rng = np.random.default_rng(0)
    worn = np.clip(np.arange(3000) / 1500 - 1, 0, None)[:, None]
    level = np.exp(rng.normal(0, 0.02, (3000, 2)) + worn * [0.3, 0.1])
    peak = level * np.exp(1 + rng.normal(0, 0.02, (3000, 2)) + worn)
    kurtosis = np.exp(1 + rng.normal(0, 0.02, (3000, 2)) + worn)
    life = np.concatenate([np.arange(3000)[:, None], level, peak, kurtosis], 1)
    sound = rng.normal(0, 0.1, 2 * 48_000)
    tone = np.sin(2 * np.pi * 3000 * np.arange(24_000) / 12_000)
    ticks = rng.normal(0, 0.1, 24_000) * (np.arange(24_000) % 400 < 20)
    faults = {"Normal": sound, "IR": 0.3 * tone, "OR": ticks}
    arrays = {vibration.FAILURE: {"features": life}, vibration.FAULTS: faults}
    monkeypatch.setattr(vibration, "arrays", arrays.__getitem__)


def test_wear_wakes_the_spiking_detector_before_loudness_does(files):
    figures = vibration.failure()
    lead = figures["bearing_lead_hours_evolving"]
    assert lead["low"] <= lead["value"] <= lead["high"]
    assert figures["bearing_lead_hours_loudness"]["value"] < lead["value"]
    assert 0 < lead["value"] <= 0.6 * figures["bearing_life_hours"]
    assert figures["bearing_false_wakes_evolving_45"]["value"] == 0


def test_faults_show_by_their_shape_at_the_healthy_level(files):
    figures = vibration.faults()
    assert figures["faults"] == 2
    assert figures["faults_above_sound_as_loud_evolving"] == 2
    assert figures["faults_above_sound_10db_below_evolving"] >= 1
    assert figures["faults_above_sound_as_loud_loudness"] <= 1


def test_faults_are_brought_to_the_healthy_level(files):
    normal, variants = vibration.fault_signals()
    for name, signals in variants.items():
        for signal in signals:
            assert name == "as_recorded" or np.isclose(signal.std(), normal.std(), rtol=0.02)


def test_medians_pass_over_a_shock_and_look_back_alone():
    values = np.zeros((9, 1))
    values[4] = 100
    assert not vibration.medians(values, 3).any()
    step = np.repeat([[0.0], [1.0]], 5, 0)
    assert vibration.medians(step, 3)[:6].tolist() == [[0.0]] * 6


def test_features_are_those_of_level_crest_kurtosis_and_bands():
    t = np.arange(vibration.RATE) / vibration.RATE
    x = vibration.spectra(np.sin(2 * np.pi * 1000 * t))
    assert x.shape[1] == 3 + vibration.BANDS
    assert np.allclose(np.exp(x[:, :3]), [0.5, np.sqrt(2), 1.5], rtol=1e-2)
    assert (x[:, 3:].argmax(1) == 1000 * vibration.BANDS // vibration.TOP).all()


def test_missing_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AXONAL_DATA", str(tmp_path))
    with pytest.raises(FileError, match=r"Bearing1_1\.npz"):
        vibration.figures()

"""The quality measures against closed forms, known answers and simulated truth."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.data.images import DATASETS, Images
from axonal.generate.features import asset, classifier_features
from axonal.generate.quality import (
    REFERENCE,
    Moments,
    Reference,
    bootstrap,
    frechet,
    measure,
    precision_recall,
    reference,
)


def cloud(seed, count=300, width=6, shift=0.0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, width)) @ random.normal(size=(width, width)) + shift


def digits(seed, count=24):
    return np.random.default_rng(seed).integers(256, size=(count, 1, 28, 28)).astype(np.uint8)


# Frechet distance


@given(st.lists(st.tuples(*[st.floats(-5, 5)] * 2, *[st.floats(0, 9)] * 2), min_size=1, max_size=8))
def test_frechet_of_independent_gaussians_is_the_closed_form(rows):
    mean_a, mean_b, var_a, var_b = np.array(rows).T
    a, b = Moments(mean_a, np.diag(var_a), 9), Moments(mean_b, np.diag(var_b), 9)
    expected = np.sum((mean_a - mean_b) ** 2 + (np.sqrt(var_a) - np.sqrt(var_b)) ** 2)
    assert frechet(a, b) == pytest.approx(expected, abs=1e-6)


def test_frechet_of_commuting_and_of_general_covariances():
    a, b = Moments.of(cloud(0)), Moments.of(cloud(1, shift=0.5))
    # The eigenvalues of S_a S_b are those of S_a^1/2 S_b S_a^1/2.
    overlap = np.sqrt(np.linalg.eigvals(a.cov @ b.cov).real).sum()
    gap = np.sum((a.mean - b.mean) ** 2)
    expected = gap + np.trace(a.cov) + np.trace(b.cov) - 2 * overlap
    assert frechet(a, b) == pytest.approx(expected)
    assert frechet(a, Moments(a.mean, 4 * a.cov, 9)) == pytest.approx(np.trace(a.cov))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 12))
def test_frechet_is_symmetric_and_blind_to_rotation(seed, count, width):
    a, b = cloud(seed, count, width), cloud(seed + 1, count + 1, width, shift=1.0)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))
    there = frechet(Moments.of(a), Moments.of(b))
    scale = np.trace(Moments.of(a).cov) + np.trace(Moments.of(b).cov)
    close = pytest.approx(there, rel=1e-6, abs=1e-6 * scale)
    assert frechet(Moments.of(b), Moments.of(a)) == close
    assert frechet(Moments.of(a @ turn), Moments.of(b @ turn)) == close
    assert frechet(Moments.of(a), Moments.of(a)) == pytest.approx(0, abs=1e-6 * scale)


def test_a_constant_set_has_no_spread():
    a, b = np.zeros((5, 3)), np.ones((5, 3))
    assert frechet(Moments.of(a), Moments.of(b)) == 3
    assert precision_recall(a, b) == (0, 0) and precision_recall(a, a) == (1, 1)


def test_moments_are_numpys():
    rows = cloud(3)
    moments = Moments.of(rows)
    np.testing.assert_allclose(moments.mean, rows.mean(0))
    np.testing.assert_allclose(moments.cov, np.cov(rows.T))
    assert moments.count == 300


# Bootstrap


def test_the_interval_covers_the_distance_at_this_sample_size():
    random = np.random.default_rng(0)
    real = Moments(np.zeros(8), np.eye(8), 10_000)

    def draw():
        return random.normal(size=(150, 8)) * 1.2 + 0.1

    average = np.mean([frechet(real, Moments.of(draw())) for _ in range(1000)])
    intervals = [bootstrap(real, draw(), 100, seed=i)[0] for i in range(150)]
    hits = np.mean([i.low <= average <= i.high for i in intervals])
    assert 0.88 <= hits <= 0.99
    assert all(i.low <= i.value <= i.high for i in intervals)


def test_the_interval_is_a_function_of_the_seed_and_narrows_with_samples():
    real = Moments.of(cloud(0, 5000))
    few, many = cloud(0, 100, shift=0.3), cloud(0, 3200, shift=0.3)
    assert bootstrap(real, few, seed=4)[0] == bootstrap(real, few, seed=4)[0]
    assert bootstrap(real, few, seed=4)[0] != bootstrap(real, few, seed=5)[0]
    wide, narrow = bootstrap(real, few)[0], bootstrap(real, many)[0]
    assert 3 < (wide.high - wide.low) / (narrow.high - narrow.low) < 12
    assert bootstrap(real, few)[0].value == frechet(real, Moments.of(few))


# Precision and recall


def test_precision_recall_of_equal_and_of_distant_sets():
    rows = cloud(0)
    assert precision_recall(rows, rows) == (1, 1)
    assert precision_recall(rows, rows[::-1] + 0.0) == (1, 1)
    assert precision_recall(rows, rows + 1e3) == (0, 0)


def test_a_collapsed_generator_is_precise_and_recalls_little():
    random = np.random.default_rng(0)
    real = random.normal(size=(800, 2)) * 5
    precision, recall = precision_recall(real, random.normal(size=(800, 2)) * 0.5)
    assert precision > 0.95 and recall < 0.1
    precision, recall = precision_recall(random.normal(size=(800, 2)) * 0.5, real)
    assert precision < 0.1 and recall > 0.95


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(4, 30), st.integers(4, 30), st.integers(1, 3))
def test_precision_recall_is_the_definition(seed, real_count, fake_count, k):
    real, fake = cloud(seed, real_count, 3), cloud(seed, fake_count, 3, shift=0.5)

    def share(points, among):
        each = np.linalg.norm(among[:, None] - among, axis=2)
        reach = np.sort(each, axis=1)[:, k]
        return (np.linalg.norm(points[:, None] - among, axis=2) <= reach).any(1).mean()

    assert precision_recall(real, fake, k) == (share(fake, real), share(real, fake))


def test_blocks_do_not_show():
    real, fake = cloud(0, 1203), cloud(1, 777)
    scrambled = np.random.default_rng(0).permutation(len(real))
    assert precision_recall(real[scrambled], fake) == precision_recall(real, fake)


def test_memory_grows_by_blocks_and_not_by_pairs():
    rows = cloud(0, 5000, 4)
    tracemalloc.start()
    precision_recall(rows, rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.6 * 8 * len(rows) ** 2


# What is refused


@pytest.mark.parametrize(
    "rows", [np.ones((1, 4)), np.ones(4), np.full((5, 4), np.nan), np.ones((5, 0))]
)
def test_features_without_meaning_are_refused(rows):
    good = np.random.default_rng(0).normal(size=(9, 4))
    with pytest.raises(InputError):
        Moments.of(rows)
    with pytest.raises(InputError):
        bootstrap(Moments.of(good), rows)
    with pytest.raises(InputError):
        precision_recall(good, rows)


def test_different_dimensions_are_refused():
    a, b = cloud(0, width=3), cloud(0, width=4)
    for refuse in (
        lambda: frechet(Moments.of(a), Moments.of(b)),
        lambda: bootstrap(Moments.of(a), b),
        lambda: precision_recall(a, b),
    ):
        with pytest.raises(InputError, match="3 and of 4"):
            refuse()


def test_arguments_out_of_range_are_refused():
    rows = cloud(0, 5)
    with pytest.raises(InputError, match="k = 5"):
        precision_recall(rows, rows, k=5)
    with pytest.raises(InputError, match="level"):
        bootstrap(Moments.of(rows), rows, level=1.0)
    with pytest.raises(InputError, match="at least 2"):
        Moments(np.zeros(2), np.eye(2), 1)
    with pytest.raises(InputError, match="moments"):
        Moments(np.zeros(2), np.eye(3), 5)
    with pytest.raises(InputError, match="NaN"):
        Moments(np.zeros(2), np.full((2, 2), np.inf), 5)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 1, 28, 28), np.float32),
        torch.zeros(2, 1, 28, 28),
        np.zeros((2, 28, 28), np.uint8),
        np.zeros((2, 1, 27, 28), np.uint8),
        np.zeros((2, 3, 28, 28), np.uint8),
        np.zeros((0, 1, 28, 28), np.uint8),
    ],
)
def test_images_of_another_form_are_refused(images):
    with pytest.raises(InputError):
        classifier_features("mnist")(images)


# The reference that ships


def test_what_ships_fits_together():
    real = reference("mnist")
    assert real.moments.mean.shape == (64,) and real.moments.cov.shape == (64, 64)
    assert real.moments.count == 10_000 and real.rows.shape == (2000, 64)
    assert np.linalg.eigvalsh(real.moments.cov).min() > -1e-9
    np.testing.assert_array_equal(real.moments.cov, real.moments.cov.T)
    assert (asset("mnist") / REFERENCE).stat().st_size < 300_000
    # 2,000 of the 10,000 rows: as close to all of them as a sample of that size is.
    assert bootstrap(real.moments, real.rows, 20)[0].value < 0.02 * np.trace(real.moments.cov)


def test_noise_is_far_from_digits():
    measures = measure(digits(0), reference("mnist"), resamples=5)
    assert set(measures) == {"fd", "precision", "recall"}
    assert measures["fd"].value > 10 and measures["recall"].value < 0.5
    assert (measures.images, measures.real, measures.rows) == (24, 10_000, 24)
    assert measure(digits(0), reference("mnist"), resamples=5) == measures
    assert measure(digits(0), reference("mnist"), seed=1, resamples=5)["fd"] != measures["fd"]


def test_the_data_set_itself_can_be_the_reference(monkeypatch):
    monkeypatch.setitem(DATASETS, "mnist", lambda split: Images(digits(1), np.zeros(24, int)))
    real = reference("mnist", data=True)
    measures = measure(torch.from_numpy(digits(1)), real, resamples=20)
    assert real.moments.count == 24 and measures["fd"].value == pytest.approx(0, abs=1e-6)
    assert measures["precision"].value == measures["recall"].value == 1
    assert 0.8 < measures["precision"].low < 1 == measures["precision"].high
    np.testing.assert_allclose(
        classifier_features("mnist")(digits(1)), real.rows, rtol=1e-5, atol=1e-5
    )


def test_a_reference_survives_the_disk(tmp_path):
    def features(images):
        return images.reshape(len(images), -1)[:, :5].astype(np.float64)

    real = Reference.of(digits(2), features)
    stored = Reference.load(real.save(tmp_path / "r.safetensors", 7), features)
    np.testing.assert_array_equal(stored.moments.cov, real.moments.cov)
    assert stored.rows.shape == (7, 5) and stored.moments.count == 24
    assert measure(digits(3), stored).rows == 7
    with pytest.raises(InputError, match="25 rows of 24"):
        real.save(tmp_path / "s.safetensors", 25)
    (tmp_path / "r.safetensors").write_bytes(b"cut")
    for path in ("r.safetensors", "absent"):
        with pytest.raises(FileError, match="can't read"):
            Reference.load(tmp_path / path, features)


def test_names_that_nothing_has_are_refused():
    with pytest.raises(InputError, match="no classifier"):
        reference("nothing")
    with pytest.raises(InputError, match="not one of"):
        reference("nothing", features=classifier_features("mnist"))

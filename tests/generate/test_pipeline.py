import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.convert.certificate import Certificate, LayerCertificate
from axonal.convert.methods.sigma_delta import sigma_delta
from axonal.core.errors import AxonalError, FileError, InputError
from axonal.generate.pipeline import Generator
from axonal.generate.pretrained import CERTIFICATES, pretrained_names, read_certificates
from axonal.models.flow import FlowConfig, FlowUNet
from axonal.nn.meter import Meter

CLASSES = [0, 1, 2, 1, 0]


def network(seed=0, **sizes):
    """A network whose zero-initialised ends are filled, so that classes and blocks matter."""
    torch.manual_seed(seed)
    options = {"size": 8, "patch": 1, "widths": (4, 8), "depths": (1, 1), "classes": 3}
    model = FlowUNet(FlowConfig(**options | sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def certificate(model, threshold, budget=0.1):
    shape = (model.config.channels, model.config.size, model.config.size)
    twin = sigma_delta(model, torch.zeros(1, *shape), torch.zeros(1).long())
    rows = tuple(
        LayerCertificate(name=name, threshold=threshold, error=0.0, share=1.0, synops=1.0)
        for name in twin.neurons
    )
    about = {"budget": budget, "calibration_error": 0.0, "output_error": 0.0, "samples": 1}
    return Certificate(**about, layers=rows)


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    folder = network().save(tmp_path_factory.mktemp("ann"))
    return Generator.from_pretrained(folder)


@pytest.fixture(scope="module")
def exact():
    return Generator(network(), certificate(network(), 0.0))


@pytest.fixture(scope="module")
def coarse():
    return Generator(network(), certificate(network(), 0.2))


@pytest.fixture
def converted(tmp_path):
    """A folder with certificates for the budgets 0.1 (the default) and 0.2."""
    model = network()
    model.save(tmp_path)
    rows = [certificate(model, budget, budget).to_dict() for budget in (0.1, 0.2)]
    about = {"sampler": "heun", "steps": 3, "default": 0.1, "certificates": rows}
    (tmp_path / CERTIFICATES).write_text(json.dumps(about))
    return tmp_path


def make(generator, classes=CLASSES, steps=3, **options):
    return generator(classes, steps=steps, **options)


def test_images_are_bytes_of_the_networks_shape(ann):
    images = make(ann).samples
    assert images.shape == (5, 1, 8, 8) and images.dtype == np.uint8 and images.std() > 10


@pytest.mark.parametrize("name", ["ann", "exact", "coarse"])
def test_batches_do_not_matter(name, request):
    generator, done = request.getfixturevalue(name), []
    one, parts = make(generator), make(generator, batch=2, advance=done.append)
    np.testing.assert_array_equal(one.samples, parts.samples)
    np.testing.assert_array_equal(one.counts.table, parts.counts.table)
    assert one.counts.samples == parts.counts.samples == 5 and done == [2, 2, 1]


def test_the_seed_decides(ann, coarse):
    for generator in (ann, coarse):
        one, same, other = (make(generator, seed=seed).samples for seed in (7, 7, 8))
        assert np.array_equal(one, same) and not np.array_equal(one, other)


@pytest.mark.parametrize("size", [6, 8])
def test_noise_depends_on_the_place_alone(size):
    generator = Generator(network(size=size))
    images = make(generator).samples
    for count in (1, 2, 4):
        np.testing.assert_array_equal(make(generator, CLASSES[:count]).samples, images[:count])
    np.testing.assert_array_equal(make(generator, [0, 2, 2, 2]).samples[:1], images[:1])


def test_the_class_matters(ann):
    images = [make(ann, [label]).samples for label in range(3)]
    assert not np.array_equal(images[0], images[1]) and not np.array_equal(images[1], images[2])


@pytest.mark.parametrize("sampler", ["euler", "heun", "multistep"])
def test_without_thresholds_sigma_delta_generates_what_the_ann_does(ann, exact, sampler):
    one, other = (make(g, sampler=sampler).samples.astype(int) for g in (ann, exact))
    assert np.abs(one - other).max() <= 1  # two orders of summing, before rounding to bytes


def test_thresholds_change_images_and_save_work(exact, coarse):
    precise, rough = make(exact, steps=8), make(coarse, steps=8)
    assert not np.array_equal(precise.samples, rough.samples)
    assert rough.counts.total("synops") < precise.counts.total("synops")


@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", 3), ("heun", 5)])
def test_counts_of_the_ann(ann, sampler, evaluations):
    output = make(ann, sampler=sampler)
    counts, skipping = output.counts, output.zero_skipping
    assert counts.samples == skipping.samples == 5 and output.seconds > 0
    assert len(counts.table) == len(skipping.table) == evaluations
    assert (counts.table[0] == counts.table[-1]).all()
    assert (skipping.table <= counts.table).all()
    assert 0 < skipping.total("synops") < counts.total("synops")


def test_counts_begin_with_the_shared_start(ann, coarse):
    output = make(coarse)
    assert output.zero_skipping is None and len(output.counts.table) == 4
    with torch.no_grad(), Meter(ann.model) as meter:
        ann.model(torch.zeros(1, 1, 8, 8), torch.zeros(1).long())
    dense = meter.counts().total("synops")
    # One dense evaluation for each of the three classes, shared by the five images.
    assert output.counts.by_step("synops")[0] == pytest.approx(3 * dense / 5)
    assert make(coarse, [1] * 4).counts.by_step("synops")[0] == pytest.approx(dense / 4)
    assert (output.counts.by_step("synops")[1:] < 1.01 * dense).all()


def test_a_spiking_core_multiplies_less():
    output = make(Generator(network(core="spiking", threshold=0.1)))
    ann = make(Generator(network()))
    assert output.counts.total("multiplies") < ann.counts.total("multiplies")
    assert output.counts.total("multiplies") < output.counts.total("synops")
    assert output.zero_skipping.total("synops") <= output.counts.total("synops")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([3], "class 3 does not exist; classes are 0 to 2"),
        ([0, -1], "class -1 does not exist"),
        ([], "at least one class"),
        ([0.5], "at least one class"),
        ([[0, 1]], "at least one class"),
        ("3", "classes are whole numbers"),
        (None, "classes are whole numbers"),
    ],
)
def test_classes_that_are_none_are_refused(ann, classes, message):
    with pytest.raises(InputError, match=message):
        ann(classes)


@pytest.mark.parametrize(("option", "value"), [("steps", 0), ("sampler", "ddim")])
def test_what_the_samplers_refuse_is_refused(ann, option, value):
    with pytest.raises(InputError, match=option):
        ann([0], **{option: value})


def test_a_folder_brings_its_own_defaults(converted):
    generator = Generator.from_pretrained(converted)
    assert (generator.sampler, generator.steps, generator.certificate.budget) == ("heun", 3, 0.1)
    assert len(generator([0]).counts.table) == 1 + 5
    thresholds = Generator.from_pretrained(str(converted), 0.2).network.thresholds()
    assert {round(float(t), 5) for t in thresholds.values()} == {0.2}


def test_budgets_that_are_not_there_are_refused(converted):
    with pytest.raises(InputError, match=r"no thresholds for budget 0.3; choose of 0.1, 0.2"):
        Generator.from_pretrained(converted, 0.3)
    (converted / CERTIFICATES).unlink()
    with pytest.raises(InputError, match="has no sigma-delta form"):
        Generator.from_pretrained(converted, 0.1)


@pytest.mark.parametrize("name", ["vermeer", "", "mnist-classifier", "no/such/folder", "[/x]"])
def test_unknown_names_are_refused_with_those_there_are(name):
    with pytest.raises(InputError, match=r"no generator .*; there are mnist"):
        Generator.from_pretrained(name)


def test_a_folder_does_not_hide_what_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    assert "mnist" in pretrained_names()
    assert Generator.from_pretrained("mnist").shape == (1, 28, 28)


def use(folder):
    """Whether the generator in `folder` paints; damage must show as one of our errors."""
    try:
        Generator.from_pretrained(folder)([0], steps=1, sampler="euler")
        return True
    except AxonalError:
        return False


@settings(max_examples=25)
@given(part=st.floats(0, 1, exclude_max=True))
def test_truncated_certificates_are_refused(converted, part):
    path = converted / CERTIFICATES
    content = path.read_bytes()
    try:
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(FileError, match=r"can't read .*; convert the generator again"):
            read_certificates(converted)
    finally:
        path.write_bytes(content)


@settings(max_examples=50)
@given(part=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_flipped_bits_paint_or_are_refused(converted, part, bit):
    path = converted / CERTIFICATES
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[int(part * len(content))] ^= 1 << bit
    try:
        path.write_bytes(damaged)
        use(converted)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("value", [None, "x", [], {}, True, -1, 1e999])
@pytest.mark.parametrize("field", ["sampler", "steps", "default", "budget", "threshold", "name"])
def test_other_values_are_refused(converted, field, value):
    path = converted / CERTIFICATES
    table = json.loads(path.read_text())
    first = table["certificates"][0]
    for place in (table, first, first["layers"][0]):
        if field in place:
            place[field] = value
    path.write_text(json.dumps(table))
    with pytest.raises(AxonalError):
        Generator.from_pretrained(converted)([0])


def test_the_engine_makes_the_same_images_with_the_same_counts():
    outputs = [
        Generator.from_pretrained("mnist-sigma-delta", backend=backend)([3, 8], steps=4, seed=1)
        for backend in ("torch", "engine")
    ]
    torch_, engine = outputs
    assert np.abs(torch_.samples.astype(int) - engine.samples).max() <= 2
    for field, total in torch_.counts.totals().items():
        assert engine.counts.total(field) == pytest.approx(total, rel=1e-3), field
    assert engine.counts.table.shape[0] == torch_.counts.table.shape[0]


def test_the_engine_needs_changes():
    with pytest.raises(InputError, match="sigma-delta"):
        Generator.from_pretrained("mnist", backend="engine")
    with pytest.raises(InputError, match="choose torch or engine"):
        Generator.from_pretrained("mnist-sigma-delta", backend="gpu")

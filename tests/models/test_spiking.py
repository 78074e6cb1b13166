import pytest
import torch

from axonal.core.errors import InputError
from axonal.models.spiking import SpikingClassifier, SpikingConfig

SMALL = SpikingConfig(size=8, widths=(3, 4), features=6, classes=3, steps=10)


def test_pixels_send_spikes_evenly_at_their_rate():
    model = SpikingClassifier(SMALL)
    image = torch.full((1, 1, 8, 8), -1.0)
    image[0, 0, 0, :2] = torch.tensor([1.0, 0.0])
    spikes = model.spikes(image)
    assert spikes.shape == (10, 1, 1, 8, 8)
    assert spikes[:, 0, 0, 0, 0].tolist() == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]  # every fourth
    assert spikes[:, 0, 0, 0, 1].sum() == 1 and spikes.sum() == 3


def test_saved_is_the_same_and_samples_do_not_mix(tmp_path):
    torch.manual_seed(0)
    model = SpikingClassifier(SMALL).eval()
    image = torch.rand(3, 1, 8, 8) * 2 - 1
    logits = model(image)
    again = SpikingClassifier.load(model.save(tmp_path))
    torch.testing.assert_close(again(image), logits)
    torch.testing.assert_close(again(image[1:2]), logits[1:2])
    assert logits.abs().sum() > 0


@pytest.mark.parametrize(
    "values", [{"steps": 0}, {"widths": (3,)}, {"rate": 0.0}, {"decay": 1.5}, {"size": 2}]
)
def test_sizes_that_make_no_sense_are_refused(values):
    with pytest.raises(InputError):
        SpikingConfig(**values)


def test_an_image_of_another_shape_is_refused():
    with pytest.raises(InputError, match="no batch of"):
        SpikingClassifier(SMALL)(torch.zeros(1, 1, 9, 9))

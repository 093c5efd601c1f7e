"""Preprocessing against Keras' own, and the names of the classes."""

import jax
import numpy as np
import pytest
from keras.src.applications.imagenet_utils import preprocess_input

from lrpjax.models import imagenet

KINDS = ("torch", "caffe", "tf")
# The result is float32, of numbers up to 255 minus a mean.
FLOAT32 = 1e-4

each_kind = pytest.mark.parametrize("kind", KINDS)


def levels():
    """Every grey level in every channel, no two channels alike."""
    ramp = np.arange(256, dtype=np.uint8)
    return np.stack([ramp, ramp[::-1], np.roll(ramp, 7)], -1)[None, :, None]


@each_kind
def test_preprocessing_is_what_keras_does_under_that_name(kind):
    wanted = preprocess_input(levels().astype("float64"), data_format="channels_last", mode=kind)
    found = jax.jit(imagenet.preprocessing(kind))(levels())
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, wanted, atol=FLOAT32)


@each_kind
def test_the_range_is_what_black_and_white_become(kind):
    prepare = imagenet.preprocessing(kind)
    low, high = prepare.input_range
    found = prepare(levels())
    np.testing.assert_allclose(found.min((0, 1, 2)), low, atol=FLOAT32)
    np.testing.assert_allclose(found.max((0, 1, 2)), high, atol=FLOAT32)


def test_another_preprocessing_is_refused():
    with pytest.raises(
        ValueError, match=r"^preprocess is 'torch' or 'caffe' or 'tf', got 'rgb'\.$"
    ):
        imagenet.preprocessing("rgb")


def test_class_names_are_in_the_order_of_the_outputs():
    names = imagenet.class_names()
    known = {0: "tench", 207: "golden retriever", 281: "tabby", 340: "zebra", 999: "toilet tissue"}
    assert len(set(names)) == len(names) == 1000
    assert {i: names[i] for i in known} == known

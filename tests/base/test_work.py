"""Chunks of images: every image once, in chunks of one size."""

import numpy as np
import pytest

from lrpjax._base import work


@pytest.mark.parametrize("total", [1, 5, 6])
@pytest.mark.parametrize("size", [1, 2, 6])
def test_every_image_is_in_one_chunk_and_all_chunks_have_one_size(total, size):
    images = 10.0 * np.arange(total)
    found = list(work.chunks(total, size))
    assert {len(some.index) for some in found} == {size}
    own = np.concatenate([images[some.index][: some.own] for some in found])
    np.testing.assert_array_equal(own, images)
    np.testing.assert_array_equal(np.concatenate([images[some.slice] for some in found]), images)
    assert set(found[-1].index[found[-1].own :]) <= {total - 1}  # the last image stands in


def test_so_many_numbers_fit_as_there_are_bytes():
    assert work.fitting(2**20) == 32  # of 4 MiB each
    assert work.fitting(2**25) == 1
    assert work.fitting(2**30) == 1  # one at least

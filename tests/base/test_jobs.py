"""Threads: order, settings of JAX, and what is not asked for is not held."""

from threading import current_thread, main_thread

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets_audit import network, pictures

import lrpjax as lrp
from lrpjax._base import jobs

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_each_keeps_the_order_and_runs_on_threads():
    found = list(jobs.each(lambda i: (i * i, current_thread() is main_thread()), range(20)))
    assert found == [(i * i, False) for i in range(20)]


def test_each_takes_an_item_only_when_it_will_soon_be_needed():
    taken = []

    def items():
        for i in range(50):
            taken.append(i)
            yield i

    results = jobs.each(lambda i: i, items())
    next(results)
    assert len(taken) == jobs.THREADS + 1
    results.close()


def test_each_raises_what_the_work_raises():
    with pytest.raises(ZeroDivisionError):
        list(jobs.each(lambda i: 1 // i, [1, 0, 1]))


def test_work_on_a_thread_starts_no_more_threads():
    def outer(i):
        threads = jobs.each(lambda _: current_thread(), range(4))
        return {current_thread(), *threads}

    assert [len(own) for own in jobs.each(outer, range(3))] == [1, 1, 1]
    assert not any(own is main_thread() for own in jobs.each(lambda _: current_thread(), [0]))


def test_work_has_the_settings_of_the_thread_that_gave_it():
    def seen(_):
        return (
            jnp.zeros(()).dtype,
            jax.config.jax_default_matmul_precision,
            jax.config.jax_debug_nans,
            jax.config.jax_default_device,
            jax.config.jax_numpy_dtype_promotion,
        )

    outside = list(jobs.each(seen, range(2)))
    device = jax.devices()[0]
    with (
        jax.enable_x64(False),
        jax.default_matmul_precision("highest"),
        jax.debug_nans(True),
        jax.default_device(device),
        jax.numpy_dtype_promotion("strict"),
    ):
        inside = list(jobs.each(seen, range(2)))
    assert inside == [(np.dtype("float32"), "highest", True, device, "strict")] * 2
    assert outside[0][0] == np.dtype("float64")  # as tests/conftest.py says
    assert list(jobs.each(seen, range(2))) == outside


def test_a_check_under_a_setting_of_jax_is_computed_under_it():
    def dtype_of(model, x, target):
        seen.append(jnp.zeros(()).dtype)
        return np.asarray(x)

    seen = []
    with jax.enable_x64(False):
        lrp.audit(network(), pictures(), [dtype_of], key=jax.random.key(0))
    assert set(seen) == {np.dtype("float32")}

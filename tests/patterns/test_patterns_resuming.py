"""A fit of patterns goes on from its means so far, and ends as one that was not interrupted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.nets_audit import network, pictures

from lrpjax._base.fingerprint import Unstable
from lrpjax.patterns import fit, means

pytestmark = pytest.mark.usefixtures("quick_compile")
TURNS, SIZE = 6, 4


class Stop(Exception):
    pass


@pytest.fixture
def often(monkeypatch):
    """Means are written after each batch."""
    monkeypatch.setattr(means, "_EVERY", 0.0)
    monkeypatch.setattr(means, "_COSTS", 0)


@pytest.fixture(scope="module")
def images():
    return jnp.concatenate([pictures() * (1 + i / 7) for i in range(TURNS)])


def batches(images, until=TURNS):
    for turn in range(TURNS):
        if turn == until:
            raise Stop
        yield images[SIZE * turn : SIZE * (turn + 1)]


def interrupted(folder, images, until, model=None, **options):
    with pytest.raises(Stop):
        fit(model or network(), batches(images, until), out=folder, **options)


def same(a, b):
    return all(np.array_equal(a.a[name], b.a[name]) for name in a.a | b.a)


@pytest.mark.parametrize("until", range(1, TURNS))
@pytest.mark.usefixtures("often")
def test_it_ends_like_one_that_was_not_interrupted(images, tmp_path, until):
    interrupted(tmp_path, images, until)
    with np.load(tmp_path / "means.npz") as found:
        assert found["turn"] == until
    expected = fit(network(), images, chunk=SIZE)
    assert same(fit(network(), batches(images), out=tmp_path), expected)
    assert same(fit(network(), images, chunk=SIZE, out=tmp_path), expected)  # from the finished


@pytest.mark.usefixtures("often")
def test_what_is_kept_is_not_computed_again(images, tmp_path, monkeypatch):
    from lrpjax.patterns import fitting

    turns, add = [], fitting._add
    monkeypatch.setattr(
        fitting, "_add", lambda *arguments: turns.append(int(arguments[-1])) or add(*arguments)
    )
    interrupted(tmp_path, images, 4)
    assert turns == [0, 1, 2, 3]
    fit(network(), batches(images), out=tmp_path)
    assert turns == [0, 1, 2, 3, 4, 5]


OTHERS = {
    "another first image": (lambda x: x.at[0].add(1e-3), {}, "images: another"),
    "another second batch": (lambda x: x.at[SIZE].add(1e-3), {}, "means over other images"),
    "batches in another order": (
        lambda x: jnp.concatenate([x[:SIZE], x[2 * SIZE :], x[SIZE : 2 * SIZE]]),
        {},
        "means over other images",
    ),
    "fewer images": (lambda x: x[: 3 * SIZE], {}, "means over other images"),
    "another mode": (lambda x: x, {"mode": "linear"}, 'mode: "relu", now "linear"'),
    "other patches": (lambda x: x, {"patches": 4}, "patches: 9, now 4"),
    "another size of batches": (lambda x: x, {"chunk": 8}, "images: another"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.usefixtures("often")
def test_other_images_and_settings_are_refused(images, tmp_path, name):
    change, options, said = OTHERS[name]
    interrupted(tmp_path, images, 5)
    with pytest.raises(ValueError, match=said):
        fit(network(), change(images), **{"chunk": SIZE, **options}, out=tmp_path)


@pytest.mark.usefixtures("often")
def test_images_that_come_after_what_is_kept_may_be_others(images, tmp_path):
    """The means are the same then, and the end is that of a fit of the new images."""
    interrupted(tmp_path, images, 2)
    changed = images.at[-1].add(1)
    found = fit(network(), changed, chunk=SIZE, out=tmp_path)
    assert same(found, fit(network(), changed, chunk=SIZE))


@pytest.mark.usefixtures("often")
def test_another_model_is_refused(images, tmp_path):
    interrupted(tmp_path, images, 2)
    other = jax.tree.map(lambda w: w * 2, network())
    with pytest.raises(ValueError, match="parameters: another"):
        fit(other, images, chunk=SIZE, out=tmp_path)


@pytest.mark.usefixtures("often")
def test_damaged_means_are_found_anew(images, tmp_path):
    expected = fit(network(), images, chunk=SIZE)
    for damage in (lambda b: b[:-30], lambda b: b[:200] + bytes([b[200] ^ 1]) + b[201:]):
        interrupted(tmp_path, images, 3)
        file = tmp_path / "means.npz"
        file.write_bytes(damage(file.read_bytes()))
        assert same(fit(network(), images, chunk=SIZE, out=tmp_path), expected)
        file.unlink()


def test_a_model_that_calls_python_is_refused_only_with_a_folder(images, tmp_path):
    shape = jax.ShapeDtypeStruct((), images.dtype)
    doubled = lambda net, x: net(x) * jax.pure_callback(lambda: np.float64(2), shape)
    model = jax.tree_util.Partial(doubled, network())
    with pytest.raises(Unstable, match=r"not be resumed .* without a folder"):
        fit(model, images, out=tmp_path)
    assert fit(model, images).a


def test_means_are_written_every_second_and_at_the_end(tmp_path, monkeypatch, images):
    """A writing that takes long is made less often: one part in twenty of the time."""
    clock, writes, cost = [0.0], [], [0.0]
    monkeypatch.setattr(means.time, "monotonic", lambda: clock[0])

    def savez(stream, **arrays):
        writes.append(clock[0])
        clock[0] += cost[0]

    monkeypatch.setattr(means.np, "savez", savez)

    def slow_batches(seconds):
        for x in batches(images):
            clock[0] += seconds
            yield x

    for seconds, cost[0], wanted in (
        (0.4, 0.001, [1.6, 2.401]),  # the clock runs from the first batch on
        (0.1, 0.001, [0.6]),
        (3.0, 1.0, [6.0, 19.0]),
    ):
        clock[0], writes[:] = 0.0, []
        fit(network(), slow_batches(seconds), out=tmp_path / f"{seconds}")
        assert writes == pytest.approx(wanted)

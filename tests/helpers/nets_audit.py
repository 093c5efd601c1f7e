"""A small convolutional network with random parameters, and images for it."""

import jax


def network(colours=3):
    """Images (N, 8, 8, colours) to 4 logits: two convolutions, a mean, a dense layer."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"conv1": (3, 3, colours, 8), "conv2": (3, 3, 8, 8), "dense": (8, 4)}
    draw = zip(shapes.items(), keys, strict=True)
    return jax.tree_util.Partial(
        _apply, {name: jax.random.normal(key, shape) for (name, shape), key in draw}
    )


def pictures():
    return jax.random.uniform(jax.random.key(1), (4, 8, 8, 3))


def _apply(weights, x):
    x = x.astype(weights["dense"].dtype)
    for name in ("conv1", "conv2"):
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, weights[name], (1, 1), "SAME", dimension_numbers=layout)
        x = jax.nn.relu(x)
    return x.mean((1, 2)) @ weights["dense"]

"""A small vision transformer in flax.nnx: what the tests of attention run on."""

import jax
import jax.numpy as jnp
from flax import nnx


class Block(nnx.Module):
    def __init__(self, width, heads, *, use_bias, dtype, rngs):
        args = {"rngs": rngs, "param_dtype": dtype}
        self.norm1 = nnx.LayerNorm(width, **args)
        self.attention = nnx.MultiHeadAttention(
            heads, width, decode=False, use_bias=use_bias, dropout_rate=0.1, **args
        )
        self.norm2 = nnx.LayerNorm(width, **args)
        self.up = nnx.Linear(width, 4 * width, use_bias=use_bias, **args)
        self.down = nnx.Linear(4 * width, width, use_bias=use_bias, **args)

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class ViT(nnx.Module):
    """Images (N, 16, 16, 3) to logits (N, 5): patches of 4, two blocks, the mean over tokens.

    constants: with a class token, position embeddings and biases, which take relevance from the
    input; without, nothing does.
    """

    def __init__(self, *, constants, dtype=jnp.float64, width=24, heads=3, blocks=2, rngs):
        args = {"use_bias": constants, "rngs": rngs}
        self.constants = constants
        self.patch = nnx.Conv(3, width, (4, 4), strides=(4, 4), param_dtype=dtype, **args)
        if constants:
            draw = lambda *shape: jax.random.normal(rngs.params(), shape, dtype)
            self.token = nnx.Param(draw(1, 1, width))
            self.position = nnx.Param(draw(1, 17, width) / 5)
        self.blocks = nnx.List([Block(width, heads, dtype=dtype, **args) for _ in range(blocks)])
        self.norm = nnx.LayerNorm(width, param_dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(width, 5, param_dtype=dtype, **args)

    def __call__(self, x):
        x = self.patch(x)
        x = x.reshape(len(x), -1, x.shape[-1])
        if self.constants:
            token = jnp.broadcast_to(self.token[...], (len(x), 1, x.shape[-1]))
            x = jnp.concatenate([token, x], axis=1) + self.position[...]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.constants else x.mean(1))


def vit(*, constants, seed=0):
    model = ViT(constants=constants, rngs=nnx.Rngs(seed))
    model.eval()
    return model

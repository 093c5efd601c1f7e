"""A network in the making: nodes and parameters, drawn from one seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from .description import Net, Node, Params
from .forward import FORWARD

# Names as libraries make them, and such that meet: "fc" used twice becomes "fc_2" by itself.
NAMES = ("fc", "fc_2", "fc_3", "dense", "dense_1", "conv", "conv_2", "fc_2_2", "layer")


class Draft:
    """`add` puts a node and returns its number; all draws come from `rng`."""

    def __init__(self, seed: int, fold: bool) -> None:
        self.rng, self.seed, self.fold = np.random.default_rng(seed), seed, fold
        self.nodes: list[Node] = []
        self.params: Params = {}
        self.refused: set[str] = set()
        self.loops: list[tuple[int, int, int]] = []
        self.biases = bool(self.rng.random() < 0.7)
        self._names = list(self.rng.permutation(NAMES))

    # --- draws ---------------------------------------------------------------------------------

    def chance(self, p: float = 0.5) -> bool:
        return bool(self.rng.random() < p)

    def choose(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def expect(self, name: str) -> None:
        """The next parameter's name, if it is still free."""
        self._names = [n for n in self._names if n != name]
        self._names += [name] if name not in self.params else []

    def name(self) -> str:
        while self._names:
            if (name := str(self._names.pop())) not in self.params:
                return name
        return f"{self.choose('fc', 'block', 'conv')}_{len(self.params)}"

    # --- nodes ---------------------------------------------------------------------------------

    def shape(self, i: int) -> tuple[int, ...]:
        return self.nodes[i].shape

    def add(
        self,
        kind: str,
        *reads: int,
        param: str = "",
        inside: bool = False,
        spelled_from: tuple[int, ...] | None = None,
        shape: tuple[int, ...] | None = None,
        **options: Any,
    ) -> int:
        if shape is None:
            blank = [np.ones((1, *self.shape(i))) for i in reads]
            node = Node(kind, reads, (), param, options)
            shape = FORWARD[kind](node, self.params.get(param, {}), *blank).shape[1:]
        self.nodes.append(Node(kind, reads, shape, param, options, inside, spelled_from))
        return len(self.nodes) - 1

    def weights(self, *shape: int, bias: bool | None = None) -> str:
        """A new entry of the parameters: a kernel, and a bias if the network has any."""
        name = self.name()
        fan_in = np.prod(shape[:-1])
        self.params[name] = {"kernel": self.rng.normal(size=shape) * np.sqrt(1.5 / fan_in)}
        if self.biases if bias is None else bias:
            self.params[name]["bias"] = self.rng.normal(size=shape[-1]) / 3
        return name

    def dense(self, i: int, features: int, **kw: Any) -> int:
        param = self.weights(self.shape(i)[-1], features, **kw)
        return self.add("dense", i, param=param, shape=(*self.shape(i)[:-1], features))

    def conv(self, i: int, features: int, **kw: Any) -> int:
        """3 x 3 or smaller, any stride, padding and groups."""
        h, w, c = self.shape(i)
        kh, wide = min(h, self.choose(1, 2, 3)), min(w, self.choose(2, 3))
        groups = self.choose(*(g for g in (1, 1, 2, c) if c % g == 0 and features % g == 0))
        some = ((kh // 2, kh // 2), (wide // 2, 0)), ((1, 1), (0, 1))
        strides = self.choose((1, 1), (1, 1), (2, 1))
        # XLA's CPU compiler (jax 0.10.2) dies of jax.vjp of some padded and strided convolutions.
        none = ((0, 0), (0, 0))
        padding = none if strides != (1, 1) else self.choose(none, *some)
        param = self.weights(kh, wide, c // groups, features, **kw)
        window = {"window": (kh, wide), "strides": strides, "padding": padding}
        return self.add("conv", i, param=param, groups=groups, **window)

    def affine(self, i: int) -> int:
        """BatchNorm of the last axis, with statistics and scales of both signs."""
        name, c = self.name(), self.shape(i)[-1]
        draw = lambda: self.rng.normal(size=c)
        self.params[name] = {
            "scale": self.rng.uniform(0.5, 1.5, c) * self.rng.choice([-1, 1, 1, 1], c),
            "shift": draw() / 3,
            "mean": draw() / 3,
            "var": self.rng.uniform(0.5, 1.5, c),
        }
        return self.add("affine", i, param=name, eps=1e-5)

    def act(self, i: int, *names: str) -> int:
        return self.add("act", i, name=self.choose(*names))

    def linear(self, i: int, features: int | None = None) -> int:
        """A convolution of an image, a dense layer of anything else; BatchNorm behind some."""
        features = features or self.shape(i)[-1]
        image = len(self.shape(i)) == 3
        # Without folding, the bias tells the product's offset from that of BatchNorm.
        norm = self.chance(0.3) and self.biases
        i = self.conv(i, features) if image else self.dense(i, features)
        return self.affine(i) if norm else i

    def layer(self, i: int, features: int | None = None) -> int:
        return self.act(self.linear(i, features), *ACTS)

    def mul(self, a: int, b: int, weighs: int | None) -> int:
        self.refused.add("deeplift")
        return self.add("mul", a, b, weighs=weighs)

    def net(self, x: np.ndarray) -> Net:
        return Net(
            self.seed, tuple(self.nodes), self.params, x, self.fold, frozenset(self.refused),
            tuple(self.loops),
        )  # fmt: skip


# ReLU half of the time: what the theory is about.
ACTS = (
    *("relu",) * 12,
    *("leaky_relu", "elu", "selu", "tanh", "softplus", "silu", "gelu", "gelu_tanh", "relu6"),
    *(
        "mish",
        "hard_swish",
        "hard_tanh",
        "log_sigmoid",
        "soft_sign",
        "clip",
        "clip_wide",
        "minimum",
    ),
)

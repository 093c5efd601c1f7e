"""Accuracy of the shipped CIFAR-10 weights on labelled images.

    python benchmarks/accuracy.py cifar-10-python.tar.gz [more data sets]

Each argument is what `lrpjax train --test` takes.
"""

from __future__ import annotations

import argparse

import lrpjax as lrp
from lrpjax.models.datasets import read_cifar10
from lrpjax.models.training import accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    model = lrp.models.cifar10()
    for path in parser.parse_args().data:
        images, labels = read_cifar10(path, train=False)
        print(f"{path}: {accuracy(model, images, labels):.4f} of {len(images)} images")


if __name__ == "__main__":
    main()

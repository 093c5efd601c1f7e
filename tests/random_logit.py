"""The random-logit test on the bundled network: is the map of another class another map?

    python tests/random_logit.py

prints the median SSIM over the 20 bundled images for every method that its name says in full. Sixt
et al. 2020: 5 x 5 windows, the sign that fits better, scaled between 0.5th and 99.5th percentile.
"""

import numpy as np
from skimage.metrics import structural_similarity

import lrpjax as lrp
from lrpjax.images import bundled_images


def random_logit_similarity(method):
    """The median SSIM of the maps of the label and of another class (Sixt et al. 2020)."""
    model = lrp.models.cifar10()
    pixels, labels = bundled_images()
    x, others = model.preprocess(pixels), (labels + 1 + np.arange(20) % 9) % 10
    maps = [lrp.attribute(model, x, method, target=t).sum(-1) for t in (labels, others)]

    def scaled(image):
        low, high = np.percentile(image, [0.5, 99.5])
        return np.clip((image - high) / (low - high), 0, 1)

    def similarity(a, b):
        ssim = lambda a, b: structural_similarity(a, b, win_size=5, data_range=2)
        return max(ssim(a, b), ssim(a, 1 - b))

    pairs = zip(*(np.asarray(m, np.float64) for m in maps), strict=True)
    return np.median([similarity(scaled(a), scaled(b)) for a, b in pairs])


def main():
    measured = {}
    for name, entry in lrp.methods.TABLE.items():
        if entry.needs not in ("key", "layer"):
            measured[name] = random_logit_similarity(name)
    for name, median in sorted(measured.items(), key=lambda item: -item[1]):
        print(f"{name:28} {median:.2f}")


if __name__ == "__main__":
    main()

from .bundled import bundled_images as bundled_images
from .labels import read_labels as read_labels
from .loading import Images as Images
from .loading import load_images as load_images

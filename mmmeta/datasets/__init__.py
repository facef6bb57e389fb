"""Small generated data sets in the layouts of the real ones."""

from .ade20k import generate_ade20k
from .coco import generate_coco
from .imagenet import generate_imagenet

__all__ = ['generate_ade20k', 'generate_coco', 'generate_imagenet']

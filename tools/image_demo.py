#!/usr/bin/env python
"""Print what pictures show, as one of the published ImageNet classifiers sees them."""

import argparse

from rich.console import Console
from rich.table import Table

from mmmeta.apis.classify import build_classifier, classify, find_images
from mmmeta.apis.cli import command_line
from mmmeta.weights import trust


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('image', help='an image, or a folder of images')
    parser.add_argument('model', help='name in the zoo, such as caformer_s18, or a config')
    parser.add_argument(
        '--weights', help='path, URL, timm://MODEL or mmmeta://NAME (default: mmmeta:// and the model)'
    )
    parser.add_argument('--top', type=int, default=5, help='how many guesses (default: 5)')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1, ... (default: cpu)')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='read the weights even if code in them has to run'
    )
    return parser.parse_args()


def main() -> None:
    """Classify."""
    args = parse_args()
    images = find_images(args.image)
    trust([args.weights] if args.trust_checkpoint else [])
    model = build_classifier(args.model, args.weights, args.device)
    for image, guesses in classify(model, images, args.top):
        table = Table('class', 'name', 'score', title=image)
        for guess in guesses:
            table.add_row(str(guess.label), guess.name, f'{guess.score:.4f}')
        Console().print(table)


if __name__ == '__main__':
    command_line(main)

#!/usr/bin/env python
"""Write the metafiles, model-index.yml and docs/model_zoo.md from the configs and the papers' tables."""

import argparse

from rich.progress import track

from mmmeta.apis.cli import command_line
from mmmeta.apis.zoo import count_all, find_configs, render_zoo, write_counts
from mmmeta.resources import find_root


def main() -> None:
    """Write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--count', action='store_true', help='count parameters and MACs of all configs anew first, 2 minutes'
    )
    if parser.parse_args().count:
        write_counts(track(count_all(), 'counting', total=len(find_configs())))
    for path, text in render_zoo().items():
        target = find_root() / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        print(f'written: {path}')


if __name__ == '__main__':
    command_line(main)

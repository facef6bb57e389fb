#!/usr/bin/env python
"""Write the metafiles, model-index.yml, docs/model_zoo.md and its picture from configs and papers' tables."""

import argparse

from rich.progress import track

from benchmarks.families import plot_families
from benchmarks.metafiles import count_all, list_configs, render_zoo, result_panels, write_counts
from mmmeta.cli.arguments import command_line
from mmmeta.utils.atomic import written
from mmmeta.utils.resources import resource_root


def main() -> None:
    """Write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--count', action='store_true', help='recount parameters and MACs of all configs first (2 minutes)'
    )
    if parser.parse_args().count:
        write_counts(track(count_all(), 'counting', total=len(list_configs())))
    for path, text in render_zoo():
        target = resource_root() / path
        with written(target) as draft:
            draft.write_text(text)
        print(f'written: {path}')
    picture = resource_root() / 'docs/images/families.png'
    plot_families(result_panels(), picture)
    print(f'written: {picture.relative_to(resource_root())}')


if __name__ == '__main__':
    command_line(main)

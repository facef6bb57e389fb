#!/usr/bin/env python
"""Convert the weights of a MetaFormer to the layout of another repository."""

import argparse
import os

import check_interpreter  # noqa: F401

from mmmeta.cli.arguments import command_line
from mmmeta.utils.errors import UsageError
from mmmeta.utils.targets import check_target
from mmmeta.weights import LAYOUTS, convert_to_layout, read_weights, write_state_dict


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'source', help='path, URL, timm://MODEL or mmmeta://NAME; any layout, detected automatically'
    )
    parser.add_argument('target', help='file to write: .safetensors, or anything else for torch.save')
    parser.add_argument(
        '--to', choices=list(LAYOUTS), default='mmmeta', help='layout of the target (default: mmmeta)'
    )
    parser.add_argument('--force', action='store_true', help='overwrite an existing file')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='read the source even if it executes code'
    )
    return parser.parse_args()


def main() -> None:
    """Convert."""
    args = parse_args()
    check_target(args.target, 'target')
    if os.path.exists(args.target) and not args.force:
        raise UsageError(f"'{args.target}' exists already: choose another name, or pass --force")
    state_dict, layout = read_weights(args.source, args.trust_checkpoint)
    written = convert_to_layout(state_dict, args.to)
    write_state_dict(written, args.target)
    left_out = len(state_dict) - len(written)
    print(
        f'{len(written)} tensors, {layout} layout -> {args.to} layout: {args.target}'
        + (
            f'; left out: {left_out} tensors of output norms, which that layout does not have'
            if left_out
            else ''
        )
    )


if __name__ == '__main__':
    command_line(main)

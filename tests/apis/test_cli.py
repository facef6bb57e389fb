"""What the command lines share."""

import weakref

import torch.distributed as dist
from torch import nn

from mmmeta.apis.cli import command_line


def test_a_tool_takes_its_process_group_apart(tmp_path):
    def main():
        dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
        wrapped = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
        wrapped.itself = [wrapped]  # as runners and their hooks hold each other
        models.append(weakref.ref(wrapped))

    models = []
    command_line(main)
    assert not dist.is_initialized()
    assert models[0]() is None

"""Compile all kernels for a GPU that need not be there, and print what each one takes of it.

``python compile_kernels.py 86`` compiles for compute capability 8.6.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from mmmeta.models.ops.kernels import group_norm, scaled_square, windows


class Absent:
    """What Triton asks its driver for; the GPU itself is not there."""

    def __init__(self, capability):
        self.target = GPUTarget('cuda', capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def compiled_kernels(capability):
    """Launch every kernel; yields the dtype, name and result of each compilation."""
    found = []
    launch = JITFunction.run

    def compile_only(self, *args, grid, warmup, **options):
        kernel = launch(self, *args, grid=grid, warmup=True, **options)
        found.append((self.__name__, kernel))
        return kernel

    JITFunction.run = compile_only
    driver.set_active(Absent(capability))
    attend, differentiate = (
        op._init_fn for op in (windows._attend_in_windows, windows._attend_in_windows_backward)
    )
    for dtype in (torch.float32, torch.bfloat16):
        found.clear()
        x = torch.empty(2, 320, 16, 16, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.empty(320)
        scaled_square.scaled_square(x, weight[:1], weight[:1])
        scaled_square.scaled_square_gradients(x, x, weight[:1])
        y, stats = group_norm.normalise_maps(x, weight, weight, 1e-5, torch.float32)
        group_norm.normalise_maps_again(x, weight, weight, stats, torch.float32)
        group_norm.normalise_maps_gradients(y, x, weight, stats)
        yield from ((str(dtype), name, kernel) for name, kernel in found)
        for precision in ('ieee', 'tf32') if dtype == torch.float32 else ('ieee',):
            torch.backends.cuda.matmul.fp32_precision = precision
            for head_dim in (32, 256 // dtype.itemsize):
                found.clear()
                qkv = torch.empty(50 * 84, 3 * head_dim, dtype=dtype)
                rule = [50, 84], [13, 13], 0, head_dim
                out, lse = attend(qkv, *rule)
                differentiate(out, qkv, out, lse, *rule)
                yield from ((f'{dtype}, {precision}, {head_dim}', name, kernel) for name, kernel in found)


def bytes_spilled(kernel):
    """Bytes of local memory that a thread keeps registers in."""
    tool = Path(triton.__file__).parent / 'backends/nvidia/bin/cuobjdump'
    with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
        file.write(kernel.asm['cubin'])
        file.flush()
        command = [tool, '--dump-resource-usage', file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(re.search(r'STACK:(\d+)', usage)[1])


if __name__ == '__main__':
    for case, name, kernel in compiled_kernels(int(sys.argv[1])):
        print(json.dumps([case, name, kernel.metadata.shared, bytes_spilled(kernel)]))

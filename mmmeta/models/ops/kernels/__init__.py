"""Triton kernels of the operations for which PyTorch has no fused one.

The modules beside this one need Triton: operations import them where :mod:`mmmeta.models.ops.dispatch` has
chosen a kernel. `tools/gpu_report.py` measures them against what PyTorch offers.
"""

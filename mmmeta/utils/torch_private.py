"""What is used of PyTorch's data loading that is not public.

``tests/utils/test_mmengine_private.py`` fails where a release of PyTorch changes it.
"""

import gc

from torch.utils.data._utils.fetch import _MapDatasetFetcher
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

# Code in whose frame a data set is read, in any loop.
READING_DATA = _MapDatasetFetcher.fetch.__code__


def stop_data_workers() -> None:
    """End the worker processes of all data loaders.

    Collected in a cycle, an iterator would start to close queues that are closed already. Its owners may be
    frames of a traceback, so that all objects are looked through.
    """
    for iterator in [part for part in gc.get_objects() if type(part) is _MultiProcessingDataLoaderIter]:
        iterator._shutdown_workers()

"""MMEngine's configs and data sets without what it does again and again, a second of each command and config.

For every ``mmseg::`` base it reads all 50 metafiles of MMSegmentation, it formats the text of a config each
time that it is logged or saved, and collects garbage whenever a data set is built. Here the files are read
once for a process, the text stays as it is, and Python collects garbage when it has to.
"""

from functools import cache
from types import SimpleNamespace

from mmengine.config import config, utils
from mmengine.dataset import base_dataset

utils.load = cache(utils.load)
config.FormatCode = lambda text, **style: (text, False)
base_dataset.gc = SimpleNamespace(collect=lambda: 0)

"""MMEngine's configs without what it does again and again, a second of each command and of each config read.

For every ``mmseg::`` base it reads all 50 metafiles of MMSegmentation, and it formats the text of a config
each time that it is logged or saved. Here the files are read once for a process, and the text stays as it is.
"""

from functools import cache

from mmengine.config import config, utils

utils.load = cache(utils.load)
config.FormatCode = lambda text, **style: (text, False)

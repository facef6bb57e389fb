"""Load a config with a MetaFormer in the place of its backbone."""

from typing import Any

from mmengine.config import Config

from mmmeta.config import loading
from mmmeta.config.backbones import name_of_spec


def load_config(
    path: str,
    options: dict[str, Any] | None = None,
    work_dir: str | None = None,
    test_data: str | None = None,
    backbone: str | None = None,
) -> Config:
    """Read a config, put a backbone into it, merge options, and check that the packages it needs can run.

    Args:
        path (str): The config file, or one that a package ships, such as
            ``mmmeta::fpn_poolformer_s12_ade20k.py`` or ``mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py``.
        options (dict | None): Dotted keys and the values that replace the file's. Defaults to None.
        work_dir (str | None): Folder for logs and checkpoints. Defaults to None: that of the config, else
            ``work_dirs/<name of the config>``.
        test_data (str | None): Another config, whose test data and metrics replace those of the file; the
            pipeline stays the file's. Defaults to None.
        backbone (str | None): A MetaFormer to put into the config, see :func:`~mmmeta.apis.swap`. Defaults to
            None: that of the file.

    Returns:
        Config: The config, with ``work_dir`` set.

    Raises:
        UsageError: There is no such file, it is not Python, or an option or the backbone does not fit it.
        StackError: A package that it needs is missing or cannot run.
    """
    if backbone is None:
        return loading.load_config(path, options, work_dir, test_data)
    from mmmeta.swapping import swap  # builds models, which takes seconds to import

    name = name_of_spec(backbone)
    cfg = swap(loading.read(path, test_data), backbone)
    if cfg.get('work_dir'):
        cfg.work_dir = f'{cfg.work_dir}_{name}'
    return loading.edit(cfg, f'{loading.name_of(path)}_{name}', options, work_dir)

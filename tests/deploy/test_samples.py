"""Images that stand for a data set."""

import pytest
from mmengine.config import Config

from mmmeta.deploy import samples
from mmmeta.deploy.samples import training_images
from mmmeta.utils.errors import UsageError


class Data(list):
    def get_data_info(self, index):
        return dict(img_path=self[index])


@pytest.mark.parametrize(
    ('count', 'chosen'), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, [*range(10)]), (99, [*range(10)])]
)
def test_images_for_calibration_are_spread_over_the_training_set(count, chosen, monkeypatch):
    """Data sets are often sorted: the first images may be of one class."""
    monkeypatch.setattr(samples, 'build', lambda builder, cfg: Data(range(10)))
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='X', pipeline=[])), default_scope='mmengine'))
    assert training_images(cfg, count) == chosen
    with pytest.raises(UsageError, match='samples=0: give a positive number'):
        training_images(cfg, 0)

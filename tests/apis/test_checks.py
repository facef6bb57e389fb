"""What is explained as a mistake of the data, and what is not."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader, Dataset

from mmmeta.config.building import build
from mmmeta.config.data import explain_data_errors
from mmmeta.registry import MODELS
from mmmeta.utils.errors import UsageError


class Images(Dataset):
    def __init__(self, error):
        self.error = error
        self.ann_file = 'annotations.json'

    def __len__(self):
        return 2

    def __getitem__(self, index):
        raise self.error


def missing():
    return FileNotFoundError(2, 'No such file or directory', 'image.jpg')


@pytest.mark.parametrize('workers', [0, 1])
def test_an_image_that_vanished(workers):
    loader = DataLoader(Images(missing()), num_workers=workers)
    with pytest.raises(UsageError) as error, explain_data_errors(Config(), []):
        next(iter(loader))
    assert str(error.value) == "'image.jpg' is not there: add it, or take it out of the data set"
    assert isinstance(error.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('error', [KeyError('gt_label'), ValueError('too large')])
def test_a_transform_of_the_users_that_fails_keeps_its_traceback(error, workers):
    loader = DataLoader(Images(error), num_workers=workers)
    with pytest.raises(type(error)), explain_data_errors(Config(), []):
        next(iter(loader))


@pytest.mark.parametrize(
    'error', [missing(), KeyError('loss_ce'), ValueError('bad'), torch.OutOfMemoryError()]
)
def test_what_fails_elsewhere_is_not_explained(error):
    with pytest.raises(type(error)) as raised, explain_data_errors(Config(), []):
        raise error
    assert raised.value is error


def test_a_data_set_that_cannot_be_built():
    from mmengine.runner import Runner

    class Broken(Images):
        def __init__(self):
            self.ann_file = 'annotations.json'
            raise KeyError('images')

    from mmengine.registry import DATASETS

    DATASETS.register_module(module=Broken, force=True)
    loader = dict(dataset=dict(type='Broken'), batch_size=1, sampler=dict(type='DefaultSampler'))
    message = "'annotations.json' is not in the format of its data set"
    with pytest.raises(UsageError, match=message), explain_data_errors(Config(), []):
        Runner.build_dataloader(loader)


@pytest.mark.parametrize(('folder', 'error'), [('of_torch', UsageError), ('of_a_user', ValueError)])
def test_what_constructors_of_the_packages_refuse_is_explained(tmp_path, folder, error):
    """Those of a package, wherever it is; not those of a user's folder of the same name."""
    path = (
        tmp_path / 'torch/module.py' if folder == 'of_a_user' else Path(torch.__file__).with_name('module.py')
    )
    names = {}
    source = "class Refusing:\n    def __init__(self):\n        raise ValueError('a bug')\n"
    exec(compile(source, str(path), 'exec'), names)
    with pytest.raises(ValueError, match='a bug') as raised:
        build(MODELS.build, dict(type=names['Refusing']))
    assert type(raised.value) is error


def test_a_part_without_a_type_is_explained():
    with pytest.raises(UsageError, match='must contain the key "type"'):
        build(MODELS.build, dict(in_channels=3))

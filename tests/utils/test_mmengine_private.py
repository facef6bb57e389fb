"""Parts of MMEngine and PyTorch that are not public are there, and are used in two modules alone."""

import ast
import inspect

import pytest
import torch
from conftest import ROOT
from mmengine.config import DictAction
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import build_from_cfg
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner import checkpoint as checkpoint_module
from mmengine.runner.checkpoint import CheckpointLoader

from mmmeta.utils import mmengine_private, torch_private

ROOMS = ('analysis', 'apis', 'cli', 'config', 'engine', 'scaffold', 'swapping', 'utils', 'validation')
ADAPTERS = ('mmengine_private.py', 'torch_private.py')
# Of PyTorch's storages and state dicts, of MMPretrain's models, of argparse and of os; and of the class that
# --cfg-options extends, see test_signatures.
OTHERS = {'_cdata', '_metadata', '_config', '_actions', '_exit', '_parse_int_float_bool'}


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode):
        return dict(loss=self.layer(inputs).sum())


@pytest.fixture
def runner(tmp_path):
    data = dict(dataset=[torch.ones(1)] * 2, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=1)
    return Runner(
        Model(),
        str(tmp_path),
        train_dataloader=data,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=4),
        load_from='a.pth',
        experiment_name='test_mmengine_private',
    )


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_a_runner(runner):
    names = ('_resume', '_load_from', '_has_loaded', '_train_loop', '_val_loop', '_test_loop')
    assert {*names} <= vars(runner).keys()
    assert mmengine_private.checkpoint_of(runner) == 'a.pth'
    assert not mmengine_private.is_resuming(runner)
    mmengine_private.set_checkpoint(runner, None)
    assert (runner._load_from, runner._resume) == (None, False)
    runner._resume = True
    assert mmengine_private.lacks_checkpoint(runner)
    assert mmengine_private.active_loops(runner) == (False, False, False)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    assert mmengine_private.active_loops(runner) == (True, False, False)
    mmengine_private.init_weights(runner)
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    assert mmengine_private.accumulative_counts(wrapper) == wrapper._accumulative_counts == 4


def test_signatures():
    assert parameters(Runner._init_model_weights) == ['self']
    assert parameters(Runner.build_dataloader) == ['dataloader', 'seed', 'diff_rank_seed']
    assert parameters(build_from_cfg) == ['cfg', 'registry', 'default_args']
    # Overridden in subclasses.
    assert parameters(CheckpointHook._save_best_checkpoint) == ['self', 'runner', 'metrics']
    assert parameters(CheckpointHook._save_checkpoint_with_step) == ['self', 'runner', 'step', 'meta']
    assert parameters(DictAction._parse_iterable) == ['val']
    assert parameters(DictAction._parse_int_float_bool) == ['val']
    for loop in (EpochBasedTrainLoop, IterBasedTrainLoop):
        assert {'_max_iters', '_max_epochs', '_epoch', '_iter'} <= {*loop.__init__.__code__.co_names}


def test_optimiser_wrappers_with_a_loss_scale():
    """They are built on GPUs alone."""
    assert {'loss_scaler', '_scale_update_param'} <= {*AmpOptimWrapper.__init__.__code__.co_names}
    wrapper = OptimWrapper(torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1))
    assert not mmengine_private.adapts_loss_scale(wrapper)
    for fixed, adapts in ((512.0, False), (None, True)):
        wrapper.loss_scaler, wrapper._scale_update_param = object(), fixed
        assert mmengine_private.adapts_loss_scale(wrapper) == adapts


def test_the_loader_is_replaced_and_put_back():
    def load_from_nowhere(location, map_location=None):
        return location

    schemes, by_http = dict(CheckpointLoader._schemes), checkpoint_module.load_from_http
    with mmengine_private.replaced_loader(load_from_nowhere, ['', 'x://']):
        assert CheckpointLoader.load_checkpoint('x://y') == 'x://y'
        assert CheckpointLoader.load_checkpoint('y.pth') == 'y.pth'
        # What stands for a URL calls it by this name.
        assert checkpoint_module.load_from_http is load_from_nowhere
        assert 'load_from_http' in checkpoint_module.load_from_torchvision.__code__.co_names
    assert CheckpointLoader._schemes == schemes
    assert checkpoint_module.load_from_http is by_http


def test_data_loading():
    class Failing(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            # Up to Python 3.11 a comprehension stands between them.
            callers = [frame.frame.f_code for frame in inspect.stack(0)[1:3]]
            return torch_private.READING_DATA in callers

    reading = torch.utils.data.DataLoader(Failing())
    assert next(iter(reading)).item()
    iterator = iter(torch.utils.data.DataLoader([1, 2], num_workers=1))
    (worker,) = iterator._workers
    torch_private.stop_data_workers()
    assert not worker.is_alive()


def private_attributes(tree):
    """Private attributes of objects other than ``self`` and ``cls`` that a module does not define itself."""
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    own |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store) and is_self(node.value)}
    for node in attributes:
        private = (node.attr.startswith('_') and not node.attr.startswith('__')) or node.attr == '__code__'
        is_operator = ast.unparse(node.value).startswith('torch.ops.')
        if private and node.attr not in own | OTHERS and not is_self(node.value) and not is_operator:
            yield f'{ast.unparse(node)}, line {node.lineno}'


def is_self(node):
    return isinstance(node, ast.Name) and node.id in ('self', 'cls')


def test_nothing_else_uses_what_is_private():
    paths = [path for room in ROOMS for path in (ROOT / 'mmmeta' / room).rglob('*.py')]
    found = {
        f'{path.relative_to(ROOT)}: {attribute}'
        for path in paths
        if path.name not in ADAPTERS
        for attribute in private_attributes(ast.parse(path.read_text()))
    }
    assert found == set()

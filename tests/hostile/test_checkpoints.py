"""No checkpoint runs code, crashes, is half loaded, or decides what is deleted."""

import copy
import itertools
import json

import pytest
import torch
from checkpoints import DOORS, cases
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import nn

from mmmeta.apis.run import resume_from
from mmmeta.engine import CheckpointHook, Runner
from mmmeta.engine.checkpoint import safe_loading
from mmmeta.engine.checkpoint_hook import WRITTEN
from mmmeta.engine.resuming import find_last_checkpoint
from mmmeta.utils.errors import UsageError
from mmmeta.weights import load

COUNT = itertools.count()
# Of the whole product, which the nightly sweep tries.
SAMPLE = (
    *('zeroed bytes', 'flipped byte 0', 'code', 'deep nesting', 'a wrong size'),
    *('NaN', 'no data', 'stride 0', 'complex', 'NaN in state_dict of two', 'NaN in state_dict_ema of two'),
    *('a bare state dict', 'no optimizer', "meta='x'", "iter='abc'", 'other classes', 'another optimizer'),
    *('exp_avg one', 'lr=nan', 'schedule last_step', 'a tag', 'a position beyond the words', 'averages'),
)


class Model(BaseModel):
    """A layer and a norm."""

    def __init__(self, width=3):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, width), nn.BatchNorm1d(width)

    def forward(self, inputs, mode):
        return dict(loss=self.norm(self.layer(inputs)).square().sum()) if mode == 'loss' else [{}]


class Score(BaseMetric):
    """The number of the test."""

    def process(self, data_batch, data_samples):
        self.results.append(next(COUNT))

    def compute_metrics(self, results):
        return {'score': float(results[-1])}


class Data:
    """Eight images, and classes."""

    def __init__(self, classes):
        self.metainfo = dict(classes=classes)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.arange(3.0) + index)


def build(folder, max_iters=6, width=3, optimizer='AdamW', classes=('a', 'b'), ema=False, **cfg):
    for registry, kind in ((MODELS, Model), (METRICS, Score), (DATASETS, Data)):
        registry.register_module(module=kind, force=True, name=f'Hostile{kind.__name__}')
    loader = dict(
        dataset=dict(type='HostileData', classes=classes),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        batch_size=2,
    )
    hook = dict(type='CheckpointHook', by_epoch=False, **cfg.pop('hook', dict(interval=2)))
    return Runner.from_cfg(
        dict(
            model=dict(type='HostileModel', width=width),
            work_dir=str(folder),
            train_dataloader=dict(loader, sampler=dict(type='InfiniteSampler', shuffle=False)),
            train_cfg=dict(by_epoch=False, max_iters=max_iters, val_interval=1),
            val_dataloader=loader,
            val_cfg=dict(),
            val_evaluator=dict(type='HostileScore'),
            test_dataloader=loader,
            test_cfg=dict(),
            test_evaluator=dict(type='HostileScore'),
            optim_wrapper=dict(optimizer=dict(type=optimizer, lr=0.1)),
            param_scheduler=[dict(type='LinearLR', by_epoch=False, end=5)],
            default_hooks=dict(checkpoint=hook),
            custom_hooks=[dict(type='EMAHook')] if ema else [],
            randomness=dict(seed=0),
            experiment_name=f'hostile_{next(COUNT)}',
            **{'log_level': 'ERROR', **cfg},
        )
    )


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    """A good checkpoint, after four of six iterations."""
    folder = tmp_path_factory.mktemp('base')
    build(folder, 4).train()
    return torch.load(folder / 'iter_4.pth', weights_only=True)


@pytest.fixture(scope='module')
def good(base, tmp_path_factory):
    path = tmp_path_factory.mktemp('good') / 'good.pth'
    torch.save(base, path)
    return path


def enter(door, path, folder):
    """Load a checkpoint, and return the network."""
    if door == 'load':
        model = Model()
        load(model, path)
        return model
    with safe_loading():
        runner = build(folder, load_from=str(path), resume=door == 'resume')
        runner.test() if door == 'test' else runner.train()
    return runner.model


def try_cases(names, base, folder):
    """Bring cases through all doors."""
    victim, wrong = folder / 'victim', []
    known = {case.name: case for case in cases(base, victim)}
    for i, (case, door) in enumerate(itertools.product(map(known.get, names or known), DOORS)):
        path = folder / f'{i}.pth'
        case.write(path)
        try:
            model = enter(door, path, folder / str(i))
            finite = all(value.isfinite().all() for value in model.state_dict().values())
            right, text = door not in case.doors and finite, 'it is taken'
        except UsageError as error:
            text = str(error)
            right = door in case.doors and any(part in text for part in case.message.split('|'))
            right &= '\n' not in text and len(text) < 800 and not list(folder.glob(f'{i}/iter_*.pth'))
        except Exception as error:
            right, text = False, repr(error)
        if not right or victim.exists():
            wrong.append((case.name, door, text))
        path.unlink()
    assert not wrong


def test_a_sample_through_all_doors(base, tmp_path):
    try_cases(SAMPLE, base, tmp_path)


@pytest.mark.nightly
def test_all_through_all_doors(base, tmp_path):
    try_cases(None, base, tmp_path)


def test_a_good_one_resumes(good, tmp_path):
    runner = build(tmp_path, load_from=str(good), resume=True)
    runner.train()
    assert runner.iter == 6


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(width=4), 'its state_dict is not that of the config.* 6 of another shape'),
        (dict(optimizer='SGD'), 'it was trained with AdamW, and the config has SGD'),
        (dict(optimizer='Adam'), 'it was trained with AdamW, and the config has Adam'),
        (dict(classes=('a', 'x')), 'of its 2 classes 1 are others .1 b instead of x.'),
        (dict(max_iters=3), 'it has been trained for 4 iterations, and the config trains 3'),
    ],
)
def test_another_config_is_refused_with_the_way_to_take_the_weights(change, message, good, tmp_path):
    with pytest.raises(UsageError, match=message) as error:
        build(tmp_path, load_from=str(good), resume=True, **change).train()
    assert f"start from its weights alone: load_from='{good}' instead of --resume" in str(error.value)
    assert not list(tmp_path.glob('iter_*'))


def test_tuples_of_a_config_are_lists_in_another(base, tmp_path):
    assert isinstance(base['optimizer']['param_groups'][0]['betas'], tuple)
    changed = copy.deepcopy(base)
    changed['optimizer']['param_groups'][0]['betas'] = [0.9, 0.999]
    torch.save(changed, tmp_path / 'lists.pth')
    runner = build(tmp_path, load_from=str(tmp_path / 'lists.pth'), resume=True)
    runner.train()
    assert runner.iter == 6


@pytest.mark.parametrize('change', [dict(factor=float('nan')), dict(step=5), dict(param_name='x'), None])
def test_schedules_that_are_not_those_of_the_config_are_replaced_by_them(change, base, tmp_path):
    changed = copy.deepcopy(base)
    states = changed['param_schedulers']
    states[0].update(change or {})
    changed['param_schedulers'] = states if change else states * 2
    torch.save(changed, tmp_path / 'changed.pth')
    torch.save(base, tmp_path / 'good.pth')
    resumed, expected = (
        build(tmp_path / name, load_from=str(tmp_path / f'{name}.pth'), resume=True)
        for name in ('changed', 'good')
    )
    resumed.train()
    expected.train()
    assert resumed.param_schedulers[0].state_dict() == expected.param_schedulers[0].state_dict()
    assert resumed.optim_wrapper.get_lr() == expected.optim_wrapper.get_lr()


def test_repeated_elements_are_stored_in_full(base, tmp_path):
    """A step of the optimizer could not write to them."""
    changed = copy.deepcopy(base)
    moments = changed['optimizer']['state'][0]
    moments['exp_avg'] = torch.zeros(1).expand(moments['exp_avg'].shape)
    torch.save(changed, tmp_path / 'repeated.pth')
    build(tmp_path, load_from=str(tmp_path / 'repeated.pth'), resume=True).train()


@pytest.mark.parametrize('option', ['save_optimizer', 'save_param_scheduler'])
def test_checkpoints_that_no_run_resumes_from(option, tmp_path, capfd):
    sentence = f'{option}=False of CheckpointHook: this run cannot be resumed from its checkpoints'
    build(tmp_path, 1, hook=dict(interval=1, **{option: False}), log_level='WARNING').train()
    out, err = capfd.readouterr()
    assert sentence in out + err
    with pytest.raises(UsageError, match='cannot resume from .*: it has no (state|schedules)'):
        build(tmp_path, load_from=str(tmp_path / 'iter_1.pth'), resume=True).train()


def test_optimizers_of_checkpoints_without_a_note_are_told_by_their_states(base, tmp_path):
    changed = copy.deepcopy(base)
    del changed['meta']['optimizer']
    torch.save(changed, tmp_path / 'old.pth')
    with pytest.raises(UsageError, match=r'group 0 of its parameters is not of SGD: they differ in '):
        build(tmp_path, load_from=str(tmp_path / 'old.pth'), resume=True, optimizer='SGD').train()
    build(tmp_path, load_from=str(tmp_path / 'old.pth'), resume=True).train()


@pytest.mark.parametrize('part', ['state_dict', 'ema_state_dict'])
def test_averaged_weights_are_checked_as_well(part, tmp_path):
    build(tmp_path / 'a', 4, ema=True).train()
    checkpoint = torch.load(tmp_path / 'a/iter_4.pth', weights_only=True)
    name = next(name for name in checkpoint[part] if name.endswith('layer.weight'))
    for value, message in (
        (torch.zeros(1), 'of another shape'),
        (torch.full((3, 3), float('nan')), 'finite'),
    ):
        changed = copy.deepcopy(checkpoint)
        changed[part][name] = value
        torch.save(changed, tmp_path / 'x.pth')
        with pytest.raises(UsageError, match=message):
            build(tmp_path / 'b', load_from=str(tmp_path / 'x.pth'), resume=True, ema=True).train()


KEEPING = dict(interval=1, max_keep_ckpts=1, save_best='score', rule='greater')


class TestPaths:
    """Only what a run wrote in its work directory is removed."""

    @pytest.fixture
    def victim(self, tmp_path):
        folder = tmp_path / 'victim'
        (folder / 'photos').mkdir(parents=True)
        return folder

    @pytest.mark.parametrize('key', ['keep_ckpt_ids', 'best_ckpt', 'last_ckpt', 'best_ckpt_score'])
    @pytest.mark.parametrize('spell', [str, lambda p: [str(p)] * 3, lambda p: f'../{p.name}', lambda p: 5])
    def test_paths_in_a_checkpoint_are_not_followed(self, key, spell, base, victim, tmp_path):
        changed = copy.deepcopy(base)
        changed['message_hub']['runtime_info'].update({key: spell(victim), 'best_score': -1.0})
        changed['message_hub']['resumed_keys'].update({key: True, 'best_score': True})
        torch.save(changed, tmp_path / 'evil.pth')
        build(tmp_path / 'work', load_from=str(tmp_path / 'evil.pth'), resume=True, hook=KEEPING).train()
        assert (victim / 'photos').is_dir()

    def test_numbers_do_not_name_files_of_another_run(self, base, tmp_path):
        changed = copy.deepcopy(base)
        changed['message_hub']['runtime_info']['keep_ckpt_ids'] = [1, 2, 3]
        torch.save(changed, tmp_path / 'evil.pth')
        work = tmp_path / 'work'
        work.mkdir()
        (work / 'iter_2.pth').write_text("another run's")
        build(work, load_from=str(tmp_path / 'evil.pth'), resume=True, hook=KEEPING).train()
        assert (work / 'iter_2.pth').read_text() == "another run's"

    def files(self, folder):
        return sorted(path.name for path in folder.glob('*.pth'))

    def test_a_resumed_run_prunes_what_it_wrote_before(self, tmp_path):
        build(tmp_path, 3, hook=KEEPING).train()
        assert self.files(tmp_path) == ['best_score_iter_3.pth', 'iter_3.pth']
        cfg = Config(dict(work_dir=str(tmp_path)))
        resume_from(cfg, None)
        build(tmp_path, 5, hook=KEEPING, load_from=cfg.load_from, resume=True).train()
        assert self.files(tmp_path) == ['best_score_iter_5.pth', 'iter_5.pth']

    def test_a_moved_folder_goes_on_and_a_copied_file_leaves_the_best_alone(self, tmp_path, capfd):
        build(tmp_path / 'old', 3, hook=KEEPING).train()
        (tmp_path / 'copy').mkdir()
        (tmp_path / 'copy/start.pth').write_bytes((tmp_path / 'old/iter_3.pth').read_bytes())
        (tmp_path / 'old').rename(tmp_path / 'new')
        cfg = Config(dict(work_dir=str(tmp_path / 'new')))
        resume_from(cfg, None)
        assert cfg.load_from == str(tmp_path / 'new/iter_3.pth')
        build(tmp_path / 'new', 4, hook=KEEPING, load_from=cfg.load_from, resume=True).train()
        assert self.files(tmp_path / 'new') == ['best_score_iter_4.pth', 'iter_4.pth']
        start = str(tmp_path / 'copy/start.pth')
        more = dict(load_from=start, resume=True, log_level='INFO')
        build(tmp_path / 'copy', 4, hook=KEEPING, **more).train()
        assert self.files(tmp_path / 'copy') == ['best_score_iter_4.pth', 'iter_4.pth', 'start.pth']
        out, err = capfd.readouterr()
        assert 'run, best_score_iter_3.pth, is not listed in checkpoints.json: it is left alone' in out + err

    def test_a_list_of_files_is_names_alone(self, victim, tmp_path):
        work = tmp_path / 'work'
        build(work, 3, hook=KEEPING).train()
        names = json.loads((work / WRITTEN).read_text())
        assert names['kept'] == ['iter_3.pth']
        assert names['best']['best'][-1] == 'best_score_iter_3.pth'
        (work / 'linked.pth').symlink_to(victim)
        names['kept'] = ['../victim', str(victim), '..', '', 5, 'linked.pth', 'iter_3.pth']
        (work / WRITTEN).write_text(json.dumps(names))
        last = str(work / 'iter_3.pth')
        build(work, 5, hook=KEEPING, load_from=last, resume=True).train()
        assert (victim / 'photos').is_dir()
        assert (work / 'linked.pth').is_symlink()

    @pytest.mark.parametrize('key', ['kept', 'best'])
    def test_a_list_of_files_names_no_others_of_the_folder(self, key, tmp_path):
        build(tmp_path, 3, hook=KEEPING).train()
        files = ['notes.txt', 'best_friends.pth', 'iter_x.pth', 'my_iter_2.pth', 'iter_2.pth.txt']
        folders = ['photos', 'iter_1.pth', 'best_score_iter_1.pth']
        for name in files:
            (tmp_path / name).write_text('mine')
        for name in folders:
            (tmp_path / name).mkdir()
            (tmp_path / name / 'mine.jpg').write_text('mine')
        written = json.loads((tmp_path / WRITTEN).read_text())
        listed = written if key == 'kept' else written['best']
        listed[key] = [*files, *folders, 'iter_2.pth', *listed[key]]
        (tmp_path / 'iter_2.pth').mkdir()  # a sharded one
        (tmp_path / 'iter_2.pth/rank0.pth').write_text('weights')
        (tmp_path / WRITTEN).write_text(json.dumps(written))
        build(tmp_path, 5, hook=KEEPING, load_from=str(tmp_path / 'iter_3.pth'), resume=True).train()
        assert all((tmp_path / name).read_text() == 'mine' for name in files)
        assert all((tmp_path / name / 'mine.jpg').is_file() for name in folders)
        assert not (tmp_path / 'iter_2.pth').exists()
        assert not (tmp_path / 'iter_3.pth').exists()
        assert not (tmp_path / 'best_score_iter_3.pth').exists()

    @pytest.mark.parametrize(
        ('template', 'names'),
        [
            ('step{:04d}.pth', ['step0012.pth', 'best_a_b_step0012.pth', 'iter_3.pth', 'epoch_1_iter_3.pth']),
            ('iter_{}.pth', ['epoch_3.pth', 'best_mIoU_iter_7.pth', 'best_mIoU_epoch_7.pth']),
        ],
    )
    def test_names_that_the_hook_gives(self, template, names):
        hook = CheckpointHook(filename_tmpl=template)
        assert all(map(hook._is_own_name, names))
        others = ['', '..', 'step12.pth', 'iter_02.pth', 'iter_1.pth\n', '../iter_1.pth', 'best_iter_1.pth']
        assert not any(map(hook._is_own_name, others))

    @pytest.mark.parametrize(
        'hook',
        [
            dict(max_keep_ckpts='1'),
            dict(max_keep_ckpts=True),
            dict(interval='x'),
            dict(save_best=5),
            dict(save_best=[5]),
            dict(published_keys=5),
            dict(filename_tmpl='../iter_{}.pth'),
            dict(filename_tmpl='same.pth'),
        ],
    )
    def test_arguments_of_another_type(self, hook, tmp_path):
        (key,) = hook
        with pytest.raises(UsageError, match=f'{key}=.* of CheckpointHook: give '):
            build(tmp_path, hook=hook)


class TestLastCheckpoint:
    @pytest.fixture
    def work(self, tmp_path):
        (tmp_path / 'work').mkdir()
        (tmp_path / 'work/iter_4.pth').write_text('weights')
        (tmp_path / 'outside.pth').write_text('weights')
        return tmp_path / 'work'

    @pytest.mark.parametrize(
        ('content', 'message'),
        [
            (b'', 'does not hold the path of a checkpoint'),
            (b'\n', 'does not hold the path of a checkpoint'),
            (b'\xff\xfe\x00garbage', 'does not hold the path of a checkpoint'),
            (b'iter_4.pth\nmore', 'does not hold the path of a checkpoint'),
            (b'..', 'does not hold the path of a checkpoint'),
            (b'work/iter_8.pth', "there is no 'iter_8.pth' in"),
            (b'../outside.pth', "there is no 'outside.pth' in"),
            (b'/etc/passwd', "there is no 'passwd' in"),
        ],
    )
    def test_what_names_no_checkpoint_of_the_folder_is_refused(self, content, message, work):
        (work / 'last_checkpoint').write_bytes(content)
        cfg = Config(dict(work_dir=str(work)))
        with pytest.raises(UsageError, match=message) as error:
            resume_from(cfg, None)
        assert str(error.value).endswith('--resume FILE, or remove last_checkpoint to start anew')
        with pytest.raises(UsageError, match=message):
            build(work, resume=True).train()
        assert (work / 'iter_4.pth').read_text() == 'weights'

    def test_a_folder_is_refused(self, work):
        (work / 'last_checkpoint').mkdir()
        with pytest.raises(UsageError, match='is not a file with the path of a checkpoint'):
            resume_from(Config(dict(work_dir=str(work))), None)

    def test_none_starts_anew(self, work):
        cfg = Config(dict(work_dir=str(work)))
        resume_from(cfg, None)
        assert not cfg.resume

    def test_checkpoints_in_another_folder(self, tmp_path, work):
        (work / 'last_checkpoint').write_text('/data/run/iter_8.pth')
        (tmp_path / 'disk' / work.name).mkdir(parents=True)
        (tmp_path / 'disk' / work.name / 'iter_8.pth').write_text('weights')
        hooks = dict(checkpoint=dict(out_dir=str(tmp_path / 'disk')))
        cfg = Config(dict(work_dir=str(work), default_hooks=hooks))
        resume_from(cfg, None)
        assert cfg.load_from == str(tmp_path / 'disk' / work.name / 'iter_8.pth')

    def test_the_folder_of_a_relative_work_directory(self, work, monkeypatch):
        """MMEngine compares ``out_dir`` with the absolute work directory."""
        monkeypatch.chdir(work.parent)
        (work / 'last_checkpoint').write_text('iter_4.pth')
        for out_dir, folder in ((str(work), 'work'), ('work', 'work/work')):
            (work.parent / folder).mkdir(exist_ok=True)
            (work.parent / folder / 'iter_4.pth').write_text('weights')
            assert find_last_checkpoint('work', out_dir) == f'{folder}/iter_4.pth'


def test_a_config_in_a_checkpoint_is_not_run(base, tmp_path):
    """MMEngine runs ``meta['config']`` to compare numbers of GPUs."""
    changed = copy.deepcopy(base)
    changed['meta']['config'] = f'import os\nos.mkdir({str(tmp_path / "code")!r})\n'
    torch.save(changed, tmp_path / 'evil.pth')
    build(tmp_path, load_from=str(tmp_path / 'evil.pth'), resume=True).train()
    assert not (tmp_path / 'code').exists()

"""What was measured beside what is printed, from records written by hand and by a real run."""

import csv
import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY_CONFIG, metrics

from mmmeta.analysis.paper_tables import printed_results
from mmmeta.analysis.reproduce import commands, compare, export
from mmmeta.analysis.runs import Record, find_records, report_incomplete
from mmmeta.config.loading import load_config
from mmmeta.utils.errors import UsageError

NAME = 'upernet_caformer_s18_ade20k'
RECORD = dict(
    version=1,
    kind='train',
    config=str(ROOT / f'configs/{NAME}.py'),
    changes={},
    tta=False,
    test_data=None,
    checkpoint=None,
    resumed=False,
    seed=0,
    processes=8,
    batch_size=16,
    lr_scale=1.0,
    images=dict(train=20210, val=2000, test=2000),
    device='GPU',
    commit='abc',
    versions=dict(torch='2.12.1', mmengine='0.10.7'),
    started=0.0,
    iterations=[160000, 160000],
    step_time=0.5,
    finished=True,
    metrics=dict(mIoU=48.5, step=160000),
)


@pytest.fixture
def write(tmp_path):
    """Write a record that differs from a complete run of the config in some keys."""
    count = 0

    def write(work_dir, **values):
        nonlocal count
        count += 1
        kind = values.get('kind', 'train')
        path = tmp_path / work_dir / f'{count:08d}/record_{kind}.json'
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**RECORD, 'started': count, **values}))
        return path

    return write


def rows(folder, name=NAME, metric='mIoU'):
    results = [r for r in printed_results() if (r.name, r.metric) == (name, metric)]
    records = find_records(folder)
    return compare(records, results)


def test_mean_and_spread_over_seeds(write, tmp_path):
    write('a', metrics=dict(mIoU=48.0, step=160000))
    write('b', seed=1, metrics=dict(mIoU=49.0, step=160000))
    (row,) = rows(tmp_path)
    assert (row.mean, len(row.values)) == (48.5, 2)
    assert row.spread == pytest.approx(0.5**0.5)
    assert row.differences == ()
    assert list(row.how) == [
        f'seed {seed}; batch 16 on 8 x GPU; learning rate x1; commit abc; torch 2.12.1, mmengine 0.10.7'
        for seed in (0, 1)
    ]


def test_a_test_of_its_last_checkpoint_takes_the_place_of_the_run(write, tmp_path):
    write('a')
    last, earlier = (str(tmp_path / f'a/iter_{n}.pth') for n in (160000, 80000))
    tested = dict(kind='test', batch_size=1)
    write('t', **tested, checkpoint=last, iterations=[160000, None], metrics=dict(mIoU=48.7))
    (row,) = rows(tmp_path)
    assert (row.mean, row.differences) == (48.7, ())
    # One of an earlier checkpoint is not the run's, and stands apart.
    write('t', **tested, checkpoint=earlier, iterations=[80000, None], metrics=dict(mIoU=40.0))
    exact, early = rows(tmp_path)
    assert (exact.mean, exact.differences) == (48.7, ())
    assert (early.mean, early.differences) == (40.0, ('checkpoint after 80000 of 160000 iterations',))


def test_what_is_not_as_in_the_config_stands_apart(write, tmp_path):
    write('a')
    changes = {'train_dataloader.dataset.data_root': '/x', 'train_cfg.max_iters': 20, 'train_cfg.type': 'X'}
    write('b', changes=changes, iterations=[20, 20], metrics=dict(mIoU=1.0, step=20))
    write('c', batch_size=8, metrics=dict(mIoU=47.0, step=160000))
    write('d', batch_size=8, lr_scale=0.5, metrics=dict(mIoU=48.0, step=160000))
    write('e', images=dict(train=240, val=40), metrics=dict(mIoU=60.0, step=160000))
    changes = {'val_dataloader.dataset.indices': 9, 'model.backbone.init_cfg.checkpoint': 'mmmeta://x'}
    write('f', changes=changes, metrics=dict(mIoU=50.0, step=160000))
    write('g', is_shipped=True, metrics=dict(mIoU=48.5, step=160000))
    write('h', is_shipped=False, config=f'/mine/{NAME}.py', metrics=dict(mIoU=51.0, step=160000))
    exact, *others = rows(tmp_path)
    assert (exact.mean, exact.differences) == (48.5, ())
    assert {row.differences: row.mean for row in others} == {
        ('train_cfg.max_iters=20',): 1.0,
        ('batch of 8 instead of 16 at 1 times the learning rate',): 47.0,
        ('batch of 8 instead of 16: 50% of the images',): 48.0,
        ('240 training images instead of 20210', '40 images instead of 2000'): 60.0,
        ('model.backbone.init_cfg.checkpoint=mmmeta://x', 'val_dataloader.dataset.indices=9'): 50.0,
        (f'config=/mine/{NAME}.py',): 51.0,
    }


def test_the_same_weights_from_another_place(write, tmp_path):
    key = 'model.backbone.init_cfg.checkpoint'
    write('a', changes={key: 'timm://caformer_s18.sail_in1k'})
    write('b', changes={key: 'timm://caformer_s18.sail_in22k'})
    assert [row.differences for row in rows(tmp_path)] == [(), (f'{key}=timm://caformer_s18.sail_in22k',)]


def test_a_checkpoint_whose_training_is_not_known(write, tmp_path):
    tested = dict(kind='test', iterations=[None, None], metrics=dict(mIoU=48.0))
    write('a', **tested, checkpoint='/elsewhere/final.pth')
    write('b', **tested, checkpoint=None)
    write('c', **tested, checkpoint='https://example.org/weights.pth')
    found = {row.differences: len(row.values) for row in rows(tmp_path)}
    assert found == {('training not recorded',): 2, ('the network before training',): 1}


def test_published_weights(write, tmp_path):
    name = 'caformer_s18_in1k'
    base = dict(kind='test', config=str(ROOT / f'configs/imagenet/{name}.py'), iterations=[None, None])
    base.update(images=dict(test=50000), changes={'test_dataloader.batch_size': 64})
    places = ('mmmeta://caformer_s18', 'timm://caformer_s18.sail_in1k', 'mmmeta://caformer_s18_in21ft1k')
    for value, place in zip((83.5, 83.6, 84.1), places, strict=True):
        write('t', **base, checkpoint=place, metrics={'accuracy/top1': value})
    exact, other = rows(tmp_path, name, 'top-1')
    # Two places of the same weights are not two networks.
    assert (exact.mean, exact.spread, exact.differences) == (83.6, None, ())
    assert other.differences == ('weights of caformer_s18_in21ft1k',)


def test_variants_of_a_test_are_results_of_their_own(write, tmp_path):
    name = 'fpn_poolformer_s12_ade20k'
    config = str(ROOT / f'configs/{name}.py')
    base = dict(config=config, kind='test', checkpoint=f'mmmeta://{name}', iterations=[None, None])
    plain = {'test_dataloader.dataset.pipeline.2.size_divisor': 1}
    averaged = {
        'tta_pipeline.1.transforms.1.0.size_divisor': 1,
        'test_dataloader.dataset.pipeline.1.transforms.1.0.size_divisor': 1,
    }
    values = [
        ('mIoU*', dict()),
        ('mIoU, not aligned', dict(changes=plain)),
        ('mIoU*, ms+flip', dict(tta=True)),
        ('mIoU, ms+flip, not aligned', dict(tta=True, changes=averaged)),
    ]
    for value, (_, kind) in enumerate(values):
        write('t', **base, **kind, metrics=dict(mIoU=float(value)))
    for value, (metric, _) in enumerate(values):
        (row,) = rows(tmp_path, name, metric)
        assert (row.mean, row.differences) == (value, ())
    # The keys are those of the config.
    options = dict.fromkeys((*plain, next(iter(averaged))), 1)
    cfg = load_config(config, options)
    assert cfg.test_dataloader.dataset.pipeline[2].type == 'ResizeToMultiple'
    assert cfg.tta_pipeline[1].transforms[1][0] == dict(type='ResizeToMultiple', size_divisor=1)


def test_runs_that_give_no_number(write, tmp_path):
    write('a', finished=False, iterations=[10, 160000], metrics=None)
    write('b', metrics=None)
    write('c', metrics=None)
    checkpoint = str(tmp_path / 'c/iter_160000.pth')
    write('t', kind='test', checkpoint=checkpoint, iterations=[160000, None], metrics=dict(mIoU=1.0))
    write('d', metrics=dict(mIoU=1.0, step=80000))
    records = find_records(tmp_path)
    first, second, third = report_incomplete(records)
    assert first == f'{tmp_path}/a: not finished, 10 of 160000 iterations'
    assert second.startswith(f'{tmp_path}/b: never evaluated; tools/test.py ')
    assert third == f'{tmp_path}/d: last evaluated after 80000 of 160000 iterations'
    (row,) = rows(tmp_path)
    assert row.mean == 1.0


class TestMistakes:
    def test_two_configs_under_one_name(self, write, tmp_path):
        write('a')
        write('a', changes={'train_cfg.max_iters': 20})
        with pytest.raises(UsageError, match=r"a' holds runs of different configs under one name \(upernet_"):
            rows(tmp_path)
        write('b')
        write('b', config=str(ROOT / 'configs/upernet_convformer_s18_ade20k.py'))
        with pytest.raises(UsageError, match='and upernet_convformer_s18_ade20k|with other train_cfg'):
            rows(tmp_path)

    def test_a_run_that_was_resumed_is_one_run(self, write, tmp_path):
        write('a', finished=False, iterations=[10, 160000], metrics=None)
        write('a', resumed=True, changes={'resume': True})
        (row,) = rows(tmp_path)
        assert (row.mean, row.differences) == (48.5, ())
        # Resumed when it was complete, it measures nothing more.
        write('a', resumed=True, metrics=None)
        (row,) = rows(tmp_path)
        assert (row.mean, row.differences) == (48.5, ())

    def test_a_run_that_was_resumed_as_another(self, write, tmp_path):
        write('a', finished=False, iterations=[10, 160000], metrics=None, batch_size=32, lr_scale=2.0)
        write('a', resumed=True, checkpoint='/other/iter_10.pth')
        (row,) = rows(tmp_path)
        assert row.differences == (
            'resumed with another batch',
            'batch of 32 instead of 16: 200% of the images',
            'resumed from /other/iter_10.pth',
        )

    @pytest.mark.parametrize('content', ['{', '[]', '{"kind": "train"}'])
    def test_no_record(self, write, tmp_path, content):
        path = write('a')
        path.write_text(content)
        with pytest.raises(UsageError, match=f"'{path}' is no record of a run, or a damaged one"):
            find_records(tmp_path)

    def test_no_folder(self):
        with pytest.raises(UsageError, match="there is no folder '/no/where': give the one that holds"):
            find_records('/no/where')

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / 'file').write_text('')
        with pytest.raises(UsageError, match=f"cannot write to '{tmp_path}/file/x' "):
            export(rows(tmp_path), tmp_path / 'file/x')


class TestCommands:
    def lines(self, folder, name):
        records = find_records(folder)
        found = compare(records, [r for r in printed_results() if r.name == name])
        return list(commands(found, records))

    def test_training_and_hours(self, write, tmp_path):
        changes = {'train_cfg.max_iters': 100}
        write('steps', changes=changes, iterations=[100, 100], metrics=None)
        lines = self.lines(tmp_path, NAME)
        assert lines[1] == f'# {NAME}: mIoU 48.9 (Table X)'
        # 160,000 iterations of half a second on 8 GPUs.
        assert lines[2].startswith('# 178 device-hours on GPU (0.50 s an iteration, measured in ')
        assert lines[3:] == [f'tools/dist_train.sh configs/{NAME}.py 8 --work-dir work_dirs/{NAME}']

    def test_nothing_of_the_network_was_timed(self, write, tmp_path):
        write('steps', changes={'model.backbone.window': 13})
        assert self.lines(tmp_path, NAME)[2].startswith('# GPU-hours unknown: no step was measured; ')

    def test_what_is_measured_is_left_out(self, write, tmp_path):
        write('a')
        assert self.lines(tmp_path, NAME) == []

    def test_tests_of_variants(self, tmp_path):
        lines = self.lines(tmp_path, 'fpn_poolformer_s12_ade20k')
        test = 'tools/dist_test.sh configs/fpn_poolformer_s12_ade20k.py '
        test += 'work_dirs/fpn_poolformer_s12_ade20k/iter_40000.pth 8'
        assert set(lines[-3:]) == {
            f'{test} --cfg-options test_dataloader.dataset.pipeline.2.size_divisor=1',
            f'{test} --tta --cfg-options tta_pipeline.1.transforms.1.0.size_divisor=1',
            f'{test} --tta',
        }

    def test_classifiers(self, tmp_path):
        lines = self.lines(tmp_path, 'caformer_s18_in1k')
        train = 'tools/dist_train.sh configs/imagenet/caformer_s18_in1k.py 8'
        assert any(f'NNODES=4 NODE_RANK=$RANK MASTER_ADDR=$MASTER PORT=29500 {train}' in x for x in lines)
        published = 'tools/dist_test.sh configs/imagenet/caformer_s18_in1k.py mmmeta://caformer_s18 8'
        assert sum(line.startswith(published) for line in lines) == 5
        # Of the trained and of the published network.
        assert sum('--test-data configs/imagenet/robustness/imagenet_' in line for line in lines) == 8


def test_every_printed_result_is_there():
    results = printed_results()
    assert all((ROOT / result.config).is_file() for result in results)
    sources = {}
    for result in results:
        sources[result.source] = sources.get(result.source, 0) + 1
    # Five FPNs and, with masks, six detectors of nine numbers; Table IX: 8 detectors of six numbers each.
    assert sources['Table IX'] == 8 * 6
    assert sources['Table X'] == 6
    assert sources['MMSegmentation model zoo'] == 5 * 4
    assert sources['arXiv:2111.11418'] == 5 + 3 + 3 * 2
    assert sources['Table III'] == 15
    assert sources['Tables V and VII'] == 8 * 4
    assert sources['Table VI'] == 8 * 4


def test_a_real_run(tools, tmp_path):
    """A small network and a short schedule under the name of a paper's config, through the command lines."""
    config = tmp_path / f'{NAME}.py'
    config.write_text(f"_base_ = '{ROOT / TINY_CONFIG}'\ntrain_cfg = dict(max_iters=3, val_interval=3)\n")
    work_dirs = tmp_path / 'work_dirs'
    tools.train(work_dirs / NAME, config=config)
    (path,) = work_dirs.rglob('record_train.json')
    record = json.loads(path.read_text())
    assert record['iterations'] == [3, 3]
    assert record['images'] == dict(train=10, val=4)
    assert record['finished']
    assert record['seed'] == 0
    assert record['step_time'] > 0
    # It is not ours, whose name it has: that it differs is known, not in what.
    assert Record(path).changes(()) == {'config': str(config)}
    command = (sys.executable, 'tools/analysis_tools/reproduce.py', config)
    folder = tmp_path / 'out'
    options = ('--cfg-options', *tools.data_options)
    evaluated = ('--checkpoint', work_dirs / NAME / 'iter_3.pth')
    more = ('--work-dirs', work_dirs, '--export', folder, *evaluated, *options)
    out = tools.run(*command, *more, COLUMNS='250')
    assert '1 of 1 results were measured' in out
    with open(folder / 'reproduce.csv') as file:
        (row,) = csv.DictReader(file)
    found = metrics(work_dirs / NAME)['mIoU']
    assert row['measured'] == f'{found:.2f}'
    assert record['metrics']['mIoU'] == pytest.approx(found, abs=0.01)
    assert row['difference'] == f'{found - 48.9:+.2f}'
    assert row['differs'].startswith('batch of 2 instead of 16 at 1 times the learning rate; 10 training ')
    assert f'config={config}' in row['differs']
    assert row['how'].startswith('seed 0; batch 2 on 1 x CPU, 1 threads; learning rate x1; commit ')
    assert {path.name for path in folder.iterdir()} == {f'reproduce.{end}' for end in ('csv', 'md', 'png')}
    assert Path(folder / 'reproduce.md').read_text().count('\n') == 3

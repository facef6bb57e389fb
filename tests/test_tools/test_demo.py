"""The first run, shortened."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mmmeta.analysis.segmentation import most_common_class_miou
from mmmeta.cli import demo


@pytest.fixture
def run_small_demo(tools, tmp_path, monkeypatch, capsys):
    """Run a demo with the small network of the tests in the place of the real one; return what it prints."""

    def run(task, config, data, *options):
        monkeypatch.setitem(demo.DEMOS, task, replace(demo.DEMOS[task], config=config))
        monkeypatch.setattr(demo, '_run', lambda step, *command: tools.run(*command))
        demo.run_demo(task, str(data), str(tmp_path / 'demo'), 1, list(options))
        return capsys.readouterr().out

    return run


def test_demo_reports_before_and_after(tools, run_small_demo, tmp_path):
    work_dir = tmp_path / 'demo'
    out = run_small_demo('segmentation', tools.config, tools.data_root.parent)
    assert re.search(r'CAFormer-S18 \+ UperNet +before +after +ratio', out)
    before, after, ratio = re.search(r'\nmIoU \(%\) +([\d.]+) +([\d.]+) +([\d.]+)x', out).groups()
    assert float(before) < float(after)
    assert float(ratio) > 1
    guess = most_common_class_miou(tools.data_root / 'annotations/validation')
    assert re.search(rf'of the most common class +{guess:.2f} +{guess:.2f}', out)
    assert len(list((work_dir / 'after/pictures/vis_data/vis_image').glob('*.png'))) == 4
    with Image.open(work_dir / 'demo.png') as picture:
        assert picture.width > 4 * 512 and picture.height > 3 * 512 / 1.5
        assert f'before and after: {work_dir}/demo.png' in out
    with Image.open(work_dir / 'loss.png') as curve:
        assert curve.size == (720, 480)
    assert (work_dir / 'train/iter_12.pth').is_file()


def test_demo_of_a_detector(det_tools, run_small_demo, tmp_path):
    work_dir = tmp_path / 'demo'
    options = ('train_cfg.max_epochs=1', 'model.test_cfg.rcnn.score_thr=0.0')
    out = run_small_demo('detection', det_tools.config, det_tools.data_root.parent, *options)
    for name in ('AP50 box', 'AP50 mask'):
        assert re.search(rf'\n{name} \(%\) +[\d.]+ +[\d.]+ +[\d.]+x', out)
    with Image.open(work_dir / 'demo.png') as picture:
        assert picture.width > 4 * 512  # image, annotation, before, after
    pictures = re.search(r'all predictions: +(.+)', out)[1]
    assert len(list(Path(pictures).glob('*.jpg'))) == 4
    assert (work_dir / 'loss.png').is_file()
    assert (work_dir / 'train/epoch_1.pth').is_file()


def test_demo_says_which_step_failed(tools, tmp_path):
    (tmp_path / 'ADEChallengeData2016').mkdir()
    process = tools.start(
        sys.executable, 'tools/demo.py', '--data', tmp_path, '--work-dir', tmp_path / 'w', '--processes', '1'
    )
    _, err = process.communicate()
    assert process.returncode == 1
    first, second = (line for line in err.splitlines() if line.startswith('error: '))
    assert f"'{tmp_path}/ADEChallengeData2016/images/validation'" in first
    assert second == ('error: evaluate before training failed (exit status 1); see the output above')

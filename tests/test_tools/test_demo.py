"""The first run, shortened."""

import re
import sys
from pathlib import Path

from PIL import Image

from mmmeta.analysis.segmentation import most_common_class_miou


def test_demo_reports_before_and_after(tools, tmp_path):
    data = tools.data_root.parent
    work_dir = tmp_path / 'demo'
    command = (sys.executable, 'tools/demo.py', '--data', data, '--work-dir', work_dir, '--processes', '1')
    # The network of the tests in the place of the real one; what is run and reported is the same.
    options = ('train_cfg.max_iters=12', 'default_hooks.logger.interval=2')
    options += ('model.decode_head.channels=32', 'model.auxiliary_head.channels=32')
    out = tools.run(*command, '--cfg-options', *options)
    assert re.search(r'CAFormer-S18 \+ UperNet +before +after +ratio', out)
    before, after, ratio = re.search(r'\nmIoU \(%\) +([\d.]+) +([\d.]+) +([\d.]+)x', out).groups()
    assert float(before) < float(after)
    assert float(ratio) > 1
    guess = most_common_class_miou(tools.data_root / 'annotations/validation')
    assert re.search(rf'of the most common class +{guess:.2f} +{guess:.2f}', out)
    assert len(list((work_dir / 'after/pictures/vis_data/vis_image').glob('*.png'))) == 4
    with Image.open(work_dir / 'loss.png') as curve:
        assert curve.size == (720, 480)
    assert (work_dir / 'train/iter_12.pth').is_file()


def test_demo_of_a_detector(det_tools, tmp_path):
    work_dir = tmp_path / 'demo'
    command = (sys.executable, 'tools/demo.py', '--task', 'detection', '--data', det_tools.data_root.parent)
    options = ('train_cfg.max_iters=4', 'default_hooks.logger.interval=2', 'train_dataloader.batch_size=2')
    options += ('model.train_cfg.rcnn.sampler.num=16', 'model.test_cfg.rcnn.score_thr=0.0')
    out = det_tools.run(*command, '--work-dir', work_dir, '--processes', '1', '--cfg-options', *options)
    for name in ('AP50 box', 'AP50 mask'):
        assert re.search(rf'\n{name} \(%\) +[\d.]+ +[\d.]+ +[\d.]+x', out)
    pictures = re.search(r'annotation \| prediction: (.+)', out)[1]
    assert len(list(Path(pictures).glob('*.jpg'))) == 4
    assert (work_dir / 'loss.png').is_file()
    assert (work_dir / 'train/iter_4.pth').is_file()


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

"""The cover of the zoo: a sample of each package and kind of data, and how outcomes are told and kept."""

import pytest
from conftest import nightly_but

from benchmarks.coverage.data import generate_all
from benchmarks.coverage.report import cover, read_rows, write_csv, write_page, write_weights
from benchmarks.coverage.run import (
    BROKEN,
    NO_MODEL,
    OPERATOR,
    PACKAGE,
    TIED,
    VIDEO,
    Outcome,
    examine,
    list_configs,
    run,
)

pytest.importorskip('mmseg', reason='configs of MMSegmentation are tried')
pytest.importorskip('mmdet', reason='configs of MMDetection are tried')
pytest.importorskip('mmpretrain', reason='configs of MMPretrain are tried')
# Boxes, masks, panoptic maps, proposals, two branches of data, labels, several labels for an image.
SAMPLE = (
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'mmdet::fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py',
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py',
    'mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
    'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py',
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'mmseg::fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024.py',
    'mmseg::hrnet/fcn_hr18_4xb2-40k_cityscapes-512x1024.py',
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    'mmpretrain::csra/resnet101-csra_1xb16_voc07-448px.py',
)

# Those that stand for the others in the suite.
SUITE = tuple(SAMPLE[i] for i in (1, 3, 5, 7, 9, 10))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Generated data, and weights as timm writes them."""
    folder = tmp_path_factory.mktemp('coverage')
    generate_all(folder / 'data')
    write_weights(folder / 'weights.pth', 'caformer_s18')
    return folder


@pytest.fixture(autouse=True)
def _back(monkeypatch, request):
    """Some configs are read from another folder."""
    monkeypatch.chdir(request.config.rootpath)


@pytest.mark.parametrize('config', nightly_but(SAMPLE, SUITE.__contains__))
def test_a_sample_trains_and_predicts(config, folder):
    outcome = run(config, config, folder / 'data', str(folder / 'weights.pth'), 'caformer_s18')
    assert outcome.reason == ''
    assert outcome.swapped and outcome.built and outcome.trained and outcome.predicted


def test_what_does_not_run_is_told_with_its_traceback(folder, monkeypatch):
    monkeypatch.setattr('benchmarks.coverage.run.put_on_data', lambda *_: 1 / 0)
    outcome = run(SAMPLE[0], SAMPLE[0], folder / 'data', 'w.pth', 'caformer_s18')
    assert (outcome.swapped, outcome.built) == (True, False)
    assert outcome.reason.strip().endswith('ZeroDivisionError: division by zero')


@pytest.mark.parametrize(
    ('config', 'kind'),
    [
        ('mmdet::common/lsj-100e_coco-instance.py', NO_MODEL),
        ('mmpretrain::byol/byol_resnet50_16xb256-coslr-200e_in1k.py', NO_MODEL),
        ('mmpretrain::levit/deploy/levit-128_8xb256_in1k.py', BROKEN),
        ('mmseg::unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py', TIED),
        ('mmdet::carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py', OPERATOR),
        ('mmdet::masktrack_rcnn/masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019.py', VIDEO),
        ('mmdet::boxinst/boxinst_r50_fpn_ms-90k_coco.py', PACKAGE),
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', ''),
    ],
)
def test_what_is_left_out_and_why(config, kind, monkeypatch):
    if kind == PACKAGE:
        monkeypatch.setattr('mmmeta.swapping.tied.find_spec', lambda name: None)
    outcome, signature = examine(config, 'convformer_s18')
    assert outcome.left_out == kind
    assert bool(outcome.reason) == bool(kind)
    assert bool(signature) == (not kind)


def test_configs_that_differ_in_depth_and_schedule_are_one_group():
    names = ('r50_fpn_1x', 'r101_fpn_2x', 'x101-32x4d_fpn_1x')
    signatures = {
        examine(f'mmdet::retinanet/retinanet_{name}_coco.py', 'convformer_s18')[1] for name in names
    }
    assert len(signatures) == 1
    assert examine('mmdet::ghm/retinanet_r50_fpn_ghm-1x_coco.py', 'convformer_s18')[1] not in signatures


def test_all_configs_are_listed():
    configs = list_configs()
    assert {name.partition('::')[0] for name in configs} == {'mmdet', 'mmseg', 'mmpretrain'}
    assert 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py' in configs
    assert not any('_base_' in name for name in configs)


def test_a_cover_goes_on_where_it_ended(folder, monkeypatch):
    """Rows that are there are not computed again, and all of a group get the one that stands for it."""
    names = [f'mmdet::retinanet/retinanet_r{depth}_fpn_1x_coco.py' for depth in (50, 101)]
    done = Outcome(names[0], 'mmdet/retinanet', names[0], '', True, True, True, True, '2 1')
    write_csv([done], folder / 'rows.csv')
    (folder / 'groups.csv').unlink(missing_ok=True)
    outcomes = cover(folder, names, 'convformer_s18', 1, lambda what, values, count: values)
    assert [outcome.config for outcome in outcomes] == names
    assert all((outcome.group, outcome.fell) == (names[0], '2 1') for outcome in outcomes)
    assert read_rows(folder / 'rows.csv') == [done]
    # Another time it does not even look at them.
    monkeypatch.setattr('benchmarks.coverage.report.group', None)
    assert cover(folder, names, 'convformer_s18', 1, lambda what, values, count: values) == outcomes


def test_the_page(tmp_path):
    outcomes = [
        Outcome('mmdet::a/x.py', 'mmdet/a', 'mmdet::a/x.py', '', True, True, True, True, '4 2'),
        Outcome('mmdet::a/y.py', 'mmdet/a', 'mmdet::a/x.py', '', True, True, True, True, '4 2'),
        Outcome('mmseg::b/z.py', 'mmseg/b', 'mmseg::b/z.py', '', True, True, reason='T\nValueError: no | z'),
        Outcome('mmseg::c/u.py', 'mmseg/c', left_out=TIED, reason="'UNet' has no other"),
    ]
    write_page(outcomes, 'caformer_s18', 'here', tmp_path / 'page.md')
    text = (tmp_path / 'page.md').read_text()
    for line in (
        '| configs | 2 | 2 | 4 |',
        '| made of their backbone | 0 | 1 | 1 |',
        '| **the rest** | 2 | 1 | 3 |',
        '| predicted | 2 | 0 | 2 |',
        '| train and predict | | | **66.7%** |',
        '| mmdet/a | 2 | 1 | 2 | 2 | 2 | 2 | 4 to 2 |',
        "| 1 | 'UNet' has no other |",
        r'| 1 | b/z.py | ValueError: no \| z |',
    ):
        assert f'{line}\n' in text

"""Checkpoints as plain values."""

from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from mmmeta.engine.checkpoint import from_plain, safe_loading, to_plain
from mmmeta.utils.errors import UsageError
from mmmeta.weights import check_complete, read


def test_plain_values_load_without_code_and_come_back(tmp_path):
    history = HistoryBuffer()
    for value in (0.1, 0.25, 1 / 3):
        history.update(value, 2)
    checkpoint = {
        'meta': {'seed': np.int64(7), 'best': np.float64(0.1), 'classes': ('a', 'b'), 'palette': [[1, 2]]},
        'message_hub': {'log_scalars': OrderedDict(loss=history), 'array': np.arange(3, dtype=np.int16)},
        'param_schedulers': [{'milestones': Counter([8, 11])}],
        'state_dict': nn.BatchNorm1d(2).state_dict(),
    }
    torch.save(to_plain(checkpoint), tmp_path / 'plain.pth')
    back = from_plain(torch.load(tmp_path / 'plain.pth', weights_only=True))
    assert back['meta'] == {'seed': 7, 'best': 0.1, 'classes': ('a', 'b'), 'palette': [[1, 2]]}
    buffer = back['message_hub']['log_scalars']['loss']
    assert isinstance(buffer, HistoryBuffer)
    for actual, expected in zip(buffer.data, history.data, strict=True):
        assert np.array_equal(actual, expected)
    buffer.update(0.5)
    assert buffer.current() == 0.5
    assert buffer.mean() == pytest.approx((0.1 + 0.25 + 1 / 3 + 0.5) / 7)
    array = back['message_hub']['array']
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.int16
    assert back['param_schedulers'] == [{'milestones': Counter([8, 11])}]
    assert back['state_dict']._metadata == checkpoint['state_dict']._metadata


def test_what_needs_code_is_refused_where_it_stands():
    with pytest.raises(TypeError, match=r"checkpoint\['meta'\]\['hook'\]\[1\] is a builtins.function"):
        to_plain({'meta': {'hook': [1, lambda: 2]}})


def test_check_complete_lists_what_differs():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    check_complete(model, model.state_dict(), 'x.pth')
    state = {'0.weight': torch.zeros(3, 2), '0.bias': torch.zeros(4), '2.weight': torch.zeros(1)}
    with pytest.raises(UsageError) as error:
        check_complete(model, state, 'x.pth')
    assert str(error.value) == (
        "'x.pth' is not a checkpoint of this config's model: of 4 tensors 2 missing (1.weight, 1.bias); "
        '1 unexpected (2.weight); 1 of another shape (0.bias (4,) instead of (3,)). '
        'Give the config that it was trained with'
    )


def test_a_url_is_kept_and_read_without_code(server, tmp_path, monkeypatch):
    folder, url = server
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    torch.save({'weight': torch.ones(2)}, folder / 'good.pth')
    torch.save({'code': HistoryBuffer()}, folder / 'code.pth')
    with safe_loading():
        assert CheckpointLoader.load_checkpoint(f'{url}/good.pth')['weight'].tolist() == [1, 1]
        (folder / 'good.pth').unlink()
        assert CheckpointLoader.load_checkpoint(f'{url}/good.pth')['weight'].tolist() == [1, 1]
        with pytest.raises(UsageError, match='needs code to be read'):
            CheckpointLoader.load_checkpoint(f'{url}/code.pth')
    with safe_loading([f'{url}/code.pth']):
        assert isinstance(CheckpointLoader.load_checkpoint(f'{url}/code.pth')['code'], HistoryBuffer)


def test_trust_holds_for_one_file(tmp_path):
    for name in ('a.pth', 'b.pth'):
        torch.save({'code': HistoryBuffer()}, tmp_path / name)
    loaders = dict(CheckpointLoader._schemes)
    with safe_loading([str(tmp_path / 'a.pth')]):
        assert isinstance(CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))['code'], HistoryBuffer)
        with pytest.raises(
            UsageError, match=r'b.pth. needs code to be read \(mmengine.logging.history_buffer'
        ):
            CheckpointLoader.load_checkpoint(str(tmp_path / 'b.pth'))
    assert CheckpointLoader._schemes == loaders
    with pytest.raises(UsageError, match='needs code to be read'):
        read(str(tmp_path / 'a.pth'))

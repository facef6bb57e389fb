"""Files of weights: what is read, and what is said of the others."""

import pickle

import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from mmmeta.utils.errors import UsageError
from mmmeta.weights import DamagedFileError, find_state_dict, read_checkpoint, write_state_dict

WEIGHT = {'weight': torch.arange(1000.0)}


@pytest.mark.parametrize('name', ['zip.pth', 'legacy.pth.tar', 'model.safetensors'])
def test_formats(name, tmp_path):
    path = tmp_path / name
    if name.endswith('safetensors'):
        save_file(WEIGHT, path)
    else:
        torch.save(WEIGHT, path, _use_new_zipfile_serialization='zip' in name)
    assert torch.equal(read_checkpoint(str(path))['weight'], WEIGHT['weight'])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DamagedFileError, match=rf"'{path}' is damaged or cut off"):
        read_checkpoint(str(path))


@pytest.mark.parametrize('new', [True, False])
def test_wherever_a_file_is_cut_off(new, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({'state_dict': WEIGHT, 'epoch': 3}, path, _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    for end in [*range(3, 400, 7), *range(400, len(whole) - 1, 97), len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(DamagedFileError, match='is damaged or cut off|is not a checkpoint'):
            read_checkpoint(str(path))


def test_repeated_elements_are_stored_in_full_if_they_are_few(tmp_path):
    path = tmp_path / 'weights.pth'
    row = torch.arange(4.0)
    torch.save({'state_dict': {'a': row.expand(3, 4), 'b': [torch.ones(1).expand(2, 3)]}}, path)
    content = read_checkpoint(str(path))['state_dict']
    assert torch.equal(content['a'], row.repeat(3, 1))
    assert content['a'].is_contiguous()
    assert torch.equal(content['b'][0], torch.ones(2, 3))
    half = torch.ones(1).expand(1 << 19)
    torch.save({'a': half, 'b': {'c': half}}, path)  # as many as are taken
    assert read_checkpoint(str(path))['b']['c'].untyped_storage().nbytes() == 4 << 19
    torch.save({'a': half, 'b': half, 'c': torch.ones(1).expand(2)}, path)
    with pytest.raises(DamagedFileError, match=r"the tensor \['c'\] of shape \(2,\) is not dense"):
        read_checkpoint(str(path))


def test_of_several_networks_the_averaged_one_and_the_teacher_come_first():
    keys = ['state_dict_ema', 'model_ema', 'state_dict', 'model', 'teacher', 'student']
    for i, key in enumerate(keys):
        # Whatever their order in the file.
        for there in (keys[i:], keys[i:][::-1]):
            content = {name: {'weight': torch.tensor(float(keys.index(name)))} for name in there}
            assert find_state_dict(content, 'x.pth')['weight'] == i, key


def test_versions_of_modules_are_kept():
    state_dict = torch.nn.BatchNorm1d(2).state_dict()
    assert find_state_dict({'state_dict': state_dict}, 'x')._metadata == state_dict._metadata


@pytest.mark.parametrize(
    ('content', 'likeness'),
    [
        (b'', ', the file is empty'),
        (b'a list of things to do\n', ', it is a text'),
        (b'<!DOCTYPE html><html><body>404</body></html>', ', it is a web page, as servers send'),
        (b'\n<html>Not found</html>', ', it is a web page, as servers send'),
        (b'version https://git-lfs.github.com/spec/v1\noid', ', it is a Git LFS pointer'),
        (b'\xff\xd8\xff\xe0 a picture', ': give a file of weights'),
    ],
)
def test_other_files(content, likeness, tmp_path):
    path = tmp_path / 'weights.pth'
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"'{path}' is not a checkpoint{likeness}"):
        read_checkpoint(str(path))


def test_code_does_not_run_unless_trusted(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / 'ran'), 'w'))

    path = tmp_path / 'evil.pth'
    torch.save({'state_dict': WEIGHT, 'x': Payload()}, path)
    with pytest.raises(UsageError, match='needs code to be read .*: if you trust its origin, pass'):
        read_checkpoint(str(path))
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(UsageError, match='needs code to be read'):
        read_checkpoint(str(path))
    assert not (tmp_path / 'ran').exists()
    torch.save({'state_dict': WEIGHT, 'x': HistoryBuffer()}, path)
    assert isinstance(read_checkpoint(str(path), trusted=True)['x'], HistoryBuffer)


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match="there is no checkpoint '.*no.pth': give the path of a file"):
        read_checkpoint(str(tmp_path / 'no.pth'))


@pytest.mark.parametrize(
    ('content', 'kind'),
    [
        ([1, 2], 'no dict'),
        ({'epoch': 3, 'state_dict': {}}, 'a dict with the keys epoch, state_dict'),
        ({'a': 1, 'b': 2, 'c': 3, 'd': 4}, 'a dict with the keys a, b, c, ...'),
    ],
)
def test_a_file_without_weights(content, kind):
    with pytest.raises(
        UsageError, match=f"'x.pth' holds no weights, it is {kind}: give a state dict, bare or"
    ):
        find_state_dict(content, 'x.pth')


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_written_files_are_whole_or_not_there(name, tmp_path, monkeypatch):
    path = tmp_path / name
    write_state_dict({'weight': torch.arange(6.0).view(2, 3).T}, str(path))
    written = find_state_dict(read_checkpoint(str(path)), name)
    assert torch.equal(written['weight'], torch.arange(6.0).view(2, 3).T)

    def full(*_args, **_kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', full)
    monkeypatch.setattr('safetensors.torch.save', full)
    with pytest.raises(OSError, match='No space left'):
        write_state_dict(WEIGHT, str(tmp_path / f'other_{name}'))
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('key', ['model_state_dict', 'net', 'ema'])
def test_the_only_state_dict_of_a_file(key):
    checkpoint = {key: WEIGHT, 'epoch': 3, 'optimizer': dict(state={0: WEIGHT}, param_groups=[])}
    assert find_state_dict(checkpoint, 'x.pth') == WEIGHT
    assert find_state_dict(dict(checkpoint, model=dict(bias=torch.zeros(1))), 'x.pth') == dict(
        bias=torch.zeros(1)
    )


def test_what_a_module_keeps_beside_its_tensors_is_no_state_dict():
    """As ``get_extra_state`` of PyTorch returns it."""
    state_dict = {**WEIGHT, 'head._extra_state': dict(scale=torch.ones(1))}
    assert find_state_dict(state_dict, 'x.pth') == WEIGHT


def test_two_state_dicts_of_a_file():
    with pytest.raises(
        UsageError, match=r"'x.pth' holds 2 state dicts, under generator, critic: save the one"
    ):
        find_state_dict(dict(generator=WEIGHT, critic=WEIGHT), 'x.pth')

"""Weights load from every kind of place, completely or not at all."""

import copy
import errno
import io
import logging
import os
import time
import urllib.error

import peers
import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors.torch import save_file
from timm_peer import randomise

from mmmeta.apis import build_backbone
from mmmeta.engine.checkpoint import safe_loading
from mmmeta.models import CAFormer, ConvFormer, IdentityFormer, MetaFormer, PoolFormer, RandFormer
from mmmeta.utils.errors import UsageError
from mmmeta.weights import ZOO, get_weights, read, translate
from mmmeta.weights.fetch import fetch

TINY = dict(base='s18', depths=(1, 1, 1, 1), dims=(8, 8, 32, 32))
HUB_NAME = 'caformer_s18.sail_in1k'


def pretrained(checkpoint, family=CAFormer, arch='s18', strict=None, **arguments):
    """A backbone with weights from somewhere."""
    init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint))
    if strict is not None:
        init_cfg['strict'] = strict
    model = family(arch, init_cfg=init_cfg, **arguments)
    model.init_weights()
    return model


@pytest.fixture(scope='module')
def peer():
    """timm's CAFormer-S18 with weights that matter."""
    model = timm.create_model('caformer_s18').eval()
    randomise(model)
    return model


@pytest.fixture(scope='module')
def expected(peer):
    """The backbone's tensors of ``peer`` as ours."""
    state_dict, _ = translate(peer.state_dict(), 'peer')
    return {k.removeprefix('backbone.'): v for k, v in state_dict.items() if k.startswith('backbone.')}


def is_loaded(model, expected):
    own = model.state_dict()
    return all(torch.equal(own[name], tensor) for name, tensor in expected.items())


@pytest.fixture
def file(peer, tmp_path):
    """``peer`` as a file in timm's layout."""
    save_file(peer.state_dict(), tmp_path / 'caformer_s18.safetensors')
    return tmp_path / 'caformer_s18.safetensors'


@pytest.fixture
def log():
    """What is logged."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.INFO)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def torch_hub(tmp_path, monkeypatch):
    """An empty cache of files from the web."""
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    return tmp_path / 'hub/checkpoints'


@pytest.fixture
def hub_cache(peer, tmp_path, monkeypatch):
    """The Hugging Face hub's cache with ``peer`` in it, without a network."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hf'))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    repo = tmp_path / f'hf/models--timm--{HUB_NAME}'
    (repo / 'snapshots/abc').mkdir(parents=True)
    (repo / 'refs').mkdir()
    (repo / 'refs/main').write_text('abc')
    save_file(peer.state_dict(), repo / 'snapshots/abc/model.safetensors')
    return repo


def test_a_local_file_and_what_is_said_of_it(file, expected, log):
    model = pretrained(file)
    assert is_loaded(model, expected)
    assert (
        f'loaded {len(expected)} of {len(expected)} backbone tensors from {file} (timm layout); new: 4'
        in (log.getvalue())
    )
    assert torch.equal(model.norms['0'].weight, torch.ones(64))


@pytest.mark.parametrize('name', [f'timm://{HUB_NAME}', 'mmmeta://caformer_s18'])
def test_the_hub_without_a_network(name, hub_cache, expected):
    assert is_loaded(pretrained(name), expected)


def test_names_are_known_to_mmengine(hub_cache, peer):
    whole = CheckpointLoader.load_checkpoint('mmmeta://caformer_s18')['state_dict']
    model = peers.classifier('CAFormer', 's18', dict(type='mmmeta.MetaFormerMlpHead'))
    model.load_state_dict(whole)
    with torch.no_grad():
        image = torch.randn(1, 3, 64, 64)
        assert (model(image) - peer(image)).abs().max() < 1e-4 * peer(image).abs().max()


def test_timm_in_our_runs(hub_cache):
    """A whole classifier's init_cfg is MMEngine's to load: by our names."""
    with safe_loading():
        assert CheckpointLoader.load_checkpoint(f'timm://{HUB_NAME}')['state_dict'].keys() == (
            CheckpointLoader.load_checkpoint('mmmeta://caformer_s18')['state_dict'].keys()
        )


def test_a_url_is_brought_once(server, torch_hub, file, expected):
    folder, url = server
    file.rename(folder / 'caformer.safetensors')
    assert is_loaded(pretrained(f'{url}/caformer.safetensors'), expected)
    (folder / 'caformer.safetensors').unlink()
    assert is_loaded(pretrained(f'{url}/caformer.safetensors'), expected)
    (folder,) = torch_hub.iterdir()
    assert [path.name for path in folder.iterdir()] == ['caformer.safetensors']


def _fetch_in_a_group(rank, store, url, hub, results):
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    torch.hub.set_dir(hub)
    try:
        results.put(os.path.getsize(fetch(url)))
    except UsageError as error:
        results.put(str(error))
    dist.destroy_process_group()


@pytest.mark.parametrize('there', [True, False])
def test_processes_of_one_machine_share_a_download(there, server, file, tmp_path):
    folder, url = server
    size = file.stat().st_size
    if there:
        file.rename(folder / 'w.safetensors')
    results = mp.get_context('spawn').SimpleQueue()
    arguments = (tmp_path / 'store', f'{url}/w.safetensors', str(tmp_path / 'hub'), results)
    mp.spawn(_fetch_in_a_group, args=arguments, nprocs=2)
    for found in (results.get(), results.get()):
        assert found == size if there else 'HTTP 404' in found


def test_files_of_one_name_from_two_repositories(server, torch_hub):
    folder, url = server
    for name, value in (('one', 1.0), ('two', 2.0)):
        (folder / name / 'resolve/main').mkdir(parents=True)
        torch.save({'weight': torch.tensor(value)}, folder / name / 'resolve/main/model.bin')
    values = [read(f'{url}/{name}/resolve/main/model.bin')['weight'] for name in ('one', 'two')]
    assert values == [1.0, 2.0]


class TestPlaces:
    @pytest.mark.parametrize('content', [b'<html>Not found</html>', None])
    def test_a_damaged_download_is_forgotten(self, content, server, torch_hub, file, expected):
        folder, url = server
        whole = file.read_bytes()
        (folder / 'w.safetensors').write_bytes(content or whole[: len(whole) // 2])
        with pytest.raises(UsageError, match=rf"the download from '{url}/w.safetensors' was incomplete"):
            pretrained(f'{url}/w.safetensors')
        assert list(torch_hub.iterdir()) == []
        (folder / 'w.safetensors').write_bytes(whole)
        assert is_loaded(pretrained(f'{url}/w.safetensors'), expected)

    def test_a_damaged_file_of_the_hub_is_forgotten(self, hub_cache):
        cached = hub_cache / 'snapshots/abc/model.safetensors'
        cached.write_bytes(cached.read_bytes()[:5000])
        with pytest.raises(UsageError, match='was incomplete and is removed from the cache'):
            pretrained(f'timm://{HUB_NAME}')
        assert not cached.exists()

    def test_a_hash_in_the_name_is_checked(self, server, torch_hub, file):
        folder, url = server
        file.rename(folder / 'w-0123abcd.safetensors')
        with pytest.raises(UsageError, match=r'the content does not match the hash in the file name'):
            pretrained(f'{url}/w-0123abcd.safetensors')
        assert list(torch_hub.iterdir()) == []

    def test_nothing_there(self, server, torch_hub):
        _, url = server
        with pytest.raises(
            UsageError, match=rf"cannot get '{url}/no.pth' \(HTTP 404 File not found\), or give"
        ):
            pretrained(f'{url}/no.pth')

    def test_nobody_there(self, torch_hub):
        with pytest.raises(UsageError, match=r"cannot get 'http://127.0.0.1:9/no.pth' \(.*refused\)"):
            pretrained('http://127.0.0.1:9/no.pth')

    def test_the_hub_is_tried_once(self, tmp_path, monkeypatch):
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hf'))
        monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', 'http://127.0.0.1:9')
        monkeypatch.setattr(
            'huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE',
            'http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}',
        )
        start = time.monotonic()
        with pytest.raises(UsageError, match=r"cannot get 'timm://caformer_s18' \(.*hub cannot be reached\)"):
            fetch('timm://caformer_s18')
        assert time.monotonic() - start < 10  # 23 s and more with its six tries

    def test_other_places_of_the_same_weights(self, hub_cache, torch_hub, monkeypatch):
        def unreachable(*_args, **_kwargs):
            raise urllib.error.URLError('no network')

        monkeypatch.setattr(torch.hub, 'download_url_to_file', unreachable)
        place = get_weights('poolformer_s12').places[-1]
        assert 'openmmlab' in place
        with pytest.raises(UsageError) as error:
            pretrained(place, PoolFormer, 's12')
        assert str(error.value) == (
            f"cannot get '{place}' (no network); the same weights are at "
            'https://github.com/sail-sg/poolformer/releases/download/v1.0/poolformer_s12.pth.tar, '
            'timm://poolformer_s12.sail_in1k, '
            'https://huggingface.co/sail/poolformer_s12/resolve/main/pytorch_model.bin, or give a file'
        )
        with pytest.raises(UsageError, match=r"cannot get 'https://github.com.*nor 'timm://poolformer_s12"):
            pretrained('mmmeta://poolformer_s12', PoolFormer, 's12')

    def test_no_room_on_the_disk(self, torch_hub, server, file, monkeypatch):
        folder, url = server
        file.rename(folder / 'w.safetensors')

        class FullDisk:
            def __init__(self, *args):
                self.file = open(*args)  # noqa: SIM115

            def __getattr__(self, name):
                return getattr(self.file, name)

            def write(self, data):
                self.file.write(data[:100])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(torch.hub, 'open', FullDisk, raising=False)
        with pytest.raises(
            UsageError, match=rf"the disk is full, '{url}/w.safetensors' was not kept: make room"
        ):
            pretrained(f'{url}/w.safetensors')
        assert list(torch_hub.iterdir()) == []

    @pytest.mark.parametrize(
        ('name', 'message'),
        [
            ('mmmeta://caformer_s19', r"no weights 'caformer_s19' in the zoo: did you mean caformer_s18"),
            (
                'ftp://host/x.pth',
                r"'ftp://host/x.pth' is not a location of weights: give a path, mmmeta://, timm:// or https",
            ),
            ('timm://caformer_s18.nobody', r'not in the cache, and the hub cannot be reached'),
            ('/no/such.pth', r"there is no checkpoint '/no/such.pth': give the path of a file"),
        ],
    )
    def test_names_of_nothing(self, name, message, hub_cache):
        with pytest.raises(UsageError, match=message):
            pretrained(name)


class TestMisfits:
    def refused(self, state_dict, tmp_path, family=CAFormer, arch='s18'):
        torch.save(state_dict, tmp_path / 'w.pth')
        model = family(arch, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'w.pth')))
        with pytest.raises(UsageError) as error:
            model.init_weights()
        return str(error.value)

    def test_another_size(self, peer, tmp_path):
        message = self.refused(peer.state_dict(), tmp_path, arch='s36')
        assert '(timm layout) does not fit this CAFormer: of 387 backbone tensors 189 missing (' in message
        assert message.endswith("). It matches CAFormer arch='s18'")

    def test_another_family(self, peer, tmp_path):
        message = self.refused(peer.state_dict(), tmp_path, ConvFormer)
        assert message.endswith("It matches CAFormer arch='s18'")

    def test_statistics_of_a_norm_that_has_none(self, tmp_path):
        """Weight and bias of a batch norm fit a group norm, and do something else there."""
        arch = dict(base='s12', depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))
        state = PoolFormer(arch, output_norm='BN').state_dict()
        message = self.refused(state, tmp_path, PoolFormer, arch)
        assert 'tensors 12 unexpected (norms.0.running_mean, norms.0.running_var, ' in message

    def test_families_that_only_the_name_tells_apart(self):
        with pytest.raises(
            UsageError, match="is of another family than IdentityFormer: it fits PoolFormerV2 arch='s12'"
        ):
            pretrained('mmmeta://poolformerv2_s12', IdentityFormer, 's12')

    def test_a_tensor_missing_and_one_of_another_shape(self, peer, tmp_path):
        state_dict = dict(peer.state_dict())
        del state_dict['stages.2.blocks.0.mlp.fc1.weight']
        state_dict['stages.0.blocks.1.norm1.weight'] = torch.ones(65)
        message = self.refused(state_dict, tmp_path)
        assert '1 missing (stages.2.blocks.0.mlp.fc1.weight)' in message
        assert '1 of another shape (stages.0.blocks.1.norm1.weight (65,) instead of (64,))' in message

    def test_half_a_norm(self, tmp_path):
        state_dict = CAFormer('s18').state_dict()
        del state_dict['norms.0.bias']
        assert '1 missing (norms.0.bias)' in self.refused(state_dict, tmp_path)

    def test_randformer_is_named(self, tmp_path):
        message = self.refused(RandFormer('s12').state_dict(), tmp_path, IdentityFormer, 's12')
        assert message.endswith("It matches RandFormer arch='s12'")

    def test_a_tensor_too_many(self, peer, tmp_path):
        message = self.refused({**peer.state_dict(), 'stages.0.extra': torch.ones(1)}, tmp_path)
        assert '1 unexpected (stages.0.extra)' in message

    @pytest.mark.parametrize('value', [float('nan'), float('inf')])
    def test_a_value_that_is_no_number(self, value, peer, tmp_path):
        state_dict = {k: v.clone() for k, v in peer.state_dict().items()}
        state_dict['stages.1.blocks.0.norm1.weight'][3] = value
        message = self.refused(state_dict, tmp_path)
        assert message == (
            f"'{tmp_path}/w.pth' has values in stages.1.blocks.0.norm1.weight that are not finite numbers: "
            'get or train it again'
        )

    def test_a_resnet(self, tmp_path):
        message = self.refused(timm.create_model('resnet18').state_dict(), tmp_path)
        assert message.startswith(
            f"'{tmp_path}/w.pth' holds no MetaFormer, its tensors are called conv1.weight"
        )

    @pytest.mark.parametrize(
        'name', ['convnext_atto', 'swin_tiny_patch4_window7_224', 'vit_tiny_patch16_224']
    )
    def test_relatives_with_similar_names(self, name, tmp_path):
        assert 'holds no MetaFormer' in self.refused(timm.create_model(name).state_dict(), tmp_path)

    def test_nothing_of_it_is_loaded(self, peer, tmp_path):
        torch.save(peer.state_dict(), tmp_path / 'w.pth')
        model = ConvFormer(
            's18',
            init_cfg=[
                dict(type='Constant', layer=['Conv2d', 'Linear'], val=0.5),
                dict(type='Pretrained', checkpoint=str(tmp_path / 'w.pth')),
            ],
        )
        with pytest.raises(UsageError, match='does not fit this ConvFormer'):
            model.init_weights()
        assert (model.stem[0].conv.weight == 0.5).all()

    def test_not_strict_is_loud(self, file, expected, log):
        model = pretrained(file, ConvFormer, strict=False)
        text = log.getvalue()
        assert 'strict=False: ' in text
        assert ' missing (stages.2.blocks.0.token_mixer.pwconv1.weight, ' in text
        assert torch.equal(model.stem[0].conv.weight, expected['stem.0.conv.weight'])

    def test_arguments_of_pretrained(self):
        model = CAFormer('s18', init_cfg=dict(type='Pretrained', checkpoint='x.pth', strickt=False))
        with pytest.raises(UsageError, match='Pretrained takes checkpoint, strict, prefix and map_l'):
            model.init_weights()


class TestRandomWeights:
    """A network whose weights were named and not loaded says so, once."""

    def build(self, path):
        return CAFormer(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(path)))

    def test_named_and_not_loaded(self):
        model = self.build('nowhere.pth')
        with pytest.warns(
            UserWarning, match="random weights: 'nowhere.pth', which init_cfg names, is loaded by"
        ):
            model(torch.randn(1, 3, 32, 32))

    @pytest.mark.filterwarnings('error:.*random weights')
    @pytest.mark.parametrize('how', ['init_weights', 'load_state_dict', 'of a copy', 'none named', 'again'])
    def test_loaded_or_none_named(self, how, tmp_path):
        torch.save(CAFormer(TINY).state_dict(), tmp_path / 'w.pth')
        model = self.build(tmp_path / 'w.pth')
        if how == 'load_state_dict':
            torch.nn.Sequential(model).load_state_dict(torch.nn.Sequential(CAFormer(TINY)).state_dict())
        elif how == 'none named':
            model = CAFormer(TINY)
        elif how == 'again':
            with pytest.warns(UserWarning, match='random weights'):
                model(torch.randn(1, 3, 32, 32))
        else:
            model.init_weights()
        (copy.deepcopy(model) if how == 'of a copy' else model)(torch.randn(1, 3, 32, 32))

    def test_backbones_by_the_name_of_weights(self, hub_cache, expected):
        assert is_loaded(build_backbone('mmmeta://caformer_s18'), expected)
        with pytest.raises(
            UsageError, match='weights of another architecture do not fit, leave mmmeta:// out'
        ):
            build_backbone("mmmeta://caformer_s18,act='GELU'")


class TestVariants:
    def test_outputs_asked_for(self, file, expected, log):
        model = pretrained(file, out_indices=(1, 2))
        own = model.state_dict()
        assert all(torch.equal(own[k], v) for k, v in expected.items() if not k.startswith('stages.3'))
        assert 'new: 2 output norms' in log.getvalue()

    def test_the_norm_of_poolformer(self, tmp_path, log):
        peer = timm.create_model('poolformer_s12')
        randomise(peer)
        torch.save(peers.sail_poolformer(peer.state_dict()), tmp_path / 'w.pth')
        model = pretrained(tmp_path / 'w.pth', PoolFormer, 's12')
        assert torch.equal(model.norms['3'].weight, peer.head.norm.weight)
        assert 'new: 3 output norms' in log.getvalue()

    @pytest.mark.parametrize('channels', [1, 4, 6])
    def test_other_input_channels(self, channels, file, expected):
        model = pretrained(file, in_channels=channels)
        grey = torch.randn(1, 1, 32, 32)
        stem = expected['stem.0.conv.weight']
        reference = torch.nn.functional.conv2d(grey.expand(1, 3, 32, 32), stem, stride=4, padding=2)
        given = torch.nn.functional.conv2d(
            grey.expand(1, channels, 32, 32), model.stem[0].conv.weight, stride=4, padding=2
        )
        kernels = [i % 3 for i in range(channels)]
        if channels > 1:
            assert torch.equal(model.stem[0].conv.weight, stem[:, kernels] * (3 / channels))
        if channels != 4:  # of four kernels the first is there twice
            assert (given - reference).abs().max() < 1e-5

    def test_classes_and_image_size_do_not_matter(self, tmp_path, log):
        peer = timm.create_model('convformer_s18', num_classes=21841)
        torch.save(peer.state_dict(), tmp_path / 'w.pth')
        pretrained(tmp_path / 'w.pth', ConvFormer)
        assert 'loaded 234 of 234 backbone tensors' in log.getvalue()

    def test_a_backbone_of_ones_own(self, peer, tmp_path, expected):
        torch.save(peer.state_dict(), tmp_path / 'w.pth')
        arch = dict(base='s18', token_mixers=('sep_conv', 'sep_conv', 'attention', 'attention'))
        model = pretrained(tmp_path / 'w.pth', CAFormer, arch)
        assert is_loaded(model, expected)


def test_the_zoo_has_all_that_is_published():
    assert len(ZOO) == 20 + 8 * 5 + 5 + 7
    assert get_weights('convformer_b36_384_in21ft1k').places == (
        'timm://convformer_b36.sail_in22k_ft_in1k_384',
        'https://huggingface.co/sail/dl/resolve/main/convformer/convformer_b36_384_in21ft1k.pth',
    )
    assert get_weights('caformer_m36_in21k').num_classes == 21841
    assert all(weights.places for weights in ZOO.values())


def test_window_weights_are_those_of_global_attention(file, expected):
    assert is_loaded(pretrained(file, window=13), expected)
    assert issubclass(CAFormer, MetaFormer)

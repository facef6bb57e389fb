"""One network of several in a file, averaged weights, timm's features, and where downloads are kept."""

import hashlib
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch
from mmengine.logging import HistoryBuffer
from timm.models import metaformer
from torch import nn

from mmmeta.models import CAFormer
from mmmeta.utils.errors import UsageError
from mmmeta.weights import load, read, recognise
from mmmeta.weights.fetch import fetch
from mmmeta.weights.zoo import Weights

ARCH = dict(base='s18', depths=(1, 1, 1, 1), dims=(32, 64, 96, 128))


def caformer(**init_cfg):
    init = dict(type='Pretrained', **init_cfg) if init_cfg else None
    model = CAFormer(ARCH, init_cfg=init)
    if init:
        model.init_weights()
        return model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_()
    return model


def equal(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def save(path, **networks):
    torch.save(
        {'state_dict': {f'{p}{k}': v for p, m in networks.items() for k, v in m.state_dict().items()}}, path
    )
    return path


class TestPrefix:
    names = ('architecture.backbone.', 'teacher.backbone.')

    @pytest.fixture
    def networks(self):
        return {name: caformer() for name in self.names}

    @pytest.mark.parametrize('name', names)
    @pytest.mark.parametrize('end', ['', '.'])
    def test_it_chooses_one(self, name, end, networks, tmp_path):
        path = save(tmp_path / 'kd.pth', **networks)
        loaded = caformer(checkpoint=path, prefix=name.removesuffix('.') + end)
        assert equal(loaded, networks[name])

    def test_without_it_several_are_refused(self, networks, tmp_path):
        path = save(tmp_path / 'kd.pth', **networks)
        with pytest.raises(UsageError) as error:
            caformer(checkpoint=path)
        assert str(error.value) == (
            f"'{path}' holds 2 MetaFormers, under architecture.backbone., teacher.backbone.: choose one, "
            f"such as init_cfg=dict(type='Pretrained', checkpoint='{path}', prefix='architecture.backbone.')"
        )

    def test_another_one_is_refused(self, networks, tmp_path):
        path = save(tmp_path / 'kd.pth', **networks)
        with pytest.raises(
            UsageError, match=r"no tensors under prefix='x\.': .* are 'architecture.backbone.', 'te"
        ):
            caformer(checkpoint=path, prefix='x')

    def test_the_backbone_of_a_file_that_is_one(self, networks, tmp_path):
        network = networks[self.names[0]]
        path = save(tmp_path / 'bare.pth', **{'': network})
        assert equal(caformer(checkpoint=path, prefix='backbone.'), network)


def test_code_runs_in_weights_that_are_trusted(tmp_path):
    network, path = caformer(), tmp_path / 'stock.pth'
    torch.save(dict(state_dict=network.state_dict(), history=HistoryBuffer()), path)
    with pytest.raises(UsageError, match='needs code to be read'):
        caformer(checkpoint=path)
    model = CAFormer(ARCH, init_cfg=dict(type='Pretrained', checkpoint=path))
    model.trusted_checkpoints = [str(path)]
    model.init_weights()
    assert equal(model, network)


def test_pytorchs_averaged_model(tmp_path):
    network = caformer()
    averaged = torch.optim.swa_utils.AveragedModel(network)
    torch.save(averaged.state_dict(), tmp_path / 'swa.pth')
    assert 'n_averaged' in averaged.state_dict()
    assert equal(caformer(checkpoint=tmp_path / 'swa.pth'), network)


def test_timms_features(tmp_path):
    # As create_model('caformer_s18', features_only=True) does, with a small network.
    peer = metaformer._create_metaformer(
        'caformer_s18',
        features_only=True,
        depths=ARCH['depths'],
        dims=ARCH['dims'],
        token_mixers=[metaformer.SepConv] * 2 + [metaformer.Attention] * 2,
        norm_layers=[metaformer.LayerNorm2dNoBias] * 2 + [metaformer.LayerNormNoBias] * 2,
    ).eval()
    torch.save(peer.state_dict(), tmp_path / 'features.pth')
    assert recognise(peer.state_dict())[0].name == 'timm-features'
    assert recognise([f'encoder.model.{name}' for name in peer.state_dict()])[1] == 'encoder.model.'
    model = CAFormer(ARCH, output_norm=False).eval()
    report = load(model, tmp_path / 'features.pth', 'backbone')
    assert (report.layout, report.loaded, report.new) == ('timm-features', len(model.state_dict()), ())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(model(image), peer(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('location', [5, None, ['x.pth']])
def test_what_is_no_location(location):
    with pytest.raises(UsageError, match='give a path, mmmeta://, timm:// or a URL'):
        load(nn.Linear(1, 1), location)


def test_a_whole_model_and_what_is_reported(tmp_path):
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save(network.state_dict(), tmp_path / 'w.pth')
    report = load(other, tmp_path / 'w.pth')
    assert torch.equal(other.weight, network.weight)
    assert (report.loaded, report.total, report.layout, report.differences) == (2, 2, None, {})
    with pytest.raises(UsageError, match="part='head': load 'model' or 'backbone'"):
        load(other, tmp_path / 'w.pth', 'head')


class TestDownloads:
    @pytest.fixture(autouse=True)
    def hub(self, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
        return tmp_path / 'hub/checkpoints'

    def serve(self, folder, name, value):
        (folder / name).parent.mkdir(exist_ok=True)
        torch.save({'w': torch.tensor(value)}, folder / name)
        return hashlib.sha256((folder / name).read_bytes()).hexdigest()

    def test_two_urls_with_one_file_name(self, server):
        folder, url = server
        for name, value in dict(a=1.0, b=2.0).items():
            self.serve(folder, f'{name}/best.pth', value)
        assert [read(f'{url}/{name}/best.pth')['w'] for name in 'aba'] == [1.0, 2.0, 1.0]
        paths = [Path(fetch(f'{url}/{name}/best.pth')) for name in 'ab']
        assert [path.name for path in paths] == ['best.pth'] * 2 and paths[0] != paths[1]

    @pytest.mark.parametrize(
        'host', ['example.com', '192.168.0.1', '127.0.0.1.example.com', '[2001:db8::1]', '']
    )
    def test_plain_http_is_for_this_machine(self, host):
        with pytest.raises(UsageError, match='would be fetched without encryption, and anybody on the way'):
            fetch(f'http://{host}/x.pth')

    def test_a_hash_that_is_given(self, server, hub):
        folder, url = server
        digest = self.serve(folder, 'x.pth', 1.0)
        for spelt in (digest, digest.upper()):
            assert read(f'{url}/x.pth#sha256={spelt}')['w'] == 1.0
        wrong = '0' * 64
        for _ in range(2):  # downloaded, and in the cache
            with pytest.raises(UsageError, match=f'the content does not match sha256={wrong}'):
                fetch(f'{url}/x.pth#sha256={wrong}')
            fetch(f'{url}/x.pth')
        with pytest.raises(UsageError, match='behind # stands sha256= and 8 to 64 hexadecimal digits'):
            fetch(f'{url}/x.pth#md5=abc')

    def test_redirects(self, server, hub, monkeypatch):
        _, url = server
        target = f'{url}/there'

        def redirect(handler):
            handler.send_response(200 if handler.path == '/there' else 302)
            handler.send_header('Location', target)
            handler.end_headers()
            handler.wfile.write(b'weights')

        monkeypatch.setattr(SimpleHTTPRequestHandler, 'do_GET', redirect)
        assert Path(fetch(f'{url}/a.pth')).read_bytes() == b'weights'
        target = 'http://example.invalid/x.pth'
        sentence = f"it redirects to '{target}', which is not encrypted"
        with pytest.raises(UsageError, match=sentence):
            fetch(f'{url}/b.pth')
        with pytest.raises(URLError, match='not known|resolution|No address'):  # of others nothing changes
            urlopen(f'{url}/b.pth')

    def test_a_file_with_a_hash_that_other_tools_have_fetched(self, server, hub, monkeypatch):
        folder, url = server
        digest = self.serve(folder, 'x.pth', 1.0)
        name = f'x-{digest[:8]}.pth'
        hub.mkdir(parents=True)
        (folder / 'x.pth').rename(hub / name)
        place = f'{url}/{name}'
        with pytest.raises(UsageError, match='HTTP 404'):  # it may be of any URL
            fetch(place)
        known = Weights('x', 'caformer', 's18', 1000, 224, 1.0, (place,))
        monkeypatch.setitem(fetch.__globals__['ZOO'], 'x', known)
        assert fetch(place) == str(hub / name)
        (hub / name).write_bytes(b'another')
        with pytest.raises(UsageError, match='HTTP 404'):
            fetch(place)

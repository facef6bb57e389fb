"""Results of run.py: none replaces an image, or another result."""

import json

import numpy as np
import pytest
from hostile.test_exported_files import IMAGE, write
from PIL import Image

from mmmeta.runtime.run import RuntimeProblem, main


@pytest.fixture
def run(tmp_path):
    file = write(tmp_path / 'network.onnx', 'segmentation')

    def run(*paths, out='out', options=()):
        images = [str(tmp_path / path) for path in paths]
        main([str(file), *images, '--out-dir', str(tmp_path / out), *options])
        return {
            str(path.relative_to(tmp_path / out)): json.loads(path.read_text())['image']
            for path in (tmp_path / out).rglob('*.json')
        }

    return run


def save(*paths):
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.roll(IMAGE, number)).save(path)


def test_images_are_not_replaced(tmp_path, run):
    save(tmp_path / 'a/p.png', tmp_path / 'b/q.png')
    (tmp_path / 'a/p.json').write_text('{"annotated": true}')
    (tmp_path / 'link').symlink_to('a')
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    for paths, out in ((['a'], 'a'), (['a/p.png', 'b'], 'b'), (['a'], 'link'), (['link'], 'a/../a')):
        with pytest.raises(RuntimeProblem, match='would lie among the images there, .* another --out-dir'):
            run(*paths, out=out)
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before


def test_each_image_has_results(tmp_path, run, capsys):
    images = [tmp_path / name for name in ('a/0.png', 'a/1.jpg', 'b/0.png', 'b/0.jpg')]
    save(*images)
    plain = run('a', out='plain')
    assert plain == {'0.json': str(images[0]), '1.json': str(images[1])}
    by_ending = run('b', out='by_ending')
    assert by_ending == {'0.png.json': str(images[2]), '0.jpg.json': str(images[3])}
    both = run('a', 'b', 'a/0.png', out='both')  # one of them twice
    assert both == {f'{path.relative_to(tmp_path)}.json': str(path) for path in images}
    assert '4 images' in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / 'both/b').iterdir()) == [
        *('0.jpg.json', '0.jpg.png', '0.jpg_labels.png', '0.png.json', '0.png.png', '0.png_labels.png'),
    ]
    assert run('a', 'b', out='both') == both  # results of an earlier run are replaced
    save(tmp_path / 'c/x.png', tmp_path / 'c/x_labels.png')  # which labels of the first would be called
    assert len(run('c', out='labels')) == 2
    assert len([*(tmp_path / 'labels').iterdir()]) == 6


def test_capital_letters_make_no_difference(tmp_path, run):
    save(tmp_path / 'a/X.png', tmp_path / 'b/x.jpg')
    assert {*run('a', 'b')} == {'X.png.json', 'x.jpg.json'}


def test_numbers_that_do_not_fit(tmp_path, run):
    save(tmp_path / 'a/0.png')
    for options, message in (
        (['--top', '0'], '--top 0: give a positive number'),
        (['--score-thr', 'nan'], '--score-thr nan: give a score from 0 to 1'),
        (['--threads', '-1'], 'threads=-1: give a positive number, or 0'),
    ):
        with pytest.raises(RuntimeProblem, match=message):
            run('a', options=options)
    assert not (tmp_path / 'out').exists()

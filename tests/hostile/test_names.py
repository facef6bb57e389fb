"""Names and paths stand in generated configs as data, whatever is in them, or are refused."""

import json
import math
import os
import random
import resource
import signal
import xml.sax.saxutils
from contextlib import contextmanager

import pytest
import yaml
from mmengine.config import Config
from PIL import Image

from mmmeta.apis import load_config, new
from mmmeta.config.literals import comment, literal
from mmmeta.datasets import generate_ade20k
from mmmeta.swapping.writing import format_differences, write_swap
from mmmeta.utils.errors import UsageError

MARK = 'MMMETA_NAMES_RAN'
CODE = f'__import__("os").environ.__setitem__("{MARK}","1")'
# What MMEngine replaces, spelt in the ways in which it finds them.
TEMPLATES = (
    '{{$A:x"+str(' + CODE + ')+"}}',
    '{{$A:classes=("a",' + CODE + ')#|.*}}',
    "{{'$PATH:x'}}",
    '{{$NOPE:}}',
    '{{ fileDirname }}',
    '{{fileBasename}}',
    '{{ _base_.model }}',
    '{{_base_.nothing}}',
    '{{{{$PATH:x}}}}',
    'a{{',
)
# What has to survive.
PLAIN = (
    *(
        'a"b',
        "a'b",
        '\'"',
        '"""',
        "'''",
        '\\',
        '\\n',
        'a\\',
        'a\nb',
        'a\r\nb',
        'tab\t',
        '#',
        '}}',
        '{ {',
        '{}',
    ),
    *('%s', '{0}', '$A', '${A}', '$(id)', '`id`', 'a, b', 'a=1', '_base_', '_delete_', 'None', 'True', '1'),
    *('nan', '~', 'mmdet::x', 'http://a/b', '../../etc/passwd', 'é', '猫', '🐈', '\u202eabc', '\u2066'),
    *('\u200b', '\ufeff', '\x00', '\x1b[2J', '\x0c', '\x85', '\u2028', 'ﬁ', 'class', 'a' * 300),
)
ALPHABET = [*'{}{}"\'\\\n\r\t$:#|.* _ab0', *'\x00\x1b\u202e\u2028é🐈', '\ud800', '\udcff']


def is_allowed(text):
    return '{{' not in text and text.encode(errors='replace').decode() == text


def random_text(rng):
    return ''.join(rng.choices(ALPHABET, k=rng.randrange(12)))


def random_value(rng, depth=3):
    kind = rng.randrange(8 if depth else 5)
    if kind < 3:
        return random_text(rng)
    if kind < 5:
        return rng.choice([None, True, 0, -(10**30), 1.5, -0.0, 1e-310, math.inf, -math.inf])
    values = [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 5:
        return values
    return tuple(values) if kind == 6 else {rng.choice([random_text(rng), 3]): value for value in values}


def texts_in(value):
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in texts_in(part)]
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in texts_in(part)]
    return [value] if isinstance(value, str) else []


def read_back(path, values):
    """What MMEngine reads of the texts of values."""
    path.write_text('\n'.join(f'x{i} = dict(a={text})' for i, text in enumerate(values)), encoding='utf-8')
    return Config.fromfile(path)


def values_of(cfg):
    return [value['a'] for _, value in sorted(cfg.to_dict().items(), key=lambda item: int(item[0][1:]))]


def check_property(path, seed, count):
    rng = random.Random(seed)
    values = [*PLAIN, *TEMPLATES, *(random_value(rng) for _ in range(count))]
    allowed = [value for value in values if all(map(is_allowed, texts_in(value)))]
    assert len(PLAIN) < len(allowed) < len(values)
    for value in values:
        if not all(map(is_allowed, texts_in(value))):
            with pytest.raises(UsageError) as error:
                literal(value, 'class name')
            assert '\n' not in str(error.value) and str(error.value).startswith('the class name')
    assert repr(values_of(read_back(path, map(literal, allowed)))) == repr(allowed)
    # As a run and a checkpoint store it, strings alone: MMEngine puts keys between quotes as they are.
    strings = [value for value in allowed if isinstance(value, str)]
    stored = read_back(path, map(literal, strings)).pretty_text
    assert values_of(Config.fromstring(stored, '.py')) == strings


def test_a_literal_is_read_as_it_was_or_refused(tmp_path):
    check_property(tmp_path / 'a.py', seed=0, count=400)


@pytest.mark.nightly
@pytest.mark.parametrize('seed', range(1, 21))
def test_more_literals(tmp_path, seed):
    check_property(tmp_path / 'a.py', seed, count=5000)


def test_what_is_not_data_has_no_literal():
    assert literal(float('nan')) == "float('nan')"
    for value in (object(), len, {1, 2}, b'a', ['a', int]):
        with pytest.raises(UsageError, match='cannot be written into a config'):
            literal(value)


def test_comments_are_one_line():
    assert comment('UperNet with é') == '# UperNet with é'
    for text in ('a\nimport os', 'a\rb', 'a\x00', 'a\u2028b', '{{$A:\\nx=1}}'):
        with pytest.raises(UsageError):
            comment(text)


class TestSwap:
    def read(self, tmp_path, text):
        (tmp_path / 'base.py').write_text('a = 1\n')
        (tmp_path / 'b.py').write_text(text, encoding='utf-8')
        return Config.fromfile(tmp_path / 'b.py').to_dict()

    def test_values_of_a_config_are_read_as_they_were(self, tmp_path):
        long = {f'key {name}': [name] * 9 for name in PLAIN}
        after = dict(a=list(PLAIN), b=long, c=dict(zip(('class', 'ﬁ', 'x'), PLAIN, strict=False)))
        found = self.read(tmp_path, format_differences('base.py', dict(a=1), after, {('b',): 'A reason.'}))
        assert found == after

    @pytest.mark.parametrize('key', ['x = 1\nimport os\ny', 'a b', 'class', 'ﬁ'])
    def test_a_key_that_is_not_a_name_is_refused(self, key):
        with pytest.raises(UsageError, match='is not a name in Python'):
            format_differences('base.py', {}, {key: float('nan')}, {})

    @pytest.mark.parametrize('template', TEMPLATES, ids=range(len(TEMPLATES)))
    def test_a_template_is_refused_with_its_key(self, template):
        with pytest.raises(UsageError, match=r'^the data\.root has'):
            format_differences('base.py', {}, dict(data=dict(root=template)), {})

    def test_a_reason_with_a_line_break_is_refused(self):
        with pytest.raises(UsageError, match='cannot be printed'):
            format_differences('base.py', {}, dict(a=1), {('a',): 'b\nimport os'})

    def test_the_name_of_a_config_is_not_code(self, tmp_path):
        path = tmp_path / 'a\nimport os\n#.py'
        path.write_text("model = dict(type='EncoderDecoder')\n")
        with pytest.raises(UsageError, match='cannot be printed'):
            write_swap(str(path), 'caformer_s18', tmp_path / 'b.py')
        with pytest.raises(UsageError, match='the path --out has'):
            write_swap(str(path), 'caformer_s18', tmp_path / '{{ fileDirname }}.py')
        assert list(tmp_path.iterdir()) == [path]


def draw(folder, count=6, suffix='.png'):
    """Small images; their names."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new('RGB', (64, 64), (i, i, i)).save(folder / f'{i}{suffix}')
    return [f'{i}{suffix}' for i in range(count)]


def write_coco(root, name):
    images = [dict(id=i, file_name=f, height=64, width=64) for i, f in enumerate(draw(root / 'images'), 1)]
    objects = [
        dict(id=i, image_id=i, category_id=1 + i % 2, bbox=[1, 1, 20, 20], area=400, iscrowd=0)
        for i in range(1, len(images) + 1)
    ]
    categories = [dict(id=1, name='a'), dict(id=2, name=name)]
    (root / 'a.json').write_text(json.dumps(dict(images=images, annotations=objects, categories=categories)))
    return ('det', root / 'images', root / 'a.json'), {}


def write_voc(root, name):
    (root / 'labels').mkdir()
    text = '<annotation>{}</annotation>'
    box = '<xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>'
    thing = f'<object><name>{{}}</name><bndbox>{box}</bndbox></object>'
    for file in draw(root / 'images'):
        things = ''.join(thing.format(xml.sax.saxutils.escape(part)) for part in ('a', name))
        (root / 'labels' / file).with_suffix('.xml').write_text(text.format(things), encoding='utf-8')
    return ('det', root / 'images', root / 'labels'), {}


def write_yolo(root, name, names=None):
    (root / 'labels').mkdir()
    for file in draw(root / 'images'):
        (root / 'labels' / file).with_suffix('.txt').write_text('0 .5 .5 .2 .2\n1 .5 .5 .3 .3\n')
    content = dict(names=names(name) if names else ['a', name])
    (root / 'data.yaml').write_text(yaml.safe_dump(content, allow_unicode=True), encoding='utf-8')
    return ('det', root / 'images', root / 'labels'), {}


def write_yolo_dict(root, name):
    return write_yolo(root, name, lambda name: {0: 'a', 1: name})


def write_classes_txt(root, name):
    arguments = write_yolo(root, name)
    (root / 'labels/classes.txt').write_text(f'a\n{name}\n', encoding='utf-8')
    return arguments


def write_option(root, name):
    arguments, _ = write_yolo(root, 'other')
    (root / 'names.txt').write_text(f'a\n{name}\n', encoding='utf-8')
    return arguments, dict(classes=str(root / 'names.txt'))


def write_folders(root, name):
    for part in ('a', name):
        draw(root / 'images' / part, 2)
    return ('cls', root / 'images'), {}


def write_masks(root, name):
    """Maps whose files end in the name."""
    (root / 'masks').mkdir()
    for i, file in enumerate(draw(root / 'images')):
        mask = Image.new('L', (64, 64))
        mask.paste(1, (0, 0, 9 + i, 9))
        mask.save(root / 'masks' / file.replace('.png', f'{name}.png'))
    return ('seg', root / 'images', root / 'masks'), {}


def write_folder_name(root, name):
    (root / name).mkdir()
    return write_folders(root / name, 'b')


def write_out(root, name):
    return write_folders(root, 'b')[0], dict(out=root / f'out{name}.py')


def write_weights(root, name):
    return write_folders(root, 'b')[0], dict(weights=f'https://w/{name}.pth')


def classes_of(cfg):
    return cfg.train_dataloader.dataset.metainfo.classes


# Where a name comes from: how to write it, and where the config has it.
SOURCES = {
    'COCO': (write_coco, lambda cfg, root: classes_of(cfg)[1]),
    'VOC': (write_voc, lambda cfg, root: sorted({*classes_of(cfg)} - {'a'})[0]),
    'YOLO': (write_yolo, lambda cfg, root: classes_of(cfg)[1]),
    'YOLO dict': (write_yolo_dict, lambda cfg, root: classes_of(cfg)[1]),
    'classes.txt': (write_classes_txt, lambda cfg, root: classes_of(cfg)[1]),
    '--classes': (write_option, lambda cfg, root: classes_of(cfg)[1]),
    'folders': (write_folders, lambda cfg, root: sorted({*classes_of(cfg)} - {'a'})[0]),
    'ending': (write_masks, lambda cfg, root: cfg.train_dataloader.dataset.seg_map_suffix[:-4]),
    'path': (write_folder_name, lambda cfg, root: cfg.data_root.split('/')[-2]),
    '--out': (write_out, lambda cfg, root: cfg.train_dataloader.dataset.ann_file.split('/out')[1][:-10]),
    '--weights': (write_weights, lambda cfg, root: cfg.model.backbone.init_cfg.checkpoint[10:-4]),
}
IN_FILES = ('folders', 'ending', 'path', '--out')
BY_LINES = ('classes.txt', '--classes')


def can_be_written(source, name):
    """Whether a source can hold a name as it is; others are other names, or no files."""
    if source in IN_FILES:
        if name.startswith('.'):  # hidden, or the folder itself
            return False
        try:
            return '/' not in name and b'\0' not in os.fsencode(name) and len(name) < 200
        except UnicodeEncodeError:
            return False
    if source in BY_LINES:
        one_line = name.splitlines() == [name] and name == name.strip() and is_allowed(name.replace('{', ''))
        return one_line and (source != '--classes' or (':' not in name and not name.startswith('#')))
    if source == 'VOC':
        return name.isprintable() and name == name.strip()
    return (
        source == 'COCO'
        or source == '--weights'
        or (name.isprintable() and is_allowed(name.replace('{', '')))
    )


def is_accepted(source, name):
    """Whether a name is to be found in the config, not refused."""
    if source == 'folders' and (name != name.lstrip() or '\n' in name or '\r' in name):
        return False  # not in lists of files
    return is_allowed(name) and not (source == '--out' and '::' in name)


def check_source(root, source, name):
    """A name is refused, and nothing is left, or the config has it."""
    write, find = SOURCES[source]
    os.environ.pop(MARK, None)
    arguments, options = write(root, name)
    options = {'weights': 'none', 'out': root / 'my.py', **options}
    before = sorted(root.rglob('*'))
    if is_accepted(source, name):
        new(*arguments, **options)
        assert find(load_config(str(options['out'])), root) == name
    else:
        with pytest.raises(UsageError) as error:
            new(*arguments, **options)
        assert '\n' not in str(error.value) and ('rename ' in str(error.value) or source == '--out')
        assert sorted(root.rglob('*')) == before
    assert MARK not in os.environ


@pytest.mark.parametrize('source', SOURCES)
def test_a_name_is_data_or_refused(tmp_path, source):
    names = [TEMPLATES[1], TEMPLATES[4], 'a"b\'c\\ {%d} }} é#']
    for i, name in enumerate(filter(lambda name: can_be_written(source, name), names)):
        (tmp_path / str(i)).mkdir()
        check_source(tmp_path / str(i), source, name)


@pytest.mark.nightly
@pytest.mark.parametrize('source', SOURCES)
def test_every_name_from_every_source(tmp_path, source):
    rng = random.Random(source)
    names = dict.fromkeys([*TEMPLATES, *PLAIN, *(random_text(rng) for _ in range(60))])
    chosen = [name for name in names if name.strip() and can_be_written(source, name) and name != 'a']
    assert len(chosen) > 20
    for i, name in enumerate(chosen):
        (tmp_path / str(i)).mkdir()
        check_source(tmp_path / str(i), source, name)


def test_names_of_files_that_are_not_unicode(tmp_path):
    arguments, options = write_folders(tmp_path, 'b')
    try:
        (tmp_path / 'images/b/0.png').rename(os.fsdecode(os.fsencode(tmp_path) + b'/images/b/\xff.png'))
    except OSError:
        pytest.skip('this file system has Unicode names alone')
    with pytest.raises(UsageError, match=r"'b/\\udcff\.png' is not text in UTF-8: rename it"):
        new(*arguments, out=tmp_path / 'my.py', weights='none', **options)


@pytest.mark.parametrize('name', ['a\nb.png', ' a.png'])
def test_names_that_lists_cannot_hold(tmp_path, name):
    arguments, _ = write_masks(tmp_path, '')
    for folder in ('images', 'masks'):
        (tmp_path / folder / '1.png').rename(tmp_path / folder / name)
    with pytest.raises(UsageError, match='a line break, or white space at an end'):
        new(*arguments, out=tmp_path / 'my.py', weights='none')
    assert not list(tmp_path.glob('my*'))


@pytest.mark.parametrize('fraction', [math.nan, math.inf, -math.inf, 0, 1, -0.5, 1e300])
def test_a_fraction_that_holds_out_nothing(tmp_path, fraction):
    arguments, _ = write_folders(tmp_path, 'b')
    with pytest.raises(UsageError, match=f'^--val-fraction {fraction}'.replace('+', r'\+')):
        new(*arguments, out=tmp_path / 'my.py', weights='none', val_fraction=fraction)


class TestNothingIsHalfWritten:
    @pytest.fixture
    def start(self, tmp_path):
        """Call ``new``, without or with files that are there already; what is there then."""

        def start(there, **options):
            arguments, _ = write_folders(tmp_path, 'b')
            if there:
                new(*arguments, out=tmp_path / 'my.py', weights='none', epochs=3)
            before = self.state(tmp_path)
            return before, lambda: new(
                *arguments, out=tmp_path / 'my.py', weights='none', force=there, **options
            )

        return start

    @staticmethod
    def state(folder):
        files = [path for path in folder.rglob('*') if path.is_file()]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    @pytest.mark.parametrize('there', [False, True])
    def test_where_the_check_fails(self, tmp_path, start, there):
        def verify(config):
            assert 'classes' in config.read_text() and len(list(tmp_path.glob('my*'))) == 3
            raise UsageError('odd')

        before, run = start(there, verify=verify)
        with pytest.raises(UsageError, match='odd'):
            run()
        assert self.state(tmp_path) == before

    @pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_where_a_signal_ends_it(self, tmp_path, start, number):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored in background jobs
        handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
        before, run = start(True, verify=lambda config: os.kill(os.getpid(), number))
        with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
            run()
        assert number == signal.SIGINT or ended.value.code == 128 + number
        assert self.state(tmp_path) == before
        assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP))

    @pytest.mark.parametrize('there', [False, True])
    @pytest.mark.parametrize('limit', [10, 200])
    def test_on_a_full_disk(self, tmp_path, start, there, limit):
        before, run = start(there)
        with full_disk(limit), pytest.raises(UsageError, match=r"^cannot write '.*my.*' \(File too large\)"):
            run()
        assert self.state(tmp_path) == before

    def test_a_name_that_is_too_long(self, tmp_path):
        arguments, _ = write_folders(tmp_path, 'b')
        with pytest.raises(UsageError, match=r'^cannot write .*\(File name too long\)'):
            new(*arguments, out=tmp_path / f'{"a" * 245}.py', weights='none')
        assert [path.name for path in tmp_path.iterdir()] == ['images']

    def test_success_leaves_nothing_beside(self, tmp_path, start):
        _, run = start(True)
        run()
        assert {path.name for path in tmp_path.iterdir()} == {'images', 'my.py', 'my_train.txt', 'my_val.txt'}

    def test_a_generated_data_set(self, tmp_path):
        arguments = dict(num_train=2, num_val=1, size=64, progress=lambda text: None)
        with full_disk(300), pytest.raises(UsageError, match=r'^cannot write .*: make room'):
            generate_ade20k(tmp_path / 'data', **arguments)
        assert list((tmp_path / 'data').iterdir()) == []
        root = generate_ade20k(tmp_path / 'data', **arguments)
        before = self.state(tmp_path)
        with full_disk(300), pytest.raises(UsageError, match=r'^cannot write '):
            generate_ade20k(tmp_path / 'data', **{**arguments, 'seed': 1})
        assert self.state(tmp_path) == before
        for place in (root / 'generated.json', '/proc/nothing'):
            with pytest.raises(UsageError, match=r'^cannot write '):
                generate_ade20k(place, **arguments)
        with pytest.raises(UsageError, match='seed'):
            generate_ade20k(tmp_path, seed=-1)


@contextmanager
def full_disk(limit):
    """No file may be longer, as ``ulimit -f`` does it: a write beyond ends in an error, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_folder_of_a_config_is_not_code(tmp_path):
    """MMEngine writes it as text in the place of a template."""
    folder = tmp_path / f"a'+str({CODE})+'"
    folder.mkdir()
    given, _ = write_folder_name(folder, 'plain')
    (folder / 'my.py').write_text("here = '{{ fileDirname }}/'\n")
    with pytest.raises(UsageError, match='names its own folder or file by a template'):
        load_config(str(folder / 'my.py'))
    found = new(*given, out=folder / 'b.py', weights='none', val_fraction=0.5)
    assert load_config(str(found.config)).here == f'{folder}/'
    assert MARK not in os.environ

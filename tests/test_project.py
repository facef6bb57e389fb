"""What stands around the package: workflows, forms, pages about the code, and the count of its lines."""

import re
from collections import Counter

import pytest
import yaml
from conftest import ROOT
from test_layering import ROOMS

from benchmarks.count_lines import count_code, read_sources, room_of, table

WORKFLOWS = sorted(ROOT.glob('.github/workflows/*.yml'))
FORMS = sorted(path for path in ROOT.glob('.github/ISSUE_TEMPLATE/*.yml') if path.name != 'config.yml')
TARGETS = set(re.search(r'^\.PHONY: (.+)$', (ROOT / 'Makefile').read_text(), re.M)[1].split())


def rows_of(page):
    """The cells of all rows of a page's tables."""
    for line in (ROOT / page).read_text().splitlines():
        if line.startswith('| ') and not line.startswith('|---'):
            yield [cell.strip() for cell in line.strip('|').split('|')]


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_of_the_makefile(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow['permissions'] == {'contents': 'read'}
    for job in workflow['jobs'].values():
        assert job['timeout-minutes'] <= 240
        commands = [step['run'] for step in job['steps'] if 'uses' not in step]
        assert commands
        for command in commands:
            words = command.split()
            assert words[0] == 'make' and words[1:] and TARGETS.issuperset(words[1:]), command
    assert '://' not in path.read_text()


def test_workflows_run_everything():
    commands = ' '.join(path.read_text() for path in WORKFLOWS)
    for target in ('lint', 'test-fast', 'docs', 'test', 'test-avx2', 'nightly'):
        assert f'run: make {target}\n' in commands
    triggers = yaml.safe_load((ROOT / '.github/workflows/nightly.yml').read_text())[True]  # "on" in YAML 1.1
    assert len(triggers['schedule'][0]['cron'].split()) == 5


def test_targets_are_documented():
    makefile = (ROOT / 'Makefile').read_text()
    for target in TARGETS:
        assert re.search(rf'^{target}:', makefile, re.M), f'{target} is not a target'
        assert target == 'help' or re.search(rf'@echo "make {target} ', makefile), (
            f'{target} is not in the help'
        )


@pytest.mark.parametrize('path', FORMS, ids=lambda path: path.stem)
def test_an_issue_form(path):
    form = yaml.safe_load(path.read_text())
    assert form['name'] and form['description']
    ids = Counter(field['id'] for field in form['body'] if field['type'] != 'markdown')
    assert ids and max(ids.values()) == 1
    for field in form['body']:
        assert field['type'] in ('markdown', 'textarea')
        assert field['attributes'].get('label' if field['type'] == 'textarea' else 'value')
    assert any(field.get('validations', {}).get('required') for field in form['body'])


@pytest.fixture(scope='module')
def sources():
    """The files of the package and the tools."""
    return read_sources(None)


def test_architecture_has_all_rooms_and_their_lines(sources):
    code = Counter()
    for path, source in sources.items():
        if path.startswith('mmmeta/'):
            code[path.split('/')[1].removesuffix('.py')] += count_code(source)
    page = (ROOT / 'docs/architecture.md').read_text()
    written = {}
    for cells in rows_of('docs/architecture.md'):
        if len(cells) == 3 and re.fullmatch(r'\d+', cells[2]):
            written[tuple(re.findall(r'`([\w/]+)`', cells[0]))] = int(cells[2])
    for room in {room for row in ROOMS for room in row}:
        assert f'`{room.replace(".", "/")}' in page, f'{room} is not on the page'
    for rooms, lines in written.items():
        counted = sum(code[room] for room in rooms)
        assert abs(lines - counted) <= max(0.2 * counted, 60), f'{rooms} have {counted} lines of code'
    assert {*code} - {'__init__'} == {room for rooms in written for room in rooms}


def test_glossary(sources):
    source = '\n'.join(sources.values())
    terms = Counter()
    for term, meaning, names, _ in (cells for cells in rows_of('docs/glossary.md') if len(cells) == 4):
        if term != 'term':
            terms[term] += 1
            assert meaning
            for name in re.findall(r'[\w-]+', ' '.join(re.findall(r'`([^`]+)`', names))):
                assert re.search(rf'(?<![\w-]){re.escape(name)}\b', source), f'{term}: {name}'
    assert 20 <= len(terms) <= 40 and max(terms.values()) == 1
    assert 'glossary.md' in (ROOT / 'docs/index.md').read_text()
    assert 'docs/glossary.md' in (ROOT / 'CONTRIBUTING.md').read_text()


def test_changelog_has_the_headings_of_keep_a_changelog():
    headings = re.findall(r'^#+ .+$', (ROOT / 'CHANGELOG.md').read_text(), re.M)
    kinds = ('Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security')
    assert headings[:2] == ['# Changelog', '## [Unreleased]']
    assert [h for h in headings[2:] if h.startswith('### ')] == [f'### {kind}' for kind in kinds]


SOURCE = '''\
"""A module.

Of several lines.
"""
# A comment.
import os  # and another

TEXT = """first

third"""


class Empty:
    """A docstring alone."""


def function(
    argument,
):
    """Return a string that is not a docstring."""
    'neither is this'
    return os.path.join(
        argument,  # kept

        'name',
    )
'''


def test_lines_of_code():
    # import; two of TEXT; class; def and its two; the string; return and its three.
    assert count_code(SOURCE) == 1 + 2 + 1 + 3 + 1 + 4
    assert count_code('# nothing\n\n') == count_code('') == 0
    assert room_of('mmmeta/models/layers/kernels/norms.py') == 'mmmeta/models/layers'
    assert (room_of('mmmeta/registry.py'), room_of('tools/a/b.py')) == ('mmmeta', 'tools')
    rows = table({'mmmeta/a/x.py': 'x = 1\n', 'mmmeta/b/y.py': '# y\nx = 1\nx = 2\n\nx = 3\n'}).splitlines()
    assert rows[2:5] == [
        '| mmmeta/a | 1 | 1 | 1 | 25.0 % |',
        '| mmmeta/b | 1 | 5 | 3 | 75.0 % |',
        '| all of mmmeta | 2 | 6 | 4 | 100.0 % |',
    ]

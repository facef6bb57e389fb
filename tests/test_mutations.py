"""The table of wrong changes fits the checkout, and the runner tells their ends apart."""

import ast
import textwrap

import pytest
from conftest import ROOT

from benchmarks.mutations.run import LEAST, find_failing, judge, mutate
from benchmarks.mutations.table import MUTATIONS, Mutation


def test_each_text_is_there_once_and_each_test_exists():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) == 60 > LEAST
    trees = {}
    for mutation in MUTATIONS:
        text = (ROOT / mutation.file).read_text()
        assert mutate(mutation, text) != text
        for test in mutation.tests:
            path, *names = test.partition('[')[0].split('::')
            node = trees.setdefault(path, ast.parse((ROOT / path).read_text()))
            for name in names:
                kinds = (ast.FunctionDef, ast.ClassDef)
                found = [part for part in node.body if isinstance(part, kinds) and part.name == name]
                assert len(found) == 1, test
                (node,) = found


@pytest.mark.parametrize(
    ('text', 'count'), [('f(a)', 0), ('f(a, bc)', 0), ('half(a, b)', 0), ('f(a, b); f(\n    a,\n    b)', 2)]
)
def test_a_text_that_is_not_there_once_is_refused(text, count):
    with pytest.raises(ValueError, match=f'the old text is {count} times in x.py: correct the table'):
        mutate(Mutation('x', 'x.py', 'f(a, b)', '', ()), text)


def test_the_ends_of_changes(tmp_path):
    (tmp_path / 'least.py').write_text('def least(a, b):\n    return min(\n        a, b\n    )\n')
    (tmp_path / 'test_least.py').write_text(
        textwrap.dedent("""\
            import pytest

            from least import least


            def test_it():
                assert least(1, 2) == 1


            @pytest.mark.parametrize('value', [1, 2])
            def test_equal_ones(value):
                assert least(value, value) == value


            def test_nothing():
                assert False
        """)
    )

    def change(new, test):
        return Mutation('x', 'least.py', 'min(a, b)', new, (f'test_least.py::{test}',))

    changes = [change('max(a, b)', test) for test in ('test_it', 'test_equal_ones', 'test_nothing')]
    assert find_failing(tmp_path, changes) == {'test_least.py::test_nothing'}
    assert judge(changes[0], tmp_path) == ('killed', 'test_least.py::test_it')
    assert judge(changes[1], tmp_path) == ('lives', 'all tests pass')
    for new, test in (('max(a,', 'test_it'), ('max(a, b)', 'test_other')):
        assert judge(change(new, test), tmp_path)[0] == 'broken'
    assert 'min(\n' in (tmp_path / 'least.py').read_text()  # nothing is left of them

"""Categories are read without the rest of a file."""

import json

import pytest

from mmmeta.datasets.categories import read_categories

CATEGORIES = [dict(id=3, name='größer {"categories": []}'), dict(id=1, name='a', supercategory='b')]
CONTENTS = {
    'first': dict(categories=CATEGORIES, images=[], annotations=[]),
    'last': dict(images=[dict(id=1)], annotations=[], categories=CATEGORIES),
    'nested': dict(
        info=dict(categories='of people'), images=[dict(categories=[1, 2])], categories=CATEGORIES
    ),
    'a text': dict(info='see "categories": [', categories=CATEGORIES),
}


@pytest.mark.parametrize('indent', [None, 2])
@pytest.mark.parametrize('ascii', [True, False])
@pytest.mark.parametrize('name', CONTENTS)
def test_they_are_those_of_the_file(tmp_path, name, ascii, indent):
    path = tmp_path / 'annotations.json'
    path.write_text(json.dumps(CONTENTS[name], ensure_ascii=ascii, indent=indent), encoding='utf-8')
    assert read_categories(path) == CATEGORIES

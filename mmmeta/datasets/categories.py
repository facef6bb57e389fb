"""The categories of a file of COCO's format."""

import json
import mmap
from pathlib import Path

KEY = b'"categories"'


def read_categories(path: str | Path) -> list[dict]:
    """Read the categories of a file of COCO's format, without its images and objects.

    Args:
        path (str | Path): The file.

    Returns:
        list[dict]: Each with ``id`` and ``name``, in the order of the file.
    """
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.find(KEY)
        while place >= 0:
            # Enough for any data set; less, where another key of this name is nested in something else.
            text = content[place + len(KEY) : place + 2**24].decode('utf-8', 'ignore').lstrip()
            if text.startswith(':'):
                try:
                    categories, _ = json.JSONDecoder().raw_decode(text[1:].lstrip())
                except ValueError:
                    categories = None
                if isinstance(categories, list) and all(
                    isinstance(one, dict) and {'id', 'name'} <= one.keys() for one in categories
                ):
                    return categories
            place = content.find(KEY, place + 1)
    return json.loads(Path(path).read_bytes())['categories']

"""The categories of a file of COCO's format."""

import json
import mmap
from pathlib import Path
from typing import Any

from mmengine.fileio import get_local_path

KEY = b'"categories"'


def read_categories(path: str | Path, backend_args: dict[str, Any] | None = None) -> list[dict]:
    """Read the categories of a file of COCO's format, without its images and objects.

    Args:
        path (str | Path): The file, or its URL.
        backend_args (dict | None): Arguments of MMEngine's file backend. Defaults to None: by the path.

    Returns:
        list[dict]: Each with ``id`` and ``name``, in the order of the file.
    """
    with (
        get_local_path(path, backend_args=backend_args) as local,
        open(local, 'rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
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
        return json.loads(content[:])['categories']

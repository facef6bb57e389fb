"""Bring weights from where they lie onto this machine, into the caches that other tools use too."""

import errno
import hashlib
import os
import re
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank

from mmmeta.errors import UsageError

from .zoo import HUB, ZOO, find, find_by_place

TIMM_FILE = 'model.safetensors'


def is_remote(location: str) -> bool:
    """Whether a location is no path of this machine."""
    return '://' in location


def fetch(location: str) -> str:
    """Bring a file onto this machine, unless it is there already.

    Args:
        location (str): A path; ``mmmeta://`` and a name of our zoo; ``timm://`` and a model of timm's on the
            Hugging Face hub; or a URL. What comes from the hub is kept where ``huggingface_hub`` keeps it and
            obeys its settings, ``HF_HUB_OFFLINE`` among them; other files are kept where :mod:`torch.hub`
            keeps them.

    Returns:
        str: The path.

    Raises:
        UsageError: The name is unknown, the place cannot be reached, or the disk is full. The other places of
            the same weights are told.
    """
    if not is_remote(location):
        return os.path.expanduser(location)
    # One process of each machine brings the file, the others find it.
    first = int(os.environ.get('LOCAL_RANK', get_rank())) == 0
    try:
        path = _fetch(location) if first else ''
    finally:
        barrier()
    return path if first else _fetch(location)


def forget(path: str) -> None:
    """Remove a damaged file from the cache that it lies in, so that the next try brings it anew."""
    for file in (os.path.realpath(path), path):
        with suppress(FileNotFoundError):  # another process was faster
            os.remove(file)


def _fetch(location: str) -> str:
    if location.startswith('mmmeta://'):
        return _first_of(find(location.removeprefix('mmmeta://')).places)
    try:
        return _fetch_from(location)
    except _UnreachableError as error:
        weights = find_by_place(location)
        others = [place for place in weights.places if place != location] if weights else []
        hint = f'; the same weights lie at {", ".join(others)}' if others else ''
        raise UsageError(f"cannot get '{location}' ({error}){hint}, or give a file") from error


def _first_of(places: tuple[str, ...]) -> str:
    """The file of the first place that can be reached."""
    reasons = []
    for place in places:
        try:
            return _fetch_from(place)
        except _UnreachableError as error:
            reasons.append(f"'{place}' ({error})")
    raise UsageError(f'cannot get {", nor ".join(reasons)}: get one of them elsewhere and give the file')


class _UnreachableError(Exception):
    """A place that gives nothing, and why."""


def _fetch_from(place: str) -> str:
    try:
        if place.startswith('timm://'):
            return _fetch_from_hub(f'timm/{place.removeprefix("timm://").removeprefix("timm/")}', TIMM_FILE)
        on_hub = re.fullmatch(rf'{HUB}/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)(\?.*)?', place)
        if on_hub:
            return _fetch_from_hub(on_hub[1], on_hub[3], revision=on_hub[2])
        if urlparse(place).scheme not in ('http', 'https'):
            raise UsageError(
                f"'{place}' is no place of weights: give a path, mmmeta://, timm://, http:// or https://"
            )
        return _fetch_from_web(place)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UsageError(
            f"the disk is full, '{place}' was not kept: make room, or set TORCH_HOME (files of the web) or "
            'HF_HOME (files of the hub) to another disk'
        ) from error


def _fetch_from_hub(repo: str, file: str, revision: str = 'main') -> str:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return hf_hub_download(repo, file, revision=revision)
    except LocalEntryNotFoundError as error:
        raise _UnreachableError('not in the cache, and the hub cannot be reached') from error
    except (RepositoryNotFoundError, EntryNotFoundError, HFValidationError) as error:
        raise _UnreachableError('the hub has no such file') from error
    except HfHubHTTPError as error:
        raise _UnreachableError(str(error).splitlines()[0]) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise _UnreachableError(f'{type(error).__name__}: {error}') from error


def _fetch_from_web(url: str) -> str:
    name = os.path.basename(urlparse(url).path)
    if '/resolve/' in url:  # a hub's mirror, where files of one name are many
        name = f'{hashlib.sha256(url.encode()).hexdigest()[:12]}_{name}'
    path = Path(torch.hub.get_dir(), 'checkpoints', name)
    if path.is_file():
        return str(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # As PyTorch and OpenMMLab name files: the start of the hash between the last hyphen and the suffix.
    hash_prefix = re.search(r'-(?=[0-9]*[a-f])([0-9a-f]{8,})\.', name)  # digits alone are a date
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix and hash_prefix[1])
    except HTTPError as error:
        raise _UnreachableError(f'HTTP {error.code} {error.reason}') from error
    except (URLError, ConnectionError, TimeoutError, HTTPException) as error:
        raise _UnreachableError(str(getattr(error, 'reason', error))) from error
    except RuntimeError as error:
        if 'invalid hash' not in str(error):
            raise
        raise _UnreachableError('what came is not what the hash in its name says') from error
    return str(path)


def known_family(location: str) -> tuple[str, str] | None:
    """Family and size of the weights at a place that the zoo knows; None for any other."""
    weights = ZOO.get(location.removeprefix('mmmeta://')) if location.startswith('mmmeta://') else None
    weights = weights or find_by_place(location)
    return (weights.family, weights.size) if weights else None

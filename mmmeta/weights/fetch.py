"""Download weights into the caches that are shared with other tools."""

import errno
import hashlib
import ipaddress
import os
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log

from mmmeta.utils.errors import UsageError

from .zoo import HUB, ZOO, find_by_place, get_weights

TIMM_FILE = 'model.safetensors'


def is_remote(location: str) -> bool:
    """Whether a location is not a local path."""
    return '://' in location


def fetch(location: str) -> str:
    """Download a file, unless it is local or cached.

    Args:
        location (str): A path; ``mmmeta://`` and a name of our zoo; ``timm://`` and a model of timm's on the
            Hugging Face hub; or a URL, with the hash of the file behind it (``#sha256=...``) if that is to be
            checked. Files from the hub are kept in the cache of ``huggingface_hub`` and obey its settings,
            such as ``HF_HUB_OFFLINE``; other files are kept in that of :mod:`torch.hub`, in a folder for
            each URL.

    Returns:
        str: The path.

    Raises:
        UsageError: The name is unknown, the host cannot be reached, the content does not match the hash, or
            the disk is full. Other locations of the same weights are listed.
    """
    if not is_remote(location):
        return os.path.expanduser(location)
    # One process per machine downloads the file, the others read it from the cache.
    first = int(os.environ.get('LOCAL_RANK', get_rank())) == 0
    try:
        path = _fetch(location) if first else ''
    finally:
        barrier()
    return path if first else _fetch(location)


def remove_from_cache(path: str) -> None:
    """Remove a damaged file from its cache, so that the next attempt downloads it again."""
    for file in (os.path.realpath(path), path):
        with suppress(FileNotFoundError):  # another process was faster
            os.remove(file)
    with suppress(OSError):  # others are in the folder
        os.rmdir(os.path.dirname(path))


def _fetch(location: str) -> str:
    if location.startswith('mmmeta://'):
        weights = get_weights(location.removeprefix('mmmeta://'))
        if weights.licence:
            print_log(f'{location} is published under {weights.licence}', logger='current')
        return _first_of(weights.places)
    try:
        return _fetch_from(location)
    except _UnreachableError as error:
        known = find_by_place(location.partition('#')[0])
        others = [place for place in known.places if place != location] if known else []
        hint = f'; the same weights are at {", ".join(others)}' if others else ''
        raise UsageError(f"cannot get '{location}' ({error}){hint}, or give a file") from error


def _first_of(places: tuple[str, ...]) -> str:
    """The file from the first location that can be reached."""
    reasons = []
    for place in places:
        try:
            return _fetch_from(place)
        except _UnreachableError as error:
            reasons.append(f"'{place}' ({error})")
    raise UsageError(f'cannot get {", nor ".join(reasons)}: get one of them elsewhere and give the file')


class _UnreachableError(Exception):
    """A location that cannot be downloaded from; the message is the reason."""


def _fetch_from(place: str) -> str:
    try:
        if place.startswith('timm://'):
            return _fetch_from_hub(f'timm/{place.removeprefix("timm://").removeprefix("timm/")}', TIMM_FILE)
        url, _, fragment = place.partition('#')
        fragment = fragment.lower()  # hexadecimal digits in capitals are the same
        _check_url(url, fragment)
        digest = fragment.removeprefix('sha256=')
        on_hub = re.fullmatch(rf'{HUB}/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)(\?.*)?', url)
        path = _fetch_from_hub(on_hub[1], on_hub[3], revision=on_hub[2]) if on_hub else _fetch_from_web(url)
        if digest and not sha256_of(path).startswith(digest):
            remove_from_cache(path)
            raise _UnreachableError(f'the content does not match sha256={digest}')
        return path
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UsageError(
            f"the disk is full, '{place}' was not kept: make room, or set TORCH_HOME (files of the web) or "
            'HF_HOME (files of the hub) to another disk'
        ) from error


def _fetch_from_hub(repo: str, file: str, revision: str = 'main') -> str:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        if not isinstance(try_to_load_from_cache(repo, file, revision=revision), str):
            # One try: the download makes six, which take most of a minute where there is no network.
            get_hf_file_metadata(hf_hub_url(repo, file, revision=revision))
        return hf_hub_download(repo, file, revision=revision)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise _UnreachableError('not in the cache, and the hub cannot be reached') from error
    except (RepositoryNotFoundError, EntryNotFoundError, HFValidationError) as error:
        raise _UnreachableError('the hub has no such file') from error
    except HfHubHTTPError as error:
        raise _UnreachableError(str(error).splitlines()[0]) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise _UnreachableError(f'{type(error).__name__}: {error}') from error
    except Exception as error:
        # Of the HTTP library, which is httpx, httpx2 or requests, by the version of huggingface_hub.
        if 'TransportError' not in (cls.__name__ for cls in type(error).__mro__):
            raise
        raise _UnreachableError('not in the cache, and the hub cannot be reached') from error


def _check_url(url: str, fragment: str) -> None:
    """Refuse what is not a URL of https, or whose hash is not one."""
    parts = urlparse(url)
    if parts.scheme not in ('http', 'https'):
        raise UsageError(f"'{url}' is not a location of weights: give a path, mmmeta://, timm:// or https://")
    if not _is_protected(url):
        raise UsageError(
            f"'{url}' would be fetched without encryption, and anybody on the way could change it: give the "
            'https:// address, or fetch it yourself, check it, and give the file'
        )
    if fragment and not re.fullmatch(r'sha256=[0-9a-f]{8,64}', fragment):
        raise UsageError(f"'{url}#{fragment}': behind # stands sha256= and 8 to 64 hexadecimal digits")


def _is_protected(url: str) -> bool:
    """Whether nobody on the way could change what is fetched from a URL."""
    parts = urlparse(url)
    return parts.scheme == 'https' or (parts.scheme == 'http' and _is_this_machine(parts.hostname or ''))


class _ProtectedRedirects(urllib.request.HTTPRedirectHandler):
    """Follow no redirect to where the content could be changed on the way."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not _is_protected(newurl):
            raise URLError(f"it redirects to '{newurl[:200]}', which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _protected_redirects() -> Iterator[None]:
    """Let PyTorch, whose download takes no opener, follow protected redirects alone."""
    before = vars(urllib.request)['_opener']
    urllib.request.install_opener(urllib.request.build_opener(_ProtectedRedirects))
    try:
        yield
    finally:
        urllib.request.install_opener(before)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def sha256_of(path: str | Path) -> str:
    """Return the hash of the content of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _fetch_from_web(url: str) -> str:
    name = os.path.basename(urlparse(url).path)[-100:]
    name = 'weights' if name in ('', '.', '..') else name
    # As PyTorch and OpenMMLab name files: the start of the hash between the last hyphen and the suffix.
    found = re.search(r'-(?=[0-9]*[a-f])([0-9a-f]{8,})\.', name)  # digits alone are a date
    hash_prefix = found and found[1]
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    # Where other tools keep it, under the name alone, which many URLs may share.
    shared = folder / name
    if hash_prefix and find_by_place(url) and shared.is_file() and sha256_of(shared).startswith(hash_prefix):
        return str(shared)
    path = folder / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    if path.is_file():
        return str(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _protected_redirects():
            torch.hub.download_url_to_file(url, str(path), hash_prefix)
    except HTTPError as error:
        raise _UnreachableError(f'HTTP {error.code} {error.reason}') from error
    except (URLError, ConnectionError, TimeoutError, HTTPException) as error:
        raise _UnreachableError(str(getattr(error, 'reason', error))) from error
    except RuntimeError as error:
        if 'invalid hash' not in str(error):
            raise
        raise _UnreachableError('the content does not match the hash in the file name') from error
    finally:
        if not path.is_file():
            with suppress(OSError):  # another process may be fetching into it
                path.parent.rmdir()
    return str(path)


def known_family(location: str) -> tuple[str, str] | None:
    """Family and size of the weights at a location in the zoo; None for any other."""
    weights = ZOO.get(location.removeprefix('mmmeta://')) if location.startswith('mmmeta://') else None
    weights = weights or find_by_place(location.partition('#')[0])
    return (weights.family, weights.size) if weights else None

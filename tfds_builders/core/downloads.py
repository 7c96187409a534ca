"""Public archives: fetched by TFDS' download manager, unpacked here (TFDS' own unpacking needs TensorFlow)."""

import pathlib
import shutil
import socket
import tarfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable

import tensorflow_datasets as tfds

from ser_jax.runtime.errors import UserError


def unpack(archive: pathlib.Path, folder: pathlib.Path):
    """Unpacks a zip or tar below `folder`, all or nothing.

    Raises:
        UserError: neither a zip nor a tar, damaged, or a member that lies outside `folder` or is not a plain file.
    """
    partial = folder.with_name(folder.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if tarfile.is_tarfile(archive):
            _untar(archive, partial)
        else:
            _unzip(archive, partial)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise UserError(f'{archive} is not a whole zip or tar file ({error}): delete it') from error
    else:
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unzip(archive: pathlib.Path, folder: pathlib.Path):
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            _check_member(archive, member.filename)
        # Links become plain files that hold their targets: none is followed.
        file.extractall(folder)


def _untar(archive: pathlib.Path, folder: pathlib.Path):
    with tarfile.open(archive) as file:
        for member in file:
            _check_member(archive, member.name)
            if not (member.isfile() or member.isdir()):
                raise UserError(f'{archive}: member {member.name!r} is no plain file')
            # Not `extract`: before Python 3.11.4 it cannot ignore owners and permissions.
            target = folder / member.name
            (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
            if member.isfile():
                with file.extractfile(member) as content, target.open('wb') as copy:
                    shutil.copyfileobj(content, copy)


def _check_member(archive: pathlib.Path, name: str):
    path = pathlib.PurePosixPath(name.replace('\\', '/'))
    if path.is_absolute() or '..' in path.parts or ':' in next(iter(path.parts), ''):
        raise UserError(f'{archive}: member {name!r} points outside')


def top_folder(folder: pathlib.Path) -> pathlib.Path:
    """The folder with an archive's content, below any single folders around it."""
    while True:
        paths = [path for path in folder.iterdir() if not path.name.startswith('.')]
        if len(paths) != 1 or not paths[0].is_dir():
            return folder
        folder = paths[0]


def _reachable(address: str) -> bool:
    """Whether the address exists, in one request: TFDS retries for three minutes."""
    import requests  # comes with tensorflow-datasets

    try:
        return requests.head(address, timeout=10, allow_redirects=True).status_code != 404
    except requests.RequestException:
        return False


def fetch(
    builder_type, folder: pathlib.Path, failure: UserError, log: Callable[[str], None]
) -> pathlib.Path:
    """Downloads and unpacks a corpus unless it is unpacked already.

    Args:
        builder_type: `Builder` with a `DOWNLOAD` address.
        folder: folder of the downloads.
        failure: error to raise, with the reason, where the download fails.
        log: receives the progress lines.

    Returns:
        The folder that holds the corpus.
    """
    unpacked = folder / 'unpacked' / builder_type.name
    if unpacked.is_dir():
        return _corpus_in(unpacked, builder_type)
    address = urllib.parse.urlsplit(builder_type.DOWNLOAD)
    try:  # TFDS retries for minutes without a network
        port = address.port or {'http': 80, 'https': 443}[address.scheme]
        socket.create_connection((address.hostname, port), timeout=10).close()
    except OSError as error:
        raise _with_reason(failure, f'no connection to {address.hostname}') from error
    if not _reachable(builder_type.DOWNLOAD):
        raise _with_reason(failure, f'nothing at {builder_type.DOWNLOAD}')
    log(f'downloading {builder_type.name} from {builder_type.DOWNLOAD}')
    manager = tfds.download.DownloadManager(
        download_dir=folder, url_infos=builder_type.url_infos, dataset_name=builder_type.name
    )
    try:
        archive = manager.download(builder_type.DOWNLOAD)
    except Exception as error:  # requests, urllib3, promise and TFDS raise their own types
        raise _with_reason(failure, type(error).__name__) from error
    unpack(pathlib.Path(archive), unpacked)
    return _corpus_in(unpacked, builder_type)


def _with_reason(failure: UserError, reason: str) -> UserError:
    return UserError(f'{failure} (it could not be downloaded: {reason})')


def _corpus_in(unpacked: pathlib.Path, builder_type) -> pathlib.Path:
    return top_folder(unpacked) if builder_type.PACKED_IN_FOLDER else unpacked

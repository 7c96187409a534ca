"""Public zip files: fetched by TFDS' download manager, unpacked by us (TFDS' own unpacking needs TensorFlow)."""

import pathlib
import shutil
import socket
import urllib.parse
import zipfile
from collections.abc import Callable

import tensorflow_datasets as tfds

from ser_jax.errors import UserError


def unpack(archive: pathlib.Path, folder: pathlib.Path):
    """Unpacks a zip below `folder`, all or nothing.

    Raises:
        UserError: not a zip, damaged, or a member that would land outside `folder`.
    """
    partial = folder.with_name(folder.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                path = pathlib.PurePosixPath(member.filename.replace('\\', '/'))
                if path.is_absolute() or '..' in path.parts or ':' in path.parts[0]:
                    raise UserError(f'{archive}: member {member.filename!r} points outside')
            file.extractall(partial)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise UserError(f'{archive} is not a whole zip file ({error}): delete it') from error
    else:
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _reachable(address: str) -> bool:
    """Whether anything answers there; TFDS retries for three minutes before it gives up."""
    import requests  # comes with tensorflow-datasets

    try:
        return requests.head(address, timeout=10, allow_redirects=True).status_code != 404
    except requests.RequestException:
        return False


def fetch(
    builder_type, folder: pathlib.Path, failure: UserError, log: Callable[[str], None]
) -> pathlib.Path:
    """Downloads and unpacks a corpus unless that was done before.

    Args:
        builder_type: with `DOWNLOAD`, the address, and `name`.
        folder: where downloads are kept.
        failure: raised where there is no network, or not the corpus at that address.
        log: takes the line that says what is being done.

    Returns:
        The unpacked folder.
    """
    unpacked = folder / 'unpacked' / builder_type.name
    if unpacked.is_dir():
        return unpacked
    address = urllib.parse.urlsplit(builder_type.DOWNLOAD)
    try:  # TFDS tries for minutes where there is no network; one look tells
        port = address.port or {'http': 80, 'https': 443}[address.scheme]
        socket.create_connection((address.hostname, port), timeout=10).close()
    except OSError as error:
        raise failure from error
    if not _reachable(builder_type.DOWNLOAD):
        raise failure
    log(f'downloading {builder_type.name} from {builder_type.DOWNLOAD}')
    manager = tfds.download.DownloadManager(
        download_dir=folder, url_infos=builder_type.url_infos, dataset_name=builder_type.name
    )
    try:
        archive = manager.download(builder_type.DOWNLOAD)
    except Exception as error:  # requests, urllib3, promise and TFDS all have their own
        raise failure from error
    unpack(pathlib.Path(archive), unpacked)
    return unpacked

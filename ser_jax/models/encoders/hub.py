"""Names of pretrained weights: a folder, or a repository of the Hugging Face hub, which is downloaded once."""

import dataclasses
import errno
import os
import re
from pathlib import Path

from ser_jax.models.encoders.weights import (
    CONFIG,
    CTRANSLATE2,
    INDEX,
    PICKLE,
    PREPROCESSOR,
    SINGLE,
    no_weights,
    shards,
)
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import local_path

FOLDER_VARIABLE = 'SER_JAX_ENCODER'
_NAME = re.compile(
    r'(?P<name>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\w[\w.-]*(/\w[\w.-]*)*))?', re.ASCII
)
_SHARD = re.compile(r'model-\d+-of-\d+\.safetensors')
_TIMEOUT = 30.0  # seconds for the list of a repository's files


@dataclasses.dataclass(frozen=True)
class Resolved:
    """Where weights lie.

    Attributes:
        folder: folder of the files.
        name: the requested name.
        revision: commit of the hub repository, 40 hexadecimal digits; '' for a folder.
    """

    folder: Path
    name: str
    revision: str


def resolve(weights: str | Path) -> Resolved:
    """Finds weights, and downloads them unless they are in the cache that all Hugging Face libraries share.

    What is in the cache is not looked up again: `owner/name` stays at the commit that was downloaded. Only encoder formats that
    `read_checkpoint` reads are downloaded.

    Args:
        weights: an existing folder; or a hub name, `owner/name` or `owner/name@revision` (branch, tag or commit). For a hub name
            the environment variable `SER_JAX_ENCODER`, if set, names the folder to use instead.

    Raises:
        UserError: no such folder, repository or revision; no access or no network; or no weights in a supported format.
    """
    text = os.fspath(weights)
    folder = local_path(text)
    if folder.is_dir():
        return Resolved(folder, text, '')
    match = _NAME.fullmatch(text)
    if folder.exists():
        raise UserError(f'{text} is a file: name its folder')
    if not match:
        raise UserError(
            f'{text} is neither a folder nor a Hugging Face name (owner/name or owner/name@revision)'
        )
    if own := os.environ.get(FOLDER_VARIABLE):
        if not local_path(own).is_dir():
            raise UserError(f'{FOLDER_VARIABLE} is {own}, which is not a folder')
        return Resolved(local_path(own), text, '')
    folder = _find(match['name'], match['revision'])
    return Resolved(folder, text, folder.name)


def _find(name: str, revision: str | None) -> Path:
    """The folder of a repository in the cache, after downloading what is missing."""
    from huggingface_hub import errors  # slow; reads the environment when it is imported

    network = (OSError, errors.HTTPError, ValueError)  # ValueError: an answer that is not the hub's
    cached = None
    try:
        cached, whole = _cached(name, revision)
        return cached if whole else _download(name, revision)
    except network as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        if cached is not None:
            return cached
        raise UserError(_explain(error, name, revision)) from error


def _cached(name: str, revision: str | None) -> tuple[Path | None, bool]:
    """Looks for a repository in the cache.

    Returns:
        (folder or None, whether nothing can be missing): other programs may not have downloaded `preprocessor_config.json`.
    """
    from huggingface_hub import try_to_load_from_cache

    find = lambda file: try_to_load_from_cache(name, file, revision=revision)
    found = [path for file in (SINGLE, INDEX, CTRANSLATE2) if isinstance(path := find(file), str)]
    if not found:
        return None, False
    folder = Path(found[0]).parent
    if Path(found[0]).name == CTRANSLATE2:
        return folder, True
    needed = {CONFIG}
    if Path(found[0]).name == INDEX:
        needed |= set(shards(folder / INDEX).values())
    if not all((folder / file).exists() for file in needed):
        return None, False
    return folder, find(
        PREPROCESSOR
    ) is not None  # a path, or known to be missing in the repository


def _download(name: str, revision: str | None) -> Path:
    """Downloads the files of one format, and no others, into the cache; returns their folder there."""
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().model_info(name, revision=revision, timeout=_TIMEOUT)
    names = [file.rfilename for file in info.siblings or ()]
    formats = [
        [SINGLE],
        [INDEX, *filter(_SHARD.fullmatch, names)],
        [CTRANSLATE2],
    ]
    chosen = next((files for files in formats if files[0] in names), None)
    if chosen is None:
        fetch = f'hf download {name} {CONFIG} {PREPROCESSOR} {PICKLE} --local-dir DIR, then '
        raise UserError(f'{name} on the Hugging Face hub {no_weights(names, "DIR", fetch)}')
    folder = snapshot_download(
        name, revision=revision, allow_patterns=[CONFIG, PREPROCESSOR, *chosen]
    )
    return Path(folder)


def _explain(error: Exception, name: str, revision: str | None) -> str:
    """One line on a download that failed: what, where, and the remedy."""
    from huggingface_hub import constants, errors

    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    hub, full = constants.ENDPOINT, f'{name}@{revision}' if revision else name
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in chain):
        return (
            f'{full} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids downloading it: unset it, '
            f'or name a folder by {FOLDER_VARIABLE}'
        )
    if isinstance(error, errors.HFValidationError):
        return f'{name} is no Hugging Face name: {error}'
    if isinstance(error, errors.GatedRepoError):
        return f'{name} is gated: accept its conditions on its page at {hub}, then log in with hf auth login'
    if isinstance(error, errors.RepositoryNotFoundError):
        return f'no repository {name} at {hub}; for a private one log in with hf auth login'
    if isinstance(error, errors.RevisionNotFoundError):
        return f'{name} has no revision {revision}'
    if isinstance(error, errors.HfHubHTTPError):
        reason = f'HTTP status {error.response.status_code}'
    else:
        reason = f'{type(chain[-1]).__name__}: ' + ' '.join(str(chain[-1]).split())[:200]
    return (
        f'cannot download {full} from {hub} ({reason}): check the network and start again, '
        f'or name a folder by {FOLDER_VARIABLE}'
    )

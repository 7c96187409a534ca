"""Users unknown to the system, as in containers started with `docker run -u NUMBER`: a name and a home directory."""

import os
import sys


def provide_user() -> None:
    """Gives an unknown user its number as name, and a temporary folder as HOME unless it has a writable one.

    Caches lie below HOME, also those of TFDS, Hugging Face and JAX. etils, below TFDS, asks for the owner of files that it has
    written, and fails without a name.
    """
    try:
        import grp
        import pwd
    except ImportError:  # Windows
        return
    uid, gid = os.getuid(), os.getgid()
    try:
        pwd.getpwuid(uid)
    except KeyError:
        home = os.environ.get('HOME', '')
        # .cache may be a mounted volume.
        if not any(os.access(folder, os.W_OK) for folder in (home, os.path.join(home, '.cache'))):
            os.environ['HOME'] = home = _temporary(uid)
            print(
                f'warning: user {uid} has no home directory: caches and prepared corpora go to {home}; set HOME to keep them',
                file=sys.stderr,
            )
        entry = pwd.struct_passwd((str(uid), 'x', uid, gid, '', home, ''))
        pwd.getpwuid = _adding(pwd.getpwuid, uid, entry)
    try:
        grp.getgrgid(gid)
    except KeyError:
        grp.getgrgid = _adding(grp.getgrgid, gid, grp.struct_group((str(gid), 'x', gid, [])))


def _adding(look_up, number, entry):
    return lambda wanted: entry if wanted == number else look_up(wanted)


def _temporary(uid: int) -> str:
    """The user's own folder for temporary files, the same for every command."""
    import tempfile  # slow to import

    folder = os.path.join(tempfile.gettempdir(), f'ser_jax-{uid}')
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder if os.stat(folder).st_uid == uid else tempfile.mkdtemp()

"""Files of the Hugging Face Hub: fetched by its own client into its own cache, and a folder put
there. `HF_HUB_OFFLINE=1` takes what the cache holds; `HF_ENDPOINT` and `HF_TOKEN` are the client's.
"""

import contextlib
import pathlib
import re
from typing import NamedTuple

from re2pix_jax.errors import UserError

PREFIX = 'hf:'
FORM = '"hf:owner/repo", with "@revision", "/folder" or ":file" after it'
BESIDE = ('config.json', 'preprocessor_config.json')
_REFERENCE = re.compile(
    r'hf:(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?'
    r'(?P<folder>(/[^:]*)?)(:(?P<file>.+))?'
)


class Reference(NamedTuple):
    """What "hf:owner/repo@revision/folder:file" names; all after the repository may be absent.

    Attributes:
        repository: 'owner/repo'.
        revision: branch, tag or commit; None means the main branch.
        folder: inside the repository, '' for all of it.
        file: inside the folder, '' for all of it.
    """

    repository: str
    revision: str | None
    folder: str
    file: str

    def __str__(self):
        revision = f'@{self.revision}' if self.revision else ''
        folder, file = (f'/{self.folder}' if self.folder else ''), (self.file and f':{self.file}')
        return f'{PREFIX}{self.repository}{revision}{folder}{file}'


def parse(reference: str) -> Reference:
    """Takes a reference apart.

    Raises:
        UserError: it is none.
    """
    found = _REFERENCE.fullmatch(reference.rstrip('/'))
    if not found or '..' in reference.split('/'):
        raise UserError(f'{reference}: expected {FORM}')
    return Reference(
        found['repository'], found['revision'], found['folder'].strip('/'), found['file'] or ''
    )


def fetch(reference: str, patterns: list[str] | None = None) -> pathlib.Path:
    """What a reference names, as a path on this machine.

    Args:
        reference: see `Reference`; of a file, the configs beside it come along.
        patterns: which files of the repository or folder are wanted, as in ["*.safetensors"]; None
            for all of the repository, since the parts of a bundle may lie beside it.

    Raises:
        UserError: the client is not installed, the reference is none, or the hub cannot be reached
            or has no such file.
    """
    asked = parse(reference)
    folder = pathlib.PurePosixPath(asked.folder)
    if asked.file:
        file = pathlib.PurePosixPath(asked.file)
        patterns = [asked.file, *(str(file.with_name(name)) for name in BESIDE)]
    patterns = patterns and [str(folder / pattern) for pattern in patterns]
    with _answering(reference, 'fetched from', 'download it elsewhere and pass the path') as client:
        snapshot = client.snapshot_download(
            asked.repository, revision=asked.revision, allow_patterns=patterns
        )
    path = pathlib.Path(snapshot, folder, asked.file)
    if not path.exists():
        raise UserError(
            f'{reference}: the repository has no {path.relative_to(snapshot)}: check the name, or '
            'download it elsewhere and pass the path'
        )
    return path


def pinned(reference: str) -> str:
    """The reference with the commit that its files were fetched at in place of a branch or tag; any
    other text as it is.
    """
    if not reference.startswith(PREFIX):
        return reference
    asked = parse(reference)
    fetched = fetch(reference)
    # .../models--owner--repo/snapshots/<commit>/...
    after = fetched.parts[fetched.parts.index('snapshots') + 1 :]
    return str(asked._replace(revision=after[0])) if after else reference


def upload(folder: pathlib.Path, reference: str, private: bool, message: str) -> str:
    """Makes the repository, if there is none, and puts the files of a folder into it, in one
    commit; files of the hub that the folder lacks go, but for those that git needs.

    Large files travel first, each by itself: given again after an interruption, only those travel
    that the hub does not have.

    Args:
        folder: what to put there.
        reference: "hf:owner/repo", with "@branch" where it is not main.
        private: whether a repository that is made is private.
        message: of the commit.

    Returns:
        The reference, with the commit.

    Raises:
        UserError: the client is not installed, the reference names a folder or file, or the hub
            refuses.
    """
    asked = parse(reference)
    if asked.folder or asked.file:
        raise UserError(
            f'{reference}: expected a whole repository to put a bundle into, hf:owner/repo'
        )
    with _answering(reference, 'put on', 'give the same command again to go on') as client:
        api = client.HfApi()
        api.create_repo(asked.repository, private=private, exist_ok=True)
        if asked.revision:
            api.create_branch(asked.repository, branch=asked.revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=asked.repository,
            folder_path=folder,
            revision=asked.revision,
            commit_message=message,
            delete_patterns='*',
        )
    return str(asked._replace(revision=commit.oid))


def client(reference: str):
    """The package that speaks to the hub.

    Raises:
        UserError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f'{reference}: needs the huggingface_hub package: pip install "re2pix_jax[hub]"'
        ) from error
    return huggingface_hub


@contextlib.contextmanager
def _answering(reference, done, hint):
    """The client; what it says against the reference is a UserError of one line."""
    huggingface_hub = client(reference)
    from huggingface_hub import errors

    asked = parse(reference)
    try:
        yield huggingface_hub
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f'{reference}: {asked.repository} has no revision {asked.revision}: give a branch, tag '
            'or commit of it'
        ) from error
    except errors.GatedRepoError as error:
        raise UserError(
            f'{reference}: its owner grants access one by one: ask for it on the page of '
            f'{asked.repository} and set HF_TOKEN'
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f'{reference}: the hub shows no repository {asked.repository}: check the name, or set '
            'HF_TOKEN if it is private'
        ) from error
    # The client raises errors of its own, of its HTTP library and of the file system.
    except Exception as error:
        if isinstance(error, UserError):
            raise
        text = str(error).strip().split('\n')[0] or type(error).__name__
        raise UserError(
            f'{reference}: could not be {done} the Hugging Face Hub ({text}): check the name and '
            f'the network, or {hint}'
        ) from error

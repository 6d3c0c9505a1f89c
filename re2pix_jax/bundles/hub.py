"""Files of the Hugging Face Hub, fetched by its own client into its own cache."""

import pathlib

from re2pix_jax.errors import UserError

PREFIX = 'hf:'
BESIDE = ('config.json', 'preprocessor_config.json')


def fetch(reference: str, patterns: list[str] | None = None) -> pathlib.Path:
    """What "hf:owner/repo", "hf:owner/repo/folder" or either with ":file" names, as a path on this
    machine.

    Args:
        reference: as above; of a file, the configs beside it come along.
        patterns: which files of the repository or folder are wanted, as in ["*.safetensors"]; None
            for all of the repository, since the parts of a bundle may lie beside it.

    Raises:
        UserError: the client is not installed, the reference is none, or the hub cannot be reached
            or has no such file.
    """
    hint = 'or download it elsewhere and pass the path'
    name, _, file = reference.removeprefix(PREFIX).strip('/').partition(':')
    owner, repository, *inside = [*name.split('/'), ''] if '/' not in name else name.split('/')
    if not owner or not repository:
        raise UserError(f'{reference}: expected "hf:owner/repo" or "hf:owner/repo:file", {hint}')
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f'{reference}: needs the huggingface_hub package: pip install huggingface_hub, {hint}'
        ) from error
    folder = pathlib.PurePosixPath(*inside)
    if file:
        patterns = [file, *(str(pathlib.PurePosixPath(file).with_name(name)) for name in BESIDE)]
    patterns = patterns and [str(folder / pattern) for pattern in patterns]
    try:
        snapshot = huggingface_hub.snapshot_download(
            f'{owner}/{repository}', allow_patterns=patterns
        )
    # The hub's client raises errors of its own, of its HTTP library and of the file system.
    except Exception as error:
        message = str(error).strip().split('\n')[0] or type(error).__name__
        raise UserError(
            f'{reference}: could not be fetched from the Hugging Face Hub ({message}): check the '
            f'name and the network, {hint}'
        ) from error
    path = pathlib.Path(snapshot, folder, file)
    if not path.exists():
        raise UserError(
            f'{reference}: the repository has no {path.relative_to(snapshot)}: check the name, '
            f'{hint}'
        )
    return path

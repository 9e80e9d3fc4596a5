"""Files in a folder or a bucket."""

from fsspec import AbstractFileSystem


def write(files: AbstractFileSystem, path: str, data: bytes) -> None:
    """Write a file whole or not at all; its folder is made."""
    files.makedirs(files._parent(path), exist_ok=True)
    temporary = f"{path}.part"
    files.pipe_file(temporary, data)
    files.mv(temporary, path)

"""Write files and folders whole or not at all: under a temporary name, then moved into place."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from pointrend_deploy.errors import DeployError


def partial_name(path: Path) -> Path:
    """Make a new hidden name beside ``path``, on the same file system so that a move is atomic.

    The name contains the number of this process, so that files left by a killed process can be
    found and removed.
    """
    return path.with_name(f".{path.name}.partial-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}")


@cache
def _machine() -> str:
    """Identify the machine or container whose process numbers this process shares, in 8 digits."""
    said = platform.node()
    with suppress(OSError):
        said += Path("/proc/sys/kernel/random/boot_id").read_text()
        said += str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(said.encode()).hexdigest()[:8]


def clear_left_over(path: Path) -> None:
    """Remove temporary files for ``path`` that ended processes of this machine left behind."""
    start = f".{path.name}.partial-{_machine()}-"
    for other in path.parent.iterdir():
        number = other.name.removeprefix(start).split("-")[0]
        if other.name.startswith(start) and number.isdigit() and not _alive(int(number)):
            remove(other)


def _alive(process: int) -> bool:
    """Whether a process of this number exists; True where that cannot be found out."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path, for a file or a folder, and move it to ``path`` at the end.

    An existing folder is kept until the new one is complete; leftovers of killed processes are
    removed as well. On any error the temporary is removed and ``path`` stays as it was.

    Args:
        path: to be replaced; its folder is made where it is missing.

    Raises:
        DeployError: an ``OSError`` inside the block or in the move (full disk, no permission).
    """
    path = Path(path).resolve()  # through a link, so that the link stays and its target changes
    temporary = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and path.exists():
            _swap_folder(temporary, path)
        else:
            os.replace(temporary, path)
        if path.is_dir():
            with suppress(OSError):  # only leftovers: the folder itself is in place
                clear_left_over(path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise DeployError(
            f"cannot write {path}: {error.strerror or error}",
            f"{'free some space or choose' if full else 'choose'} another place; "
            "nothing that was there has changed",
        ) from error
    finally:
        remove(temporary)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for one writer; another one waits until the block ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def replace_together(files: Mapping[Path, bytes], between: Callable[[], None]) -> None:
    """Replace several files of one file system after all of them are safely on disk.

    Args:
        files: contents by path.
        between: called when every temporary file is written and none is in place yet.

    Raises:
        DeployError: a temporary file cannot be written; then nothing has changed.
    """
    with ExitStack() as stack:
        for path, data in files.items():
            _write_to_disk(stack.enter_context(replacing(path)), data)
        between()


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises DeployError where that fails."""
    with replacing(path) as temporary:
        _write_to_disk(temporary, data)


def write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all. Raises DeployError where that fails."""
    write_bytes(path, text.encode())


def _write_to_disk(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Remove a file or folder if it exists and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _swap_folder(new: Path, path: Path) -> None:
    old = partial_name(path)
    os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(old, path)
        raise
    remove(old)

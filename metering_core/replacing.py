"""Files that are whole or not there: written beside their place, and moved into it in one step."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from metering_core.errors import CatalogError, ErrorCode


@contextlib.contextmanager
def replacing(path: Path, param: str) -> Iterator[Path]:
    """Yield a path to write to, of the same extension; what is there at the end takes the place of
    ``path`` in one step.

    Who is killed while writing, or fails, leaves what stood there before. A device, such as
    ``/dev/stdout``, is written itself.

    Args:
        path: where the file belongs.
        param: what named it, as a refusal says.

    Raises:
        CatalogError: ``file_unwritable``.
    """
    beside: Path | None = None
    try:
        if "\0" in str(path):
            raise OSError(0, "a path holds no NUL")
        if path.exists() and not path.is_file() and not path.is_dir():
            yield path
            return
        place = path.resolve()
        handle, name = tempfile.mkstemp(path.suffix, f".{path.stem[:40]}-", place.parent)
        beside = Path(name)
        os.close(handle)
        yield beside
        beside.chmod(_rights(place))
        beside.replace(place)
    except OSError as error:
        reason = f"cannot be written: {error.strerror or error}"
        raise CatalogError.of_file(
            param, str(path), reason, code=ErrorCode.FILE_UNWRITABLE
        ) from None
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def _rights(place: Path) -> int:
    """Return the rights of the file that is replaced, or those that a new one has."""
    if place.exists():
        return place.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask

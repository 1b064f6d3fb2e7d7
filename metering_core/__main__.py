"""``metering-core`` and ``python -m metering_core``: the command line, or which extra it lacks."""

from __future__ import annotations

import sys

from metering_core.errors import MissingExtraError


def main() -> int:
    """Run the command line and return its exit status; 2, with the extra to install, where it is
    not installed.
    """
    try:
        import cyclopts  # noqa: F401, PLC0415 - the core is used without it
    except ModuleNotFoundError as error:
        if error.name != "cyclopts":
            raise
        print(
            f"metering-core: {MissingExtraError.for_extra('cli', 'the command line')}",
            file=sys.stderr,
        )
        return 2
    from metering_core.cli.app import main  # noqa: PLC0415 - it needs the extra

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

"""What this package's command lines share: an output that nobody takes ends in one message."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import click


class CommandGroup(click.Group):
    """Commands of one program, which end well where stdout is a full disk."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as err:
            # Commands handle their own errors; here it is help, a version, or what a command prints.
            fail_of_system(err, 1, kwargs.get("prog_name") or self.name)


def fail_of_system(err: OSError, code: int, program: str | None) -> NoReturn:
    """Ends with the message of an error that stdout, a file or a directory has had."""
    write_no_more()
    what = str(err) if err.filename else f"cannot write: {err.strerror or err}"
    click.echo(f"{program}: {what}", err=True)
    raise SystemExit(code)


def write_no_more() -> None:
    """Python would complain once more when it flushes stdout at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

"""The command `shell`: a terminal where an instance is."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import termios
import threading
import tty
from collections.abc import Iterator, Sequence
from typing import Any

import click

from executors.cli.common import (
    RUN_FAILED,
    cluster_options,
    config_of,
    find,
    guarded,
    instance_argument,
    lifecycle_of,
    write_all,
)
from executors.config import RunConfig
from executors.errors import ExecutorsError, ProvisionError

#: Seconds of silence after which the stream is looked at again; nothing depends on it.
_LOOK = 60.0
_PIECE = 64 * 1024


@click.command()
@instance_argument
@click.argument("argv", nargs=-1, type=click.UNPROCESSED)
@cluster_options
@guarded
def shell(instance: str, argv: tuple[str, ...], **options: Any) -> None:
    """Open a shell beside the instance's lead broker, with FLUX_URI set.

    With ARGV it runs that command instead. Put options before ARGV, and -- between them: `shell hello -- flux jobs -a`.
    On Kubernetes, INSTANCE may be any MiniCluster of the namespace. The exit code is that of the shell or command. A
    shell does not keep the instance alive.
    """
    config = config_of(options)
    try:
        found = find(config, instance)
    except ProvisionError:
        if config.run.provisioner not in ("direct", "operator"):
            raise
        # One that somebody has applied is not ours.
        raise SystemExit(_in_pod(config, instance, argv)) from None
    if found.namespace:
        raise SystemExit(_in_pod(config, found.name, argv))
    info = lifecycle_of(config, found).observe()
    if not info["uri"]:
        raise ProvisionError(f"{found.name}: it runs the embedded engine, so there is no Flux to talk to")
    words = argv or (os.environ.get("SHELL") or "sh",)
    try:
        os.execvpe(words[0], words, {**os.environ, "FLUX_URI": info["uri"]})
    except OSError as err:
        click.echo(f"{words[0]}: {err.strerror}", err=True)
        raise SystemExit(127 if isinstance(err, FileNotFoundError) else 126) from None


def _in_pod(config: RunConfig, name: str, argv: tuple[str, ...]) -> int:
    from executors.provision.kubernetes.lead import lead_of
    from executors.transport.pod_exec import PodTerminal

    looks = os.isatty(0) and os.isatty(1)
    endpoint = lead_of(config, name, argv, terminal=shutil.get_terminal_size() if looks else None)
    try:
        with _raw() if looks else contextlib.nullcontext():
            terminal = PodTerminal(endpoint, lambda piece: write_all(2, piece))
            try:
                with _typing(terminal, looks):
                    while (piece := terminal.receive(_LOOK)) != b"":
                        write_all(1, piece or b"")
                return terminal.exit_code()
            finally:
                terminal.close()
    except OSError as err:
        click.echo(f"{name}: {err}", err=True)
        return RUN_FAILED


@contextlib.contextmanager
def _typing(terminal: Any, looks: bool) -> Iterator[None]:
    """What is typed, and the size of the window, go to the terminal."""
    # A signal's handler may not send: it runs wherever the main thread is, which may be in the middle of it.
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    before = signal.signal(signal.SIGWINCH, lambda *_: _told(waker)) if looks else None

    def forward() -> None:
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(wake, select.POLLIN)
        with contextlib.suppress(OSError, ExecutorsError):  # it has ended, which the main thread sees
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if wake in ready:
                    if not os.read(wake, 64):
                        return
                    terminal.resize(*shutil.get_terminal_size())
                if 0 in ready:
                    data = os.read(0, _PIECE)
                    if not data:
                        terminal.end_input()
                        poll.unregister(0)
                    else:
                        terminal.send(data)

    thread = threading.Thread(target=forward, name="typing", daemon=True)
    thread.start()
    if looks:
        _told(waker)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGWINCH, before)
        os.close(waker)
        thread.join(1.0)
        # Else it is sending to a pod that reads no more, and ends with the process.
        if not thread.is_alive():
            os.close(wake)


def _told(waker: int) -> None:
    with contextlib.suppress(BlockingIOError):  # it knows
        os.write(waker, b"s")


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Keys go to the program there, Ctrl-C too."""
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # what was typed already is kept
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


COMMANDS: Sequence[click.Command] = (shell,)

"""The agent's command line: ``serve``, ``supervise`` (serve, kept alive) and ``relay``.

Each command imports what it needs when it runs: the supervisor and the relay start while everybody waits for the agent,
and what only the agent needs would take most of their time.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional

if TYPE_CHECKING:
    from .engine import Engine
    from .server import Server


def main(argv: Optional[List[str]] = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["supervise"]:  # with what `serve` takes, which checks it
        from . import holding, supervisor

        if "--directory" in words:
            holding.hold(words[words.index("--directory") + 1])
        return supervisor.supervise(supervisor.agent_command(["serve", *words[1:]]), "--guest" in words)
    import argparse

    parser = argparse.ArgumentParser(prog="agent", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("serve")
    command.add_argument("--directory", required=True, help="private directory of this run")
    command.add_argument("--run", required=True, help="name of the run")
    command.add_argument("--engine", choices=["flux", "embedded"], required=True)
    command.add_argument("--idle-timeout", type=float, default=300.0, metavar="SECONDS")
    command.add_argument("--orphan-timeout", type=float, default=3600.0, metavar="SECONDS")
    command.add_argument("--notify", default="", metavar="SOCKET", help="report there once, when ready or refusing")
    command.add_argument(
        "--in-pod", action="store_true", help="jobs inherit this container's environment; files are not shared"
    )
    command.add_argument("--without-env", action="append", default=[], metavar="NAME", help="not inherited")
    command.add_argument("--guest", action="store_true", help="the instance was not created by us")
    command.add_argument("--first", action="store_true", help="no agent was in this instance before this one")
    command.add_argument("--cores", type=int, default=0, help="cores of the embedded engine (default: all)")
    command.add_argument("--gpus", default="", help="GPU ids of the embedded engine, comma separated")
    sweeping = commands.add_parser("sweep")
    sweeping.add_argument("--directory", required=True, help="directory of a run whose instance has died")
    relaying = commands.add_parser("relay")
    relaying.add_argument("socket")
    relaying.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="for an agent that is starting")
    loading = commands.add_parser("secret")
    loading.add_argument("base")
    loading.add_argument("argv", nargs=argparse.REMAINDER)
    arguments = parser.parse_args(words)
    if arguments.command == "relay":
        from .relay import relay

        return relay(arguments.socket, arguments.wait)
    if arguments.command == "secret":
        from .secret_service import load  # needs Flux's bindings

        return load(arguments.base, arguments.argv)
    if arguments.command == "sweep":
        from .sweeping import sweep

        return sweep(arguments.directory)
    return serve(arguments)


def serve(arguments: Any) -> int:
    import asyncio
    import fcntl
    import logging

    from . import holding
    from .engine import EngineError
    from .supervisor import REFUSED

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s agent[%(process)d] %(message)s")
    os.makedirs(arguments.directory, mode=0o700, exist_ok=True)
    holding.hold(arguments.directory)
    lock = os.open(os.path.join(arguments.directory, "agent.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # one agent at a time: the kernel frees it when the other is gone
    try:
        return asyncio.run(_serve(arguments))
    except EngineError as err:
        print("agent: %s" % err, file=sys.stderr)
        _notify(arguments.notify, {"code": err.code, "message": str(err)})
        return REFUSED


async def _serve(arguments: Any) -> int:
    import asyncio
    import logging
    import signal

    from . import launch
    from .server import Server, Settings

    settings = Settings(
        arguments.run,
        arguments.directory,
        arguments.idle_timeout,
        arguments.orphan_timeout,
        arguments.guest,
        launch.base_environment(os.environ, arguments.without_env) if arguments.in_pod else None,
    )
    holder: List[Server] = []
    server = Server(_engine(arguments, holder), settings)
    holder.append(server)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        name = signal.Signals(signum).name
        loop.add_signal_handler(signum, _stop_soon, server, name)
    socket_path = os.path.join(arguments.directory, "agent.sock")
    await server.start(socket_path)
    logging.info("listening as %s engine, instance %s", server.engine.name, server.instance)
    if not _notify(arguments.notify, {"ready": True}) and (arguments.first or arguments.engine == "embedded"):
        server.unwanted()
    await server.done.wait()
    try:
        os.unlink(socket_path)
    except FileNotFoundError:
        pass
    return server.exit_code


def _stop_soon(server: Server, name: str) -> None:
    import asyncio

    asyncio.ensure_future(server.stop("got %s" % name, told=True))


def _engine(arguments: Any, holder: List[Server]) -> Engine:
    if arguments.engine == "flux":
        try:
            from .flux_engine import FluxEngine  # needs Flux's bindings, which only Flux's own Python has
        except ImportError as err:
            from .engine import EngineError

            text = "the Flux here is too old, or broken: 0.68 or newer is needed (%s)" % err
            raise EngineError(text, "not-possible") from err

        return FluxEngine(
            arguments.run,
            arguments.directory,
            lambda reason: holder[0].lost(reason),
            arguments.guest,
            everywhere=arguments.in_pod,
            first=arguments.first,
        )
    from .embedded_engine import EmbeddedEngine

    spool = os.path.join(arguments.directory, "spool")
    os.makedirs(spool, mode=0o700, exist_ok=True)
    gpus = [int(word) for word in arguments.gpus.split(",") if word]
    if arguments.cores > 0:
        return EmbeddedEngine(cores=arguments.cores, gpus=gpus, spool=spool)
    return EmbeddedEngine(gpus=gpus, spool=spool)


def _notify(path: str, notice: Dict[str, Any]) -> bool:
    """Tell whoever started this agent how it went. False: nobody listens there (any more, after a restart)."""
    import json
    import logging
    import socket

    if not path:
        return True
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            connection.sendall(json.dumps(notice).encode() + b"\n")
        except OSError:
            logging.info("nobody waits for this agent at %s", path)
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())

"""The agent's command line: ``serve``, ``supervise`` (serve, kept alive) and ``relay``.

Each command imports what it needs when it runs: the supervisor and the relay start while everybody waits for the agent,
and what only the agent needs would take most of their time.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

if TYPE_CHECKING:
    from .engine import Engine
    from .protocol.server import Server


def main(argv: Optional[List[str]] = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["supervise"]:  # with what `serve` takes, which checks it
        from .instance import lock, supervisor

        if "--directory" in words:
            lock.hold(words[words.index("--directory") + 1])
        return supervisor.supervise(supervisor.agent_command(["serve", *words[1:]]), "--guest" in words)
    if words[:1] == ["hold"]:  # one for each core: it imports next to nothing
        from .pilot.holder import hold

        return hold(words[1], [int(word) for word in words[2:]])
    import argparse

    parser = argparse.ArgumentParser(
        prog="agent", description="The program beside a Flux instance, or with the embedded engine."
    )
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
    command.add_argument("--guest", action="store_true", dest="attached", help="the instance was not created by us")
    command.add_argument("--first", action="store_true", help="no agent was in this instance before this one")
    command.add_argument("--cores", type=int, default=0, help="cores of the embedded engine (default: all)")
    command.add_argument("--gpus", default="", help="GPU ids of the embedded engine, comma separated")
    command.add_argument("--pilot", choices=["auto", "on", "off"], default="off", help="see docs/engines.md")
    piloting = commands.add_parser("pilot")
    piloting.add_argument("--suffix", required=True, help="name of the run's pilots")
    piloting.add_argument("--spool", default="", help="for output, where all nodes share it")
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
        from .protocol.relay import relay

        return relay(arguments.socket, arguments.wait)
    if arguments.command == "secret":
        from .flux.secret_service import load  # needs Flux's bindings

        return load(arguments.base, arguments.argv)
    if arguments.command == "pilot":
        from .pilot.node import main as run_pilot

        return run_pilot(arguments.suffix, arguments.spool)
    if arguments.command == "sweep":
        from .instance.sweep import sweep

        return sweep(arguments.directory)
    return serve(arguments)


def serve(arguments: Any) -> int:
    import asyncio
    import fcntl
    import logging

    from .engine import EngineError
    from .instance.exit_codes import REFUSED
    from .instance.lock import hold

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s agent[%(process)d] %(message)s")
    os.makedirs(arguments.directory, mode=0o700, exist_ok=True)
    hold(arguments.directory)
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

    from .environment import base_environment
    from .protocol.server import AgentSettings, Server

    settings = AgentSettings(
        arguments.run,
        arguments.directory,
        arguments.idle_timeout,
        arguments.orphan_timeout,
        arguments.attached,
        base_environment(os.environ, arguments.without_env) if arguments.in_pod else None,
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

    from .engine import EndReason

    asyncio.ensure_future(server.stop("got %s" % name, EndReason.SIGNAL))


def _engine(arguments: Any, holder: List[Server]) -> Engine:
    if arguments.engine == "flux":
        try:
            from .flux.engine import FluxEngine  # needs Flux's bindings, which only Flux's own Python has
        except ImportError as err:
            from .engine import EngineError

            text = "the Flux here is too old, or broken: 0.68 or newer is needed (%s)" % err
            raise EngineError(text, "not-possible") from err

        def flux_engine(observe: Optional[Callable[[Any], None]] = None) -> FluxEngine:
            return FluxEngine(
                arguments.run,
                arguments.directory,
                lambda reason: holder[0].lost(reason),
                arguments.attached,
                files_are_local_to_lead=arguments.in_pod,
                is_first_agent=arguments.first,
                observe=observe,
            )

        is_auto = arguments.pilot == "auto"
        if arguments.pilot == "off" or (is_auto and arguments.attached):
            return flux_engine()
        try:
            from .pilot.engine import PilotEngine
        except ImportError as err:
            text = "run.pilot: the Flux here is too old: %s" % err
            if is_auto:
                import logging

                logging.getLogger("agent").info("%s; Flux runs all jobs", text)
                return flux_engine()
            from .engine import EngineError

            raise EngineError(text, "not-possible") from err

        return PilotEngine(flux_engine, arguments.run, arguments.directory, arguments.in_pod, is_auto)
    from .embedded.engine import EmbeddedEngine

    spool = os.path.join(arguments.directory, "spool")
    os.makedirs(spool, mode=0o700, exist_ok=True)
    gpus = [int(word) for word in arguments.gpus.split(",") if word]
    if arguments.cores > 0:
        return EmbeddedEngine(cores=arguments.cores, gpus=gpus, spool=spool)
    return EmbeddedEngine(gpus=gpus, spool=spool)


def _notify(path: str, notice: Dict[str, Any]) -> bool:
    """Tell the process that started this agent how it went. False: nobody listens there (any more, after a restart)."""
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

"""What Flux's job shell does for a job before its tasks begin, where our files are on every node: a text of its initrc.

Flux's shell can be programmed in Lua (flux-shell-initrc(5)); a job names a text of ours by the option ``userrc``. With
it, and without any process more, a job under Flux is what it is on the embedded engine:

* a working directory that is not there is an error, where Flux would run the job in /tmp;
* the tasks write to their files themselves. So a full disk is an error of the program that writes, a path with braces
  is no template, and a job is over when its tasks are, whatever they have left in the background;
* stdin is empty, where Flux would have the job wait for input that nobody sends;
* a secret environment reaches the tasks whatever its variables are called, since no shell reads it.

A job that asks for a terminal or for outputs of another kind keeps Flux's ways for its streams.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

OPTION = "fxo"
NAME = "shell.lua"

_TEXT = r"""
local fcntl, unistd = require "posix.fcntl", require "posix.unistd"
local our = shell.options.fxo
local output = fcntl.O_WRONLY + fcntl.O_CREAT + fcntl.O_APPEND + fcntl.O_NONBLOCK

-- Without the path before it, which may hold anything.
local function plain (reason) return (reason:gsub ("^.*: ", "")) end

local ok, reason = unistd.chdir (our.cwd)
if not ok then shell.die ("the working directory " .. our.cwd .. ": " .. plain (reason)) end

local paths = {}

local function open_outputs ()
    -- Flux's id begins with a florin sign where the locale has one.
    local id = shell.getenv ("FLUX_JOB_ID"):gsub ("^[^0-9A-Za-z]+", "f")
    for number, stream in ipairs { "stdout", "stderr" } do
        paths[number] = our[stream] or our.spool .. "/" .. id .. "." .. stream
    end
    -- The first of several shells; tasks begin when all of them are here.
    local flags = output
    if our.truncate and (not our.several or shell.info.rank == 0) then flags = flags + fcntl.O_TRUNC end
    for _, path in ipairs (paths) do
        -- Stays open here, so that whoever reads a FIFO does not find its end before the tasks write.
        local fd, reason = fcntl.open (path, flags, 438)
        if not fd then shell.die ("cannot open " .. path .. " for output: " .. plain (reason)) end
    end
end

local function put (path, flags, number)
    local fd, reason = fcntl.open (path, flags, 438)
    if not fd then
        io.stderr:write (path, ": ", reason, "\n")
        os.exit (126)
    end
    if fd ~= number then
        unistd.dup2 (fd, number)
        unistd.close (fd)
    end
end

plugin.register {
    name = "fxo",
    handlers = {
        { topic = "shell.init", fn = function ()
            if our.spool then open_outputs () end
            return true
        end },
        { topic = "task.init", fn = function ()
            if not our.secrets then return true end
            local path = our.secrets .. "." .. task.info.rank
            local file, reason = io.open (path, "rb")
            if not file then shell.die ("the secret environment of this job: " .. reason) end
            local text = file:read ("*a")
            file:close ()
            os.remove (path)
            for name, value in text:gmatch ("([^=%z]+)=([^%z]*)%z") do task.setenv (name, value) end
            return true
        end },
        { topic = "task.exec", fn = function ()
            if our.spool then
                put (paths[1], output, 1)
                if paths[2] == paths[1] then unistd.dup2 (1, 2) else put (paths[2], output, 2) end
            end
            if our.stdin then put ("/dev/null", fcntl.O_RDONLY, 0) end
            return true
        end },
    },
}

if our.userrc then source (our.userrc) end
"""

_NO_INPUT = {"type": "file", "path": "/dev/null"}


def write(directory: str) -> str:
    """The path of the text, made anew for this agent."""
    path = os.path.join(directory, NAME)
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as text:
        text.write(_TEXT)
    os.rename(path + ".new", path)  # a job of an agent before this one may be reading it
    return path


def spool_path(spool: str, job_id: str, stream: str) -> str:
    """Where a job's stream is that was sent to no file; ``job_id`` in its plain form."""
    return os.path.join(spool, "%s.%s" % (job_id, stream))


def prepare(spec: Dict[str, Any], tasks: int, text: str, spool: str, secrets: Optional[str]) -> bool:
    """Have Flux's shell do for this job what the module says; whether its output goes where `spool_path` says.

    ``secrets``: the base of the files that `launch.write_variables` makes.
    """
    system = spec["attributes"].setdefault("system", {})
    options: Dict[str, Any] = system.setdefault("shell", {}).setdefault("options", {})
    our: Dict[str, Any] = {"cwd": system.get("cwd", "/")}
    if secrets is not None:
        our["secrets"] = secrets
    if "userrc" in options:
        our["userrc"] = options["userrc"]
    plain = "pty" not in options
    if plain and _is_plain_input(options.get("input")):
        our["stdin"] = True
        options.pop("input", None)
    files = _files(options.get("output")) if plain else None
    if files is not None:
        our["spool"] = spool
        our.update(zip(("stdout", "stderr"), files))
        our = {name: value for name, value in our.items() if value is not None}
        if options.pop("output", {}).get("mode") != "append":
            our["truncate"] = True
        if _nodes(spec) > 1:
            our["several"] = True
    if tasks == 1 and "pmi" not in options and os.path.basename(str(spec["tasks"][0]["command"][0])) != "flux":
        # It has nobody to talk to by it, and whatever the task leaves in the background would hold its end of it open,
        # for which the shell waits. (An instance of Flux within the job learns by it that it is one.)
        options["pmi"] = "off"
    options["userrc"] = text
    options[OPTION] = our
    return files is not None


def _is_plain_input(value: Any) -> bool:
    return not value or value == {"stdin": _NO_INPUT}


def _files(output: Any) -> Optional[List[Optional[str]]]:
    """The paths of stdout and stderr, None for ours each; None where one of them is not just a file."""
    if not output:
        return [None, None]
    if not isinstance(output, dict) or not set(output) <= {"stdout", "stderr", "mode"}:
        return None
    paths: List[Optional[str]] = []
    for stream in ("stdout", "stderr"):
        one = output.get(stream)
        if one is None:
            # In Flux stderr goes where stdout goes unless it has a place of its own.
            paths.append(paths[0] if paths else None)
        elif isinstance(one, dict) and one.get("type") == "file" and set(one) == {"type", "path"}:
            paths.append(str(one["path"]))
        else:
            return None
    return paths


def _nodes(spec: Dict[str, Any]) -> int:
    first = spec["resources"][0]
    return int(first.get("count", 1)) if first.get("type") == "node" else 1

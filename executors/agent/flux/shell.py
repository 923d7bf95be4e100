"""What Flux's job shell does for a job before its tasks begin: a text of its initrc, which must be on every node.

Flux's shell can be programmed in Lua (flux-shell-initrc(5)); a job names our text by the option ``userrc``. With
it, and without any process more, a job under Flux is what it is on the embedded engine:

* a working directory that is not there is an error, where Flux would run the job in /tmp;
* the tasks write to their files themselves. So a full disk is an error of the program that writes, a path with braces
  is no template, and a job is over when its tasks are, whatever they have left in the background;
* stdin is empty, where Flux would have the job wait for input that nobody sends.

Where all nodes share the agent's directory (one machine), output that goes to no file of the job's is kept there too,
and a secret environment reaches the tasks whatever its variables are called, since no shell reads it.

A job that asks for a terminal or for outputs of another kind keeps Flux's ways for its streams. So does a job of
several tasks where nodes share no such directory: network file systems lose what several nodes append to one file. In
an image without lua-posix all jobs do, and only the working directory is looked at.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

OPTION = "fxo"
NAME = "shell.lua"

TEXT = r"""
local our = shell.options.fxo
local posix, fcntl = pcall (require, "posix.fcntl")
local unistd = posix and require "posix.unistd"
local output = posix and fcntl.O_WRONLY + fcntl.O_CREAT + fcntl.O_APPEND + fcntl.O_NONBLOCK

-- Without the path before it, which may hold anything.
local function plain (reason) return (reason:gsub ("^.*: ", "")) end

local ok, reason
if posix then
    ok, reason = unistd.chdir (our.cwd)
else
    ok, reason = io.open (our.cwd .. "/.")
    if ok then ok:close () else ok = reason:match "Permission denied$" end  -- it may let one in without a look
    if our.input then shell.options.input = our.input end
    if our.output then shell.options.output = our.output end
end
if not ok then shell.die ("the working directory " .. our.cwd .. ": " .. plain (reason)) end

if our.spool and not posix then
    shell.die ("lua-posix is not installed here, though Flux was built with it: output cannot be kept")
end

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
        -- Stays open here, so that the reader of a FIFO does not find its end before the tasks write.
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
            if posix and our.writes then open_outputs () end
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
            if not posix then return true end
            if our.writes then
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
    """The path of the text, made again for this agent."""
    path = os.path.join(directory, NAME)
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as text:
        text.write(TEXT)
    os.rename(path + ".new", path)  # a job of an agent before this one may be reading it
    return path


def spool_path(spool: str, job_id: str, stream: str) -> str:
    """Where a job's stream is that was sent to no file; ``job_id`` in its plain form."""
    return os.path.join(spool, "%s.%s" % (job_id, stream))


def prepare(spec: Dict[str, Any], tasks: int, text: str, spool: str, secrets: Optional[str]) -> bool:
    """Have Flux's shell do for this job what the module says; whether its tasks write to their files themselves.

    ``text``: the path of the text on every node. ``spool``: the directory for `spool_path`, "" where nodes share none.
    ``secrets``: the base of the files that `secrets.write_secrets` makes.
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
        if given := options.pop("input", None):
            our["input"] = given
    files = _files(options.get("output")) if plain and (spool or tasks == 1) else None
    writes = files is not None and (bool(spool) or None not in files)
    if files is not None and writes:
        our["writes"] = True
        our.update({name: path for name, path in zip(("stdout", "stderr"), files) if path is not None})
        if spool:
            our["spool"] = spool
        if given := options.pop("output", None):
            our["output"] = given
        if (given or {}).get("mode") != "append":
            our["truncate"] = True
        if _nodes(spec) > 1:
            our["several"] = True
    if tasks == 1 and "pmi" not in options and os.path.basename(str(spec["tasks"][0]["command"][0])) != "flux":
        # It has nobody to talk to by it, and whatever the task leaves in the background would hold its end of it open,
        # for which the shell waits. (An instance of Flux within the job learns by it that it is one.)
        options["pmi"] = "off"
    options["userrc"] = text
    options[OPTION] = our
    return writes


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

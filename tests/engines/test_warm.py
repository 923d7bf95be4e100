"""The warm step's server and client: a job's process is what its client was, and nothing of it outlives the client."""

from __future__ import annotations

import contextlib
import os
import pty
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from executors.agent import process_tree
from tests.engines.warm_servers import WHO, WarmServer, alive, descendants_of, line_of
from tests.support.waiting import wait_for

#: A program waits so for a handler of its own: none of Python's is told in signal.pause() of what came just before it.
UNTIL_IT_HEARS = "import time\nwhile True: time.sleep(0.05)\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WarmServer]:
    with WarmServer(tmp_path) as server:
        yield server


# -- what a job is


def test_a_job_has_its_clients_arguments_streams_directory_and_environment(server: WarmServer, tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    text = WHO + "import os; print(sys.argv[1:], os.getcwd(), os.environ['FLUX_JOB_ID'], os.environb[b'PWD'])\n"
    text += (
        "print(sys.stdin.read(), end=''); print('why', file=sys.stderr); print(os.popen('echo $FLUX_JOB_ID').read())"
    )
    process = server.start(
        text, "a'b", "\udcff", cwd=place, env={"FLUX_JOB_ID": "f1", "PWD": "\udcfe"}, stdin=subprocess.PIPE
    )
    out, err = process.communicate("said\n", timeout=60)
    assert out.splitlines() == ["forked", f"[\"a'b\", '\\udcff'] {place} f1 b'\\xfe'", "said", "f1", ""]
    assert (err, process.returncode) == ("why\n", 0)


def test_a_job_has_its_clients_limits_mask_cores_priority_and_ignored_signals(server: WarmServer) -> None:
    def differ() -> None:
        os.umask(0o027)
        resource.setrlimit(resource.RLIMIT_NOFILE, (77, 99))
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        os.nice(3)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])

    text = WHO + (
        "import os, resource, signal\n"
        "print(oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        "print(len(os.sched_getaffinity(0)), os.nice(0))\n"
        "print([signal.getsignal(n).name for n in (10, 15)], signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
        "print(signal.getsignal(2) is signal.default_int_handler)\n"
    )
    done = server.run(text, preexec_fn=differ)
    assert done.stdout.splitlines() == [
        "forked",
        "0o27 (77, 99)",
        f"1 {os.nice(0) + 3}",
        f"['SIG_IGN', 'SIG_DFL'] {{{signal.SIGUSR2!r}}}",
        "True",
    ]


def test_descriptors_have_the_numbers_that_they_have_in_the_client(server: WarmServer, tmp_path: Path) -> None:
    with open(tmp_path / "made", "w") as file:
        numbers = [file.fileno()]
        text = (
            WHO + f"import os; os.write({numbers[0]}, b'seven'); print(sorted(map(int, os.listdir('/proc/self/fd'))))"
        )
        done = server.run(text, pass_fds=numbers)
    assert server.runs_here(done) and (tmp_path / "made").read_text() == "seven"
    # And that of the listing; none of the server's.
    assert len(done.stdout.splitlines()[1].split(",")) == 3 + len(numbers) + 1


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit()", 0),
        ("sys.exit(7)", 7),
        ("sys.exit(-1)", 255),
        ("sys.exit('why')", 1),
        ("1/0", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os; os._exit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM),
        ("import os; os.abort()", -signal.SIGABRT),
    ],
)
def test_a_client_ends_as_its_job_does(server: WarmServer, end: str, code: int) -> None:
    done = server.run(WHO + end)
    assert server.runs_here(done) and done.returncode == code
    assert ("Traceback" in done.stderr) == (end.startswith(("1/0", "raise")))


def test_what_a_program_registers_for_its_end_runs_and_all_that_it_wrote_is_there(server: WarmServer) -> None:
    text = WHO + (
        "import atexit, threading, time\n"
        "atexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
        "print('x' * 100_000)\n"
    )
    assert server.run(text).stdout.splitlines()[2:] == ["thread", "at exit"]


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT", "RTMIN"])
def test_signals_reach_the_job(server: WarmServer, name: str) -> None:
    text = WHO + (
        f"import os, signal\nsignal.signal(signal.SIG{name}, lambda *_: (os.write(1, b'heard'), sys.exit(5)))\n"
        "print('waiting', flush=True)\n" + UNTIL_IT_HEARS
    )
    process = server.start(text)
    assert [line_of(process.stdout) for _ in range(2)] == ["forked", "waiting"]
    process.send_signal(getattr(signal, f"SIG{name}"))
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("heard", 5)


def test_a_signal_that_breaks_no_wait_of_the_client_reaches_the_job(server: WarmServer) -> None:
    """Another thread of the client takes it: what happens to a signal that comes just before the client waits."""
    text = WHO + (
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\nprint('waiting', flush=True)\n"
    )
    client = (
        "import signal, threading\nfrom snakemake_executor_flux.warm import client\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\nbegin = client._begin\n"
        "def deaf(connection):\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "    return begin(connection)\n"
        "client._begin = deaf\nclient.main()\n"
    )
    words = server.words(text + UNTIL_IT_HEARS)
    process = subprocess.Popen(
        [sys.executable, "-c", client, *words[3:]], env=server.environ, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    stdout = process.stdout
    assert stdout is not None
    try:
        assert [line_of(stdout) for _ in range(2)] == ["forked", "waiting"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 5
    finally:
        process.kill()
        process.communicate()


def test_a_signal_that_comes_as_a_server_dies_ends_the_job_that_runs_by_itself(server: WarmServer) -> None:
    """It came when the client had caught signals for a job that did not begin."""
    client = (
        "import os, signal\nfrom snakemake_executor_flux.warm import client\n"
        "client._begin = lambda _: os.kill(os.getpid(), signal.SIGTERM)\nclient.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", client, *server.words(WHO)[3:]], env=server.environ, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


def test_a_signal_reaches_what_the_job_has_started(server: WarmServer) -> None:
    process = server.start(WHO + "import os\nprint(os.system('echo $$; exec sleep 1000'))")
    assert line_of(process.stdout) == "forked"
    sleeping = int(line_of(process.stdout))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    wait_for(lambda: not alive(sleeping), "what the job has started hears it, too")


# -- what the server must not pass on


def test_numpys_generators_differ_between_jobs(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    with WarmServer(tmp_path, "import numpy.random\n") as server:
        text = WHO + "import numpy.random, random\nprint(numpy.random.random(), random.random())"
        results = [server.run(text).stdout for _ in range(3)]
    assert all(result.startswith("forked\n") for result in results) and len(set(results)) == 3


def test_a_jobs_directory_for_temporary_files_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with WarmServer(tmp_path, "import tempfile\ntempfile.gettempdir()\n", ignored="TMPDIR") as server:
        done = server.run(WHO + "import tempfile\nprint(tempfile.gettempdir())", env={"TMPDIR": str(tmp_path / "mine")})
    assert done.stdout.splitlines() == ["forked", str(tmp_path / "mine")]


def test_a_jobs_end_removes_nothing_of_the_servers_and_all_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    before = f"import tempfile\nkept = tempfile.TemporaryDirectory(dir={str(tmp_path / 't')!r})\n"
    with WarmServer(tmp_path, before) as server:
        [kept] = (tmp_path / "t").iterdir()
        text = WHO + f"import tempfile\nmine = tempfile.TemporaryDirectory(dir={str(tmp_path / 't')!r})\nsys.exit(3)"
        done = server.run(text)
        assert server.runs_here(done) and done.returncode == 3
        assert list((tmp_path / "t").iterdir()) == [kept]


def test_variables_that_imports_have_set_are_there_unless_the_job_sets_them(tmp_path: Path) -> None:
    before = "import os\nos.environ['SET_BY_IMPORT'] = 'import'\nos.environ['FLUX_SET'] = 'import'\n"
    with WarmServer(tmp_path, before) as server:
        text = WHO + "import os\nprint(os.environ['SET_BY_IMPORT'], os.environ['FLUX_SET'])"
        done = server.run(text, env={"FLUX_SET": "job"})
    assert done.stdout.splitlines() == ["forked", "import job"]


def test_native_threads_of_the_server_are_in_nobodys_way(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    with WarmServer(tmp_path, "import numpy\nnumpy.ones((300, 300)) @ numpy.ones((300, 300))\n") as server:
        text = WHO + "import numpy\nprint((numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum())"
        assert server.run(text).stdout.splitlines() == ["forked", "27000000.0"]


def test_an_engine_sees_whose_a_warm_jobs_processes_are(server: WarmServer) -> None:
    process = server.start(
        WHO + "import os\nprint(os.getpid(), os.getppid(), flush=True)\nsys.stdin.read()",
        env={"FLUX_JOB_ID": "f7", "FXO_EPOCH": "outer:mine"},
        stdin=subprocess.PIPE,
    )
    assert line_of(process.stdout) == "forked"
    job, monitor = map(int, line_of(process.stdout).split())
    assert [process_tree.job_of_process(pid, "mine") for pid in (job, monitor)] == ["f7", "f7"]
    assert process_tree.job_of_process(server.process.pid, "mine") == ""
    process.communicate("", timeout=60)
    assert process.returncode == 0


# -- where there is no server for a job


@pytest.mark.parametrize("name", ["LD_LIBRARY_PATH", "PYTHONHASHSEED", "LC_ALL", "TZ", "ANYTHING"])
def test_a_job_of_another_environment_runs_by_itself(server: WarmServer, name: str) -> None:
    done = server.run(WHO, env={name: "1"} if name != "LC_ALL" else {name: "C"})
    assert done.stdout == "by itself\n" and done.returncode == 0
    assert f"another environment ({name})" in server.log.read_text()


@pytest.mark.parametrize("path", ["lib", "/usr:", "/usr:lib"])
def test_a_relative_import_path_is_not_the_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}:{path}")
    with WarmServer(tmp_path) as server:
        assert server.run(WHO).stdout == "by itself\n"
        assert "PYTHONPATH is relative" in server.log.read_text()


def test_a_job_in_a_namespace_of_its_own_runs_by_itself(server: WarmServer) -> None:
    unshare = ["unshare", "--uts"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs the right to make namespaces: root, or a kernel that lets users")
    done = subprocess.run(
        [*unshare, *server.words(WHO)], capture_output=True, text=True, env=server.environ, check=False
    )
    assert done.stdout == "by itself\n"
    assert "another uts namespace" in server.log.read_text()


def test_a_job_with_a_memory_limit_by_cgroup_runs_by_itself(server: WarmServer) -> None:
    """Its fork would be in the server's cgroup."""
    made = None
    for root in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        place = Path(root) / f"fluxop-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            if (Path(root) / "cgroup.procs").exists():
                place.mkdir()
                made = place
                break
    if made is None:
        pytest.skip("needs the right to make a cgroup: root, and /sys/fs/cgroup that can be written")
    try:
        done = server.run(WHO, preexec_fn=lambda: (made / "cgroup.procs").write_text(str(os.getpid())))
    finally:
        made.rmdir()
    assert done.stdout == "by itself\n"
    assert "another cgroup" in server.log.read_text()


@pytest.mark.parametrize("kind", ["a terminal", "no stdin"])
def test_a_job_with_other_descriptors_than_streams_runs_by_itself(server: WarmServer, kind: str) -> None:
    words = server.words(WHO)
    if kind == "no stdin":
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", *words], capture_output=True, text=True, env=server.environ
        )
        assert done.stdout == "by itself\n"
        return
    pid, terminal = pty.fork()
    if not pid:
        os.execve(words[0], words, server.environ)
    assert os.read(terminal, 9) == b"by itself"
    assert os.waitpid(pid, 0)[1] == 0
    os.close(terminal)


def test_a_secret_that_the_server_has_not_changes_nothing(tmp_path: Path) -> None:
    with WarmServer(tmp_path, ignored="TOKEN") as server:
        done = server.run(WHO + "import os\nprint(os.environ['TOKEN'])", env={"TOKEN": "secret"})
    assert done.stdout.splitlines() == ["forked", "secret"]


def test_without_a_server_and_after_its_death_a_job_runs_by_itself(server: WarmServer) -> None:
    assert server.runs_here(server.run(WHO))
    server.process.kill()
    server.process.wait()
    done = server.run(WHO + "sys.exit(4)")
    assert (done.stdout, done.returncode) == ("by itself\n", 4)


def test_a_python_that_is_known_by_name_only_is_found(server: WarmServer, tmp_path: Path) -> None:
    server.process.kill()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python-x").symlink_to(sys.executable)
    [_, *options, _, program] = server.words(WHO)
    done = subprocess.run(
        ["python-x", *options, "python-x", program],
        env={**server.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("by itself\n", "")


def test_a_server_that_dies_as_a_job_comes_loses_no_job(server: WarmServer) -> None:
    server.process.send_signal(signal.SIGSTOP)
    process = server.start(WHO)
    wait_for(lambda: "S" in Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0], "it waits")
    server.process.kill()
    server.process.wait()
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("by itself\n", 0)


def test_a_job_that_has_begun_outlives_its_server(server: WarmServer) -> None:
    process = server.start(WHO + "print(sys.stdin.read())\nsys.exit(6)", stdin=subprocess.PIPE)
    assert line_of(process.stdout) == "forked"
    server.process.kill()
    server.process.wait()
    out, _ = process.communicate("on", timeout=60)
    assert (out, process.returncode) == ("on\n", 6)


def test_the_servers_log_ends_with_the_server_whatever_runs_on(tmp_path: Path) -> None:
    with WarmServer(tmp_path) as server:
        process = server.start(WHO + "sys.stdin.read()", stdin=subprocess.PIPE)
        assert line_of(process.stdout) == "forked"
        server.process.kill()
        assert server.process.communicate(timeout=60)[0] == b""  # to the end of its stdout
        process.communicate("", timeout=60)
        assert process.returncode == 0


def test_a_job_never_runs_twice_where_its_monitor_dies(server: WarmServer, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    process = server.start(
        WHO + f"open({str(ran)!r}, 'a').write('x')\nprint('ran', flush=True)\nsys.stdin.read()", stdin=subprocess.PIPE
    )
    assert [line_of(process.stdout) for _ in range(2)] == ["forked", "ran"]
    [monitor, *_] = descendants_of(server)
    os.kill(monitor, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "was killed" in err
    assert ran.read_text() == "x"
    wait_for(lambda: not descendants_of(server), "the job dies with its monitor")


def test_a_server_ends_when_something_is_installed_and_not_when_a_job_writes(tmp_path: Path) -> None:
    written, packages = tmp_path / "work", tmp_path / "site-packages"
    written.mkdir()
    packages.mkdir()
    with WarmServer(tmp_path, f"import sys\nsys.path += [{str(written)!r}, {str(packages)!r}]\n") as server:
        (written / "new.txt").touch()
        assert server.runs_here(server.run(WHO))
        (packages / "new.py").touch()
        assert server.run(WHO).stdout == "by itself\n"
        assert server.process.wait(60) == 0


def test_an_idle_server_ends_and_one_with_a_job_does_not(tmp_path: Path) -> None:
    with WarmServer(tmp_path, idle=0.5) as server:
        process = server.start(WHO + "sys.stdin.read()", stdin=subprocess.PIPE)
        assert line_of(process.stdout) == "forked"
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(2)
        process.communicate("", timeout=60)
        assert server.process.wait(60) == 0


# -- what ends with a client

TREE = WHO + (
    "import os, subprocess\n"
    "a = subprocess.Popen(['sleep', '1000'])\n"
    "b = subprocess.Popen(['setsid', 'sh', '-c', 'sleep 1000 & echo $!; trap \"\" TERM; sleep 1000'])\n"
    "c = int(os.popen('(setsid sleep 1000 >/dev/null 2>&1 & echo $!)').read())\n"
    "print(os.getpid(), os.getppid(), a.pid, b.pid, c, flush=True)\n"
    "b.wait()\n"
)


def test_nothing_of_a_job_outlives_its_client_that_is_killed(server: WarmServer) -> None:
    process = server.start(TREE)
    assert line_of(process.stdout) == "forked"
    pids = [int(word) for _ in range(2) for word in line_of(process.stdout).split()]
    assert all(map(alive, pids)) and len(pids) == 6
    process.kill()
    process.communicate(timeout=60)  # to the end of its streams, which the job has
    wait_for(lambda: not any(map(alive, pids)), "all of it ends")
    assert alive(server.process.pid)
    assert server.runs_here(server.run(WHO))


def test_a_client_that_is_killed_before_it_says_go_begins_nothing(server: WarmServer, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    text = f"open({str(ran)!r}, 'w')"
    # A client that is stopped between the server's word and its own.
    stopping = (
        "import sys, os, signal\nfrom snakemake_executor_flux.warm import client\n"
        "client._begin = lambda _: os.kill(os.getpid(), signal.SIGSTOP)\nclient.main()\n"
    )
    words = server.words(text)
    process = subprocess.Popen([sys.executable, "-c", stopping, *words[3:]], env=server.environ)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert len(descendants_of(server)) == 2  # a monitor and a child, which wait
    process.kill()
    process.wait()
    wait_for(lambda: not descendants_of(server), "they end")
    assert not ran.exists()


def test_what_a_job_leaves_in_the_background_is_left_as_by_any_job(server: WarmServer) -> None:
    text = WHO + "import os\nprint(os.popen('(setsid sleep 1000 >/dev/null 2>&1 & echo $!)').read())"
    done = server.run(text)
    left = int(done.stdout.splitlines()[1])
    try:
        assert server.runs_here(done) and alive(left)
    finally:
        os.kill(left, signal.SIGKILL)


def test_usage_of_the_job_is_told_where_the_engine_looks(server: WarmServer, tmp_path: Path) -> None:
    told = tmp_path / "usage"
    text = WHO + "import time\nx = bytearray(120_000_000)\nwhile time.process_time() < 0.3: pass"
    assert server.runs_here(server.run(text, env={"FXO_USAGE": str(told), "FLUX_JOB_ID": "f9"}))
    [job, cpu, memory, sign] = told.read_text().split()
    assert (job, sign) == ("f9", "+") and float(cpu) >= 0.3 and int(memory) > 117_000


def test_another_users_process_is_not_served(server: WarmServer) -> None:
    if os.geteuid():
        pytest.skip("needs root, to be two users")
    pid = os.fork()
    if not pid:
        try:
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.connect("\0" + server.name)
                os._exit(0 if stranger.recv(1) == b"" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert server.runs_here(server.run(WHO))

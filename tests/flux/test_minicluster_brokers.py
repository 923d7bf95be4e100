"""What a rendered MiniCluster does with real brokers: its entry script and its broker.toml, as they are."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from executors.agent import wire
from executors.provision.package import agent_archive
from executors.render import Program
from executors.render.places import MOUNTED, UNMOUNTED
from tests.flux.pods import NAME, MakePods, ended, spec_of, until


def test_a_command_runs_on_all_ranks_and_only_the_lead_completes(pods: MakePods) -> None:
    lead, follower = pods(spec_of("flux getattr rank")).run()
    assert lead[0] == 0, lead[2]
    assert sorted(lead[1].split()) == ["0", "1"]
    assert follower[0] == 76, "an index that has completed is never started again"


def test_the_commands_exit_code_is_the_leads(pods: MakePods) -> None:
    lead, follower = pods(spec_of("sh -c 'exit 3'")).run()
    assert (lead[0], follower[0]) == (3, 76)


def test_a_launcher_runs_once_with_its_words_unchanged(pods: MakePods) -> None:
    words = r"""printf '<%s>' "a  b" 'c"d' e\'f '' é"""
    lead, _ = pods(spec_of(words, container={"launcher": True})).run()
    assert lead[:2] == (0, """<a  b><c"d><e'f><><é>""")


def test_what_only_a_shell_understands_is_run_by_one(pods: MakePods) -> None:
    lead, _ = pods(spec_of('echo "$((6 * 7)) $$$HOME" | tr 4 5', container={"launcher": True})).run(HOME="/tmp")
    assert lead[0] == 0
    assert lead[1].startswith("52 ") and lead[1].endswith("/tmp\n")


def test_an_empty_lead_does_not_take_the_place_of_a_lost_one(pods: MakePods) -> None:
    [lead] = pods(spec_of("true")).run([0], FLUXOP_INDEX_FAILURES="1")
    assert lead[0] == 75
    assert "the lead broker was lost" in lead[2]


def test_a_rank_offers_what_its_container_has(pods: MakePods) -> None:
    resources = {"requests": {"cpu": "1500m"}, "limits": {"cpu": "3", "nvidia.com/gpu": "2"}}
    document = spec_of(
        "flux resource list -no '{state} {nnodes} {ncores} {ngpus} {nodelist}'",
        size=1,
        maxSize=3,
        container={"launcher": True, "resources": resources},
    )
    [lead] = pods(document).run([0])
    assert lead[0] == 0, lead[2]
    lines = [line.split() for line in lead[1].splitlines()]
    assert ["free", "1", "2", "2", f"{NAME}-0"] in lines
    assert ["down", "2", "4", "4", f"{NAME}-[1-2]"] in lines


def test_a_short_job_passes_a_blocked_one_and_what_can_never_run_is_refused(pods: MakePods) -> None:
    script = """
    flux module list -l | grep -q sched-backfill || exit 1
    flux submit --quiet -n1 -t 20s sleep 15
    flux submit --quiet -n2 -t 1s true
    flux run -n1 -t 2s echo passed
    flux submit -N4 true
    flux cancel --all
    """
    document = spec_of(script, size=1, maxSize=3, container={"launcher": True, "resources": {"limits": {"cpu": 2}}})
    [lead] = pods(document).run([0])
    assert "passed" in lead[1]
    assert "unsatisfiable request" in lead[2]


def test_jobs_of_all_ranks_may_write_a_last_file_when_everything_is_deleted(pods: MakePods, tmp_path: Path) -> None:
    job = f"trap 'echo saved >{tmp_path}/saved-$FLUX_TASK_RANK; exit 0' TERM; touch {tmp_path}/up-$FLUX_TASK_RANK;"
    (tmp_path / "job.sh").write_text(f"{job} while :; do sleep 0.1; done")
    script = f"""
    trap 'flux cancel --all --quiet; flux queue drain --quiet; exit 0' HUP
    flux submit --quiet -N2 sh {tmp_path}/job.sh
    while :; do sleep 0.1; done
    """
    made = pods(spec_of(script, container={"launcher": True}))
    processes = [made.start(0), made.start(1)]
    until(lambda: all((tmp_path / f"up-{rank}").exists() for rank in (0, 1)))
    for process in processes:
        process.send_signal(signal.SIGTERM)
    lead, follower = ended(processes)
    assert all((tmp_path / f"saved-{rank}").exists() for rank in (0, 1)), lead[2]
    assert lead[0] != 0, "a run that was cut short has not succeeded"
    assert follower[0] == 76


def test_a_follower_alone_ends_when_it_is_told_to(pods: MakePods) -> None:
    made = pods(spec_of("", interactive=True))
    follower = made.start(1)
    until(lambda: (made.state(1) / "flux" / "curve.cert").exists())
    follower.send_signal(signal.SIGTERM)
    assert ended([follower])[0][0] == 76


def test_hooks_run_in_their_order_by_bash_and_keep_their_environment(pods: MakePods) -> None:
    commands = {
        "init": "steps=init",
        "pre": 'if [[ -n $steps ]]; then export steps="$steps pre"; fi',
        "brokerPre": 'steps="$steps lead"',
        "workerPre": 'steps="$steps follower"',
        "post": "echo $steps post",
    }
    container = {"launcher": True, "commands": commands}
    lead, follower = pods(spec_of("flux run -N2 true", container=container)).run()
    assert (lead[0], lead[1]) == (0, "init pre lead post\n")
    assert follower[1] == "init pre follower post\n"


@pytest.mark.parametrize(("strict", "code"), [(False, 0), (True, 4)])
def test_a_failing_hook_ends_a_strict_pod_only(pods: MakePods, strict: bool, code: int) -> None:
    container = {"launcher": True, "commands": {"pre": "(exit 4)"}}
    [lead] = pods(spec_of("true", size=1, logging={"strict": strict}, container=container)).run([0])
    assert lead[0] == code
    assert strict or "commands.pre ended with 4" in lead[2]


def test_each_line_of_a_batch_is_a_job(pods: MakePods, tmp_path: Path) -> None:
    container = {"batch": True, "logs": str(tmp_path / "logs")}
    lead, _ = pods(spec_of('echo "one"\n\necho two | tr o 0\nexit 5', container=container)).run()
    assert lead[0] == 5
    texts = [(tmp_path / "logs" / f"job-{number}.out").read_text() for number in (0, 1)]
    assert texts == ["one\n", "tw0\n"]


@pytest.mark.parametrize("container", [{"batchRaw": True}, {"commands": {"script": "flux getattr size; exit 6"}}])
def test_a_script_runs_as_it_is(pods: MakePods, container: dict[str, Any]) -> None:
    [lead] = pods(spec_of("flux getattr size; exit 6", size=1, container={**container, "launcher": True})).run([0])
    assert lead[:2] == (6, "1\n")


def test_a_saved_instance_comes_back(pods: MakePods, tmp_path: Path) -> None:
    archive = {"path": str(tmp_path / "archive.tar")}
    container = {"launcher": True}
    [first] = pods(spec_of("flux run -n1 true", size=1, archive=archive, container=container)).run([0])
    assert first[0] == 0, first[2]
    [second] = pods(spec_of("flux jobs -a -no '{name} {status}'", size=1, archive=archive, container=container)).run(
        [0]
    )
    assert second[:2] == (0, "true COMPLETED\n"), second[2]


def test_a_broker_config_of_the_users_own_is_taken_with_our_certificate(pods: MakePods) -> None:
    given = f"""
    [bootstrap]
    curve_cert = "/mnt/flux/view/curve/curve.cert"
    default_bind = "tcp://*:%p"
    default_connect = "tcp://%h.{NAME}:%p"
    hosts = [{{host = "{NAME}-0"}}, {{host = "{NAME}-[1-3]"}}]
    [resource]
    path = "/mnt/flux/view/etc/flux/system/R"
    [archive]
    period = "1m"
    """
    script = "flux config get archive.period; flux getattr size; flux module list | grep -o sched-backfill"
    document = spec_of(script, flux={"brokerConfig": given}, container={"launcher": True})
    lead, _ = pods(document).run()
    assert (lead[0], lead[1].split()) == (0, ["1m", "4", "sched-backfill"]), lead[2]


@pytest.mark.parametrize("known", ["127.0.0.1", "::1", "::1 127.0.0.1"])
def test_brokers_meet_by_the_addresses_that_their_pods_have(pods: MakePods, known: str) -> None:
    """As the kubelet writes them to /etc/hosts. Where there is an IPv4 address, nobody looks for others."""
    if ":" in known and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine: boot without ipv6.disable=1")
    address = known.split()[-1]
    made = pods(spec_of("flux getattr size", container={"launcher": True}))
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as free:
        port = free.getsockname()[1]
    for index in (0, 1):
        made.prepare(index)
        lines = [f"{one}\t{os.uname().nodename}.{NAME} {os.uname().nodename}\n" for one in known.split()]
        (made.directory(index) / "hosts").write_text("::1 localhost\n" + "".join(lines))
        config = made.directory(index) / "files" / "broker.toml"
        whole = f"[{address}]" if ":" in address else address
        text = re.sub(r"ipc://.*/%h", f"tcp://{whole}:%p", config.read_text()).replace("8050", str(port))
        config.write_text(text.replace(f'default_bind = "tcp://{whole}', 'default_bind = "tcp://*'))
    lead, follower = made.run()
    assert (lead[0], lead[1], follower[0]) == (0, "2\n", 76), lead[2] + follower[2]
    own = [(made.state(index) / "flux" / "broker.toml") for index in (0, 1)]
    assert [one.exists() and "enable_ipv6 = true" in one.read_text() for one in own] == [":" in address] * 2


def test_a_broker_that_is_given_its_parents_address_begins_again(pods: MakePods) -> None:
    """What `find_parent` does when it has found one: here the test does. (With names: on the test bed.)"""
    made = pods(spec_of("flux getattr size", container={"launcher": True}))
    made.prepare(1)
    config = made.directory(1) / "files" / "broker.toml"
    right = config.read_text()
    config.write_text(re.sub(r"ipc://.*/%h", "ipc:///nowhere/%h", right))
    lead, follower = made.start(0), made.start(1)
    until((made.state(1) / "flux" / "local").exists)
    (made.state(1) / "flux" / "broker.toml").write_text(right)
    follower.send_signal(signal.SIGUSR2)
    found = ended([lead, follower])
    assert (found[0][0], found[0][1], found[1][0]) == (0, "2\n", 76), found


def test_the_options_of_a_spec_reach_the_broker(pods: MakePods) -> None:
    flux = {"connectTimeout": "3s", "topology": "kary:1", "logLevel": 5, "scheduler": {"simple": True}}
    script = "flux getattr tbon.connect_timeout; flux getattr tbon.topo; flux getattr log-stderr-level; "
    script += "flux module list | grep -o sched-simple"
    lead, _ = pods(spec_of(script, flux=flux, container={"launcher": True, "commands": {"prefix": "env A=b"}})).run()
    assert (lead[0], lead[1].split()) == (0, ["3s", "kary:1", "5", "sched-simple"]), lead[2]


def test_a_view_brings_flux_and_a_file_for_shells(pods: MakePods, tmp_path: Path) -> None:
    document = spec_of("echo from the view", size=1, flux={"container": {"disable": False}})
    made = pods({**document, "containers": [{"image": "any", "launcher": True, "command": "which flux"}]})
    made._write(0)
    entry = made.directory(0) / "files" / "entry.sh"
    entry.chmod(0o755)
    entry.write_text(entry.read_text().replace("/opt/", f"{tmp_path}/opt/"))
    [failed] = ended([made.start(0, "flux-view")])
    assert failed[0] == 1 and "has no Flux" in failed[2]
    (tmp_path / "opt" / "view" / "bin").mkdir(parents=True)
    (tmp_path / "opt" / "software").mkdir()
    real = subprocess.run(["which", "flux"], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "opt" / "view" / "bin" / "flux").symlink_to(real)
    [copied] = ended([made.start(0, "flux-view")])
    assert copied[0] == 0, copied[2]
    [lead] = made.run([0])
    view = made.directory(0) / "view"
    assert lead[:2] == (0, f"{view}/view/bin/flux\n"), lead[2]
    assert "FLUX_URI=local://" in (view / "flux-view.sh").read_text()


def test_a_sidecar_waits_for_the_broker(pods: MakePods) -> None:
    beside = {"name": "beside", "image": "any", "command": "flux getattr size", "commands": {"post": "echo ended"}}
    document = spec_of("", size=1, interactive=True)
    document["containers"] = [{**document["containers"][0], "runFlux": True}, beside]
    made = pods(document)
    sidecar = made.start(0, "beside")
    broker = made.start(0)
    assert ended([sidecar])[0][:2] == (0, "1\nended\n")
    broker.send_signal(signal.SIGTERM)
    assert ended([broker])[0][0] != 0


def program(directory: str, idle: float = 3.0) -> Program:
    words = ("--directory", directory, "--run", "r", "--engine", "flux", "--idle-timeout", str(idle))
    return Program(agent_archive(), words, max_lifetime=100.0, ttl=10.0)


def test_the_agent_runs_in_the_lead_and_its_end_is_the_end(pods: MakePods) -> None:
    made = pods(spec_of("ignored"), program(UNMOUNTED.agent_directory))
    processes = [made.start(0), made.start(1)]
    agent = made.state(0) / "agent" / "agent.sock"
    assert made.probe(0) == 0, "there is none yet"
    until(agent.exists)
    assert made.probe(0) == 0
    assert made.probe(1) == 0
    assert oct((made.state(0) / "agent").stat().st_mode)[-3:] == "700"
    lead, follower = ended(processes)
    assert (lead[0], follower[0]) == (0, 76), lead[2]


def test_with_fluxion_the_agent_begins_when_no_job_is_refused_for_brokers_that_have_not_joined(
    pods: MakePods, fluxion: dict[str, str]
) -> None:
    document = spec_of("ignored", flux={"scheduler": {"queuePolicy": "fcfs"}})
    made = pods(document, program(UNMOUNTED.agent_directory, idle=0.0))
    agent = made.state(0) / "agent" / "agent.sock"

    def flux(*argv: str) -> str:
        environ = {**os.environ, "FLUX_URI": f"local://{made.state(0) / 'flux' / 'local'}"}
        return subprocess.run(["flux", *argv], env=environ, capture_output=True, text=True, timeout=60).stdout

    lead = made.start(0, **fluxion)
    until(lambda: " quorum " in flux("uptime"))
    time.sleep(1.5)  # an instance that does not wait passes this state, too
    assert " quorum " in flux("uptime") and not agent.exists()
    follower = made.start(1, **fluxion)
    until(agent.exists)
    assert sorted(flux("run", "-N2", "-n2", "flux", "getattr", "rank").split()) == ["0", "1"]
    assert "sched-fluxion-qmanager" in flux("module", "list")
    lead.send_signal(signal.SIGTERM)
    assert [one[0] for one in ended([lead, follower])] == [77, 76]


@pytest.mark.parametrize(("came", "unserved"), [("nobody yet", True), ("an observer", True), ("a client", False)])
def test_a_lead_that_is_told_to_end_says_whether_it_has_served_anybody(
    pods: MakePods, came: str, unserved: bool
) -> None:
    """As when Kueue suspends the Job again: what has served nobody, another one may replace."""
    made = pods(spec_of("ignored", size=1), program(UNMOUNTED.agent_directory, idle=0.0))
    lead = made.start(0)
    agent = made.state(0) / "agent" / "agent.sock"
    until(agent.exists)
    with socket.socket(socket.AF_UNIX) as client:
        if came != "nobody yet":
            client.connect(str(agent))
            hello = {"id": 1, "op": "hello", "versions": [wire.VERSION], "observer": came == "an observer"}
            client.sendall(wire.encode(hello))
            assert b'"ok"' in client.recv(65536)
        lead.send_signal(signal.SIGTERM)
        [(code, _, said)] = ended([lead])
    assert (code == 77) is unserved and code != 0, said


def test_a_lead_that_is_told_to_end_before_its_broker_starts_has_served_nobody(pods: MakePods) -> None:
    container = {"commands": {"pre": "echo early; sleep 2"}}
    made = pods(spec_of("ignored", size=1, container=container), program(MOUNTED.agent_directory))
    lead = made.start(0)
    assert lead.stdout is not None and lead.stdout.readline() == "early\n"
    lead.send_signal(signal.SIGTERM)
    assert ended([lead])[0][0] == 77


def test_a_lead_that_is_told_to_end_while_its_broker_ignores_signals_ends(pods: MakePods) -> None:
    """As it does until its first modules are there, of which its socket is one."""
    made = pods(spec_of("", size=1, interactive=True, flux={"logLevel": 6}))
    lead = made.start(0)
    connector = made.state(0) / "flux" / "local"
    until(connector.exists, pause=0.0005)
    [broker] = Path(f"/proc/{lead.pid}/task/{lead.pid}/children").read_text().split()
    os.kill(int(broker), signal.SIGSTOP)
    lead.send_signal(signal.SIGTERM)
    until(lambda: "ShdPnd:\t0000000000000000" not in Path(f"/proc/{broker}/status").read_text())
    os.kill(int(broker), signal.SIGCONT)
    [(code, _, said)] = ended([lead])
    assert code != 0 and "ignored signal 15 in load-builtins" in said


def test_no_start_up_file_of_the_home_is_read_by_fluxs_scripts(pods: MakePods, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(f"touch {tmp_path}/read\n")
    [lead] = pods(spec_of("true", size=1)).run([0], HOME=str(tmp_path), SHLVL="0")
    assert lead[0] == 0, lead[2]
    assert not (tmp_path / "read").exists()


@pytest.mark.parametrize(("agent", "code"), [("none", 9), ("there", 9), ("ended", 143)])
def test_a_lead_that_ends_already_is_left_to_end(pods: MakePods, agent: str, code: int) -> None:
    """Told to end while it tidies up, a broker may hang. Here it is a program that tells whether it was."""
    made = pods(spec_of("ignored"))
    made._write(0)
    directory = made.state(0) / "agent"
    directory.mkdir()
    if agent != "none":
        (directory / "agent.lock").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        if agent == "there":
            listening.bind(str(directory / "agent.sock"))
        broker = 'trap "exit 9" TERM; echo up; sleep 1 & wait; exit 0'
        entry = made.directory(0) / "files" / "entry.sh"
        process = subprocess.Popen(
            ["/bin/sh", str(entry), "broker", "sh", "-c", broker],
            env={**os.environ, "JOB_COMPLETION_INDEX": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert ended([process])[0][0] == code


def test_the_probe_fails_where_nobody_answers(pods: MakePods) -> None:
    made = pods(spec_of("ignored"), program("/x"))
    made._write(0)
    (made.state(0) / "agent").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(made.state(0) / "agent" / "agent.sock"))
        assert made.probe(0) != 0

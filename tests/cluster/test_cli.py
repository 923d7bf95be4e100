"""flux-minicluster on a real Kubernetes, as a user's shell sees it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from executors.provision.kubernetes.rights import RIGHTS
from tests.cli_runs import Cli, environment, interrupt, read_line
from tests.cluster.runs import Runs, spec, write_config
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.waiting import wait_until


@pytest.fixture
def cli(runs: Runs, tmp_path: Path) -> Cli:
    environ = environment(tmp_path, KUBECONFIG=str(runs.kubeconfig))
    return Cli(tmp_path, environ, ["--provisioner", "direct", "--namespace", runs.namespace])


@pytest.fixture
def config(runs: Runs, tmp_path: Path) -> str:
    """A bare MiniCluster file of one pod that may become two."""
    document = {
        "apiVersion": "flux-framework.org/v1alpha2",
        "kind": "MiniCluster",
        "metadata": {"name": "small"},
        "spec": spec(runs.image, maxSize=2),
    }
    (tmp_path / "small.yaml").write_text(json.dumps(document))
    return "small.yaml"


@pytest.fixture
def name(cli: Cli, config: str) -> Iterator[str]:
    """An instance that is up."""
    yield cli("up", "--config", config).out.strip()
    cli("down", "--config", config, code=None)


def test_a_minicluster_from_its_start_to_its_end(cli: Cli, runs: Runs, config: str) -> None:
    up = cli("up", "--config", config)
    name = up.out.strip()
    assert name.startswith("cli-small-") and "a MiniCluster of 1 pod" in up.err
    # The API server hears of it from the kubelet up to a second after the agent has answered.
    wait_until("it to be listed as running", lambda: cli("list", "--json").json[0]["state"] == "running", 60.0)
    [row] = cli("list").out.splitlines()[1:]
    assert row.split()[:5] == [name, "direct", runs.namespace, "running", "1/1"]
    [found] = cli("list", "--json").json
    assert (found["name"], found["size"], found["running"], found["state"]) == (name, 1, 1, "running")
    status = cli("status", "small").out.splitlines()
    assert status[0].startswith(f"{name}: running, age ") and status[1].startswith("agent: Flux ")
    assert status[2].split() == ["RANK", "HOST", "CORES", "GPUS", "STATE"]
    assert status[3].split() == ["0", f"{name}-0", "1", "0", "up"]

    script = "hostname; echo err >&2; exit 3"
    ran = cli("run", "--name", "small", "--config", config, "-q", "--", "sh", "-c", script, code=3)
    assert (ran.out, ran.err) == (f"{name}-0\n", "err\n")
    [job] = cli("jobs", "small", "--all", "--json").json
    assert job["result"]["outcome"] == "FAILED" and job["result"]["returncode"] == 3
    logs = cli("logs", "small", job["id"])
    assert (logs.out, logs.err) == (f"{name}-0\n", "err\n")

    assert "3 is not from 1 to 2, the minicluster.maxSize" in cli("resize", "small", "3", code=2).err
    assert cli("resize", "small", "2", "--json").json == {"name": name, "from": 1, "to": 2}
    both = cli("run", "--name", "small", "--config", config, "-N", "2", "--", "hostname")
    assert sorted(both.out.split()) == [f"{name}-0", f"{name}-1"]
    assert f"{name}: 2 -> 1" in cli("resize", "small", "1", "--grace", "0").err

    assert cli("reap", "--dry-run").out == f"{name}: left alone: in use, or not unused for run.orphanTimeout\n"
    down = cli("down", "--config", config)
    assert (down.out, down.err) == ("", f"{name} is gone\n")
    assert runs.left() == []
    assert f"there is no such instance in the namespace {runs.namespace}" in cli("down", "small", code=1).err
    assert f"no instances in the namespace {runs.namespace}" in cli("list").err


def test_run_makes_a_minicluster_and_leaves_nothing(cli: Cli, runs: Runs, config: str) -> None:
    done = cli("run", "--config", config, "--", "sh", "-c", "cat; hostname; exit 4", code=4)
    assert done.out.startswith("cli-run-") and "provisioner: direct" in done.err
    assert runs.left() == []


def test_run_over_two_nodes_gets_both_pods(cli: Cli, runs: Runs, tmp_path: Path) -> None:
    write_config(tmp_path / "two.yaml", spec(runs.image, size=2))
    done = cli("run", "--config", "two.yaml", "-N", "2", "-n", "2", "-q", "--", "hostname")
    assert [one.rpartition("-")[2] for one in sorted(done.out.split())] == ["0", "1"]
    assert runs.left() == []


def test_without_a_config_the_minicluster_has_as_many_pods_as_nodes_are_asked_for_and_an_interrupt_leaves_nothing(
    cli: Cli, runs: Runs
) -> None:
    starting = cli.start("run", "-N", "2", "--", "sleep", "600")
    # The default image is on no node of the bed.
    assert "a MiniCluster of 2 pods" in read_line(starting, "stderr", "provisioner: direct")
    assert interrupt(starting).code == 130
    runs.wait_nothing_left()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_job_of_run_and_leaves_nothing(
    cli: Cli, runs: Runs, config: str, signum: signal.Signals
) -> None:
    running = cli.start("run", "--config", config, "--", "sh", "-c", "echo up; exec sleep 600")
    read_line(running, "stdout", "up")
    done = interrupt(running, signum)
    assert done.code == 130 and f"was cancelled by {signum.name}" in done.err
    assert runs.left() == []


def test_a_minicluster_that_cannot_start_says_why_and_leaves_nothing(cli: Cli, runs: Runs, tmp_path: Path) -> None:
    write_config(tmp_path / "bad.yaml", spec("localhost/not-there:1"))
    for command, code, words in (("up", 1, []), ("run", 125, ["--", "true"])):
        said = cli(command, "--config", "bad.yaml", *words, code=code).err
        assert "cannot start" in said and "localhost/not-there:1" in said
    runs.wait_nothing_left()


def test_a_running_job_is_followed_and_cancelled(cli: Cli, name: str) -> None:
    running = cli.start("run", "--name", "small", "--config", "small.yaml", "--", "sh", "-c", "echo up; exec sleep 600")
    read_line(running, "stdout", "up")
    [job] = cli("jobs", name, "--json").json
    following = cli.start("logs", name, job["id"])
    read_line(following, "stdout", "up")
    assert cli("cancel", name, job["id"], "--json").json == {"cancelled": [job["id"]]}
    running.communicate()
    following.communicate()
    assert (running.returncode, following.returncode) == (130, 0)


def test_reap_ends_what_has_ended_and_says_so(cli: Cli, runs: Runs, tmp_path: Path) -> None:
    write_config(tmp_path / "brief.yaml", spec(runs.image), idleTimeout=1)
    name = cli("up", "--config", "brief.yaml").out.strip()
    runs.bed.kubectl(
        "wait", "--for=condition=complete", f"job/{name}", f"--namespace={runs.namespace}", "--timeout=60s"
    )
    assert cli("status", name).out.startswith(f"{name}: ended")
    [dry] = cli("reap", "--dry-run", "--json").json
    assert (dry["name"], dry["ended"]) == (name, True)
    assert cli("list", "--json").json, "a dry run ends nothing"
    assert cli("reap").out.startswith(f"{name}: ended: ")
    assert runs.left() == []


def test_doctor_finds_nothing_missing(cli: Cli, config: str) -> None:
    done = cli("doctor", "--config", config)
    assert "MISSING" not in done.out and "ok       may create jobs" in done.out
    assert all(one["ok"] is not False for one in cli("doctor", "--json").json)


def test_doctor_sees_in_a_pod_what_the_image_brings(cli: Cli, config: str, cluster: Cluster, runs: Runs) -> None:
    found = {one["what"]: one for one in cli("doctor", "--config", config, "--image-check", "--json").json}
    assert found["image: Flux"]["ok"] and cluster.image.name in found["image: Flux"]["said"]
    assert found["image: Snakemake"]["ok"] is (True if cluster.image.without_python is None else None)
    assert not [name for name in runs.left() if "doctor" in name]


def test_doctor_names_a_namespace_that_is_not_there(cli: Cli) -> None:
    done = cli("doctor", "--namespace", "not-there", code=1)
    assert "MISSING  namespace: not-there does not exist" in done.out


def test_doctor_names_the_one_right_that_an_account_lacks(cli: Cli, runs: Runs, cluster: Cluster) -> None:
    rules = [
        {
            "apiGroups": [right.group],
            "resources": [right.resource],
            "verbs": [verb for verb in right.verbs if (right.resource, verb) != ("pods/exec", "create")],
        }
        for right in RIGHTS["direct"]
    ]
    rbac = "rbac.authorization.k8s.io"
    role = {
        "apiVersion": f"{rbac}/v1",
        "kind": "Role",
        "metadata": {"name": "nearly"},
        "rules": [rule for rule in rules if rule["verbs"]],
    }
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "nearly"},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "nearly"},
        "subjects": [{"kind": "ServiceAccount", "name": "someone", "namespace": runs.namespace}],
    }
    account = cluster.service_account_kubeconfig(runs.namespace, "someone")
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": [role, binding]})
    cluster.kubectl("create", f"--namespace={runs.namespace}", "--filename=-", input=objects)
    cli.environ["KUBECONFIG"] = str(account)
    done = cli("doctor", code=1)
    assert [line for line in done.out.splitlines() if line.startswith("MISSING")] == [
        f"MISSING  may create pods/exec: in the namespace {runs.namespace}"
    ]
    assert (
        f"cure: ask to have the Role of docs/rbac-direct.yaml bound to you in the namespace {runs.namespace}"
        in done.out
    )
    assert "unknown  namespace:" in done.out, "an account of one namespace may not look at namespaces"


def test_operator_mode_without_the_operator_is_told(cli: Cli, cluster: Cluster) -> None:
    if cluster.has("/apis/flux-framework.org/v1alpha2"):
        pytest.skip("another test has installed the CRD")
    cli.options[1] = "operator"
    assert "MISSING  MiniCluster CRD" in cli("doctor", code=1).out
    assert "the Flux Operator's CRD is not installed" in cli("list", code=1).err


def test_a_shell_in_the_leads_pod_has_flux_both_streams_and_the_programs_exit_code(cli: Cli, name: str) -> None:
    script = "flux getattr rank; hostname; cat; echo wrong >&2; exit 7"
    done = cli("shell", name, "--", "sh", "-c", script, code=7)
    assert (done.out, done.err) == (f"0\n{name}-0\n", "wrong\n")
    assert "not found" in cli("shell", name, "--", "/nowhere", code=127).err
    assert "no MiniCluster of that name has a pod with a lead broker" in cli("shell", "other", "--", "true", code=1).err


def test_a_shell_has_a_terminal_with_its_size_and_takes_keys(cli: Cli, name: str) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    # A shell that hears of the signal just before it starts a command waits for the end of that.
    script = "trap 'exit 9' INT; read line; stty size; echo got:$line; while :; do sleep 0.1; done"
    argv = cli.argv("shell", name, "--", "sh", "-c", script)
    with subprocess.Popen(
        argv,
        cwd=cli.directory,
        env={**cli.environ, "COLUMNS": "", "LINES": ""},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        seen = b""
        os.write(ours, b"typed\n")
        while b"got:typed" not in seen:
            seen += os.read(ours, 1024)
        assert b"33 111" in seen
        os.write(ours, b"\3")  # Ctrl-C is a key
        assert process.wait(60) == 9
    os.close(ours)

"""examples/snakemake/variant-calling in real pods: on a shared volume, with a storage plugin (a directory, a real S3
server) and no shared files, and with Snakemake in a pod too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.pods import create, output_of_pod, pod_spec
from tests.cluster.runs import Runs, spec, write_config
from tests.cluster.testbed.cluster import Cluster
from tests.cluster.testbed.missing import Missing
from tests.cluster.testbed.object_store import ObjectStore
from tests.cluster.volumes import VOLUME, mounted
from tests.cluster.workflows import (
    EXAMPLE,
    ROOT,
    assert_variants,
    config_file,
    for_everybody,
    open_namespace,
    python_in_pods,
    volume,
)
from tests.conftest import missing, require
from tests.support.secrets import assert_absent

__all__ = ["open_namespace", "python_in_pods", "volume"]

#: All but the source cache, which is in a home directory that the pods do not have.
SHARED = ("--shared-fs-usage", "persistence", "input-output", "sources", "software-deployment", "storage-local-copies")


@pytest.fixture
def store(cluster: Cluster, python_in_pods: None, tmp_path: Path) -> Iterator[ObjectStore]:
    """An S3 server of the test's own."""
    try:
        found = ObjectStore(cluster.place, tmp_path / "store")
    except Missing as reason:
        missing("kubernetes", f"no S3 server for the tests: {reason}")
    with found:
        yield found


def snakemake(work: Path, *options: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--executor", "flux-operator", "--jobs", "8", *options],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        umask=0,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stderr


def test_the_example_on_a_shared_volume(runs: Runs, volume: Path, tmp_path: Path) -> None:
    work = volume / "run"
    shutil.copytree(EXAMPLE, work)
    for_everybody(volume)
    options = ("--flux-operator-config", str(config_file(runs, tmp_path, volume)), "--config", "python=python3")
    said = snakemake(work, *options, *SHARED, "--verbose")
    assert_variants(work / "results" / "variants.tsv")
    assert (work / "results" / "variants.png").read_bytes().startswith(b"\x89PNG")
    assert "takes the shell step" in said and "its benchmark needs this package where it runs" in said
    assert runs.left() == []


def test_a_working_directory_that_is_not_in_the_pods_is_refused(runs: Runs, volume: Path, tmp_path: Path) -> None:
    work = tmp_path / "elsewhere"
    shutil.copytree(EXAMPLE, work)
    with pytest.raises(AssertionError, match=r"is not in the pods; mount the volume that holds it there"):
        snakemake(work, "--flux-operator-config", str(config_file(runs, tmp_path, volume)))
    assert runs.left() == []


def prepared_checkout(work: Path) -> None:
    """A git checkout: Snakemake deploys as sources what git knows."""
    require("git")
    shutil.copytree(EXAMPLE, work)
    identity = ["-c", "user.email=nobody@example.org", "-c", "user.name=Nobody"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *words], cwd=work, check=True)


def test_the_example_without_a_shared_file_system(
    runs: Runs, open_namespace: str, volume: Path, tmp_path: Path
) -> None:
    """The storage is a directory that only the storage plugin looks into; the working directory is not in the pods.

    Snakemake stores its archive of the sources for its own user alone, so the pods have to be that user's.
    """
    require("rsync")
    assert runs.namespace == open_namespace
    work = tmp_path / "checkout"
    prepared_checkout(work)
    shutil.copytree(EXAMPLE / "data", volume / "data")
    as_user = {"securityContext": {"runAsUser": os.getuid()}}
    snakemake(
        work,
        *(
            "--flux-operator-config",
            str(config_file(runs, tmp_path, volume, pod=as_user)),
            "--config",
            "python=python3",
            "data=.",
        ),
        *("--shared-fs-usage", "none", "--default-storage-provider", "fs", "--default-storage-prefix", str(volume)),
    )
    assert_variants(volume / "results" / "variants.tsv")
    assert runs.left() == []


def s3_options(runs: Runs, directory: Path, store: ObjectStore, prefix: str) -> tuple[str, ...]:
    """As docs/kubernetes.md has them; the keys are in the environment that `s3_keys` gives."""
    return (
        *("--flux-operator-config", str(config_file(runs, directory, None)), "--shared-fs-usage", "none"),
        *("--default-storage-provider", "s3", "--default-storage-prefix", prefix),
        *("--storage-s3-endpoint-url", store.url),
    )


def s3_keys(store: ObjectStore) -> dict[str, str]:
    return {
        "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": store.access_key,
        "SNAKEMAKE_STORAGE_S3_SECRET_KEY": store.secret_key,
        # Not through a proxy that this machine may need for other addresses.
        "NO_PROXY": "*",
    }


def test_the_example_with_s3_and_no_volume_at_all(
    cluster: Cluster, runs: Runs, store: ObjectStore, tmp_path: Path
) -> None:
    """Restricted pods, as any user, in which there is nothing of this machine."""
    work = tmp_path / "checkout"
    prepared_checkout(work)
    bucket = store.bucket("science")
    for path in (EXAMPLE / "data").iterdir():
        bucket.upload_file(str(path), f"run/data/{path.name}")
    said = snakemake(
        work,
        *s3_options(runs, tmp_path, store, "s3://science/run"),
        *("--config", "python=python3", "data=.", "--verbose"),
        **s3_keys(store),
    )
    table = tmp_path / "variants.tsv"
    bucket.download_file("run/results/variants.tsv", str(table))
    assert_variants(table)
    assert runs.left() == []
    made = {one.key for one in bucket.objects.filter(Prefix="run/results/")}
    assert "run/results/variants.png" in made and not any(key.endswith(".unsorted.bam") for key in made)
    logs = "".join(path.read_text() for path in (work / ".snakemake" / "flux_operator_logs").rglob("*.log"))
    for secret in (store.access_key, store.secret_key):
        for where, text in (("the output", said), ("jobs' logs", logs), ("audit", json.dumps(cluster.audit_events()))):
            assert_absent(text, where, secret)


#: What Flux knows of all jobs of the instance, and every argv in the pod.
LOOK_AROUND = """rule look:
    output: 'seen.txt'
    shell:
        "for id in $(flux jobs -a -n -o {{id}}); do flux job info $id jobspec; flux job info $id eventlog; done "
        "> {output}; ps axww -o args >> {output}"
"""


def test_the_keys_of_the_storage_are_in_no_jobspec_and_no_argv(runs: Runs, store: ObjectStore, tmp_path: Path) -> None:
    """The keys are there, or the job could not have stored what it saw."""
    work = tmp_path / "checkout"
    work.mkdir()
    (work / "Snakefile").write_text(LOOK_AROUND)
    bucket = store.bucket("science")
    snakemake(work, *s3_options(runs, tmp_path, store, "s3://science"), **s3_keys(store))
    seen = bucket.Object("seen.txt").get()["Body"].read().decode()
    jobspecs, _, argv = seen.partition("COMMAND\n")
    assert '"tasks"' in jobspecs and "snakemake" in argv
    assert_absent(seen, "jobspecs or argv", store.access_key)
    assert_absent(seen, "jobspecs or argv", store.secret_key)


def test_keys_that_the_storage_refuses_fail_the_run_with_its_words(
    runs: Runs, store: ObjectStore, tmp_path: Path
) -> None:
    work = tmp_path / "checkout"
    work.mkdir()
    (work / "Snakefile").write_text("rule a:\n    output: 'a.txt'\n    shell: 'echo > {output}'\n")
    keys = {**s3_keys(store), "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "of-somebody-else"}
    with pytest.raises(AssertionError, match=r"403|Forbidden|SignatureDoesNotMatch") as refused:
        snakemake(work, *s3_options(runs, tmp_path, store, "s3://science"), **keys)
    assert "of-somebody-else" not in str(refused.value)
    assert runs.left() == []


def test_a_job_that_fails_without_a_shared_file_system_shows_its_log(runs: Runs, volume: Path, tmp_path: Path) -> None:
    require("rsync")
    work = tmp_path / "checkout"
    work.mkdir()
    (work / "Snakefile").write_text("rule a:\n    output: 'a.txt'\n    shell: 'echo it broke >&2; exit 3'\n")
    for_everybody(volume)
    with pytest.raises(AssertionError, match="it broke"):
        snakemake(
            work,
            *("--flux-operator-config", str(config_file(runs, tmp_path, volume))),
            *("--shared-fs-usage", "none", "--default-storage-provider", "fs", "--default-storage-prefix", str(volume)),
        )
    assert runs.left() == []


def test_snakemake_itself_in_a_pod(cluster: Cluster, runs: Runs, volume: Path) -> None:
    """With the pod's service account and the Role of the documents, and no kubeconfig."""
    work = volume / "run"
    shutil.copytree(EXAMPLE, work)
    for package in ("executors", "snakemake_executor_flux", "snakemake_executor_plugin_flux_operator"):
        shutil.copytree(ROOT / package, volume / "packages" / package)
    minicluster = spec(runs.image, size=2, container=mounted(volume))
    write_config(volume / "run.yaml", minicluster, provisioner="direct")
    for_everybody(volume)
    cluster.kubectl("create", "serviceaccount", "client", f"--namespace={runs.namespace}")
    cluster.kubectl("apply", f"--namespace={runs.namespace}", f"--filename={ROOT / 'docs' / 'rbac-direct.yaml'}")
    cluster.kubectl(
        *("create", "rolebinding", "client", "--role=flux-operator-executors-direct"),
        *(f"--serviceaccount={runs.namespace}:client", f"--namespace={runs.namespace}"),
    )
    script = (
        f"cd {work} && PYTHONPATH={volume}/packages HOME=/tmp python3 -m snakemake --executor flux-operator "
        f"--flux-operator-config {volume}/run.yaml --jobs 8 --config python=python3 {' '.join(SHARED)} 2>&1"
    )
    mounts = {
        "serviceAccountName": "client",
        "volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": VOLUME}}],
    }
    given = pod_spec(runs.image, script, **mounts)
    given["containers"][0]["volumeMounts"] = [{"name": "work", "mountPath": str(volume)}]
    create(cluster, runs.namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}, "spec": given})
    said = output_of_pod(cluster, runs.namespace, "client")
    assert "14 of 14 steps (100%) done" in said
    assert_variants(work / "results" / "variants.tsv")
    assert [json.dumps(name) for name in runs.left()] == ['"pod/client"']

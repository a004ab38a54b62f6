"""The files of docs/how-to/clusters, started with real programs: sshd, SLURM, and what Dask's operator would run."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed import Client
from tests.end_to_end.archives import SmallArchive, environment, promised, wait_for
from tests.end_to_end.test_object_store import InStore
from tests.services.dask_processes import free_port
from tests.services.moto import moto_server
from tests.services.programs import running_program

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

FILES = Path(__file__).parents[2] / "docs" / "how-to" / "clusters"
SCRIPTS = Path(sysconfig.get_path("scripts"))


def need(*programs: str) -> None:
    """Skip where a program is missing."""
    for program in programs:
        if shutil.which(program, path=f"/usr/sbin:/usr/bin:/bin:{os.environ['PATH']}") is None:
            print(f"not started: {program} is not installed")
            pytest.skip(f"{program} is not installed")


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def running(log: Path, *command: object, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program of its own until the block ends."""
    path = f"{SCRIPTS}:/usr/sbin:{os.environ['PATH']}"
    with running_program(command, log, **{**environment(), "PATH": path, **variables}) as process:
        yield process


def changed(folder: Path, name: str, **capitals: object) -> Path:
    """A copy of a script with other values for its capitals, as its reader is told to make."""
    text = (FILES / name).read_text()
    for key, value in capitals.items():
        text, n = re.subn(rf"(?m)^({key}\b[^=\n]*)= .*$", lambda found, value=value: f"{found[1]}= {value!r}", text)
        assert n == 1, key
    path = folder / name
    path.write_text(text)
    return path


def carry_out(script: Path, archive: SmallArchive, out: Path, **variables: str) -> None:
    """Run a script to the end of its build."""
    arguments = ["--region", archive.region, "--out", out, "--cell", "512"]
    log = script.with_suffix(".log")
    with running(log, sys.executable, script, *arguments, **variables) as process:
        code = process.wait(600)
    assert code == 0, log.read_text()


# ssh


@contextmanager
def sshd(folder: Path) -> Iterator[dict[str, Any]]:
    """A server on the loopback for this user's key; options of `asyncssh.connect` for it."""
    need("sshd", "ssh-keygen")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port = free_port()
    keys = folder / "authorized_keys"
    keys.write_text((folder / "user.pub").read_text())
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {keys}\n"
        f"PasswordAuthentication no\nStrictModes no\nPidFile none\nUsePAM no\nPermitRootLogin prohibit-password\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where it locks itself in before a login; Debian makes it at boot
    program = shutil.which("sshd", path="/usr/sbin")
    with running(folder / "sshd.log", program, "-D", "-e", "-f", config):
        wait_for(lambda: answers(port))
        user = getpass.getuser()
        yield {"port": port, "username": user, "client_keys": [str(folder / "user")], "known_hosts": str(known)}


def test_machines_behind_ssh_build_what_one_machine_builds(
    archive: SmallArchive, local: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("asyncssh", reason="asyncssh is not installed")
    with sshd(tmp_path) as options:
        hosts = ["127.0.0.1"] * 3
        script = changed(tmp_path, "ssh.py", HOSTS=hosts, CELLS_A_HOST=1, MEMORY_OF_A_CELL="1GB", SSH=options)
        carry_out(script, archive, tmp_path / "out")
    assert promised(tmp_path / "out" / "small") == local


# SLURM


@contextmanager
def slurm(folder: Path) -> Iterator[Path]:
    """A cluster of one node, this machine; its configuration."""
    need("slurmctld", "slurmd", "sbatch")
    node = socket.gethostname().partition(".")[0]
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    config = folder / "slurm.conf"
    config.write_text(
        f"ClusterName=one\nSlurmctldHost={node}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n"
        f"SlurmctldPort={free_port()}\nSlurmdPort={free_port()}\nAuthType=auth/none\nCredType=cred/none\n"
        "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nReturnToService=2\nMpiDefault=none\n"
        "SelectType=select/cons_tres\nSelectTypeParameters=CR_Core_Memory\n"
        f"StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool\n"
        f"SlurmctldPidFile={folder}/ctld.pid\nSlurmdPidFile={folder}/d.pid\n"
        f"NodeName={node} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=8000\n"
        f"PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE State=UP\n"
    )
    variables = {"SLURM_CONF": str(config)}
    with ExitStack() as stack:
        for daemon in ("slurmctld", "slurmd"):
            stack.enter_context(running(folder / f"{daemon}.log", daemon, "-D", **variables))

        def is_idle() -> bool:
            told = subprocess.run(
                ["sinfo", "--noheader", "--format=%T"], env={**os.environ, **variables}, capture_output=True, text=True
            )
            return told.stdout.strip() == "idle"

        wait_for(is_idle)
        yield config


def test_the_nodes_of_a_slurm_cluster_build_what_one_machine_builds(
    archive: SmallArchive, local: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    with slurm(tmp_path) as config:
        script = changed(
            tmp_path, "slurm.py", JOBS=2, CELLS_A_JOB=1, MEMORY_OF_A_CELL_GB=1, INTERFACE="lo", WALLTIME="00:20:00"
        )
        carry_out(script, archive, tmp_path / "out", SLURM_CONF=str(config))
    assert promised(tmp_path / "out" / "small") == local


# Kubernetes, as far as it goes without one


def job() -> dict[str, Any]:
    """The DaskJob of the file."""
    documents = yaml.safe_load_all((FILES / "kubernetes.yaml").read_text())
    return next(document for document in documents if document["kind"] == "DaskJob")


def strict(schema: Any) -> Any:
    """A schema that refuses keys which it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    open_ = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if schema.get("type") == "object" and "properties" in schema and not open_:
        closed["additionalProperties"] = False
    return closed


def test_the_operators_own_schema_takes_the_file() -> None:
    operator = pytest.importorskip("dask_kubernetes.operator", reason="dask-kubernetes is not installed")
    jsonschema = pytest.importorskip("jsonschema")
    (definition,) = Path(operator.__file__).parent.glob("deployment/**/crds/daskjob.yaml")
    schema = yaml.safe_load(definition.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jsonschema.validate(job()["spec"], strict(schema["properties"]["spec"]))
    wrong = {**job()["spec"], "workers": 3}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, strict(schema["properties"]["spec"]))


def containers(port: int) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Arguments and environment of each container as the operator makes them, the scheduler at a port of ours."""
    controller = pytest.importorskip("dask_kubernetes.operator.controller.controller")
    spec, name = job()["spec"], "sits-build"
    cluster = spec["cluster"]["spec"]
    made = {
        "scheduler": controller.build_scheduler_deployment_spec(name, cluster["scheduler"]["spec"], {}, {}),
        "worker": controller.build_worker_deployment_spec(
            "default", "ns", name, "one", cluster["worker"]["spec"], {}, {}
        ),
        "job": {"spec": {"template": controller.build_job_pod_spec(name, name, "ns", spec["job"]["spec"], {}, {})}},
    }
    found = {}
    for role, document in made.items():
        (container,) = document["spec"]["template"]["spec"]["containers"]
        variables = {item["name"]: item["value"] for item in container.get("env", ())}
        variables["DASK_SCHEDULER_ADDRESS"] = f"tcp://127.0.0.1:{port}"
        found[role] = ([_filled(word, variables) for word in container["args"]], variables)
    return found


def _filled(word: str, variables: dict[str, str]) -> str:
    """An argument with its $(VARIABLES) replaced, as Kubernetes does."""
    return re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], word)


def test_what_the_operator_would_start_builds_into_a_store_what_one_machine_builds(
    archive: SmallArchive, local: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    found = containers(port)
    with moto_server() as store, ExitStack() as stack:
        there = InStore(store, "kubernetes")
        keys = store.environment()
        arguments, variables = found["scheduler"]
        here = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
        stack.enter_context(running(tmp_path / "scheduler.log", *arguments, *here, **variables))
        wait_for(lambda: answers(port))
        arguments, variables = found["worker"]
        stack.enter_context(running(tmp_path / "worker.log", *arguments, **variables, **keys))
        arguments, variables = found["job"]
        arguments[arguments.index("--region") + 1] = str(archive.region)
        arguments[arguments.index("--out") + 1] = there.url
        log = tmp_path / "job.log"
        with Client(variables["DASK_SCHEDULER_ADDRESS"], set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        with running(log, *arguments, "--cell", "512", **variables, **keys) as process:
            assert process.wait(600) == 0, log.read_text()
        assert there.promised == local

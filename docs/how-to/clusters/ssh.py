"""Build a dataset with machines that ssh reaches: python ssh.py --region FILE.yaml --out /shared/cubes

Everything after the name of this file goes to sits-build. Copy it, change the capitals, and run it on any machine that
reaches all of them by ssh without a password. Each needs the same environment at the same place.
"""

import subprocess
import sys
from typing import Any

from distributed import SSHCluster

HOSTS = ["node1", "node1", "node2", "node3"]  # the first one runs the scheduler, each further one workers
CELLS_A_HOST = 4  # worker processes of a host: each builds one cell at a time, on one core
MEMORY_OF_A_CELL = "4GB"  # `sits-build` refuses a worker that cannot hold a cell, and says how much one needs
SSH: dict[str, Any] = {}  # what `ssh` needs beside its own configuration: port, username, client_keys, known_hosts


def main() -> int:
    """The exit code of sits-build."""
    worker = {"nthreads": 1, "n_workers": CELLS_A_HOST, "memory_limit": MEMORY_OF_A_CELL}
    with SSHCluster(
        HOSTS,
        connect_options=SSH,
        worker_options=worker,
        # Without `host` the scheduler would listen on all addresses of its machine.
        scheduler_options={"host": HOSTS[0], "dashboard": False},
        remote_python=sys.executable,
    ) as cluster:
        return subprocess.run(["sits-build", "--scheduler", cluster.scheduler_address, *sys.argv[1:]]).returncode


if __name__ == "__main__":
    sys.exit(main())

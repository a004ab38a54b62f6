"""Build a dataset with the nodes of a SLURM cluster: python slurm.py --region FILE.yaml --out /shared/cubes

Everything after the name of this file goes to sits-build. Copy it, change the capitals, and run it where sbatch works:
on a login node that lets programs run for hours, or in a small job of its own.
"""

import subprocess
import sys

from dask_jobqueue import SLURMCluster

QUEUE: str | None = None  # the partition; None: the cluster's default
ACCOUNT: str | None = None
WALLTIME = "08:00:00"
JOBS = 4  # how many jobs SLURM is asked for; cells are built as soon as one of them runs
CELLS_A_JOB = 4  # worker processes of a job: each builds one cell at a time, on one core
MEMORY_OF_A_CELL_GB = 4  # `sits-build` refuses a worker that cannot hold a cell, and says how much one needs
INTERFACE: str | None = None  # the network between nodes, such as "ib0"; None: the one that a node's name leads to


def main() -> int:
    """The exit code of sits-build."""
    with SLURMCluster(
        queue=QUEUE,
        account=ACCOUNT,
        walltime=WALLTIME,
        cores=CELLS_A_JOB,
        processes=CELLS_A_JOB,
        memory=f"{CELLS_A_JOB * MEMORY_OF_A_CELL_GB}GB",
        interface=INTERFACE,
        # A worker that waits for a scheduler which has gone gives its node back.
        death_timeout=300,
        scheduler_options={"dashboard": False},
    ) as cluster:
        cluster.scale(jobs=JOBS)
        print(f"{JOBS} jobs are asked for; the build begins when the first worker is there", file=sys.stderr)
        cluster.wait_for_workers(1)
        return subprocess.run(["sits-build", "--scheduler", cluster.scheduler_address, *sys.argv[1:]]).returncode


if __name__ == "__main__":
    sys.exit(main())

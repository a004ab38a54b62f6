"""Several processes that share every batch train as one that has whole batches."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.models import sharing
from tests.models.training import sample_of
from tests.synthetic import Synthetic

from sits_catalog.console import Narrator
from sits_catalog.cube import Split
from sits_models.backbones import backbone_class, list_backbones
from sits_models.backbones.unet2d_clstm import StepBatchNorm
from sits_models.cli.launch import processes_of, start_processes
from sits_models.data.loader import TrainingData
from sits_models.data.parts import part_of
from sits_models.data.sampling import EpochPlan
from sits_models.data.transforms import augment
from sits_models.device import Rank
from sits_models.engine import METRICS, Processes, check_devices
from sits_models.recipe import Augmentation, ClassificationRecipe, ContrastRecipe, DataRecipe, DateRule, load_recipe
from sits_models.sample import Sample
from sits_models.tasks.training import train

ROOT = Path(__file__).parents[2]
CASES = ("contrast-kept", "weighted", "unet2d_clstm", "utae", "tsvit")
"""A weighted segmentation is one in UNet3Df."""
MORE = ("contrast-all", "unet3df")
IDLE = frozenset({"encoder.backbone.last.0.bias", "encoder.backbone.last.1.bias"})
"""Of TSViT what is added to all classes alike: no loss sees it, and of a gradient of rounding Adam makes a step."""
PATIENCE_S = 900
"""Processes that start share the cores with whatever else runs."""


def ranks(of: int) -> list[Rank]:
    return [Rank(number=number, of=of) for number in range(of)]


# Parts of a batch


def plan_of(chips: int, batch: int, *, superblocks: int, seed: int) -> EpochPlan:
    """The chip of row k lies in column k; its superblock is one of a few."""
    groups = np.random.default_rng(seed).integers(0, superblocks, chips)
    return EpochPlan(
        batch=batch,
        size=8,
        split=Split.TRAIN,
        places=np.stack([np.zeros(chips, np.int64), np.arange(chips), np.arange(chips)], axis=1),
        seeds=np.arange(chips, dtype=np.uint64),
        around=np.repeat(groups[:, None], 4, axis=1),
        last=np.zeros(chips, np.bool_),
        keep=np.repeat(np.arange(chips)[:, None], 4, axis=1),
    )


@given(
    chips=st.integers(1, 60),
    batch=st.integers(1, 9),
    of=st.integers(1, 9),
    streams=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_parts_of_each_batch_are_the_batch_and_differ_by_a_chip_at_most(
    chips: int, batch: int, of: int, streams: int, seed: int
) -> None:
    plan = plan_of(chips, batch, superblocks=4, seed=seed)
    if of > batch:
        with pytest.raises(ValueError, match=rf"a batch of {batch} chips cannot be shared by {of} processes; set data"):
            part_of(plan, Rank(of=of), streams=streams)
        return
    parts = [part_of(plan, rank, streams=streams) for rank in ranks(of)]
    for number in range(len(plan)):
        whole, shares = plan[number], [part[number] for part in parts if number < len(part)]
        for name in ("places", "seeds", "around", "keep"):
            assert np.array_equal(np.concatenate([getattr(s, name) for s in shares]), getattr(whole, name)), name
        sizes = [len(share.places) for share in shares] + [0] * (of - len(shares))
        assert max(sizes) - min(sizes) <= 1
    assert {len(part) for part in parts} <= {len(plan), len(plan) - 1}


@given(chips=st.integers(4, 60), of=st.integers(2, 4), streams=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_reader_may_forget_a_superblock_with_the_last_of_its_own_chips(
    chips: int, of: int, streams: int, seed: int
) -> None:
    for rank in ranks(of):
        part = part_of(plan_of(chips, 4, superblocks=3, seed=seed), rank, streams=streams)
        assert part.last is not None
        assert part.around is not None
        for stream in range(streams):
            mine = [k for k in range(len(part.places)) if k // part.batch % streams == stream]
            blocks = [int(part.around[k, 0]) for k in mine]
            last = [k for k, block in enumerate(blocks) if block not in blocks[k + 1 :]]
            assert [mine[k] for k in last] == [k for k in mine if part.last[k]]


@given(seed=st.integers(0, 2**32), of=st.integers(1, 5), noise=st.sampled_from([0.0, 0.02]), dropped=st.booleans())
@settings(max_examples=25)
def test_a_part_of_a_batch_changes_as_it_does_in_the_whole(seed: int, of: int, noise: float, dropped: bool) -> None:
    options = Augmentation(flips=True, rotations=True, drop_dates=0.4 if dropped else 0.0, gain=0.1, noise=noise)
    sample = sample_of(3, chips=5)
    whole = augment(sample, options, generator=torch.Generator().manual_seed(seed))
    for rank in ranks(of):
        generator, rows = torch.Generator().manual_seed(seed), rank.part(5)
        part = augment(sharing.part_of(sample, rank), options, generator=generator, part=rows, of=5)
        for name in ("image", "valid", "clear", "crop", "counted", "parcel", "boundary"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rows]), name


def test_a_part_of_another_size_than_announced_is_refused() -> None:
    with pytest.raises(ValueError, match="of a batch of 5 chips was announced; got 2 chips"):
        augment(sample_of(0), Augmentation(), generator=torch.Generator(), part=slice(0, 3), of=5)


@pytest.mark.parametrize("start", ["threads", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_processes_read_of_a_cube_what_one_reads(synthetic: Synthetic, start: str) -> None:
    recipe = DataRecipe(dates=DateRule(pick="random", n=2), size=32, batch=5, chips=10, readers=1)
    recipe = replace(recipe, start=start)  # type: ignore[arg-type]
    cubes = [str(synthetic.folder.path)]
    read: list[list[list[Sample]]] = []
    for rank in (Rank(), *(ranks(2) if start == "threads" else ranks(2)[:1])):
        with TrainingData.open(recipe, cubes=cubes, rank=rank) as data:
            validated = data.evaluation(Split.VALIDATION, size=32) if start == "threads" else []
            read.append([list(data.epoch(3, seed=1)), list(validated)])
    (trained, validated), *parts = read
    for whole, shares in [(trained, [p[0] for p in parts]), (validated, [p[1] for p in parts])]:
        for number, batch in enumerate(whole):
            mine = [share[number] for share in shares if number < len(share)]
            for name in ("image", "day", "crop", "place"):
                found = torch.cat([getattr(sample, name).to(torch.int64) for sample in mine])
                assert torch.equal(found, getattr(batch, name)[: len(found)].to(torch.int64)), name
            assert sum(len(sample.place) for sample in mine) == (len(batch.place) if len(shares) > 1 else 3)


# Which process this is


def test_a_process_knows_its_place_from_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Rank.here() == Rank()
    for name, value in {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    assert Rank.here() == Rank()  # a job of a cluster sets such variables for one process, too
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert Rank.here() == Rank(number=5, of=8, local=1, machines=2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"3 of 8 processes run on this machine, and every machine has to run as many"):
        Rank.here()
    with pytest.raises(ValueError, match="give torchrun the same --nproc-per-node everywhere"):
        Rank(number=1, of=5, machines=2)


def test_more_processes_than_chips_or_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = sharing.recipe_of("unet3df")
    with pytest.raises(ValueError, match="4 processes cannot share a batch of 3 chips; start as many as that at most"):
        check_devices(recipe, Rank(of=4))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="3 processes on a machine with 2 GPUs; start one a GPU, or hide the GPUs"):
        check_devices(recipe, Rank(of=3))
    check_devices(recipe, Rank(of=2))


def test_devices_are_a_number_or_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert processes_of("auto", Rank()) == processes_of("1", Rank()) == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert processes_of("auto", Rank()) == 4
    assert processes_of("1", Rank(of=2)) == processes_of("2", Rank(of=2)) == processes_of("auto", Rank(of=2)) == 2
    for text in ("0", "-1", "two", "²"):
        with pytest.raises(ValueError, match="--devices is auto or a number from 1; got"):
            processes_of(text, Rank())
    with pytest.raises(ValueError, match="torchrun has started 2 processes; leave --devices 3 out"):
        processes_of("3", Rank(of=2))


COMMAND = ["finetune", "--recipe", "recipe.yaml"]


@pytest.mark.parametrize(("local", "speaks"), [(0, True), (1, False)])
def test_a_machine_says_once_that_it_lacks_the_recipe(tmp_path: Path, local: int, speaks: bool) -> None:
    told = {"RANK": 2 + local, "WORLD_SIZE": 4, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "x"}
    done = subprocess.run(
        [sys.executable, "-m", "sits_models.cli", *COMMAND],
        cwd=tmp_path,
        env={**environment(), **{name: str(value) for name, value in told.items()}},
        timeout=PATIENCE_S,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no recipe file recipe.yaml") == speaks
    assert bool(done.stderr) == speaks


def test_what_all_processes_of_a_command_refuse_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sits-model", *COMMAND])
    assert start_processes(2) == 2
    out, said = capfd.readouterr()
    assert (out, said.count("error: no recipe file recipe.yaml"), len(said.splitlines())) == ("", 1, 1)


def test_a_process_that_is_killed_ends_the_others_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    before = set(psutil.Process().children())
    # In place of python: processes that only wait, or end.
    waits = tmp_path / "waits"
    waits.write_text('#!/bin/sh\n[ "$RANK" = 1 ] && kill -9 $$\nexec sleep 600\n')
    waits.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(waits))
    with pytest.raises(
        RuntimeError, match=r"process 1 of 2 was ended by SIGKILL \(out of memory\?\); run the same com"
    ):
        start_processes(2)
    assert set(psutil.Process().children()) <= before


# One step


@pytest.mark.parametrize(
    ("name", "contrast"), [*((name, False) for name in list_backbones()), *((name, True) for name in sharing.DENSE)]
)
def test_every_weight_of_a_backbone_has_a_gradient_for_which_others_wait(name: str, contrast: bool) -> None:
    recipe = sharing.recipe_of(name)
    if contrast:
        recipe = replace(recipe, segmentation=None, contrast=ContrastRecipe(mask_ignored=True))
    elif backbone_class(name).stride == 0:
        recipe = replace(recipe, segmentation=None, classification=ClassificationRecipe())
    dates = 1 if "resnet" in name else sharing.DATES  # a ResNet sees a single date
    objective = sharing.objective_of(recipe, dates=dates)
    objective.loss(sharing.masked(0, dates=dates)).value.backward()
    assert [key for key, weight in objective.named_parameters() if weight.grad is None] == []


def test_the_recurrent_norm_over_all_processes_is_a_batch_norm() -> None:
    values = 3 + 2 * torch.randn(4, 6, 5, 5)
    found = []
    for summed in (None, torch.clone):  # the sum over one process
        norm, given = StepBatchNorm(6, steps=3, passes=2), values.clone().requires_grad_()
        norm.summed = summed
        out = norm(given, 1, of=3)
        (out**3).sum().backward()
        assert norm.weight.grad is not None
        assert given.grad is not None
        found.append((out, given.grad, norm.weight.grad, norm.running_mean, norm.running_var))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


# Real processes


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / METRICS).open(newline="") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def torchrun(out: Path, *cases: str) -> subprocess.Popen[str]:
    """Cases of `sharing` in two processes, in a process group of their own."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*run, "-m", "tests.models.sharing", str(out), *cases]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Cases trained by two processes, and what these said; one of the trainings had been killed and is taken up."""
    folder = tmp_path_factory.mktemp("shared")
    killed = folder / "slow-unet3df"
    with torchrun(folder, killed.name) as child:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and child.poll() is None:
            if (killed / METRICS).exists() and len(rows(killed)) >= 2:
                break
            time.sleep(0.02)
        running = child.poll() is None
        time.sleep(0.15)  # into the next epoch
        kill(child)
        assert running, child.stderr.read() if child.stderr else ""
    assert 2 <= len(rows(killed)) < sharing.EPOCHS
    return folder, trained_by_two(folder, *CASES, "moving-unet3df", killed.name, "refused-tsvit")


def trained_by_two(folder: Path, *cases: str) -> str:
    """What they said."""
    with torchrun(folder, *cases) as child:
        _, said = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, said
    return said


def assert_equal_but_for_rounding(case: str, first: dict[str, torch.Tensor], one: dict[str, torch.Tensor]) -> None:
    objective = sharing.objective_of(sharing.recipe_of(case))
    objective.loss(sharing.masked(0)).value.backward()
    for name in IDLE if case == "tsvit" else ():
        gradient = objective.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().max() < 1e-7
    assert list(one) == list(first)
    moved = {name: float((one[name] - start).abs().max()) for name, start in objective.state_dict().items()}
    assert max(moved.values()) > 1e-3
    for name in one.keys() - IDLE:
        torch.testing.assert_close(first[name], one[name], rtol=0, atol=1e-5, msg=lambda m, n=name: f"{case} {n}: {m}")


def assert_two_equal_one(case: str, folder: Path, alone: Path) -> None:
    """What two processes trained into `folder` is what one does."""
    one = sharing.train(case, alone, Processes()).state_dict()
    first, second = (torch.load(folder / f"weights-{k}.pt", weights_only=True) for k in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_equal_but_for_rounding(case, first, one)
    for ours, theirs in zip(rows(folder), rows(alone), strict=True):
        assert list(ours) == list(theirs)
        for name in ours:
            assert float(ours[name] or 0) == pytest.approx(float(theirs[name] or 0), abs=1e-6), name


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_however_unequal_their_masks(
    shared: tuple[Path, str], tmp_path: Path, case: str
) -> None:
    assert_two_equal_one(case, shared[0] / case, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S)
def test_two_processes_train_as_one_in_other_objectives(tmp_path: Path) -> None:
    trained_by_two(tmp_path, *MORE)
    for case in MORE:
        assert_two_equal_one(case, tmp_path / case, tmp_path / f"{case}-alone")


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S)
def test_the_first_process_alone_writes_and_speaks(shared: tuple[Path, str]) -> None:
    folder, said = shared
    assert [line for line in said.splitlines() if not line.startswith("epoch ")] == []
    assert sum(line.startswith("epoch 1 of") for line in said.splitlines()) == len(CASES) + 1
    for case in CASES:
        assert len(list((folder / case / "tensorboard").glob("events*"))) == 1
        assert not list((folder / case).rglob("*.partial"))


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S)
def test_processes_that_were_killed_and_started_again_end_with_the_same_bits(shared: tuple[Path, str]) -> None:
    folders = shared[0] / "slow-unet3df", shared[0] / "moving-unet3df"
    resumed, whole = (torch.load(folder / "weights-0.pt", weights_only=True) for folder in folders)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert rows(folders[0]) == rows(folders[1])


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S)
def test_where_the_first_process_cannot_write_at_the_end_all_of_them_say_why(shared: tuple[Path, str]) -> None:
    first, second = ((shared[0] / f"refused-{k}.txt").read_text() for k in (0, 1))
    assert first == second
    assert first.startswith("IsADirectoryError: ")


def kill(child: subprocess.Popen[str]) -> None:
    """torchrun gives its processes groups of their own."""
    import psutil

    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    for process in family:
        process.kill()
    psutil.wait_procs(family[1:], timeout=60)


RUN = """
name: tiny
data: {dates: {pick: even, n: 4}, size: 32, batch: 3, chips: 6, readers: 1}
augmentation: {noise: 0.01}
backbone: {name: tsvit, width: 0.125, transformer: {temporal_depth: 1, spatial_depth: 1, heads: 2, head_channels: 8}}
segmentation: {}
training: {epochs: 1, schedule: constant, learning_rate: 0.001}
"""


def run_alone(folder: Path, synthetic: Synthetic) -> list[str]:
    """A run of one process in `one`; the command that trains it, but for its --out."""
    (folder / "tiny.yaml").write_text(RUN)
    cube = str(synthetic.folder.path.absolute())
    with Narrator() as narrator:
        recipe = load_recipe(str(folder / "tiny.yaml"))
        train(recipe, cubes=[cube], weights=None, out=str(folder / "one"), narrator=narrator)
    return [sys.executable, "-m", "sits_models.cli", "finetune", "--recipe", "tiny.yaml", "--cube", cube]


def in_two(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "--devices", "2"],
        cwd=folder,
        env=environment(),
        timeout=PATIENCE_S,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
def test_a_command_starts_its_processes_and_ends_with_the_weights_of_one(synthetic: Synthetic, tmp_path: Path) -> None:
    done = in_two([*run_alone(tmp_path, synthetic), "--out", "two", "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["epochs"] == 1
    found = json.loads((tmp_path / "two" / "environment.json").read_text())
    assert (found["processes"], found["backend"], found["devices"]) == (2, "gloo", ["cpu", "cpu"])
    ours, theirs = (load_file(tmp_path / name / "weights" / "weights.safetensors") for name in ("two", "one"))
    assert list(ours) == list(theirs)
    for name in ours.keys() - IDLE:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.soak  # processes that start for one sentence
@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["training.epochs=9"], "one holds a run of another recipe (training.epochs is 1 there, 9 here); choose an"),
        (["data.batch=1"], "2 processes cannot share a batch of 1 chips; start as many as that at most, or set data."),
    ],
)
def test_what_processes_refuse_is_said_once(synthetic: Synthetic, tmp_path: Path, more: list[str], says: str) -> None:
    command = [*run_alone(tmp_path, synthetic), "--out", "one"]
    refused = in_two([*command, *(f"--set={change}" for change in more)], tmp_path)
    assert refused.returncode == 2
    assert refused.stdout == ""
    (sentence,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert sentence.startswith(f"error: {says}")
    assert "Traceback" not in refused.stderr


@pytest.mark.soak
@pytest.mark.timeout(PATIENCE_S)
def test_where_one_process_is_killed_the_others_end_and_it_is_said(synthetic: Synthetic, tmp_path: Path) -> None:
    import psutil

    command = [*run_alone(tmp_path, synthetic), "--out", "two", "--devices", "2", "--set", "training.epochs=500"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=pipe, stderr=pipe, text=True) as child:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and child.poll() is None and not (tmp_path / "two" / METRICS).exists():
            time.sleep(0.05)
        processes = psutil.Process(child.pid).children()
        assert len(processes) == 2
        processes[1].kill()
        _, said = child.communicate(timeout=120)
    assert child.returncode == 1
    assert "was ended by SIGKILL (out of memory?); run the same command to go on" in said
    assert not any(process.is_running() for process in processes)


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
@pytest.mark.skipif(not shutil.which("g++"), reason="this machine has no C++ compiler, which torch.compile needs")
@pytest.mark.filterwarnings("ignore")  # of torch.compile itself
def test_a_compiled_model_learns_what_it_learns_without(tmp_path: Path) -> None:
    chips = sharing.Masked(Rank(), batches_in_epoch=1, validated=())
    eager = sharing.train("unet3df", tmp_path / "eager", Processes(), chips=chips, epochs=1).state_dict()
    compiled = sharing.train("unet3df", tmp_path / "compiled", Processes(), chips=chips, epochs=1, compile=True)
    assert list(compiled.state_dict()) == list(eager)
    for name, tensor in compiled.state_dict().items():
        torch.testing.assert_close(tensor, eager[name], rtol=0, atol=1e-5)

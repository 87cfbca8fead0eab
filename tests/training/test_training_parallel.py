"""Runs on two processes: data parallel, and with split parameters."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import ParallelismConfig
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file

from matrix_video.backbones.adapter import LORA_FILE, load_adapter
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.backbones.processes import PATIENCE
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset
from matrix_video.services.errors import MatrixError
from matrix_video.training.config import TrainConfig
from matrix_video.training.inputs import encoded_set
from matrix_video.training.parallel import Parallel, make_accelerator
from matrix_video.training.run import TrainResult, train

Make = Callable[..., TrainConfig]
Pair = Callable[..., None]

RUN = """
import os
os.environ.update({environment!r})
import torch
torch.set_num_threads(1)
from torch.distributed.tensor import DTensor
from matrix_video.backbones.loading import load_pipeline
from matrix_video.services.errors import MatrixError
from matrix_video.training import loop
from matrix_video.training.config import TrainConfig
from matrix_video.training.run import train

config = TrainConfig.model_validate_json({settings!r})
update = loop.Trainer.update

def checked(self, step, calls):
    held = [*self.student.backbone.transformer.parameters(), *self.student.parameters.values()]
    assert all(isinstance(p, DTensor) for p in held) == self.parallel.shard
    assert self.parallel.shard == {split!r}
    assert self.parallel.processes == 2
    return update(self, step, calls)

loop.Trainer.update = checked
exec({also!r})
try:
    told = str(train(config, load_pipeline(config.model, dtype=torch.{dtype}, device="cpu")))
except MatrixError as error:
    told = str(error)
(config.out.parent / ("told" + os.environ["RANK"])).write_text(told)
torch.distributed.destroy_process_group()
"""

IN_RANK_1 = """
make_batch = loop.make_batch

def disturbed(*arguments):
    batch = make_batch(*arguments)
    {trouble}
    return batch

if os.environ["RANK"] == "1":
    loop.make_batch = disturbed
"""

FSDP_ON_CPUS = """
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import FSDPModule
from matrix_video.training import run

make_accelerator, place = run.make_accelerator, run.Parallel.place

def as_on_gpus(config):
    made = make_accelerator(config)
    os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    os.environ.update(FSDP_CPU_RAM_EFFICIENT_LOADING="true", FSDP_RESHARD_AFTER_FORWARD="false")
    made.state.distributed_type = DistributedType.FSDP
    made.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    return made

def placed(self, trainee, blocks):
    place(self, trainee, blocks)
    assert blocks and all(isinstance(block, FSDPModule) for block in blocks)

run.make_accelerator, run.Parallel.place = as_on_gpus, placed
"""
"""accelerate's own FSDP2, which it starts on GPUs alone."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Runs a training on two processes, forked from one that has done the imports."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["matrix_video.training.run"])
    started: list[BaseProcess] = []

    def run(
        settings: TrainConfig, dtype: str = "float32", also: str = "", split: bool | None = None
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        processes: list[BaseProcess] = []
        for rank in range(2):
            environment = {
                "WORLD_SIZE": "2",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "ACCELERATE_USE_CPU": "true",
            }
            told = settings.model_dump_json()
            expected = settings.shard if split is None else split
            code = RUN.format(
                environment=environment, settings=told, dtype=dtype, also=also, split=expected
            )
            processes.append(context.Process(target=exec, args=(code, {})))
        started.extend(processes)
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=300)
            assert process.exitcode == 0

    yield run
    for process in started:
        process.kill()
        process.join()


def state_of(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the run's last checkpoint."""
    (file,) = (run / "checkpoints").glob("step-*")
    return load_file(file)


def assert_near(left: Path, right: Path, relative: float, prefix: str) -> None:
    ours, theirs = state_of(left), state_of(right)
    assert ours.keys() == theirs.keys()
    chosen = [name for name in ours if name.startswith(prefix)]
    assert len(chosen) > 8
    for name in chosen:
        largest = theirs[name].abs().max()
        assert (ours[name] - theirs[name]).abs().max() <= relative * largest, name


@pytest.mark.parametrize("way", ["data parallel", "split parameters", "accelerate's FSDP"])
def test_float64_weights_equal_those_of_one_process(
    config: Make, tmp_path: Path, model_path: str, pair: Pair, way: str
) -> None:
    # Updates follow scores, which are the averaged weights'.
    common = {"model": model_path, "batch": 4, "steps": 10, "heldout_every": 4, "ema": 0.9}
    one, two = config(**common, out=tmp_path / "1"), config(**common, out=tmp_path / "2")
    train(one, load_pipeline(model_path, dtype=torch.float64, device="cpu"))
    # Each of them in two parts, whose gradients are averaged once.
    shared = two.model_copy(update={"shard": way == "split parameters", "micro_batch": 1})
    fsdp = way == "accelerate's FSDP"
    pair(shared, "float64", FSDP_ON_CPUS if fsdp else "", split=fsdp or shared.shard)
    for prefix in ("parameter/", "average/"):
        assert_near(two.out, one.out, 1e-6, prefix)
    stored = {n: t.dtype for n, t in state_of(two.out).items() if n.startswith("parameter/")}
    assert any("decoder" in name for name in stored)
    assert set(stored.values()) == {torch.float64}
    adapter = load_adapter(tiny_pipeline(0), two.out / "adapter")
    assert adapter.condition is not None
    kept = load_file(two.out / "adapter" / LORA_FILE)
    for name, value in load_file(one.out / "adapter" / LORA_FILE).items():
        torch.testing.assert_close(kept[name], value, rtol=1e-5, atol=1e-7)


def test_gradients_of_the_first_update_equal_those_of_one_process(
    config: Make, tmp_path: Path, model_path: str, pair: Pair
) -> None:
    """AdamW's first moment after one update is a tenth of the gradient."""
    common = {"model": model_path, "batch": 4, "steps": 1, "clip_grad": 1e9, "heldout_samples": 0}
    one, two = config(**common, out=tmp_path / "1"), config(**common, out=tmp_path / "2")
    train(one)
    pair(two)
    assert_near(two.out, one.out, 1e-5, "exp_avg/")


def test_a_loss_that_is_no_number_in_one_process_stops_both(
    config: Make, tmp_path: Path, model_path: str, pair: Pair
) -> None:
    settings = config(model=model_path, batch=4, out=tmp_path / "run")
    pair(settings, also=IN_RANK_1.format(trouble="batch.latents_BFCHW.fill_(float('nan'))"))
    first, second = ((tmp_path / f"told{rank}").read_text() for rank in range(2))
    assert first == second
    assert re.match(r"step 1: the diffusion loss of sample 000\d is nan", first), first
    assert [f.name for f in (settings.out / "checkpoints").iterdir()] == [
        "step-00000000.safetensors"
    ]


def test_a_signal_to_one_process_stops_both_with_a_checkpoint(
    config: Make, tmp_path: Path, model_path: str, pair: Pair
) -> None:
    settings = config(model=model_path, batch=4, steps=8, out=tmp_path / "run")
    trouble = "import signal; os.kill(os.getpid(), signal.SIGTERM)"
    pair(settings, also=IN_RANK_1.format(trouble=trouble))
    for rank in range(2):
        assert (tmp_path / f"told{rank}").read_text() == str(TrainResult(None, 1, None))
    assert [f.name for f in (settings.out / "checkpoints").iterdir()] == [
        "step-00000001.safetensors"
    ]


def test_split_parameters_in_one_process_and_their_adapter(
    pipe: Any, config: Make, tmp_path: Path
) -> None:
    plain = config(out=tmp_path / "plain", gradient_checkpointing=True)
    train(plain, tiny_pipeline(0))
    split = config(out=tmp_path / "split", gradient_checkpointing=True, shard=True)
    result = train(split, tiny_pipeline(0))
    assert not torch.distributed.is_initialized()
    assert_near(split.out, plain.out, 1e-5, "parameter/")
    assert result.adapter is not None
    adapter = load_adapter(pipe, result.adapter)
    assert adapter.condition is not None
    stored = state_of(split.out)["parameter/condition.conv.weight"]
    assert torch.equal(adapter.condition.projection.conv.weight, stored)


@pytest.mark.parametrize("version", ["1", "2"])
def test_fsdp_that_would_not_be_is_refused(
    pipe: Any, config: Make, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    for name in ("ACCELERATE_USE_FSDP", "FSDP_SYNC_MODULE_STATES", "ACCELERATE_USE_CPU"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("FSDP_VERSION", version)
    with pytest.raises(MatrixError, match=r"asked for FSDP, .* on GPUs; elsewhere .*--shard"):
        train(config(), pipe)


def test_version_1_of_fsdp_is_refused(
    pipe: Any, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the launcher asks for it where it is not told otherwise."""
    for name in ("ACCELERATE_USE_FSDP", "FSDP_SYNC_MODULE_STATES"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    with pytest.raises(MatrixError, match=r"version 1 of FSDP.*--fsdp_version 2"):
        train(config(), pipe)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"FSDP_OFFLOAD_PARAMS": "true"}, r"offloads to the CPU.*--fsdp_offload_params false"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, r"recomputes.*train with --gradient-checkp"),
        ({"FSDP_IGNORED_MODULES": "proj.*"}, r"leaves modules out.*no fsdp_ignored_modules"),
        ({}, r"another parallelism beside FSDP.*no --use_parallelism_config"),
    ],
)
def test_fsdp_that_a_run_cannot_do_with_is_refused(
    config: Make, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str], told: str
) -> None:
    accelerator = make_accelerator(config())
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **asked}.items():
        monkeypatch.setenv(name, value)
    state = accelerator.state
    monkeypatch.setattr(state, "distributed_type", DistributedType.FSDP)
    monkeypatch.setattr(state, "fsdp_plugin", FullyShardedDataParallelPlugin(), raising=False)
    monkeypatch.setattr(state, "parallelism_config", None if asked else ParallelismConfig())
    with pytest.raises(MatrixError, match=told):
        Parallel(accelerator, shard=False)


@pytest.mark.parametrize(("asked", "precision"), [("bf16", "no"), ("fp16", "bf16")])
def test_a_launchers_other_precision_is_refused(
    pipe: Any, config: Make, monkeypatch: pytest.MonkeyPatch, asked: str, precision: Any
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    told = rf"mixed precision {asked}, the run for --precision {precision}.*--mixed_precision no"
    with pytest.raises(MatrixError, match=told):
        train(config(precision=precision), pipe)


def test_precision_stays_ours_where_the_launcher_agrees(
    config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """accelerate's own would put maps, decoder and losses in bfloat16 too."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    made = make_accelerator(config(precision="bf16"))
    assert made.mixed_precision == "no"
    assert made.init_handler is not None
    assert made.init_handler.timeout == PATIENCE  # others wait while one makes videos


def test_processes_share_the_encoding(pipe: Any, config: Make, tmp_path: Path) -> None:
    begun: list[int] = []

    class Watched(Dataset):
        def __getitem__(self, index: int) -> Any:
            begun.append(index)
            return super().__getitem__(index)

    for process, order in enumerate(([0, 1, 2, 3, 4], [2, 3, 4, 0, 1])):
        settings = config(cache=tmp_path / f"cache{process}")
        data, backbone = Watched(settings.data), backbone_for(pipe)
        encoded_set(backbone, data, settings, "encode", process=process, processes=2)
        assert begun == order
        begun.clear()
        encoded_set(backbone, data, settings, "encode", process=1 - process, processes=2)
        assert begun == []  # the other finds it all done


@pytest.mark.gpu
def test_accelerates_fsdp_as_its_launcher_starts_it(
    config: Make, tmp_path: Path, model_path: str
) -> None:
    """On two GPUs, or one. AdamW's first moment after one update is a tenth of the gradient."""
    common = {"model": model_path, "batch": 4, "steps": 1, "clip_grad": 1e9, "heldout_samples": 0}
    one, shared = config(**common, out=tmp_path / "1"), config(**common, out=tmp_path / "n")
    train(one)
    script = tmp_path / "run.py"
    script.write_text(
        "from matrix_video.training import loop\n"
        "from matrix_video.training.config import TrainConfig\n"
        "from matrix_video.training.run import train\n"
        "place = loop.Parallel.place\n"
        "def placed(self, trainee, blocks):\n"
        "    assert self.shard\n"
        "    place(self, trainee, blocks)\n"
        "    assert all(type(p).__name__ == 'DTensor' for p in trainee.parameters())\n"
        "loop.Parallel.place = placed\n"
        f"train(TrainConfig.model_validate_json({shared.model_dump_json()!r}))\n"
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--use_fsdp"]
    launch += ["--fsdp_version", "2", "--num_processes", str(min(2, torch.cuda.device_count()))]
    subprocess.run([*launch, str(script)], check=True, timeout=600)
    assert_near(shared.out, one.out, 1e-2, "exp_avg/")  # convolutions are in TF32
    assert load_adapter(tiny_pipeline(0), shared.out / "adapter").condition is not None

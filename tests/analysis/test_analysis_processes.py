"""An analysis in two processes is that in one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from matrix_video.analysis.collect import measure_clip
from matrix_video.analysis.layers import read_choice
from matrix_video.analysis.probe import Probe
from matrix_video.analysis.records import read_table, to_table
from matrix_video.analysis.sink_records import read_sinks, to_sink_table
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.backbones.processes import Processes, processes
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset

MAIN = """
import matrix_video.analysis.run as run
from matrix_video.cli import main
run.draw_plots = lambda *_: None  # most of the time of so small a run
main()
"""


def test_shares_cover_everything_once() -> None:
    for count in (1, 2, 3):
        shares = [Processes(index, count, None).share(7) for index in range(count)]
        assert sorted(i for share in shares for i in share) == list(range(7))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    alone = processes()
    assert (alone.index, alone.count, alone.device, alone.main) == (0, 1, None, True)
    alone.wait()  # for nobody


def test_two_processes_write_the_tables_of_one(data: Path, tmp_path: Path) -> None:
    pipe: Any = tiny_pipeline(layers=2)
    pipe.save_pretrained(tmp_path / "model")
    model = str(tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", MAIN, "analyze", "--model", model]
    command += ["--data", str(data), "--levels", "1", "--overlays", "0", "--draws", "100"]
    command += ["--out", str(tmp_path / "two")]
    started = [
        subprocess.Popen(
            command,
            # As accelerate launch --cpu sets it: gloo.
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "ACCELERATE_USE_CPU": "true",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors
    (shown, told), (silent, quiet) = outputs
    assert "v2t: layers" in shown  # the main process alone speaks
    assert "analyze: 2/2" in told  # and counts its own share of the three samples
    assert silent == ""
    assert "analyze:" not in quiet
    backbone, clips = backbone_for(load_pipeline(model)), Dataset(data)
    measured = [measure_clip(backbone, clips[i], Probe(levels=1)) for i in range(3)]
    rows = to_table(row for of_clip in measured for row in of_clip.rows)
    sinks = to_sink_table(row for of_clip in measured for row in of_clip.sinks)
    assert read_table(tmp_path / "two" / "attention.parquet").data.equals(rows.data)
    assert read_sinks(tmp_path / "two" / "sinks.parquet").data.equals(sinks.data)
    assert read_choice(tmp_path / "two" / "layers.json").data.samples == 3

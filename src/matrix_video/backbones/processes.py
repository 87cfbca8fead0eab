"""The processes that one command was started in, by ``accelerate launch``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

PATIENCE: Final = timedelta(days=7)
"""How long a process waits for the others: shares of the work may differ by hours, above all when a
stopped run goes on, or one makes videos while the others wait."""


@dataclass(frozen=True)
class Processes:
    """This process among ``count`` equal ones; the main one has index 0."""

    index: int
    count: int
    device: torch.device | None
    """This process's own; None: it is alone, and whoever needs a device chooses."""

    @property
    def main(self) -> bool:
        return self.index == 0

    def share(self, total: int) -> range:
        """This process's part of the indices below ``total``; the parts follow from their number
        alone, and neighbours, which are often alike in cost, go to different processes."""
        return range(self.index, total, self.count)

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            PartialState().wait_for_everyone()


def processes() -> Processes:
    """Join the other processes, if there are any."""
    # The flag is `accelerate launch --cpu`'s, which PartialState itself does not read.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)
    count = int(state.num_processes)
    return Processes(int(state.process_index), count, state.device if count > 1 else None)

"""What stops a run that trains nothing."""

from __future__ import annotations

import pytest

from matrix_video.services.errors import MatrixError
from matrix_video.training.guards import PATIENCE, STILL, Proof, Stillness


def test_a_term_without_a_map_is_found_in_time() -> None:
    proof = Proof(["sga", "spa"])
    proof.expect(PATIENCE - 1, samples=100)
    with pytest.raises(MatrixError, match="SGA loss covers no token: none of the first 32"):
        proof.expect(PATIENCE, samples=100)
    with pytest.raises(MatrixError, match="none of the first 3 samples"):  # all there are
        proof.expect(3, samples=3)
    proof.open.discard("sga")
    with pytest.raises(MatrixError, match=r"spa: the SPA loss.*an instance in its first frame"):
        proof.expect(40, samples=100)
    proof.open.clear()
    proof.expect(40, samples=100)


def test_a_loss_that_stays_stops_the_run() -> None:
    still = Stillness()
    for step in range(STILL - 1):
        still.see({"diffusion": float(step), "sga": 1.5})
    with pytest.raises(MatrixError, match=r"data: the sga loss is 1\.5 to the last bit for 20"):
        still.see({"diffusion": 0.0, "sga": 1.5})


def test_a_loss_that_moves_once_is_counted_anew() -> None:
    still = Stillness()
    for step in range(3 * STILL):
        still.see({"spa": float(step // (STILL - 1))})

"""The page in a real browser: it draws, runs its script, plays its clips, in both schemes."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from matrix_video.data.video import write_video
from matrix_video.report.content import GalleryClip, ReportContent
from matrix_video.report.page import build_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def page(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(tmp_path_factory.mktemp("look"), content)


def chromium(page: Path, folder: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=2000",
            *arguments,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def shot(page: Path, folder: Path, width: int, *arguments: str) -> NDArray[np.uint8]:
    file = folder / "shot.png"
    chromium(page, folder, f"--screenshot={file}", f"--window-size={width},6000", *arguments)
    return np.asarray(Image.open(file).convert("RGB"))


def test_light_and_dark_are_drawn(page: Path, tmp_path: Path) -> None:
    light = shot(page, tmp_path, 1280, "--blink-settings=preferredColorScheme=1")
    dark = shot(page, tmp_path, 1280, "--blink-settings=preferredColorScheme=0")
    assert light[2, 2].min() > 230
    assert dark[2, 2].max() < 40
    for picture in (light, dark):
        assert len(np.unique(picture[::9, ::9].reshape(-1, 3), axis=0)) > 300


def probed(page: Path, folder: Path, script: str, *arguments: str) -> str:
    """What a script finds on the loaded page: it leaves a string in ``document.title``."""
    probe = page.with_name("probe.html")
    text = page.read_text(encoding="utf-8")
    loaded = f"<script>onload = () => {{ {script} }};</script></body>"
    probe.write_text(text.replace("</body>", loaded), encoding="utf-8")
    dom = chromium(probe, folder, "--dump-dom", *arguments)
    probe.unlink()
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    return found[1]


def test_nothing_is_wider_than_a_phone(page: Path, tmp_path: Path) -> None:
    script = "document.title = document.documentElement.scrollWidth + ' ' + innerWidth;"
    wide, window = probed(page, tmp_path, script, "--window-size=500,2000").split()
    assert int(wide) <= int(window) == 500


def test_clips_play_together_and_a_frame_is_sought_by_its_number_in_the_video(
    content: ReportContent, tmp_path: Path
) -> None:
    """A strip that left frames out shows the last one that it kept, up to the frame asked for."""
    frames = np.zeros((301, 128, 16, 3), dtype=np.uint8)
    frames[..., 0] = np.arange(301)[:, None, None] % 256
    write_video(tmp_path / "long.mp4", frames, 30.0, lossless=True)
    item = content.gallery[0]
    clips = (*item.clips[:2], GalleryClip("long", tmp_path / "long.mp4"))
    page = build_report(
        tmp_path / "report",
        replace(content, gallery=(replace(item, clips=clips, overlays=()),), layers=()),
    )
    script = """
        const clips = [...document.querySelectorAll('.film')];
        const plays = clips.map((clip) => clip.getAnimations()[0]);
        const states = () => [...new Set(plays.map((play) => play.playState))].join();
        const moments = () => new Set(plays.map((play) => Math.round(play.currentTime))).size;
        const loaded = clips.filter((clip) => clip.firstElementChild.naturalWidth > 0).length;
        const places = () => clips.map((clip) => {
          const matrix = new DOMMatrix(getComputedStyle(clip).transform);
          const frames = Number(clip.parentElement.style.getPropertyValue('--n'));
          return Math.round(-frames * matrix.m42 / clip.getBoundingClientRect().height);
        }).join();
        const slider = document.getElementById('frame');
        const button = document.querySelector('[data-frame]');
        const found = [document.documentElement.className, loaded, slider.max];
        Promise.all(plays.map((play) => play.ready)).then(() => setTimeout(() => {
          found.push(states(), moments());
          for (const frame of [7, 9, 200, 300]) {
            button.dataset.frame = frame;
            button.click();
            found.push(places());
          }
          found.push(states(), slider.value);
          document.title = found.join(' ');
        }, 100));
    """
    sought = "7,7,2 9,9,3 16,16,66 16,16,100"
    assert probed(page, tmp_path, script) == f"js 3 300 running 1 {sought} paused 300"

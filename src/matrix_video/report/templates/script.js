(() => {
  "use strict";
  const root = document.documentElement;
  const pause = document.getElementById("pause");
  if (!pause) return;
  root.classList.add("js");
  const HOLD = 0.86; // share of a round in which frames move; the last one then stands
  const slider = document.getElementById("frame");
  const shown = document.querySelector("output[for=frame]");
  const clips = [...document.querySelectorAll(".clip")].map((clip) => ({
    frames: Number(clip.style.getPropertyValue("--n")),
    stride: Number(clip.dataset.stride),
    play: clip.firstElementChild.getAnimations()[0],
  })).filter((clip) => clip.play);

  const seek = (frame) => { // a frame of the videos; long strips hold every stride-th alone
    pause.checked = true;
    for (const { frames, stride, play } of clips) {
      const share = (Math.min(Math.floor(frame / stride), frames - 1) + 0.5) / frames;
      play.currentTime = share * HOLD * play.effect.getComputedTiming().duration;
    }
    slider.value = String(frame);
    shown.textContent = String(frame);
  };

  const last = Math.max(0, ...clips.map((clip) => (clip.frames - 1) * clip.stride));
  slider.max = String(last);
  slider.closest("label").hidden = last === 0;
  slider.addEventListener("input", () => seek(Number(slider.value)));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-frame]");
    if (button) seek(Number(button.dataset.frame));
  });

  pause.checked = matchMedia("(prefers-reduced-motion: reduce)").matches;
  // All clips begin together, whenever they were parsed.
  Promise.all(clips.map((clip) => clip.play.ready)).then(() => {
    for (const { play } of clips) play.currentTime = 0;
  });
})();

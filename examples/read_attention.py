"""Where a phrase and a region are looked at, read inside a stock Wan text-to-video call.

    python examples/read_attention.py    # random weights: shows that it works, and nothing else
    python examples/read_attention.py --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers --clip 81 480 832 \
        --steps 30 --layer 15 --prompt "a man lifts the cup" --phrase cup --out overlay.png

Left, V2T: how much each video token attends to the phrase. Right, V2V: where the tokens of a region
of the first frame look (``--box``: top, left, bottom, right in 0 to 1). Token frames go down; maps
are means over heads and steps (Wan 2.2: those of the expert for high noise).
"""

import argparse

import torch
from PIL import Image
from torch.nn.functional import one_hot

from matrix_video.analysis.overlays import overlay_strip, overlay_video
from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.tap import tap
from matrix_video.backbones.loading import load_pipeline
from matrix_video.backbones.wan import WanBackbone
from matrix_video.data.spans import find_phrases

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--model", help="folder in diffusers' format, or hub id")
parser.add_argument("--prompt", default="a small red ball pushes the box")
parser.add_argument("--phrase", default="red ball", help="words of the prompt")
parser.add_argument("--box", type=float, nargs=4, default=(0.0, 0.0, 0.5, 0.5))
parser.add_argument("--clip", type=int, nargs=3, default=(9, 64, 96), help="frames height width")
parser.add_argument("--layer", type=int, default=1)
parser.add_argument("--steps", type=int, default=4)
parser.add_argument("--out", default="overlay.png")
args = parser.parse_args()
backbone = WanBackbone(load_pipeline(args.model) if args.model else WanBackbone.tiny("t2v"))
grid, length = backbone.grid(*args.clip), backbone.num_text_tokens
(said,) = find_phrases(args.prompt, [args.phrase])
print(f"{args.phrase!r} is said {len(said)} times; the map is of all of them")
(words,) = backbone.phrase_tokens(args.prompt, [said])
phrase = one_hot(torch.tensor(words), length).float().mean(0).view(1, 1, -1)  # sums to 1
region = torch.zeros(grid.shape)
top, left, bottom, right = (round(x * n) for x, n in zip(args.box, 2 * grid.shape[1:], strict=True))
region[0, top:bottom, left:right] = 1 / ((bottom - top) * (right - left))
sites = {kind: backbone.site(args.layer, kind, grid, length) for kind in ("v2t", "v2v")}
maps = []


def read(calls) -> None:
    v2t = v2t_maps(calls["v2t"], sites["v2t"], phrase)
    maps.append(torch.cat([v2t, v2v_maps(calls["v2v"], sites["v2v"], region.view(1, 1, -1))]))


noise = torch.randn(1, *backbone.latent_shape(*args.clip), generator=torch.manual_seed(0))
call = backbone.call_arguments(noise, args.clip, None)  # with max_sequence_length = length
with tap(backbone.transformer, sites, after=read):
    video = backbone.pipe(prompt=args.prompt, num_inference_steps=args.steps, **call).frames[0]
maps = maps[::2]  # guidance: each step runs the conditional branch, then the other
found = torch.stack(maps).mean(0).view(2, *grid.shape).double().cpu().numpy()
panels = overlay_video((video * 255).round().astype("uint8"), found, grid, [args.phrase, "region"])
Image.fromarray(overlay_strip(panels, grid)).save(args.out)

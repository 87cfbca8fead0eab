"""Observe the attention of chosen layers and read exact maps from it. Torch only.

Tap, readout and backbone together::

    from matrix_video import backbone_for, load_pipeline, tap, v2t_maps, v2v_maps

    backbone = backbone_for(load_pipeline("tiny"))
    grid = backbone.grid(17, 64, 64)                       # token frames, rows, columns
    latents = backbone.encode_video(frames_BTHWC)          # uint8 [B,17,64,64,3]
    image = backbone.encode_image(frames_BTHWC[:, 0], 17)  # None where not backbone.takes_image
    text = backbone.encode_text(captions, frames_BTHWC[:, 0])
    t = backbone.sample_timesteps(len(captions), generator)
    noise = torch.randn_like(latents)
    sites = backbone.sites([3, 5], "v2t", grid) | backbone.sites([1], "v2v", grid)
    with tap(backbone.transformer, sites, require_grad=True) as captures:
        prediction = backbone.predict(backbone.add_noise(latents, noise, t), t, text, image)
        name = backbone.site(3, "v2t", grid, backbone.num_text_tokens).module
        maps = v2t_maps(captures[name], sites[name], phrases_BRL)  # [B,R,N], N = F·h·w
    loss = (prediction - backbone.target(latents, noise, t)).square().mean() + f(maps)
    loss.backward()  # inside or outside the tap, with or without gradient checkpointing

Inside a stock pipeline's own call, read after each forward: ``tap(model, sites, after=read)``
calls ``read(captures)``. Where ``backbone.guidance`` is "batched" a forward is [unconditional,
conditional]: keep the second half, ``dataclasses.replace(site, keep=slice(batch, None))``. Where it
is "separate", the first forward of a step is the conditional one, as in
``examples/read_attention.py``. A readout sees the same P in- and outside of autocast.
"""

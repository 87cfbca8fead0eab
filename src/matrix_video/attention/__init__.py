"""Observe the attention of chosen layers and read exact maps from it. Torch only.

Tap, readout and backbone together::

    import torch
    from matrix_video import backbone_for, find_phrases, load_pipeline, tap, v2t_maps, v2v_maps

    frames_BTHWC = torch.randint(256, (1, 17, 64, 64, 3), dtype=torch.uint8)  # your clip
    caption = "the red ball pushes the blue box"

    backbone = backbone_for(load_pipeline("tiny"))
    grid, length = backbone.grid(17, 64, 64), backbone.num_text_tokens
    (words,) = backbone.phrase_tokens(caption, find_phrases(caption, ["red ball"]))
    phrases_BRL = torch.zeros(1, 1, length)  # weights over text tokens, rows sum to 1
    phrases_BRL[0, 0, list(words)] = 1 / len(words)
    regions_BRN = torch.zeros(1, 1, grid.num_tokens)  # weights over the tokens of frame 0
    regions_BRN[0, 0, :4] = 1 / 4

    latents = backbone.encode_video(frames_BTHWC)
    image = backbone.encode_image(frames_BTHWC[:, 0], 17)  # None where not backbone.takes_image
    text = backbone.encode_text([caption], frames_BTHWC[:, 0])
    noise, t = torch.randn_like(latents), backbone.sample_timesteps(1, torch.Generator())
    sites = backbone.sites([3], "v2t", grid) | backbone.sites([1], "v2v", grid)
    spoken, seen = sites  # names of the attention modules
    with tap(backbone.transformer, sites, require_grad=True) as captures:
        prediction = backbone.predict(backbone.add_noise(latents, noise, t), t, text, image)
        said_BRN = v2t_maps(captures[spoken], sites[spoken], phrases_BRL)  # N = F·h·w
        led_BRN = v2v_maps(captures[seen], sites[seen], regions_BRN)  # per_head=True: [B,A,R,N]
    error = (prediction - backbone.target(latents, noise, t)).square().mean()
    (error + said_BRN.mean() + led_BRN.mean()).backward()  # inside or outside the tap

Inside a stock pipeline's own call, read after each forward: ``tap(model, sites, after=read)``
calls ``read(captures)``. Pass ``**backbone.call_arguments(noise, (17, 64, 64), first_frame)``, for
sites are declared for one clip size and one text length, and a stock call's ``max_sequence_length``
has another default. Where ``backbone.guidance`` is "batched" a forward is [unconditional,
conditional]: keep the second half, ``dataclasses.replace(site, keep=slice(batch, None))``. Where it
is "separate", the first forward of a step is the conditional one, as in
``examples/read_attention.py``. A readout sees the same P in- and outside of autocast.
"""

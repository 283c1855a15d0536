"""A user's program, for a type checker (mypy, in CI): what is right passes, and what is wrong is found, else the `ignore` is unused."""
from collections.abc import Iterator

import minisd

pipe: minisd.Pipeline = minisd.load("a folder", device="cpu", low_memory=True)
steps: Iterator[minisd.Step] = pipe.txt2img_steps("a fox", seed=1, sampler="euler", width=512)
first: float = next(iter(steps)).sigma
pipe.img2img("a fox", "a.png", strength=0.5, num_images=2, progress=True)
minisd.save("a.png", minisd.grid(pipe.txt2img(["a", "b"], seed=[1, 2])))
names: list[str] = list(minisd.samplers())
pipe.txt2img("a fox", steps=3)  # type: ignore[call-arg]
pipe.txt2img("a fox", width="large")  # type: ignore[arg-type]
pipe.upscale("a fox", "a.png", width=512)  # type: ignore[call-arg]

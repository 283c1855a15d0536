"""Noise: how much there is when, how to walk down it, and where it comes from.  Arrays and numbers; no network is known here.

schedules.py   the noise level of each training timestep, and which of them a run of few steps visits
samplers.py    from one level to the next, 13 ways
guidance.py    predictions with the prompt and without, combined
rng.py         torch's random numbers, so that a seed gives the same picture"""

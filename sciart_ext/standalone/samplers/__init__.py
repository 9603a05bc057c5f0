"""The host's samplers and schedule types: `names` lists them, `making` makes one for a picture.

A sampler is a generator of pure formulas: it yields latents and the level of their noise, and is sent what the model
makes of them. Who evaluates the model may change the latents in place before (guidance does): the sampler goes on from
what they are then. Levels are numbers: σ of variance exploding latents (x = x₀ + σ·ε), or one of the model's times of
variance preserving ones.
"""

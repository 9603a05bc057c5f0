"""A picture being made: a run, its calls of the sampler, and what happens in each step."""

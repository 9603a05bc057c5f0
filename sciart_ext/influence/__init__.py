"""What each LoRA did to a picture: counterfactual runs and what they add up to."""

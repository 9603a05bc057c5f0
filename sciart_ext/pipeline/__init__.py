"""From a prompt to a finished picture in stages: txt2img with a pose and repaired faces, light img2img, an upscale."""

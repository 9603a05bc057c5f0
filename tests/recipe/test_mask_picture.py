"""Masks as pictures: small enough for an infotext, the same after every reading, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pngs import as_data_url, halves

from sciart_ext.errors import SciArtError
from sciart_ext.recipe import dump_recipe, parse_recipe, recipe_to_text
from sciart_ext.recipe.mask_picture import KEPT_SIDE, compact, mask_values


def test_a_large_picture_becomes_some_hundred_characters_and_keeps_its_shape():
    text = compact(as_data_url(halves(768, 1024)))
    assert len(text) < 300
    values = mask_values(text)
    assert values.shape == (KEPT_SIDE * 3 // 4, KEPT_SIDE)
    assert np.array_equal(values, halves(48, 64) / 255)


def test_the_worst_picture_is_still_small():
    noise = np.random.default_rng(1).integers(0, 256, (512, 512))
    noise[:256] = np.random.default_rng(2).integers(0, 2, (256, 512)) * 255
    assert len(compact(as_data_url(np.kron(noise[:64, :64], np.ones((8, 8)))))) < 4000


def test_what_is_compact_stays_as_it_is():
    ramp = as_data_url(np.linspace(0, 255, 64 * 40).reshape(40, 64))
    once = compact(ramp)
    assert compact(once) == once
    assert len(np.unique(mask_values(once))) == 16


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_8_bit_mode_is_read(mode):
    picture = Image.fromarray(halves(16, 16).astype(np.uint8)).convert(mode)
    assert np.array_equal(mask_values(compact(as_data_url(picture))), halves(16, 16) / 255)


def test_what_is_transparent_is_outside():
    pixels = np.full((8, 8, 4), 255, np.uint8)
    pixels[:, 4:, 3] = 0
    assert np.array_equal(mask_values(compact(as_data_url(Image.fromarray(pixels)))), halves(8, 8) / 255)


@pytest.mark.parametrize(("text", "message"), [
    ("C:/masks/left.png", "begins with 'C:/masks/left.png'; accepted: a box"),
    (as_data_url(Image.new("L", (8, 8), 255), "BMP"), "cannot be read"),
    (as_data_url(np.zeros((8, 8))), "black everywhere"),
    (as_data_url(Image.fromarray(np.full((8, 8), 60000, np.uint16))), "8 bits a pixel"),
    (as_data_url(Image.new("1", (5000, 5000), 1)), "5000 x 5000, at most"),
    ("data:image/png;base64," + "A" * (9 << 20), "characters, at most"),
])
def test_what_is_no_mask_is_refused(text, message):
    with pytest.raises(SciArtError, match=message) as refused:
        parse_recipe({"loras": [{"name": "a", "weight": 1, "region": text}], "compose": "regions"})
    assert refused.value.field == "loras[0].region"


def test_a_recipe_with_a_mask_comes_back_from_its_infotext():
    recipe = parse_recipe({"loras": [{"name": "a", "weight": 1, "region": as_data_url(halves(300, 200))}],
                           "compose": "regions"})
    text = recipe_to_text(recipe)
    assert len(text) < 400
    assert dump_recipe(parse_recipe(text)) == dump_recipe(recipe)

"""Pictures of presets: each shipped one has a small one; users' are checked, made small, and go with their presets."""

import base64
import io

import pytest
from PIL import Image

from sciart_ext.errors import SciArtError
from sciart_ext.presets import BUILTIN_DIR, PresetStore
from sciart_ext.presets.pictures import MAX_TEXT, SIDE, save_thumbnail, thumbnail

PRESET = {"recipe": {"loras": [{"name": "a", "weight": 0.5}]}}


def as_text(picture, kind="png"):
    data = io.BytesIO()
    picture.save(data, kind)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def opened(text):
    assert text.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2])))


@pytest.fixture
def store(tmp_path):
    store = PresetStore(tmp_path)
    store.save("mine", PRESET)
    return store


@pytest.mark.parametrize("name", [path.stem for path in BUILTIN_DIR.glob("*.json")])
def test_each_shipped_preset_has_a_small_picture(store, name):
    assert opened(thumbnail(store, name)).size == (SIDE, SIDE)
    assert (BUILTIN_DIR / f"{name}.webp").stat().st_size < 6000


def test_no_picture_without_a_preset():
    assert {path.stem for path in BUILTIN_DIR.glob("*.webp")} <= {path.stem for path in BUILTIN_DIR.glob("*.json")}


def test_a_picture_is_cut_to_its_middle_and_goes_with_its_preset(store):
    assert thumbnail(store, "mine") is None
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    save_thumbnail(store, "mine", as_text(wide))
    kept = opened(thumbnail(store, "mine")).convert("RGB")
    assert kept.size == (SIDE, SIDE)
    assert all(kept.getpixel(place)[2] > 200 for place in ((3, 3), (72, 72), (140, 140)))
    save_thumbnail(store, "mine", None)
    assert thumbnail(store, "mine") is None
    save_thumbnail(store, "mine", as_text(wide))
    store.delete("mine")
    assert not list((store.user_dir / "presets").iterdir())


@pytest.mark.parametrize("picture", ["", 5, "data:image/png;base64,!!", "data:image/png;base64,AAAA",
                                     as_text(Image.new("RGB", (8, 8)), "gif"),
                                     "data:image/png;base64," + "A" * MAX_TEXT])
def test_what_is_no_png_is_refused(store, picture):
    with pytest.raises(SciArtError) as refused:
        save_thumbnail(store, "mine", picture)
    assert refused.value.field == "thumbnail"
    assert thumbnail(store, "mine") is None


def test_shipped_pictures_stay(store):
    with pytest.raises(SciArtError, match="keeps its picture"):
        save_thumbnail(store, "science-imagination", None)

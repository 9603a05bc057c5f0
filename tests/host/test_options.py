"""Settings → SciArt over HTTP, the version in the infotext, and the prompts as styles."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from pictures import assert_same_picture, recipe, with_recipe
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from server import ONE_THREAD, HostServer

import sciart_ext
from sciart_ext.presets.prompt_styles import shipped_styles

DEFAULTS = {"sciart_start": "", "sciart_panel_open": False, "sciart_memory_limit_mb": 0, "sciart_user_dir": "",
            "sciart_version_in_infotext": True, "sciart_check_others": True}
MINE = {"title": "Mine", "recipe": {"loras": [{"name": "child", "weight": 0.9}]}}


@pytest.fixture
def options(host: HostServer):
    """Sets options; all of ours are as they were afterwards."""
    def set_options(**values) -> None:
        assert host.post("/sdapi/v1/options", values).status == 200

    yield set_options
    set_options(**DEFAULTS)


def test_the_options_are_known_and_begin_as_the_page_says(host: HostServer) -> None:
    known = host.get("/sdapi/v1/options").json
    assert {name: known[name] for name in DEFAULTS} == DEFAULTS


def test_the_version_is_in_the_infotext_unless_it_is_not_wanted(host: HostServer, options) -> None:
    told = host.txt2img(**with_recipe(recipe()))
    assert f", SciArt version: {sciart_ext.__version__}," in told.infotext + ","
    assert "SciArt version" not in host.txt2img().infotext
    options(sciart_version_in_infotext=False)
    silent = host.txt2img(**with_recipe(recipe()))
    assert "SciArt version" not in silent.infotext and "SciArt: " in silent.infotext
    assert (silent.pictures[0] == told.pictures[0]).all()


@pytest.mark.parametrize("version", ["0.0.1", sciart_ext.__version__, "99.0"])
def test_a_pasted_version_changes_nothing(host: HostServer, version: str) -> None:
    made = host.txt2img(**with_recipe(recipe()))
    pasted = made.infotext.replace(f"SciArt version: {sciart_ext.__version__}", f"SciArt version: {version}")
    again = host.post("/sdapi/v1/txt2img", {"infotext": pasted})
    assert again.status == 200 and again.pngs[0] == made.pngs[0] and again.infotext == made.infotext


def test_a_newer_version_is_told_of(host: HostServer) -> None:
    made = host.txt2img(**with_recipe(recipe()))
    picture = Image.open(io.BytesIO(made.pngs[0]))
    info, file = PngInfo(), io.BytesIO()
    info.add_text("parameters", made.infotext.replace(f"SciArt version: {sciart_ext.__version__}", "SciArt version: 99.1"))
    picture.save(file, "PNG", pnginfo=info)
    said = "made with SciArt 99.1"
    assert said not in host.log()
    read = host.post("/sdapi/v1/png-info", {"image": base64.b64encode(file.getvalue()).decode()})
    assert read.json["parameters"]["SciArt version"] == "99.1"
    assert said in host.log()


def test_the_memory_limit_holds_where_a_recipe_has_none_and_is_in_its_infotext(host: HostServer, options) -> None:
    unlimited = host.txt2img(**with_recipe(recipe()))
    options(sciart_memory_limit_mb=1)
    limited = host.txt2img(**with_recipe(recipe()))
    assert '\\"memory_limit_mb\\":1.0' in limited.infotext and "memory_limit_mb" not in unlimited.infotext
    assert_same_picture(unlimited, limited)
    named = host.txt2img(**with_recipe(recipe(memory_limit_mb=7)))
    assert '\\"memory_limit_mb\\":7.0' in named.infotext
    options(sciart_memory_limit_mb=0)
    assert host.post("/sdapi/v1/txt2img", {"infotext": limited.infotext}).pngs[0] == limited.pngs[0]
    options(sciart_memory_limit_mb=-3)
    refused = host.txt2img(**with_recipe(recipe()))
    assert refused.status == 422 and refused.json["detail"]["field"] == "sciart_memory_limit_mb"
    assert host.txt2img().status == 200, "without a recipe nobody asks"


def test_ones_own_presets_live_where_the_setting_says_at_once(host: HostServer, options, tmp_path: Path) -> None:
    assert host.post("/sciart/v1/presets", {"name": "elsewhere", "preset": MINE}).status == 200
    assert (host.data / "sciart-user" / "presets" / "elsewhere.json").is_file(), "SCIART_USER_DIR"
    options(sciart_user_dir=str(tmp_path))
    assert host.get("/sciart/v1/presets/elsewhere").status == 422
    assert host.post("/sciart/v1/presets", {"name": "here", "preset": MINE}).status == 200
    assert (tmp_path / "presets" / "here.json").is_file()
    assert host.txt2img(**with_recipe({"preset": "here"})).status == 200
    assert host.post("/sciart/v1/roles", {"child": "child"}).json == {"child": "child"}
    assert (tmp_path / "roles.json").is_file()
    options(sciart_user_dir="")
    assert host.get("/sciart/v1/presets/here").status == 422 and host.get("/sciart/v1/roles").json == {}
    assert host.request("DELETE", "/sciart/v1/presets/elsewhere").status == 200


def test_a_relative_folder_is_in_the_hosts_data_folder(host: HostServer, options) -> None:
    (host.data / "shared-presets").mkdir()
    options(sciart_user_dir="shared-presets")
    assert host.post("/sciart/v1/presets", {"name": "mine", "preset": MINE}).status == 200
    assert (host.data / "shared-presets" / "presets" / "mine.json").is_file()


@pytest.mark.parametrize("wrong", ["nowhere", "file"])
def test_a_wrong_folder_is_an_error_wherever_presets_are_used(host: HostServer, options, tmp_path, wrong) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    options(sciart_user_dir=str(tmp_path / wrong))
    for refused in (host.get("/sciart/v1/presets"), host.post("/sciart/v1/roles", {"child": "child"}),
                    host.post("/sciart/v1/presets", {"name": "mine", "preset": MINE}),
                    host.txt2img(**with_recipe({"preset": "science-imagination"}))):
        assert refused.status == 422, refused.text
        assert refused.json["detail"]["field"] == "sciart_user_dir"
        assert str(tmp_path / wrong) in refused.json["detail"]["message"]
    assert host.txt2img(**with_recipe(recipe())).status == 200, "a recipe of names needs no presets"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_the_start_of_the_panel_is_not_the_apis(host: HostServer, options) -> None:
    options(sciart_start="science-imagination", sciart_panel_open=True)
    assert "SciArt" not in host.txt2img().infotext


def test_the_prompts_are_styles_when_they_are_asked_for(tiny_models) -> None:
    own = '\ufeffname,prompt,negative_prompt\nMine,"ink, lines",grey\n'.encode()
    with HostServer(models=tiny_models, env=ONE_THREAD) as host:
        file = host.data / "styles.csv"
        file.write_bytes(own)
        assert [style["name"] for style in host.get("/sdapi/v1/prompt-styles").json] == [], "read at its start"
        assert host.txt2img(**with_recipe(recipe())).status == 200 and file.read_bytes() == own
        names = [style.name for style in shipped_styles()]
        assert host.post("/sciart/v1/styles").json == {"added": names, "kept": []}
        listed = {style["name"]: style["prompt"] for style in host.get("/sdapi/v1/prompt-styles").json}
        assert listed == {"Mine": "ink, lines", **{style.name: style.prompt for style in shipped_styles()}}
        text = file.read_text(encoding="utf-8-sig")
        assert 'Mine,"ink, lines",grey' in text and all(name in text for name in names)
        made = host.txt2img(prompt="a rocket", styles=[names[0]])
        assert made.infotext.startswith(shipped_styles()[0].prompt.replace("{prompt}", "a rocket"))
        assert "Mine" not in made.infotext

        changed = text.replace("Bright, playful", "Dark, playful")
        file.write_text(changed, encoding="utf-8-sig", newline="")
        before = file.read_bytes()
        assert host.post("/sciart/v1/styles").json == {"added": [], "kept": names}
        assert file.read_bytes() == before, "one's own change of a style is kept"
    with HostServer(models=tiny_models, env=ONE_THREAD) as host:
        assert not (host.data / "styles.csv").exists(), "nothing is written by itself"
        assert host.get("/sdapi/v1/prompt-styles").json == []

"""Many extensions in one WebUI, each taking part in the same step in its turn. LoRAs of next to no weight change nothing
beside it, or are refused by the name of its file; whatever happened, the next picture is as before, with it and without.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from asking import EVERY_WAY, MASKED, MERGED, is_first_picture_other, is_first_picture_same, made
from beside_host import folder_of, is_there
from pictures import difference
from server import HostServer

SMALL = {"steps": 4, "width": 64, "height": 64}
WIDE = {"steps": 2, "width": 256, "height": 256}
"""for what acts on attention that is one place wide in small pictures"""
ROWS = ("composite", "spatial", "regions", "contrastive")
IN_ONE_ROW = ("masked", "regions in one row")
NEITHER = (*ROWS, *IN_ONE_ROW)
"""neither rows of their own nor texts one after another"""
BUT_MERGED = ("by row", *NEITHER)
INCANTATIONS = "sd-webui-incantations"
# the arguments of its parts, in the order of its page, switched off
SEG, S_CFG = [False, 11.0, 0, 150], [False, 1.0, 0.8, 3.0, 0.0, 0, 150, 4]
PAG = [False, 0, 0, 150, False, "Constant", 0, 100, False]
T2I_0 = [True, False, 2, 0.1, 0.5, 0.3, "", 0.0, 25, 0]


def cd_tuner(details: tuple[float, ...], colors: str) -> dict:
    return {"CD Tuner": [True, *details, False, -1, -1, 0, 0, "1,1", "Horizontal", colors, 2, 1, []]}


@dataclass(frozen=True)
class Case:
    """refused: ways to compose that are; file: what such a refusal names."""

    extension: str
    scripts: dict = field(default_factory=dict)
    settings: dict = field(default_factory=lambda: SMALL)
    refused: tuple[str, ...] = ()
    file: str = ""
    nothing: float = 0.0001

    @property
    def request(self) -> dict:
        return {"scripts": self.scripts, **self.settings}


CASES = {
    "dynamic thresholding": Case("sd-dynamic-thresholding", {"Dynamic Thresholding (CFG Scale Fix)": [
        True, 5.0, 99.0, "Constant", 0.0, "Constant", 0.0, 4.0, True, "MEAN", "AD", 1.0]}, {**SMALL, "cfg_scale": 12}),
    "CFG rescale": Case("CFG_Rescale_webui", {"CFG Rescale Extension": [0.7, False, 1.0, False]},
                        {**SMALL, "cfg_scale": 12}),
    "S-CFG": Case(INCANTATIONS, {"Incantations": [*SEG, True, *S_CFG[1:]]}, {**SMALL, "cfg_scale": 12},
                  IN_ONE_ROW, "sd-webui-incantations/scripts/scfg.py"),
    "PAG": Case(INCANTATIONS, {"Incantations": [*SEG, *S_CFG, True, 3.0, *PAG[2:]]}, refused=BUT_MERGED,
                file="sd-webui-incantations/scripts/pag.py"),
    "SEG": Case(INCANTATIONS, {"Incantations": [True, *SEG[1:]]}, WIDE),
    "T2I-0": Case(INCANTATIONS, {"Incantations": [*SEG, *S_CFG, *PAG, *T2I_0]}, WIDE, NEITHER,
                  "sd-webui-incantations/scripts/t2i_zero.py", nothing=0.000001),
    "self-attention guidance": Case("sd_webui_SAG", {"Self Attention Guidance": [True, 8.0, 0.5]},
                                    {**SMALL, "width": 128, "height": 128}, BUT_MERGED, "sd_webui_SAG/scripts/SAG.py"),
    "NegPiP": Case("sd-webui-negpip", {"NegPiP": [True]},
                   {**SMALL, "prompt": "a rocket and a robot, (blue sky:-1.5)"}, BUT_MERGED,
                   "sd-webui-negpip/scripts/negpip.py"),
    "latent couple": Case("stable-diffusion-webui-two-shot", {"Latent Couple extension": [
        True, "1:1,1:2,1:2", "0:0,0:0,0:1", "0.2,0.8,0.8", 20]}),
    "CD tuner, details": Case("sd-webui-cd-tuner", cd_tuner((3, 2, 2, 0, 1, 1, 0, 0, 0, 0), "")),
    "CD tuner, colors": Case("sd-webui-cd-tuner", cd_tuner((0,) * 10, "1,0,0;0,0,1"), refused=ROWS,
                             file="sd-webui-cd-tuner/scripts/cdtuner.py"),
    "Kohya's HRFix": Case("sd-webui-kohya-hiresfix", {"Kohya Hires.fix": [
        True, True, 3, 4, 0.5, 0.5, "bicubic", 0.5, 2.0, False, False]}, {**SMALL, "width": 128, "height": 128},
        IN_ONE_ROW, "sd-webui-kohya-hiresfix/scripts/khrfix.py"),
    "neutral prompt, rescale": Case("sd-webui-neutral-prompt", {"Neutral Prompt": [0.7]}, {**SMALL, "cfg_scale": 12}),
    "neutral prompt": Case("sd-webui-neutral-prompt", settings={**SMALL, "prompt": "a rocket AND_PERP a robot :0.8"},
                           refused=NEITHER, file="does not work with AND"),
    "prompt fusion": Case("prompt-fusion-extension", settings={
        **SMALL, "prompt": "a [rocket:robot:0, 3] and a robot, a rocket"}),
    "composable LoRA": Case("stable-diffusion-webui-composable-lora", {"Composable Lora": [
        True, False, True, True, False, False, False]}),
    "semantic guidance": Case("sd-webui-semantic-guidance", {"Semantic Guidance": [
        True, "blue sky:1.0", "", 0, 5.0, 0.05, 0.3, 0.6]}, refused=NEITHER,
        file="sd-webui-semantic-guidance/scripts/sega.py"),
    "vectorscope": Case("sd-webui-vectorscope-cc", {"Vectorscope CC": [
        True, False, 6.0, 3.0, 2.0, 3.0, 0.5, -3, False, False, False, "Straight", "Flat"]}),
    "LLuL": Case("sd-webui-llul", {"LLuL": [
        True, 2, 0.6, True, "OUT", ["OUT"], 1, 10, "Bilinear", False, "Bilinear", False, "Lerp", "0", "0", False, False,
        None, False]}, WIDE),
    "cutoff": Case("sd-webui-cutoff", {"Cutoff": [True, "rocket, robot", 0.5, False, False, "_", "Lerp", False]},
                   {**SMALL, "prompt": "a red rocket, a blue robot"}),
    "characteristic guidance": Case("CharacteristicGuidanceWebUI", {"Characteristic Guidance": [
        1.0, 1.0, 20, 0, 0.0, -4.0, 1.0, 0.4, 0.5, 2, True, "", "More Control", 0.0, 1.0]}, {**SMALL, "cfg_scale": 10},
        BUT_MERGED, "CharacteristicGuidanceWebUI/scripts/CharaIte.py"),
}
QUIET = ("a1111-sd-webui-tagcomplete", "sd-webui-animatediff", "sd-webui-infinite-image-browsing",
         "sd-webui-model-mixer", "sd-webui-supermerger", "Stable-Diffusion-Webui-Civitai-Helper", "sd-webui-freeu")
"""installed beside them, and switched off or on the page alone"""


def nearly_nothing(name: str, weight: float) -> dict:
    """The recipe of a way to compose with weights that change nothing to be seen."""
    recipe = EVERY_WAY[name]
    loras = [{**lora, **({"schedule": f"{weight}@0, {2 * weight}@1"} if "schedule" in lora else {"weight": weight})}
             for lora in recipe["loras"]]
    return {**recipe, "loras": loras}


@pytest.fixture(scope="module")
def crowd(webui) -> HostServer:
    names = dict.fromkeys([*(case.extension for case in CASES.values()), *QUIET])
    return webui(*filter(is_there, names), prepare=lambda data: (data / "ui-config.json").write_text("{}"))


BY_PROMPT = ("neutral prompt", "prompt fusion", "composable LoRA")
"""act by what the prompt says, also in the plain picture"""


@pytest.mark.parametrize(("layers", "file"), [
    ("transformer", "sd-webui-llul/scripts/llul_hooker.py"), ("x. attn.", "sd-webui-llul/scripts/sdhook.py")])
def test_places_that_an_extension_puts_elsewhere_are_not_masked(crowd: HostServer, layers: str, file: str) -> None:
    """LLuL's other layers: they have a part of the picture, enlarged, as further rows."""
    case = CASES["LLuL"]
    given = list(case.scripts["LLuL"])
    given[4:6] = "", [layers]
    refused = made(crowd, MASKED, {"LLuL": given}, **case.settings)
    assert refused.status == 422 and file in refused.text and "accepted: merge, switch" in refused.text


@pytest.mark.parametrize("name", CASES)
def test_loras_of_next_to_no_weight_change_nothing_or_are_refused(crowd: HostServer, name: str) -> None:
    case = CASES[name]
    folder_of(case.extension)
    crowd.post("/probe/reset")
    plain, alone = made(crowd, **case.settings), made(crowd, None, **case.request)
    assert alone.status == 200, alone.text
    assert (alone.pngs[0] == plain.pngs[0]) == (name in BY_PROMPT)
    state = crowd.probe()
    for way in EVERY_WAY:
        reply = made(crowd, nearly_nothing(way, case.nothing), **case.request)
        if way in case.refused:
            assert reply.status == 422 and case.file in reply.text, (way, reply.text[:500])
            assert "accepted: merge, switch" in reply.text
            assert made(crowd, **case.settings).pngs[0] == plain.pngs[0], way
        elif way == "contrastive":  # it moves the latents at any weight
            assert reply.status == 200, reply.text[:500]
        else:
            assert is_first_picture_same(alone, reply), (way, difference(alone.pictures[0], reply.pictures[0]))
        assert made(crowd, None, **case.request).pngs[0] == alone.pngs[0], way
    assert is_first_picture_other(alone, made(crowd, MERGED["constant"], **case.request))
    assert made(crowd, **case.settings).pngs[0] == plain.pngs[0]
    made(crowd, None, **case.request)  # some leave the model otherwise than a picture without them
    crowd.post("/probe/reset")
    assert crowd.probe() == state

"""Many extensions in one WebUI, each taking part in the same step in its turn. LoRAs of next to no weight change nothing
beside it, or are refused by the name of its file; whatever happened, the next picture is as before, with it and without.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from asking import MERGED, OWN_ROWS, is_first_picture_other, is_first_picture_same, made
from beside_host import folder_of, is_there
from pictures import difference
from server import HostServer

SMALL = {"steps": 4, "width": 64, "height": 64}
WIDE = {"steps": 2, "width": 256, "height": 256}
"""for what acts on attention that is one place wide in small pictures"""
ROWS = ("composite", "spatial", "regions", "contrastive")
EVERY_ROW = ("by row", *ROWS)
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
    "S-CFG": Case(INCANTATIONS, {"Incantations": [*SEG, True, *S_CFG[1:]]}, {**SMALL, "cfg_scale": 12}),
    "PAG": Case(INCANTATIONS, {"Incantations": [*SEG, *S_CFG, True, 3.0, *PAG[2:]]}, refused=EVERY_ROW,
                file="sd-webui-incantations/scripts/pag.py"),
    "SEG": Case(INCANTATIONS, {"Incantations": [True, *SEG[1:]]}, WIDE),
    "T2I-0": Case(INCANTATIONS, {"Incantations": [*SEG, *S_CFG, *PAG, *T2I_0]}, WIDE, ROWS,
                  "sd-webui-incantations/scripts/t2i_zero.py", nothing=0.000001),
    "self-attention guidance": Case("sd_webui_SAG", {"Self Attention Guidance": [True, 8.0, 0.5]},
                                    {**SMALL, "width": 128, "height": 128}, EVERY_ROW, "sd_webui_SAG/scripts/SAG.py"),
    "NegPiP": Case("sd-webui-negpip", {"NegPiP": [True]},
                   {**SMALL, "prompt": "a rocket and a robot, (blue sky:-1.5)"}, EVERY_ROW,
                   "sd-webui-negpip/scripts/negpip.py"),
    "latent couple": Case("stable-diffusion-webui-two-shot", {"Latent Couple extension": [
        True, "1:1,1:2,1:2", "0:0,0:0,0:1", "0.2,0.8,0.8", 20]}),
    "CD tuner, details": Case("sd-webui-cd-tuner", cd_tuner((3, 2, 2, 0, 1, 1, 0, 0, 0, 0), "")),
    "CD tuner, colors": Case("sd-webui-cd-tuner", cd_tuner((0,) * 10, "1,0,0;0,0,1"), refused=ROWS,
                             file="sd-webui-cd-tuner/scripts/cdtuner.py"),
    "Kohya's HRFix": Case("sd-webui-kohya-hiresfix", {"Kohya Hires.fix": [
        True, True, 3, 4, 0.5, 0.5, "bicubic", 0.5, 2.0, False, False]}, {**SMALL, "width": 128, "height": 128}),
    "neutral prompt, rescale": Case("sd-webui-neutral-prompt", {"Neutral Prompt": [0.7]}, {**SMALL, "cfg_scale": 12}),
    "neutral prompt": Case("sd-webui-neutral-prompt", settings={**SMALL, "prompt": "a rocket AND_PERP a robot :0.8"},
                           refused=ROWS, file="does not work with AND"),
    "prompt fusion": Case("prompt-fusion-extension", settings={
        **SMALL, "prompt": "a [rocket:robot:0, 3] and a robot, a rocket"}),
    "composable LoRA": Case("stable-diffusion-webui-composable-lora", {"Composable Lora": [
        True, False, True, True, False, False, False]}),
}
QUIET = ("a1111-sd-webui-tagcomplete", "sd-webui-animatediff", "sd-webui-infinite-image-browsing",
         "sd-webui-model-mixer", "sd-webui-supermerger", "Stable-Diffusion-Webui-Civitai-Helper", "sd-webui-freeu")
"""installed beside them, and switched off or on the page alone"""


def nearly_nothing(name: str, weight: float) -> dict:
    """The recipe of a way to compose with weights that change nothing to be seen."""
    recipe = {**MERGED, **OWN_ROWS}[name]
    loras = [{**lora, **({"schedule": f"{weight}@0, {2 * weight}@1"} if "schedule" in lora else {"weight": weight})}
             for lora in recipe["loras"]]
    return {**recipe, "loras": loras}


@pytest.fixture(scope="module")
def crowd(webui) -> HostServer:
    names = dict.fromkeys([*(case.extension for case in CASES.values()), *QUIET])
    return webui(*filter(is_there, names), prepare=lambda data: (data / "ui-config.json").write_text("{}"))


BY_PROMPT = ("neutral prompt", "prompt fusion", "composable LoRA")
"""act by what the prompt says, also in the plain picture"""


@pytest.mark.parametrize("name", CASES)
def test_loras_of_next_to_no_weight_change_nothing_or_are_refused(crowd: HostServer, name: str) -> None:
    case = CASES[name]
    folder_of(case.extension)
    crowd.post("/probe/reset")
    plain, alone = made(crowd, **case.settings), made(crowd, None, **case.request)
    assert alone.status == 200, alone.text
    assert (alone.pngs[0] == plain.pngs[0]) == (name in BY_PROMPT)
    state = crowd.probe()
    for way in (*MERGED, *OWN_ROWS):
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

"""Extensions that change how predictions become a step: LoRAs of next to no weight change nothing beside them, or are
refused by name, and whatever happened the next picture is as before."""

from __future__ import annotations

import pytest
from asking import MERGED, OWN_ROWS, is_first_picture_other, is_first_picture_same, made
from beside_host import folder_of, is_there
from server import HostServer

SMALL = {"steps": 4, "width": 64, "height": 64, "cfg_scale": 12}
NOTHING = 0.0001
THRESHOLDING = "sd-dynamic-thresholding"
THRESHOLD = {"Dynamic Thresholding (CFG Scale Fix)": [
    True, 5.0, 99.0, "Constant", 0.0, "Constant", 0.0, 4.0, True, "MEAN", "AD", 1.0]}
INCANTATIONS = "sd-webui-incantations"
# the arguments of its parts, in the order of its page: each off, and two of them on
SEG, S_CFG, PAG = [False, 11.0, 0, 150], [False, 1.0, 0.8, 3.0, 0.0, 0, 150, 4], [False, 0, 0, 150]
GUIDANCE = {"Incantations": [*SEG, True, *S_CFG[1:]]}
PERTURBED = {"Incantations": [*SEG, *S_CFG, True, 3.0, *PAG[2:]]}
WAYS = [*MERGED, *(name for name in OWN_ROWS if name != "contrastive")]


def nearly_nothing(name: str) -> dict:
    """The recipe of a way to compose with weights that change nothing to be seen."""
    recipe = {**MERGED, **OWN_ROWS}[name]
    loras = [{**lora, **({"schedule": f"{NOTHING}@0, {2 * NOTHING}@1"} if "schedule" in lora else {"weight": NOTHING})}
             for lora in recipe["loras"]]
    return {**recipe, "loras": loras}


@pytest.fixture(scope="module")
def both(webui) -> HostServer:
    return webui(*(name for name in (THRESHOLDING, INCANTATIONS) if is_there(name)))


@pytest.mark.parametrize("name", WAYS)
def test_dynamic_thresholding_acts_on_the_fused_prediction(both: HostServer, as_before, name: str) -> None:
    folder_of(THRESHOLDING)
    alone = made(both, None, THRESHOLD, **SMALL)
    assert is_first_picture_other(alone, made(both, **SMALL))
    assert is_first_picture_same(alone, made(both, nearly_nothing(name), THRESHOLD, **SMALL))
    assert is_first_picture_other(alone, made(both, {**MERGED, **OWN_ROWS}[name], THRESHOLD, **SMALL))


def test_dynamic_thresholding_beside_contrastive(both: HostServer, as_before) -> None:
    folder_of(THRESHOLDING)
    with_it, without = (made(both, OWN_ROWS["contrastive"], scripts, **SMALL) for scripts in (THRESHOLD, None))
    assert is_first_picture_other(with_it, without)


@pytest.mark.parametrize("name", WAYS)
def test_semantic_aware_guidance_acts_on_the_fused_prediction(both: HostServer, as_before, name: str) -> None:
    folder_of(INCANTATIONS)
    alone = made(both, None, GUIDANCE, **SMALL)
    assert alone.pngs[0] != made(both, **SMALL).pngs[0]
    assert is_first_picture_same(alone, made(both, nearly_nothing(name), GUIDANCE, **SMALL))


@pytest.mark.parametrize("name", [*MERGED, *OWN_ROWS])
def test_perturbed_attention_acts_or_is_refused_by_name(both: HostServer, as_before, name: str) -> None:
    """It evaluates all rows once more, as if there were two for each picture."""
    folder_of(INCANTATIONS)
    alone = made(both, None, PERTURBED, **SMALL)
    assert is_first_picture_other(alone, made(both, **SMALL))
    if name in OWN_ROWS:
        refused = made(both, OWN_ROWS[name], PERTURBED, **SMALL)
        assert refused.status == 422 and "sd-webui-incantations/scripts/pag.py" in refused.text
        assert "accepted: merge, switch" in refused.text
    else:
        assert is_first_picture_same(alone, made(both, nearly_nothing(name), PERTURBED, **SMALL))

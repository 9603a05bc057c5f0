"""A pipeline with ControlNet (a T2I-Adapter) and ADetailer (a detector that always finds a face): each takes part."""

from __future__ import annotations

import base64
import io
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
from beside_host import folder_of
from control_files import write_adapter
from server import HERE, HostServer, clean_environment, webui_folder, webui_python
from upscaler_file import FILE, write_upscaler

from sciart_ext.pipeline.poses import pose_picture

FACES = {"model": "face.pt", "denoising_strength": 0.6, "mask_k": 1}
SMALL = {"prompt": "a robot in space", "width": 128, "height": 192, "steps": 10, "seed": 5}
PRESET = {"preset": "science-imagination-profile-cool", "txt2img": SMALL,
          "recipe": {"roles": {"child": "child", "watercolor": "watercolor", "science": "science"}},
          "pipeline": {"adetailer": FACES}}


@pytest.fixture(scope="module")
def host(webui, tmp_path_factory) -> HostServer:
    for name in ("adetailer", "sd-webui-controlnet"):
        folder_of(name)
    folder = tmp_path_factory.mktemp("files")
    done = subprocess.run([webui_python(webui_folder()), HERE / "beside" / "detector.py", folder / "face.pt"],
                          env=clean_environment(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    server = webui("adetailer", "sd-webui-controlnet", args=("--ad-no-huggingface",),
                   env={"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true"},
                   files={"models/adetailer/face.pt": folder / "face.pt",
                          "models/ControlNet/t2i-openpose.safetensors": write_adapter(folder / "t2i.safetensors"),
                          FILE: write_upscaler(folder / "x4.pth")})
    made(server)  # ControlNet leaves attributes on modules, once
    return server


@pytest.fixture(autouse=True)
def as_before(host: HostServer) -> Iterator[None]:
    host.post("/probe/reset")
    plain, state, options = host.txt2img(), host.probe(), host.get("/sdapi/v1/options").json
    yield
    host.post("/probe/reset")
    assert host.txt2img().pngs[0] == plain.pngs[0] and host.probe() == state
    assert host.get("/sdapi/v1/options").json == options


def asked(host: HostServer, pipeline: dict | None = None, **more):
    stages = {**PRESET["pipeline"], **(pipeline or {})}
    return host.post("/sciart/v1/pipeline", {**PRESET, "pipeline": stages, **more})


def made(host: HostServer, pipeline: dict | None = None, **more) -> list[np.ndarray]:
    """The stages' pictures."""
    reply = asked(host, pipeline, **more)
    assert reply.status == 200, reply.text
    return reply.pictures


def differs(a: np.ndarray, b: np.ndarray) -> bool:
    return np.abs(a.astype(int) - b).mean() > 1.0


def test_all_stages_run_and_each_changes_the_picture(host: HostServer) -> None:
    whole = made(host)
    assert [picture.shape for picture in whole] == [(192, 128, 3), (192, 128, 3), (384, 256, 3)]
    assert differs(whole[0], whole[1])
    alone = ["img2img", "upscale"]
    assert (made(host, without=alone)[0] == whole[0]).all()
    posed = made(host, without=["adetailer", *alone])[0]  # what this detector takes for faces is nearly all of it
    assert differs(whole[0], posed) and differs(posed, made(host, without=["controlnet", "adetailer", *alone])[0])


def test_the_pose_decides(host: HostServer) -> None:
    """Named ones differ; a picture of the same pose is the same as its name; one's own is told by its hash."""
    only = {"without": ["adetailer", "img2img", "upscale"]}
    by_name = {name: made(host, {"controlnet": {"pose": name}}, **only)[0] for name in ("portrait", "waving")}
    assert differs(*by_name.values())
    file = io.BytesIO()
    pose_picture("waving", 128, 192).save(file, "PNG")
    own = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    reply = asked(host, {"controlnet": {"pose": own}}, **only)
    assert (reply.pictures[0] == by_name["waving"]).all()
    infotext = reply.json["stages"][-1]["infotext"]
    assert "sha256:" in infotext and "base64" not in infotext
    again = host.post("/sciart/v1/pipeline", {"txt2img": {"infotext": infotext}})
    assert again.status == 422 and again.json["detail"]["field"] == "pipeline.controlnet.pose"
    again = host.post("/sciart/v1/pipeline", {"txt2img": {"infotext": infotext},
                                              "pipeline": {"controlnet": {"pose": own}}})
    assert (again.pictures[0] == by_name["waving"]).all()


def test_faces_are_repaired_with_the_recipe_or_without(host: HostServer) -> None:
    only = {"without": ["controlnet", "img2img", "upscale"]}
    with_loras, without = (made(host, {"adetailer": {**FACES, "with_loras": which}}, **only)[0]
                           for which in (True, False))
    assert differs(with_loras, without)


def test_no_face_is_noted(host: HostServer) -> None:
    sure = {"adetailer": {**FACES, "confidence": 1.0}}
    reply = asked(host, sure, without=["controlnet", "upscale"])
    assert reply.json["notes"] == ["adetailer: face.pt found nothing to repair"]
    assert asked(host, without=["controlnet", "upscale"]).json["notes"] == []


def test_its_infotext_makes_it_again(host: HostServer) -> None:
    first = asked(host)
    again = host.post("/sciart/v1/pipeline", {"txt2img": {"infotext": first.json["stages"][-1]["infotext"]}})
    assert again.status == 200, again.text
    assert again.pngs == first.pngs


@pytest.mark.parametrize(("pipeline", "more", "field", "message"), [
    ({"adetailer": {"model": "face_yolov8n.pt"}}, {}, "pipeline.adetailer.model", "did you mean 'face.pt'"),
    ({"controlnet": {"model": "canny"}}, {}, "pipeline.controlnet.model", "accepted: t2i-openpose ["),
    ({}, {"recipe": {"compose": "regions", "loras": [{"name": "child", "weight": 1, "region": [0, 0, 0.5, 1]}]}},
     "pipeline.adetailer.with_loras", "accepted with it: false"),
])
def test_what_is_not_there_is_refused_before_sampling(host: HostServer, pipeline, more, field, message) -> None:
    reply = asked(host, pipeline, **more)
    assert reply.status == 422 and reply.json["detail"]["field"] == field, reply.text
    assert message in reply.json["detail"]["message"]


def test_a_failing_preprocessor_stops_it(host: HostServer) -> None:
    """ControlNet's own error, which the host swallows: it has no such preprocessor, or cannot download what it needs."""
    reply = asked(host, {"controlnet": {"preprocessor": "openpose_full"}}, without=["upscale"])
    assert reply.status == 422 and reply.json["detail"]["field"] == "txt2img", reply.text
    assert "sd-webui-controlnet/scripts/controlnet.py" in reply.json["detail"]["message"]

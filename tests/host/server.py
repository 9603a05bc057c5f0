"""Runs a real WebUI as a subprocess for tests: own port, own data folder, nothing left in its tree."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
SCIART = HERE.parents[1]
PROBE = HERE / "probe"
EMPTY_FOLDER = "config_states"  # the WebUI makes it in its own tree at every start
# Toy models are quickest on one thread, and do not get in the way of what else the machine does.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# The host takes back a request's override_settings only where they were saved before; these are overridden by tests.
SAVED = {"CLIP_stop_at_last_layers": 1, "batch_cond_uncond": True, "lora_functional": False, "pad_cond_uncond": False,
         "return_grid": True, "skip_early_cond": 0.0}
NOT_LOOKED_INTO = {"__pycache__", ".git", "venv", ".venv"}


def webui_folder() -> Path:
    """SCIART_WEBUI, or the usual place in the home folder."""
    return Path(os.environ.get("SCIART_WEBUI", "~/stable-diffusion-webui")).expanduser().resolve()


def webui_python(webui: Path) -> Path:
    """SCIART_WEBUI_PYTHON, or the WebUI's own environment, or this python."""
    if named := os.environ.get("SCIART_WEBUI_PYTHON"):
        return Path(named).expanduser()
    places = (
        webui / "venv" / "bin" / "python",
        webui / "venv" / "Scripts" / "python.exe",
    )
    return next((place for place in places if place.exists()), Path(sys.executable))


def is_installed(webui: Path) -> bool:
    return (webui / "launch.py").is_file() and (webui / "modules" / "processing.py").is_file()


def make_tiny_models(webui: Path, out: Path, size: str = "tiny") -> Path:
    """Runs tiny_checkpoints.py with the WebUI's python."""
    command = [
        webui_python(webui),
        HERE / "tiny_checkpoints.py",
        "--webui",
        webui,
        "--out",
        out,
        "--size",
        size,
    ]
    done = subprocess.run(
        [str(part) for part in command],
        env=clean_environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"tiny_checkpoints.py failed:\n{done.stdout}\n{done.stderr}")
    return out


def clean_environment() -> dict[str, str]:
    """This process's environment without what would change another python or the WebUI's command line."""
    left_out = {"PYTHONPATH", "PYTHONHOME", "COMMANDLINE_ARGS", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {
        **kept,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
    }


@dataclass
class Reply:
    """An answer of the server: status, raw body and, where the body is JSON, its value."""

    status: int
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def pngs(self) -> list[bytes]:
        """The pictures as files, in the order of the response."""
        return [base64.b64decode(picture) for picture in self.json["images"]]

    @property
    def pictures(self) -> list[np.ndarray]:
        """The pictures as uint8 arrays (height, width, 3)."""
        return [np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in self.pngs]

    @property
    def info(self) -> dict:
        return json.loads(self.json["info"])

    @property
    def infotext(self) -> str:
        return self.info["infotexts"][0]


@dataclass
class HostServer:
    """A running WebUI.

    models: a folder as tiny_checkpoints.py writes it; its files are linked into the data folder.
    args: further command line arguments, such as `--medvram` or `--api-auth user:password`.
    settings: entries of config.json. env: further environment variables.
    extensions: folders by the name they get; SciArt itself and the probe by default.
    files: further files by their place in the data folder.
    ui: with the web page (slower to start) instead of the API alone. prepare: is given the data folder before the start.
    """

    models: Path
    args: tuple[str, ...] = ()
    settings: dict = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    extensions: dict[str, Path] = field(default_factory=lambda: {"sciart": SCIART, "sciart-probe": PROBE})
    files: dict[str, Path] = field(default_factory=dict)
    checkpoint: str = "tiny-sd1.safetensors"
    ui: bool = False
    prepare: Callable[[Path], None] = lambda data: None
    webui: Path = field(default_factory=webui_folder)
    start_timeout: float = 300.0
    request_timeout: float = 600.0

    def __enter__(self):
        if not is_installed(self.webui):
            raise FileNotFoundError(f"no WebUI in {self.webui}; set SCIART_WEBUI")
        self.data = Path(tempfile.mkdtemp(prefix="sciart-host-")).resolve()
        self.process = None
        self.files_before = self.files_in_webui()
        self.folder_of_host = None if (self.webui / EMPTY_FOLDER).exists() else self.webui / EMPTY_FOLDER
        try:
            self.fill_data_folder()
            self.prepare(self.data)
            self.port = free_port()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exception) -> None:
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)
        if self.folder_of_host and self.folder_of_host.is_dir() and not any(self.folder_of_host.iterdir()):
            self.folder_of_host.rmdir()

    def get(self, path: str, **options) -> Reply:
        return self.request("GET", path, **options)

    def post(self, path: str, payload: dict | None = None, **options) -> Reply:
        return self.request("POST", path, {} if payload is None else payload, **options)

    def txt2img(self, **payload) -> Reply:
        """A small quick picture; every field of the API can be given."""
        return self.post("/sdapi/v1/txt2img", {**self.quick(), **payload})

    def img2img(self, picture: np.ndarray, **payload) -> Reply:
        """As txt2img, from a uint8 array (height, width, 3)."""
        return self.post(
            "/sdapi/v1/img2img",
            {**self.quick(), "init_images": [as_base64(picture)], **payload},
        )

    @staticmethod
    def quick() -> dict:
        return {
            "prompt": "a rocket",
            "steps": 4,
            "width": 64,
            "height": 64,
            "seed": 1,
            "sampler_name": "Euler",
        }

    def use_checkpoint(self, name: str) -> None:
        """Loads another checkpoint and waits until it is there."""
        reply = self.post("/sdapi/v1/options", {"sd_model_checkpoint": name})
        if reply.status != 200:
            raise RuntimeError(f"could not load {name}: {reply.text}")

    def probe(self) -> dict:
        """The fingerprint of the loaded model, see probe/scripts/sciart_probe.py."""
        return self.get("/probe/state").json

    def log(self) -> str:
        path = self.data / "server.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def files_left_in_webui(self) -> set[str]:
        """Files in the WebUI's tree that were not there before the server started."""
        return self.files_in_webui() - self.files_before

    def request(
        self,
        method: str,
        path: str,
        payload: dict | None = None,
        auth: str | None = "own",
        timeout: float | None = None,
    ) -> Reply:
        """auth: "user:password", None for none, "own" for what the server was started with."""
        data = None if payload is None else json.dumps(payload).encode("utf-8")
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, method=method)
        request.add_header("Content-Type", "application/json")
        credentials = self.api_credentials() if auth == "own" else auth
        if credentials:
            coded = base64.b64encode(credentials.encode("utf-8")).decode("ascii")
            request.add_header("Authorization", f"Basic {coded}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout or self.request_timeout) as response:
                return Reply(response.status, response.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.read())

    def api_credentials(self) -> str | None:
        arguments = list(self.args)
        if "--api-auth" in arguments:
            return arguments[arguments.index("--api-auth") + 1].split(",")[0]
        return None

    def fill_data_folder(self) -> None:
        for path in self.models.rglob("*"):
            if path.is_file():
                link_or_copy(path, self.data / "models" / path.relative_to(self.models))
        for place, path in self.files.items():
            link_or_copy(path, self.data / place)
        (self.data / "extensions").mkdir()
        for name, folder in self.extensions.items():
            link_or_copy(folder, self.data / "extensions" / name)
        for folder in (
            "tmp",
            "cache",
            "home",
            "textual_inversion_templates",
            "localizations",
        ):
            (self.data / folder).mkdir(exist_ok=True)
        settings = {
            "sd_model_checkpoint": self.checkpoint,
            "samples_save": False,
            "grid_save": False,
            "show_progress_type": "Approx cheap",  # the default downloads a preview network
            **SAVED,
            **self.settings,
        }
        (self.data / "config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")

    def command(self) -> list[str]:
        data = self.data
        arguments = [
            webui_python(self.webui), "launch.py",
            "--skip-prepare-environment", "--skip-torch-cuda-test", "--skip-version-check",
            "--do-not-download-clip", "--no-download-sd-model", "--no-hashing", "--no-prompt-history",
            "--api", "--api-server-stop", "--server-name", "127.0.0.1", "--port", self.port,
            "--data-dir", data, "--ui-config-file", data / "ui-config.json",
            "--ui-settings-file", data / "config.json", "--styles-file", data / "styles.csv",
            "--textual-inversion-templates-dir", data / "textual_inversion_templates",
            "--localizations-dir", data / "localizations",
        ]  # fmt: skip
        if os.environ.get("SCIART_WEBUI_DEVICE", "cpu") == "cpu":
            arguments += ["--use-cpu", "all", "--no-half"]
        if not self.ui:
            arguments.append("--nowebui")
        return [str(argument) for argument in (*arguments, *self.args)]

    def environment(self) -> dict[str, str]:
        data = self.data
        own = {
            "SCIART_USER_DIR": data / "sciart-user",
            "SD_WEBUI_CACHE_FILE": data / "cache.json",
            "SD_WEBUI_CACHE_DIR": data / "cache",
            "SD_WEBUI_LOG_LEVEL": "INFO",
            "SD_WEBUI_RESTARTING": "1",
            "MPLCONFIGDIR": data / "tmp",
            "TMPDIR": data / "tmp",
            "GRADIO_TEMP_DIR": data / "tmp",
            "GRADIO_ANALYTICS_ENABLED": "False",
            "XDG_CACHE_HOME": data / "home",
            "TORCH_HOME": data / "home",
            "HF_HOME": data / "home",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            **self.env,
        }
        return {
            **clean_environment(),
            **{name: str(value) for name, value in own.items()},
        }

    def start(self) -> None:
        """Waits for the end of the host's start-up, when all callbacks have run and the port answers."""
        with (self.data / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.webui,
                env=self.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + self.start_timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the WebUI ended with {self.process.returncode}:\n{self.log()[-6000:]}")
            if "Startup time:" in self.log() and self.answers():
                return
            time.sleep(0.3)
        raise TimeoutError(f"the WebUI did not start in {self.start_timeout:.0f} s:\n{self.log()[-6000:]}")

    def answers(self) -> bool:
        try:
            return self.get("/sdapi/v1/cmd-flags", timeout=10).status in (200, 401)
        except OSError:
            return False

    def stop(self) -> None:
        """Asks the server to stop; the API alone knows no stop, only a kill."""
        if self.process is None or self.process.poll() is not None:
            return
        try:
            self.post(
                "/sdapi/v1/server-stop" if self.ui else "/sdapi/v1/server-kill",
                timeout=5,
            )
            self.process.wait(timeout=20)
        except (OSError, subprocess.TimeoutExpired, json.JSONDecodeError):
            pass
        except Exception as error:  # http.client errors: the server went away while it answered
            if type(error).__module__ != "http.client":
                raise
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def files_in_webui(self) -> set[str]:
        found = set()
        for folder, folders, files in os.walk(self.webui):
            folders[:] = [name for name in folders if name not in NOT_LOOKED_INTO]
            here = Path(folder).relative_to(self.webui)
            found.update((here / name).as_posix() for name in files)
        return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def link_or_copy(source: Path, target: Path) -> None:
    """A symbolic link, or a copy where the system grants none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        else:
            shutil.copy2(source, target)


def as_base64(picture: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")

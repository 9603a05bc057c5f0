"""The harness itself: a host that nobody asked for anything is repeatable and leaves no trace."""

from server import HostServer


def test_the_same_request_gives_the_same_bytes(host: HostServer) -> None:
    first, second = host.txt2img(), host.txt2img()
    assert first.status == 200, first.text
    assert first.pngs[0] == second.pngs[0]
    assert first.pictures[0].std() > 5


def test_a_picture_leaves_the_model_as_it_was(host: HostServer) -> None:
    host.txt2img()
    before = host.probe()
    host.txt2img(prompt="a robot", seed=2)
    assert host.probe() == before


def test_the_server_writes_nothing_into_the_webui_folder(host: HostServer) -> None:
    host.txt2img()
    assert host.files_left_in_webui() == set()

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from search.elastic.ofa_package import build_elastic_network
from search.space.architecture import SupernetSpec


def _elastic_network(supernet_id, num_classes=7, seed=0):
    """ofa's elastic network with weights and statistics that no test can mistake for defaults."""
    net = build_elastic_network(SupernetSpec.parse(supernet_id), num_classes)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = value
        elif name.endswith(("running_var", "bn.weight")):
            state[name] = torch.rand(value.shape, generator=generator) + 0.5
        else:
            scale = value[0].numel() ** -0.5 if value.dim() > 1 else 0.3
            state[name] = torch.randn(value.shape, generator=generator) * scale
    net.load_state_dict(state)
    return net.eval()


@pytest.fixture
def elastic_network():
    """The function above."""
    return _elastic_network


def _official_format(net):
    """A state dict as the published files have it: older names of layers."""
    return {
        name.replace(".conv.inverted", ".mobile_inverted_conv.inverted")
        .replace(".conv.depth_conv", ".mobile_inverted_conv.depth_conv")
        .replace(".conv.point_linear", ".mobile_inverted_conv.point_linear")
        .replace(".bn.bn.", ".bn.")
        .replace(".conv.conv.weight", ".conv.weight"): value
        for name, value in net.state_dict().items()
    }


@pytest.fixture
def official_format():
    """The function above."""
    return _official_format


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def file_server(tmp_path, monkeypatch):
    """Serves tmp_path/served over loopback; yields (url, folder)."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", folder
        finally:
            server.shutdown()
            thread.join()

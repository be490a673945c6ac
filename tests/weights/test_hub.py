"""Publishing and fetching through huggingface_hub itself, against a stub of the Hub on the loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import marginface
from hub_stub import Hub, serve
from marginface import cli
from marginface.embedder import Embedder, ModelConfig
from marginface.errors import InputError
from marginface.weights.hub import push


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        # the stub takes large files by Git LFS, the Hub's older way, which the library still knows
        monkeypatch.setattr("huggingface_hub._commit_api.is_xet_available", lambda: False, raising=False)
        yield served


@pytest.fixture(scope="module")
def model() -> Embedder:
    torch.manual_seed(0)
    made = Embedder.create(ModelConfig("small", 16, {"width": 4}))
    made.notes["source"] = "a test"
    return made


def test_published_and_loaded_again(
    model: Embedder, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    model.save(run / "model")
    result = {
        "benchmark": "lfw", "model": "trained network", "accuracy": {"mean": 0.9125}, "auc": {"value": 0.97},
        "eer": {"value": 0.0881}, "tar_at_far": [{"far": 0.01, "tar": 0.7, "threshold": 0.25, "reason": None}],
    }  # fmt: skip
    (run / "metrics.json").write_text(json.dumps({"results": [result]}))
    cli.main(["push", str(run), "someone/faces", "--licence", "apache-2.0"])
    assert f"published: {hub.url}/someone/faces/commit/" in capsys.readouterr().out
    files = hub.repositories["someone/faces"]
    assert files.keys() >= {"README.md", "config.json", "model.safetensors"}
    card = files["README.md"].decode()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "| lfw | 91.25 | 0.9700 | 8.81 | 70.00 |" in card
    assert 'marginface.load("someone/faces")' in card

    again = marginface.load("someone/faces")
    assert again.notes == {"source": "a test"}
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, again.backbone.state_dict()[key])


def test_what_the_hub_refuses_is_one_sentence(model: Embedder, hub: Hub) -> None:
    with pytest.raises(InputError, match=r"someone/else is neither a file .* does not give it to you \(404\)"):
        marginface.load("someone/else")
    hub.refused["someone/secret"] = 403, "GatedRepo"
    with pytest.raises(InputError, match="someone/secret is gated on the Hugging Face Hub: accept its terms"):
        marginface.load("someone/secret")
    hub.refused["repos/create"] = 401, "no token"
    with pytest.raises(InputError, match=r"does not give it to you \(401\)"):
        push(model, "someone/faces", [], "other")
    hub.refused.clear()
    hub.repositories["someone/other-kind"] = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    with pytest.raises(InputError, match=r"holds no model\.safetensors of ours; download its checkpoint"):
        marginface.load("someone/other-kind")


def test_without_a_network_the_reason_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody answers
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="someone/faces is neither a file nor a folder here"):
        marginface.load("someone/faces")

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from borelax.models import hub
from borelax.ppl.errors import BorelaxError


def test_downloads_only_what_is_read(monkeypatch, tmp_path):
    def snapshot_download(name, *, revision, allow_patterns):
        assert (name, revision) == ("owner/model", "main")
        assert "*.safetensors" in allow_patterns
        assert not any(pattern.endswith((".bin", ".gguf")) for pattern in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert hub.download("owner/model", "main") == tmp_path


def test_an_unreachable_hub_is_said_to_be_so(monkeypatch):
    def snapshot_download(*_, **__):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(hub.HubError, match="'owner/model' is not in the local cache and cannot be") as caught:
        hub.download("owner/model")
    assert isinstance(caught.value, BorelaxError)
    assert isinstance(caught.value, OSError)


def test_a_name_that_is_none():
    with pytest.raises(hub.HubError, match="form 'owner/model'"):
        hub.download("one/too/many")

"""What is used of the Hub's client that it does not promise to keep; tests/test_hub_client.py looks at each."""

from huggingface_hub.utils import httpx

# It enforces HF_HUB_OFFLINE, and a client made by somebody else has to bring it along.
from huggingface_hub.utils._http import hf_request_event_hook

__all__ = ["hf_request_event_hook", "httpx"]

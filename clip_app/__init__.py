"""See what is in a picture with CLIP: a page, an API, metrics and a command line."""

import os
import sys
from importlib.metadata import version

# Read when huggingface_hub is first imported, by whichever module that is. Xet brings a TLS
# stack of its own, which knows nothing of this app's roots.
os.environ["HF_HUB_DISABLE_XET"] = "1"
if not os.environ.get("HF_ENDPOINT", "unset").strip():  # the client would take it for an address
    del os.environ["HF_ENDPOINT"]
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
# Its warnings about single tries; what they come to is said by this app.
os.environ.setdefault("HF_HUB_VERBOSITY", "error")
# OpenVINO's tools would report over the network, and cannot be imported for a user without a home.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
# Read when numpy is first imported: its products are small, and the encoder has all processors.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__all__ = ["__version__"]

__version__ = version("clip-app")

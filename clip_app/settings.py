"""Every setting, read from ``CLIP_APP_*`` variables or the flags of the same names."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from clip_app.errors import SettingsError
from clip_app.models import full_id, nearest

__all__ = [
    "DEFAULT_MODEL",
    "PREFIX",
    "Settings",
    "insecure_variables",
    "load_settings",
    "unknown_variables",
]

PREFIX = "CLIP_APP_"
CPU_ENGINES = ("openvino", "onnxruntime")
ORIGIN = re.compile(r"https?://[^/\s?#@]+")
ADDRESS = re.compile(r"https://(?:huggingface\.co|hf\.co)/(?P<id>[\w.-]+/[\w.-]+)(?P<rest>/.+)?/?")  # of a model's page
DEFAULT_MODEL = "openai/clip-vit-base-patch32"


class Settings(BaseSettings):
    """The settings of one process. Immutable: made once and passed in."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, populate_by_name=True, extra="ignore", env_ignore_empty=True
    )

    model: str = Field(
        DEFAULT_MODEL,
        min_length=1,
        description="A short name of clip-app models, a Hub id, a local folder, or 'bundled'.",
    )
    revision: str | None = Field(None, description="The commit of the model; the default model's is pinned.")
    fallback: Literal["bundled", "none"] = Field(
        "bundled", description="What serves where the model cannot be had: 'bundled' or 'none'."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="'auto', 'cpu' or 'cuda'.")
    engine: Literal["auto", "openvino", "torch", "onnxruntime"] = Field(
        "auto", description="'auto', 'openvino', 'torch' or 'onnxruntime'."
    )
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto", description="'auto' (the fastest that is accurate here), 'float32', 'bfloat16' or 'int8'."
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        "auto", description="Threads of the encoders; 'auto' takes the cgroup's CPU quota."
    )
    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(
        7860,
        ge=0,
        le=65535,
        validation_alias=AliasChoices(f"{PREFIX}PORT", "PORT"),
        description="The port to listen on.",
    )
    root_path: str = Field("", description="The path under which a proxy serves the app, such as /clip.")
    auth: SecretStr | None = Field(None, description="user:password for everything but health and metrics.")
    metrics_auth: Literal["open", "login"] = Field(
        "open", description="Who may read /metrics where AUTH is set: 'open' (anybody) or 'login'."
    )
    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="A port for /metrics alone, which visitors need not reach; by default the same as all else."
    )
    trusted_proxies: str = Field(
        "", description="Proxies whose X-Forwarded-For says who asks: addresses or networks, such as 10.0.0.0/8."
    )
    cors_origins: str = Field(
        "", description="Other sites whose pages may ask, such as https://a.example,https://b.example, or *."
    )
    ca_bundle: Path | None = Field(None, description="A PEM file of certificate authorities to trust as well.")
    tls_roots: Literal["certifi+system", "certifi"] = Field(
        "certifi+system", description="Where trust starts: 'certifi+system' or 'certifi'."
    )
    tls_verify: bool = Field(True, description="'false' goes on where a certificate fails, against pinned hashes only.")
    pins: Path | None = Field(None, description="A file of pinned hashes, from prefetch --write-pins.")
    max_upload_mb: float = Field(20, gt=0, le=1024, description="The most megabytes one picture may have.")
    max_pixels: int = Field(100_000_000, ge=1, le=1_000_000_000, description="The most pixels one picture may have.")
    decode: Literal["fast", "exact"] = Field(
        "fast", description="'fast' makes large pictures smaller while they are read; 'exact' reads every one in full."
    )
    queue_size: int = Field(64, ge=1, le=10_000, description="The most pictures in the works at once.")
    answer_seconds: float = Field(
        30,
        gt=0,
        le=3600,
        description="The most seconds a picture in the works waits for its answer before it is refused.",
    )
    max_batch_size: int = Field(8, ge=1, le=256, description="The most pictures in one forward pass.")
    labels_dir: Path | None = Field(None, description="A folder of your own label groups: words, pictures or both.")
    collections: str = Field(
        "",
        description="Collections of clip-app index that visitors may search: names or folders, such as home,/data/art.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
    log_format: Literal["text", "json"] = Field("text", description="'text' or 'json'.")

    @field_validator("model")
    @classmethod
    def _by_its_id(cls, value: str) -> str:
        """A short name becomes the id behind it; without a slash nothing else is one but a folder that is there."""
        if (address := ADDRESS.fullmatch(value)) is not None:
            if address["rest"]:
                raise ValueError(f"give the id, {address['id']}, and a revision with CLIP_APP_REVISION")
            value = address["id"]
        elif "://" in value:
            raise ValueError("it is an address; give a Hub id, such as acme/clip, or a folder")
        model = full_id(value)
        if "/" not in model and model != "bundled" and not Path(model).expanduser().is_dir():
            near = nearest(value)
            hint = f"did you mean {near}? " if near else ""
            raise ValueError(f"{hint}clip-app models lists the short names; else give a Hub id or a folder")
        return model

    @field_validator("engine")
    @classmethod
    def _installed_engine(cls, value: str, info: ValidationInfo) -> str:
        if value in CPU_ENGINES and info.data.get("device") == "cuda":
            raise ValueError(f"{value} runs on the CPU here; choose CLIP_APP_DEVICE=cpu or CLIP_APP_ENGINE=torch")
        if value in CPU_ENGINES and find_spec(value) is None:
            raise ValueError(f"{value} is not installed; pip install 'clip-app[{value}]'")
        return value

    @field_validator("precision")
    @classmethod
    def _int8_needs_a_cpu_engine(cls, value: str, info: ValidationInfo) -> str:
        torch_runs = info.data.get("engine") == "torch" or info.data.get("device") == "cuda"
        if value == "int8" and (torch_runs or not any(map(find_spec, CPU_ENGINES))):
            raise ValueError("int8 needs OpenVINO on the CPU; pip install 'clip-app[openvino]', CLIP_APP_ENGINE=auto")
        return value

    @field_validator("auth")
    @classmethod
    def _user_and_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all(value.get_secret_value().partition(":")):
            raise ValueError("it must be user:password")
        return value

    @field_validator("labels_dir")
    @classmethod
    def _existing_folder(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError("it must be an existing folder")
        return value

    @field_validator("root_path")
    @classmethod
    def _starts_with_slash(cls, value: str) -> str:
        if value and not value.startswith(("/", "http://", "https://")):
            raise ValueError("it must start with / or be a full URL")
        return value.rstrip("/")

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        if wrong := [origin for origin in _listed(value) if origin != "*" and not ORIGIN.fullmatch(origin)]:
            raise ValueError(f"{wrong[0]} is no origin; one is like https://a.example:8443, without a path")
        return value

    @field_validator("metrics_auth")
    @classmethod
    def _needs_a_password(cls, value: str, info: ValidationInfo) -> str:
        if value == "login" and info.data.get("auth") is None:
            raise ValueError("there is no login without CLIP_APP_AUTH=user:password")
        return value

    @field_validator("metrics_port")
    @classmethod
    def _apart(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value == info.data.get("port"):
            raise ValueError("it is the port of all else already; unset it, or choose another")
        if value is not None and info.data.get("metrics_auth") == "login":
            raise ValueError("there is no login at a port of its own; unset one of it and CLIP_APP_METRICS_AUTH")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        for part in _listed(value):
            try:
                ip_network(part)
            except ValueError:
                raise ValueError(f"{part} is no address or network; one is like 10.0.0.0/8 or 192.0.2.7") from None
        return value

    @property
    def proxies(self) -> list[str]:
        """TRUSTED_PROXIES as a list."""
        return _listed(self.trusted_proxies)

    @property
    def allowed_origins(self) -> list[str]:
        """CORS_ORIGINS as a list."""
        return _listed(self.cors_origins)

    @property
    def searched(self) -> list[str]:
        """COLLECTIONS as a list."""
        return _listed(self.collections)

    @property
    def max_upload_bytes(self) -> int:
        """MAX_UPLOAD_MB in bytes."""
        return int(self.max_upload_mb * 1_000_000)


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def load_settings(**given: Any) -> Settings:
    """Read the environment, with values of flags given in their place.

    Raises:
        SettingsError: naming the setting, its value and what is allowed.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if "tls_verify" not in chosen and f"{PREFIX}TLS_VERIFY" not in os.environ and insecure_variables():
        chosen["tls_verify"] = False
    try:
        return Settings(**chosen)
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


def insecure_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the usual switches that are set to turn verification off; they count as TLS_VERIFY=false."""
    switches = []
    if environ.get("HF_HUB_DISABLE_SSL_VERIFICATION", "").upper() in ("1", "TRUE", "YES", "ON"):
        switches.append("HF_HUB_DISABLE_SSL_VERIFICATION")
    if environ.get("PYTHONHTTPSVERIFY") == "0":
        switches.append("PYTHONHTTPSVERIFY")
    return switches


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return variables that look like settings and are none, each with the nearest real name."""
    known = [name.upper() for name in Settings.model_fields]
    given = [name.removeprefix(PREFIX) for name in environ if name.startswith(PREFIX)]
    nearest = {name: difflib.get_close_matches(name, known, 1) for name in given if name not in known}
    return {PREFIX + name: PREFIX + close[0] if close else None for name, close in nearest.items()}


def _one_line(error: ValidationError) -> str:
    problem = error.errors()[0]
    name = str(problem["loc"][0]).upper().removeprefix(PREFIX)
    value = "***" if name == "AUTH" else problem["input"]
    messages = [p["msg"].removeprefix("Value error, ") for p in error.errors() if p["loc"][0] == problem["loc"][0]]
    allowed = " or ".join(dict.fromkeys(message[0].lower() + message[1:] for message in messages))
    return f"{PREFIX}{name}={value}: {allowed}"

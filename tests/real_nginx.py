"""A real nginx on loopback in front of the app, set up as operators do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from conftest import free_port, wait_for

Prefix = Literal["kept", "taken off", "none"]

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location {location} {{
      proxy_pass {upstream};
      proxy_set_header Host {host};
      {more}
    }}
  }}
}}
"""


@contextmanager
def nginx(upstream: str, folder: Path, *, prefix: Prefix, host: str = "$http_host", more: str = "") -> Iterator[str]:
    """Serve what is at ``upstream`` below /clip, or at the root; yields the address of the page."""
    port = free_port()
    location = "/" if prefix == "none" else "/clip/"
    # With a path behind it, the location is replaced by that path: the prefix is taken off.
    target = f"{upstream}/" if prefix == "taken off" else upstream
    configuration = folder / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(folder=folder, port=port, location=location, upstream=target, host=host, more=more)
    )
    process = subprocess.Popen(["nginx", "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}{location}healthz", process)
        yield f"http://127.0.0.1:{port}{location}"
    finally:
        process.terminate()
        process.wait(10)

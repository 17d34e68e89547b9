#!/bin/sh
# Writes a tar of a Debian with Python into the file named: a base image for where none can be pulled.
# What of Python comes with it is what the Dockerfile needs of an official python image: python3 and venv.
set -eu
exec mmdebstrap --quiet --variant=minbase --mode="${STAND_IN_MODE:-auto}" --include=python3,python3-venv,ca-certificates \
    "${STAND_IN_SUITE:-bookworm}" "$1"

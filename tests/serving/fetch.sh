#!/usr/bin/env bash
# Install a real Triton Inference Server without a container or a GPU: tests/serving/fetch.sh PYTHON FOLDER
#
#   FOLDER/venv       the server of the package nvidia-pytriton, and the packages that its Python models import
#   FOLDER/backends   its Python backend, and stand-ins for two backends that are not in that package: in the folders
#                     `onnxruntime` and `tensorrt`, tests/serving/stand_in.py plays models under unmodified configs
#
# numpy and onnxruntime have the versions of export/triton/container.py. Where the wheel or libpython is not available,
# the tests that need the server are skipped.
set -euo pipefail
python=$1 folder=$2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
venv=$folder/venv version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ ! -e "$folder/installed" ] || [ "$0" -nt "$folder/installed" ]; then
    rm -rf "$venv" "$folder/installed"
    "$python" -m venv "$venv"
    if ! "$venv/bin/python" -m pip install --quiet nvidia-pytriton==0.7.0 numpy==1.26.4 onnxruntime==1.23.2 2>"$folder/log"; then
        echo "Triton is not available for this Python or processor; its tests are skipped: $(tail -n 1 "$folder/log")"
        rm -rf "$venv"
        exit 0
    fi
    touch "$folder/installed"
fi
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
server=$site/pytriton/tritonserver
rm -rf "$folder/backends"
for backend in python onnxruntime tensorrt; do # copies, because Triton refuses links to files outside the folder
    mkdir -p "$folder/backends/$backend"
done
cp "$server"/backends/python/{libtriton_python.so,triton_python_backend_utils.py} "$folder/backends/python/"
cp "$server/python_backend_stubs/$version/triton_python_backend_stub" "$folder/backends/python/"
cp "$here/stand_in.py" "$folder/backends/onnxruntime/model.py"
cp "$here/stand_in.py" "$folder/backends/tensorrt/model.py"
ln -sfn "$server/bin/tritonserver" "$folder/tritonserver"
"$python" - >"$folder/libraries" <<END
import sysconfig
print("$site/nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"), sep=":")
END

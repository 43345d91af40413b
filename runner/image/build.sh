#!/bin/sh
# Makes an environment inside of the build container. It is the same text for
# every plan: all that differs stands in files of this folder.
set -eu
here=/run/repromill
. "$here/settings.sh"
uv=/run/repromill-uv
phase() { echo "::repromill:: $*"; }

mkdir -p "$HOME"
phase python
python=$RM_PYTHON
if [ "$RM_FROM" = uv ]; then
	"$uv" python install --install-dir /opt/python --no-bin "$RM_PYTHON"
	python=$("$uv" python find --managed-python --python-preference only-managed "$RM_PYTHON")
fi
[ -e /opt/env/pyvenv.cfg ] || "$uv" venv --quiet --python "$python" --allow-existing /opt/env
/opt/env/bin/python -I -c 'import sys; print("::repromill:: version %d.%d.%d" % sys.version_info[:3])'
if [ -s "$here/in.txt" ]; then
	phase resolve
	"$uv" pip compile --quiet --no-header --python /opt/env/bin/python \
		--generate-hashes --output-file /tmp/repromill-lock.txt "$here/in.txt" >/dev/null
	phase install
	"$uv" pip sync --python /opt/env/bin/python /tmp/repromill-lock.txt
fi
phase done

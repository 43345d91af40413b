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
if [ "$RM_FROM" = conda ]; then
	conda=/run/repromill-micromamba
	if [ ! -e "$conda" ]; then
		# The tool is no part of the environment, whose bounds are not its own.
		( unset UV_EXCLUDE_NEWER UV_CONSTRAINT UV_OVERRIDE UV_BUILD_CONSTRAINT UV_TORCH_BACKEND UV_FIND_LINKS &&
			"$uv" venv --quiet --python "$RM_PYTHON" --allow-existing /tmp/conda &&
			"$uv" pip install --quiet --require-hashes --python /tmp/conda/bin/python -r "$here/conda-tool.txt" ) || {
			phase conda failed 4
			exit 4
		}
		conda="/tmp/conda/bin/python -I $here/conda.py"
	fi
	mkdir -p /opt/env/conda-meta # which makes it an environment
	: >>/opt/env/conda-meta/history
	set --
	while read -r channel; do set -- "$@" --channel "$channel"; done <"$here/channels.txt"
	phase conda
	code=0
	$conda install --yes --quiet --no-rc --override-channels --prefix /opt/env "$@" --file "$here/conda.txt" || code=$?
	if [ $code != 0 ]; then
		phase conda failed $code
		exit $code
	fi
else
	python=$RM_PYTHON
	if [ "$RM_FROM" = uv ]; then
		"$uv" python install --install-dir /opt/python --no-bin "$RM_PYTHON"
		python=$("$uv" python find --managed-python --python-preference only-managed "$RM_PYTHON")
	fi
	[ -e /opt/env/pyvenv.cfg ] || "$uv" venv --quiet --python "$python" --allow-existing /opt/env
fi
/opt/env/bin/python -I -c 'import sys; print("::repromill:: version %d.%d.%d" % sys.version_info[:3])'
compile() {
	"$uv" pip compile --quiet --no-header --python /opt/env/bin/python --generate-hashes --output-file /tmp/repromill-lock.txt "$@" >/dev/null
}
if [ -s "$here/in.txt" ]; then
	phase resolve
	if [ "$RM_FROM" = conda ]; then # beside what the channels gave, which counts
		"$uv" pip freeze --quiet --python /opt/env/bin/python >/tmp/before.txt
		phase install
		"$uv" pip install --python /opt/env/bin/python -r "$here/in.txt"
		"$uv" pip freeze --quiet --python /opt/env/bin/python | grep -vxF -f /tmp/before.txt >/tmp/added.txt || :
		compile --no-deps /tmp/added.txt || cp /tmp/added.txt /tmp/repromill-lock.txt
	else
		compile "$here/in.txt"
		phase install
		"$uv" pip sync --python /opt/env/bin/python /tmp/repromill-lock.txt
	fi
fi
phase done

# Sourced by the other scripts: puts the checkout on PYTHONPATH, and the interpreter to use into $python. That is
# $PYTHON if it is set, else the first of `python` on PATH and the checkout's .venv that has the packages.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

has_packages() {
    # Found, not imported, which takes seconds; a folder that merely has the name of a package has no origin.
    "$1" -c 'import sys; from importlib.util import find_spec
sys.exit(not all(getattr(find_spec(name), "origin", None) for name in ("mmengine", "mmmeta")))' 2>/dev/null
}

if [ -n "${PYTHON:-}" ]; then
    python="$PYTHON"
    if ! has_packages "$python"; then
        echo "error: PYTHON='$PYTHON' is no interpreter with MMEngine and mmmeta: unset it, or set it to one that has them" >&2
        exit 1
    fi
else
    python=python
    has_packages "$python" || python="$root/.venv/bin/python"
    if ! has_packages "$python"; then
        echo "error: neither 'python' on PATH nor '$python' has MMEngine and mmmeta: run make setup, or set PYTHON to an interpreter that has them" >&2
        exit 1
    fi
fi

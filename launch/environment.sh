# shellcheck shell=bash
# Sourced by the other scripts: a virtual environment in .venv, made once and reused while
# requirements are unchanged.
# usage: EXTRA=test source launch/environment.sh      (an extra of setup.py, such as test or cuda)
# A variable and not an argument: a sourced script without arguments sees those of the script that
# sources it. PYTHON=/path/to/python chooses the interpreter; otherwise the first of python3.12,
# python3.11, python3 that fits. Where all are older, as on Ubuntu 22.04, TPU VMs among them, uv
# brings a Python.

extra="${EXTRA:-}"
known='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
fits() { "$1" -c "$known" >/dev/null 2>&1; }
told() { echo "error: $1" >&2; }  # and then `return 2`: a shell that sources this stays
brought() {
  local uv=(uv)
  command -v uv >/dev/null || {
    uv=(python3 -m uv)
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv >&2; } || return
  "${uv[@]}" python install --no-progress 3.12 >&2 && "${uv[@]}" python find 3.12
}

if [ -n "${PYTHON:-}" ]; then
  fits "$PYTHON" || { told "PYTHON=$PYTHON is not a Python of version 3.11 to 3.13"; return 2; }
else
  for candidate in python3.12 python3.11 python3; do
    if fits "$candidate"; then PYTHON=$candidate; break; fi
  done
  [ -n "${PYTHON:-}" ] || PYTHON="$(brought)" \
    || { told "no Python 3.11 or 3.12 found, and uv brings none; install one or set PYTHON"
         return 2; }
fi

about='import sys; print(sys.version.split()[0], sys.base_prefix)'
stamp="$("$PYTHON" -c "$about") $(cat setup.py requirements.txt | cksum)"
if ! grep -qxF "$stamp $extra" .venv/stamps 2>/dev/null; then
  grep -qF "$stamp" .venv/stamps 2>/dev/null || rm -rf .venv
  echo "Setting up .venv with $("$PYTHON" --version) (about two minutes, once) ..."
  # Debian's bare python3 has no ensurepip: virtualenv brings its own pip.
  [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv 2>/dev/null || {
    rm -rf .venv && "$PYTHON" -m pip install --quiet --user virtualenv --break-system-packages \
      && "$PYTHON" -m virtualenv --quiet .venv; } \
    || { told "$PYTHON can make no virtual environment (Debian: apt install python3-venv)"
         return 2; }
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${extra:+[$extra]}" \
    || { told "re2pix_jax${extra:+[$extra]} was not installed, see above: try again"; return 2; }
  echo "$stamp $extra" >> .venv/stamps
fi
# shellcheck source=/dev/null
source .venv/bin/activate

# Large arrays in huge pages: glibc gives freed memory back at once, and a training step on the CPU
# then spends a quarter of its time on getting it again page by page (measured on the tiny
# generator: 285 000 page faults a step against 2 000, 2.4 s of processor time against 1.5).
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

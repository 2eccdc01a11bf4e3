#!/usr/bin/env bash
# Installs Debian's chromium, in which the tests open report.html, unless it is there. Needs root or sudo.
#
#   bash tests/install_browser.sh
#   EMOCALIBER_CHROMIUM=PATH      another Chromium; nothing is installed if it is there
set -euo pipefail
if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then
  sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
  exit 0
fi
BROWSER="${EMOCALIBER_CHROMIUM:-/usr/bin/chromium}"

if [[ -x "$BROWSER" ]]; then
  echo "$BROWSER is there"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "error: no apt-get here; install chromium by hand and give its path as EMOCALIBER_CHROMIUM" >&2
  exit 2
fi
as_root=()
if ((EUID != 0)); then as_root=(sudo); fi
"${as_root[@]}" apt-get update -q || echo "warning: apt-get update failed; trying with the lists that are there" >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium
if [[ ! -x "$BROWSER" ]]; then
  echo "error: chromium was installed, but not as $BROWSER; give its path as EMOCALIBER_CHROMIUM" >&2
  exit 1
fi

# Sourced: uv reads none of pip's settings; it takes a mirror and a certificate of one's own from them here.
use_settings_of_pip() { # python
  local index certificate
  index=${PIP_INDEX_URL:-$("$1" -m pip config get global.index-url 2>/dev/null || true)}
  certificate=${PIP_CERT:-$("$1" -m pip config get global.cert 2>/dev/null || true)}
  if [ -n "$index" ] && [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX=$index; fi
  if [ -n "$certificate" ] && [ -z "${SSL_CERT_FILE:-}" ]; then export SSL_CERT_FILE=$certificate; fi
}

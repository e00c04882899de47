# Components run in the background: pid in $DIR/run, output in $DIR/logs. `run_NAME` says how each is started,
# so that one can be stopped and started again while the others live.

start() { # component
  declare -F "run_$1" >/dev/null || fail "there is no component $1"
  running "$1" && return
  mkdir -p "$DIR/run" "$DIR/logs"
  cd "$DIR"
  "run_$1"
}

# setsid: a Ctrl-C in the terminal of the caller must not reach the cluster.
spawn() { # component command…
  local name=$1; shift
  setsid nohup "$@" >>"$DIR/logs/$name.log" 2>&1 </dev/null &
  echo $! >"$DIR/run/$name.pid"
}

running() { # component
  local pid; pid=$(cat "$DIR/run/$1.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null
}

# The first component that was started and is no longer there.
ended() {
  local file
  for file in "$DIR"/run/*.pid; do
    [ ! -e "$file" ] || running "$(basename "$file" .pid)" || { basename "$file" .pid; return; }
  done
}

stop() { # component   SIGTERM, ten seconds, SIGKILL
  local pid tries=100
  running "$1" || { rm -f "$DIR/run/$1.pid"; return 0; }
  pid=$(cat "$DIR/run/$1.pid")
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null && [ $tries -gt 0 ]; do sleep .1; tries=$((tries - 1)); done
  kill -9 "$pid" 2>/dev/null || true
  rm -f "$DIR/run/$1.pid"
}

# Components run in the background: pid and start time in $DIR/run, output in $DIR/logs. `run_NAME` says how each is
# started, so that one can be stopped and started again while the others live.

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
  echo "$! $(start_time $!)" >"$DIR/run/$name.pid"
}

# Field 22 of proc_pid_stat(5), in ticks since boot; nothing for a zombie. With it a pid that the kernel gave to
# another program later, or before the machine was started anew, is not taken for ours.
start_time() { # pid
  sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" {print $20}'
}

running() { # component
  local pid since
  read -r pid since 2>/dev/null <"$DIR/run/$1.pid" && [ -n "$since" ] && [ "$(start_time "$pid")" = "$since" ]
}

# The first component that was started and is no longer there.
ended() {
  local file
  for file in "$DIR"/run/*.pid; do
    [ ! -e "$file" ] || running "$(basename "$file" .pid)" || { basename "$file" .pid; return; }
  done
}

forget_ended() {
  local name
  while name=$(ended) && [ -n "$name" ]; do rm -f "$DIR/run/$name.pid"; done
}

# `stopped_NAME` removes what goes with a component.
stop() { # component   SIGTERM, ten seconds, SIGKILL
  local pid tries=100
  if running "$1"; then
    read -r pid _ <"$DIR/run/$1.pid"
    kill "$pid"
    while running "$1" && [ $tries -gt 0 ]; do sleep .1; tries=$((tries - 1)); done
    running "$1" && kill -9 "$pid" 2>/dev/null
  fi
  rm -f "$DIR/run/$1.pid"
  ! declare -F "stopped_$1" >/dev/null || "stopped_$1"
}

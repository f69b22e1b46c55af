# What the benches share. Source it with the options read, flavours in `flavours`, the packages to build in `build`.
# Everything happens in a temporary directory, `$dir`, on servers of its own.
# shellcheck shell=bash disable=SC2034,SC2154

cargo build --release --locked --quiet "${build[@]/#/--package=}"
target=${CARGO_TARGET_DIR:-$PWD/target}/release
dir=$(mktemp -d "${TMPDIR:-/tmp}/heratio-backup-bench.XXXXXX")
worker=
cleanup() {
  stop_worker
  for f in "${flavours[@]}"; do scripts/server stop "$dir/$f" >/dev/null 2>&1 || true; done
  rm -rf "$dir"
}
trap cleanup EXIT

stop_worker() {
  [[ -z $worker ]] || { kill "$worker" 2>/dev/null && wait "$worker" || true; }
  worker=
}
run_worker() { # VARIABLES...
  env "$@" "$target/worker" run 2>"$dir/worker.log" &
  worker=$!
}
enqueue() { "$target/enqueue" "$@" --wait >"$dir/out" 2>&1 || { cat "$dir/out" "$dir/worker.log" >&2; exit 1; }; }

# Starts a server and prepares the system on it: $BIN, $SOCKET, $mysql (the client), $dump_tool, $backups.
start_server() { # FLAVOUR OPTIONS...
  "scripts/install-$1" >/dev/null
  scripts/server start "$1" "$dir/$1" "${@:2}"
  # shellcheck disable=SC1091
  . "$dir/$1/env"
  local client=mysql
  dump_tool=$BIN/mysqldump
  [[ $1 == mysql ]] || { client=mariadb; dump_tool=$BIN/mariadb-dump; }
  mysql=("$BIN/$client" --no-defaults "--socket=$SOCKET" --user=root)
  "${mysql[@]}" -e 'CREATE DATABASE heratio CHARACTER SET utf8mb4'
  backups=$dir/$1-backups
  mkdir -m 700 "$backups"
  export BACKUP_DATABASE_URL="mysql://root@localhost/heratio_backup?socket=$SOCKET"
  export HERATIO_DATABASE_URL="mysql://root@localhost/heratio?socket=$SOCKET"
  export HERATIO_ROOT=$dir HERATIO_UPLOADS_PATH=$dir/uploads HERATIO_BACKUPS_PATH=$backups BACKUP_TOOLS_DIR=$BIN BACKUP_POLL_MS=50
  "$target/worker" migrate >/dev/null
}
stop_server() { scripts/server stop "$dir/$1" >/dev/null; }

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f\n", b - a }'; }
# The median of a column of a file.
median() { # FILE [COLUMN]
  awk -v c="${2:-1}" '{ print $c }' "$1" | sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
# Runs a shell command; appends its wall time, CPU seconds and the peak memory in MB of its largest process to a file.
timed() { # FILE COMMAND
  /usr/bin/time -f '%e %U %S %M' -o "$dir/time" bash -o pipefail -c "$2" 2>"$dir/err" || { cat "$dir/err" >&2; exit 1; }
  awk '{ printf "%.2f %.2f %.0f\n", $1, $2 + $3, $4 / 1e3 }' "$dir/time" >>"$1"
}
# The same of a job of the running worker, whose peak is that of its life.
timed_job() { # FILE ENQUEUE-ARGUMENTS...
  local ticks start
  ticks=$(cpu_ticks) start=$(now)
  enqueue "${@:2}"
  echo "$(since "$start") $(awk -v t="$(($(cpu_ticks) - ticks))" -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.2f", t / hz }') $(awk '/VmHWM/ { printf "%.0f", $2 / 1e3 }' "/proc/$worker/status")" >>"$1"
}
cpu_ticks() { awk '{ print $14 + $15 + $16 + $17 }' "/proc/$worker/stat"; }
# A line of a contender: medians, and how many times faster ours is.
report() { # TITLE CONTENDER FILE FILE-OF-OURS [SIZE]
  awk -v f="$1" -v c="$2" -v w="$(median "$3")" -v u="$(median "$3" 2)" -v m="$(median "$3" 3)" -v o="$(median "$4")" -v s="${5:-}" 'BEGIN {
    printf "%-8s %-9s %6.2f s wall  %6.2f s CPU  %4d MB", f, c, w, u, m
    if (s != "") printf "  %7.2f MB", s / 1e6
    if (c != "ours") printf "   ours is %.2f times faster", w / o
    print "" }'
}
machine() { echo "$(nproc) cores, $(awk -F ': ' '/model name/ { print $2; exit }' /proc/cpuinfo); load $(cut -d ' ' -f 1-3 /proc/loadavg)"; }
usage() { sed -n '3,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ -x /usr/bin/time ]] || { echo "${0##*/}: needs GNU time (apt-get install time)" >&2; exit 1; }

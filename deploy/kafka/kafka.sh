#!/usr/bin/env bash
# A real Apache Kafka (KRaft, one broker, loopback) without Docker: Maven gathers the jars, Java runs them.
#   kafka.sh start   starts it unless it runs already; prints the bootstrap address, alone on stdout
#   kafka.sh stop    stops it and forgets its data
#   kafka.sh jars    only gathers the jars; prints their folder, alone on stdout
# Everything lives in .run/kafka. KAFKA_PORT (default 19092) is the broker's port, the next one is the controller's.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
run="$(cd "$here/../.." && pwd)/.run/kafka"
port="${KAFKA_PORT:-19092}"
address="127.0.0.1:$port"

say() { echo "kafka: $*" >&2; }
fail() { say "$*"; exit 1; }

running() { [[ -s "$run/pid" ]] && kill -0 "$(<"$run/pid")" 2>/dev/null; }

tool() { timeout 20 java -Dlog4j2.configurationFile="$here/log4j2.properties" -cp "$run/libs/*" "$@"; }

answers() { tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$address" --list >/dev/null 2>&1; }

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

need_tools() {
  command -v java >/dev/null || fail "needs Java 17 or newer (Debian and Ubuntu: apt-get install openjdk-17-jre-headless)"
  local version
  version="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)"
  [[ "${version:-0}" -ge 17 ]] || fail "needs Java 17 or newer; found ${version:-an unknown version}"
  command -v mvn >/dev/null || fail "needs Maven to gather the jars (Debian and Ubuntu: apt-get install maven)"
}

gather_jars() {
  local wanted
  wanted="$(cksum <"$here/pom.xml")"
  [[ -f "$run/libs/.complete" && "$(<"$run/libs/.complete")" == "$wanted" ]] && return
  say "gathering about 90 jars with Maven"
  rm -rf "$run/libs"
  mvn -B -q -f "$here/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$run/libs" -DincludeScope=runtime >"$run/maven.log" 2>&1 ||
    { tail -20 "$run/maven.log" >&2; fail "Maven could not gather the jars"; }
  echo "$wanted" >"$run/libs/.complete"
}

format_storage() {
  rm -rf "$run/data"
  sed -e "s|@PORT@|$port|g" -e "s|@CONTROLLER_PORT@|$((port + 1))|g" -e "s|@DATA@|$run/data|g" \
    "$here/server.properties" >"$run/server.properties"
  tool kafka.tools.StorageTool format --standalone -t "$(tool kafka.tools.StorageTool random-uuid)" \
    -c "$run/server.properties" >"$run/format.log" 2>&1 || { cat "$run/format.log" >&2; fail "storage could not be formatted"; }
}

launch() {
  # A session of its own: Ctrl-C in the terminal that called make must not reach it.
  setsid java -Xms256m -Xmx512m -XX:+UseSerialGC -XX:MaxDirectMemorySize=128m -XX:+ExitOnOutOfMemoryError \
    -Dlog4j2.configurationFile="$here/log4j2.properties" -cp "$run/libs/*" kafka.Kafka "$run/server.properties" \
    >"$run/kafka.log" 2>&1 </dev/null &
  echo $! >"$run/pid"
  echo "$address" >"$run/address"
}

await_answer() {
  local deadline=$((SECONDS + 90))
  until answers; do
    running || { tail -20 "$run/kafka.log" >&2; fail "the broker ended; its log is $run/kafka.log"; }
    ((SECONDS < deadline)) || fail "no answer on $address after 90 s; the log is $run/kafka.log"
    sleep 0.5
  done
}

start() {
  mkdir -p "$run"
  need_tools
  if running; then
    address="$(<"$run/address")"
    await_answer
  else
    for each in "$port" "$((port + 1))"; do
      ! port_taken "$each" || fail "port $each is taken; set KAFKA_PORT to another one (the next port is used as well)"
    done
    gather_jars
    format_storage
    launch
    await_answer
  fi
  say "ready; for the tests: export KAFKA_BOOTSTRAP_SERVERS=$address"
  echo "$address"
}

stop() {
  if running; then
    local pid deadline=$((SECONDS + 20))
    pid="$(<"$run/pid")"
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do
      ((SECONDS < deadline)) || { kill -9 "$pid"; break; }
      sleep 0.2
    done
    say "stopped"
  else
    say "is not running"
  fi
  rm -rf "$run/pid" "$run/address" "$run/data"
}

jars() {
  mkdir -p "$run"
  need_tools
  gather_jars
  echo "$run/libs"
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  jars) jars ;;
  *) fail "usage: kafka.sh start|stop|jars" ;;
esac

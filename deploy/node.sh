#!/bin/sh
# Starts a Redis node or a Sentinel on a configuration of its own: `node.sh redis`, `node.sh sentinel`.
#
# The copy is made at the first start only: from then on it holds what Redis and Sentinel have
# written into it, such as who the master is.
#
# NODE_NAME     the name under which the other containers reach this one
# FIRST_MASTER  the node that a replica follows before any failover; empty for the first master
# TEMPLATES     where the templates are, /etc/redis by default
# DATA          where the copy goes, /data by default
set -eu

kind=$1
templates=${TEMPLATES:-/etc/redis}
data=${DATA:-/data}
conf=$data/$kind.conf

if [ ! -s "$conf" ]; then
    {
        cat "$templates/$kind.conf"
        case $kind in
        redis)
            echo "replica-announce-ip $NODE_NAME"
            if [ -n "${FIRST_MASTER:-}" ]; then
                echo "replicaof $FIRST_MASTER 6379"
            fi
            ;;
        sentinel)
            echo "sentinel announce-ip $NODE_NAME"
            ;;
        esac
    } >"$conf.new"
    mv "$conf.new" "$conf"
fi

case $kind in
redis) exec redis-server "$conf" ;;
sentinel) exec redis-sentinel "$conf" ;;
*)
    echo "node.sh: $kind is neither redis nor sentinel" >&2
    exit 64
    ;;
esac

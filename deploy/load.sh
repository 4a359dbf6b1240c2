#!/bin/sh
# SET, GET, INCR and DEL on ten keys, about a hundred commands a second, for ever, over one
# connection: `load.sh HOST PORT`. Says every thousand replies how it goes, and shows every error.
set -eu

commands() {
    turn=0
    while :; do
        turn=$((turn + 1))
        key=$((turn % 10))
        echo "SET text:$key value-$turn"
        echo "GET text:$key"
        echo "INCR counter:$key"
        echo "GET counter:$key"
        if [ $((turn % 40)) -ge 30 ]; then
            echo "DEL text:$key"
        fi
        sleep 0.04
    done
}

# Line by line, so that an error is shown when it happens.
commands | stdbuf -oL redis-cli -h "$1" -p "$2" | {
    replies=0
    errors=0
    while read -r reply; do
        case $reply in
        '') continue ;;
        [A-Z][A-Z]*\ * | Could\ not\ * | Error*)
            errors=$((errors + 1))
            echo "$reply"
            ;;
        esac
        replies=$((replies + 1))
        if [ $((replies % 1000)) -eq 0 ]; then
            echo "$replies replies, $errors errors"
        fi
    done
}

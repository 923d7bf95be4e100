#!/bin/sh
# Start of every container of a MiniCluster. Nothing is filled into this text.
files=${FLUXOP_TEXTS:-}@FILES@ secret=${FLUXOP_TEXTS:-}@SECRET@ state=${FLUXOP_ROOT:-}@STATE@
index=${JOB_COMPLETION_INDEX:-0}

say() { printf 'minicluster: %s\n' "$*" >&2; }

# Source one of the user's shell texts, if there is one.
hook() {
    [ -s "$files/${FLUXOP_CONTAINER:-0}-$1" ] || return 0
    if [ -n "${FLUXOP_STRICT:-}" ]; then
        set -e
        . "$files/${FLUXOP_CONTAINER:-0}-$1"
        set +e
    else
        . "$files/${FLUXOP_CONTAINER:-0}-$1" || say "commands.$1 ended with $?"
        set +e # which it may have changed
    fi
}

# Where our files are not mounted they come as variables. A relay or a probe may be here before the container's own
# command, so each is written aside and moved into its place, this script last.
unpack() {
    cure="give the container any volume (scratch: {emptyDir: true, path: /scratch}), and ours come by volumes too"
    umask 077
    if ! mkdir -p "$files" "$secret" "$state"; then
        say "$FLUXOP_TEXTS cannot be written by user $(id -u); $cure"
        exit 1
    fi
    printf %s "$FLUXOP_CURVE" >"$secret/$$" && mv "$secret/$$" "$secret/@KEY@" &&
        printf %s "$FLUXOP_BROKER" >"$files/$$" && mv "$files/$$" "$files/broker.toml" &&
        { [ -z "${FLUXOP_AGENT:-}" ] || unpack_agent; } &&
        printf %s "$FLUXOP_ENTRY" >"$files/$$" && mv "$files/$$" "$files/entry.sh" && return
    say "our files could not be written to $FLUXOP_TEXTS, for which the image needs base64; $cure"
    exit 1
}

unpack_agent() {
    printf %s "$FLUXOP_AGENT" "${FLUXOP_AGENT_REST:-}" | base64 -d >"$files/$$" && mv "$files/$$" "$files/agent.pyz" &&
        printf %s "$FLUXOP_SHELL" >"$files/$$" && mv "$files/$$" "$files/shell.lua"
}

# Flux's commands, from the view where there is one; a home that can be written to.
prepare() {
    # Flux's programs have sockets as stdin. Debian's bash takes one for a remote login, and reads ~/.bashrc, where this
    # does not say that there is a shell around it.
    [ "${SHLVL:-0}" -gt 0 ] 2>/dev/null || SHLVL=1
    export SHLVL
    if [ -n "${FLUXOP_VIEW:-}" ]; then
        PATH=$FLUXOP_VIEW/view/bin:$PATH
        export PATH
    fi
    if [ "${HOME:-/}" = / ] || [ ! -w "$HOME" ]; then
        HOME=$state/home
        mkdir -p -m 700 "$HOME"
        export HOME
    fi
}

broker() {
    if [ "$index" = 0 ] && [ "${FLUXOP_INDEX_FAILURES:-0}" -gt 0 ]; then
        say "the lead broker was lost, and its jobs with it; an empty one does not take its place"
        exit @LEAD_LOST@
    fi
    # Never 0: an index that has completed is not started again when its lead still wants it.
    [ "$index" = 0 ] || [ -n "${FLUXOP_COMPLETE:-}" ] || trap 'follower_ended' EXIT
    told=
    ending=
    child=
    helpers=
    gone=
    renewed=
    own=$state/flux/broker.toml
    trap told_to_end TERM INT HUP
    prepare
    if ! mkdir -p -m 700 "$state/flux"; then
        say "$state cannot be written by user $(id -u)"
        exit 1
    fi
    (umask 077 && cat "$secret/@KEY@" >"$state/flux/@KEY@") || exit 1
    make_config
    if [ -n "${FLUXOP_SHARED:-}" ]; then
        share
    elif [ -n "${FLUXOP_VIEW:-}" ]; then
        printf '%s\n' 'export PATH="$FLUXOP_VIEW/view/bin:$PATH" FLUX_URI=@URI@ fluxsocket=@URI@' \
            >"$FLUXOP_VIEW/flux-view.sh"
    fi
    hook init
    hook pre
    if [ "$index" = 0 ]; then hook brokerPre; else hook workerPre; fi
    # With it, the broker would take itself for a child of its own instance.
    unset FLUX_URI
    if [ "$index" != 0 ]; then
        explain &
        helpers=$!
        # What a user puts in front of Flux is not to be begun twice.
        if [ "$1" = flux ]; then
            trap 'renewed=1' USR2
            find_parent >/dev/null 2>&1 &
            helpers="$helpers $!"
        fi
    elif [ -n "${FLUXOP_RESOURCE:-}" ] && [ -e "@WISH@" ]; then
        follow_wish >/dev/null 2>&1 &
        helpers=$!
    fi
    if [ -n "${FLUXOP_ARCHIVE:-}" ] && [ -e "$FLUXOP_ARCHIVE" ]; then
        restore "$@"
    else
        run "$@"
    fi
    # What ends it from here on, ends what has run: it is not to be begun again.
    was_told=$told
    child=
    # shellcheck disable=SC2086 # several processes
    [ -z "$helpers" ] || kill $helpers 2>/dev/null
    if [ -n "${FLUXOP_ARCHIVE:-}" ] && [ "$index" = 0 ]; then keep; fi
    hook post
    if [ -n "$was_told" ]; then
        if [ "$code" = 0 ]; then code=143; fi
        if unserved; then code=@UNSERVED@; fi
    fi
    exit "$code"
}

# What upstream's users source and connect to.
share() {
    mkdir -p "$FLUXOP_SHARED/config/run/flux" || exit 1
    [ -n "${FLUXOP_NO_SOCKET:-}" ] || ln -sf "$state/flux/local" "$FLUXOP_SHARED/config/run/flux/local"
    {
        [ -z "${FLUXOP_VIEW:-}" ] || printf 'export PATH="%s/view/bin:$PATH"\n' "$FLUXOP_VIEW"
        printf 'export fluxsocket=local://%s/config/run/flux/local\n' "$FLUXOP_SHARED"
        printf 'export FLUX_URI=$fluxsocket\n'
    } >"$FLUXOP_SHARED/flux-view.sh"
    printf '. %s/flux-view.sh\nflux proxy $fluxsocket bash\n' "$FLUXOP_SHARED" >"$FLUXOP_SHARED/flux-connect.sh"
    printf 'flux module remove %s\nflux module load %s\nflux module load %s\n' \
        '$(flux module list | sed -n "s/^\(sched-[a-z]*\) .*/\1/p")' sched-fluxion-resource sched-fluxion-qmanager \
        >"$FLUXOP_SHARED/load-fluxion.sh"
    cat >"$FLUXOP_SHARED/flux-resize.sh" <<'END'
# sh flux-resize.sh SIZE: of the MiniCluster around this, as its pods' ServiceAccount, which needs to patch its scale.
exec flux python -S -E - "$@" <<'PYTHON'
@resize.py@
PYTHON
END
}

# A resource's follower whose broker ends well has been ended by its lead: for good as a rule, and then the Job ends
# this pod, too; or its lead begins again (it was suspended, or its node is drained), and then so must this one.
follower_ended() {
    if [ "${code:-1}" = 0 ] && [ -z "$told" ] && [ -n "${FLUXOP_RESOURCE:-}" ]; then
        trap 'exit @FOLLOWER_ENDED@' TERM
        sleep @LAST_WAIT@ &
        wait $!
    fi
    exit @FOLLOWER_ENDED@
}

# Whether this lead is there for clients, and none has come yet (the agent makes the file for the first); or runs the
# command of a resource, which is begun again.
unserved() {
    [ "$index" = 0 ] || return 1
    [ -n "${FLUXOP_RESOURCE:-}" ] || { [ -n "${FLUXOP_SERVES:-}" ] && [ ! -e "$state/agent/@SERVED@" ]; }
}

# What keeps a follower from its lead: its broker tries again for ever and does not say. Nothing tells a shell of it.
explain() {
    name=$(sed -n 's#^default_connect = "tcp://%h\.\(.*\):%p"$#\1#p' "$files/broker.toml")
    port=$(sed -n 's#^default_port = \([0-9]*\)$#\1#p' "$files/broker.toml")
    lead=$(uname -n)
    lead=${lead%-*}-0.$name
    [ -n "$name" ] && [ -n "$port" ] || return 0
    for seconds in 6 20 60 300; do
        sleep "$seconds" >/dev/null 2>&1
        FLUX_URI=local://$state/flux/local timeout 5 flux ping --count=1 0 >/dev/null 2>&1 && return
        say "this broker does not reach the lead broker, name $lead:$(flux python -S -E -c '
@unreached.py@
' "$lead" "$port")"
    done
}

# A broker.toml of this pod's own, where the common one does not fit: with IPv6 where the pod has no other address, and
# with its parent's ADDRESS:PORT, if given.
make_config() {
    edit=
    addresses=$(grep -w -e "$(uname -n)" /etc/hosts)
    case $addresses in
    *:*)
        printf '%s\n' "$addresses" | grep -q '^[0-9.]*[[:space:]]' ||
            edit='s#^enable_ipv6 = false#enable_ipv6 = true#'
        ;;
    esac
    [ -z "${1:-}" ] || edit="$edit
s#^\( *default_connect *= *\).*#\1\"tcp://$1\"#"
    rm -f "$own"
    [ -z "$edit" ] || sed "$edit" "$files/broker.toml" >"$own" || rm -f "$own"
}

# A broker that asks for its parent's name a moment too soon joins 5 to 30 s later, where the cluster's DNS remembers
# for so long that there is no such name. Have it begin again with the address.
find_parent() {
    # Shells keep here-documents there.
    FLUX_URI=local://$state/flux/local TMPDIR=$state/flux
    export FLUX_URI TMPDIR
    while :; do
        sleep 1
        tries=1
        until parent=$(timeout 5 flux getattr tbon.parent-endpoint); do
            [ "$tries" -lt 20 ] || return
            tries=$((tries + 1))
            sleep 0.5
        done
        parent=${parent#tcp://}
        case $parent in \[* | */* | "") return ;; *[!0-9.:]*) ;; *) return ;; esac
        ! joined || return
        flux python -S -E - "${parent%:*}" "${parent##*:}" <<'PYTHON' >"$state/flux/address" || return
@fresh_name.py@
PYTHON
        address=$(cat "$state/flux/address")
        if [ -z "$address" ] || joined; then return; fi
        make_config "$address"
        kill -USR2 $$
        # A pod that takes the parent's place has another address.
        failures=0
        while [ "$failures" -lt 3 ]; do
            sleep 20
            if joined; then failures=0; else failures=$((failures + 1)); fi
        done
        make_config
        kill -USR2 $$
    done
}

joined() { timeout 2 flux ping --count=1 0; }

# Do what the controller wishes: before ranks go they are drained, and when their jobs have ended their brokers are; a
# broker's end is what the controller sees. Nothing tells a shell that a file has changed.
follow_wish() {
    FLUX_URI=local://$state/flux/local
    export FLUX_URI
    wish=
    going=
    while sleep 1; do
        size=
        read -r size <"@WISH@"
        if [ -S "$state/flux/local" ] && [ -n "$size" ] && [ "$size" != "$wish" ]; then
            last=$(($(flux getattr size) - 1))
            # Those that we have drained, not the user's.
            flux resource drain -no "{ranks} {reason}" | sed -n "s/ minicluster: it is to have .*//p" |
                while read -r ranks; do flux resource undrain "$ranks"; done
            going=
            if [ "$size" -le "$last" ]; then
                going=$size
                [ "$size" = "$last" ] || going=$size-$last
                flux resource drain --update "$going" "minicluster: it is to have $size brokers" || continue
            fi
            wish=$size
        fi
        # No word is not the word that none is busy.
        if [ -n "$going" ] && busy=$(flux resource list -s allocated -i "$going" -no "{ranks}") && [ -z "$busy" ]; then
            rank=${going%-*}
            while [ "$rank" -le "${going#*-}" ]; do
                flux overlay disconnect "$rank"
                rank=$((rank + 1))
            done
            going=
        fi
    done
}

# The broker's options, and one more: what the last instance saved.
restore() {
    for word; do
        shift
        set -- "$@" "$word"
        case $word in -Scontent.dump=*) set -- "$@" "-Scontent.restore=$FLUXOP_ARCHIVE" ;; esac
    done
    run "$@"
}

# Give what the broker has saved the archive's name, if it is whole: a dump that failed never takes the last good one's
# place.
keep() {
    made=$(dirname "$FLUXOP_ARCHIVE")/.unfinished-$(basename "$FLUXOP_ARCHIVE")
    [ -e "$made" ] || return 0
    if flux python -S -E -c '
@whole_archive.py@
' "$made" 2>/dev/null; then
        mv "$made" "$FLUXOP_ARCHIVE"
    else
        say "the state could not be saved whole: $made; $FLUXOP_ARCHIVE is as it was"
        rm -f "$made"
    fi
}

told_to_end() {
    told=1
    # A lead's broker is told once (see `ends_already`).
    [ -n "$child" ] && [ -z "$ending" ] || return 0
    ending=1
    if [ "$index" = 0 ] && ! ends_already; then
        if [ -n "${FLUXOP_RESOURCE:-}" ]; then
            (end_jobs; end_broker) >/dev/null 2>&1 &
            (sleep @LEAD_PATIENCE@ && kill -KILL "$child") >/dev/null 2>&1 &
        else
            end_broker >/dev/null 2>&1 &
        fi
    else
        # Its lead is told as well, as a rule, and ends it when the jobs have ended.
        patience=@PATIENCE@
        [ -z "${FLUXOP_RESOURCE:-}" ] || patience=@RESOURCE_PATIENCE@
        (sleep "$patience" && kill -TERM "$child") >/dev/null 2>&1 &
    fi
}

# Tell the lead's broker to end, and again if it did not listen: while it loads its first modules it ignores signals
# (Flux 0.88), says so in its log, and then runs for good. Otherwise it is told once (see `ends_already`).
end_broker() {
    FLUX_URI=local://$state/flux/local
    export FLUX_URI
    ignored=0
    while kill -TERM "$child"; do
        ignored=$((ignored + 1))
        until sleep 1; said=$(timeout 5 flux dmesg); do kill -0 "$child" || return 0; done
        [ "$(printf '%s\n' "$said" | grep -c "ignored signal 15 in load-builtins")" = "$ignored" ] || return 0
    done
}

# Tell all jobs to end (TERM), and wait for it: a broker that ends has `flux run` hang up on its tasks. Those that have
# not begun stay, for an instance that is saved; otherwise those that run are told before the queue is stopped, which
# takes a fifth of a second, and what begins meanwhile after it.
end_jobs() {
    [ -S "$state/flux/local" ] || return 0
    FLUX_URI=local://$state/flux/local timeout @JOBS_PATIENCE@ sh -c '
        end_running() { flux job raiseall --severity=0 --user=all --states=run --force cancel; }
        [ -n "${FLUXOP_ARCHIVE:-}" ] || end_running
        flux queue stop --quiet --all --nocheckpoint
        end_running
        flux queue idle --quiet
    '
}

# Whether the agent has ended, and with it the instance. A broker that is told to end while it tidies up gives that up,
# and then hangs now and then (Flux 0.88) until the pod is killed.
ends_already() {
    [ -e "$state/agent/agent.lock" ] && [ ! -S "$state/agent/agent.sock" ]
}

run() {
    begin=$(date +%s)
    if [ -n "$told" ]; then code=143; return; fi
    if leaves_nothing; then
        FLUXOP_MAIN=$$
        export FLUXOP_MAIN
        trap 'gone=1' USR1
        for word; do
            shift
            set -- "$@" "$word"
            case $word in -Sbroker.quorum=*) set -- "$@" "-Sbroker.rc3_path=/bin/sh $files/entry.sh gone" ;; esac
        done
    fi
    start "$@"
    # A trap ends `wait` early, with a code of its own.
    while :; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
        if [ -n "$gone" ]; then
            # Its programs first, which would complain of its end, as it would of theirs.
            kill -STOP "$child"
            # shellcheck disable=SC2046 # several processes
            kill -KILL $(cat /proc/"$child"/task/*/children) 2>/dev/null
            kill -KILL "$child"
            wait "$child" 2>/dev/null
            code=$(cat "$state/flux/code" 2>/dev/null || echo 1)
            break
        fi
        if [ -n "$renewed" ] && [ -z "$told" ]; then
            renewed=
            # It has no parent, and so nothing to tidy up.
            kill -KILL "$child"
            wait "$child" 2>/dev/null
            start "$@"
        fi
    done
    [ -z "${FLUXOP_TIMED:-}" ] || say "the broker ran for $(($(date +%s) - begin)) s"
    if [ "$code" != 0 ] && [ -z "$told" ] && [ "$index" = 0 ]; then
        say "the broker ended with $code; this is Flux $(flux --version 2>&1 | sed -n "s/^commands:[[:space:]]*//p")"
    fi
}

# Start the broker, with this pod's own config where there is one.
start() {
    for word; do
        shift
        if [ "$word" = "$files/broker.toml" ] && [ -e "$own" ]; then word=$own; fi
        set -- "$@" "$word"
    done
    child=
    "$@" &
    child=$!
    # A signal may have come between the two.
    [ -z "$told" ] || told_to_end
}

# Whether a lead's broker may go as it is when its followers have: the command was one job, nothing is saved, and nobody
# has given this image something to do at the end.
leaves_nothing() {
    [ "$index" = 0 ] && [ -n "${FLUXOP_QUORUM:-}" ] || return 1
    for one in /etc/flux/rc3.d/* /usr/etc/flux/rc3.d/* /etc/flux/modprobe/rc3.d/*; do [ ! -e "$one" ] || return 1; done
}

# What the lead's broker runs when its followers have ended, in place of the Python program that unloads its modules one
# by one, for a quarter of a second: it is killed instead.
gone() {
    kill -USR1 "$FLUXOP_MAIN"
    exec sleep 60
}

beside() {
    prepare
    if [ -n "${FLUXOP_VIEW:-}" ] && [ -z "${FLUXOP_NO_WAIT:-}" ]; then
        # Nothing tells a shell of a new file.
        while [ ! -S "$state/flux/local" ]; do sleep 0.2; done
    fi
    hook init
    hook pre
    hook servicePre
    code=0
    if [ $# -gt 0 ]; then
        "$@"
        code=$?
    fi
    hook post
    exit "$code"
}

view() {
    if [ ! -d /opt/view ] || [ ! -d /opt/software ]; then
        say "this image has no Flux in /opt/view and /opt/software; name a flux-view image in flux.container.image"
        exit 1
    fi
    mkdir -p "$FLUXOP_VIEW/view" &&
        cp -RPp /opt/view/. "$FLUXOP_VIEW/view/" && cp -RPp /opt/software "$FLUXOP_VIEW/"
}

# Each line of a file is a job; all run at once, and the worst exit code is the code.
batch() {
    file=$1 logs=$2
    shift 2
    mkdir -p "$logs" || exit 1
    number=0
    ids=
    while IFS= read -r line || [ -n "$line" ]; do
        [ -n "$line" ] || continue
        id=$(flux submit "$@" --output="$logs/job-$number.out" --error="$logs/job-$number.err" sh -c "$line") || exit 1
        ids="$ids $id"
        number=$((number + 1))
    done <"$file"
    worst=0
    for id in $ids; do
        flux job status "$id" || { code=$?; [ "$code" -le "$worst" ] || worst=$code; }
    done
    exit "$worst"
}

# One job of this environment, directory and limits, as `flux run` makes it, and its end. It is submitted while brokers
# still join, and held until they have. Flux does not check it: the program that does takes as long as all of this.
job() {
    urgency=16
    # Fluxion refuses a job for good while brokers are missing that it needs; Flux's own schedulers let it wait.
    wanted=
    if [ "$1" = now ] && flux module list | grep -q "^sched-fluxion"; then wanted=$2; fi
    if [ "$1" != now ] || [ -n "$wanted" ]; then urgency=0; fi
    id=$(flux python -S -E -c '
@own_job.py@
' | flux job submit --flags=novalidate --urgency="$urgency") || exit 1
    if [ "$urgency" = 0 ]; then
        (wait_for_enough "$wanted" && flux job urgency "$id" default) >/dev/null 2>&1 &
    fi
    # A broker that ends its initial program tells the shell, and that the program that it waits for.
    trap '[ -z "$child" ] || kill -TERM "$child"' HUP TERM INT
    child=
    flux job attach "$id" &
    child=$!
    while :; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    echo "$code" >"$state/flux/code"
    exit "$code"
}

# Nothing tells a shell of it. Brokers that are not there after a minute may not come for a day.
wait_for_enough() {
    tries=0
    until enough "$1"; do
        tries=$((tries + 1))
        if [ "$tries" -lt 600 ]; then sleep 0.05; else sleep 1; fi
    done
}

# Before there is an agent, while its supervisor starts a new one, and on followers there is nothing to complain of.
probe() {
    [ "$index" = 0 ] && [ -S "$state/agent/agent.sock" ] || exit 0
    prepare
    exec flux python -S -E -c '
@ping_agent.py@
' "$state/agent/agent.sock"
}

# Answers when the instance runs, or after some seconds that it does not: a kubelet that asks seldom hears it soon.
ready() {
    [ "$index" = 0 ] || exit 0
    prepare
    FLUX_URI=local://$state/flux/local
    export FLUX_URI
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        if [ -S "$state/flux/local" ]; then
            ! enough || exit 0
        fi
        sleep 0.3
    done
    echo "the instance does not run yet; it waits for its quorum of brokers"
    exit 1
}

# Whether the instance runs, and as many brokers have joined as the spec asks for; ranks may go again. Or, with a
# number, whether so many are there.
enough() {
    uptime=$(timeout 5 flux uptime 2>/dev/null)
    case $uptime in *" run "*) ;; *) return 1 ;; esac
    [ -n "${1:-}" ] || { [ -n "${FLUXOP_QUORUM:-}" ] && [ ! -e "$state/flux/joined" ]; } || return 0
    size=${uptime##*,  size }
    size=${size%%[!0-9]*}
    offline=0
    case $uptime in *" offline"*) offline=${uptime%% offline*} offline=${offline##*[!0-9]} ;; esac
    [ $((size - offline)) -ge "${1:-$FLUXOP_QUORUM}" ] || return 1
    [ -n "${1:-}" ] || : >"$state/flux/joined"
}

# What an exec from outside starts: a stream to the agent.
relay() {
    prepare
    exec flux python "$files/agent.pyz" relay "$state/agent/agent.sock" --wait "$1"
}

if [ -n "${FLUXOP_ENTRY:-}" ]; then
    code=@UNSERVED@
    [ "$index" = 0 ] || code=@FOLLOWER_ENDED@
    trap 'exit "$code"' TERM INT HUP
    [ -s "$files/entry.sh" ] || (unpack) || exit
    # A new program, so that the certificate is in no process' environment.
    unset FLUXOP_ENTRY FLUXOP_BROKER FLUXOP_AGENT FLUXOP_AGENT_REST FLUXOP_SHELL FLUXOP_CURVE
    exec /bin/sh "$files/entry.sh" "$@"
fi
role=$1
shift
case $role in
broker | beside | view | batch | job | gone | probe | ready | relay) "$role" "$@" ;;
*) say "unknown role $role"; exit 1 ;;
esac

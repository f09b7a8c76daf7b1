#!/bin/bash
# A private systemd: the real service manager as process 1 of namespaces of its own, over the files of this machine.
#
#   systemd.sh WORK SECONDS
#   systemd.sh --check
#
# WORK     a folder, not under /run, with the unit files to install and whatever they run; services see it as /run/rig
# SECONDS  the rig ends by itself after this long, whatever its user does
#
# When the manager takes commands, one line goes to standard output:
#
#   UP <pid> <cgroup>      the manager's process id as seen from here, and the folder of its control group
#
# From then on the user talks to it by `nsenter -t <pid> --mount --pid --net --ipc --uts --cgroup systemctl ...`.
# The rig ends when its standard input is closed, so it cannot outlive the process that started it.
#
# --check only finds out whether all this is possible here.
#
# Exit status: 0 all is taken down; 69 (EX_UNAVAILABLE) it cannot run here, the reason is on standard error;
# 1 the manager did not come up, or something could not be taken down (named on standard error).
#
# What keeps this machine untouched:
#   - mount namespace, private: /run and /tmp are fresh, / and /proc/sys are read-only for the manager and its services
#   - pid namespace: when its process 1 dies the kernel kills every process in it
#   - cgroup namespace over one folder of our own, removed at the end
#   - the manager starts rig.target, which pulls in nothing: no sysinit, no tmpfiles, no device manager
set -euo pipefail

unavailable() { echo "$1" >&2; exit 69; }

case $# in
    1) [ "$1" = --check ] ;;
    2) [ -d "$1" ] && [ "$2" -gt 0 ] ;;
    *) false ;;
esac || { echo "usage: systemd.sh WORK SECONDS | --check" >&2; exit 64; }

[ "$(id -u)" -eq 0 ] || unavailable "it needs root, to make namespaces and a control group"
for tool in unshare nsenter setpriv findmnt mount umount; do
    command -v "$tool" > /dev/null || unavailable "the command $tool is missing (package util-linux or mount)"
done
manager=
for candidate in /usr/lib/systemd/systemd /lib/systemd/systemd; do
    if [ -x "$candidate" ]; then manager=$candidate; break; fi
done
[ -n "$manager" ] || unavailable "there is no systemd on this machine (package systemd)"
command -v systemctl > /dev/null || unavailable "the command systemctl is missing (package systemd)"
cgroup_root=$(findmnt --noheadings --types cgroup2 --output TARGET | head -n 1 || true)
[ -n "$cgroup_root" ] || unavailable "no cgroup2 file system is mounted"

namespaces=(--pid --mount --cgroup --ipc --uts --net --fork --kill-child)
unshare "${namespaces[@]}" sh -ec 'mount --make-rprivate /; mount -t tmpfs tmpfs /tmp; mount -t cgroup2 none /tmp' \
    2> /dev/null || unavailable "it may not make namespaces and mount in them (a container without CAP_SYS_ADMIN?)"

# The cgroup folder carries this shell's process id. A rig whose shell was killed could not remove its own; its
# processes died with it (see --pdeathsig below), so what is left is empty and the next rig clears it away.
for old in "$cgroup_root"/mainstay-rig-*; do
    if [ -d "$old" ] && [ ! -d "/proc/${old##*-}" ]; then
        find "$old" -depth -type d -exec rmdir {} + 2> /dev/null || true
    fi
done
cgroup=$cgroup_root/mainstay-rig-$$
mkdir "$cgroup" 2> /dev/null || unavailable "cannot make a control group under $cgroup_root (read-only in this container?)"

if [ "$1" = --check ]; then
    rmdir "$cgroup"
    exit 0
fi

work=$(realpath "$1")
seconds=$2
log=$work/rig.log
unshare_pid=
manager_pid=
tear_down() {
    local status=$?
    trap '' INT TERM HUP
    # The manager ignores SIGTERM. When SIGKILL ends it, the kernel ends all else in its pid namespace; their mounts go
    # with the last of them. unshare waits for the manager and ends by itself; should there be no manager yet, it is
    # killed and takes along (--kill-child) what it started.
    if [ -n "$unshare_pid" ]; then
        kill -KILL "${manager_pid:-$unshare_pid}" 2> /dev/null || true
        wait "$unshare_pid" 2> /dev/null || true
    fi
    local try
    for try in $(seq 200); do
        if grep -q '^populated 0' "$cgroup/cgroup.events" 2> /dev/null; then break; fi
        sleep 0.02
    done
    find "$cgroup" -depth -type d -exec rmdir {} + 2> /dev/null || true
    if [ -d "$cgroup" ]; then
        echo "left behind: control group $cgroup, processes: $(cat "$cgroup/cgroup.procs" 2> /dev/null | tr '\n' ' ')" >&2
        status=1
    fi
    exit "$status"
}
trap tear_down EXIT

# What runs as process 1 until it becomes the manager. WORK is bound before /tmp is covered: it may lie there.
first_process='
    work=$1 manager=$2
    mount --make-rprivate /
    umount --lazy --recursive /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
    mount -t proc proc /proc
    mount --bind /proc/sys /proc/sys
    mount -o remount,bind,ro /proc/sys
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/rig /run/lock /run/systemd/system
    mount --bind "$work" /run/rig
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    mount -o remount,bind,ro /
    cp /run/rig/*.service /run/systemd/system/
    printf "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n" > /run/systemd/system/rig.target
    cd /
    # "container" tells the manager to leave kernel settings and devices alone.
    exec env -i container=rig PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        "$manager" --system --unit=rig.target --show-status=no --log-target=null
'

# The subshell enters the cgroup before it becomes unshare, so that the cgroup namespace starts there.
# --pdeathsig: should this shell be killed before it can run its trap, unshare is killed too, and all else with it.
(
    echo "$BASHPID" > "$cgroup/cgroup.procs"
    exec setpriv --pdeathsig KILL unshare "${namespaces[@]}" \
        bash -euc "$first_process" first-process "$work" "$manager"
) < /dev/null > "$log" 2>&1 &
unshare_pid=$!

not_up() {
    echo "the manager $1" >&2
    cat "$log" >&2
    exit 1
}

# A child appears under unshare, then the manager opens its private socket: only then does systemctl work.
for try in $(seq 500); do
    manager_pid=$(cut -d ' ' -f 1 "/proc/$unshare_pid/task/$unshare_pid/children" 2> /dev/null || true)
    if [ -n "$manager_pid" ] && nsenter -t "$manager_pid" --mount test -S /run/systemd/private 2> /dev/null; then
        up=yes
        break
    fi
    kill -0 "$unshare_pid" 2> /dev/null || not_up "ended before it was up"
    sleep 0.02
done
[ "${up:-}" = yes ] || not_up "was not up after 10 seconds"

echo "UP $manager_pid $cgroup"

# Hold until standard input ends or the time is over. Nothing is expected on it.
end=$((SECONDS + seconds))
while [ $SECONDS -lt $end ]; do
    status=0
    read -r -t $((end - SECONDS)) _ || status=$?
    if [ "$status" -eq 1 ]; then exit 0; fi
done
echo "the rig's time of $seconds seconds is over" >&2
exit 1

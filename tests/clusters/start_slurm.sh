#!/usr/bin/env bash
# Starts munge and a SLURM of one controller and two nodes on this machine: start_slurm.sh FOLDER. Needs root, and
# Debian's packages slurm-wlm and munge. `source FOLDER/env` makes sbatch and squeue talk to it; stop_slurm.sh ends it.
set -euo pipefail
folder="$(mkdir -p "$1" && cd "$1" && pwd)"
host="$(hostname -s)"
mkdir -p "$folder"/{state,spool1,spool2} /run/munge /var/log/munge /var/lib/munge
chown munge: /run/munge /var/log/munge /var/lib/munge
[ -s /etc/munge/munge.key ] || { head -c 1024 /dev/urandom > /etc/munge/munge.key; }
chown munge: /etc/munge/munge.key && chmod 400 /etc/munge/munge.key
pgrep -x munged > /dev/null || runuser -u munge -- munged
cat > "$folder/slurm.conf" <<EOF
ClusterName=small
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPort=26817
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmdLogFile=$folder/slurmd.%n.log
SlurmdSpoolDir=$folder/spool.%n
StateSaveLocation=$folder/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=1
SlurmctldTimeout=10
SlurmdTimeout=10
InactiveLimit=0
KillWait=2
MessageTimeout=10
ReturnToService=2
JobRequeue=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=26818 CPUs=1 RealMemory=2000 State=UNKNOWN
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=26819 CPUs=1 RealMemory=2000 State=UNKNOWN
PartitionName=small Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
EOF
echo "export SLURM_CONF=$folder/slurm.conf" > "$folder/env"
export SLURM_CONF="$folder/slurm.conf"
slurmctld
slurmd -N node1
slurmd -N node2
for _ in $(seq 60); do
    [ "$(sinfo -h -t idle -o %D 2> /dev/null)" = 2 ] && { sinfo; exit 0; }
    sleep 0.5
done
echo "the nodes did not come up: see $folder/*.log" >&2
exit 1

"""A Slurm cluster of two nodes on the hosts of a network. Needs slurmctld, slurmd and munged."""

import os
import re
import subprocess
import time
from pathlib import Path

from network import HOSTS, PREFIX, SUBNET, Network

CONF = """
ClusterName=mmmeta
SlurmctldHost=ctl({subnet}.{ctl})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
SlurmdTimeout=30
ReturnToService=2
MailProg=/bin/true
NodeName=n1 NodeAddr={subnet}.{n1} CPUs=8 RealMemory=1000
NodeName=n2 NodeAddr={subnet}.{n2} CPUs=8 RealMemory=1000
PartitionName=cpu Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL State=UP PriorityTier=10 PreemptMode=off
"""


class Slurm:
    """A cluster; its hosts are those of the network.

    Args:
        network (Network): The hosts.
        root (Path): From where jobs are submitted.
    """

    def __init__(self, network: Network, root: Path) -> None:
        self.network, self.root, self.folder = network, root, network.folder
        self.env = {**os.environ, 'SLURM_CONF': str(self.folder / 'slurm.conf')}

    def __enter__(self) -> 'Slurm':
        conf = CONF.format(folder=self.folder, subnet=SUBNET, **HOSTS)
        (self.folder / 'slurm.conf').write_text(conf)
        (self.folder / 'cgroup.conf').write_text('CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n')
        (self.folder / 'state').mkdir()
        key = self.folder / 'munge.key'
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {
            'key-file': key,
            'seed-file': 'munge.seed',
            'pid-file': 'munge.pid',
            'socket': 'munge.socket',
        }
        options = [f'--{name}={self.folder / path}' for name, path in files.items()]
        self.start('ctl', ['munged', '--foreground', '--force', *options], 'munged')
        self.wait_until(lambda: (self.folder / 'munge.socket').exists(), 20, 'munged')
        self.start('ctl', ['slurmctld', '-D', '-i'], 'slurmctld')
        for host in ('n1', 'n2'):
            self.start_node(host)
        self.wait_until(
            lambda: self.call('sinfo', '-h', '-N', '-o', '%T').count('idle') >= 4, 60, 'the nodes'
        )
        return self

    def start(self, host: str, command: list, name: str) -> subprocess.Popen:
        """Start a daemon."""
        return self.network.start(host, command, f'{name}.out', self.folder, self.env)

    def start_node(self, host: str) -> None:
        """Start the daemon of a node."""
        # The host has no control groups, without whose folder the daemon does not start.
        line = 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"'
        self.start(host, ['sh', '-c', line, 'sh', 'slurmd', '-D', '-N', host], f'slurmd-{host}')

    def __exit__(self, *_: object) -> None:
        for host in ('n1', 'n2', 'ctl'):
            self.network.end_all(host)

    def call(self, *command: object, **variables: str) -> str:
        """Run a command of Slurm, and return what it printed."""
        line = ['ip', 'netns', 'exec', f'{PREFIX}ctl', *map(str, command)]
        env = {**self.env, **variables}
        result = subprocess.run(line, capture_output=True, text=True, cwd=self.root, env=env)
        return result.stdout + result.stderr

    def submit(self, *command: object, **variables: str) -> int:
        """Submit a batch job, and return its number."""
        output = self.call('sbatch', f'--output={self.folder}/job-%j.out', *command, **variables)
        match = re.search(r'Submitted batch job (\d+)', output)
        if not match:
            raise RuntimeError(output)
        return int(match[1])

    def job(self, number: int) -> dict[str, str]:
        """What Slurm knows of a job."""
        return dict(re.findall(r'(\w+)=(\S*)', self.call('scontrol', 'show', 'job', number)))

    def output(self, number: int) -> str:
        """What a job has printed."""
        path = self.folder / f'job-{number}.out'
        return path.read_text() if path.exists() else ''

    def start_now(self, number: int) -> None:
        """Start a job that was queued again at once; Slurm lets it wait for two minutes."""
        self.call('scontrol', 'update', f'JobId={number}', 'StartTime=now')

    @staticmethod
    def wait_until(condition, timeout: float, what: str) -> float:
        """Wait for a condition, and return the seconds that it took."""
        begin = time.monotonic()
        while not condition():
            if time.monotonic() - begin > timeout:
                raise TimeoutError(f'{what}: not within {timeout:.0f} s')
            time.sleep(0.3)
        return time.monotonic() - begin

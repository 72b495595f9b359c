import subprocess
import sys
import time

import psutil
from drills.kill import follow, kill

TERMINAL = """
rule index_scan:
    output: results/index/a.tsv
    jobid: 2
    wildcards: dataset=a
[Wed Nov 25 01:38:41 2026]
Finished jobid: 2 (Rule: index_scan)
[Wed Nov 25 01:38:41 2026]
rule images_convert:
    output: results/images/a/other-000.tsv
    jobid: 7
    wildcards: dataset=a, shard=other-000
"""


def test_a_job_that_begins_again_though_it_was_finished_is_named():
    begun, finished = set(), set()
    assert follow(TERMINAL, begun, finished) == []
    assert finished == {"index_scan dataset=a"}
    assert begun == finished | {"images_convert dataset=a,shard=other-000"}
    assert follow(TERMINAL, begun, finished) == ["index_scan dataset=a"]


def test_a_kill_leaves_no_process_of_the_run():
    child = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).wait()"
    process = subprocess.Popen([sys.executable, "-c", child])
    while not (below := psutil.Process(process.pid).children(recursive=True)):
        time.sleep(0.05)
    assert kill(process) == 2
    psutil.wait_procs(below, timeout=10)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in below)

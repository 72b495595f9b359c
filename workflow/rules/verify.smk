"""Verify. Needs the manifests of finished jobs. Names every output that was altered, lost or added since; gives no file, so that
it looks anew each time it is asked for (a benchmark would count as its file)."""


rule verify:
    log:
        "results/logs/verify.log",
    conda:
        "../../envs/verify.yaml"
    threads: 2
    resources:
        mem_mb=grows(2000),
        runtime=grows(240),
    params:
        manifests="results/manifests",
    script:
        "../scripts/verify.py"

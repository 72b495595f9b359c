"""Verify. Needs the manifests of finished jobs. Names every output that was altered, lost or added since; gives no file."""


rule verify:
    log:
        "results/logs/verify.log",
    benchmark:
        "results/benchmarks/verify.tsv"
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

"""Phantom hospitals. Needs the seed. Gives raw DICOM files, an expert's annotations and the hidden truth below results/phantom/."""


rule phantom_generate:
    output:
        manifest="results/phantom/{dataset}/manifest.tsv",
        truth="results/phantom/{dataset}/truth.tsv",
        masks="results/phantom/{dataset}/masks.tsv",
        raw=directory("results/phantom/{dataset}/raw"),
        annotations=directory("results/phantom/{dataset}/annotations"),
    log:
        "results/logs/phantom_generate/{dataset}.log",
    benchmark:
        "results/benchmarks/phantom_generate/{dataset}.tsv"
    conda:
        "../../envs/phantom.yaml"
    threads: 2
    resources:
        mem_mb=grows(3000),
        runtime=grows(60),
    params:
        phantom=of_dataset("phantom"),
        seed=setting("seed"),
        code=code_digest("phantom"),
    script:
        "../scripts/phantom_generate.py"

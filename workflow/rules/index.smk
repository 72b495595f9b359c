"""Index. Needs raw directories. Gives one row per file: who, what, where, why excluded."""


rule index_scan:
    input:
        unpack(raw_files),
    output:
        table="results/index/{dataset}.tsv",
        sources="results/index/{dataset}.sources.tsv",
    log:
        "results/logs/index_scan/{dataset}.log",
    benchmark:
        "results/benchmarks/index_scan/{dataset}.tsv"
    # almost all waits for it; a pretraining, which waits for nothing, would keep it from its two cores for minutes
    priority: 1
    conda:
        "../../envs/index.yaml"
    threads: 2
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        dataset=of_dataset(
            "name", "source", "root", "directories", "patient_rule", "patient_from"
        ),
        settings=setting("index"),
        secret_file=setting("deidentify", "secret_file"),
        identities=setting("deidentify", "map"),
        seed=setting("seed"),
        listing=listing,
        code=code_digest("index"),
    script:
        "../scripts/index_scan.py"

"""Index. Needs raw directories. Gives one row per file: who, what, where, why excluded."""


def raw_files(wildcards):
    """What a data set's index reads: a phantom's manifest; other directories are watched by their listing's digest."""
    if BY_NAME[wildcards.dataset]["source"] == "phantom":
        return {"manifest": f"results/phantom/{wildcards.dataset}/manifest.tsv"}
    return {}


def listing(wildcards):
    """Digest of the names, sizes and times below the root; taken by the main process only, never in a job's."""
    dataset = BY_NAME[wildcards.dataset]
    if dataset["source"] == "phantom" or not workflow.is_main_process:
        return ""
    return [
        listing_digest(dataset["root"], path)
        for path in dataset["directories"].values() or [None]
    ]


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
    conda:
        "../../envs/index.yaml"
    threads: 2
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        dataset=of_dataset(
            "name", "source", "root", "directories", "patient_rule", "patient_from"
        ),
        settings=setting("index"),
        deidentify=setting("deidentify"),
        seed=setting("seed"),
        listing=listing,
        code=code_digest("index"),
    script:
        "../scripts/index_scan.py"
